"""Where a new adapter begins: in the directions that the night's dreams ask for.

LoRA draws `a` at random and lets training turn it. One look at the corpus gives better directions:
the left singular vectors of the loss's full gradient, G [in, out], are what a first step of full
fine-tuning would change most. Of them those are wanted that the base's own words hardly excite, so
that what it knows stays: with C [in, in], the second moment of a linear's inputs at replay
positions, `a` maximizes |G^T a|^2 / a^T (C + damping) a. `b` stays zero: nothing is changed yet.

Method: the gradient's directions are LoRA-GA's (Wang et al., arXiv 2407.05000), without its second
factor; whitening by the inputs of what has to stay is ours. Compared in docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float

from dreaming.brain import lora
from dreaming.types import Batch, Lora, Params

_OVERSAMPLED, _ROUNDS = 8, 8  # of the subspace iteration
_UNIFORM = 3**-0.5  # norm of a column of a random `a` (lora.init): what the learning rate is for


def whitened(
  adapter: Lora,
  base: Params,
  batches: Sequence[Batch],
  gradient: Callable[[Params, Batch], tuple[Any, Any]],
  arch: Any,
  *,
  damping: float,
) -> Lora:
  """A new adapter whose `a` are the dreams' directions.

  Args:
    adapter: new, from lora.init: its linears, rank and `b`.
    base: as train.frozen gives it.
    batches: to look at.
    gradient: (base, batch) -> ({'attn': ..., 'mlp': ...}, inputs): the dreams' gradient by the
      scanned layers' weights, and what lora.INPUTS names, [layers, B, L, in].
    arch: an Architecture.
    damping: added to C, whose mean eigenvalue is scaled to 1.
  """
  names = lora.names(adapter)

  @jax.jit
  def look(total, base, batch):
    grads, inputs = gradient(base, batch)
    at = batch.loss_positions
    weights = batch.weights * batch.replay
    moments = {name: _moment(x, at, weights) for name, x in inputs.items()}
    found = {n: _matrices(grads, n, arch) for n in names}, moments
    return found if total is None else jax.tree.map(jnp.add, total, found)

  total = None
  for batch in batches:
    total = look(total, base, batch)
  gradients, moments = total
  whitening = {name: [_root(c, damping) for c in np.asarray(x)] for name, x in moments.items()}
  layers: dict[str, Any] = {}
  for name in names:
    group, leaf = name.split('/')
    ab = adapter['layers'][group][leaf]
    pairs = zip(np.asarray(gradients[name]), whitening[lora.INPUTS[leaf]], strict=True)
    found = np.stack([_directions(g, root, ab['a'].shape[-1]) for g, root in pairs])
    # A linear may have fewer directions than ranks: the others stay random.
    a = ab['a'].at[..., : found.shape[-1]].set(_UNIFORM * found)
    layers.setdefault(group, {})[leaf] = {**ab, 'a': a}
  return {'layers': layers}


def _moment(
  x: Float[Array, 'layers B L in'], at: Array, weights: Float[Array, 'N']
) -> Float[Array, 'layers in in']:
  x = x.reshape(x.shape[0], -1, x.shape[-1])[:, at]
  return jnp.einsum('lni,n,lnj->lij', x, weights, x, preferred_element_type=jnp.float32)


def _matrices(grads: Any, name: str, arch: Any) -> Float[Array, 'layers in out']:
  """A linear's gradients in matrix view, f32: the inverse of lora.fold."""
  path, part = lora.WEIGHTS[name]
  for key in path:
    grads = grads[key]
  g = (grads if part is None else grads[:, part]).astype(jnp.float32)
  if name == 'attn/o':
    return g.reshape(g.shape[0], -1, arch.embed_dim)
  if name.startswith('attn/'):
    return g.transpose(0, 2, 1, 3).reshape(g.shape[0], arch.embed_dim, -1)
  return g if name == 'mlp/down' else g.transpose(0, 2, 1)


def _root(moment: Float[np.ndarray, 'in in'], damping: float) -> Float[np.ndarray, 'in in']:
  """Lower R with R R^T = C + damping. On the host: LAPACK is faster there than XLA's on CPUs."""
  mean, one = float(np.trace(moment)) / len(moment), np.eye(len(moment), dtype=np.float32)
  return scipy.linalg.cholesky(moment / mean + damping * one if mean > 0 else one, lower=True)


def _directions(
  gradient: Float[np.ndarray, 'in out'], root: Float[np.ndarray, 'in in'], rank: int
) -> Float[np.ndarray, 'in found']:
  """Unit columns, best first: `rank`, or as many as there are.

  With u the left singular vectors of R^-1 G, by subspace iteration, they are R^-T u.
  """
  m = scipy.linalg.solve_triangular(root, gradient, lower=True)
  width = min(rank + _OVERSAMPLED, *gradient.shape)
  q = np.random.default_rng(0).standard_normal((gradient.shape[1], width), np.float32)
  for _ in range(_ROUNDS):
    q = m.T @ np.linalg.qr(m @ q)[0]
    q /= max(float(np.abs(q).max()), 1e-30)
  q = np.linalg.qr(m @ q)[0]
  u = q @ np.linalg.svd(q.T @ m, full_matrices=False)[0][:, :rank]
  v = scipy.linalg.solve_triangular(root.T, u, lower=False)
  return v / np.linalg.norm(v, axis=0, keepdims=True)
