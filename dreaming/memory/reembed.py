"""Vectors for what an encoder has not seen yet, made in the background: the life goes on meanwhile.

As long as it takes, recall finds by words what has no vector. What is done is in the diary, so that
whoever closes in between goes on from there.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Sequence

import numpy as np

from dreaming.memory.diary import Diary
from dreaming.memory.embed import Embedder, experience_text
from dreaming.memory.index import Index

AT_ONCE = 256  # memories that one waits for: some seconds of an encoder
_BATCH = 128


class Reembedding:
  """Embeds experiences in a thread of its own, the latest first.

  The index is touched by `adopt` alone, in the thread of whoever searches it.

  Args:
    ids: that have no vector of this embedder.
  """

  def __init__(self, diary: Diary, embedder: Embedder, index: Index, ids: Sequence[int]):
    self.total, self.done = len(ids), 0
    self._diary, self._embedder, self._index = diary, embedder, index
    self._ids = sorted(ids, reverse=True)
    self._ready: collections.deque[tuple[int, np.ndarray]] = collections.deque()
    self._error: BaseException | None = None
    self._stopped = threading.Event()
    self._thread = threading.Thread(target=self._run, name='reembed', daemon=True)
    self._thread.start()

  def adopt(self) -> bool:
    """Adds the vectors that are ready to the index; whether there are more to come.

    Raises:
      OSError, ValueError: what ended it early. What was done before is kept.
    """
    running = self._thread.is_alive()  # before: what is ready when it ends is adopted, too
    while self._ready:
      id, vector = self._ready.popleft()
      if id not in self._index:  # what was said meanwhile has come by itself
        self._index.add(id, vector)
    if self._error is not None:
      error, self._error = self._error, None
      raise error
    return running

  def wait(self) -> None:
    """Until all is done; raises as `adopt` does."""
    self._thread.join()
    self.adopt()

  def stop(self) -> None:
    """Ends it after the batch that it is at."""
    self._stopped.set()
    self._thread.join()

  def _run(self) -> None:
    try:
      for start in range(0, self.total, _BATCH):
        if self._stopped.is_set():
          return
        some = self._diary.experiences(ids=self._ids[start : start + _BATCH])
        vectors = self._embedder([experience_text(e) for e in some]) if some else []
        with self._diary.transaction():
          there = {e.id for e in self._diary.experiences(ids=[e.id for e in some])}
          for e, vector in zip(some, vectors, strict=True):
            if e.id in there:  # not forgotten meanwhile
              self._diary.set_embedding(e.id, vector, self._embedder.name)
              self._ready.append((e.id, vector))
        self.done = min(start + _BATCH, self.total)
    except Exception as e:  # of the encoder or the disk: whoever searches next is told
      self._error = e
