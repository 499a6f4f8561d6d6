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
