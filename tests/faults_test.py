"""Disk, memory and power fail, processes are killed: nothing is lost, and it is said in one line.

The short form of benchmarks/faults.py, and what its layer of faults is itself worth.
"""

from __future__ import annotations

import errno
import io
import json
import pathlib
import random
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest

from benchmarks import faults, faulty, toys
from dreaming import mishaps, terminal
from dreaming.brain import prompts
from dreaming.identity import bluegreen, generations
from dreaming.sleep import artifacts, metrics, replay

ROOT = pathlib.Path(__file__).parents[1]
needs_layer = pytest.mark.skipif(bool(faulty.missing()), reason=faulty.missing() or 'it is there')

# ---- The layer ----

WRITES = """
import errno, os, pathlib, sys
sys.path.insert(0, {root!r})
from benchmarks import faulty
home = pathlib.Path({home!r})
disk = faulty.Disk(home)
disk.record(home.with_name('log'))
{arm}
try:
  with open(home / 'a', 'wb') as f:
    f.write(b'hello'); f.flush(); os.fsync(f.fileno())
  disk.note('acknowledged')
  os.rename(home / 'a', home / 'b')
  print('done', disk.seen)
except OSError as e:
  print(e.errno, disk.seen, disk.fired)
"""


@pytest.fixture
def wrote(tmp_path):
  """Runs WRITES below the layer, armed; its exit code, what it said, and the folder."""
  home = tmp_path / 'home'
  home.mkdir()

  def run(arm=''):
    code = WRITES.format(root=str(ROOT), home=str(home), arm=arm)
    env = faulty.environment(tmp_path)
    out = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    return out.returncode, out.stdout.strip(), home

  return run


@needs_layer
def test_the_layer_counts_and_records_and_changes_nothing(wrote):
  code, said, home = wrote()
  assert (code, said) == (0, 'done 4') and (home / 'b').read_bytes() == b'hello'
  ops = faulty.read_log(home.with_name('log'))
  kinds = [faulty.MAKE, faulty.WRITE, faulty.SYNC, faulty.NOTE, faulty.RENAME]
  assert [op.kind for op in ops] == kinds
  assert (ops[1].path, ops[1].at, ops[1].data) == ('/a', 0, b'hello')
  assert (ops[-1].path, ops[-1].other) == ('/a', '/b')


@needs_layer
@pytest.mark.parametrize(('n', 'name', 'data'), [(1, '', b''), (2, 'a', b''), (4, 'a', b'hello')])
def test_the_nth_operation_fails(wrote, n, name, data):
  code, said, home = wrote(f'disk.fail({n}, errno.EIO)')
  assert (code, said) == (0, f'{errno.EIO} {n if n != 2 else 3} True')  # closing writes again
  found = [p.name for p in home.iterdir()]
  assert found == ([name] if name else [])
  assert n == 2 or not name or (home / name).read_bytes() == data


@needs_layer
@pytest.mark.parametrize(('arm', 'left'), [('disk.kill(2)', b''), ('disk.kill(2, True)', b'he')])
def test_it_kills_at_an_operation_or_in_the_middle_of_it(wrote, arm, left):
  code, said, home = wrote(arm)
  assert (code, said) == (-9, '') and (home / 'a').read_bytes() == left


def test_calls_are_counted_and_struck_before_or_after():
  class Thing:
    def do(self, x):
      done.append(x)
      return x

  def strike():
    raise MemoryError

  done, calls = [], faulty.Calls([('do', Thing, 'do')])
  for after, left in ((False, [1]), (True, [1, 2])):
    done.clear()
    with calls.at(strike, 2, after=after), pytest.raises(MemoryError):
      Thing().do(1), Thing().do(2)
    assert done == left and calls.fired
  with calls.at(None):
    Thing().do(3)
  assert calls.seen == 1 and not calls.fired and Thing().do(4) == 4 and calls.seen == 1


# ---- Power cuts ----


def _op(kind, path, other='', at=0, data=b''):
  return faulty.Op(kind, path, other, at, data)


