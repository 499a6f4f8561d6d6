"""What a night minimizes. Logits are made only where there is something to learn.

A vocabulary of 262,144 makes one row of f32 logits a megabyte, and on a CPU most of a step. Nearly
all of a row's mass lies on few tokens, so a night works with a shortlist: every token of its
corpus, what the base holds likely at any of its loss positions, and the most frequent ones
(corpus.py). The exam looks at the whole vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dreaming.types import Lora


def cross_entropy(
  logits: Float[Array, 'N W'], target_ids: Int[Array, 'N K'], target_probs: Float[Array, 'N K']
) -> Float[Array, 'N']:
  """`-sum_k p_k log q_k`, and what p leaves over against what q leaves over, in nats.

  With a one-hot target this is the reflection loss (next-token prediction). With the base's top K
  it is top-K distillation, whose gradient is that of KL(base || student): the K likeliest tokens
  and one bucket for the rest.
  """
  logq = jax.nn.log_softmax(logits, axis=-1)
  logq_k = jnp.take_along_axis(logq, target_ids, axis=-1)
  loss = -jnp.sum(target_probs * logq_k, axis=-1)
  rest_p = jnp.maximum(1.0 - jnp.sum(target_probs, axis=-1), 0.0)
  # Padding of K repeats token 0 with probability 0: it must not be counted as covered.
  covered = jnp.sum(jnp.where(target_probs > 0, jnp.exp(logq_k), 0.0), axis=-1)
  rest_q = jnp.clip(1.0 - covered, 1e-6, 1.0)
  return loss - jnp.where(rest_p > 1e-4, rest_p * jnp.log(rest_q), 0.0)


def entropy(target_probs: Float[Array, 'N K']) -> Float[Array, 'N']:
  """Of top-K targets with their rest: what cross_entropy is at its minimum."""
  rest = jnp.maximum(1.0 - jnp.sum(target_probs, axis=-1), 0.0)
  h = -jnp.sum(jnp.where(target_probs > 0, target_probs * jnp.log(target_probs + 1e-30), 0.0), -1)
  return h - jnp.where(rest > 1e-4, rest * jnp.log(rest + 1e-30), 0.0)


def unheld(ce: Float[Array, 'N'], held: float) -> Float[Array, 'N']:
  """The loss where it teaches: 0, and no gradient, for tokens that are likelier than `held`.

  The mean is still over all tokens, so that what is left of a night weighs less the more is known.
  """
  return jnp.where(ce > -jnp.log(held), ce, 0.0)


def weighted_mean(x: Float[Array, 'N'], weights: Float[Array, 'N']) -> Float[Array, '']:
  return jnp.sum(x * weights) / jnp.maximum(jnp.sum(weights), 1e-6)


# ---- Off by default: see aims.py ----


def distillation(
  logits: Float[Array, 'N W'], target_ids: Int[Array, 'N K'], target_probs: Float[Array, 'N K']
) -> Float[Array, 'N']:
  """KL(teacher || student) over the teacher's top K and one bucket for the rest, nats.

  With a teacher that has the episode in its context and a student that has not, this is context
  distillation (Askell et al., arXiv 2112.00861, section 2; Snell et al., arXiv 2209.15189). Zero,
  with no gradient, where there is no teacher (all of its probabilities are 0).
  """
  return cross_entropy(logits, target_ids, target_probs) - entropy(target_probs)


def reverse_kl(
  logits: Float[Array, 'N W'], target_ids: Int[Array, 'N K'], target_probs: Float[Array, 'N K']
) -> Float[Array, 'N']:
  """KL(student || teacher) over the teacher's top K and one bucket for the rest, nats.

  It punishes what the student says and the teacher would not, and does not ask it for all that
  the teacher could say. On texts that the student wrote itself it is the loss of Self-Distillation
  Fine-Tuning (arXiv 2601.19897) and of on-policy distillation (Agarwal et al., arXiv 2306.13649).
  Zero, with no gradient, where there is no teacher.
  """
  logq_k = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), target_ids, axis=-1)
  there = target_probs > 0
  q_k = jnp.where(there, jnp.exp(logq_k), 0.0)
  logp_k = jnp.log(jnp.where(there, target_probs, 1.0))
  rest_p = jnp.clip(1.0 - jnp.sum(target_probs, axis=-1), 1e-4, 1.0)
  rest_q = jnp.clip(1.0 - jnp.sum(q_k, axis=-1), 1e-6, 1.0)
  kl = jnp.sum(q_k * (logq_k - logp_k), axis=-1) + rest_q * (jnp.log(rest_q) - jnp.log(rest_p))
  return jnp.where(there.any(axis=-1), kl, 0.0)


def drift(
  logits: Float[Array, 'N W'], before: Float[Array, 'N W'], bound: float
) -> Float[Array, 'N']:
  """What KL(before || now) is beyond `bound`, nats: a trust region, as a penalty.

  Within the bound a token is free, and has no gradient. Method: the constraint of TRPO (Schulman et
  al., arXiv 1502.05477, section 3) as a hinge, token by token.
  """
  logp = jax.nn.log_softmax(jax.lax.stop_gradient(before), axis=-1)
  logq = jax.nn.log_softmax(logits, axis=-1)
  return jax.nn.relu(jnp.sum(jnp.exp(logp) * (logp - logq), axis=-1) - bound)


def pooled(hidden: Float[Array, 'T L D'], segment_ids: Int[Array, 'T L']) -> Float[Array, 'T D']:
  """The mean state of each text as a unit vector; padding (segment 0) does not count."""
  there = (segment_ids > 0).astype(jnp.float32)[..., None]
  mean = jnp.sum(hidden.astype(jnp.float32) * there, axis=1)
  return mean * jax.lax.rsqrt(jnp.sum(mean**2, axis=-1, keepdims=True) + 1e-12)


def attraction(
  dreams: Float[Array, 'P D'],
  others: Float[Array, 'Q D'],
  positives: Float[Array, 'P Q'],
  temperature: float,
) -> Float[Array, '']:
  """InfoNCE: each dream draws near what it is of, and away from the rest; nats.

  `positives` is 1 where a text belongs to the dream (its sources, an anchor of the identity). With
  one each it is InfoNCE (van den Oord et al., arXiv 1807.03748); with more, their mean, as L_out of
  Khosla et al., arXiv 2004.11362. Vectors are unit vectors.
  """
  logp = jax.nn.log_softmax(dreams @ others.T / temperature, axis=-1)
  of_dream = jnp.sum(logp * positives, axis=-1) / jnp.maximum(jnp.sum(positives, axis=-1), 1.0)
  return -jnp.mean(of_dream)


def effect(adapter: Lora, scale: float) -> Float[Array, '']:
  """Squared Frobenius norm of all that the adapter adds to the weights, `scale * a @ b`.

  Weight decay on a and b shrinks the factors; this shrinks what they do, whatever the factors are.
  |a b|^2 = trace((a^T a)(b b^T)): rank by rank matrices, no delta is made. It bounds the change of
  any linear's output for unit inputs.
  """
  total = jnp.zeros(())
  for linears in adapter['layers'].values():
    for ab in linears.values():
      a, b = ab['a'], ab['b']
      inner = jnp.einsum('lir,lis->lrs', a, a) * jnp.einsum('lro,lso->lrs', b, b)
      total += scale**2 * jnp.sum(inner)
  return total


def elastic(adapter: Lora, before: Lora, fisher: Lora) -> Float[Array, '']:
  """Elastic weight consolidation: half of sum F (now - before)^2, nats a token.

  What earlier nights' answers depend on is stiff, the rest is free. With F as consolidate.fisher
  makes it this is, to second order, how much worse a token of earlier nights is told. Source:
  Kirkpatrick et al., arXiv 1612.00796, equation 3.
  """
  moved = jax.tree.map(lambda x, y, f: jnp.sum(f * (x - y) ** 2), adapter, before, fisher)
  return 0.5 * sum(jax.tree.leaves(moved))
