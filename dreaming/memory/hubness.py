"""How much else says nearly the same: what is near to everything is near to each query, too.

Conneau et al. 2018 (arXiv 1710.04087), section 2.3, take from a cosine the mean cosine of either
side with its nearest neighbours, so that hubs do not come first whatever is asked. Small talk is
the hub of a diary: "She dropped by" is near to any question about her.
"""

from __future__ import annotations

import threading

import numpy as np

_NEAREST = 5
_MOST = 0.7  # a cosine counts no more: else what is told or asked often would lose much by it
_SAMPLE = 1024  # rows that stand for all
_FEW = 10_000  # rows whose neighbours are kept up to date; of more they are found anew when asked


class Hubness:
  """Of the rows of vectors that are only ever added to.

  A row is compared with all others, of many with a sample; which, follows from the ids alone, so
  that it is the same after a restart. What was compared is kept, and what is new compared with it.
  """

  def __init__(self):
    self._lock = threading.Lock()
    self._part = 1  # one in so many is in the sample
    self._sample = np.zeros(0, np.int64)
    self._seen = 0  # rows that were there last time
    self._known = np.zeros(0, bool)
    self._top_NxK = np.zeros((0, _NEAREST), np.float32)

  def of(self, ids: np.ndarray, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean cosine of some rows with their nearest others, Float['R'], each 0 to 0.7; 0 for none.

    Args:
      ids: Int['N'] of all rows; the earlier ones as before.
      vectors: Float['N D'] of all rows, unit or zero.
      rows: Int['R'].
    """
    with self._lock:
      self._grow(ids, vectors)
      new = np.unique(rows[~self._known[rows]])
      self._top_NxK[new] = self._nearest(vectors, new, self._sample)
      self._known[new] = True
      return self._top_NxK[rows].mean(axis=1)

  def _grow(self, ids: np.ndarray, vectors: np.ndarray) -> None:
    count = len(ids)
    if count <= self._seen:  # less is what another thread began to ask of earlier
      return
    new = self._seen + np.flatnonzero(_mixed(ids[self._seen :]) % self._part == 0)
    self._sample, self._seen = np.concatenate([self._sample, new]), count
    if count > len(self._known):  # double, so that N additions copy O(N) rows
      more = max(count, 2 * len(self._known)) - len(self._known)
      self._known = np.pad(self._known, (0, more))
      self._top_NxK = np.pad(self._top_NxK, ((0, more), (0, 0)))
    if len(self._sample) > _SAMPLE:
      while len(self._sample) > _SAMPLE:
        self._part *= 2
        self._sample = self._sample[_mixed(ids[self._sample]) % self._part == 0]
      self._known[:] = False
    elif len(new):
      rows = np.flatnonzero(self._known)
      if len(rows) > _FEW:
        self._known[:] = False
        return
      both = np.concatenate([self._top_NxK[rows], self._nearest(vectors, rows, new)], axis=1)
      self._top_NxK[rows] = np.partition(both, -_NEAREST, axis=1)[:, -_NEAREST:]

  def _nearest(self, vectors: np.ndarray, rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Cosines of rows with those among others that are nearest to each: Float['R K']."""
    cosines = np.clip(vectors[rows] @ vectors[among].T, 0.0, _MOST)
    cosines[rows[:, None] == among] = 0.0  # with itself
    cosines = np.pad(cosines, ((0, 0), (0, max(0, _NEAREST - len(among)))))
    return np.partition(cosines, -_NEAREST, axis=1)[:, -_NEAREST:]


def _mixed(ids: np.ndarray) -> np.ndarray:
  """Numbers of which any power of two has its share, whatever the ids have in common."""
  return (ids.astype(np.uint64) * np.uint64(2_654_435_761)) >> np.uint64(16)
