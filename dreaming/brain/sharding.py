"""Where arrays live: a mesh from three numbers, and rules from tree paths to shardings.

Sharding is data beside the model, never code inside it: jax.jit gets these shardings and the
compiler places the collectives. The mesh has three axes:

  data    copies of the weights, each with its own rows of the batch
  fsdp    rows of the batch too, and every weight in slices (Zhao et al., arXiv 2304.11277)
  tensor  heads and hidden units (Shoeybi et al., Megatron-LM, arXiv 1909.08053)

A rule is (regex, PartitionSpec); the first whose regex matches the whole path of a leaf holds.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ('data', 'fsdp', 'tensor')
Rules = Sequence[tuple[str, P]]

# ---- The mesh ----


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
  """Devices along each axis; one of them may be -1, which takes what is left."""

  data: int = 1
  fsdp: int = 1
  tensor: int = 1


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh over the first data * fsdp * tensor devices (default: of all that there are).

  Raises:
    ValueError: the sizes and the devices do not divide.
  """
  devices = list(jax.devices() if devices is None else devices)
  sizes = list(dataclasses.astuple(config))
  asked = ', '.join(f'mesh.{axis}={size}' for axis, size in zip(AXES, sizes, strict=True))
  if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
    raise ValueError(f'{asked}: each is 1 or more, and at most one is -1 (takes what is left)')
  known = math.prod(size for size in sizes if size != -1)
  if len(devices) % known:
    fits = ', '.join(str(n) for n in range(1, len(devices) + 1) if len(devices) % n == 0)
    raise ValueError(
      f'{asked} asks for {known} devices and {len(devices)} do not divide by that: '
      f'choose sizes whose product is one of {fits}'
    )
  sizes = [len(devices) // known if size == -1 else size for size in sizes]
  # Auto: the compiler places the collectives. jax.make_mesh's own default is Explicit.
  return jax.make_mesh(
    sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[: math.prod(sizes)]
  )


# ---- The rules ----

# Each weight in its official layout (see transformer.py): N and K heads and F over tensor, D over
# fsdp. The stacked layout of training has a layer axis before, which is never split: the scan
# walks it.
_LAYER: Rules = (
  (r'attn/q_einsum/w', P('tensor', 'fsdp', None)),  # N D H
  (r'attn/kv_einsum/w', P(None, 'tensor', 'fsdp', None)),  # 2 K D H
  (r'attn/attn_vec_einsum/w', P('tensor', None, 'fsdp')),  # N H D
  (r'mlp/gating_einsum(/w)?', P(None, 'tensor', 'fsdp')),  # 2 F D
  (r'mlp/linear(/w)?', P('tensor', 'fsdp')),  # F D
)
BASE: Rules = (
  (r'embedder/(input_embedding|unembedding)', P('tensor', 'fsdp')),  # V D
  *((rf'layer_\d+/{regex}', spec) for regex, spec in _LAYER),
  *((rf'layers/{regex}', P(None, *spec)) for regex, spec in _LAYER),
  (r'(.*/)?\w*norm/scale', P()),
)

# An adapter is cut as the weight is that it belongs to: what reads D is cut over fsdp, what makes
# or reads heads and hidden units over tensor. Optimizer state carries the same paths behind a
# prefix ('opt_state/0/mu/layers/attn/q/a'), and so follows the same rules.
ADAPTER: Rules = (
  (r'(.*/)?layers/(attn/[qkv]|mlp/(gate|up))/a', P(None, 'fsdp', None)),  # layers D rank
  (r'(.*/)?layers/(attn/[qkv]|mlp/(gate|up))/b', P(None, None, 'tensor')),  # layers rank out
  (r'(.*/)?layers/(attn/o|mlp/down)/a', P(None, 'tensor', None)),  # layers in rank
  (r'(.*/)?layers/(attn/o|mlp/down)/b', P(None, None, 'fsdp')),  # layers rank D
)

# Masks as training takes them, one per linear in the layout of its weight (prune.collection).
MASK: Rules = (
  (r'layers/attn/[qkv]', P(None, 'tensor', 'fsdp', None)),  # layers N D H
  (r'layers/attn/o', P(None, 'tensor', None, 'fsdp')),  # layers N H D
  (r'layers/mlp/(gate|up|down)', P(None, 'tensor', 'fsdp')),  # layers F D
)

# Rows over everything that holds copies or slices. Loss positions are gathered from all rows.
BATCH: Rules = ((r'.*', P(('data', 'fsdp'))),)


# ---- Rules to shardings ----


def shardings(tree: Any, mesh: Mesh, rules: Rules) -> Any:
  """A NamedSharding for every leaf (an array or a ShapeDtypeStruct), for jax.jit and device_put.

  Scalars are on every device. So is what a rule cannot cut: an axis of the mesh that does not
  divide its dimension is left out (one key-value head stays whole), and a leaf of lower rank than
  its rule is not cut at all (Adafactor's row and column statistics).

  Raises:
    ValueError: no rule matches a path.
  """

  def sharding(path, leaf) -> NamedSharding:
    return NamedSharding(mesh, _fit(_find(path, leaf, rules), leaf.shape, mesh))

  return jax.tree_util.tree_map_with_path(sharding, tree)


def shard(tree: Any, mesh: Mesh, rules: Rules) -> Any:
  """Moves every leaf to where the rules want it."""
  return jax.device_put(tree, shardings(tree, mesh, rules))


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of what every device holds whole."""
  return NamedSharding(mesh, P())


def _find(path: Any, leaf: Any, rules: Rules) -> P:
  if not leaf.shape:
    return P()
  name = jax.tree_util.keystr(path, simple=True, separator='/')
  for regex, spec in rules:
    if re.fullmatch(regex, name):
      return spec
  raise ValueError(
    f'no sharding rule matches {name!r} {tuple(leaf.shape)}: add one to dreaming/brain/sharding.py'
  )


def _fit(spec: P, shape: tuple[int, ...], mesh: Mesh) -> P:
  """The spec, without what the shape cannot take."""
  if len(spec) > len(shape):
    return P()

  def keep(axes: str | tuple[str, ...] | None, size: int) -> str | tuple[str, ...] | None:
    names = (axes,) if isinstance(axes, str) else axes or ()
    return None if size % math.prod(mesh.shape[name] for name in names) else axes

  return P(*(keep(axes, size) for axes, size in zip(spec, shape, strict=False)))
