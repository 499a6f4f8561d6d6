"""A generation is whole or not there: kills, flipped bytes and strangers' files never load."""

from __future__ import annotations

import json
import math
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from dreaming.identity import generations

FIELDS = {
  'parent': None,
  'night': 1,
  'created': 1_772_442_600.25,
  'base': 'ab' * 32,
  'sources': (3, 1, 2),
  'seed': 7,
  'lora': {'rank': 2, 'alpha': 4.0, 'targets': '.*'},
  'scores': {'recall': 0.75},
  'config': {'train': {'steps': 3, 'amounts': [0.2, 0.1]}},
}


def _adapter(seed=0):
  rng = np.random.default_rng(seed)
  a, b = rng.standard_normal((2, 8, 2), np.float32), rng.standard_normal((2, 2, 6), np.float32)
  return {'layers': {'attn': {'q': {'a': a, 'b': b}}}}


def _masks(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'merged': {'layer_0': {'attn': {'q_einsum': {'w': rng.random((2, 4, 3)) < 0.8}}}},
    'delta': {'layer_1': {'mlp': {'linear': rng.random((5, 3)) < 0.5}}},
  }


def _save(root, number=1, **changes):
  return generations.save(
    root, number, adapter=_adapter(), masks=_masks(), manifest_fields={**FIELDS, **changes}
  )


def _files(path):
  return sorted(p for p in path.rglob('*') if p.is_file())


# ---- Whole ----


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
  saved = _save(tmp_path / 'a' / 'generations')
  generation, adapter, masks = generations.load(tmp_path / 'a' / 'generations', 1)
  assert generation == saved
  assert generation.path == tmp_path / 'a' / 'generations' / '1'
  assert generation.manifest.sources == (3, 1, 2)
  assert generation.manifest.config == FIELDS['config']
  jax.tree.map(np.testing.assert_array_equal, adapter, _adapter())
  jax.tree.map(np.testing.assert_array_equal, masks, _masks())
  assert {x.dtype for x in jax.tree.leaves(adapter)} == {np.dtype(np.float32)}
  assert not list((tmp_path / 'a' / 'generations').glob('.*'))


def test_without_masks(tmp_path):
  generations.save(tmp_path, 1, adapter=_adapter(), manifest_fields=FIELDS)
  assert generations.load(tmp_path, 1)[2] == {}


def test_jax_arrays_and_numpy_scalars_are_plain_enough(tmp_path):
  adapter = jax.tree.map(jax.numpy.asarray, _adapter())
  fields = {**FIELDS, 'scores': {'recall': np.float32(0.5), 'count': np.int64(3)}}
  generation = generations.save(tmp_path, 1, adapter=adapter, manifest_fields=fields)
  assert generation.manifest.scores == {'recall': 0.5, 'count': 3}
  assert generations.load(tmp_path, 1)[0] == generation


def test_every_file_is_in_the_manifest_and_sha256sum_agrees(tmp_path):
  path = _save(tmp_path).path
  names = {str(p.relative_to(path)) for p in _files(path)}
  assert names == set(json.loads((path / 'manifest.json').read_text())['files']) | {
    'manifest.json',
    'manifest.sha256',
  }
  subprocess.run(['sha256sum', '--check', '--quiet', 'manifest.sha256'], cwd=path, check=True)


def test_lists_and_numbers(tmp_path):
  root = tmp_path / 'generations'
  assert generations.list_generations(root) == [] and generations.next_number(root) == 1
  saved = [_save(root, n, parent=n - 1) for n in (1, 2, 10)]
  (root / '11').mkdir()  # half written by someone else
  (root / 'notes').mkdir()
  assert generations.list_generations(root) == saved
  assert generations.next_number(root) == 12


def test_discarded_is_gone(tmp_path):
  _save(tmp_path, 1)
  _save(tmp_path, 2)
  generations.discard(tmp_path, 2)
  assert [p.name for p in tmp_path.iterdir()] == ['1']


# ---- Refused ----


def test_a_number_is_never_written_twice(tmp_path):
  before = {p: p.read_bytes() for p in _files(_save(tmp_path).path)}
  with pytest.raises(ValueError, match='generation 1 is in .* already'):
    _save(tmp_path, seed=8)
  assert {p: p.read_bytes() for p in _files(tmp_path)} == before
  with pytest.raises(ValueError, match='numbers begin at 1'):
    _save(tmp_path, 0)


@pytest.mark.parametrize('value', [math.nan, math.inf, pathlib.Path('x'), {1, 2}])
def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path, value):
  with pytest.raises(ValueError, match='plain, finite values'):
    _save(tmp_path / 'g', scores={'recall': value})
  assert not (tmp_path / 'g').exists()


def test_a_mask_cannot_name_a_path(tmp_path):
  with pytest.raises(ValueError, match='not .*evil'):
    generations.save(
      tmp_path / 'g', 1, adapter=_adapter(), masks={'../../evil': {}}, manifest_fields=FIELDS
    )
  assert list(tmp_path.rglob('*')) == [tmp_path / 'g']


