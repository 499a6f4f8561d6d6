"""Which dreams an answer of the weights comes from: those whose gradients point where its points.

Every dream's question and answer is a training example. Its gradient, taken where the adapter had
not learned yet (its `a` as they are, its `b` zero), says which way it pushed; the answer's own
gradient says which way makes the answer likelier. Their cosine tells how much they have to do with
each other. Method: TracIn (Pruthi et al., arXiv 2002.08484), at one point and normalised.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dreaming.brain import prompts
from dreaming.brain.tokenizer import Tokenizer
from dreaming.brain.transformer import Architecture
from dreaming.memory.embed import Embedder
from dreaming.sleep import aims, packing, train
from dreaming.sleep.train import TrainConfig
from dreaming.types import QA, Dream, Lora, Params

_LENGTHS = (32, 64, 128, 256)  # tokens of an example
_SHORTLIST = 8192  # frequent tokens that answers are told from


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
  """A dream that an answer comes from."""

  dream: Dream
  similarity: float  # cosine of gradients, -1 to 1


def origins(
  asked: QA,
  dreams: Sequence[Dream],
  *,
  params: Params,
  arch: Architecture,
  adapter: Lora,
  tokenizer: Tokenizer,
  embedder: Embedder,
  config: TrainConfig,
  candidates: int = 15,
) -> list[Origin]:
  """The dreams behind an answer, most alike first.

  Args:
    asked: the question, in the third person, and what was answered.
    dreams: that trained; of those with pairs the likeliest are looked at.
    params: what the adapter was added to.
    arch: its architecture.
    adapter: that answered.
    tokenizer: of the base.
    embedder: chooses candidates by what their questions mean.
    config: how it was trained.
    candidates: dreams whose gradients are taken; their number is padded to it.
  """
  chosen = _likeliest(asked, dreams, embedder, candidates)
  if not chosen:
    return []
  pairs = [asked, *(pair for _, pair in chosen)]
  found = _gradients(pairs, candidates + 1, params, arch, adapter, tokenizer, config)
  norms = np.linalg.norm(found, axis=1)
  cosines = found[1:] @ found[0] / np.maximum(norms[1:] * norms[0], 1e-30)
  out = [
    Origin(dream=dream, similarity=float(c)) for (dream, _), c in zip(chosen, cosines, strict=False)
  ]
  return sorted(out, key=lambda o: -o.similarity)


def _likeliest(
  asked: QA, dreams: Sequence[Dream], embedder: Embedder, count: int
) -> list[tuple[Dream, QA]]:
  """Of each dream the pair that is nearest in meaning; of those the nearest dreams."""
  pairs = [(d, pair) for d in dreams for pair in d.pairs]
  if not pairs:
    return []
  texts = [f'{pair.question} {pair.answer}' for _, pair in pairs]
  near = embedder([*texts, f'{asked.question} {asked.answer}'])
  best: dict[int, tuple[float, Dream, QA]] = {}
  for (dream, pair), score in zip(pairs, near[:-1] @ near[-1], strict=True):
    if score > best.get(dream.id, (-2.0,))[0]:
      best[dream.id] = float(score), dream, pair
  ranked = sorted(best.values(), key=lambda b: -b[0])[:count]
  return [(dream, pair) for _, dream, pair in ranked]


def _gradients(
  pairs: Sequence[QA],
  rows: int,
  params: Params,
  arch: Architecture,
  adapter: Lora,
  tokenizer: Tokenizer,
  config: TrainConfig,
) -> Float[np.ndarray, 'rows weights']:
  """By the adapter's `b`, where they are zero; rows beyond the pairs repeat the first."""
  k = 1
  examples = [
    packing.Example(prompt=prompts.question(p.question), target=f' {p.answer}\n') for p in pairs
  ]
  encoded = [packing.encode(tokenizer, e, _LENGTHS[-1], k) for e in examples]
  longest = max(len(e.ids) for e in encoded)
  length = next(n for n in _LENGTHS if n >= longest)
  wanted = {int(i) for e in encoded for i in e.target_ids.reshape(-1)}
  size = min(-(-(len(wanted) + _SHORTLIST) // 4096) * 4096, arch.vocab_size)
  others = (i for i in range(arch.vocab_size) if i not in wanted)
  fill = [i for i, _ in zip(others, range(size - len(wanted)), strict=False)]
  shortlist = np.asarray(sorted(wanted | {*fill}), np.int32)
  encoded = [e.among(shortlist) for e in encoded]
  encoded += encoded[:1] * (rows - len(encoded))
  batches = [packing.batch_of([[e]], length, length, k) for e in encoded]
  stacked = jax.tree.map(lambda *xs: np.stack(xs), *batches)
  base = train.frozen(params, arch, shortlist, config.dtype)
  plain = dataclasses.replace(aims.without(config), held=1.0, replay_weight=0.0)
  loss_fn = train.make_loss(arch, plain)
  a, b = (_part(adapter, name) for name in ('a', 'b'))
  b = jax.tree.map(jnp.zeros_like, b)

  @jax.jit
  def gradients(a, b, base, batches):
    def loss(b, batch):
      both = jax.tree.map(lambda x, y: {'a': x, 'b': y}, a, b)
      return loss_fn({'layers': both}, base, batch, None)[0]

    return jax.vmap(jax.grad(loss), in_axes=(None, 0))(b, batches)

  found = gradients(a, b, base, stacked)
  return np.concatenate([np.asarray(x).reshape(rows, -1) for x in jax.tree.leaves(found)], axis=1)


def _part(adapter: Lora, name: str) -> dict[str, dict[str, Array]]:
  return {
    group: {leaf: jnp.asarray(ab[name]) for leaf, ab in linears.items()}
    for group, linears in adapter['layers'].items()
  }
