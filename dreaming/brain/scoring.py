"""Log-probabilities of given texts: many short ones in one pass, read once where they begin alike.

Judging asks the same few-shot examples and the same prompt with many endings. They are laid out as
trees (masks.py) in rows of a few lengths: nothing that is shared is read twice, little is padding,
and few programs are compiled, whatever is asked. The keys and values of examples that many texts
share are kept from call to call, as decoding keeps a prefix's.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dreaming.brain import kv_cache, masks, transformer
from dreaming.brain.kv_cache import LayerCache
from dreaming.brain.transformer import Architecture, Transformer
from dreaming.types import Params

_CHUNKS = (16, 64)  # rows of the whole vocabulary
_SHORT_CHUNKS = (512,)  # rows of a shortlist
_PAIRS = 1024  # (row, token) that are asked of a chunk
_LENGTHS = (64, 128, 256, 384, 512, 1024, 2048, 4096, 8192)  # of rows
_USUAL = 512  # longer rows cost more attention, shorter ones repeat more context
_ROWS = {'cpu': 2}  # in one pass; elsewhere:
_MANY_ROWS = 16
_SCANNED_ON = ('cpu', 'gpu')
_KEPT = 6  # contexts with their keys and values: 9 MB for 256 tokens of the 270M
_CONTEXTS = 4  # of a call: of more, each with few texts, keeping would cost more than it saves

Ids = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Asked:
  """A text in its three parts: log-probabilities of the tail's tokens are asked for."""

  context: Ids
  prompt: Ids  # not empty
  tail: Ids

  def __len__(self) -> int:
    """Tokens that are read: nothing follows the tail's last one."""
    return len(self.context) + len(self.prompt) + max(len(self.tail) - 1, 0)


# ---- Layout ----


class _Row:
  """Texts laid out as trees, `start` tokens after the beginning."""

  def __init__(self, length: int, start: int):
    self.tokens = np.zeros(length, np.int32)
    self.positions = np.full(length, -1, np.int32)
    self.segments = np.zeros(length, np.int32)
    self.at, self._start = 0, start
    self.before: dict[int, list[int]] = {}  # number of an Asked -> slots before its tail's tokens
    self._contexts: dict[Ids, int] = {}
    self._prompts: dict[tuple[Ids, Ids], tuple[int, int]] = {}  # -> segment, slot of its last token
    self._tails: collections.Counter[int] = collections.Counter()

  def put(self, number: int, asked: Asked) -> bool:
    """Lays out one more, unless it has no room."""
    context, prompt, tail = asked.context, asked.prompt, asked.tail[:-1]
    key = context, prompt
    new = [] if context in self._contexts else [context]
    new += [] if key in self._prompts else [prompt]
    if self.at + sum(map(len, new)) + len(tail) > len(self.tokens):
      return False
    if context not in self._contexts:
      self._contexts[context] = number_of = len(self._contexts) + 1
      self._write(context, 0, masks.segment(number_of))
    if key not in self._prompts:
      of_context = sum(c == context for c, _ in self._prompts) + 1
      at = masks.segment(self._contexts[context], of_context)
      self._write(prompt, len(context), at)
      self._prompts[key] = at, self.at - 1
    at, last = self._prompts[key]
    first = self.at
    if tail:
      self._tails[at] += 1
      self._write(tail, len(context) + len(prompt), at + self._tails[at])
    self.before[number] = [last, *range(first, self.at)][: len(asked.tail)]
    return True

  def _write(self, ids: Ids, position: int, segment: int) -> None:
    here = slice(self.at, self.at + len(ids))
    self.tokens[here], self.segments[here] = ids, segment
    position += self._start
    self.positions[here] = np.arange(position, position + len(ids))
    self.at += len(ids)


