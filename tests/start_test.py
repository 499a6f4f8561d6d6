"""A program begins anew where that gives it large pages, once, with all that it was called with."""

import os
import platform
import subprocess
import sys

import pytest

from dreaming import start


@pytest.fixture
def begun(monkeypatch, tmp_path):
  """Calls begin_anew on a machine that offers large pages when asked; what was executed then."""
  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  monkeypatch.setattr(platform, 'libc_ver', lambda: ('glibc', '2.36'))
  monkeypatch.setattr(start, '_OFFERED', tmp_path / 'enabled')
  start._OFFERED.write_text('always [madvise] never\n')
  calls = []
  monkeypatch.setattr(os, 'execv', lambda *call: calls.append(call))

  def begin():
    start.begin_anew()
    return calls

  return begin


def test_begins_anew_as_it_was_called(begun):
  command = [sys.executable, *sys.orig_argv[1:]]
  assert begun() == [(sys.executable, command)]
  assert os.environ['GLIBC_TUNABLES'] == 'glibc.malloc.hugetlb=1'
  assert begun() == [(sys.executable, command)]  # what has begun anew does not begin again


@pytest.mark.parametrize('offered', ['[always] madvise never', 'always madvise [never]', None])
def test_not_where_asking_changes_nothing(begun, offered):
  start._OFFERED.write_text(offered or '')
  if offered is None:
    start._OFFERED.unlink()
  assert begun() == []


@pytest.mark.parametrize(
  'library', [('glibc', '2.34'), ('glibc', '1.9.3'), ('', ''), ('musl', '1')]
)
def test_not_with_a_library_that_does_not_listen(begun, monkeypatch, library):
  monkeypatch.setattr(platform, 'libc_ver', lambda: library)
  assert begun() == []


def test_leaves_what_somebody_has_set(begun, monkeypatch):
  monkeypatch.setenv('GLIBC_TUNABLES', 'glibc.malloc.check=3')
  assert begun() == [] and os.environ['GLIBC_TUNABLES'] == 'glibc.malloc.check=3'


def test_a_program_keeps_arguments_options_and_input(tmp_path):
  """A real process, which the machine may or may not have begin anew."""
  script = tmp_path / 'script.py'
  script.write_text(
    'import os, sys\nfrom dreaming import start\nprint(os.getpid())\nstart.begin_anew()\n'
    'print(sys.argv[1:], sys.flags.utf8_mode, sys.stdin.read())\n'
  )
  environment = {k: v for k, v in os.environ.items() if k != 'GLIBC_TUNABLES'}
  environment['PYTHONPATH'] = os.pathsep.join(p for p in sys.path if p)
  done = subprocess.run(
    [sys.executable, '-X', 'utf8', str(script), 'a b', '--x=1'],
    input='said', capture_output=True, text=True, env=environment, check=True,
  )  # fmt: skip
  *began, last = done.stdout.splitlines()
  assert len(set(began)) == 1 and len(began) in (1, 2)  # one process, whichever it was
  assert last == "['a b', '--x=1'] 1 said"
