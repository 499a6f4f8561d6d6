"""Nearest neighbours among very many vectors: usearch's graph (HNSW), a cache of what SQLite holds.

Malkov and Yashunin 2016 (arXiv 1603.09320). Its file is believed only when its digest and that of
the vectors it was made of are right: usearch itself loads a damaged one without a word. Whatever is
wrong with it, it is made anew from the vectors.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib

import numpy as np
from absl import logging

from dreaming import mishaps

_CONNECTIVITY, _ADD, _SEARCH = 16, 96, 128  # of HNSW: M, ef at building and at searching
_BATCH = 65_536  # rows that are hashed or added at a time
_UNKEPT = (OSError, RuntimeError, ValueError)  # what usearch makes of a disk's errors
_AGAIN = 1.3  # growth from which it is made anew: what was added since is searched exactly


class Graph:
  """Searches the rows it was made of.

  Args:
    vectors: unit rows Float['N D']; keys are row numbers.
    path: where it is kept; None keeps it nowhere.
  """

  def __init__(self, vectors: np.ndarray, path: pathlib.Path | None = None):
    self.count = len(vectors)
    digest = _digest(vectors)
    found, self.remark = None, ''
    if path is not None and path.exists():
      found = _load(path, digest, vectors.shape)
      if found is None:
        self.remark = f'{path} is damaged, or of other vectors: it is made anew'
    self._index = found or _build(vectors)
    if path is not None and found is None:
      try:
        _save(self._index, path, digest)
      except _UNKEPT as e:
        self.remark = f'{path} is not kept, and made again next time: {mishaps.line(e)}'
        logging.warning(self.remark)

  def outgrown(self, count: int) -> bool:
    """Whether so many rows are too many for the exact search of what was added since."""
    return count > self.count * _AGAIN

  def near(self, vector: np.ndarray, k: int) -> np.ndarray:
    """Rows Int['k'] that are probably the nearest to Float['D'], best first."""
    return self._index.search(vector, k).keys.astype(np.int64)


def _digest(vectors: np.ndarray) -> str:
  digest = hashlib.sha256(str(vectors.shape).encode())
  for start in range(0, len(vectors), _BATCH):
    digest.update(np.ascontiguousarray(vectors[start : start + _BATCH], '<f4'))
  return digest.hexdigest()


def _build(vectors: np.ndarray):
  from usearch.index import Index, MetricKind

  index = Index(
    ndim=vectors.shape[1], metric=MetricKind.Cos, dtype='f16', connectivity=_CONNECTIVITY,
    expansion_add=_ADD, expansion_search=_SEARCH,
  )  # fmt: skip
  for start in range(0, len(vectors), _BATCH):
    some = vectors[start : start + _BATCH]
    index.add(np.arange(start, start + len(some), dtype=np.uint64), some)
  return index


def _load(path: pathlib.Path, digest: str, shape: tuple[int, ...]):
  """The kept one, if it is whole and of these vectors."""
  from usearch.index import Index

  try:
    note = json.loads(_note(path).read_text(encoding='utf-8'))
    if note['vectors'] != digest or note['file'] != _file_digest(path):
      return None
    index = Index.restore(str(path))
  except (*_UNKEPT, KeyError, TypeError):  # none, or a damaged one
    return None
  return index if index is not None and (len(index), index.ndim) == shape else None


def _save(index, path: pathlib.Path, digest: str) -> None:
  """In this order, so that a note never speaks for a file that is not all there."""
  path.parent.mkdir(parents=True, exist_ok=True)
  unfinished = path.with_name(f'{path.name}.part')
  try:
    index.save(str(unfinished))
    with unfinished.open('rb+') as f:
      os.fsync(f.fileno())
    note = json.dumps({'vectors': digest, 'file': _file_digest(unfinished)})
    _note(path).unlink(missing_ok=True)
    unfinished.rename(path)
    unfinished.write_text(note, encoding='utf-8')
    unfinished.rename(_note(path))
  finally:
    unfinished.unlink(missing_ok=True)  # half of it would only fill a full disk further


def _note(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f'{path.name}.json')


def _file_digest(path: pathlib.Path) -> str:
  with path.open('rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()
