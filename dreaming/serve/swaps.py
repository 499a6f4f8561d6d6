"""One generation to another while streams run: prepare, commit, flip, and let the old one drain."""

from __future__ import annotations

import logging
import queue
import threading
import time

from dreaming.agent import Agent
from dreaming.serve.baking import Baking
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
    baking: takes what nights promote, when it is configured.
  """

  def __init__(self, agent: Agent, voices: Voices, metrics: Metrics, baking: Baking):
    self._agent, self._voices, self._metrics = agent, voices, metrics
    self._baking = baking
    self.lock = threading.Lock()  # while it is held, nobody swaps
    self.engine: Engine | None = None

  def rollback(self, number: int | None = None) -> int:
    """Lets an earlier, or again a later, generation serve; by default the parent.

    Raises:
      ValueError: there is none such, or it is damaged. Nothing has changed then.
    """
    with self.lock, self._metrics.swap_seconds.time():
      diary = self._agent.diary
      if number is None and self._baking.green is not None:  # Blue stands in the diary already
        self._baking.end(False, 'by hand')
        return self._voices.blue.generation
      if number is None:
        parents = {g.number: g.parent or 0 for g in diary.generations()}
        active = diary.active()
        if not active:
          raise ValueError('the base serves: there is nothing earlier to roll back to')
        number = parents[active]
      return self._serve(number, 'by hand')

  def _serve(self, number: int, why: str) -> int:
    voice, green = self._prepared(number), self._baking.green
    self._agent.identity.rollback(number, warm=voice.mind)
    self._flip(voice)
    self._baking.end(green is not None and number == green.generation, why)
    return number

  def judge(self) -> None:
    """Ends the baking when there is a reason to: Green serves, or is left alone."""
    with self.lock:  # nobody rolls back in between
      found, green = self._baking.verdict(), self._baking.green
      if found is None or green is None:
        return
      serves, why = found
      if serves:
        self._serve(green.generation, why)
      else:
        self._baking.end(False, why)
    _log.info('baked', extra={'fields': {'serves': serves, 'why': why}})

  def follow(self) -> int:
    """Serves what the diary says is active: another process has promoted it."""
    with self.lock, self._metrics.swap_seconds.time():
      number = self._agent.diary.active()
      if number != self._voices.blue.generation:
        blue = self._voices.blue
        if self._baking.config.on:  # until the other has proved itself, whatever happens here
          self._agent.diary.activate(blue.generation)
        voice = self._prepared(number)
        if self._baking.begin(voice, blue.generation):
          fields = {'generation': number, 'share': self._baking.config.share}
          _log.info('bakes', extra={'fields': fields})
        elif self._agent.identity.adopt(voice.mind):
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
