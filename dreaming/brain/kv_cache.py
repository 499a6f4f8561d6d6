"""The KV cache: what attention keeps of the tokens before, as a pytree that is never changed.

A global layer keeps all `length` tokens, a sliding layer its window only, as a ring: position p
lies in slot p % S. Rows of a batch may stand at different positions; padding has position -1 and
is never written.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@flax.struct.dataclass
class LayerCache:
  """Keys and values of one layer. A ring on sliding layers: position p lies in slot p % S."""

  k: Float[Array, 'B S K H']
  v: Float[Array, 'B S K H']
  positions: Int[Array, 'B S']  # of what each slot holds, -1 when empty


def init_cache(
  arch: Any, batch: int, length: int, dtype: Any = jnp.float32
) -> tuple[LayerCache, ...]:
  """An empty cache for `length` tokens; sliding layers keep their window only."""
  sizes = [length if g else min(length, arch.sliding_window) for g in arch.is_global]
  shape = (arch.num_kv_heads, arch.head_dim)
  return tuple(
    LayerCache(
      k=jnp.zeros((batch, s, *shape), dtype),
      v=jnp.zeros((batch, s, *shape), dtype),
      positions=jnp.full((batch, s), -1, jnp.int32),
    )
    for s in sizes
  )


def init_stacked(arch: Any, length: int, dtype: Any = jnp.float32) -> LayerCache:
  """An empty cache of one row for the scanned layout: all `length` tokens on every layer.

  Leaves have a leading layer axis. What is read after it may branch, so no layer is a ring.
  """
  layer = LayerCache(
    k=jnp.zeros((1, length, arch.num_kv_heads, arch.head_dim), dtype),
    v=jnp.zeros((1, length, arch.num_kv_heads, arch.head_dim), dtype),
    positions=jnp.full((1, length), -1, jnp.int32),
  )
  return jax.tree.map(lambda x: jnp.broadcast_to(x, (arch.num_layers, *x.shape)), layer)


def trim(cache: tuple[LayerCache, ...], length: int) -> tuple[LayerCache, ...]:
  """The first `length` slots, which hold all of a text that is no longer than that."""
  return tuple(jax.tree.map(lambda x: x[:, :length], layer) for layer in cache)


def write(cache: LayerCache, key: Array, value: Array, positions: Array) -> LayerCache:
  rows = jnp.arange(key.shape[0])[:, None]
  slots = _slots(cache.k.shape[1], positions)
  return LayerCache(
    k=cache.k.at[rows, slots].set(key.astype(cache.k.dtype), mode='drop'),
    v=cache.v.at[rows, slots].set(value.astype(cache.v.dtype), mode='drop'),
    positions=_write_positions(cache.positions, positions),
  )


def seen(cache: LayerCache | None, positions: Int[Array, 'B L']) -> Int[Array, 'B T']:
  """Positions of all keys that attention looks at (see Attention for the two cases)."""
  if cache is None:
    return positions
  if positions.shape[1] == 1:
    return _write_positions(cache.positions, positions)
  return jnp.concatenate([cache.positions, positions], axis=1)


def _slots(size: int, positions: Int[Array, 'B L']) -> Int[Array, 'B L']:
  """Ring slot of each position; out of range, so dropped, for padding and what will not stay."""
  stays = (positions >= 0) & (positions > positions.max(axis=1, keepdims=True) - size)
  return jnp.where(stays, positions % size, size)


def _write_positions(old: Int[Array, 'B S'], positions: Int[Array, 'B L']) -> Int[Array, 'B S']:
  rows = jnp.arange(old.shape[0])[:, None]
  return old.at[rows, _slots(old.shape[1], positions)].set(positions, mode='drop')
