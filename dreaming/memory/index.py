"""Nearest-neighbour search over the diary's vectors: a cache, never the truth.

Of up to 50,000 rows exact, one matrix product, and nothing on disk can go stale. Of more, graph.py
proposes, and what was added since is looked at exactly.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from dreaming.memory.diary import Diary
from dreaming.memory.embed import Embedder, experience_text
from dreaming.memory.graph import Graph

_EXACT = 50_000  # rows; twice as many of 256 numbers take a core 9 ms


class Index:
  """Unit vectors by id.

  Args:
    ids: Int['N'], distinct.
    vectors: Float['N D']; rows are normalized here, zero rows stay zero.
    path: where the graph of a large index is kept; None keeps it in memory alone.

  Raises:
    ValueError: ids repeat, or the shapes do not fit.
  """

  def __init__(self, ids: np.ndarray, vectors: np.ndarray, path: pathlib.Path | None = None):
    ids = np.asarray(ids, np.int64)
    vectors = np.asarray(vectors, np.float32)
    if vectors.ndim != 2 or ids.shape != vectors.shape[:1]:
      raise ValueError(f'{ids.shape} ids do not fit vectors of shape {vectors.shape}')
    self._rows = {int(i): row for row, i in enumerate(ids)}
    if len(self._rows) < len(ids):
      raise ValueError('an id occurs twice in the index')
    self._ids = ids.copy()
    self._vectors = _unit(vectors)
    self._count = len(ids)
    self._path = path
    self._graph: Graph | None = None

  def __len__(self) -> int:
    return self._count

  def __contains__(self, id: int) -> bool:
    return id in self._rows

  @property
  def dim(self) -> int:
    """Numbers in a vector; 0 as long as there is none."""
    return self._vectors.shape[1]

  @property
  def ids(self) -> np.ndarray:
    return self._ids[: self._count]

  def vector(self, id: int) -> np.ndarray:
    """The unit vector Float['D'] of an id. Raises KeyError."""
    return self._vectors[self._rows[id]]

  def vectors(self, ids: Sequence[int]) -> np.ndarray:
    """The unit vectors Float['N D'] of ids. Raises KeyError."""
    return self._vectors[[self._rows[i] for i in ids]]

  def add(self, id: int, vector: np.ndarray) -> None:
    """Adds one vector Float['D'], or replaces it. Raises ValueError for another dimension."""
    vector = np.asarray(vector, np.float32).reshape(1, -1)
    if not self._count and not self._vectors.shape[1]:
      self._vectors = np.zeros((0, vector.shape[1]), np.float32)
    self._check(vector)
    if id not in self._rows:
      if self._count == len(self._vectors):  # double, so that N additions copy O(N) rows
        room = max(16, self._count)
        self._vectors = np.pad(self._vectors, ((0, room), (0, 0)))
        self._ids = np.pad(self._ids, (0, room))
      self._rows[id] = self._count
      self._ids[self._count] = id
      self._count += 1
    elif self._graph is not None:  # it has the old one
      self._graph = None
    self._vectors[self._rows[id]] = _unit(vector)[0]

  def cosines(self, vector: np.ndarray) -> np.ndarray:
    """Cosine of a query Float['D'] with every row: Float['N'], in the order of `ids`."""
    if not self._count:
      return np.zeros(0, np.float32)
    vector = np.asarray(vector, np.float32).reshape(1, -1)
    self._check(vector)
    return self._vectors[: self._count] @ _unit(vector)[0]

  def search(
    self, vector: np.ndarray, k: int, only: Sequence[int] | None = None
  ) -> list[tuple[int, float]]:
    """The k nearest, best first, as (id, cosine); equal ones in the order in which they came.

    Args:
      vector: Float['D'].
      k: at most.
      only: among these ids, by default all.
    """
    if not self._count:
      return []
    vector = _unit(np.asarray(vector, np.float32).reshape(1, -1))
    self._check(vector)
    vector = vector[0]
    rows = self._near(vector, k) if only is None else self._among(only)
    ids = self._ids[: self._count][rows]
    cosines = self._vectors[: self._count][rows] @ vector
    k = min(k, len(cosines))
    if k <= 0:
      return []
    bound = np.partition(cosines, -k)[-k]
    near = np.flatnonzero(cosines >= bound)
    near = near[np.argsort(-cosines[near], kind='stable')][:k]
    return [(int(ids[row]), float(cosines[row])) for row in near]

  def _near(self, vector: np.ndarray, k: int) -> np.ndarray | slice:
    """Rows that the k nearest are among."""
    if self._count <= _EXACT:
      return slice(None)
    if self._graph is None or self._graph.outgrown(self._count):
      self._graph = Graph(self._vectors[: self._count], self._path)
    rows = self._graph.near(vector, min(k, self._graph.count))
    return np.concatenate([rows, np.arange(self._graph.count, self._count)])

  def _among(self, ids: Sequence[int]) -> np.ndarray:
    return np.array([self._rows[i] for i in ids if i in self._rows], np.int64)

  def _check(self, vector: np.ndarray) -> None:
    if vector.shape[1] != self._vectors.shape[1]:
      raise ValueError(f'the index has dimension {self._vectors.shape[1]}, not {vector.shape[1]}')


def build(
  diary: Diary, embedder: Embedder, batch: int = 256, path: pathlib.Path | None = None
) -> Index:
  """The index of a diary; experiences that this embedder has not seen are embedded and kept."""
  missing = diary.unembedded(embedder.name)
  for start in range(0, len(missing), batch):
    some = missing[start : start + batch]
    with diary.transaction():
      vectors = embedder([experience_text(e) for e in some])
      for e, vector in zip(some, vectors, strict=True):
        diary.set_embedding(e.id, vector, embedder.name)
  return Index(*diary.embeddings(embedder.name), path)


def _unit(vectors: np.ndarray) -> np.ndarray:
  return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
