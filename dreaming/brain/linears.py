"""A weight's product in a layer: plain, laid out for decoding, adapted, or pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from dreaming.brain import kernels
from dreaming.brain import lora as lora_lib

if TYPE_CHECKING:
  from dreaming.brain.transformer import Architecture


class Linears(nn.Module):
  """Base of Attention and FeedForward: a weight's product, with its adapter when one is given."""

  arch: Architecture  # of the whole model
  lora_scale: float
  dtype: Any  # of the products; None takes the weights' own

  def served(self, name: str, x_BxLxD: Array) -> Float[Array, 'B L out'] | None:
    """The product with a weight that is laid out for decoding (serving.py), where there is one."""
    if not self.has_variable('serving', name):
      return None
    w = self.get_variable('serving', name)
    b, length, d = x_BxLxD.shape
    if b * length == 1:
      return jnp.einsum('bld,od->blo', x_BxLxD.astype(w.dtype), w)
    x_NxD = x_BxLxD.reshape(b * length, d).astype(w.dtype)
    if kernels.fits(w, b * length):
      return kernels.weight(w, x_NxD).reshape(b, length, -1)
    return kernels.turned(w, x_NxD).reshape(b, length, -1)

  def project(
    self, name: str, eqn: str, x: Array, w: Array, flat_in: int = 1
  ) -> Float[Array, 'B L *out']:
    """`einsum(eqn, x, w)` plus the adapter's share; the last `flat_in` axes of x are contracted.

    With a pruning mask the merged weight itself is masked, so that what trains is what will serve.
    """
    dtype = self.dtype or w.dtype
    x = self._read(name, x.astype(dtype), flat_in)
    adapter = self._adapter(name)
    if self.has_variable('mask', name):  # of every linear, adapted or not
      merged = w.astype(jnp.float32)
      if adapter is not None:
        delta = lora_lib.fold(name, adapter['a'] @ adapter['b'], self.arch)
        merged = merged + self.lora_scale * delta
      w = merged * self.get_variable('mask', name)
      return jnp.einsum(eqn, x, w.astype(dtype))
    return self._adapted(jnp.einsum(eqn, x, w.astype(dtype)), adapter, x, flat_in)

  def project_pair(
    self, names: tuple[str, str], eqn: str, x: Array, w: Float[Array, '2 *dims']
  ) -> tuple[Array, Array]:
    """`project` of two linears that share a leaf and an input; `eqn` has `z` for which of the two.

    In one product: faster, and a half of the leaf would be a new array, which training keeps for
    the way back, of every layer.
    """
    if self.has_variable('mask', names[0]):
      one = eqn.replace('z', '')
      return self.project(names[0], one, x, w[0]), self.project(names[1], one, x, w[1])
    dtype = self.dtype or w.dtype
    x = self._read(names[0], x.astype(dtype))
    y = jnp.einsum(eqn, x, w.astype(dtype))
    halves = jnp.moveaxis(y, eqn.split('->')[1].index('z'), 0)
    first, second = (
      self._adapted(half, self._adapter(name), x) for name, half in zip(names, halves, strict=True)
    )
    return first, second

  def _read(self, name: str, x: Array, flat_in: int = 1) -> Array:
    """The input of a linear, kept where the collection of inputs is asked for."""
    if name in lora_lib.INPUTS.values():
      self.sow('inputs', name, x.reshape(*x.shape[: x.ndim - flat_in], -1))
    return x

  def _adapter(self, name: str) -> Any:
    return self.get_variable('lora', name) if self.has_variable('lora', name) else None

  def _adapted(self, y: Array, adapter: Any, x: Array, flat_in: int = 1) -> Array:
    if adapter is None:
      return y
    a, b = adapter['a'].astype(x.dtype), adapter['b'].astype(x.dtype)
    low = lora_lib.product(x.reshape(*x.shape[: x.ndim - flat_in], -1), a, b)
    return y + (self.lora_scale * low).reshape(y.shape)
