"""Notes: what the base with its diary answers of whole days, before any night.

  python benchmarks/notes.py [--quick] [--json=FILE] [--days=FILE,FILE...] [--word]

Each day is told to a fresh agent, and its questions are asked with recall. The default are six
development days on which nothing of recall, rerank.py and retell.py was tuned; these were tuned on
the other five. --word replies with the word that is read instead of the note's sentence.
A share's interval is Wilson's, of 95%; questions of one fact are alike, so it is rather wider.
Expected: 10 minutes on two cores.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

HERE = pathlib.Path(__file__).parent
DAYS = tuple(
  HERE / 'days' / f'{name}.json'
  for name in ('aoife', 'helga', 'ingrid', 'kwame', 'rafael', 'thandi')
)
RECALL_BAR, INVENTED_BAR = 0.6, 0.1  # our own


def ask(path: pathlib.Path, args: argparse.Namespace) -> dict[str, Any]:
  """One day's shares, its replies, and the seconds of a question."""
  from configs import gemma3_270m
  from dreaming import days
  from dreaming.agent import Agent

  day, config = days.load(path), gemma3_270m.get_config()
  config.cache, config.memory.retell = str(common.cache_of(args)), not args.word
  with tempfile.TemporaryDirectory() as workdir:
    config.workdir = workdir
    with Agent(config) as agent:
      for x in day.interactions:
        agent.observe(x.text, x.response, user=x.user or day.user, now=x.time)
      agent.rate()
      asked = [p.question for p in day.probes] + [q.question for q in day.never_mentioned]
      begin = time.perf_counter()
      said = agent.answer(
        asked, user=day.user, now=day.interactions[-1].time + 1, generation=0, retrieval=True
      )
      spent = (time.perf_counter() - begin) / len(asked)
  accepted = [p.answers for p in day.probes] + [q.wrong for q in day.never_mentioned]
  right = [days.is_right(s, a) for s, a in zip(said, accepted, strict=True)]
  n = len(day.probes)
  return {
    'day': path.stem,
    'right': sum(right[:n]),
    'probes': n,
    'invented': sum(right[n:]),
    'never_mentioned': len(right) - n,
    'seconds_a_question': spent,
    'replies': dict(zip(asked, said, strict=True)),
  }


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--days', help='files of days, with commas between', default='')
  p.add_argument('--word', action='store_true', help='reply with the word that is read')
  args = p.parse_args()
  files = [pathlib.Path(f) for f in args.days.split(',') if f] or list(DAYS)
  files = files[:1] if args.quick else files
  common.keep_programs(common.cache_of(args))
  result = common.Result('notes', args, days=[f.stem for f in files], word=args.word)
  runs: list[dict[str, Any]] = []
  for i, path in enumerate(files, 1):
    runs.append(ask(path, args))
    result.keep(runs)
    r = runs[-1]
    print(
      f'{i} of {len(files)}: {r["day"]} {r["right"]} of {r["probes"]} right, '
      f'{r["invented"]} of {r["never_mentioned"]} invented',
      flush=True,
    )
  result.add('seconds_a_question', [r['seconds_a_question'] for r in runs], 's')
  shares = {}
  for name, of in (('right', 'probes'), ('invented', 'never_mentioned')):
    k, n = sum(r[name] for r in runs), sum(r[of] for r in runs)
    low, high = common.interval(k, n)
    print(f'{name}: {k} of {n}, {low:.2f} to {high:.2f}')
    shares[name] = k / n if n else 0.0
  result.bar('recall', shares['right'], '>=', RECALL_BAR)
  result.bar('invented', shares['invented'], '<=', INVENTED_BAR)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
