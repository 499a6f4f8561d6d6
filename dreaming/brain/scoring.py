"""Log-probabilities of given tokens, from last hidden states, a chunk of rows at a time.

A row of logits is a megabyte, so they are made for few rows at once; and chunks of one size mean
one program, however many tokens are asked about.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dreaming.brain import transformer
from dreaming.types import Params

_CHUNK = 64  # rows of the whole vocabulary
_SHORT_CHUNK = 512  # rows of a shortlist


@jax.jit
def _rows(embedder: Params, shortlist: Int[Array, 'W']) -> dict[str, Array]:
  table = embedder.get('unembedding', embedder['input_embedding'])
  return {'input_embedding': table[shortlist]}


@jax.jit
def _chunk(
  embedder: Params, hidden: Float[Array, 'R D'], index: Int[Array, 'C'], targets: Int[Array, 'C']
) -> Float[Array, 'C']:
  logits = transformer.unembed({'embedder': embedder}, hidden[index])
  chosen = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
  return chosen - jax.nn.logsumexp(logits, axis=-1)


class Scorer:
  """Scores tokens by one mind's embedding.

  Args:
    params: of the mind.
    shortlist: sorted ids that probabilities are among, with all targets in it; None: all tokens.
  """

  def __init__(self, params: Params, shortlist: np.ndarray | None = None):
    self._shortlist = shortlist
    self._embedder: Any = params['embedder']
    if shortlist is not None:
      self._embedder = _rows(self._embedder, shortlist)

  def __call__(self, hidden: Array, index: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """log p(target) at rows `index` of hidden [R, D], in nats, Float['N']."""
    targets = np.asarray(targets, np.int32)
    if self._shortlist is not None:
      at = np.searchsorted(self._shortlist, targets).clip(0, len(self._shortlist) - 1)
      targets = at.astype(np.int32)
    size = _CHUNK if self._shortlist is None else _SHORT_CHUNK
    n = len(targets)
    index = np.pad(np.asarray(index, np.int32), (0, -n % size)).reshape(-1, size)
    targets = np.pad(targets, (0, -n % size)).reshape(-1, size)
    parts = [_chunk(self._embedder, hidden, *x) for x in zip(index, targets, strict=True)]
    return np.concatenate([np.asarray(p) for p in parts])[:n] if parts else np.zeros(0, np.float32)
