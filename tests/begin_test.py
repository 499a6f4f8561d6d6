"""Where an adapter begins: the directions that lower the dreams' loss and leave replay alone."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from dreaming.brain import lora
from dreaming.brain.transformer import ARCHITECTURES, Transformer
from dreaming.sleep import begin, train
from dreaming.sleep.corpus import Corpus
from dreaming.types import Batch

ARCH = ARCHITECTURES['tiny']
LENGTH, LOSSES = 24, 32


@pytest.fixture(scope='module')
def params():
  tokens = jnp.zeros((1, 4), jnp.int32)
  return Transformer(ARCH).init(jax.random.key(1), tokens)['params']


@pytest.fixture(scope='module')
def lessons():
  """Two batches of random tokens; the second half of the loss positions is replay."""
  rng = np.random.default_rng(0)

  def batch() -> Batch:
    at = rng.choice(2 * LENGTH, LOSSES, replace=False).astype(np.int32)
    probs = np.zeros((LOSSES, 4), np.float32)
    probs[:, 0] = 1
    return Batch(
      tokens=rng.integers(2, 256, (2, LENGTH)).astype(np.int32),
      positions=np.tile(np.arange(LENGTH, dtype=np.int32), (2, 1)),
      segment_ids=np.ones((2, LENGTH), np.int32),
      loss_positions=at,
      target_ids=rng.integers(0, 64, (LOSSES, 4)).astype(np.int32),
      target_probs=probs,
      weights=np.ones(LOSSES, np.float32),
      replay=(np.arange(LOSSES) >= LOSSES // 2).astype(np.float32),
    )

  batches = (batch(), batch())
  return Corpus(batches, batches[0], batches[0], np.arange(64, dtype=np.int32))


CONFIG = train.TrainConfig(
  steps=2, rank=4, dtype='float32', held=1.0, eval_every=99, begin='dreams'
)


def test_directions_are_the_best_of_the_quotient():
  rng = np.random.default_rng(0)
  g = rng.normal(size=(12, 30)) @ np.diag(0.7 ** np.arange(30))
  x = rng.normal(size=(12, 40)) * np.arange(1, 13)[:, None]
  c = x @ x.T
  found = np.asarray(begin._directions(g, begin._root(c, 0.1), 3))
  scaled = c / np.trace(c) * 12 + 0.1 * np.eye(12)
  _, best = scipy.linalg.eigh(g @ g.T, scaled)
  wanted = best[:, ::-1][:, :3]
  angles = scipy.linalg.subspace_angles(found, wanted)
  assert np.max(angles) < 1e-2
  np.testing.assert_allclose(np.linalg.norm(found, axis=0), 1, rtol=1e-5)
  for i in range(3):  # and in their order
    assert abs(found[:, i] @ wanted[:, i]) > 0.999 * np.linalg.norm(wanted[:, i])


@pytest.mark.parametrize('which', ['no gradient', 'no replay'])
def test_directions_are_numbers_whatever_is_missing(which):
  g, c = np.ones((8, 5), np.float32), np.eye(8, dtype=np.float32)
  found = begin._directions(0 * g if which == 'no gradient' else g, begin._root(0 * c, 0.1), 4)
  assert np.isfinite(found).all()


def test_gradient_is_that_of_the_weights(params, lessons):
  """Finite differences along a random direction of one weight of one layer."""
  base = train.frozen(params, ARCH, lessons.shortlist, 'float32')
  batch = lessons.batches[0]
  grads, inputs = jax.jit(train.make_gradient(ARCH, CONFIG))(base, batch)
  loss = jax.jit(train.make_loss(ARCH, dataclasses.replace(CONFIG, replay_weight=0.0)))
  w = base['layers']['mlp']['linear']
  step = 1e-2 * jax.random.normal(jax.random.key(2), w.shape[1:])

  def at(sign: float) -> float:
    layers = dict(base['layers'])
    layers['mlp'] = {**layers['mlp'], 'linear': w.at[3].add(sign * step)}
    return float(loss(None, {**base, 'layers': layers}, batch, None)[0])

  slope = float(jnp.sum(grads['mlp']['linear'][3] * step))
  np.testing.assert_allclose((at(1) - at(-1)) / 2, slope, rtol=2e-2)
  assert set(inputs) == {'q', 'o', 'gate', 'down'}
  assert inputs['down'].shape == (ARCH.num_layers, 2, LENGTH, ARCH.hidden_dim)


def test_matrices_undo_fold(params):
  rng = np.random.default_rng(0)
  for name in lora.WEIGHTS:
    delta = jnp.asarray(rng.normal(size=lora.dims(name, ARCH)), jnp.float32)
    path, part = lora.WEIGHTS[name]
    leaf = params['layer_0']
    for key in path:
      leaf = leaf[key]
    whole = jnp.zeros((1, *leaf.shape))
    folded = lora.fold(name, delta, ARCH)
    whole = whole.at[0].set(folded) if part is None else whole.at[0, part].set(folded)
    tree = whole
    for key in reversed(path):
      tree = {key: tree}
    np.testing.assert_array_equal(begin._matrices(tree, name, ARCH)[0], delta)


def test_a_step_from_there_learns_more_and_moves_replay_less(params, lessons):
  """Of what a step in `b` does: what the dreams gain for what the base's own words lose."""
  base = train.frozen(params, ARCH, lessons.shortlist, 'float32')
  plain = lora.init(jax.random.key(0), ARCH, rank=4, targets=CONFIG.targets)
  begun = begin.whitened(
    plain, base, lessons.batches, train.make_gradient(ARCH, CONFIG), ARCH, damping=0.1
  )
  loss = train.make_loss(ARCH, CONFIG)

  @jax.jit
  def slopes(adapter):
    def part(name):
      return jax.grad(lambda x: loss(x, base, lessons.batches[0], None)[1][name])(adapter)

    return sum(jnp.sum(ab['b'] ** 2) for ab in _linears(part('dream_loss')))

  assert slopes(begun) > 2 * slopes(plain)
  for ab, old in zip(_linears(begun), _linears(plain), strict=True):
    np.testing.assert_array_equal(ab['b'], 0)  # nothing is changed yet
    assert ab['a'].shape == old['a'].shape
    np.testing.assert_allclose(np.linalg.norm(ab['a'], axis=1), 3**-0.5, rtol=1e-4)


