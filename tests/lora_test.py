"""An adapter beside the weights is the adapter inside them; off, it is as if it were not there."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from dreaming.brain import lora, transformer, weights
from dreaming.brain.transformer import ARCHITECTURES, Transformer, unembed
from dreaming.sleep import prune

# Every size differs from every other, so that no transposition goes unseen.
ARCH = dataclasses.replace(
  ARCHITECTURES['tiny'], num_layers=3, global_every=2, embed_dim=24, hidden_dim=40, num_heads=4,
  num_kv_heads=2, head_dim=8, vocab_size=300,
)  # fmt: skip
SCALE = 2.0


@functools.cache
def base(dtype=jnp.float32):
  leaves, treedef = jax.tree.flatten(weights.expected_shapes(ARCH))
  rng = np.random.default_rng(0)
  arrays = [jnp.asarray(rng.standard_normal(x.shape) * 0.3, dtype) for x in leaves]
  return jax.tree.unflatten(treedef, arrays)


def trained(targets='.*', rank=3, seed=1):
  """An adapter that has learned something: neither factor is zero."""
  adapter = lora.init(jax.random.key(seed), ARCH, rank=rank, targets=targets)
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(rng.standard_normal(x.shape) * 0.1, jnp.float32), adapter
  )


def random_mask(paths=None, seed=2):
  rng = np.random.default_rng(seed)
  params = base()
  mask = {}
  for i in range(ARCH.num_layers):
    for path, _ in lora.WEIGHTS.values():
      if paths is not None and path not in paths:
        continue
      leaf = params[f'layer_{i}']
      for key in path:
        leaf = leaf[key]
      node = mask.setdefault(f'layer_{i}', {})
      for key in path[:-1]:
        node = node.setdefault(key, {})
      node[path[-1]] = jnp.asarray(rng.random(leaf.shape) < 0.7)
  return mask


TOKENS = jnp.asarray(np.random.default_rng(3).integers(6, 300, (2, 9)), jnp.int32)


@functools.partial(jax.jit, static_argnames='scale')
def beside(params, adapter=None, mask=None, scale=SCALE):
  """Logits of the scanned model with its collections."""
  variables = {'params': transformer.stack(params, ARCH.num_layers)}
  if adapter is not None:
    variables['lora'] = adapter
  if mask is not None:
    variables['mask'] = prune.collection(mask, ARCH.num_layers)
  hidden, _ = Transformer(ARCH, scanned=True, lora_scale=scale).apply(variables, TOKENS)
  return unembed(params, hidden)


@jax.jit
def inside(params):
  """Logits of the unrolled model: what serves."""
  hidden, _ = Transformer(ARCH).apply({'params': params}, TOKENS)
  return unembed(params, hidden)


def difference(x, y):
  return float(jnp.abs(x - y).max())


# ---- Off ----


def test_no_adapter_and_no_mask_is_the_base_itself():
  assert lora.materialize(base(), None, ARCH, scale=SCALE) is base()


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_a_new_adapter_changes_no_bit(dtype):
  adapter = lora.init(jax.random.key(0), ARCH, rank=4, targets='.*')
  merged = lora.materialize(base(dtype), adapter, ARCH, scale=SCALE)
  same = jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), merged, base(dtype))
  assert all(jax.tree.leaves(same))
  assert np.array_equal(beside(base(), adapter), beside(base()))
  assert difference(beside(base(), trained()), beside(base())) > 0.1  # a trained one does


def test_merging_leaves_the_base_alone_and_shares_what_it_does_not_change():
  params = base()
  before = jax.tree.map(np.array, params)
  merged = lora.materialize(params, trained('layers/attn/(q|v)'), ARCH, scale=SCALE)
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, before, params)))
  changed = {
    path
    for path, leaf in flatten_dict(merged['layer_1']).items()
    if leaf is not flatten_dict(params['layer_1'])[path]
  }
  assert changed == {('attn', 'q_einsum', 'w'), ('attn', 'kv_einsum', 'w')}
  keys = merged['layer_1']['attn']['kv_einsum']['w'][0]
  assert np.array_equal(keys, params['layer_1']['attn']['kv_einsum']['w'][0])
  assert merged['embedder'] is params['embedder']


# ---- On ----


@pytest.mark.parametrize('name', lora.WEIGHTS)
def test_each_linears_adapter_equals_its_merged_weight(name):
  adapter = trained(f'layers/{name}')
  assert lora.names(adapter) == [name]
  merged = inside(lora.materialize(base(), adapter, ARCH, scale=SCALE))
  assert difference(beside(base(), adapter), merged) < 1e-4
  assert difference(merged, inside(base())) > 1e-2


def test_all_adapters_together_equal_their_merged_weights():
  adapter = trained()
  merged = inside(lora.materialize(base(), adapter, ARCH, scale=SCALE))
  assert difference(beside(base(), adapter), merged) < 1e-4


def test_merging_adds_before_it_rounds():
  """In bf16 a small delta must not be rounded twice."""
  params, adapter = base(jnp.bfloat16), trained('layers/mlp/down')
  merged = lora.materialize(params, adapter, ARCH, scale=SCALE)
  ab = adapter['layers']['mlp']['down']
  exact = params['layer_2']['mlp']['linear'].astype(jnp.float32) + SCALE * ab['a'][2] @ ab['b'][2]
  got = merged['layer_2']['mlp']['linear']
  assert got.dtype == jnp.bfloat16
  assert np.array_equal(got, exact.astype(jnp.bfloat16))


# ---- Masks ----


def test_a_mask_holds_weights_at_zero_and_the_trainer_sees_the_same():
  adapter, mask = trained(), random_mask()
  merged = lora.materialize(base(), adapter, ARCH, scale=SCALE, mask=mask)
  flat = flatten_dict(merged)
  for path, kept in flatten_dict(mask).items():
    assert not np.asarray(flat[path])[~np.asarray(kept)].any()
    assert np.asarray(flat[path])[np.asarray(kept)].all()
  assert difference(beside(base(), adapter, mask), inside(merged)) < 1e-4
  assert difference(inside(merged), beside(base(), adapter)) > 0.1


def test_a_mask_holds_where_there_is_no_adapter():
  """Pruning reaches every linear, adapters only those of train.targets."""
  adapter, mask = trained('layers/attn/.*'), random_mask()
  merged = lora.materialize(base(), adapter, ARCH, scale=SCALE, mask=mask)
  assert difference(beside(base(), adapter, mask), inside(merged)) < 1e-4
  alone = lora.materialize(base(), None, ARCH, scale=SCALE, mask=mask)
  assert difference(beside(base(), None, mask), inside(alone)) < 1e-4
  assert difference(inside(alone), inside(base())) > 0.1


def test_a_mask_covers_only_its_own_paths():
  mask = random_mask(paths=[('mlp', 'linear')])
  merged = lora.materialize(base(), None, ARCH, scale=SCALE, mask=mask)
  for path, leaf in flatten_dict(merged['layer_0']).items():
    untouched = leaf is flatten_dict(base()['layer_0'])[path]
    assert untouched == (path != ('mlp', 'linear')), path


def test_nothing_is_learned_where_the_mask_is_zero():
  adapter, mask = trained(), jax.tree.map(jnp.zeros_like, random_mask())
  grad = jax.grad(lambda a: beside(base(), a, mask).sum())(adapter)
  assert all(not np.asarray(g).any() for g in jax.tree.leaves(grad))


# ---- Targets and shapes ----


def test_targets_choose_by_path_and_each_linear_has_its_own_a():
  adapter = lora.init(jax.random.key(0), ARCH, rank=5, targets=r'layers/(attn/[kv]|mlp/.*)')
  assert lora.names(adapter) == ['attn/k', 'attn/v', 'mlp/gate', 'mlp/up', 'mlp/down']
  a = [adapter['layers'][g][x]['a'] for g, x in (('attn', 'k'), ('attn', 'v'), ('mlp', 'gate'))]
  assert not np.array_equal(a[0], a[1]) and not np.array_equal(a[0], a[2])
  for name in lora.names(adapter):
    group, leaf = name.split('/')
    fan_in, fan_out = lora.dims(name, ARCH)
    ab = adapter['layers'][group][leaf]
    assert ab['a'].shape == (3, fan_in, 5) and ab['b'].shape == (3, 5, fan_out)
    assert ab['a'].dtype == ab['b'].dtype == jnp.float32
    assert not ab['b'].any() and float(jnp.abs(ab['a']).max()) <= fan_in**-0.5


@pytest.mark.parametrize(
  'rank, targets, words',
  [
    (4, 'attn/q', 'matches no linear; there are: layers/attn/q'),
    (4, 'layers/(attn', 'not a regex'),
    (0, '.*', 'train.rank=0'),
  ],
)
def test_a_wrong_rank_or_target_is_named(rank, targets, words):
  with pytest.raises(ValueError) as e:
    lora.init(jax.random.key(0), ARCH, rank=rank, targets=targets)
  assert words in str(e.value) and '\n' not in str(e.value)


def test_a_seed_gives_the_same_adapter():
  one, two, other = (lora.init(jax.random.key(s), ARCH, rank=2, targets='.*') for s in (0, 0, 1))
  same = jax.tree.map(np.array_equal, one, two)
  assert all(jax.tree.leaves(same))
  assert not np.array_equal(one['layers']['attn']['q']['a'], other['layers']['attn']['q']['a'])


@pytest.mark.parametrize('shape', [(7,), (2, 5)])
def test_product_and_its_gradients_are_those_of_two_products(shape):
  keys = jax.random.split(jax.random.key(0), 4)
  x, a, b, seen = (
    jax.random.normal(k, s)
    for k, s in zip(keys, [(*shape, 6), (6, 3), (3, 9), (*shape, 9)], strict=True)
  )

  def loss(product):
    return lambda *of: jnp.sum(jnp.sin(product(*of)) * seen)

  plain = jax.value_and_grad(loss(lambda x, a, b: (x @ a) @ b), argnums=(0, 1, 2))(x, a, b)
  own = jax.value_and_grad(loss(lora.product), argnums=(0, 1, 2))(x, a, b)
  for expected, got in zip(jax.tree.leaves(plain), jax.tree.leaves(own), strict=True):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
