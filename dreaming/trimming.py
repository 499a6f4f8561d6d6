"""What an agent no longer needs at hand: it goes to the archive, and comes back from it."""

from __future__ import annotations

import time
from collections.abc import Iterable

from dreaming.memory import trim
from dreaming.reviewing import Reviewing
from dreaming.types import Experience


class Trimming(Reviewing):
  """An identity whose diary can be trimmed: see memory/trim.py and memory/archive.py."""

  def trimmable(self, *, now: float | None = None) -> trim.Plan:
    """What `trim` would archive, and why the rest stays: see trim.plan. Nothing is changed."""
    index, now = self.memories_index, time.time() if now is None else now
    return trim.plan(self.diary, self._trim, now, index, self._memory.correction)

  def trim(self, *, now: float | None = None) -> trim.Trimmed:
    """Archives what is old, unimportant and learned; nothing of it is lost."""
    done = trim.trim(self.diary, self.trimmable(now=now).chosen, self._trim)
    self.renew_indexes()
    return done

  def archived(self, query: str | None = None, *, limit: int = 20) -> list[Experience]:
    """What is in the archive: with most of the query's words first, or the latest."""
    ids = self.diary.archived(query, limit)
    found = {e.id: e for e in self.diary.experiences(ids=ids)}
    return [found[i] for i in ids]

  def restore(self, ids: Iterable[int] | None = None) -> int:
    """Brings experiences back from the archive, by default all; returns how many they were."""
    count = self.diary.restore(self.diary.archived() if ids is None else ids)
    self.renew_indexes()
    return count
