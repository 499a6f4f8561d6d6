"""Gemma 3 in Flax Linen, one file for all sizes: full forward, prefill and decode.

Params carry the names and shapes of official Gemma checkpoints (`layer_0/attn/q_einsum/w`, ...), so
those restore unchanged. Two layouts of the same module:

  unrolled  `layer_0`, `layer_1`, ...: the official one; takes a KV cache; decode and exams use it
  scanned   one `layers` with a leading layer axis (`stack`): compiles once for any depth, can
            rematerialize; training uses it

The adapter is the Flax collection `lora` and works on the scanned layout; what serves has it
materialized (lora.py). Architecture: Gemma 3 technical report (arXiv 2503.19786), section 2.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from dreaming.brain import kernels, kv_cache
from dreaming.brain import masks as attention_masks
from dreaming.brain.kv_cache import LayerCache
from dreaming.brain.linears import Linears
from dreaming.brain.rope import rope_angles, rotate
from dreaming.types import Params

MASKED = -2.3819763e38  # what official Gemma adds up to: far below any logit, above f32's minimum


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
  """The shape of a Gemma 3."""

  num_layers: int
  embed_dim: int
  hidden_dim: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  sliding_window: int
  vocab_size: int = 262_144
  global_every: int = 6  # five sliding layers, then a global one
  local_base: float = 10_000.0
  global_base: float = 1_000_000.0
  global_scale: float = 1.0  # positions of global layers are divided by this
  query_scale: float | None = None  # default head_dim ** -0.5

  @property
  def is_global(self) -> tuple[bool, ...]:
    return tuple((i + 1) % self.global_every == 0 for i in range(self.num_layers))

  @property
  def query_multiplier(self) -> float:
    return self.query_scale if self.query_scale is not None else self.head_dim**-0.5


ARCHITECTURES: Mapping[str, Architecture] = {
  'tiny': Architecture(
    num_layers=6, embed_dim=32, hidden_dim=64, num_heads=2, num_kv_heads=1, head_dim=16,
    sliding_window=16, vocab_size=512,
  ),
  'gemma3_270m': Architecture(
    num_layers=18, embed_dim=640, hidden_dim=2048, num_heads=4, num_kv_heads=1, head_dim=256,
    sliding_window=512,
  ),
  'gemma3_1b': Architecture(
    num_layers=26, embed_dim=1152, hidden_dim=6912, num_heads=4, num_kv_heads=1, head_dim=256,
    sliding_window=512,
  ),
  'gemma3_4b': Architecture(
    num_layers=34, embed_dim=2560, hidden_dim=10_240, num_heads=8, num_kv_heads=4, head_dim=256,
    sliding_window=1024, global_scale=8.0,
  ),
  'gemma3_12b': Architecture(
    num_layers=48, embed_dim=3840, hidden_dim=15_360, num_heads=16, num_kv_heads=8, head_dim=256,
    sliding_window=1024, global_scale=8.0,
  ),
  'gemma3_27b': Architecture(
    num_layers=62, embed_dim=5376, hidden_dim=21_504, num_heads=32, num_kv_heads=16, head_dim=128,
    sliding_window=1024, global_scale=8.0, query_scale=(5376 / 32) ** -0.5,
  ),
}  # fmt: skip


# ---- Layouts ----


def stack(params: Params, num_layers: int) -> dict[str, Any]:
  """Official per-layer params -> one `layers` tree with a leading layer axis."""
  layers = [params[f'layer_{i}'] for i in range(num_layers)]
  rest = {k: v for k, v in params.items() if not k.startswith('layer_')}
  return {**rest, 'layers': jax.tree.map(lambda *xs: jnp.stack(xs), *layers)}


def unstack(params: Params, num_layers: int) -> dict[str, Any]:
  """The inverse of `stack`."""
  layers = {
    f'layer_{i}': jax.tree.map(lambda x: x[i], params['layers'])  # noqa: B023 (mapped at once)
    for i in range(num_layers)
  }
  return {**{k: v for k, v in params.items() if k != 'layers'}, **layers}


def cast(params: Params, dtype: Any) -> dict[str, Any]:
  """Params whose products are done in `dtype`; norms and the embedding lookup stay as they are.

  Of many rows at a time bf16 is faster on CPUs with bf16 products (AMX, AVX-512 BF16).
  """
  out = {
    name: jax.tree.map(lambda x: x.astype(dtype) if x.ndim > 1 else x, tree)
    for name, tree in params.items()
    if name != 'embedder'
  }
  table = params['embedder']['input_embedding']
  return {**out, 'embedder': {'input_embedding': table, 'unembedding': table.astype(dtype)}}


# ---- Modules ----


class RMSNorm(nn.Module):
  """Root mean square norm in f32, scale stored as its distance from one."""

  @nn.compact
  def __call__(self, x: Float[Array, '*B D']) -> Float[Array, '*B D']:
    scale = self.param('scale', nn.initializers.zeros_init(), (x.shape[-1],))
    x = x.astype(jnp.float32)
    normed = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-06)
    scale = scale.astype(jnp.float32).reshape((1,) * (x.ndim - 1) + (-1,))
    return normed * (1 + scale)


class Attention(Linears):
  """Grouped-query attention with QK norm, over the tokens given and a cache when there is one."""

  @nn.compact
  def __call__(
    self,
    x_BxLxD: Array,
    rope: tuple[Array, Array],
    mask: Bool[Array, 'B L T'],
    positions: Int[Array, 'B L'],
    cache: LayerCache | None,
  ) -> tuple[Array, LayerCache | None]:
    arch = self.arch
    n, k, d, h = arch.num_heads, arch.num_kv_heads, arch.embed_dim, arch.head_dim
    q_w = _Weight((n, d, h), name='q_einsum')()
    kv_w = _Weight((2, k, d, h), name='kv_einsum')()
    o_w = _Weight((n, h, d), name='attn_vec_einsum')()

    qkv = self.served('qkv', x_BxLxD)
    if qkv is not None:
      qkv = qkv.reshape(*x_BxLxD.shape[:2], n + 2 * k, h)
      q, key, value = qkv[:, :, :n], qkv[:, :, n : n + k], qkv[:, :, n + k :]
    else:
      q = self.project('q', 'bld,ndh->blnh', x_BxLxD, q_w)
      key, value = self.project_pair(('k', 'v'), 'bld,zkdh->blzkh', x_BxLxD, kv_w)
    q = rotate(RMSNorm(name='_query_norm')(q), rope) * arch.query_multiplier
    key = rotate(RMSNorm(name='_key_norm')(key), rope)
    q, key = q.astype(value.dtype), key.astype(value.dtype)

    if cache is not None:
      new_cache = kv_cache.write(cache, key, value, positions)
      if x_BxLxD.shape[1] == 1:  # the slot just overwritten has left the window
        key, value = new_cache.k, new_cache.v
      else:  # the chunk may be longer than the ring: look at the old ring and the chunk itself
        key = jnp.concatenate([cache.k, key], axis=1)
        value = jnp.concatenate([cache.v, value], axis=1)
    else:
      new_cache = None

    b, length = x_BxLxD.shape[:2]
    q = q.reshape(b, length, k, n // k, h)
    logits = jnp.einsum('blkgh,bskh->bkgls', q, key, preferred_element_type=jnp.float32)
    logits = jnp.where(mask[:, None, None], logits, MASKED)
    probs = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    encoded = jnp.einsum('bkgls,bskh->blkgh', probs, value).reshape(b, length, n, h)
    out = self.served('o', encoded.reshape(b, length, n * h))
    if out is None:
      out = self.project('o', 'blnh,nhd->bld', encoded, o_w, flat_in=2)
    return out, new_cache


class FeedForward(Linears):
  """Gated GELU."""

  @nn.compact
  def __call__(self, x_BxLxD: Array) -> Array:
    f, d = self.arch.hidden_dim, self.arch.embed_dim
    gating = self.param('gating_einsum', nn.initializers.normal(), (2, f, d))
    linear = self.param('linear', nn.initializers.normal(), (f, d))
    both = self.served('gate_up', x_BxLxD)
    if both is not None:
      gate, up = jnp.split(both, 2, axis=-1)
    else:
      gate, up = self.project_pair(('gate', 'up'), 'bld,zfd->blzf', x_BxLxD, gating)
    # In f32: bf16 elementwise takes CPUs four times as long (measured: 3.4 against 0.8 ms a layer).
    gated = nn.gelu(gate.astype(jnp.float32)) * up
    out = self.served('down', gated)
    return self.project('down', 'blf,fd->bld', gated, linear) if out is None else out


class Block(nn.Module):
  arch: Architecture
  lora_scale: float
  dtype: Any

  @nn.compact
  def __call__(self, x_BxLxD, is_global, ropes, masks, positions, cache=None):
    rope, mask = (jax.tree.map(lambda a, b: jnp.where(is_global, a, b), *pair)
                  if isinstance(is_global, jax.Array) else pair[0 if is_global else 1]
                  for pair in (ropes, masks))  # fmt: skip
    linears = {'arch': self.arch, 'lora_scale': self.lora_scale, 'dtype': self.dtype}
    h, cache = Attention(name='attn', **linears)(
      RMSNorm(name='pre_attention_norm')(x_BxLxD), rope, mask, positions, cache
    )
    x_BxLxD = x_BxLxD + RMSNorm(name='post_attention_norm')(h)
    h = FeedForward(name='mlp', **linears)(RMSNorm(name='pre_ffw_norm')(x_BxLxD))
    return x_BxLxD + RMSNorm(name='post_ffw_norm')(h), cache


class Transformer(nn.Module):
  """Tokens to final hidden states; `unembed` makes logits of those one is interested in.

  Example:
    hidden, _ = Transformer(arch).apply({'params': params}, tokens)
    logits = unembed(params, hidden[:, -1])
  """

  arch: Architecture
  scanned: bool = False
  remat: bool = False  # on the way back make a layer's products anew, too, not only the rest
  lora_scale: float = 1.0
  dtype: Any = None  # of the matrix products; norms, softmax and the residual stream are f32

  @nn.compact
  def __call__(
    self,
    tokens: Int[Array, 'B L'],
    positions: Int[Array, 'B L'] | None = None,
    segment_ids: Int[Array, 'B L'] | None = None,
    cache: Sequence[LayerCache] | LayerCache | None = None,
    seen: tuple[Float[Array, 'B L D'], Int[Array, 'B L']] | None = None,
  ) -> tuple[Float[Array, 'B L D'], tuple[LayerCache, ...] | LayerCache | None]:
    """Runs the model.

    Args:
      tokens: ids; padding anywhere, as long as its position is -1 (or its segment is 0).
      positions: of each token in its segment; default 0, 1, 2, ...
      segment_ids: tokens see their own segment and those above it in the tree (masks.py); 0 is
        padding.
      cache: what came before, on each layer, or with a leading layer axis in the scanned layout
        (kv_cache.py); it is not changed, a new one is returned. Among segments it is context 1.
      seen: soft tokens of pictures, and at each place the number of its picture or 0 (seen.py).
    """
    arch = self.arch
    if positions is None:
      positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    if cache is not None and self.scanned != isinstance(cache, LayerCache):
      raise ValueError('the scanned layout takes one cache of all layers, the other one of each')

    x_BxLxD = _Embedder(arch, name='embedder')(tokens)
    pictures = None
    if seen is not None:
      soft, pictures = seen
      x_BxLxD = jnp.where(pictures[..., None] > 0, soft, x_BxLxD)
    ropes = (
      rope_angles(positions, arch.head_dim, arch.global_base, arch.global_scale),
      rope_angles(positions, arch.head_dim, arch.local_base, 1.0),
    )
    if self.scanned:
      first = None if cache is None else jax.tree.map(lambda x: x[0], cache)
      keys = kv_cache.seen(first, positions)
      masks = attention_masks.attention(arch, positions, keys, segment_ids, pictures)
      # Elementwise work is as soon done again as kept, and is most of what would be kept.
      policy = None if self.remat else jax.checkpoint_policies.dots_saveable
      block = nn.remat(Block, prevent_cse=False, policy=policy)
      layers = nn.scan(
        block,
        variable_axes={'params': 0, 'lora': 0, 'mask': 0, 'inputs': 0},
        split_rngs={'params': True},
        in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast, 0),
        length=arch.num_layers,
      )(arch, self.lora_scale, self.dtype, name='layers')
      is_global = jnp.asarray(arch.is_global)
      x_BxLxD, new_cache = layers(x_BxLxD, is_global, ropes, masks, positions, cache)
    else:
      new_cache, masks = [], {}  # masks by the number of keys: all layers of a kind share theirs
      for i, is_global in enumerate(arch.is_global):
        layer_cache = None if cache is None else cache[i]
        kind = None if layer_cache is None else layer_cache.k.shape[1]
        if kind not in masks:
          keys = kv_cache.seen(layer_cache, positions)
          masks[kind] = attention_masks.attention(arch, positions, keys, segment_ids, pictures)
        given = ropes, masks[kind], positions, layer_cache
        x_BxLxD, layer_cache = self._block(f'layer_{i}', x_BxLxD, is_global, *given)
        new_cache.append(layer_cache)
      new_cache = None if cache is None else tuple(new_cache)
    return RMSNorm(name='final_norm')(x_BxLxD), new_cache

  def _block(self, name: str, x: Array, is_global: bool, *given: Any):
    module = self.arch, self.lora_scale, self.dtype
    if self.is_initializing() or self.is_mutable_collection('inputs'):
      return Block(*module, name=name)(x, is_global, *given)
    variables = {kind: group[name] for kind, group in self.variables.items() if name in group}
    fixed = Block(*module, parent=None), is_global, kernels.loaded()
    return _traced_once(fixed, variables, x, *given)


@functools.partial(jax.jit, static_argnums=0)
def _traced_once(fixed: tuple[Block, bool, bool], variables, x: Array, *given: Any):
  """A layer. JAX keeps its trace: Flax is walked through once for each kind, not for each layer."""
  block, is_global, _ = fixed
  return block.apply(variables, x, is_global, *given)


def unembed(params: Params, hidden: Float[Array, '*B D']) -> Float[Array, '*B V']:
  """Logits, f32. `embedder/unembedding`, when present, is the table in a dtype for this alone."""
  embedder = params['embedder']
  table = embedder.get('unembedding', embedder['input_embedding'])
  h_NxD = hidden.reshape(-1, hidden.shape[-1]).astype(table.dtype)
  n = h_NxD.shape[0]
  if table.dtype == jnp.bfloat16 and n <= 64:
    # On CPUs, XLA reads a bf16 table at full memory speed only as the left operand of a product
    # with two or more columns (measured: 15 ms against 180 ms for one row of 262,144 x 640).
    h_NxD = jnp.pad(h_NxD, ((0, max(0, 2 - n)), (0, 0)))
    logits = jnp.einsum('vd,nd->vn', table, h_NxD, preferred_element_type=jnp.float32)[:, :n].T
  elif table.dtype == jnp.float32:  # of more rows, turning the result around takes as long
    logits = kernels.turned(table, h_NxD, most=16)
  else:
    logits = jnp.einsum('nd,vd->nv', h_NxD, table, preferred_element_type=jnp.float32)
  return logits.reshape(*hidden.shape[:-1], -1)


def speaking(params: Params, ids: Int[Array, 'W']) -> Params:
  """Params that say `ids` (sorted) and nothing else, so that only their rows make logits.

  For `Decoder.generate` without `avoid`; what is asked about given texts takes a `shortlist`.
  """
  embedder = params['embedder']
  rows = embedder.get('unembedding', embedder['input_embedding'])[ids]
  return {**params, 'embedder': {**embedder, 'unembedding': rows, 'said': jnp.asarray(ids)}}


def said(params: Params, index: Int[Array, '*B']) -> Int[Array, '*B']:
  """The ids of what was chosen among the logits that `unembed` gives."""
  ids = params['embedder'].get('said')
  return index if ids is None else ids[index]


# ---- Parts ----


class _Weight(nn.Module):
  """A parameter `w` under its own name, as official checkpoints have it."""

  shape: tuple[int, ...]

  @nn.compact
  def __call__(self) -> Array:
    return self.param('w', nn.initializers.normal(), self.shape)


class _Embedder(nn.Module):
  arch: Architecture

  @nn.compact
  def __call__(self, tokens: Int[Array, 'B L']) -> Float[Array, 'B L D']:
    shape = (self.arch.vocab_size, self.arch.embed_dim)
    table = self.param('input_embedding', nn.initializers.normal(), shape)
    x = table[tokens]
    return (x * jnp.sqrt(self.arch.embed_dim).astype(x.dtype)).astype(jnp.float32)
