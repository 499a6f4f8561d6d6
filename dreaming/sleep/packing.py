"""Packing: examples as ids, several in a row, each with its segment id, so that little is padding.

Some rows begin with the few-shot examples that questions are asked with. All questions of such a
row see them and not each other: a night trains in the very form that it is examined in, for the
cost of one prefix a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from dreaming.brain.masks import segment
from dreaming.brain.tokenizer import Tokenizer
from dreaming.types import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
  """A text of which `target` is to be learned and `prompt` only read."""

  prompt: str
  target: str
  kind: str = 'dream'  # 'dream', 'raw', 'rehearsal', 'replay'
  sources: tuple[int, ...] = ()
  asks: bool = False  # a question with its answer: it may stand after the few-shot examples
  dream: int = 0  # id of the dream that it is of


@dataclasses.dataclass(frozen=True)
class Encoded:
  """An example as ids; `loss` marks positions whose next token is to be learned."""

  ids: np.ndarray  # Int['T']
  loss: np.ndarray  # Bool['T']
  target_ids: np.ndarray  # Int['losses K']
  target_probs: np.ndarray  # Float['losses K']
  replay: bool
  after: int = 0  # tokens of the few-shot prefix that it stands behind
  emphasis: np.ndarray | None = None  # Float['losses'], the weights of its tokens; None: 1 each
  taught_ids: np.ndarray | None = None  # Int['losses K'], of a teacher that has read the episode
  taught_probs: np.ndarray | None = None  # Float['losses K']
  origin: tuple[str, int] = ('', 0)  # kind of the example, and the dream or experience it is of

  def taught(self, probs: np.ndarray, ids: np.ndarray) -> Encoded:
    """With a teacher's distribution as the target, [losses, K] each."""
    return dataclasses.replace(
      self, target_ids=ids.astype(np.int32), target_probs=probs.astype(np.float32)
    )

  def among(self, shortlist: np.ndarray) -> Encoded:
    """With targets as indices into a shortlist that holds them all."""
    index = np.searchsorted(shortlist, self.target_ids).astype(np.int32)
    return dataclasses.replace(self, target_ids=index)


def encode(
  tokenizer: Tokenizer, example: Example, limit: int, k: int, *, after: int = 0
) -> Encoded:
  """Ids and one-hot targets of width k, cut to `limit` tokens; `after` a prefix of that length."""
  head = tokenizer.encode(example.prompt, bos=not after)
  ids = np.asarray((head + tokenizer.encode(example.target))[: limit - after], np.int32)
  loss = np.zeros(len(ids), bool)
  loss[max(len(head) - 1, 0) : len(ids) - 1] = True
  target_ids = np.zeros((int(loss.sum()), k), np.int32)
  target_ids[:, 0] = ids[1:][loss[:-1]]
  probs = np.zeros(target_ids.shape, np.float32)
  probs[:, 0] = 1.0
  of = example.sources[0] if example.kind == 'raw' and example.sources else example.dream
  replays = example.kind == 'replay'
  return Encoded(ids, loss, target_ids, probs, replays, after, origin=(example.kind, of))


def pack(rows: int, length: int, stream: Iterator[Encoded]) -> list[list[Encoded]]:
  """Fills `rows` rows of `length` tokens from an endless stream, first fit."""
  out: list[list[Encoded]] = [[] for _ in range(rows)]
  room = [length] * rows
  for e in stream:
    fits = next((i for i in range(rows) if room[i] >= len(e.ids)), None)
    if fits is None:
      return out
    out[fits].append(e)
    room[fits] -= len(e.ids)
  return out


def batch_of(
  rows: Sequence[Sequence[Encoded]],
  length: int,
  losses: int,
  k: int,
  prefix: Sequence[int] = (),
  taught: bool = False,
  heads: Sequence[Sequence[int]] = (),
) -> Batch:
  """Packed rows as a Batch of `losses` loss positions (a fixed number: one compilation).

  `prefix` is put at the head of rows whose examples stand after one; with `heads` each row has a
  prefix of its own. With `taught` the batch has
  what a teacher thinks, too, also where no example has one: all batches are of one shape.
  """
  tokens = np.zeros((len(rows), length), np.int32)
  positions = np.zeros_like(tokens)
  segments = np.zeros_like(tokens)
  where, target_ids, target_probs, replay_flags, weights = [], [], [], [], []
  by_teacher: tuple[list, list] = ([], [])
  for r, row in enumerate(rows):
    at = row[0].after if row else 0
    if at:
      tokens[r, :at] = heads[r] if heads else prefix
      positions[r, :at], segments[r, :at] = np.arange(at), segment(1)
    for s, e in enumerate(row, start=1):
      n = len(e.ids)
      tokens[r, at : at + n] = e.ids
      positions[r, at : at + n] = e.after + np.arange(n)
      segments[r, at : at + n] = segment(1, s)
      index = np.flatnonzero(e.loss)
      where.extend(r * length + at + index)
      target_ids.extend(e.target_ids)
      target_probs.extend(e.target_probs)
      replay_flags.extend([e.replay] * len(index))
      weights.extend(np.ones(len(index)) if e.emphasis is None else e.emphasis)
      if taught:
        none = np.zeros((len(index), k))
        by_teacher[0].extend(none if e.taught_ids is None else e.taught_ids)
        by_teacher[1].extend(none if e.taught_probs is None else e.taught_probs)
      at += n
  # More loss positions than planned are thinned evenly, so that no row is favoured.
  keep = np.arange(len(where))
  if len(where) > losses:
    keep = np.linspace(0, len(where) - 1, losses).astype(int)
  pad = losses - len(keep)

  def columns(rows: Sequence, dtype) -> np.ndarray:
    return np.pad(np.reshape(rows, (-1, k)).astype(dtype)[keep], ((0, pad), (0, 0)))

  return Batch(
    tokens=tokens,
    positions=positions,
    segment_ids=segments,
    loss_positions=np.pad(np.asarray(where, np.int32)[keep], (0, pad)),
    target_ids=columns(target_ids, np.int32),
    target_probs=columns(target_probs, np.float32),
    weights=np.pad(np.asarray(weights, np.float32)[keep], (0, pad)),
    replay=np.pad(np.asarray(replay_flags, np.float32)[keep], (0, pad)),
    taught_ids=columns(by_teacher[0], np.int32) if taught else None,
    taught_probs=columns(by_teacher[1], np.float32) if taught else None,
  )


def endless(examples: Sequence[Encoded], rng: np.random.Generator) -> Iterator[Encoded]:
  """Every example once, in a new order each round."""
  while examples:
    for i in rng.permutation(len(examples)):
      yield examples[i]


def mixed(
  streams: Sequence[tuple[float, Iterator[Encoded]]], rng: np.random.Generator
) -> Iterator[Encoded]:
  """Draws from streams so that their shares of tokens become the given ones."""
  total = np.zeros(len(streams))
  shares = np.asarray([s for s, _ in streams])
  while True:
    i = int(np.argmin((total + rng.random(len(streams))) / shares))
    e = next(streams[i][1])
    total[i] += len(e.ids)
    yield e
