"""Many streams in one step: the device's side of continuous batching.

Every stream has a slot: a row of the KV cache, its next position, and how its tokens are drawn. A
step says one token in each slot that takes part; the others stay as they are, so that streams of
different generations can share the slots and take turns. Shapes are fixed (the number of slots,
the length of a row, chunks of a prompt), so nothing compiles once all were seen. The forward pass
is the Transformer's own, on the layout that serving.py makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dreaming.brain import kv_cache, serving
from dreaming.brain.programs import Counting
from dreaming.brain.sampler import CANDIDATES, Sampler
from dreaming.brain.serving import top_candidates
from dreaming.brain.transformer import Architecture, Transformer
from dreaming.types import Params

CHUNKS = (16, 64, 128)
"""Tokens of a prompt that are read at once; between two chunks the other streams go on."""

_SMALL = 32  # tokens: up to so many, two of the smallest chunks cost less than one of the next

TOP = 20
"""Log-probabilities of so many tokens can be asked for, as OpenAI has it."""


@flax.struct.dataclass
class Slots:
  """The state of S streams."""

  cache: tuple[kv_cache.LayerCache, ...]  # of S rows
  token: Array  # Int['S'], said last
  position: Array  # Int['S'], of that token
  step: Array  # Int['S'], tokens said so far: each draws its own noise
  seed: Array  # UInt['S']
  knobs: Array  # Float['S 3']: temperature, top_k, top_p


class Said(NamedTuple):
  """One token of each slot. What only `logprobs` asks for is None in greedy steps."""

  token: Array  # Int['S']
  logprob: Array | None  # Float['S'], nats
  top_ids: Array | None  # Int['S TOP']
  top_logprobs: Array | None  # Float['S TOP']


class Row(NamedTuple):
  """A stream that reads its prompt and has no slot yet."""

  cache: tuple[kv_cache.LayerCache, ...]  # of one row
  hidden: Array | None  # Float['1 D'], after the last token read
  length: int  # tokens read


def chunk(left: int) -> int:
  """How many of so many tokens are read next."""
  return CHUNKS[0] if left <= _SMALL else min(left, CHUNKS[-1])


class Batcher(Counting):
  """The compiled programs over slots.

  Args:
    arch: of all minds.
    length: tokens that a row has room for, prompt and reply.
  """

  def __init__(self, arch: Architecture, length: int):
    self.arch, self.length = arch, length
    self._model = Transformer(arch)
    self._candidates = min(CANDIDATES, arch.vocab_size)
    self._chunk = jax.jit(self.counted(self._chunk_fn))
    # Two programs: the deep one, which takes a second to trace, serves all ways to draw.
    self._body = jax.jit(self.counted(self._body_fn), donate_argnums=(2,))
    self._next = jax.jit(self.counted(self._next_fn), static_argnames='mode')
    self._move = jax.jit(self.counted(self._move_fn), donate_argnums=(0,))
    self._empty = kv_cache.init_cache(arch, 1, length)

  def slots(self, count: int) -> Slots:
    """So many slots, all empty."""
    return Slots(
      cache=kv_cache.init_cache(self.arch, count, self.length),
      token=jnp.zeros(count, jnp.int32),
      position=jnp.zeros(count, jnp.int32),
      step=jnp.zeros(count, jnp.int32),
      seed=jnp.zeros(count, jnp.uint32),
      knobs=jnp.zeros((count, 3), jnp.float32),
    )

  def row(self) -> Row:
    return Row(cache=self._empty, hidden=None, length=0)

  def read(self, params: Params, served: Any, row: Row, ids: Sequence[int]) -> Row:
    """Reads one chunk, at most CHUNKS[-1] tokens."""
    size = next(c for c in CHUNKS if len(ids) <= c)
    tokens = np.zeros((1, size), np.int32)
    positions = np.full((1, size), -1, np.int32)
    tokens[0, : len(ids)] = ids
    positions[0, : len(ids)] = np.arange(row.length, row.length + len(ids))
    cache, hidden = self._chunk(params, served, row.cache, tokens, positions)
    return Row(cache=cache, hidden=hidden, length=row.length + len(ids))

  def insert(
    self, params: Params, slots: Slots, row: Row, slot: int, sampler: Sampler, mode: str
  ) -> tuple[Slots, Said]:
    """Gives a stream that has read its prompt a slot, and its first token (Said of one row)."""
    knobs = sampler.knobs[None]
    seed = np.asarray([sampler.seed % 2**32], np.uint32)
    zero = np.zeros(1, np.int32)
    mode = 'greedy' if mode == 'greedy' else 'free'  # of one row that costs nothing
    state = Slots(
      cache=(), token=zero, position=zero + row.length - 1, step=zero, seed=seed, knobs=knobs
    )
    state, said = self._next(
      params['embedder']['input_embedding'], None, row.hidden, state, np.ones(1, bool), mode=mode
    )
    return self.move(slots, slot, state.replace(cache=row.cache), 0), said

  def step(
    self, params: Params, served: Any, embedding: Any, slots: Slots, active: np.ndarray, mode: str
  ) -> tuple[Slots, Said]:
    """The next token of every active slot (Bool['S']).

    Args:
      served: as serving.layers makes it, {} for none.
      embedding: as serving.quantize makes it for one slot, in_blocks of it for more; None for none.
      mode: 'greedy', 'filtered' or 'free': the last does all, the first is fastest.
    """
    if mode == 'free':  # which draws among all tokens
      embedding = None
    table = params['embedder']['input_embedding']
    hidden, cache = self._body(params, served, slots.cache, slots.token, slots.position, active)
    state, said = self._next(table, embedding, hidden, slots.replace(cache=()), active, mode=mode)
    return state.replace(cache=cache), said

  def move(self, to: Slots, slot: int, source: Slots, source_slot: int) -> Slots:
    """Copies a stream into a slot of other Slots."""
    return self._move(to, np.int32(slot), source, np.int32(source_slot))

  # ---- Device side ----

  def _chunk_fn(self, params, served, cache, tokens, positions):
    variables = {'params': params} | ({'serving': served} if served else {})
    hidden, cache = self._model.apply(variables, tokens, positions, None, cache)
    return cache, hidden[:, jnp.argmax(positions[0])]

  def _body_fn(self, params, served, cache, token, position, active):
    variables = {'params': params} | ({'serving': served} if served else {})
    position = jnp.where(active, position, -1)
    hidden, cache = self._model.apply(variables, token[:, None], position[:, None], None, cache)
    return hidden[:, 0], cache

  def _next_fn(self, table, embedding, hidden, slots, active, mode):
    said = self._choose(table, embedding, hidden, slots.seed, slots.step, slots.knobs, mode)
    slots = slots.replace(
      token=jnp.where(active, said.token, slots.token),
      position=slots.position + active,
      step=slots.step + active,
    )
    return slots, said

  def _move_fn(self, to, slot, source, source_slot):
    def copy(a, b):
      row = jax.lax.dynamic_slice_in_dim(b, source_slot, 1)
      return jax.lax.dynamic_update_slice_in_dim(a, row, slot, 0)

    return jax.tree.map(copy, to, source)

  def _choose(self, table, embedding, hidden, seed, step, knobs, mode) -> Said:
    k = 1 if mode == 'greedy' else self._candidates
    if embedding is not None and 'blocks' in embedding:
      values, ids, logits = serving.propose_rows(embedding, table, hidden, k)
    elif embedding is not None:
      values, ids, logits = serving.propose(embedding, table, hidden[0], k)
    else:
      logits = all_logits(table, hidden)
      if mode == 'greedy':
        values, ids = logits, jnp.argmax(logits, axis=-1)[:, None]
      else:
        values, ids = top_candidates(logits, self._candidates)
    likeliest = ids[:, 0].astype(jnp.int32)
    if mode == 'greedy':
      return Said(likeliest, None, None, None)
    token = _draw(values, ids, logits, seed, step, knobs, free=mode == 'free')
    token = jnp.where(knobs[:, 0] > 0, token, likeliest)
    total = jax.nn.logsumexp(logits, axis=-1)
    top = min(TOP, self._candidates)
    # By gather, since a free draw may be none of the candidates; int8's logits judge none.
    at = jnp.argmax(ids == token[:, None], axis=1)[:, None]
    of = logits if mode == 'free' else values
    at = token[:, None] if mode == 'free' else at
    logprob = jnp.take_along_axis(of, at, axis=1)[:, 0] - total
    return Said(token, logprob, ids[:, :top], values[:, :top] - total[:, None])


def all_logits(table: Float[Array, 'V D'], hidden: Float[Array, 'S D']) -> Float[Array, 'S V']:
  """The product with the embedding: of several rows XLA's CPU backend is faster this way round."""
  hidden = hidden.astype(table.dtype)
  if hidden.shape[0] == 1:
    return jnp.einsum('nd,vd->nv', hidden, table, preferred_element_type=jnp.float32)
  return jnp.einsum('vd,nd->vn', table, hidden, preferred_element_type=jnp.float32).T


