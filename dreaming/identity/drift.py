"""How far an identity has moved from its base."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from dreaming.brain import lora
from dreaming.types import Params


def distance(params: Params, base: Params, arch: Any) -> float:
  """|weights - base| / |base|, Frobenius norms over all linears: 0 is the base itself.

  Args:
    params: what serves, official layout; what it shares with the base is not looked at.
    base: the frozen weights.
    arch: an Architecture.
  """
  moved = whole = 0.0
  for i in range(arch.num_layers):
    for path in dict.fromkeys(p for p, _ in lora.WEIGHTS.values()):
      new, old = params[f'layer_{i}'], base[f'layer_{i}']
      for key in path:
        new, old = new[key], old[key]
      a, b = _squares(new, old)
      moved, whole = moved + float(a), whole + float(b)
  return math.sqrt(moved / whole) if whole else 0.0


@jax.jit
def _squares(new: jax.Array, old: jax.Array) -> tuple[jax.Array, jax.Array]:
  old = old.astype(jnp.float32)
  return jnp.sum((new.astype(jnp.float32) - old) ** 2), jnp.sum(old**2)