def test_more_ranks_than_directions_keep_random_ones(params, lessons):
  base = train.frozen(params, ARCH, lessons.shortlist, 'float32')
  rank = ARCH.head_dim + 4  # of k: 16 outputs
  plain = lora.init(jax.random.key(0), ARCH, rank=rank, targets='.*')
  begun = begin.whitened(
    plain, base, lessons.batches[:1], train.make_gradient(ARCH, CONFIG), ARCH, damping=0.1
  )
  old, new = (x['layers']['attn']['k']['a'] for x in (plain, begun))
  np.testing.assert_array_equal(new[..., 16:], old[..., 16:])
  assert np.isfinite(new).all() and not np.allclose(new[..., :16], old[..., :16])


def test_training_begins_there_and_goes_on_from_its_checkpoint(params, lessons, tmp_path):
  def run(config, **kwargs):
    return train.train(params, ARCH, lessons, config=config, seed=0, **kwargs).adapter

  dreams, drawn = run(CONFIG), run(dataclasses.replace(CONFIG, begin='random'))
  pairs = list(zip(_linears(dreams), _linears(drawn), strict=True))
  assert all(not np.allclose(x['a'], y['a'], atol=1e-2) for x, y in pairs)
  kept = dataclasses.replace(CONFIG, checkpoint_every=1, begin_batches=1)
  half = dataclasses.replace(lessons, batches=lessons.batches[:1])
  train.train(params, ARCH, half, config=kept, seed=0, checkpoint=tmp_path)
  resumed = run(kept, checkpoint=tmp_path)
  jax.tree.map(np.testing.assert_array_equal, resumed, run(kept))
  going_on = run(CONFIG, adapter=drawn)  # another night's directions are its own
  assert np.allclose(_linears(going_on)[0]['a'], _linears(drawn)[0]['a'], atol=1e-2)


@pytest.mark.parametrize(
  ('field', 'value'), [('begin', 'gradients'), ('begin_batches', 0), ('begin_damping', 0.0)]
)
def test_bad_values_say_so(field, value):
  with pytest.raises(ValueError, match=f'train.{field}={value!r}'):
    train.TrainConfig(**{field: value})


def _linears(adapter):
  return [ab for group in adapter['layers'].values() for ab in group.values()]