def lay_out(asked: Sequence[Asked], rows: int, start: int = 0) -> Iterator[list[_Row]]:
  """Rows with all that is asked in them, `rows` (a power of two) at a time, at the end fewer.

  Args:
    asked: texts.
    rows: at a time.
    start: tokens of a kept context that come before all of them; theirs are empty then.
  """
  if not asked:
    return
  total = sum(map(len, asked))
  need = max(max(map(len, asked)), min(total, _USUAL))
  length = next((n for n in _LENGTHS if n >= need), need)
  full: list[_Row] = []
  row = _Row(length, start)
  # What begins alike stands together.
  for number in sorted(range(len(asked)), key=lambda i: (asked[i].context, asked[i].prompt)):
    if not row.put(number, asked[number]):
      full.append(row)
      row = _Row(length, start)
      row.put(number, asked[number])
  full.append(row)
  while full:
    count = min(rows, 1 << (len(full).bit_length() - 1))
    yield full[:count]
    full = full[count:]


# ---- Scores ----


@jax.jit
def _rows(embedder: Params, shortlist: Int[Array, 'W']) -> dict[str, Array]:
  table = embedder.get('unembedding', embedder['input_embedding'])
  return {'input_embedding': table[shortlist]}


@jax.jit
def _chunk(
  embedder: Params,
  hidden: Float[Array, 'R D'],
  index: Int[Array, 'C'],
  which: Int[Array, 'P'],
  targets: Int[Array, 'P'],
) -> Float[Array, 'P']:
  """log p of `targets` after rows `index[which]`."""
  logits = transformer.unembed({'embedder': embedder}, hidden[index])
  return logits[which, targets] - jax.nn.logsumexp(logits, axis=-1)[which]


