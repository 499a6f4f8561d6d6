"""Blue changes whole or not at all, comes back bit for bit, and belongs to one process."""

from __future__ import annotations

import dataclasses
import gc
import os
import pathlib
import signal
import subprocess
import sys
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreaming.brain import lora, sharding
from dreaming.brain.transformer import ARCHITECTURES
from dreaming.identity import bluegreen, generations
from dreaming.identity.bluegreen import BlueGreen, IdentityLock
from dreaming.memory.diary import Diary
from dreaming.sleep import prune

ARCH = dataclasses.replace(ARCHITECTURES['tiny'], num_layers=2, vocab_size=32)
HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class FakeBase:
  params: dict
  arch: object = ARCH
  digest: str = 'ab' * 32


def _params():
  rng = np.random.default_rng(0)
  n, k, d, h, f = ARCH.num_heads, ARCH.num_kv_heads, ARCH.embed_dim, ARCH.head_dim, ARCH.hidden_dim

  def normal(*shape):
    return jnp.asarray(rng.standard_normal(shape), jnp.float32)

  def layer():
    return {
      'attn': {
        'q_einsum': {'w': normal(n, d, h)},
        'kv_einsum': {'w': normal(2, k, d, h)},
        'attn_vec_einsum': {'w': normal(n, h, d)},
      },
      'mlp': {'gating_einsum': normal(2, f, d), 'linear': normal(f, d)},
      'pre_attention_norm': {'scale': normal(d)},
    }

  embedder = {'input_embedding': normal(ARCH.vocab_size, d)}
  return {'embedder': embedder, 'layer_0': layer(), 'layer_1': layer()}


def _adapter(seed):
  adapter = lora.init(jax.random.key(0), ARCH, rank=2, targets='.*')
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape) / 4, x.dtype), adapter)


class Life:
  """A diary, a base and what is saved to them."""

  def __init__(self, workdir: pathlib.Path, base: FakeBase):
    self.base, self.root = base, workdir / 'generations'
    self.diary = Diary(workdir / 'diary.sqlite')
    self.bluegreen = BlueGreen(base, self.diary, self.root)

  def night(self, seed, parent=None, **fields):
    """Saves a generation as a night would, masks and all."""
    adapter, config = _adapter(seed), prune.PruneConfig(amount=0.2, delta=0.1)
    masks = {
      'merged': prune.merged_mask(self.base.params, adapter, ARCH, scale=2.0, config=config),
      'delta': prune.delta_mask(adapter, ARCH, scale=2.0, config=config),
    }
    fields = {
      'parent': self.diary.active() if parent is None else parent, 'night': None,
      'created': 1.0, 'base': self.base.digest, 'sources': (), 'seed': seed,
      'lora': {'rank': 2, 'alpha': 4.0}, 'scores': {}, 'config': {}, **fields,
    }  # fmt: skip
    number = generations.next_number(self.root)
    return generations.save(self.root, number, adapter=adapter, masks=masks, manifest_fields=fields)


@pytest.fixture(scope='module')
def base():
  return FakeBase(_params())


@pytest.fixture
def life(tmp_path, base):
  life = Life(tmp_path, base)
  yield life
  life.diary.close()


def _bits(mind):
  return [np.asarray(x).tobytes() for x in jax.tree.leaves(mind.params)]


def _damage(generation):
  file = generation.path / 'masks' / 'merged.npy'
  file.write_bytes(file.read_bytes()[:-1] + b'?')


# ---- Promote ----


def test_a_new_life_is_served_by_the_base_itself(life):
  assert life.bluegreen.blue.generation == 0
  assert life.bluegreen.blue.params is life.base.params