def _cut(tmp_path, ops, how='none'):
  (tmp_path / 'before').mkdir(exist_ok=True)
  platter = faulty.Platter(tmp_path / 'before')
  for op in ops:
    platter.do(op)
  to = tmp_path / 'after'
  to.mkdir()
  platter.cut(to, how, random.Random(0))
  return {str(p.relative_to(to)): p.read_bytes() for p in to.rglob('*') if p.is_file()}


MADE = [_op(faulty.MAKE, '/a'), _op(faulty.WRITE, '/a', data=b'new')]
FILE, FOLDER = _op(faulty.SYNC, '/a'), _op(faulty.SYNC, '')


@pytest.mark.parametrize(
  ('more', 'left'),
  [
    ([], {}),
    ([FILE], {}),  # its bytes are safe, its name is not
    ([FOLDER], {'a': b''}),
    ([FILE, FOLDER], {'a': b'new'}),
    ([FILE, FOLDER, _op(faulty.WRITE, '/a', data=b'NEWER')], {'a': b'new'}),
    ([FILE, FOLDER, _op(faulty.RENAME, '/a', '/b')], {'a': b'new'}),
    ([FILE, _op(faulty.RENAME, '/a', '/b'), FOLDER], {'b': b'new'}),
    ([_op(faulty.RENAME, '/a', '/b'), FOLDER], {'b': b''}),  # the classic: renamed, and empty
    ([FILE, FOLDER, _op(faulty.REMOVE, '/a')], {'a': b'new'}),
    ([FILE, FOLDER, _op(faulty.RESIZE, '/a', at=1), FILE], {'a': b'n'}),
  ],
)
def test_a_cut_loses_what_no_sync_followed(tmp_path, more, left):
  assert _cut(tmp_path, [*MADE, *more]) == left


def test_a_folder_that_is_renamed_takes_its_files_along(tmp_path):
  ops = [_op(faulty.MKDIR, '/t'), _op(faulty.MAKE, '/t/x'), _op(faulty.WRITE, '/t/x', data=b'1')]
  ops += [_op(faulty.SYNC, '/t/x'), _op(faulty.SYNC, '/t'), _op(faulty.RENAME, '/t', '/3')]
  assert _cut(tmp_path, [*ops, FOLDER]) == {'3/x': b'1'}


def test_what_lies_in_a_folder_that_was_lost_is_lost(tmp_path):
  ops = [_op(faulty.MKDIR, '/t'), _op(faulty.MKDIR, '/t/u'), _op(faulty.MAKE, '/t/u/x')]
  ops += [_op(faulty.SYNC, '/t/u/x'), _op(faulty.SYNC, '/t/u'), _op(faulty.SYNC, '/t')]
  assert _cut(tmp_path, ops) == {} and _cut(tmp_path / 'after', [*ops, FOLDER]) == {'t/u/x': b''}


def test_all_is_there_where_nothing_was_cut(tmp_path):
  assert _cut(tmp_path, [*MADE, _op(faulty.RENAME, '/a', '/b')], 'all') == {'b': b'new'}


# ---- One line ----


