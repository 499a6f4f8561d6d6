"""Starting: `--help`, and from nothing to the first token of a reply, with warm caches.

  python benchmarks/startup.py [--quick] [--json=FILE]

The first token is that of a new identity's first reply in `--mode=chat`, as it arrives at the other
end of a pipe. Neither may have imported TensorFlow or `gemma`. A first, uncounted start warms the
caches (converted weights, compiled programs, Python's bytecode). Expected: 2 minutes on two cores.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

HELP_BAR, TOKEN_BAR = 1.5, 9.0  # seconds
MESSAGE = 'What is the capital of France?'
HEAVY = ('tensorflow', 'gemma')
_BYTECODE = common.ROOT / 'build' / 'bytecode'
# Runs a module as `python -m` does and tells at the end what it has imported.
WRAPPER = """
import atexit, runpy, sys
heavy = sys.argv.pop(1).split(',')
atexit.register(lambda: print('HEAVY', *(m for m in heavy if m in sys.modules), file=sys.stderr))
runpy.run_module('dreaming.main', run_name='__main__', alter_sys=True)
"""


def imported(stderr: str) -> list[str]:
  """What WRAPPER told; an error's own words where it did not come that far."""
  lines = [line for line in stderr.splitlines() if line.startswith('HEAVY')]
  if not lines:
    raise RuntimeError(stderr.strip().splitlines()[-1] if stderr.strip() else 'ended silently')
  return lines[-1].split()[1:]


def start(*flags: str) -> subprocess.Popen:
  command = [sys.executable, '-c', WRAPPER, ','.join(HEAVY), *flags]
  pipes = {name: subprocess.PIPE for name in ('stdin', 'stdout', 'stderr')}
  # Python's own cache is one of the warm ones, also where the environment keeps it from writing.
  env = {**os.environ, 'PYTHONPATH': str(common.ROOT), 'PYTHONPYCACHEPREFIX': str(_BYTECODE)}
  env.pop('PYTHONDONTWRITEBYTECODE', None)
  return subprocess.Popen(command, cwd=common.ROOT, env=env, **pipes)


def help_once() -> tuple[float, list[str]]:
  begin = time.perf_counter()
  process = start('--help')
  out, err = process.communicate()
  seconds = time.perf_counter() - begin
  assert b'--mode' in out, out[:200]
  return seconds, imported(err.decode())


def first_token_once(cache: pathlib.Path) -> tuple[float, list[str], str]:
  """(seconds to the first byte of a reply, heavy modules, the reply)."""
  with tempfile.TemporaryDirectory() as tmp:
    begin = time.perf_counter()
    process = start(
      '--mode=chat', f'--config.workdir={tmp}/life', f'--config.cache={cache}',
      '--config.decode.temperature=0.0',
    )  # fmt: skip
    assert process.stdin and process.stdout
    process.stdin.write(f'{MESSAGE}\n'.encode())
    process.stdin.flush()
    first = process.stdout.read(1)
    seconds = time.perf_counter() - begin
    out, err = process.communicate(b'/quit\n')
    if process.returncode or not first:
      raise RuntimeError(f'exit code {process.returncode}: {err.decode()[-500:]}')
  return seconds, imported(err.decode()), (first + out).decode()


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--rounds', type=int, default=5)
  args = p.parse_args()
  if args.quick:
    args.rounds = 1
  cache = common.cache_of(args)
  result = common.Result('startup', args, message=MESSAGE)
  first_token_once(cache)  # warms the caches
  heavy: set[str] = set()

  def help_seconds() -> float:
    seconds, modules = help_once()
    heavy.update(modules)
    return seconds

  def token_seconds() -> float:
    seconds, modules, reply = first_token_once(cache)
    heavy.update(modules)
    said.append(reply)
    return seconds

  said: list[str] = []
  seconds = common.in_turn({'help': help_seconds, 'first_token': token_seconds}, args.rounds, 0)
  print(f'reply: {said[-1].strip()!r}; heavy modules: {sorted(heavy) or "none"}')
  result.bar('help_s', result.add('help', seconds['help'], 's'), '<=', HELP_BAR)
  result.bar('first_token_s', result.add('token', seconds['first_token'], 's'), '<=', TOKEN_BAR)
  result.bar('heavy_imports', float(len(heavy)), '<=', 0.0)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
