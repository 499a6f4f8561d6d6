"""Which tokens attention sees: causal, within the window, and along a tree of segments.

Several texts in one row need not be read one by one where they begin alike. A segment id names a
place in a tree of three levels: a context (few-shot examples), what is asked after it, and what
may follow that. A token sees its own segment and those above it, so that each text is read as if
it stood alone, and what is shared is read once (tree attention, as in arXiv 2305.09781).
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

LEVEL = 1024
"""Segments of one level under one of the level above."""


def segment(context: int, prompt: int = 0, tail: int = 0) -> int:
  """The id of a place in the tree; numbers count from 1, 0 stands for the level above."""
  if not (0 <= min(context, prompt, tail) and max(context, prompt, tail) < LEVEL):
    raise ValueError(f'segment {context}/{prompt}/{tail}: each is from 0 to {LEVEL - 1}')
  return (context * LEVEL + prompt) * LEVEL + tail


def attention(
  arch: Any,
  q_pos: Int[Array, 'B L'],
  k_pos: Int[Array, 'B T'],
  segment_ids: Int[Array, 'B L'] | None,
  pictures: Int[Array, 'B L'] | None = None,
) -> tuple[Bool[Array, 'B L T'], Bool[Array, 'B L T']]:
  """(mask of global layers, mask of sliding ones).

  Keys beyond the tokens that have segments are a cache's, and come before them: context 1. The soft
  tokens of one picture, which have its number, see each other whatever their order.
  """
  distance = q_pos[:, :, None] - k_pos[:, None, :]
  mask = (distance >= 0) & (k_pos >= 0)[:, None, :]
  if segment_ids is not None:
    cached = k_pos.shape[1] - segment_ids.shape[1]
    of_keys = jnp.pad(segment_ids, ((0, 0), (cached, 0)), constant_values=segment(1))
    mask &= _sees(segment_ids[:, :, None], of_keys[:, None, :])
  if pictures is not None:
    of_keys = jnp.pad(pictures, ((0, 0), (k_pos.shape[1] - pictures.shape[1], 0)))
    mask |= (pictures[:, :, None] == of_keys[:, None, :]) & (pictures > 0)[:, :, None]
  return mask, mask & (distance < arch.sliding_window)


def _sees(q: Array, k: Array) -> Array:
  """Whether k is on the path to q."""
  same = q == k
  asked = (k % LEVEL == 0) & (q // LEVEL == k // LEVEL)
  given = (k % LEVEL**2 == 0) & (q // LEVEL**2 == k // LEVEL**2)
  return (same | asked | given) & (k > 0)
