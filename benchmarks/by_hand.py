"""The dreamer's gap: a night on its own dreams against the same night on dreams written by hand.

  python benchmarks/by_hand.py [--day=days/priya.json] [--dreams=FILE] [--seeds=3] [--json=FILE]

Somebody who had seen the day's messages, and not its questions, wrote 4 texts and 14 questions
with answers for each fact (benchmarks/dreams/, by the day's name). Both nights have the same steps,
the same replay, and the same questions about what nobody told, less those that the hand-written
dreams answer. What is compared is closed-book recall of the day's questions, retrieval off. A
question of the day that is written by hand word for word is left out of the dreams, and counted.

Every night is a process of its own, as in one_night.py. Expected: two nights a seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common, one_night

BAR_GAP = 0.10
ARMS = ('own', 'hand')
DREAMS = common.ROOT / 'benchmarks' / 'dreams'


def written(path: pathlib.Path, day: Any, night: int, ids: list[int]) -> tuple[list[Any], int]:
  """(dreams, questions left out because the day asks them) of a file.

  Args:
    day: whose questions must not be trained.
    night: its number.
    ids: of the day's messages in the diary, in order.
  """
  from dreaming.types import QA, Dream

  probes = {one_night.folded(p.question) for p in (*day.probes, *day.never_mentioned)}
  out, dropped = [], 0
  for fact in json.loads(path.read_text())['facts']:
    sources = tuple(sorted({ids[i] for i in fact['about']}))
    common_ = {'id': 0, 'night': night, 'sources': sources}
    out += [Dream(style='statement', text=text, **common_) for text in fact['texts']]
    for style, rows in (('question', fact['pairs']), ('exam', fact['exam'])):
      pairs = [QA(question=q, answer=a) for q, a in rows if one_night.folded(q) not in probes]
      dropped += len(rows) - len(pairs)
      out.append(Dream(style=style, text='', pairs=tuple(pairs), **common_))
  return out, dropped


def untold(dreams: list[Any], told: list[Any], embedder: Any) -> list[Any]:
  """The night's questions about what nobody told, less those that `told` answers."""
  from dreaming.sleep import untold as untold_lib

  asked = [p.question for d in told for p in d.pairs]
  return [
    dataclasses.replace(d, pairs=tuple(untold_lib.apart(d.pairs, asked, embedder)))
    for d in dreams
    if d.style in ('unknown', 'exam_unknown')
  ]


def live_once(args: argparse.Namespace, arm: str, seed: int, workdir: pathlib.Path) -> Any:
  """One night, on either dreams."""
  from dreaming import days
  from dreaming.sleep import night

  day, own, left = days.load(args.day), night.dream.dream, []

  @functools.wraps(own)
  def by_hand(decoder, base, experiences, **fields):
    found, dropped = written(
      args.dreams, day, fields['night'], list(range(1, 1 + len(day.interactions)))
    )
    left.append(dropped)
    there = {e.id for e in experiences}  # what small talk tells, nights do not choose
    found = [d for d in found if set(d.sources) & there]
    return found + untold(own(decoder, base, experiences, **fields), found, fields['embedder'])

  if arm == 'hand':
    night.dream.dream = by_hand
  run = one_night.live_once(args, seed, workdir)
  return run | {'arm': arm, 'seed': seed, 'left_out': sum(left)}


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--day', type=pathlib.Path, default=common.ROOT / 'days' / 'priya.json')
  p.add_argument('--dreams', type=pathlib.Path, help="a file (default: the day's, in dreams/)")
  p.add_argument('--seeds', type=int, default=3, help='how many: 0, 1, ...')
  p.add_argument('--config', type=pathlib.Path, default=common.ROOT / 'configs' / 'gemma3_270m.py')
  p.add_argument('--arm', choices=ARMS, help=argparse.SUPPRESS)  # these three: one process
  p.add_argument('--seed', type=int, help=argparse.SUPPRESS)
  p.add_argument('--life', type=pathlib.Path, help=argparse.SUPPRESS)
  args = p.parse_args()
  args.dreams = args.dreams or DREAMS / args.day.name
  if args.arm is not None:
    run = live_once(args, args.arm, args.seed, args.life)
    (args.life / 'run.json').write_text(json.dumps(run))
    return 0
  one_night.prepare(args)
  result = common.Result('by_hand', args, day=args.day.name, config=args.config.stem)
  recall: dict[str, list[float]] = {arm: [] for arm in ARMS}
  runs: list[Any] = []
  with tempfile.TemporaryDirectory() as tmp:
    for seed in range(1 if args.quick else args.seeds):
      for arm in ARMS:
        workdir = pathlib.Path(tmp) / f'{arm}-{seed}'
        workdir.mkdir()
        command = [sys.executable, __file__, *sys.argv[1:]]
        command += [f'--arm={arm}', f'--seed={seed}', f'--life={workdir}']
        subprocess.run(command, env=os.environ | {'PYTHONUNBUFFERED': '1'}, check=True)
        run = json.loads((workdir / 'run.json').read_text())
        share = run['day']['recall']['weights'] or 0.0
        recall[arm].append(share)
        result.add(f'{arm}_seconds', [run['spent'].get('sleep', 0.0)], 's')
        print(f'{arm}, seed {seed}: recall {share:.1%}, {run["left_out"]} questions left out')
        runs.append(run)
        result.keep(runs)
  for arm in ARMS:
    result.add(f'recall_{arm}', recall[arm])
    one_night.show(f'recall_{arm}', one_night.over_seeds(recall[arm]), 'seeds (t)', 'by_hand')
  gaps = [h - o for h, o in zip(recall['hand'], recall['own'], strict=True)]
  one_night.show('gap', one_night.over_seeds(gaps), 'seeds (t)', 'by_hand')
  result.bar('gap', statistics.fmean(gaps), '<=', BAR_GAP)
  return result.finish()


if __name__ == '__main__':
  try:
    sys.exit(main())
  except (ValueError, OSError, subprocess.CalledProcessError) as e:
    sys.exit(f'by_hand: {e}')