def _draw(
  values: Float[Array, 'S K'],
  ids: Int[Array, 'S K'],
  logits: Float[Array, 'S V'],
  seed: Int[Array, 'S'],
  step: Int[Array, 'S'],
  knobs: Float[Array, 'S 3'],
  free: bool,
) -> Int[Array, 'S']:
  """A token of each row by its temperature, top-k and top-p, as decode.py draws them."""
  temperature = jnp.where(knobs[:, :1] > 0, knobs[:, :1], 1.0)
  top_k, top_p = knobs[:, 1:2], knobs[:, 2:3]
  keys = jax.vmap(lambda s, n: jax.random.fold_in(jax.random.key(s), n))(seed, step)
  draw = jax.vmap(jax.random.categorical)
  scaled = values / temperature
  rank = jnp.arange(values.shape[-1], dtype=jnp.float32)[None]
  total = jax.nn.logsumexp(logits / temperature, axis=-1, keepdims=True)
  probs = jnp.exp(scaled - total)
  before = jnp.cumsum(probs, axis=-1) - probs
  keep = (before < top_p) & ((top_k == 0) | (rank < top_k))
  pick = draw(keys, jnp.where(keep, scaled, -jnp.inf))
  token = jnp.take_along_axis(ids, pick[:, None], axis=1)[:, 0].astype(jnp.int32)
  if not free:
    return token
  of_all = draw(keys, logits / temperature).astype(jnp.int32)
  return jnp.where((top_k[:, 0] == 0) & (top_p[:, 0] >= 1), of_all, token)
