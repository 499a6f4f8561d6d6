"""Trees of arrays that one step of a night leaves for the next: whole, or as good as not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from flax.traverse_util import flatten_dict, unflatten_dict

from dreaming import mishaps


def write(path: pathlib.Path, tree: Mapping[str, Any]) -> str:
  """Writes a nested dict of arrays; returns the file's SHA-256 when it is durable."""
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.tmp')
  with temporary.open('w+b') as file:
    np.savez(file, **jax.tree.map(np.asarray, flatten_dict(tree, sep='/')))
    file.flush()
    os.fsync(file.fileno())
    file.seek(0)
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  os.replace(temporary, path)
  descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
  return digest


def digest(tree: Any) -> str:
  """SHA-256 over the arrays of any tree."""
  total = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    x = np.ascontiguousarray(leaf)
    total.update(f'{x.dtype}{x.shape}'.encode())
    total.update(x.tobytes())
  return total.hexdigest()


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A file to write that takes the place of `path` when it is whole; what is not, goes."""
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.stem}-{uuid.uuid4().hex}{path.suffix}')
  try:
    yield temporary
    temporary.rename(path)
  finally:
    temporary.unlink(missing_ok=True)  # half of it would only fill a full disk further


@contextlib.contextmanager
def spared(path: pathlib.Path) -> Iterator[None]:
  """While it is entered: what a cache has no room for costs time alone, when it is made again."""
  try:
    yield
  except OSError as e:
    logging.warning('%s is not kept, and made again next time: %s', path, mishaps.line(e))


def keep(path: pathlib.Path, figures: Mapping[str, Any]) -> None:
  """Writes plain values with their digest: a flipped digit would move a gate unseen.

  Where they cannot be kept, that is logged.
  """
  text = json.dumps(figures)
  with spared(path), replacing(path) as temporary:
    temporary.write_text(f'{hashlib.sha256(text.encode()).hexdigest()}\n{text}\n')


def kept(path: pathlib.Path) -> dict[str, Any]:
  """What `keep` wrote. Raises OSError when it is not there, ValueError when it is another."""
  digest, _, text = path.read_bytes().partition(b'\n')
  if hashlib.sha256(text.removesuffix(b'\n')).hexdigest().encode() != digest:
    raise ValueError(f'{path} does not have its digest')
  return json.loads(text)


def written(path: pathlib.Path, digest: str) -> dict[str, Any]:
  """What was written a moment ago, as `read` will find it. Raises OSError when it is not there."""
  if (found := read(path, digest)) is None:
    raise OSError(f'{path} is not as it was written: check that disk, then sleep again')
  return found


def read(path: pathlib.Path, digest: str) -> dict[str, Any] | None:
  """NumPy arrays as they were written; None where the file is missing or another one."""
  try:
    with path.open('rb') as file:
      if hashlib.file_digest(file, 'sha256').hexdigest() != digest:
        return None
      file.seek(0)
      with np.load(file, allow_pickle=False) as arrays:
        return unflatten_dict({name: arrays[name] for name in arrays.files}, sep='/')
  except (OSError, ValueError, zipfile.BadZipFile):
    return None
