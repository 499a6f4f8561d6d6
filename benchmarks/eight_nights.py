"""Eight days and their nights: what is learned of each, and what is still there after the last.

  python benchmarks/eight_nights.py [--seeds=3] [--arms=continual,fold,passages] [--workdir=DIR]
      [--day=FILE ...] [--json=FILE] [--quick]
  python benchmarks/eight_nights.py --lived=DIR [--lived=DIR ...]   # lives that are over

Each arm and seed is one life (lived.py has the arms), kept in --workdir: a call that was killed
goes on where it was. What is judged is the first arm; the others stand beside it. Recall is of the
weights alone, diary closed. `learned` is the mean over days of the morning after, `retention` what
is left of that after the last night, over all days but the last.

Expected: an hour a life of eight days on two cores with AVX-512 BF16. With --quick two days of the
tiny config, which learns nothing.
"""

from __future__ import annotations

import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common, lived, one_night

EIGHT = tuple(common.ROOT / 'days' / 'eight' / f'day{i}.json' for i in range(1, 9))
LEARNED, RETENTION, GENERAL, NLL = 0.8, 0.8, 0.02, 0.03
NIGHT, LIFE = 300.0, 2700.0  # s
_NAME = 'eight_nights'


def lives(args, arm: str) -> list[lived.Life]:
  if args.lived:
    return lived.given(args.lived, args.config)
  days = tuple(d.resolve() for d in args.day or EIGHT)[: 2 if args.quick else None]
  return [
    lived.Life(
      workdir=args.workdir / f'{arm}-{seed}', days=days, config=args.config, arm=arm, seed=seed,
      cache=args.cache,
    )
    for seed in range(1 if args.quick else args.seeds)
  ]  # fmt: skip


def parse(doc: str | None, parser=common.parser):
  p = parser(doc)
  p.add_argument('--day', type=pathlib.Path, action='append', help='a file (default: days/eight)')
  p.add_argument('--config', type=pathlib.Path, default=common.ROOT / 'configs' / 'gemma3_270m.py')
  p.add_argument('--seeds', type=int, default=3, help='how many: 0, 1, ...')
  p.add_argument('--workdir', type=pathlib.Path, default=common.ROOT / 'build' / 'lives')
  p.add_argument('--lived', type=pathlib.Path, action='append', help='a life that is over')
  return p


def quick(args, tmp: str) -> None:
  """What --quick lives: the tiny config, somewhere else."""
  if args.quick and not args.lived:
    args.config, args.workdir = common.ROOT / 'configs' / 'tiny.py', pathlib.Path(tmp)


def main() -> int:
  p = parse(__doc__)
  p.add_argument('--arms', default='continual', help='with commas between; the first is judged')
  args = p.parse_args()
  arms = args.arms.split(',')
  if unknown := set(arms) - set(lived.ARMS):
    p.error(f'--arms: {unknown.pop()!r} is none of {", ".join(lived.ARMS)}')
  with tempfile.TemporaryDirectory() as tmp:
    quick(args, tmp)
    return judge(args, arms[:1] if args.lived else arms)


def judge(args, arms: list[str]) -> int:
  from dreaming import lifelong

  result = common.Result(_NAME, args, config=args.config.stem, arms=arms)
  runs, lived_by = [], {}
  for arm in arms:
    rows = [lived.ensure(life) for life in lives(args, arm)]
    found = [lifelong.summarize(own) for own in rows]
    runs += [{'arm': arm, 'summary': s, 'rows': own} for s, own in zip(found, rows, strict=True)]
    result.keep(runs)
    for name in found[0]:
      values = [s[name] for s in found if s[name] is not None]
      if values:
        result.add(f'{arm}_{name}', values)
        one_night.show(f'{arm}_{name}', one_night.over_seeds(values), f'{len(values)} seeds', _NAME)
    for i, own in enumerate(rows):
      for night in own:
        shares = ' '.join('  -' if w is None else f'{100 * w:3.0f}' for w in night['weights'])
        print(f'{arm}, seed {i}, after night {len(night["weights"])}: {shares} %')
    lived_by[arm] = found, rows
  summaries, lives_of = lived_by[arms[0]]

  def mean(name: str) -> float:
    values = [s[name] for s in summaries if s[name] is not None]
    return statistics.fmean(values) if values else float('nan')

  result.bar('learned', mean('learned'), '>=', LEARNED)
  result.bar('retention', mean('retention'), '>=', RETENTION)
  result.bar('general_drop', mean('general_drop'), '<=', GENERAL)
  result.bar('nll_increase', mean('nll_increase'), '<=', NLL)
  slept = [[r['seconds']['sleep'] for r in own] for own in lives_of]
  result.bar('night_s', max(map(statistics.median, slept)), '<=', NIGHT)
  whole = [sum(sum(r['seconds'].values()) for r in own) for own in lives_of]
  result.bar('life_s', max(whole), '<=', LIFE)
  return result.finish()


if __name__ == '__main__':
  try:
    sys.exit(main())
  except (ValueError, OSError, subprocess.CalledProcessError) as e:
    sys.exit(f'{_NAME}: {e}')
