"""Weights laid out for decoding on one device: read once a token, at the speed of memory.

A decoded token reads every weight once, and nothing is computed twice, so what counts is how
weights are read. Two things are prepared for that, beside the official params:

  layers     q, k, v as one matrix, gate and up as one, each with its inputs last: XLA's CPU backend
             reads such at full speed, and the official shapes at half of it (measured: 15.5 ms for
             the 18 layers of the 270M, against 37 ms).
  embedding  int8 with a scale for each token. It only proposes: the likeliest candidates are judged
             by the real embedding, so that greedy text is what the full product would give. For
             one row of 262,144 x 640 it takes 9 ms, the f32 product 24 ms.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dreaming.brain import kernels
from dreaming.types import Params

_BLOCK = 2048  # tokens whose embeddings are widened at a time: 5 MB on the 270M
_UNROLL = 8  # rows of the embedding, transposed, added up at a time; more are slower


# ---- Layers ----


@jax.jit
def _layer(layer: Params) -> dict[str, Any]:
  attn, mlp = layer['attn'], layer['mlp']
  d = attn['q_einsum']['w'].shape[1]

  def rows(w: Float[Array, '*N D H']) -> Float[Array, 'NH D']:
    return jnp.swapaxes(w, -1, -2).reshape(-1, d)

  return {
    'attn': {
      'qkv': jnp.concatenate([rows(attn['q_einsum']['w']), rows(attn['kv_einsum']['w'])]),
      'o': attn['attn_vec_einsum']['w'].reshape(-1, d).T,
    },
    'mlp': {'gate_up': mlp['gating_einsum'].reshape(-1, d), 'down': mlp['linear'].T},
  }


def layers(params: Params) -> dict[str, Any]:
  """The Flax collection `serving` of a Transformer: of every layer its linears, [out, in]."""
  return {name: _layer(params[name]) for name in params if name.startswith('layer_')}


def variables(params: Params, served: dict[str, Any]) -> dict[str, Any]:
  """What a Transformer takes: params, with what `served` has of them laid out."""
  return {'params': params} | ({'serving': served['layers']} if 'layers' in served else {})


# ---- Embedding ----


@jax.jit
def quantize(table: Float[Array, 'V D']) -> dict[str, Array]:
  """int8 values, [D / 8, 8, V], and the scale of each token, [V]."""
  scale = jnp.max(jnp.abs(table), axis=1) / 127
  scale = jnp.where(scale > 0, scale, 1)
  values = jnp.round(table / scale[:, None]).astype(jnp.int8).T
  return {'values': values.reshape(-1, _UNROLL, table.shape[0]), 'scale': scale}


def propose(
  quantized: dict[str, Array], table: Float[Array, 'V D'], hidden: Float[Array, 'D'], k: int
) -> tuple[Float[Array, '1 K'], Int[Array, '1 K'], Float[Array, '1 V']]:
  """The k likeliest tokens of one row, with the real embedding's logits, and int8's logits of all.

  Descending; of equal ones the lower id comes first, as argmax has it.
  """

  def add(total, some):
    h, values = some
    for i in range(_UNROLL):
      total = total + h[i] * values[i].astype(jnp.float32)
    return total, None

  hidden = hidden.astype(jnp.float32)
  zeros = jnp.zeros(quantized['scale'].shape, jnp.float32)
  total, _ = jax.lax.scan(add, zeros, (hidden.reshape(-1, _UNROLL), quantized['values']))
  logits = (total * quantized['scale'])[None]
  return *_judged(logits, table, hidden[None], k), logits


@jax.jit
def in_blocks(quantized: dict[str, Array]) -> dict[str, Array]:
  """What `quantize` made, for several rows at once: int8 values [V / block, block, D]."""
  d, v = np.prod(quantized['values'].shape[:2]), quantized['values'].shape[2]
  block = next(b for b in (_BLOCK, 512, 128, 1) if v % b == 0)
  values = quantized['values'].reshape(d, v).T.reshape(v // block, block, d)
  return {'blocks': values, 'scale': quantized['scale']}


def propose_rows(
  quantized: dict[str, Array], table: Float[Array, 'V D'], hidden: Float[Array, 'B D'], k: int
) -> tuple[Float[Array, 'B K'], Int[Array, 'B K'], Float[Array, 'B V']]:
  """`propose` for several rows, by in_blocks: each block is widened once for all of them.

  Measured for 8 rows of 262,144 x 640, in ms of both cores together: the kernel 36, this without it
  66, the f32 product 64 (and four times the memory to read).
  """
  hidden = hidden.astype(jnp.float32)
  blocks, scale = quantized['blocks'], quantized['scale']
  values = blocks.reshape(-1, blocks.shape[-1])
  if kernels.fits(values, hidden.shape[0]):
    logits = kernels.quantized(values, scale, hidden)
  else:

    def block(values: Float[Array, 'V D']) -> Float[Array, 'V B']:
      return jnp.einsum('vd,bd->vb', values.astype(jnp.float32), hidden)

    logits = jax.lax.map(block, blocks).reshape(-1, hidden.shape[0])
    logits = (logits * scale[:, None]).T
  return *_judged(logits, table, hidden, k), logits


def _judged(logits, table, hidden, k: int) -> tuple[Float[Array, 'B K'], Int[Array, 'B K']]:
  """The k likeliest of what int8 proposes, by the real embedding."""
  ids = jnp.sort(top_candidates(logits, min(2 * k + 30, logits.shape[1]))[1], axis=1)
  real = jnp.einsum('bkd,bd->bk', table[ids].astype(jnp.float32), hidden)
  values, order = jax.lax.top_k(real, k)
  return values, jnp.take_along_axis(ids, order, axis=1)


def top_candidates(logits: Float[Array, 'B V'], k: int) -> tuple[Array, Array]:
  """The k largest of each row, exactly, (values, ids) [B, k], descending.

  By blocks: the k largest values lie in the k blocks with the largest maxima, so only those are
  sorted. Sorting rows of 262,144 takes longer than the rest of a decode step.
  """
  b, v = logits.shape
  block = 256
  if v % block or v // block <= k:
    return jax.lax.top_k(logits, k)
  blocks = logits.reshape(b, v // block, block)
  _, which = jax.lax.top_k(blocks.max(axis=-1), k)
  values = jnp.take_along_axis(blocks, which[:, :, None], axis=1).reshape(b, -1)
  ids = (which[:, :, None] * block + jnp.arange(block)[None, None]).reshape(b, -1)
  values, pick = jax.lax.top_k(values, k)
  return values, jnp.take_along_axis(ids, pick, axis=1)
