"""Masks drop exactly what they should, nothing protected, and what they drop stays zero."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from dreaming.brain import lora
from dreaming.brain.transformer import ARCHITECTURES
from dreaming.sleep import prune
from dreaming.sleep.prune import PruneConfig

ARCH = dataclasses.replace(ARCHITECTURES['tiny'], num_layers=2)
SCALE = 2.0
PATHS = ['attn/q_einsum/w', 'attn/kv_einsum/w', 'attn/attn_vec_einsum/w', 'mlp/gating_einsum']
PATHS += ['mlp/linear']


def _base(seed=0, dtype=jnp.float32):
  rng = np.random.default_rng(seed)
  n, k, d, h, f = ARCH.num_heads, ARCH.num_kv_heads, ARCH.embed_dim, ARCH.head_dim, ARCH.hidden_dim

  def normal(*shape, spread=1.0):
    return jnp.asarray(rng.standard_normal(shape) * spread, dtype)

  def layer(spread):
    return {
      'attn': {
        'q_einsum': {'w': normal(n, d, h, spread=spread)},
        'kv_einsum': {'w': normal(2, k, d, h, spread=spread)},
        'attn_vec_einsum': {'w': normal(n, h, d, spread=spread)},
        '_query_norm': {'scale': normal(h)},
      },
      'mlp': {'gating_einsum': normal(2, f, d, spread=spread), 'linear': normal(f, d)},
      'pre_attention_norm': {'scale': normal(d)},
    }

  return {
    'embedder': {'input_embedding': normal(32, d)},
    'layer_0': layer(1.0),
    'layer_1': layer(5.0),
    'final_norm': {'scale': normal(d)},
  }


def _adapter(seed=1, targets='.*', spread=0.1):
  adapter = lora.init(jax.random.key(seed), ARCH, rank=3, targets=targets)
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(rng.standard_normal(x.shape) * spread, jnp.float32), adapter
  )


def _flat(tree):
  return {path: np.asarray(x) for path, x in flatten_dict(tree, sep='/').items()}


def _linears(flat):
  """Leaves -> linears: k and v, gate and up apart."""
  out = {}
  for path, x in flat.items():
    shared = 'kv_einsum' in path or 'gating' in path
    out |= {f'{path}.{i}': part for i, part in enumerate(x)} if shared else {path: x}
  return out


# ---- What the masks drop ----


@pytest.mark.parametrize('amount', [0.0, 0.2, 0.333, 0.9, 1.0])
def test_each_linear_loses_its_smallest_merged_weights(amount):
  base, adapter = _base(), _adapter()
  mask = prune.merged_mask(base, adapter, ARCH, scale=SCALE, config=PruneConfig(amount=amount))
  merged = _linears(_flat(lora.materialize(base, adapter, ARCH, scale=SCALE)))
  masks = _linears(_flat(mask))
  assert set(_flat(mask)) == {f'layer_{i}/{path}' for i in range(2) for path in PATHS}
  for path, kept in masks.items():
    magnitude = np.abs(merged[path])
    assert (~kept).sum() == int(amount * kept.size), path
    if 0 < amount < 1:
      assert magnitude[~kept].max() < magnitude[kept].min(), path


@pytest.mark.parametrize('amount', [0.001, 0.2, 1.0])
def test_global_scope_has_one_threshold_for_all(amount):
  base, adapter = _base(), _adapter()
  config = PruneConfig(amount=amount, scope='global')
  mask = _flat(prune.merged_mask(base, adapter, ARCH, scale=SCALE, config=config))
  merged = _flat(lora.materialize(base, adapter, ARCH, scale=SCALE))
  values = np.concatenate([np.abs(merged[path]).ravel() for path in mask])
  kept = np.concatenate([m.ravel() for m in mask.values()])
  assert (~kept).sum() == int(amount * kept.size)
  assert values[~kept].max() < values[kept].min(initial=np.inf)
  small, large = mask['layer_0/mlp/gating_einsum'], mask['layer_1/mlp/gating_einsum']
  assert small.mean() <= large.mean()  # the second layer's weights are five times larger
  assert amount != 0.2 or small.mean() < 0.8 < large.mean()


def test_the_adapter_decides_with_the_base():
  base, adapter = _base(), _adapter(spread=1.0)
  config = PruneConfig(amount=0.5)
  bare = _flat(prune.merged_mask(base, None, ARCH, scale=SCALE, config=config))
  adapted = _flat(prune.merged_mask(base, adapter, ARCH, scale=SCALE, config=config))
  assert any((bare[path] != adapted[path]).any() for path in bare)


def test_of_equals_all_or_none_and_never_more_than_asked():
  base = jax.tree.map(lambda x: jnp.sign(x), _base())
  config = PruneConfig(amount=0.3)
  mask = prune.merged_mask(base, None, ARCH, scale=SCALE, config=config)
  assert prune.sparsity(mask) == 0
  base['layer_0']['mlp']['linear'] = base['layer_0']['mlp']['linear'].at[:5].set(0.0)
  mask = prune.merged_mask(base, None, ARCH, scale=SCALE, config=config)
  assert not mask['layer_0']['mlp']['linear'][:5].any()
  assert mask['layer_0']['mlp']['linear'][5:].all()


@pytest.mark.parametrize('scope', ['layer', 'global'])
def test_protected_paths_have_no_mask(scope):
  config = PruneConfig(amount=0.5, scope=scope, protect=r'norm|layer_0/attn|gating')
  mask = prune.merged_mask(_base(), _adapter(), ARCH, scale=SCALE, config=config)
  assert set(_flat(mask)) == {'layer_0/mlp/linear'} | {
    f'layer_1/{path}' for path in PATHS if 'gating' not in path
  }
  everything = dataclasses.replace(config, protect='.*')
  assert prune.merged_mask(_base(), None, ARCH, scale=SCALE, config=everything) == {}


def test_the_default_protects_embeddings_and_norms():
  mask = prune.merged_mask(_base(), None, ARCH, scale=SCALE, config=PruneConfig())
  assert not any('norm' in path or 'embedder' in path for path in _flat(mask))


@pytest.mark.parametrize('scope', ['layer', 'global'])
def test_the_delta_loses_its_smallest_changes(scope):
  adapter = _adapter(targets='layers/attn/[qv]')
  config = PruneConfig(delta=0.25, scope=scope)
  mask = prune.delta_mask(adapter, ARCH, scale=SCALE, config=config)
  total = 0
  for i in range(2):
    delta = lora.layer_delta(adapter, i, ARCH, SCALE)
    attn = mask[f'layer_{i}']['attn']
    assert set(attn) == {'q_einsum', 'kv_einsum'} and set(mask[f'layer_{i}']) == {'attn'}
    assert attn['kv_einsum']['w'][0].all()  # k has no adapter
    for name, kept in (('attn/q', attn['q_einsum']['w']), ('attn/v', attn['kv_einsum']['w'][1])):
      kept, magnitude = np.asarray(kept), np.abs(delta[name])
      assert magnitude[~kept].max() < magnitude[kept].min()
      total += (~kept).sum()
      if scope == 'layer':
        assert (~kept).sum() == kept.size // 4
  n, d, h = ARCH.num_heads, ARCH.embed_dim, ARCH.head_dim
  assert total == 2 * (n + 1) * d * h // 4


def test_masks_are_pure_and_trace_under_jit():
  base, adapter = _base(), _adapter()
  config = PruneConfig(amount=0.2)

  @jax.jit
  def traced(params, adapter):
    return prune.merged_mask(params, adapter, ARCH, scale=SCALE, config=config)

  eager = prune.merged_mask(base, adapter, ARCH, scale=SCALE, config=config)
  jax.tree.map(np.testing.assert_array_equal, eager, traced(base, adapter))


def test_all_layers_and_amounts_share_one_program():
  base, adapter = _base(), _adapter()
  prune._magnitudes.clear_cache()
  for amount in (0.2, 0.1, 0.05):
    prune.merged_mask(base, adapter, ARCH, scale=SCALE, config=PruneConfig(amount=amount))
  assert prune._magnitudes._cache_size() == 1


@pytest.mark.parametrize('allowed', [0, 1, 17, 99, 100])
def test_the_cutoff_of_the_host_is_that_of_the_bisection(allowed):
  rng = np.random.default_rng(allowed)
  for values in (rng.standard_normal(100), rng.integers(0, 9, 100), np.zeros(100), [np.inf] * 100):
    x = jnp.asarray(np.abs(values), jnp.float32).view(jnp.int32)
    host, counted = prune._cutoff(x, allowed), prune._bisect(x, allowed)
    np.testing.assert_array_equal(x > host, x > counted)
    assert (x <= host).sum() <= allowed


# ---- What the masks do ----


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_apply_is_what_materialize_does_with_a_mask(dtype):
  base, adapter = _base(dtype=dtype), _adapter()
  mask = prune.merged_mask(base, adapter, ARCH, scale=SCALE, config=PruneConfig())
  applied = prune.apply(lora.materialize(base, adapter, ARCH, scale=SCALE), mask)
  whole = lora.materialize(base, adapter, ARCH, scale=SCALE, mask=mask)
  jax.tree.map(np.testing.assert_array_equal, applied, whole)
  assert jax.tree.map(lambda x: x.dtype, applied) == jax.tree.map(lambda x: x.dtype, base)
  assert applied['embedder']['input_embedding'] is base['embedder']['input_embedding']


def test_revert_leaves_the_base_bit_for_bit_where_the_delta_is_dropped():
  base, adapter = _base(), _adapter()
  mask = prune.delta_mask(adapter, ARCH, scale=SCALE, config=PruneConfig(delta=0.4))
  merged = lora.materialize(base, adapter, ARCH, scale=SCALE)
  out, b, m = _flat(prune.revert(merged, base, mask)), _flat(base), _flat(merged)
  for path, kept in _flat(mask).items():
    np.testing.assert_array_equal(out[path], np.where(kept, m[path], b[path]))
    assert (out[path] == b[path]).mean() == pytest.approx(0.4, abs=0.01)


def test_masked_weights_stay_zero_through_training():
  base, adapter = _base(), _adapter()
  mask = prune.merged_mask(base, adapter, ARCH, scale=SCALE, config=PruneConfig(amount=0.5))

  def loss(adapter):
    params = lora.materialize(base, adapter, ARCH, scale=SCALE, mask=mask)
    return sum(jnp.sum(jnp.square(x - 1)) for x in jax.tree.leaves(params))

  optimizer = optax.adam(0.1)
  state = optimizer.init(adapter)
  step = jax.jit(lambda a, s: optimizer.update(jax.grad(loss)(a), s))
  before = adapter
  for _ in range(3):
    updates, state = step(adapter, state)
    adapter = optax.apply_updates(adapter, updates)
  assert any(
    (x != y).any() for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(adapter), strict=True)
  )
  out = _flat(lora.materialize(base, adapter, ARCH, scale=SCALE, mask=mask))
  unmasked = _flat(lora.materialize(base, adapter, ARCH, scale=SCALE))
  for path, kept in _flat(mask).items():
    assert not out[path][~kept].any()
    assert unmasked[path][~kept].all()  # it is the mask that holds them
    np.testing.assert_array_equal(out[path][kept], unmasked[path][kept])


def test_collection_holds_each_linear_of_all_layers():
  mask = prune.merged_mask(_base(), None, ARCH, scale=SCALE, config=PruneConfig(amount=0.5))
  layers = prune.collection(mask, ARCH.num_layers)['layers']
  assert {f'{g}/{n}' for g, leaves in layers.items() for n in leaves} == set(lora.WEIGHTS)
  for i in range(2):
    kv = mask[f'layer_{i}']['attn']['kv_einsum']['w']
    np.testing.assert_array_equal(layers['attn']['v'][i], kv[1])
    np.testing.assert_array_equal(layers['mlp']['down'][i], mask[f'layer_{i}']['mlp']['linear'])
  for name in lora.WEIGHTS:  # the layout in which training adds the adapter
    group, leaf = name.split('/')
    matrix = jnp.zeros(lora.dims(name, ARCH))
    assert layers[group][leaf].shape[1:] == lora.fold(name, matrix, ARCH).shape


def test_collection_keeps_all_of_a_protected_layer():
  config = PruneConfig(amount=0.5, protect='layer_0/|attn')
  mask = prune.merged_mask(_base(), None, ARCH, scale=SCALE, config=config)
  layers = prune.collection(mask, ARCH.num_layers)['layers']
  assert set(layers) == {'mlp'}
  assert layers['mlp']['down'][0].all() and layers['mlp']['down'][1].mean() == 0.5
  assert prune.collection({}, ARCH.num_layers) == {'layers': {}}


# ---- Storage ----


def test_pack_keeps_every_bit_in_an_eighth_of_the_bytes():
  rng = np.random.default_rng(0)
  mask = {'a': {'w': rng.random((3, 5)) < 0.5}, 'b': rng.random((2, 4, 7)) < 0.5, 'c': np.ones(())}
  bits, shapes = prune.pack(mask)
  assert bits.dtype == np.uint8 and bits.size == 2 + 7 + 1
  back = prune.unpack(bits, shapes)
  jax.tree.map(np.testing.assert_array_equal, back, mask)
  assert back['a']['w'].dtype == bool
  assert prune.sparsity(back) == pytest.approx(1 - sum(x.sum() for x in _flat(mask).values()) / 72)


def test_no_mask_is_a_mask():
  assert prune.unpack(*prune.pack({})) == {}
  assert prune.sparsity({}) == 0


@pytest.mark.parametrize('bits', [np.zeros(3, np.uint8), np.zeros(2, np.int8)])
def test_unpack_refuses_bits_of_another_shape(bits):
  with pytest.raises(ValueError, match=r'uint8\[2\]'):
    prune.unpack(bits, {'a': (3, 5)})


@pytest.mark.parametrize(
  'fields, words',
  [
    ({'amount': 1.2}, 'prune.amount=1.2'),
    ({'delta': -0.1}, 'prune.delta=-0.1'),
    ({'scope': 'all'}, "prune.scope='all'"),
    ({'protect': '('}, "prune.protect='\\('"),
    ({'amount': float('nan')}, 'prune.amount=nan'),
  ],
)
def test_config_names_the_value(fields, words):
  with pytest.raises(ValueError, match=words):
    PruneConfig(**fields)
