"""OpenAI's own JavaScript client against the server: everything that it is used for.

  python benchmarks/js_client.py [--json=FILE]

Needs node and npm (Debian: apt-get install nodejs npm). The client is installed from npm into the
cache, once. Of the tiny architecture, so what is said means nothing. Expected: half a minute.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

CLIENT = 'openai@7.57.0'
SCRIPT = common.ROOT / 'benchmarks' / 'js_client.mjs'


def installed(cache: pathlib.Path) -> pathlib.Path:
  """Where the client can be imported from."""
  home = cache / 'peers' / CLIENT
  if not (home / 'complete').exists():
    if shutil.which('npm') is None:
      raise FileNotFoundError('there is no npm: apt-get install nodejs npm')
    home.mkdir(parents=True, exist_ok=True)
    command = [
      'npm',
      'install',
      '--no-audit',
      '--no-fund',
      '--ignore-scripts',
      '--prefix',
      str(home),
    ]
    subprocess.run([*command, CLIENT], check=True)
    (home / 'complete').touch()
  return home


def main() -> int:
  args = common.parser(__doc__).parse_args()

  from benchmarks.serve_live import Live
  from configs import tiny
  from dreaming.agent import Agent

  cache = common.cache_of(args)
  home = installed(cache)
  result = common.Result('js_client', args, client=CLIENT)
  with tempfile.TemporaryDirectory() as tmp:
    config = tiny.get_config()
    config.workdir, config.cache, config.serve.rate = f'{tmp}/life', str(cache), 0
    config.decode.cache_length, config.serve.kernels = 1024, False
    script = home / SCRIPT.name  # beside node_modules, where node looks
    shutil.copyfile(SCRIPT, script)
    with Agent(config) as agent, Live(agent) as live:
      done = subprocess.run(
        ['node', str(script), f'{live.url}/v1', 'none'], capture_output=True, text=True,
        timeout=600, check=False,
      )  # fmt: skip
  told = [json.loads(line) for line in done.stdout.splitlines()]
  for check in told:
    print(f'{check["name"]:<16} {check["told"]}')
  if done.returncode or not told:
    print(done.stderr[-2000:])
    return 2
  result.add('checks', len(told))
  result.bar('failed', sum(c['told'] != 'ok' for c in told), '<=', 0)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
