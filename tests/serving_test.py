"""What decoding reads says what the official layout says."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreaming.brain import kv_cache, scoring, serving, weights
from dreaming.brain.transformer import ARCHITECTURES, Transformer, unembed

ARCH = dataclasses.replace(
  ARCHITECTURES['tiny'], num_layers=2, global_every=2, num_heads=4, num_kv_heads=2, vocab_size=2048
)


@pytest.fixture(scope='module')
def params():
  params = weights._random(ARCH, 3)
  for i in range(ARCH.num_layers):  # or the layers would hardly be heard
    for name in ('post_attention_norm', 'post_ffw_norm'):
      params[f'layer_{i}'][name]['scale'] = params[f'layer_{i}'][name]['scale'] + 8
  return params


def test_layers_laid_out_for_decoding_give_the_same_states(params):
  model, laid = Transformer(ARCH), serving.layers(params)
  cache = kv_cache.init_cache(ARCH, 2, 32)
  tokens, positions = np.asarray([[7], [9]]), np.asarray([[0], [0]])
  plain, served = (
    model.apply({'params': params, **more}, tokens, positions, None, cache)
    for more in ({}, {'serving': laid})
  )
  np.testing.assert_allclose(served[0], plain[0], atol=1e-4)
  for a, b in zip(served[1], plain[1], strict=True):
    np.testing.assert_allclose(a.k, b.k, atol=1e-4)
  # It is the laid out weights that were read.
  laid['layer_0']['mlp']['down'] = laid['layer_0']['mlp']['down'] * -1
  other, _ = model.apply({'params': params, 'serving': laid}, tokens, positions, None, cache)
  assert not np.allclose(other, plain[0], atol=1e-3)


@pytest.mark.parametrize('k', [1, 16])
def test_proposals_are_judged_by_the_real_embedding(params, k):
  table = params['embedder']['input_embedding']
  quantized = serving.quantize(table)
  for row in np.asarray(jax.random.normal(jax.random.key(k), (24, ARCH.embed_dim))):
    exact = np.asarray(unembed(params, row[None]))[0]
    values, ids, logits = serving.propose(quantized, table, jnp.asarray(row), k)
    assert ids[0].tolist() == np.argsort(-exact, kind='stable')[:k].tolist()
    np.testing.assert_allclose(values[0], np.sort(exact)[::-1][:k], rtol=1e-5)
    assert np.abs(np.asarray(logits[0]) - exact).max() < 0.1 * np.abs(exact).max()


def test_of_equal_logits_the_first_is_taken():
  table = jnp.zeros((512, 8)).at[jnp.asarray([300, 40, 41])].set(1.0)
  _, ids, _ = serving.propose(serving.quantize(table), table, jnp.ones(8), 2)
  assert ids[0].tolist() == [40, 41]


@pytest.mark.parametrize('size', [1, 64, 130])
def test_scores_are_log_probabilities_whatever_the_number_of_rows(params, size):
  rng = np.random.default_rng(size)
  hidden = jnp.asarray(rng.normal(size=(200, ARCH.embed_dim)), jnp.float32)
  index, targets = rng.integers(0, 200, size), rng.integers(0, 500, size)
  expected = np.asarray(jax.nn.log_softmax(unembed(params, hidden)))
  found = scoring._score(params['embedder'], hidden, index, targets, None)
  np.testing.assert_allclose(found, expected[index, targets], atol=1e-4)
  short = np.arange(500)
  among = np.asarray(jax.nn.log_softmax(unembed(params, hidden)[:, :500]))
  rows = scoring._rows(params['embedder'], short)
  found = scoring._score(rows, hidden, index, targets, short)
  np.testing.assert_allclose(found, among[index, targets], atol=1e-4)


def test_nothing_to_score_is_nothing(params):
  assert scoring.Scorer(ARCH)(params, []) == []
  empty = scoring.Asked((), (1, 2), ())
  assert [x.shape for x in scoring.Scorer(ARCH)(params, [empty])] == [(0,)]
