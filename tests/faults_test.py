"""Disk, memory and power fail, processes are killed: nothing is lost, and it is said in one line.

The short form of benchmarks/faults.py, and what its layer of faults is itself worth.
"""

from __future__ import annotations

import errno
import io
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import zlib
from types import SimpleNamespace

import jax
import ml_dtypes
import numpy as np
import pytest
from usearch.index import Index

from benchmarks import faults, faulty, killed_nights, toys
from dreaming import mishaps, terminal
from dreaming.brain import gguf, programs, prompts
from dreaming.identity import bluegreen, generations
from dreaming.memory import graph
from dreaming.sleep import artifacts, metrics, replay, school

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


# ---- The calls that it lies under ----

CALLS = {  # name -> what is done in a folder with the files `old` and `from`
  'open, O_TRUNC': "os.close(os.open('old', os.O_WRONLY | os.O_TRUNC))",
  'open, O_TMPFILE': "os.close(os.open('.', os.O_WRONLY | os.O_TMPFILE))",
  'creat64': "done(c.creat64(b'new', 0o600))",
  '__openat_2': "done(c.__openat_2(-100, b'old', os.O_WRONLY | os.O_TRUNC))",
  'fopen64': "f = at(c.fopen64(b'new', b'w')); c.fputs(b'some', f); done(c.fclose(f))",
  'fflush': "f = at(c.fopen(b'old', b'a')); c.fputs(b'!', f); done(c.fflush(f)); c.fclose(f)",
  'fwrite': "f = at(c.fopen(b'old', b'r+')); at(c.fwrite(b'HE', 2, 1, f)); c.fclose(f)",
  'mkstemp': "done(c.mkstemp(ctypes.create_string_buffer(b'newXXXXXX')))",
  'mkostemps64': "done(c.mkostemps64(ctypes.create_string_buffer(b'newXXXXXX.x'), 2, 0))",
  'renameat2': "done(c.renameat2(-100, b'old', -100, b'new', 1))",
  'rename, out': "os.rename('old', out)",
  'rename, in': "open(out, 'w').close(); os.rename(out, 'new')",
  'rename, both': "done(c.renameat2(-100, b'old', -100, b'from', 2))",
  'link': "os.link('old', 'new'); os.write(os.open('new', os.O_WRONLY | os.O_APPEND), b'!')",
  'linkat': "done(c.linkat(-100, b'old', -100, b'new', 0))",
  'link, in': "open(out, 'w').close(); os.link(out, 'new')",
  'symlink': "os.symlink('old', 'new')",
  'mkdirat': "done(c.mkdirat(-100, b'new', 0o700))",
  'truncate': "os.truncate('old', 2)",
  'truncate64': "done(c.truncate64(b'old', 2))",
  'ftruncate64': "f = done(c.open(b'old', 2)); done(c.ftruncate64(f, 9)); os.close(f)",
  'posix_fallocate': "f = os.open('old', 2); os.posix_fallocate(f, 0, 99); os.close(f)",
  'fallocate64': "f = os.open('old', 2); done(c.fallocate64(f, 1, 0, 9999)); os.close(f)",
  'fallocate, hole': "f = os.open('old', 2); done(c.fallocate(f, 3, 0, 4)); os.close(f)",
  'writev': "f = os.open('old', 2); os.writev(f, [b'HEL']); os.close(f)",
  'pwritev': "f = os.open('old', 2); os.pwritev(f, [b'EL'], 1); os.close(f)",
  'pwritev2': "f = os.open('old', 2); os.pwritev(f, [b'EL'], 1, os.RWF_SYNC); os.close(f)",
  'sendfile': 'f, t = opened(); os.sendfile(t, f, None, 4), os.sendfile(t, f, 2, 4)',
  'copy_file_range': 'f, t = opened(); os.copy_file_range(f, t, 3, 1, 2)',
  'mmap, shared': "f = os.open('old', 2); m = mmap.mmap(f, 5); m[:2] = b'HE'; m.close()",
}
READS = {
  'readv': "f = os.open('old', 0); os.readv(f, [bytearray(3)])",
  'preadv': "f = os.open('old', 0); os.preadv(f, [bytearray(3)], 1)",
  'preadv2': "f = os.open('old', 0); os.preadv(f, [bytearray(3)], 1, os.RWF_HIPRI)",
  'fread': "f = at(c.fopen(b'old', b'r')); at(c.fread(ctypes.create_string_buffer(4), 4, 1, f))",
  'mmap': "f = os.open('old', 0); mmap.mmap(f, 5, access=mmap.ACCESS_READ).close()",
  'sendfile': 'f, t = opened(); os.sendfile(t, f, None, 4)',
}
LOUD = {'rename, in', 'rename, both', 'link, in', 'symlink', 'fallocate, hole', 'mmap, shared'}
UNDER = """
import ctypes, errno, json, mmap, os, pathlib, sys
sys.path.insert(0, {root!r})
from benchmarks import faulty
c = ctypes.CDLL(None, use_errno=True)
c.fopen.restype = c.fopen64.restype = c.fwrite.restype = c.fread.restype = ctypes.c_void_p
c.fclose.argtypes = c.fflush.argtypes = [ctypes.c_void_p]
c.fputs.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
c.fwrite.argtypes = c.fread.argtypes = [ctypes.c_char_p, *[ctypes.c_size_t] * 2, ctypes.c_void_p]

def done(result):
  if result < 0:
    raise OSError(ctypes.get_errno(), '')
  return result

def at(pointer):
  return done(pointer or -1)

def opened():
  return os.open('from', os.O_RDONLY), os.open('old', os.O_RDWR)

def run(number, what, kinds, n):
  home = pathlib.Path({home!r}) / f'{{number}}-{{n}}' / 'home'
  for folder in (home, home.with_name('before')):
    folder.mkdir(parents=True)
    (folder / 'old').write_bytes(b'hello'), (folder / 'from').write_bytes(b'a world')
  os.chdir(home)
  disk = faulty.Disk(home, kinds)
  if n:
    disk.fail(n, errno.EIO)
  else:
    disk.record(home.with_name('log'))
  try:
    exec(what, globals() | {{'out': str(home.with_name('out'))}})
    error = 0
  except OSError as e:
    error = e.errno
  finally:
    disk.record(None)
    disk.end()
  return [error, disk.seen]

for number, (what, kinds) in enumerate({calls!r}):
  found = [run(number, what, kinds, 0)]
  print(json.dumps(found + [run(number, what, kinds, n) for n in range(1, found[0][1] + 1)]))
"""


