"""A long life leaves nothing behind but its diary: no growth of memory, files or latency.

  python benchmarks/soak.py [--quick] [--json=FILE] [--turns=N] [--nights=N]

The tiny configuration, whole: its own decoder, dreams, training and exam, in one process. The turns
are statements and, one in four, questions about an earlier one; nights come evenly between them.
The life is looked at in thirds: the last one against the first, at most 10% more of each. The first
third has the compilations in it, so its latency is that of its second half. Expected: 2,000 turns
and 6 nights, 15 minutes on two cores; --quick 200 and 2.
"""

from __future__ import annotations

import gc
import os
import pathlib
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common, toys
from configs import tiny
from dreaming.agent import Agent
from dreaming.brain import programs

TURNS, NIGHTS = 2_000, 6
GROWTH = 0.1
ASKS = 4  # one turn in so many
PAGE = os.sysconf('SC_PAGE_SIZE')


def memory() -> float:
  """MiB that this process has now."""
  gc.collect()
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * PAGE / 2**20


def files() -> int:
  return len(os.listdir('/proc/self/fd'))


def said(turn: int) -> str:
  if turn % ASKS == ASKS - 1:
    return toys.fact(0, turn - ASKS + 1)[1]
  return toys.fact(0, turn)[0]


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--turns', type=int)
  p.add_argument('--nights', type=int)
  args = p.parse_args()
  turns = args.turns or (200 if args.quick else TURNS)
  nights = args.nights or (2 if args.quick else NIGHTS)
  result = common.Result('soak', args, turns=turns, nights=nights)
  due = {round((i + 0.5) * turns / nights) for i in range(nights)}
  seconds: list[float] = []
  seen: list[dict[str, float]] = []
  promoted = 0
  with tempfile.TemporaryDirectory() as tmp:
    config = tiny.get_config()
    config.workdir, config.cache = f'{tmp}/life', str(common.cache_of(args))
    programs.keep(common.cache_of(args))
    with Agent(config) as agent:
      for turn in range(turns):
        start = time.perf_counter()
        agent.reply(said(turn), now=1e9 + 60.0 * turn)
        seconds.append(time.perf_counter() - start)
        if turn in due:
          outcome = agent.sleep(now=1e9 + 60.0 * turn + 1)
          promoted += outcome.promoted
          print(f'  turn {turn}: {outcome.state} {outcome.reason}', flush=True)
        if (turn + 1) % max(1, turns // 12) == 0:
          seen.append({'turn': turn + 1, 'memory': memory(), 'files': files()})
          print(f'  {seen[-1]}', flush=True)
  third = turns // 3
  parts = seconds[third // 2 : third], seconds[third : 2 * third], seconds[2 * third :]
  at = [s for s in seen if s['turn'] <= third][-1], seen[-1]
  result.add('reply_ms', [1e3 * statistics.median(x) for x in parts], 'ms')
  result.add('memory_mib', [s['memory'] for s in seen], 'MiB')
  result.add('files', [s['files'] for s in seen])
  result.add('promoted', promoted)
  first, last = (statistics.median(parts[i]) for i in (0, -1))
  result.bar('latency_growth', last / first - 1, '<=', GROWTH)
  result.bar('memory_growth', at[1]['memory'] / at[0]['memory'] - 1, '<=', GROWTH)
  result.bar('files_growth', at[1]['files'] / at[0]['files'] - 1, '<=', GROWTH)
  result.bar('nights_missing', nights - promoted, '<=', 0)
  result.keep([{'seconds': seconds, 'seen': seen}])
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
