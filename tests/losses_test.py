"""Each loss: its gradient is that of finite differences, and it does what it is there for."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from dreaming.sleep import losses

K, W = 3, 7


def teacher(n, rng):
  """The top K of a distribution over W, and what is left for the rest."""
  probs = rng.dirichlet(np.ones(W), n).astype(np.float32)
  ids = np.argsort(-probs, axis=-1)[:, :K].astype(np.int32)
  return jnp.asarray(ids), jnp.asarray(np.take_along_axis(probs, ids, -1)), probs


def adapter(rng, in_=5, rank=2, out=4, layers=2):
  def ab():
    a, b = rng.normal(size=(layers, in_, rank)), rng.normal(size=(layers, rank, out))
    return {'a': jnp.asarray(a, jnp.float32), 'b': jnp.asarray(b, jnp.float32)}

  return {'layers': {'attn': {'q': ab()}, 'mlp': {'down': ab()}}}


@pytest.fixture
def rng():
  return np.random.default_rng(0)


# ---- Gradients ----


def test_gradients_are_those_of_finite_differences(rng):
  logits = jnp.asarray(rng.normal(size=(4, W)), jnp.float32)
  ids, probs, _ = teacher(4, rng)
  before = logits + 0.5 * rng.normal(size=(4, W)).astype(np.float32)
  vectors = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
  states = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
  segments = jnp.asarray([[1, 1, 0], [1, 1, 1]])
  now, then = adapter(rng), adapter(rng)
  fisher = jax.tree.map(jnp.abs, adapter(rng))
  for loss, at in (
    (lambda x: losses.cross_entropy(x, ids, probs), logits),
    (lambda x: losses.distillation(x, ids, probs), logits),
    (lambda x: losses.reverse_kl(x, ids, probs), logits),
    (lambda x: losses.drift(x, before, 0.01), logits),
    (lambda x: losses.attraction(x[:3], x[3:], jnp.eye(3), 0.7), vectors),
    (lambda x: losses.pooled(x, segments), states),
    (lambda x: losses.effect(x, 2.0), now),
    (lambda x: losses.elastic(x, then, fisher), now),
  ):
    check_grads(jax.jit(loss), (at,), order=1, modes=['rev'], atol=2e-2, rtol=2e-2)


# ---- Distillation ----


def test_the_student_comes_to_say_what_the_teacher_says(rng):
  ids, probs, whole = teacher(5, rng)
  for loss in (losses.distillation, losses.reverse_kl):
    logits = jnp.zeros((5, W))
    step = jax.jit(jax.grad(lambda x, f=loss: f(x, ids, probs).sum()))
    for _ in range(400):
      logits -= 0.5 * step(logits)
    said = np.take_along_axis(np.asarray(jax.nn.softmax(logits)), np.asarray(ids), -1)
    np.testing.assert_allclose(said, probs, atol=2e-3)
    at_teacher = loss(jnp.log(jnp.asarray(whole)), ids, probs)
    np.testing.assert_allclose(at_teacher, 0, atol=1e-4)
    assert (np.asarray(loss(jnp.asarray(rng.normal(size=(5, W))), ids, probs)) > 0).all()


def test_top_k_is_as_good_as_all_where_little_is_left(rng):
  logits = jnp.asarray(rng.normal(size=(1, W)), jnp.float32)
  probs = np.asarray([[0.6, 0.3, 0.0999, 2.5e-5, 2.5e-5, 2.5e-5, 2.5e-5]], np.float32)
  whole = np.sum(probs * (np.log(probs) - np.asarray(jax.nn.log_softmax(logits))))
  ids = jnp.arange(3)[None]
  np.testing.assert_allclose(losses.distillation(logits, ids, probs[:, :3])[0], whole, atol=2e-3)


def test_without_a_teacher_there_is_nothing_to_learn(rng):
  logits = jnp.asarray(rng.normal(size=(2, W)), jnp.float32)
  none = jnp.zeros((2, K), jnp.int32), jnp.zeros((2, K))
  for loss in (losses.distillation, losses.reverse_kl):
    value, grads = jax.value_and_grad(lambda x, f=loss: f(x, *none).sum())(logits)
    assert abs(float(value)) < 1e-6 and not np.asarray(grads).any()


def test_reverse_seeks_one_mode_and_forward_covers_both():
  """A student that can say one thing alone: on policy it may, by the teacher it must not."""
  ids, probs = jnp.asarray([[0, 1]]), jnp.asarray([[0.5, 0.499]])
  one = jnp.asarray([[6.0, -6.0, -6.0]])
  both = jnp.asarray([[0.0, 0.0, -6.0]])
  forward, reverse = losses.distillation, losses.reverse_kl
  assert forward(one, ids, probs)[0] > 4 and reverse(one, ids, probs)[0] < 0.8
  assert forward(both, ids, probs)[0] < 0.1 and reverse(both, ids, probs)[0] < 0.1
  wrong = jnp.asarray([[-6.0, -6.0, 6.0]])  # what the teacher would not say
  assert reverse(wrong, ids, probs)[0] > 5


# ---- Trust, elastic, effect ----


def test_within_the_bound_a_token_is_free(rng):
  before = jnp.asarray(rng.normal(size=(2, W)), jnp.float32)
  now = before.at[0, 0].add(0.2).at[1, 0].add(6.0)  # one moves little, one far
  value, grads = jax.value_and_grad(lambda x: losses.drift(x, before, 0.5).sum())(now)
  assert float(value) > 0
  assert not np.asarray(grads[0]).any() and np.asarray(grads[1]).any()
  assert np.asarray(losses.drift(before, before, 0.0)).max() < 1e-6


def test_elastic_holds_what_is_stiff_and_lets_go_of_the_rest(rng):
  before = adapter(rng)
  fisher = jax.tree.map(jnp.zeros_like, before)
  fisher['layers']['attn']['q']['a'] = jnp.ones_like(fisher['layers']['attn']['q']['a'])
  target = jax.tree.map(lambda x: x + 1.0, before)

  def loss(x, weight):
    pairs = zip(*map(jax.tree.leaves, (x, target)), strict=True)
    return sum(jnp.sum((p - q) ** 2) for p, q in pairs) + weight * losses.elastic(x, before, fisher)

  x, pull = before, jax.jit(jax.grad(loss))
  for _ in range(300):
    x = jax.tree.map(lambda p, g: p - 0.005 * g, x, pull(x, 200.0))
  stiff = x['layers']['attn']['q']['a'] - before['layers']['attn']['q']['a']
  free = x['layers']['mlp']['down']['b'] - before['layers']['mlp']['down']['b']
  assert np.abs(stiff).max() < 0.05 and np.abs(free).min() > 0.9
  assert float(losses.elastic(before, before, fisher)) == 0


def test_effect_is_the_norm_of_what_is_added_whatever_the_factors(rng):
  ab = adapter(rng)
  total = sum(
    np.sum((2.0 * np.asarray(x['a'] @ x['b'])) ** 2)
    for group in ab['layers'].values()
    for x in group.values()
  )
  np.testing.assert_allclose(losses.effect(ab, 2.0), total, rtol=1e-5)
  other = jax.tree.map(lambda x: x, ab)  # the same delta of other factors
  q = other['layers']['attn']['q']
  other['layers']['attn']['q'] = {'a': q['a'] * 4, 'b': q['b'] / 4}
  np.testing.assert_allclose(losses.effect(other, 2.0), total, rtol=1e-5)


# ---- Contrast ----


def test_dreams_draw_near_their_sources_and_away_from_others(rng):
  x = jnp.asarray(rng.normal(size=(6, 8)), jnp.float32)

  def unit(v):
    return v / jnp.linalg.norm(v, axis=-1, keepdims=True)

  def loss(v):
    v = unit(v)
    return losses.attraction(v[:3], v[3:], jnp.eye(3), 0.2)

  step = jax.jit(jax.grad(loss))
  for _ in range(200):
    x -= 0.3 * step(x)
  cosines = np.asarray(unit(x[:3]) @ unit(x[3:]).T)
  assert np.diag(cosines).min() > 0.5
  assert cosines[~np.eye(3, dtype=bool)].max() < 0


def test_an_anchor_draws_every_dream(rng):
  dreams = jnp.asarray(np.eye(4)[:2], jnp.float32)
  others = jnp.asarray([np.eye(4)[0], np.eye(4)[1], np.eye(4)[3]], jnp.float32)
  positives = jnp.concatenate([jnp.eye(2), jnp.ones((2, 1))], 1)
  pull = -jax.grad(lambda d: losses.attraction(d, others, positives, 1.0))(dreams)
  without = -jax.grad(lambda d: losses.attraction(d, others[:2], jnp.eye(2), 1.0))(dreams)
  assert (np.asarray(pull)[:, 3] > 0).all() and not np.asarray(without)[:, 3].any()


def test_padding_is_not_pooled(rng):
  states = jnp.asarray(rng.normal(size=(1, 3, 5)), jnp.float32)
  segments = jnp.asarray([[1, 1, 0]])
  moved = states.at[0, 2].add(9.0)
  np.testing.assert_array_equal(losses.pooled(states, segments), losses.pooled(moved, segments))
  np.testing.assert_allclose(jnp.linalg.norm(losses.pooled(states, segments)), 1.0, rtol=1e-5)
