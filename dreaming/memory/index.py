"""Nearest-neighbour search over the diary's vectors: a cache, never the truth.

Of up to 50,000 rows exact, one matrix product, and nothing on disk can go stale. Of more, graph.py
proposes, and what was added since is looked at exactly.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from dreaming.memory.diary import Diary
from dreaming.memory.embed import Embedder, experience_text
from dreaming.memory.graph import Graph
from dreaming.memory.hubness import Hubness

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
    self._hubness = Hubness()

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
    """The unit vectors Float['N D'] of ids, zeros for unknown ones."""
    rows = self._places(ids)
    return (
      np.where(rows[:, None] >= 0, self._vectors[rows], 0.0)
      if self._count
      else (np.zeros((len(rows), self.dim), np.float32))
    )

  def hubness(self, ids: Sequence[int]) -> np.ndarray:
    """How near each of some ids is to what is nearest to it: Float['N'], NaN for unknown ones."""
    rows = self._places(ids)
    known = rows >= 0
    out = np.full(len(rows), np.nan, np.float32)
    out[known] = self._hubness.of(self.ids, self._vectors[: self._count], rows[known])
    return out

  def asked(self, vector: np.ndarray) -> Asked:
    """What is asked of one query Float['D']."""
    return Asked(self, vector)

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
      self._vectors[self._count], self._ids[self._count] = _unit(vector)[0], id
      self._rows[id] = self._count
      self._count += 1
    else:
      self._vectors[self._rows[id]] = _unit(vector)[0]
      self._graph, self._hubness = None, Hubness()  # they have the old one

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
    ids, cosines = self.asked(vector).nearest(k, only)
    return list(zip(ids.tolist(), cosines.tolist(), strict=True))

  def _near(self, vector: np.ndarray, k: int) -> np.ndarray:
    """Rows that the k nearest are among, where they are too many to look at all."""
    if self._graph is None or self._graph.outgrown(self._count):
      self._graph = Graph(self._vectors[: self._count], self._path)
    rows = self._graph.near(vector, min(k, self._graph.count))
    return np.concatenate([rows, np.arange(self._graph.count, self._count)])

  def _places(self, ids: Iterable[int]) -> np.ndarray:
    """Rows of ids, -1 for unknown ones."""
    return np.array([self._rows.get(i, -1) for i in ids], np.int64)

  def _check(self, vector: np.ndarray) -> None:
    if vector.shape[1] != self._vectors.shape[1]:
      raise ValueError(f'the index has dimension {self._vectors.shape[1]}, not {vector.shape[1]}')


class Asked:
  """One query of an index, whose cosines are computed once where all are looked at."""

  def __init__(self, index: Index, vector: np.ndarray):
    vector = _unit(np.asarray(vector, np.float32).reshape(1, -1))
    vectors = index._vectors[: index._count]
    if len(vectors):
      index._check(vector)
    self._index, self._vector = index, vector[0]
    self._all: np.ndarray | None = None
    if len(vectors) <= _EXACT:
      self._all = vectors @ self._vector if len(vectors) else np.zeros(0, np.float32)

  def of(self, ids: Iterable[int]) -> np.ndarray:
    """Cosine with each of some ids: Float['N'], NaN for unknown ones."""
    rows = self._index._places(ids)
    known = rows >= 0
    if known.all():
      return self._cosines(rows)
    out = np.full(len(rows), np.nan, np.float32)
    out[known] = self._cosines(rows[known])
    return out

  def nearest(self, k: int, only: Iterable[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(ids, cosines) of the k nearest, as `Index.search` has them."""
    if only is not None:
      rows = self._index._places(only)
      rows = rows[rows >= 0]
    elif self._all is not None:
      rows = np.arange(len(self._all))
    else:
      rows = self._index._near(self._vector, k)
    cosines = self._cosines(rows)
    k = min(k, len(cosines))
    if k <= 0:
      return np.zeros(0, np.int64), np.zeros(0, np.float32)
    near = np.flatnonzero(cosines >= np.partition(cosines, -k)[-k])
    near = near[np.argsort(-cosines[near], kind='stable')][:k]
    return self._index.ids[rows[near]], cosines[near]

  def _cosines(self, rows: np.ndarray) -> np.ndarray:
    if self._all is not None:
      return self._all[rows]
    return self._index._vectors[rows] @ self._vector


def build(
  diary: Diary, embedder: Embedder, batch: int = 256, path: pathlib.Path | None = None
) -> Index:
  """The index of a diary; experiences that this embedder has not seen are embedded and kept."""
  missing = diary.unembedded(embedder.name)
  for start in range(0, len(missing), batch):
    some = diary.experiences(ids=missing[start : start + batch])
    with diary.transaction():
      vectors = embedder([experience_text(e) for e in some])
      for e, vector in zip(some, vectors, strict=True):
        diary.set_embedding(e.id, vector, embedder.name)
  return Index(*diary.embeddings(embedder.name), path)


def _unit(vectors: np.ndarray) -> np.ndarray:
  return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