@pytest.mark.parametrize(
  ('error', 'says'),
  [
    (MemoryError(), 'no memory is left'),
    (OSError(errno.ENOSPC, 'No space left on device', '/x/y'), r'\(/x/y\): make room there'),
    (OSError(errno.EIO, 'Input/output error'), 'check that disk'),
    (jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out\n of it'), 'EXHAUSTED: Out of it'),
    (jax.errors.JaxRuntimeError('INTERNAL: x'), 'INTERNAL: x'),
  ],
)
def test_a_mishap_becomes_one_line_with_a_way_out(error, says):
  with pytest.raises(OSError, match=says) as e, mishaps.clearly('it stopped', 'sleep again'):
    raise error
  line = str(e.value)
  assert line.startswith('it stopped: ') and line.endswith('then sleep again')
  assert '\n' not in line and e.value.errno is None


@pytest.mark.parametrize('error', [ValueError('x'), OSError('its own line'), RuntimeError('a bug')])
def test_what_is_no_mishap_comes_as_it_is(error):
  with pytest.raises(type(error)) as e, mishaps.clearly('it stopped'):
    raise error
  assert e.value is error


# ---- What was found by it ----


def test_a_full_disk_neither_holds_a_night_up_nor_hides_why_it_ended(tmp_path, monkeypatch):
  """tensorboardX's own thread dies of it, and its queue then waits for ever at the 11th value."""
  with metrics.NightLog(tmp_path, number=1, config={}) as log:
    log.write('train', 0, {'loss': 1.0})

    def full(self):
      raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(type(log._events), 'flush', full)
    for i in range(1, 30):
      log.write('train', i, {'loss': 1.0})
    assert len(metrics.read(tmp_path / 'metrics.jsonl')) == 30

  class Full(io.StringIO):
    def close(self):
      raise OSError(errno.ENOSPC, 'No space left on device')

  with pytest.raises(ValueError, match='why it ended'):
    with metrics.NightLog(tmp_path, number=1, config={}) as log:
      log._file.close()
      log._file = Full()
      raise ValueError('why it ended')


def test_an_empty_file_in_the_cache_is_made_anew(monkeypatch, tmp_path):
  """As a power cut leaves it behind a rename."""
  said = []
  monkeypatch.setattr(replay, '_questions', lambda *_: said.append(1) or [])
  monkeypatch.setattr(replay, '_texts', lambda *_: [])
  monkeypatch.setattr(replay, '_encoded', lambda *_: ())
  hidden = np.ones((2, 3), ml_dtypes.bfloat16)
  monkeypatch.setattr(replay, '_think', lambda *_, **__: hidden)
  monkeypatch.setattr(replay.transformer, 'cast', lambda params, dtype: params)

  class Mind:
    params = None

    def replace(self, **_):
      return self

  class Decoder:
    def forget(self, mind):
      pass

  def make():
    return replay.make(
      Decoder(), Mind(), 'b', questions=1, texts=1, text_tokens=1, top_k=1, prefix=[1], rows=1,
      length=8, dtype='bfloat16', cache=tmp_path,
    )  # fmt: skip

  make()
  (path,) = (tmp_path / 'replay').glob('*.npz')
  for harm in (b'', b'PK\x03\x04', path.read_bytes()[:-30]):
    path.write_bytes(harm)
    made = make()
    np.testing.assert_array_equal(made.hidden, hidden)
  assert len(said) == 4 and prompts.ANSWER_PREFIX


def test_what_cannot_be_read_back_stops_the_night_in_one_line(tmp_path, monkeypatch):
  path = tmp_path / 'trained.npz'
  digest = artifacts.write(path, {'a': np.ones(3)})
  assert artifacts.written(path, digest)['a'].tolist() == [1, 1, 1]
  with pytest.raises(OSError, match='trained.npz is not as it was written'):
    artifacts.written(path, 'another')


def test_a_generation_that_cannot_be_read_is_not_called_half_written(tmp_path, monkeypatch):
  fields = {
    'parent': None, 'night': 1, 'created': 1.0, 'base': 'b', 'sources': [1], 'seed': 0, 'lora': {},
    'scores': {}, 'config': {},
  }  # fmt: skip
  generations.save(tmp_path, 1, adapter={'a': np.ones(2)}, manifest_fields=fields)

  def broken(self):
    raise OSError(errno.EIO, 'Input/output error')  # of an open file: it names none

  monkeypatch.setattr(pathlib.Path, 'read_bytes', broken)
  with pytest.raises(OSError, match='generation 1 .* cannot be read .*: check that disk'):
    generations.load(tmp_path, 1)


def test_whoever_speaks_after_a_failed_look_asks_the_diary_again():
  class Diary:
    broken = False

    def active(self):
      if self.broken:
        raise OSError('it cannot be read')
      return 0

  class Base:
    params = {'x': 1}

  diary = Diary()
  identity = bluegreen.BlueGreen(Base(), diary, pathlib.Path('nowhere'))
  before = identity.blue
  diary.broken = True
  with pytest.raises(OSError, match='cannot be read'):
    identity.adopt(bluegreen.Mind(params={}, generation=1))
  diary.broken = False
  assert identity.blue is not before and identity.blue.generation == 0


@pytest.fixture
def agent(tmp_path):
  with toys.wake(tmp_path) as agent:
    yield agent


@pytest.mark.parametrize(
  'error', [MemoryError(), jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out\n of memory')]
)
def test_talk_goes_on_where_there_was_no_memory(agent, monkeypatch, capsys, error):
  """To speak with, and then to embed with."""

  def none(*_, **__):
    raise error

  with monkeypatch.context() as m:
    m.setattr(toys.Voice, 'stream', none)
    assert terminal._Chat(agent, sys.stdout).piped(io.BytesIO(b'My parrot is Kiwi.\n')) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('this was not finished: ')
  with monkeypatch.context() as m:
    m.setattr(toys.Letters, '__call__', none)
    assert agent.reply('My boat is Nova.') == 'I see.'
  assert agent.diary.unembedded('letters') == [2]
  assert agent.reply('My horse is Sol.') == 'I see.'
  kept = ['My parrot is Kiwi.', 'My boat is Nova.', 'My horse is Sol.']
  assert [e.content for e in agent.diary.experiences()] == kept
  assert {e.id for e in agent.memories('horse boat parrot is my')} == {1, 2, 3}
  assert agent.diary.unembedded('letters') == []


# ---- The short form of benchmarks/faults.py ----


@pytest.fixture(scope='module')
def life(tmp_path_factory):
  """(folder, home, what each act leaves undisturbed, a victim that has run it)."""
  if why := faulty.missing():
    pytest.skip(why)
  folder = tmp_path_factory.mktemp('faults').resolve()
  with faults.Victim(folder) as victim:
    home = folder / 'home'
    yield folder, home, victim('make', home=str(home)), victim


@pytest.fixture(scope='module')
def mortal(life):
  with faults.Victim(life[0]) as victim:  # in which nothing of JAX has run
    yield victim


@pytest.mark.parametrize('act', faults.ACTS)
def test_whatever_fails_nothing_is_lost(life, act):
  _, home, _, victim = life
  found = list(faults.fail_all(victim, home, 150, (act,)))
  assert sum(f['fired'] for f in found) >= 3
  assert [f for f in found if f['wrong']] == []


def test_a_kill_at_a_named_step_changes_nothing(life, mortal):
  folder, home, wants, _ = life
  lives = faults.Mortal(mortal, folder)
  assert faults.kill_at_steps(lives, home, wants, every=41) >= 4
  assert not any(lives.out.values()), lives.out


def test_a_kill_at_a_random_moment_changes_nothing(life, mortal):
  folder, *_ = life
  lives = faults.Mortal(mortal, folder)
  assert faults.kill_at_random(lives, folder, 20) == 20
  assert not any(lives.out[k] for k in ('lost', 'twice', 'half', 'differs', 'failed')), lives.out


def test_a_power_cut_takes_nothing_that_was_acknowledged(life, mortal):
  folder, home, *_ = life
  lives, log = faults.Mortal(mortal, folder), folder / 'power.log'
  copy = folder / 'power'
  faults.shutil.copytree(home, copy)
  assert lives.live(copy, ['night 2', 'day 3', 'rollback', 'forget'], record=str(log))
  ops = faulty.read_log(log)
  notes = [json.loads(op.data) for op in ops if op.kind == faulty.NOTE]
  assert [n['done'] for n in notes if 'done' in n] == ['night 2', 'day 3', 'rollback', 'forget']
  found = list(faults.cuts(home / 'life', ops, folder, 60))
  assert len(found) > 20 and [f for f in found if f['wrong']] == []
  # A program that syncs nothing would not come through.
  unsafe = [op for op in ops if op.kind != faulty.SYNC]
  assert any(f['wrong'] for f in faults.cuts(home / 'life', unsafe, folder, 150))