def test_promote_serves_base_adapter_and_masks_and_tells_the_diary(life, base):
  ids = [life.diary.append(time=1.0, speaker='P', content='x').id for _ in range(3)]
  night = life.diary.begin_night({})
  before = _bits(life.bluegreen.blue)
  generation = life.night(1, night=night)
  green = life.bluegreen.promote(generation, consumed=ids[:2], night=night, result={'ok': 1})
  assert life.bluegreen.blue is green and green.generation == 1
  assert life.diary.active() == 1 and life.diary.night(night).state == 'promoted'
  assert [e.id for e in life.diary.experiences(unconsumed=True)] == ids[2:]
  assert life.diary.generations() == [generation]

  _, adapter, masks = generations.load(life.root, 1)
  merged = lora.materialize(base.params, adapter, ARCH, scale=2.0)
  for layer, path in (('layer_0', ('mlp', 'linear')), ('layer_1', ('attn', 'q_einsum', 'w'))):
    trees = [green.params, merged, base.params, masks['delta'], masks['merged']]
    trees = [tree[layer] for tree in trees]
    for key in path:
      trees = [tree[key] for tree in trees]
    out, m, b, delta, kept = (np.asarray(x) for x in trees)
    np.testing.assert_array_equal(out, np.where(kept, np.where(delta, m, b), 0))
    assert (~kept).mean() == pytest.approx(0.2, abs=0.01) and (m != b).all()
  assert green.params['embedder'] == base.params['embedder']
  assert _bits(bluegreen.Mind(params=base.params)) == before  # the base is never written


def test_the_commit_comes_before_the_flip(life, monkeypatch):
  seen = []
  commit = life.diary.promote

  def watched(*args, **kwargs):
    seen.append((life.bluegreen.blue.generation, life.diary.active()))
    commit(*args, **kwargs)
    seen.append((life.bluegreen.blue.generation, life.diary.active()))

  monkeypatch.setattr(life.diary, 'promote', watched)
  life.bluegreen.promote(life.night(1))
  assert seen == [(0, 0), (0, 1)]
  assert life.bluegreen.blue.generation == 1


def test_when_the_diary_refuses_the_old_one_serves(life):
  life.bluegreen.promote(life.night(1))
  blue = life.bluegreen.blue
  with pytest.raises(ValueError, match='experience 99'):
    night = life.diary.begin_night({})
    life.bluegreen.promote(life.night(2), consumed=[99], night=night)
  assert life.bluegreen.blue is blue and life.diary.active() == 1


def test_a_damaged_green_is_refused_and_nothing_changes(life):
  generation = life.night(1)
  _damage(generation)
  with pytest.raises(ValueError, match='merged.npy was altered'):
    life.bluegreen.promote(generation)
  assert life.bluegreen.blue.generation == 0 and life.diary.active() == 0


@pytest.mark.parametrize(
  'fields, words',
  [
    ({'base': 'cd' * 32}, 'made for base cdcdcdcdcdcd, this is abababababab'),
    ({'lora': {'rank': 2}}, "lacks lora's alpha or rank"),
    ({'parent': 3}, 'grew from 3, but 0 serves'),
  ],
)
def test_a_green_that_does_not_fit_is_refused(life, fields, words):
  with pytest.raises(ValueError, match=words) as error:
    life.bluegreen.promote(life.night(1, **fields))
  assert '\n' not in str(error.value)
  assert life.diary.active() == 0 and life.diary.generations() == []


# ---- Recover ----


def test_recovery_reads_only_the_diarys_row(life, base):
  blue = life.bluegreen.promote(life.night(1))
  life.night(2)  # saved, never promoted: killed before the commit
  (life.root / '.tmp-3-dead').mkdir()
  again = BlueGreen(base, life.diary, life.root)
  assert again.blue.generation == 1 and _bits(again.blue) == _bits(blue)
  assert not (life.root / '.tmp-3-dead').exists()


def test_interrupted_between_commit_and_flip_the_new_one_serves(life, base, monkeypatch):
  assert life.bluegreen.blue.generation == 0
  commit = life.diary.promote

  def killed(*args, **kwargs):
    commit(*args, **kwargs)
    raise KeyboardInterrupt

  monkeypatch.setattr(life.diary, 'promote', killed)
  with pytest.raises(KeyboardInterrupt):
    life.bluegreen.promote(life.night(1))
  assert life.bluegreen.blue.generation == 1
  assert BlueGreen(base, life.diary, life.root).blue.generation == 1


def test_from_a_damaged_blue_one_can_roll_back(life, base):
  life.bluegreen.promote(life.night(1))
  good = _bits(life.bluegreen.blue)
  second = life.night(2)
  life.bluegreen.promote(second)
  _damage(second)
  again = BlueGreen(base, life.diary, life.root)
  with pytest.raises(ValueError, match='generation 2 .*roll back'):
    _ = again.blue
  assert _bits(again.rollback()) == good


def test_a_generation_exchanged_behind_the_diarys_back_is_refused(life, base):
  life.bluegreen.promote(life.night(1))
  generations.discard(life.root, 1)
  life.night(2, parent=0)  # whole, and again number 1, but another one
  with pytest.raises(ValueError, match='not the one that was promoted'):
    _ = BlueGreen(base, life.diary, life.root).blue


