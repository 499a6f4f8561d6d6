"""One request on its way through the engine: what is asked, and its text piece by piece."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from dreaming.brain.batch import hold_back
from dreaming.brain.sampler import GREEDY, Sampler
from dreaming.brain.tokenizer import Tokenizer
from dreaming.serve.voices import Voice

_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask:
  """What is to be continued, and how."""

  prefix: tuple[int, ...] = ()  # ids that many requests begin with, kept read; with bos if any
  prompt: tuple[int, ...]  # ids after it
  max_tokens: int
  sampler: Sampler = GREEDY
  stop: tuple[str, ...] = ()
  logprobs: bool = False
  client: str = ''  # whose turn it takes
  strip: bool = False  # leave white space at the beginning out


@dataclasses.dataclass(frozen=True, kw_only=True)
class Token:
  """A token and how likely it and the likeliest were, nats."""

  id: int
  logprob: float
  top: tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
  """Text that is new, and how it ended when it has: 'stop', 'length', 'cancelled' or 'error'."""

  text: str = ''
  tokens: tuple[Token, ...] = ()
  finish: str | None = None
  error: str = ''


class Stream:
  """A request's state; the engine's thread alone changes it, but for `cancel`.

  Args:
    ask: what is asked.
    voice: that says all of it.
    sink: is given each Piece, on the engine's thread; the last has `finish`.
  """

  def __init__(self, ask: Ask, voice: Voice, tokenizer: Tokenizer, sink: Callable[[Piece], None]):
    self.ask, self.voice = ask, voice
    self.number = next(_numbers)
    self._tokenizer, self._sink = tokenizer, sink
    self._ends = {tokenizer.eos, tokenizer.end_of_turn}
    self._ids: list[int] = []
    self._said = ''
    self._held: list[Token] = []
    self._cancelled = threading.Event()
    self.finish: str | None = None
    self.asked_at = time.monotonic()
    self.first_at: float | None = None

  @property
  def generation(self) -> int:
    return self.voice.generation

  @property
  def prompt_tokens(self) -> int:
    return len(self.ask.prefix) + len(self.ask.prompt)

  @property
  def completion_tokens(self) -> int:
    return len(self._ids)

  @property
  def cancelled(self) -> bool:
    return self._cancelled.is_set()

  def cancel(self) -> None:
    """Nobody listens any more: its slot is free after the step under way."""
    self._cancelled.set()

  def take(self, token: int, logprob: float = 0.0, top: Sequence[tuple[int, float]] = ()) -> None:
    """One more token; tells the sink what can be told."""
    if self.first_at is None:
      self.first_at = time.monotonic()
    ended = token in self._ends
    if not ended:
      self._ids.append(token)
      if self.ask.logprobs:
        self._held.append(Token(id=token, logprob=logprob, top=tuple(top)))
    finish = 'stop' if ended else 'length' if len(self._ids) >= self.ask.max_tokens else None
    text = self._tokenizer.decode(self._ids)
    if self.ask.strip:
      text = text.lstrip()
    cut = min((at for s in self.ask.stop if (at := text.find(s)) >= 0), default=None)
    if cut is not None:
      text, finish = text[:cut], 'stop'
    elif finish is None:
      text = hold_back(text, self.ask.stop)
    if finish or len(text) > len(self._said):
      new, self._said = text[len(self._said) :], text
      tokens, self._held = tuple(self._held), []
      self._tell(Piece(text=new, tokens=tokens, finish=finish))

  def end(self, finish: str, error: str = '') -> None:
    """Ends it without a further token."""
    if self.finish is None:
      self._tell(Piece(finish=finish, error=error))

  def _tell(self, piece: Piece) -> None:
    self.finish = piece.finish
    self._sink(piece)


def sink_of(loop: Any, queue: Any) -> Callable[[Piece], None]:
  """Pieces into an asyncio.Queue of a loop that may have ended by then."""

  def sink(piece: Piece) -> None:
    try:
      loop.call_soon_threadsafe(queue.put_nowait, piece)
    except RuntimeError:  # the loop is closed: nobody listens
      pass

  return sink