@pytest.fixture(scope='module')
def called(tmp_path_factory):
  """(folder, of each call [errno, operations] of what ran undisturbed, and with each of them)."""
  home = tmp_path_factory.mktemp('calls').resolve()
  calls = [(w, faulty.CHANGES) for w in CALLS.values()] + [(w, faulty.READ) for w in READS.values()]
  code = UNDER.format(root=str(ROOT), home=str(home), calls=calls)
  env = faulty.environment(home / 'layer')
  out = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
  assert not out.returncode, out.stderr
  return home, [json.loads(line) for line in out.stdout.splitlines()]


@needs_layer
@pytest.mark.parametrize('name', [*CALLS, *(f'{n}, read' for n in READS)])
def test_a_call_is_counted_and_fails_and_is_done_again_from_the_record(called, name):
  home, found = called
  number = [*CALLS, *(f'{n}, read' for n in READS)].index(name)
  (error, seen), *failed = found[number]
  assert not error and seen >= 1
  assert [e for e, _ in failed] == [errno.EIO] * seen
  if number < len(CALLS):
    folder = home / f'{number}-0'
    platter = faulty.Platter(folder / 'before')

    def again():
      for op in faulty.read_log(folder / 'log'):
        platter.do(op)

    if name in LOUD:
      with pytest.raises(ValueError, match='cannot do .* again'):
        again()
    else:
      again()
      assert platter.differs(folder / 'home') == []


def test_a_record_that_lacks_something_is_no_record(tmp_path):
  before, after = tmp_path / 'before', tmp_path / 'after'
  before.mkdir(), after.mkdir()
  (after / 'a').write_bytes(b'new')
  for ops, missing in ((MADE, []), (MADE[:1], ['/a']), ([], ['/a'])):
    platter = faulty.Platter(before)
    for op in ops:
      platter.do(op)
    assert platter.differs(after) == missing
  with pytest.raises(ValueError, match='lacks what made /a'):
    faulty.Platter(before).do(MADE[1])
  with pytest.raises(ValueError, match='lacks what made /t'):
    faulty.Platter(before).do(_op(faulty.MAKE, '/t/a'))


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


def test_a_file_with_two_names_has_what_was_written_by_either(tmp_path):
  two = [*MADE, _op(faulty.LINK, '/a', '/b'), _op(faulty.WRITE, '/b', at=3, data=b'er')]
  assert _cut(tmp_path, [*two, FILE, FOLDER]) == {'a': b'newer', 'b': b'newer'}
  assert _cut(tmp_path / 'after', [*two[:2], FILE, FOLDER, *two[2:]]) == {'a': b'new'}


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


def _full(*_, **__):
  raise OSError(errno.ENOSPC, 'No space left on device')


def test_a_cache_without_room_costs_time_alone(monkeypatch, tmp_path, caplog):
  monkeypatch.setattr(pathlib.Path, 'mkdir', _full)
  artifacts.keep(tmp_path / 'exam' / 'a.sealed', {'right': 1})
  assert 'a.sealed is not kept, and made again next time: [Errno 28]' in caplog.text
  monkeypatch.setattr(school, '_trained', lambda *args: taught.append(args[2]) or {'a': np.ones(2)})
  base, taught = SimpleNamespace(digest='b'), []
  school.teach(base, school.SchoolConfig(), tmp_path)
  monkeypatch.undo()
  assert taught == [None] and list(tmp_path.iterdir()) == []  # nowhere to write its checkpoints


