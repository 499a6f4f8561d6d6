"""Low-rank adapters as a pytree beside the params (Hu et al., LoRA, arXiv 2106.09685).

Every linear may have one, each with its own `a`: attn/q k v o, mlp/gate up down. In matrix view a
linear maps [in] to [out], its adapter adds `scale * (x @ a) @ b`; a is [layers, in, rank], b is
[layers, rank, out], both f32, b starts at zero. `fold` turns `a @ b` into the weight's own layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dreaming.types import Lora, Params

# Name of each linear -> where its weight lies in a layer, and its part when it shares a leaf.
WEIGHTS: Mapping[str, tuple[tuple[str, ...], int | None]] = {
  'attn/q': (('attn', 'q_einsum', 'w'), None),
  'attn/k': (('attn', 'kv_einsum', 'w'), 0),
  'attn/v': (('attn', 'kv_einsum', 'w'), 1),
  'attn/o': (('attn', 'attn_vec_einsum', 'w'), None),
  'mlp/gate': (('mlp', 'gating_einsum'), 0),
  'mlp/up': (('mlp', 'gating_einsum'), 1),
  'mlp/down': (('mlp', 'linear'), None),
}

# Linear -> the one of those with the same input that leaves it in the collection `inputs`.
INPUTS: Mapping[str, str] = {
  'q': 'q', 'k': 'q', 'v': 'q', 'o': 'o', 'gate': 'gate', 'up': 'gate', 'down': 'down',
}  # fmt: skip


def dims(name: str, arch: Any) -> tuple[int, int]:
  """(in, out) of a linear in matrix view."""
  d, f = arch.embed_dim, arch.hidden_dim
  q, kv = arch.num_heads * arch.head_dim, arch.num_kv_heads * arch.head_dim
  return {
    'attn/q': (d, q), 'attn/k': (d, kv), 'attn/v': (d, kv), 'attn/o': (q, d),
    'mlp/gate': (d, f), 'mlp/up': (d, f), 'mlp/down': (f, d),
  }[name]  # fmt: skip


def init(key: Array, arch: Any, *, rank: int, targets: str) -> dict[str, Any]:
  """A new adapter: b is zero, so it changes nothing yet.

  Args:
    key: PRNG key.
    arch: an Architecture.
    rank: of every adapter.
    targets: regex over 'layers/attn/q', 'layers/mlp/gate', ...; a full match is adapted.
  """
  try:
    names = [n for n in WEIGHTS if re.fullmatch(targets, f'layers/{n}')]
  except re.error as e:
    raise ValueError(f'train.targets={targets!r} is not a regex: {e}') from e
  if not names:
    known = ', '.join(f'layers/{n}' for n in WEIGHTS)
    raise ValueError(f'train.targets={targets!r} matches no linear; there are: {known}')
  if rank < 1:
    raise ValueError(f'train.rank={rank}: a rank is at least 1')
  tree: dict[str, Any] = {}
  for name, k in zip(names, jax.random.split(key, len(names)), strict=True):
    fan_in, fan_out = dims(name, arch)
    group, leaf = name.split('/')
    bound = fan_in**-0.5  # uniform with Kaiming's bound for a = sqrt(5), as LoRA's own code has it
    a = jax.random.uniform(k, (arch.num_layers, fan_in, rank), minval=-bound, maxval=bound)
    b = jnp.zeros((arch.num_layers, rank, fan_out), jnp.float32)
    tree.setdefault(group, {})[leaf] = {'a': a, 'b': b}
  return {'layers': tree}


def fold(name: str, delta: Float[Array, 'in out'], arch: Any) -> Array:
  """A linear's [in, out] matrix in the layout of its official weight. Takes 'q' and 'attn/q'."""
  name = name.split('/')[-1]
  if name in ('q', 'k', 'v'):
    return delta.reshape(arch.embed_dim, -1, arch.head_dim).transpose(1, 0, 2)
  if name == 'o':
    return delta.reshape(-1, arch.head_dim, arch.embed_dim)
  return delta if name == 'down' else delta.T


@jax.custom_vjp
def product(
  x: Float[Array, '*B in'], a: Float[Array, 'in rank'], b: Float[Array, 'rank out']
) -> Float[Array, '*B out']:
  """`(x @ a) @ b`, with gradients in which CPUs need not transpose what is large.

  Differentiated as it stands, XLA's CPU backend copies `x` and the gradient of the result
  transposed, and computes anew what they came from in that order: a quarter of a training step.
  """
  return (x @ a) @ b


def _product(x, a, b):
  low = x @ a
  return low @ b, (x, a, b, low)


def _product_grads(kept, dy):
  x, a, b, low = kept
  dlow = jnp.einsum('...o,ro->...r', dy, b)
  dx = jnp.einsum('...r,ir->...i', dlow, a)
  da = jnp.einsum('...r,...i->ri', dlow, x).T  # the small one first: that is what is transposed
  return dx, da, jnp.einsum('...r,...o->ro', low, dy)


product.defvjp(_product, _product_grads)


def names(adapter: Lora) -> list[str]:
  """Its linears, as 'attn/q', in WEIGHTS' order."""
  layers = adapter['layers']
  return [n for n in WEIGHTS if n.split('/')[1] in layers.get(n.split('/')[0], {})]


def layer_delta(adapter: Lora, layer: int, arch: Any, scale: float) -> dict[str, Array]:
  """`scale * a @ b` of one layer, {'attn/q': array in the official weight's layout, ...}, f32."""
  out = {}
  for name in names(adapter):
    group, leaf = name.split('/')
    ab = adapter['layers'][group][leaf]
    out[name] = scale * fold(name, jnp.matmul(ab['a'][layer], ab['b'][layer]), arch)
  return out


def materialize(
  params: Params,
  adapter: Lora | None,
  arch: Any,
  *,
  scale: float,
  mask: Mapping[str, Any] | None = None,
) -> Params:
  """`(f32(base) + scale * a @ b) * mask`, rounded once to the base's dtype.

  The base is not changed and, where nothing is adapted or masked, its arrays are shared. With
  neither adapter nor mask the result is the base itself, bit for bit.

  Args:
    params: the base, official (unrolled) layout.
    adapter: what to add, or None.
    arch: an Architecture.
    scale: alpha / rank.
    mask: {'layer_0': {'attn': {'q_einsum': {'w': Bool}}, ...}}, at the paths it covers.
  """
  if adapter is None and mask is None:
    return params
  out = dict(params)
  for i in range(arch.num_layers):
    layer = f'layer_{i}'
    masks = (mask or {}).get(layer, {})
    out[layer] = _merge_layer(params[layer], adapter, masks, i, arch, scale)
  return out


def _merge_layer(layer, adapter, masks, index, arch, scale):
  deltas = {} if adapter is None else layer_delta(adapter, index, arch, scale)
  merged = {k: dict(v) if isinstance(v, Mapping) else v for k, v in layer.items()}
  for path in dict.fromkeys(p for p, _ in WEIGHTS.values()):
    w = old = _get(layer, path)
    for name, (where, part) in WEIGHTS.items():
      if where == path and name in deltas:
        w = w.astype(jnp.float32)
        w = w + deltas[name] if part is None else w.at[part].add(deltas[name])
    m = _get(masks, path)
    if m is not None:
      w = jnp.where(m, w, 0)
    if w is not old:
      _set(merged, path, w.astype(old.dtype))
  return merged


def _get(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
  for key in path:
    if key not in tree:
      return None
    tree = tree[key]
  return tree


def _set(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
  for key in path[:-1]:
    tree[key] = dict(tree[key])
    tree = tree[key]
  tree[path[-1]] = value
