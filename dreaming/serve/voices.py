"""Minds that are ready to speak: which generations are kept warm, and which one is Blue.

A Voice is a Mind with its weights laid out for decoding. A request takes the Voice it begins with
and holds it until its end, so a swap cuts nobody off; what nobody holds any more and is not among
the last few goes.
"""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Callable
from typing import Any

from dreaming.brain import serving
from dreaming.types import Mind


@dataclasses.dataclass(frozen=True, eq=False)
class Voice:
  """A Mind and what its decoding reads. Compared by identity: a generation made anew is another."""

  mind: Mind
  served: Any  # serving.layers, {} where weights lie on several devices

  @property
  def generation(self) -> int:
    return self.mind.generation


class NotReady(OSError):
  """The weights are still being read."""


class Voices:
  """Voices by generation. Methods may be called from several threads.

  Args:
    load: reads a generation from the disk, checked; 0 is the base.
    warm: how many are kept ready beside the one that serves.
    forget: called with a Voice that is dropped.
    lay_out: makes a Voice of a Mind.
  """

  def __init__(
    self,
    load: Callable[[int], Mind],
    *,
    warm: int,
    forget: Callable[[Voice], None] | None = None,
    lay_out: Callable[[Mind], Voice] | None = None,
  ):
    self._lay_out = lay_out or make
    self._load, self._warm, self._forget = load, warm, forget
    self._lock = threading.RLock()
    self._voices: collections.OrderedDict[int, Voice] = collections.OrderedDict()
    self._pinned: set[int] = set()
    self._blue: Voice | None = None
    self._resting: int | None = None

  @property
  def blue(self) -> Voice:
    """The one that serves. A reference: never waits for a generation that is being read."""
    if self._blue is None:
      raise NotReady('no generation serves yet: wait until /ready says so')
    return self._blue

  @property
  def serving(self) -> int:
    """The number of the generation that serves, or that will when it wakes."""
    return self.blue.generation if self._resting is None else self._resting

  def rest(self, number: int) -> None:
    """Lets go of all voices until the next `flip`; `number` is said to serve meanwhile."""
    with self._lock:
      self._voices.clear()
      self._blue, self._resting = None, number

  def get(self, number: int, mind: Mind | None = None) -> Voice:
    """A generation's voice, read from the disk when it is not warm: about a second on the 270M.

    Args:
      mind: of this generation, where it was read already.

    Raises NotReady while it rests.
    """
    if (blue := self._blue) is not None and blue.generation == number:
      return blue
    with self._lock:
      if self._resting is not None and mind is None:
        raise NotReady('it sleeps offline (serve.pause): wait until it wakes')
      if number not in self._voices:
        mind = self._load(number) if mind is None else mind
        self._voices[number] = self._lay_out(mind)
      self._voices.move_to_end(number)
      found = self._voices[number]
      self._trim()
      return found

  def flip(self, voice: Voice) -> None:
    """Lets a voice serve: one reference."""
    with self._lock:
      self._voices[voice.generation] = voice
      self._voices.move_to_end(voice.generation)
      self._blue, self._resting = voice, None
      self._trim()

  def pin(self, number: int) -> None:
    """Keeps a generation warm whatever else is asked for."""
    self.get(number)
    with self._lock:
      self._pinned.add(number)

  def unpin(self, number: int) -> None:
    with self._lock:
      self._pinned.discard(number)
      self._trim()

  def is_pinned(self, number: int) -> bool:
    return number in self._pinned

  @property
  def warm(self) -> list[int]:
    return sorted(self._voices)

  def _trim(self) -> None:
    blue = None if self._blue is None else self._blue.generation
    loose = [n for n in self._voices if n != blue and n not in self._pinned]
    for number in loose[: max(0, len(loose) - self._warm)]:
      dropped = self._voices.pop(number)
      if self._forget:
        self._forget(dropped)


def make(mind: Mind) -> Voice:
  table = mind.params['embedder']['input_embedding']
  several = len(table.devices()) > 1
  return Voice(mind, {} if several else serving.layers(mind.params))
