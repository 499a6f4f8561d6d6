"""Scores of what was said, given while nobody talks: recall weighs them, and a night may be due.

All that is new is rated in one go on the mind's thread, message by message. Whoever says something
meanwhile waits for one of them: the rating ends there, and goes on when it is quiet again. In a
very long life only nights rate.
A night rates what it finds by itself, in a process of its own: while one runs, nothing is rated.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from collections.abc import Callable, Sequence

import numpy as np

from dreaming.brain.decode import Prompt
from dreaming.brain.tokenizer import Tokenizer
from dreaming.memory import score
from dreaming.serve.nights import Nights
from dreaming.serve.talk import Talk
from dreaming.types import Mind

_log = logging.getLogger('dreaming.serve')
_LOOK_SECONDS = 0.5  # between looks at whether it is quiet
_AGAIN_SECONDS, _SELDOM_SECONDS = 30.0, 3600.0  # after an error; twice as long after each, to that
_ROWS = 10  # at a time: a message with its ten ratings
_KEPT = 4096  # rows
_MOST = 20_000  # experiences: of more, only to see what is new takes the mind a second


class Wanted(Exception):
  """Somebody is to be answered first."""


class Paced:
  """A decoder that takes a few rows at a time, and none while somebody waits.

  Args:
    decoder: of the agent.
    wanted: whether somebody waits.
    known: what was computed before, and what is from now on; the numbers of rows alone, no text.
  """

  def __init__(
    self,
    decoder: score.Rater,
    wanted: Callable[[], bool],
    known: collections.OrderedDict[int, np.ndarray],
  ):
    self._decoder, self._wanted, self._known = decoder, wanted, known

  @property
  def tokenizer(self) -> Tokenizer:
    return self._decoder.tokenizer

  def logprobs(
    self,
    mind: Mind,
    prompts: Sequence[Prompt],
    continuations: Sequence[str],
    *,
    prefix: str | Sequence[Prompt] = '',
  ) -> list[np.ndarray]:
    """As `Decoder.logprobs`. Raises Wanted; what was computed by then is not computed again."""
    prefixes = [prefix] * len(prompts) if isinstance(prefix, str) else prefix
    rows = list(zip(prefixes, prompts, continuations, strict=True))
    keys = [hash(row) for row in rows]
    left = [i for i, key in enumerate(keys) if key not in self._known]
    for start in range(0, len(left), _ROWS):
      if self._wanted():
        raise Wanted
      some = left[start : start + _ROWS]
      before, asked, tails = zip(*(rows[i] for i in some), strict=True)
      how = prefix if isinstance(prefix, str) else before
      found = self._decoder.logprobs(mind, asked, tails, prefix=how)
      self._known.update((keys[i], row) for i, row in zip(some, found, strict=True))
    for key in keys:
      self._known.move_to_end(key)
    made = [self._known[key] for key in keys]
    while len(self._known) > _KEPT:
      self._known.popitem(last=False)
    return made


class Rater:
  """Rates what the agents of a server have not rated yet, one after the other.

  Args:
    served: of each agent the conversations and the nights.
    after: seconds without a word, from which it is quiet; 0: nothing is rated here.
  """

  def __init__(self, served: Sequence[tuple[Talk, Nights]], after: float):
    self._talks = [talk for talk, _ in served]
    self._nights = [nights for _, nights in served]
    self._after, self._over = after, False
    self._heard = time.monotonic()
    self._failed: dict[Talk, tuple[int, float]] = {}  # how often, and when to try again
    self._known: dict[Talk, collections.OrderedDict[int, np.ndarray]] = {
      talk: collections.OrderedDict() for talk in self._talks
    }

  async def watch(self) -> None:
    """Rates when it is quiet, for as long as it is not cancelled."""
    try:
      while self._after:
        await asyncio.sleep(min(self._after, _LOOK_SECONDS))
        if self._busy():
          self._heard = time.monotonic()
        for talk in self._talks:
          if self._quiet() and self._due(talk):
            await self._rate(talk)
    finally:
      self._over = True  # for what the mind is at

  def _due(self, talk: Talk) -> bool:
    _, again = self._failed.get(talk, (0, 0.0))
    return talk.unrated and talk.engine is not None and time.monotonic() >= again

  def _quiet(self) -> bool:
    heard = max(self._heard, *(talk.heard for talk in self._talks))
    return not self._busy() and time.monotonic() - heard >= self._after

  def _busy(self, own: int = 0) -> bool:
    """Whether anything else is to be done, beside `own` calls of a mind."""
    engine = self._talks[0].engine  # that of all
    return (
      self._over
      or any(n.running or n.starting.locked() for n in self._nights)
      or any(t.thinking or t.doze.asleep for t in self._talks)
      or sum(t.asked for t in self._talks) > own
      or (engine is not None and bool(engine.active or engine.waiting))
    )

  async def _rate(self, talk: Talk) -> None:
    talk.unrated = False  # what is said from now on makes it true again
    if talk.agent.diary.count() > _MOST:  # the next night rates
      return
    try:
      count = await talk.with_mind(self._work, talk)
    except Wanted:
      talk.unrated = True
      return
    except Exception as e:  # recall does without, and the next night rates
      talk.unrated = True
      times, _ = self._failed.get(talk, (0, 0.0))
      wait = min(_AGAIN_SECONDS * 2 ** min(times, 9), _SELDOM_SECONDS)
      self._failed[talk] = times + 1, time.monotonic() + wait
      why = ' '.join(str(e).split()) or type(e).__name__
      fields = {'error': type(e).__name__, 'why': why, 'again_seconds': wait}
      _log.warning('what was said could not be rated', extra={'fields': fields})
      return
    self._failed.pop(talk, None)
    if count:
      _log.info('rated', extra={'fields': {'experiences': count}})

  def _work(self, talk: Talk) -> int:
    def paced(decoder: score.Rater) -> Paced:
      return Paced(decoder, lambda: self._busy(own=1), self._known[talk])

    return talk.agent.rate(paced=paced)