def test_a_missing_generation_says_which_there_are(tmp_path):
  _save(tmp_path, 2)
  with pytest.raises(FileNotFoundError, match='no generation 1 in .*; there are: 2'):
    generations.load(tmp_path, 1)


def test_a_flipped_byte_anywhere_is_detected(tmp_path):
  path = _save(tmp_path).path
  for file in _files(path):
    content = file.read_bytes()
    for place in {0, len(content) // 2, len(content) - 1}:
      flipped = bytearray(content)
      flipped[place] ^= 0x10
      file.write_bytes(flipped)
      with pytest.raises(ValueError, match='generation 1 in .* is damaged') as error:
        generations.load(tmp_path, 1)
      assert '\n' not in str(error.value)
    file.write_bytes(content)
  generations.load(tmp_path, 1)


def test_a_missing_short_or_strange_file_is_detected(tmp_path):
  path = _save(tmp_path).path
  for file in _files(path):
    content = file.read_bytes()
    for damage in (file.unlink, lambda file=file, content=content: file.write_bytes(content[:-1])):
      damage()
      with pytest.raises(ValueError, match='damaged'):
        generations.load(tmp_path, 1)
      file.write_bytes(content)
  for strange in (path / 'more.npy', path / 'adapter' / 'd' / 'more'):
    strange.write_bytes(b'')
    with pytest.raises(ValueError, match=f'{strange.name} does not belong'):
      generations.load(tmp_path, 1)
    strange.unlink()
  (path / 'link').symlink_to('/etc')
  with pytest.raises(ValueError, match='link does not belong'):
    generations.load(tmp_path, 1)


def test_a_file_behind_a_link_is_no_file_of_a_generation(tmp_path):
  path = _save(tmp_path).path
  file = path / 'masks' / 'merged.npy'
  file.rename(tmp_path / 'elsewhere.npy')
  file.symlink_to(tmp_path / 'elsewhere.npy')
  with pytest.raises(ValueError, match='merged.npy was altered'):
    generations.load(tmp_path, 1)


def test_a_generation_under_another_number_is_refused(tmp_path):
  _save(tmp_path, 1).path.rename(tmp_path / '2')
  with pytest.raises(ValueError, match='says generation 1'):
    generations.load(tmp_path, 2)


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
  def full(*_, **__):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(np, 'save', full)
  with pytest.raises(OSError, match='generation 1 could not be written.*No space left'):
    _save(tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_sweep_takes_only_what_is_half_written_and_follows_no_link(tmp_path):
  root, outside = tmp_path / 'g', tmp_path / 'outside'
  generation = _save(root)
  (root / '.tmp-2-dead' / 'adapter').mkdir(parents=True)
  outside.mkdir()
  (outside / 'kept').write_text('kept')
  (root / '.tmp-3-link').symlink_to(outside)
  assert generations.sweep(root) == ['.tmp-2-dead', '.tmp-3-link']
  assert (outside / 'kept').exists()
  assert [p.name for p in root.iterdir()] == ['1']
  assert generations.load(root, 1)[0] == generation
  assert generations.sweep(tmp_path / 'none') == []


# ---- Killed ----

# Imports once, then forks one child for each moment; the child kills itself there.
_KILLER = """
import os, pathlib, signal, sys
sys.path[:0] = sys.argv[2:]
import generations_test as t
import orbax.checkpoint
from dreaming.identity import generations

def run(root, moment):
  seen = 0
  def counted(real):
    def call(*args, **kwargs):
      nonlocal seen
      seen += 1
      if seen == moment:
        os.kill(os.getpid(), signal.SIGKILL)
      return real(*args, **kwargs)
    return call
  for name in ('fsync', 'rename'):
    setattr(os, name, counted(getattr(os, name)))
  t._save(root)

moment = 0
while True:
  moment += 1
  child = os.fork()
  if child == 0:
    run(pathlib.Path(sys.argv[1]) / str(moment), moment)
    os._exit(0)
  _, status = os.waitpid(child, 0)
  if not os.WIFSIGNALED(status):
    print(moment, os.waitstatus_to_exitcode(status))
    break
"""


def test_killed_at_any_moment_of_a_save_it_is_whole_or_not_there(tmp_path):
  here = pathlib.Path(__file__).parent
  command = [sys.executable, '-c', _KILLER, tmp_path, here, here.parent]
  done = subprocess.run(command, capture_output=True, text=True, timeout=120)
  assert done.returncode == 0, done.stderr
  survived, code = map(int, done.stdout.split())
  assert code == 0 and survived > 12  # more moments than files: each was made durable
  outcomes = []
  for moment in range(1, survived + 1):
    root = tmp_path / str(moment)
    whole = [g.number for g in generations.list_generations(root)] == [1]
    if whole:
      generations.load(root, 1)
    else:
      with pytest.raises(FileNotFoundError, match='no generation 1'):
        generations.load(root, 1)
    generations.sweep(root)
    assert [p.name for p in root.glob('*')] == (['1'] if whole else [])
    assert [p.name for p in root.glob('.*')] == []
    outcomes.append(whole)
  assert outcomes == sorted(outcomes)  # once there, always there
  # Only the last step, the directory's own fsync, comes after the rename.
  assert outcomes.index(True) == survived - 2