# ---- Roll back ----


def test_rollback_is_bit_identical(life):
  first = _bits(life.bluegreen.promote(life.night(1)))
  second = _bits(life.bluegreen.promote(life.night(2)))
  assert first != second
  assert _bits(life.bluegreen.rollback()) == first and life.diary.active() == 1
  assert _bits(life.bluegreen.rollback(2)) == second and life.diary.active() == 2
  assert life.bluegreen.rollback(0).params is life.base.params
  assert life.bluegreen.blue.generation == 0 and life.diary.active() == 0


def test_rollback_gives_the_experiences_back(life):
  id = life.diary.append(time=1.0, speaker='P', content='x').id
  night = life.diary.begin_night({})
  life.bluegreen.promote(life.night(1, night=night), consumed=[id], night=night)
  assert life.diary.experiences(unconsumed=True) == []
  life.bluegreen.rollback()
  assert [e.id for e in life.diary.experiences(unconsumed=True)] == [id]


def test_rollback_to_what_is_not_there_changes_nothing(life):
  with pytest.raises(ValueError, match='nothing earlier'):
    life.bluegreen.rollback()
  first = life.night(1)
  life.bluegreen.promote(first)
  life.bluegreen.promote(life.night(2))
  blue = life.bluegreen.blue
  life.night(3)  # saved, not promoted
  with pytest.raises(ValueError, match='no generation 3 .*there are: 0, 1, 2'):
    life.bluegreen.rollback(3)
  _damage(first)
  with pytest.raises(ValueError, match='damaged'):
    life.bluegreen.rollback()
  assert life.bluegreen.blue is blue and life.diary.active() == 2


# ---- While others speak ----


def test_a_stream_keeps_its_mind_and_the_last_one_lets_it_go(life):
  life.bluegreen.promote(life.night(1))

  def stream(mind):
    for _ in range(3):
      yield mind.generation, float(mind.params['layer_0']['mlp']['linear'][0, 0])

  speaking = stream(life.bluegreen.blue)
  first = next(speaking)
  old = weakref.ref(life.bluegreen.blue.params['layer_0']['mlp']['linear'])
  life.bluegreen.promote(life.night(2))
  assert next(speaking) == first and life.bluegreen.blue.generation == 2
  assert list(speaking) == [first]
  del speaking
  gc.collect()
  assert old() is None  # drained: two copies only while someone needs them


@pytest.mark.parametrize('mesh', [None, sharding.MeshConfig(fsdp=4, tensor=2)])
def test_no_program_compiles_again_at_a_swap(tmp_path, base, mesh):
  if mesh is not None:
    mesh = sharding.make_mesh(mesh)
    base = FakeBase(sharding.shard(base.params, mesh, sharding.BASE))
  life = Life(tmp_path, base)

  @jax.jit
  def speak(params):
    return jax.tree.map(jnp.sum, params)

  for mind in (
    life.bluegreen.blue,
    life.bluegreen.promote(life.night(1)),
    life.bluegreen.promote(life.night(2)),
    life.bluegreen.rollback(),
    life.bluegreen.rollback(0),
  ):
    jax.block_until_ready(speak(mind.params))
  assert speak._cache_size() == 1
  life.diary.close()


def test_a_swap_materializes_once(life, monkeypatch):
  wakes = []
  wake = bluegreen.wake
  monkeypatch.setattr(
    bluegreen, 'wake', lambda *args, **kw: wakes.append(kw['number']) or wake(*args, **kw)
  )
  life.bluegreen.promote(life.night(1))
  for _ in range(3):
    _ = life.bluegreen.blue
  assert wakes == [1]


# ---- One process ----

_HOLD = """
import sys
sys.path.insert(0, sys.argv[2])
from dreaming.identity.bluegreen import IdentityLock
try:
  lock = IdentityLock(sys.argv[1])
except OSError as e:
  print(e, flush=True)
else:
  print('held', flush=True)
  sys.stdin.read()
"""


def _holder(workdir):
  return subprocess.Popen(
    [sys.executable, '-c', _HOLD, workdir, HERE.parent],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
  )  # fmt: skip