class Scorer:
  """Scores texts by any params of one architecture.

  Args:
    arch: of the params.
    counted: wraps what is compiled.
  """

  def __init__(self, arch: Architecture, counted: Callable[[Any], Any] = lambda f: f):
    # On CPUs one program for all layers is smaller and, with bf16 weights, faster than one of each
    # (measured: 0.8 s against 1.2 s for 1,024 tokens); elsewhere weights are not copied for it.
    self._scanned = jax.jit(counted(self._states_fn(Transformer(arch, scanned=True))))
    self._unrolled = jax.jit(counted(self._states_fn(Transformer(arch))))
    self._read = jax.jit(counted(self._read_fn(Transformer(arch, scanned=True))))
    self._arch = arch
    self._stacked: tuple[Any, Any] = (None, None)  # of the last params
    self._kept: collections.OrderedDict[Ids, LayerCache] = collections.OrderedDict()  # theirs

  def __call__(
    self, params: Params, asked: Sequence[Asked], shortlist: np.ndarray | None = None
  ) -> list[np.ndarray]:
    """log p of each token of each tail, in nats.

    Args:
      params: official layout.
      asked: texts.
      shortlist: sorted ids that probabilities are among, all tails' in it; None: all tokens.
    """
    out: list[np.ndarray] = [np.zeros(0, np.float32)] * len(asked)
    devices = params['embedder']['input_embedding'].devices()
    platform = next(iter(devices)).platform
    embedder: Any = params['embedder']
    if shortlist is not None:
      embedder = _rows(embedder, shortlist)
    scanned = platform in _SCANNED_ON and len(devices) == 1
    count = _ROWS.get(platform, _MANY_ROWS)
    for context, numbers in self._by_context(asked, keep=scanned):
      texts = [asked[i] for i in numbers]
      if context:
        texts = [dataclasses.replace(t, context=()) for t in texts]
      for rows in lay_out(texts, count, len(context)):
        tokens, positions, segments = (
          np.stack([getattr(r, n) for r in rows]) for n in ('tokens', 'positions', 'segments')
        )
        if scanned:
          cache = self._cache(params, context) if context else None
          hidden = self._scanned(self._stack(params), tokens, positions, segments, cache)
        else:
          hidden = self._unrolled(params, tokens, positions, segments)
        index, targets = [], []
        for r, row in enumerate(rows):
          for number, before in row.before.items():
            index.extend(r * tokens.shape[1] + at for at in before)
            targets.extend(texts[number].tail)
        logp, at = _score(embedder, hidden, index, targets, shortlist), 0
        for number in (n for row in rows for n in row.before):
          n = len(texts[number].tail)
          out[numbers[number]] = logp[at : at + n]
          at += n
    return out

  def forget(self, params: Params) -> None:
    """Drops what is kept of params that will not be asked again."""
    if self._stacked[0] is params:
      self.rest()

  def rest(self) -> None:
    """Drops all that is kept."""
    self._stacked = (None, None)
    self._kept.clear()

  def _by_context(self, asked: Sequence[Asked], keep: bool) -> list[tuple[Ids, Sequence[int]]]:
    """Contexts to keep, each with its texts; all texts with their own contexts where none is."""
    numbers: dict[Ids, list[int]] = {}
    for i, text in enumerate(asked):
      numbers.setdefault(text.context, []).append(i)
    if keep and len(numbers) <= _CONTEXTS:
      return list(numbers.items())
    return [((), range(len(asked)))]

  def _stack(self, params: Params) -> Params:
    if self._stacked[0] is not params:
      self.rest()
      self._stacked = params, transformer.stack(params, self._arch.num_layers)
    return self._stacked[1]

  def _cache(self, params: Params, context: Ids) -> LayerCache:
    """Keys and values of a context, with a leading layer axis."""
    stacked = self._stack(params)
    if context not in self._kept:
      length = next((n for n in _LENGTHS if n >= len(context)), len(context))
      tokens, positions = np.zeros((1, length), np.int32), np.full((1, length), -1, np.int32)
      tokens[0, : len(context)], positions[0, : len(context)] = context, np.arange(len(context))
      self._kept[context] = self._read(stacked, tokens, positions)
      while len(self._kept) > _KEPT:
        self._kept.popitem(last=False)
    self._kept.move_to_end(context)
    return self._kept[context]

  def _states_fn(self, model: Transformer):
    def states(params, tokens, positions, segments, cache=None):
      """Last hidden states of all tokens, Float['B*L D']."""
      if cache is not None:  # of one row, and the same before each

        def before_each(x):
          return jnp.broadcast_to(x, (len(x), len(tokens), *x.shape[2:]))

        cache = jax.tree.map(before_each, cache)
      hidden, _ = model.apply({'params': params}, tokens, positions, segments, cache)
      return hidden.reshape(-1, hidden.shape[-1])

    return states

  def _read_fn(self, model: Transformer):
    def read(params, tokens, positions):
      dtype = params['layers']['attn']['kv_einsum']['w'].dtype
      empty = kv_cache.init_stacked(self._arch, tokens.shape[1], dtype)
      _, cache = model.apply({'params': params}, tokens, positions, None, empty)
      return cache

    return read


def _score(embedder, hidden, index, targets, shortlist) -> np.ndarray:
  """log p(target) at rows `index` of hidden [R, D], in nats, Float['N']; a row is read once."""
  targets, sizes = np.asarray(targets, np.int32), _CHUNKS
  if shortlist is not None:
    sizes = _SHORT_CHUNKS
    at = np.searchsorted(shortlist, targets).clip(0, len(shortlist) - 1)
    targets = at.astype(np.int32)
  rows, which = np.unique(np.asarray(index, np.int32), return_inverse=True)
  size = next((n for n in sizes if n >= len(rows)), sizes[-1])
  out = np.zeros(len(targets), np.float32)
  for first in range(0, len(rows), size):
    some = rows[first : first + size]
    pairs = np.flatnonzero((which >= first) & (which < first + size))
    for now in np.split(pairs, range(_PAIRS, len(pairs), _PAIRS)):
      room = (0, _PAIRS - len(now))
      logp = _chunk(
        embedder, hidden, np.pad(some, (0, size - len(some))),
        np.pad((which[now] - first).astype(np.int32), room), np.pad(targets[now], room),
      )  # fmt: skip
      out[now] = np.asarray(logp)[: len(now)]
  return out