def test_a_reader_of_the_cache_needs_no_room(monkeypatch, tmp_path):
  monkeypatch.setattr(school, '_trained', lambda *_: {'a': np.ones(2)})
  base = SimpleNamespace(digest='b')
  school.teach(base, school.SchoolConfig(), tmp_path)
  monkeypatch.undo()
  monkeypatch.setattr(school.fcntl, 'flock', _full)
  assert school.teach(base, school.SchoolConfig(), tmp_path)['a'].tolist() == [1, 1]


def test_half_a_program_is_not_kept_for_ever(tmp_path):
  """JAX reads it in vain in every process, and writes nothing in its place."""
  folder, whole = tmp_path / 'xla', zlib.compress(b'a program' * 99)
  folder.mkdir()
  kept = {'a-cache': whole, 'b-cache': b'not of zlib', 'checked.txt': b''}
  for name, data in (kept | {'c-cache': whole[:-3], 'd-cache': b'', 'e-cache': b'x\0'}).items():
    (folder / name).write_bytes(data)
  before = jax.config.jax_compilation_cache_dir
  try:
    programs.keep(tmp_path)
  finally:
    jax.config.update('jax_compilation_cache_dir', before)
  assert {p.name for p in folder.iterdir()} == {*kept, 'checked'}
  os.utime(folder / 'a-cache', (1, 1))
  (folder / 'a-cache').write_bytes(b'')
  os.utime(folder / 'a-cache', (1, 1))  # seen before: it is not read again
  programs._sweep(folder)
  assert (folder / 'a-cache').exists()


def test_weights_that_the_cache_has_no_room_for_say_so(monkeypatch, tmp_path):
  (tmp_path / 'x.gguf').write_bytes(b'GGUF')
  monkeypatch.setattr(gguf, 'convert', _full)
  with pytest.raises(OSError, match='could not be put into .*weights: No space.*make room there'):
    gguf.load(str(tmp_path / 'x.gguf'), tmp_path / 'cache')


@pytest.mark.parametrize('error', [OSError(errno.ENOSPC, 'full'), RuntimeError('of usearch')])
def test_a_large_index_that_cannot_be_kept_is_searched_all_the_same(monkeypatch, tmp_path, error):
  vectors, path = np.eye(4, dtype=np.float32), tmp_path / 'i' / 'x.usearch'

  def fails(index, name):
    pathlib.Path(name).write_bytes(b'half')
    raise error

  with monkeypatch.context() as m:
    m.setattr(Index, 'save', fails)
    made = graph.Graph(vectors, path)
  assert made.near(vectors[2], 1).tolist() == [2] and 'is not kept' in made.remark
  assert list(path.parent.iterdir()) == []
  graph.Graph(vectors, path)
  monkeypatch.setattr(Index, 'restore', lambda *_: (_ for _ in ()).throw(RuntimeError('unread')))
  assert graph.Graph(vectors, path).near(vectors[2], 1).tolist() == [2]


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


def test_what_a_night_left_is_compared_to_the_last_bit(life, tmp_path):
  """By killed_nights.py, which does to a whole agent what is done to toys here."""
  shutil.copytree(life[1] / 'life', tmp_path / 'life')
  found = killed_nights.left(tmp_path / 'life')
  assert (found.active, found.states, found.twice) == (1, ('promoted',), [])
  assert len(found.said) == 2 * toys.TOLD and set(found.night.values()) == {1, None}
  generation, adapter, masks = generations.load(tmp_path / 'life' / 'generations', 1)
  fields = vars(generation.manifest) | {'files': {}}
  shutil.rmtree(generation.path)
  jax.tree.leaves(adapter)[0].flat[0] += 1
  generations.save(
    generation.path.parent, 1, adapter=adapter, masks=masks,
    manifest_fields={k: v for k, v in fields.items() if k not in ('number', 'files')},
  )  # fmt: skip
  assert killed_nights.left(tmp_path / 'life').generations != found.generations


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
  shutil.copytree(home, copy)
  assert lives.live(copy, ['night 2', 'day 3', 'rollback', 'forget'], record=str(log))
  ops = faulty.read_log(log)
  notes = [json.loads(op.data) for op in ops if op.kind == faulty.NOTE]
  assert [n['done'] for n in notes if 'done' in n] == ['night 2', 'day 3', 'rollback', 'forget']
  assert faults.unseen(home, ops, folder / 'power.log.left') == []
  found = list(faults.cuts(home, ops, folder, 60))
  assert len(found) > 20 and [f for f in found if f['wrong']] == []
  # A program that syncs nothing would not come through.
  unsafe = [op for op in ops if op.kind != faulty.SYNC]
  assert any(f['wrong'] for f in faults.cuts(home, unsafe, folder, 150))