def test_a_second_process_gets_one_clear_line_and_a_killed_one_lets_go(tmp_path):
  first = _holder(tmp_path)
  assert first.stdout.readline() == 'held\n'
  with pytest.raises(BlockingIOError) as error:
    IdentityLock(tmp_path)
  line = f'{tmp_path} is in use by process {first.pid}: end it first, or choose another'
  assert str(error.value).startswith(line) and '\n' not in str(error.value)
  first.send_signal(signal.SIGKILL)
  first.communicate()
  with IdentityLock(tmp_path):
    assert (tmp_path / 'lock').read_text() == f'{os.getpid()}\n'


def test_one_process_holds_an_identity_once(tmp_path):
  with IdentityLock(tmp_path / 'new'):
    with pytest.raises(BlockingIOError, match=f'process {os.getpid()}'):
      IdentityLock(tmp_path / 'new')
  with IdentityLock(tmp_path / 'new'):
    pass


def test_a_lock_that_is_a_link_writes_nowhere_else(tmp_path):
  (tmp_path / 'victim').write_text('kept')
  (tmp_path / 'lock').symlink_to(tmp_path / 'victim')
  with pytest.raises(OSError):
    IdentityLock(tmp_path)
  assert (tmp_path / 'victim').read_text() == 'kept'


# ---- Ways to consolidate ----


def _generations(life, kind, masks=None):
  """Two, the second on top of the first; returns their adapters."""
  adapters = [_adapter(1), _adapter(2)]
  for adapter in adapters:
    parent = life.diary.active()
    number = generations.next_number(life.root)
    fields = {
      'parent': parent, 'night': None, 'created': 1.0, 'base': life.base.digest, 'sources': (),
      'seed': 0, 'scores': {}, 'config': {},
      'lora': {'rank': 2, 'alpha': 4e-3, 'consolidation': kind},
    }  # fmt: skip
    saved = generations.save(
      life.root, number, adapter=adapter, masks=masks, manifest_fields=fields
    )
    life.bluegreen.promote(saved)
  return adapters


def test_fresh_adapters_add_up_without_rounding(tmp_path, base):
  low = FakeBase(jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.ndim > 1 else x, base.params))
  life = Life(tmp_path, low)
  adapters = _generations(life, 'fresh')
  ground = life.bluegreen.ground(2, 'fresh')
  deltas = [lora.layer_delta(a, 0, ARCH, 2e-3)['mlp/down'] for a in adapters]
  wanted = low.params['layer_0']['mlp']['linear'].astype(jnp.float32) + sum(deltas)
  np.testing.assert_allclose(ground['layer_0']['mlp']['linear'], wanted, rtol=1e-6, atol=1e-7)
  served = life.bluegreen.blue.params['layer_0']['mlp']['linear']
  assert served.dtype == jnp.bfloat16
  np.testing.assert_array_equal(served, wanted.astype(jnp.bfloat16))
  life.diary.close()


def test_fold_rounds_every_night_and_loses_what_fresh_keeps(tmp_path, base):
  low = FakeBase(jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.ndim > 1 else x, base.params))
  life = Life(tmp_path, low)
  adapters = _generations(life, 'fold')
  w = low.params['layer_0']['mlp']['linear']
  for adapter in adapters:
    delta = lora.layer_delta(adapter, 0, ARCH, 2e-3)['mlp/down']
    moved = (w.astype(jnp.float32) + delta).astype(jnp.bfloat16)
    assert float((moved == w).mean()) > 0.3  # so small a step that many weights do not move
    w = moved
  np.testing.assert_array_equal(life.bluegreen.blue.params['layer_0']['mlp']['linear'], w)
  life.diary.close()


def test_the_ground_of_one_adapter_is_the_base_itself(life, base):
  life.bluegreen.promote(life.night(1))
  assert life.bluegreen.ground(1, 'continual') is base.params
  on_top = life.bluegreen.ground(1, 'fresh')
  for x, y in zip(
    jax.tree.leaves(on_top), jax.tree.leaves(life.bluegreen.blue.params), strict=True
  ):
    np.testing.assert_array_equal(x, y)


def test_rollback_among_fresh_generations_is_bit_identical(tmp_path, base):
  life = Life(tmp_path, base)
  _generations(life, 'fresh', masks={})
  second = _bits(life.bluegreen.blue)
  first = _bits(life.bluegreen.rollback())
  assert first != second and life.bluegreen.blue.generation == 1
  assert _bits(life.bluegreen.rollback(2)) == second
  life.diary.close()
