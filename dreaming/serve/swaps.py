"""One generation to another while streams run: prepare, commit, flip, and let the old one drain."""

from __future__ import annotations

import logging
import queue
import threading
import time

from dreaming.agent import Agent
from dreaming.serve.engine import Engine
from dreaming.serve.metrics import Metrics
from dreaming.serve.stream import Ask
from dreaming.serve.voices import Voice, Voices

_log = logging.getLogger('dreaming.serve')
_PRIME_SECONDS = 60.0


class Swaps:
  """Changes which generation serves. Methods block; call them off the event loop.

  Args:
    agent: its diary decides which generation is active.
    voices: hold what is warm; a rollback to one of them reads nothing.
  """

  def __init__(self, agent: Agent, voices: Voices, metrics: Metrics):
    self._agent, self._voices, self._metrics = agent, voices, metrics
    self._lock = threading.Lock()
    self.engine: Engine | None = None

  def rollback(self, number: int | None = None) -> int:
    """Lets an earlier, or again a later, generation serve; by default the parent.

    Raises:
      ValueError: there is none such, or it is damaged. Nothing has changed then.
    """
    with self._lock, self._metrics.swap_seconds.time():
      diary = self._agent.diary
      if number is None:
        parents = {g.number: g.parent or 0 for g in diary.generations()}
        active = diary.active()
        if not active:
          raise ValueError('the base serves: there is nothing earlier to roll back to')
        number = parents[active]
      voice = self._prepared(number)
      self._agent.identity.rollback(number, warm=voice.mind)
      self._flip(voice)
      return number

  def follow(self) -> int:
    """Serves what the diary says is active: another process has promoted it."""
    with self._lock, self._metrics.swap_seconds.time():
      number = self._agent.diary.active()
      if number != self._voices.blue.generation:
        voice = self._prepared(number)
        if self._agent.identity.adopt(voice.mind):
          self._flip(voice)
      return number

  def _prepared(self, number: int) -> Voice:
    """A voice that has read what Blue has, so that the first who asks does not wait for that."""
    voice = self._voices.get(number)
    blue = self._voices.blue
    if self.engine is None or voice is blue:
      return voice
    told: queue.SimpleQueue = queue.SimpleQueue()
    waiting = 0
    for prefix in self.engine.prefixes(blue) - self.engine.prefixes(voice):
      ask = Ask(prefix=prefix, prompt=prefix[-1:], max_tokens=1, client='swap')
      self.engine.submit([ask], voice, [told.put])
      waiting += 1
    end = time.monotonic() + _PRIME_SECONDS
    while waiting and time.monotonic() < end:
      try:
        waiting -= told.get(timeout=1.0).finish is not None
      except queue.Empty:
        continue
    return voice

  def _flip(self, voice: Voice) -> None:
    before = self._voices.blue.generation
    self._voices.flip(voice)
    _log.info('swap', extra={'fields': {'from': before, 'to': voice.generation}})
