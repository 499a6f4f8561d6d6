"""Baking: what a night made speaks to a share of the conversations before it serves all of them.

Or to nobody: in the shadow it answers a share of what Blue answers, unheard, and is judged by that.

While it bakes, Blue serves and stands in the diary as active: a server that ends meanwhile begins
with Blue again. An alarm sends every new message back to Blue at once, and so does a time in which
too little was said to know. Whoever promotes or rolls back by hand ends it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
import threading
import time
from collections.abc import Mapping
from typing import Any

from dreaming.serve.voices import Voice

_FEW = 5  # of anything, before its share is an alarm


@dataclasses.dataclass(frozen=True, kw_only=True)
class BakeConfig:
  """Mirrors `config.bake`; what the fields mean stands in configs/default.py."""

  share: float = 0.0
  shadow: float = 0.0
  minutes: float = 30.0
  replies: int = 20
  errors: float = 0.05
  slower: float = 2.0
  down: float = 0.3
  gibberish: float = 0.2

  def __post_init__(self):
    for name in ('share', 'shadow', 'errors', 'down', 'gibberish'):
      if not 0 <= vars(self)[name] <= 1:
        raise ValueError(f'bake.{name} is {vars(self)[name]}: take a share, from 0 to 1')
    for name, low in {'minutes': 0.0, 'replies': 1, 'slower': 1.0}.items():
      if vars(self)[name] < low:
        raise ValueError(f'bake.{name} is {vars(self)[name]}: take at least {low}')

  @property
  def on(self) -> bool:
    """Whether anything bakes."""
    return bool(self.share or self.shadow)


@dataclasses.dataclass
class Tally:
  """What a generation did while one baked."""

  replies: int = 0
  errors: int = 0
  gibberish: int = 0
  judged: int = 0
  down: int = 0
  first: list[float] = dataclasses.field(default_factory=list)  # seconds to the first token

  def plain(self) -> dict[str, Any]:
    """Plain values, the seconds as their median."""
    median = round(statistics.median(self.first), 4) if self.first else None
    return {**vars(self), 'first': median}


class Baking:
  """Which voice speaks, and what came of it. Methods may be called from several threads."""

  def __init__(self, config: BakeConfig):
    self.config = config
    self._lock = threading.Lock()
    self._green: Voice | None = None
    self._blue = 0
    self._until = self._owed = 0.0
    self._tallies: dict[int, Tally] = {}
    self.last: Mapping[str, Any] | None = None  # how the latest one ended

  @property
  def green(self) -> Voice | None:
    """The one that bakes."""
    return self._green

  def begin(self, green: Voice, blue: int, now: float | None = None) -> bool:
    """Whether this generation bakes first, instead of Blue's being replaced at once."""
    if not self.config.on:
      return False
    with self._lock:
      self._green, self._blue, self._owed = green, blue, 0.0
      self._until = (time.time() if now is None else now) + 60 * self.config.minutes
      self._tallies = {green.generation: Tally(), blue: Tally()}
    return True

  def choose(self, blue: Voice, conversation: str) -> Voice:
    """Who speaks in a conversation: the same one as long as it bakes."""
    green = self._green
    if green is None:
      return blue
    key = f'{green.generation}\n{conversation}'.encode('utf-8', 'surrogatepass')
    place = int.from_bytes(hashlib.sha256(key).digest()[:8]) / 2**64
    return green if place < self.config.share else blue

  def shadow(self) -> Voice | None:
    """Who is to answer unheard what Blue has just answered: the one that bakes, now and then."""
    with self._lock:
      if self._green is None:
        return None
      self._owed += self.config.shadow
      due = self._owed >= 1 - 1e-9
      self._owed -= due
      return self._green if due else None

  def said(self, generation: int, text: str, *, failed: bool, first: float | None) -> None:
    """Notes a reply.

    Args:
      failed: whether it ended with an error.
      first: seconds to its first token.
    """
    with self._lock:
      if (tally := self._tallies.get(generation)) is None:
        return
      tally.replies += 1
      tally.errors += failed
      tally.gibberish += not failed and is_gibberish(text)
      if first is not None:
        tally.first.append(first)

  def judged(self, generation: int | None, down: bool) -> None:
    """Notes what a user thinks of a reply."""
    with self._lock:
      if (tally := self._tallies.get(generation)) is not None:
        tally.judged += 1
        tally.down += down

  def verdict(self, now: float | None = None) -> tuple[bool, str] | None:
    """(whether Green serves from now on, why), or None as long as it bakes."""
    with self._lock:
      if self._green is None:
        return None
      c, green = self.config, self._tallies[self._green.generation]
      blue = self._tallies[self._blue]
      shares = {
        'errors': (green.errors, green.replies, c.errors),
        'gibberish': (green.gibberish, green.replies, c.gibberish),
        'down': (green.down, green.judged, c.down),
      }
      for name, (count, of, limit) in shares.items():
        if of >= _FEW and count / of > limit:
          return False, f'{name}: {count} of {of}, the limit is {limit:.0%} (bake.{name})'
      if min(len(green.first), len(blue.first)) >= _FEW:
        a, b = statistics.median(green.first), statistics.median(blue.first)
        if a > c.slower * b:
          return False, f'slow: {a:.2f} s to the first token against {b:.2f} (bake.slower)'
      if (time.time() if now is None else now) < self._until:
        return None
      if green.replies < c.replies:
        return False, f'{green.replies} replies are too few to know (bake.replies={c.replies})'
      return True, f'{green.replies} replies without an alarm'

  def end(self, serves: bool, why: str) -> None:
    """It bakes no longer."""
    with self._lock:
      if self._green is not None:
        number = self._green.generation
        tallies = {str(n): t.plain() for n, t in self._tallies.items()}
        self.last = {'generation': number, 'serves': serves, 'why': why, 'tallies': tallies}
        self._green, self._tallies = None, {}

  def plain(self) -> dict[str, Any]:
    """For the status."""
    with self._lock:
      now = self._green and {
        'generation': self._green.generation, 'share': self.config.share,
        'shadow': self.config.shadow, 'until': self._until,
        'tallies': {str(n): t.plain() for n, t in self._tallies.items()},
      }  # fmt: skip
      return {'now': now, 'last': self.last}


def is_gibberish(text: str) -> bool:
  """Whether a reply is empty, or says one thing over and over."""
  from dreaming.sleep import safety  # a second of imports that only baking pays

  return not text.strip() or safety.repeats(text)
