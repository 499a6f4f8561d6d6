"""Rotary position embedding (Su et al., "RoFormer", arXiv 2104.09864)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rope_angles(positions: Int[Array, 'B L'], head_dim: int, base: float, scale: float):
  """cos and sin of rotary position embedding (arXiv 2104.09864), each [B, L, 1, head_dim/2]."""
  timescale = base ** (2.0 / head_dim * jnp.arange(head_dim // 2, dtype=jnp.float32))
  angle = positions[..., None] / timescale[None, None] / scale
  return jnp.cos(angle)[:, :, None], jnp.sin(angle)[:, :, None]


def rotate(x: Float[Array, 'B L N H'], rope: tuple[Array, Array]) -> Float[Array, 'B L N H']:
  cos, sin = rope
  first, second = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
