"""What a night could teach: of how many questions of a day the answer is among what is read.

  python benchmarks/coverage.py [--day=FILE ...] [--json=FILE] [--quick]

Nothing is trained. The messages of development days are read as a night reads them, and for several
thresholds of belief (dream.min_belief) it is counted: questions whose answer is the value of a
believed reading of a message that tells it; those for which that reading is true, too; and wrong
readings. Which are true stands in readings.json, for nine days: each likely reading was labelled
by hand, without sight of the questions (2: true; 1: near enough that nothing false is taught). A
reading that is not in it counts as wrong: after a change of the bank, label what --list shows.
Expected: about two minutes a day on two cores, once the base was at school.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common
from benchmarks.reading import Reader, logistic, plain

LABELS = pathlib.Path(__file__).parent / 'readings.json'
THRESHOLDS = (-2.5, -2.0, -1.6, -1.2, -0.9, -0.5, 0.0)


def find(name: str) -> pathlib.Path:
  """The file of a labelled day."""
  folder = common.ROOT / 'days'
  return folder / name if (folder / name).exists() else common.ROOT / 'benchmarks' / 'days' / name


def answers(day: Any, believed: Sequence[Any]) -> int:
  """Questions of a day whose answer is the value of one of these readings.

  Args:
    believed: facts whose source is the number of the message.
  """
  said = [(f.source, plain(f.value)) for f in believed]
  return sum(
    any(at in p.about and any(_in(plain(a), value) for a in p.answers) for at, value in said)
    for p in day.probes
  )


def _in(answer: str, value: str) -> bool:
  """Whether one has the words of the other: 'operator' will do for a telegraph operator."""
  a, b = set(answer.split()), set(value.split())
  return a <= b or b <= a


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--day', type=pathlib.Path, action='append', help='a labelled one; all by default')
  p.add_argument('--list', action='store_true', help='show what is believed and not labelled')
  p.add_argument('--weigh', action='store_true', help='print belief.TAUGHT, fitted on these labels')
  args = p.parse_args()
  args.fit = False

  from dreaming import days
  from dreaming.sleep import belief

  labels: dict[str, Mapping[str, list]] = json.loads(LABELS.read_text(encoding='utf-8'))
  files = args.day or [find(f'{name}.json') for name in labels]
  if unknown := [f for f in files if f.stem not in labels]:
    raise ValueError(f'--day={unknown[0]} is not labelled in {LABELS.name}')
  reader = Reader(args)
  result = common.Result('coverage', args, relations=len(reader.matcher.relations))
  counts = {t: [0, 0, 0] for t in THRESHOLDS}
  asked, rows = 0, []
  for path in files[:1] if args.quick else files:
    day = days.load(path)
    asked += len(day.probes)
    pairs = reader.read([{'user': day.user, 'text': i.text} for i in day.interactions])
    true = {
      (int(at), relation, person, plain(value))
      for at, own in labels[path.stem].items()
      for relation, person, value, _ in own
    }
    rows += [(day.user, f, c, _key(f) in true) for f, c in pairs]
    for threshold, count in counts.items():
      believed = [f for f, _ in belief.settle(pairs, threshold)[0]]
      right = [f for f in believed if _key(f) in true]
      count[0] += answers(day, believed)
      count[1] += answers(day, right)
      count[2] += len(believed) - len(right)
      if args.list and threshold == min(THRESHOLDS):
        for f in believed:
          if _key(f) not in true:
            print(
              f'{f.source}\t{f.fill(f.relation.statements[0])}\t{day.interactions[f.source].text}'
            )
  for threshold, (loose, right, wrong) in counts.items():
    told = f'{right} of {asked} by a true reading, {loose} by any; {wrong} wrong'
    print(f'belief {threshold:5.1f}: {told}')
  if args.weigh and len({user for user, *_ in rows}) < 2:
    raise ValueError('--weigh needs the labels of two people at least: name more days')
  if args.weigh:
    weigh(rows)
  at = min(THRESHOLDS, key=lambda t: abs(t - reader.config.min_belief))
  result.add('questions', asked)
  for name, value in zip(('by_any', 'by_true', 'wrong'), counts[at], strict=True):
    result.add(name, value)
  return result.finish()


def weigh(rows: Sequence[tuple[str, Any, Any, bool]]) -> None:
  """Fits belief.TAUGHT, and says what it is worth for people whose labels it has not seen."""
  from dreaming.sleep import belief

  names = list(belief.TAUGHT)
  plain_odds = [belief.of(f, dataclasses.replace(c, seen={})) for _, f, c, _ in rows]
  known = [
    {'bias': 1.0, 'odds': o} | c.seen for o, (_, _, c, _) in zip(plain_odds, rows, strict=True)
  ]
  x = np.asarray([[k[n] for n in names] for k in known])
  y = np.asarray([true for *_, true in rows], float)
  people = np.asarray([user for user, *_ in rows])
  out = np.zeros(len(y))
  for who in dict.fromkeys(people.tolist()):
    own = people == who
    out[own] = x[own] @ logistic(x[~own], y[~own], np.ones((~own).sum()))
  for name, odds in (('the bank alone', np.asarray(plain_odds)), ('with the reader', out)):
    order = np.argsort(-odds, kind='stable')
    wrong = np.cumsum(1 - y[order])
    told = ', '.join(
      f'{int(y[order][: np.searchsorted(wrong, n)].sum())} before the {n}th wrong one'
      for n in (20, 40, 60, 100)
    )
    print(f'{name}: true readings {told}')
  fitted = logistic(x, y, np.ones(len(y)))
  print(dict(zip(names, np.round(fitted, 2).tolist(), strict=True)))


def _key(fact: Any) -> tuple[int, str, str, str]:
  return fact.source, fact.relation.name, fact.person, plain(fact.value)


if __name__ == '__main__':
  try:
    sys.exit(main())
  except (ValueError, OSError) as e:
    sys.exit(f'coverage: {e}')
