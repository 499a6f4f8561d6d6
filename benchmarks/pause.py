"""Sleeping offline: what the server's weights take, awake and asleep, and how soon it speaks again.

  python benchmarks/pause.py [--json=FILE] [--quick]

The night is a process that only waits; what is said meanwhile must be answered on waking. Of the
270M, with --quick of the tiny architecture. Expected: half a minute.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common
from benchmarks.access import rss

NIGHT = (
  'import json, time; input(); time.sleep(5); '
  'print(json.dumps({"event": "ended", "outcome": "empty"}), flush=True)'
)
ASLEEP_MIB, WAKING_S = 1024.0, 12.0  # the second as from start to ready


def main() -> int:
  args = common.parser(__doc__).parse_args()

  from benchmarks.serve_live import Live
  from dreaming.agent import Agent

  name = 'tiny' if args.quick else 'gemma3_270m'
  result = common.Result('pause', args, config=name)
  with tempfile.TemporaryDirectory() as tmp:
    config = common.config_of(common.ROOT / 'configs' / f'{name}.py')
    config.workdir, config.serve.pause, config.serve.rate = f'{tmp}/life', True, 0
    config.decode.cache_length = 1024
    with Agent(config) as agent, Live(agent) as live:

      def say() -> str:
        reply = live.client.chat.completions.create(
          model='agent', messages=[{'role': 'user', 'content': 'How are you today?'}], max_tokens=16
        )
        return reply.dreaming['experience']

      say()
      awake = rss()
      live.server.nights.command = [sys.executable, '-c', NIGHT]
      live.http.post('/api/nights', json={}).raise_for_status()
      asleep, start = rss(), time.monotonic()
      kept = say()
      waking = time.monotonic() - start - 5
      lost = sum(agent.diary.experience(i) is None for i in (kept,))
  result.add('awake', awake, 'MiB')
  result.bar('asleep_mib', asleep, '<=', ASLEEP_MIB)
  result.bar('waking_s', waking, '<=', WAKING_S)
  result.bar('lost', float(lost), '<=', 0.0)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
