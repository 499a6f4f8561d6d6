"""Meshes divide or say why not; rules cover both layouts; sharding changes no value."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from dreaming.brain import lora, sharding, transformer
from dreaming.brain.sharding import MeshConfig, make_mesh

TINY = transformer.ARCHITECTURES['tiny']


def _abstract_params(arch):
  model = transformer.Transformer(arch)
  tokens = jnp.zeros((1, 4), jnp.int32)
  return jax.eval_shape(lambda: model.init(jax.random.key(0), tokens)['params'])


def _specs(tree):
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): s.spec
    for path, s in jax.tree_util.tree_leaves_with_path(tree)
  }


# ---- The mesh ----


@pytest.mark.parametrize(
  'config, shape',
  [
    (MeshConfig(), (1, 1, 1)),
    (MeshConfig(data=-1), (8, 1, 1)),
    (MeshConfig(data=2, fsdp=-1, tensor=2), (2, 2, 2)),
    (MeshConfig(fsdp=4), (1, 4, 1)),
    (MeshConfig(data=8, tensor=-1), (8, 1, 1)),
  ],
)
def test_mesh_has_the_asked_shape_and_auto_axes(config, shape):
  mesh = make_mesh(config)
  assert tuple(mesh.shape[axis] for axis in sharding.AXES) == shape
  assert set(mesh.axis_types) == {AxisType.Auto}
  assert list(mesh.devices.flat) == jax.devices()[: mesh.size]


@pytest.mark.parametrize(
  'config, words',
  [
    (MeshConfig(data=3), 'mesh.data=3.*3 devices and 8.*1, 2, 4, 8'),
    (MeshConfig(data=16), '16 devices and 8'),
    (MeshConfig(data=3, fsdp=-1), '3 devices and 8'),
    (MeshConfig(data=-1, fsdp=-1), 'at most one is -1'),
    (MeshConfig(tensor=0), 'mesh.tensor=0'),
    (MeshConfig(fsdp=-2), 'mesh.fsdp=-2'),
  ],
)
def test_mesh_that_does_not_divide_says_so_in_one_line(config, words):
  with pytest.raises(ValueError, match=words) as error:
    make_mesh(config)
  assert '\n' not in str(error.value)


def test_mesh_of_given_devices():
  mesh = make_mesh(MeshConfig(data=-1), jax.devices()[2:5])
  assert mesh.shape['data'] == 3 and mesh.devices.flat[0] == jax.devices()[2]


# ---- The rules ----


@pytest.mark.parametrize('name', transformer.ARCHITECTURES)
def test_every_weight_of_every_size_has_a_rule_in_both_layouts(name):
  arch = transformer.ARCHITECTURES[name]
  params = _abstract_params(arch)
  mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
  stacked = jax.eval_shape(lambda p: transformer.stack(p, arch.num_layers), params)
  official = _specs(sharding.shardings(params, mesh, sharding.BASE))
  layers = _specs(sharding.shardings(stacked, mesh, sharding.BASE))
  for path, spec in layers.items():  # the same cut, behind a layer axis that stays whole
    if path.startswith('layers/'):
      assert spec == (P(None, *official[path.replace('layers', 'layer_0')]) if spec else P())
    else:
      assert spec == official[path]
  for path, spec in official.items():
    assert ('fsdp' in str(spec)) == ('norm' not in path), path


def test_rules_of_the_adapter_hold_for_its_optimizer_too():
  adapter = lora.init(jax.random.key(0), TINY, rank=4, targets='.*')
  mesh = make_mesh(MeshConfig(fsdp=2, tensor=4))
  specs = _specs(sharding.shardings(adapter, mesh, sharding.ADAPTER))
  assert specs['layers/attn/q/a'] == P(None, 'fsdp', None)
  assert specs['layers/mlp/down/a'] == P(None, 'tensor', None)
  state = {'adapter': adapter, 'opt_state': optax.adamw(1e-3).init(adapter)}
  specs = _specs(sharding.shardings(state, mesh, sharding.ADAPTER))
  assert specs['opt_state/0/mu/layers/attn/q/a'] == P(None, 'fsdp', None)
  assert specs['opt_state/0/count'] == P()
  factored = optax.adafactor(1e-3, min_dim_size_to_factor=4).init(adapter)
  assert _specs(sharding.shardings(factored, mesh, sharding.ADAPTER))


def test_a_leaf_without_a_rule_is_named():
  with pytest.raises(ValueError, match="'layer_0/attn/unknown'"):
    mesh = make_mesh(MeshConfig())
    sharding.shardings({'layer_0': {'attn': {'unknown': jnp.ones(3)}}}, mesh, sharding.BASE)


def test_the_first_match_wins():
  mesh = make_mesh(MeshConfig(data=8))
  rules = ((r'a/.*', P('data')), (r'.*', P(None, 'data')))
  specs = _specs(sharding.shardings({'a': {'x': jnp.ones((8, 8))}}, mesh, rules))
  assert specs == {'a/x': P('data')}


def test_one_key_value_head_stays_whole():
  mesh = make_mesh(MeshConfig(fsdp=2, tensor=4))
  kv = {'layer_3': {'attn': {'kv_einsum': {'w': jnp.ones((2, 1, 32, 16))}}}}
  (spec,) = _specs(sharding.shardings(kv, mesh, sharding.BASE)).values()
  assert spec == P(None, None, 'fsdp', None)


# ---- Values ----


def test_sharding_changes_no_value_and_cuts_memory():
  mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
  w = np.arange(64 * 32, dtype=np.float32).reshape(64, 32)
  tree = sharding.shard({'layer_0': {'mlp': {'linear': w}}}, mesh, sharding.BASE)
  x = tree['layer_0']['mlp']['linear']
  np.testing.assert_array_equal(x, w)
  assert {s.data.shape for s in x.addressable_shards} == {(32, 8)}


def test_the_forward_pass_on_eight_devices_is_that_of_one():
  model = transformer.Transformer(TINY, scanned=True)
  tokens = jnp.asarray(np.random.default_rng(0).integers(1, 512, (8, 12)), jnp.int32)
  params = jax.jit(model.init)(jax.random.key(0), tokens)['params']
  forward = jax.jit(lambda p, t: model.apply({'params': p}, t)[0])
  outputs = []
  for config in (MeshConfig(), MeshConfig(data=2, fsdp=2, tensor=2)):
    mesh = make_mesh(config)
    placed = sharding.shard(params, mesh, sharding.BASE)
    outputs.append(forward(placed, sharding.shard(tokens, mesh, sharding.BATCH)))
  assert len(outputs[1].sharding.device_set) == 8
  np.testing.assert_allclose(outputs[0], outputs[1], atol=2e-5)
