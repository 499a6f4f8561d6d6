"""What who was at school asks: which of its questions are right, by its own likelihoods.

  python benchmarks/questions.py [--json=FILE]   # prints reader.WEIGHTS, too

questions.json has 1,107 questions with answers that it made of messages of four development days,
each labelled by somebody who read the message (2: right; 1: clumsy, but nothing false is learned;
0: wrong). The regression that weighs them is fitted here; its precision is of people whose labels
it has not seen. Expected: a minute on two cores once the base was at school.
"""

from __future__ import annotations

import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common
from benchmarks.reading import Reader, logistic

LABELS = pathlib.Path(__file__).parent / 'questions.json'
RIGHT_BAR, KEPT_BAR = 0.75, 0.50  # our own: harmless or right of those kept; right ones kept


def main() -> int:
  p = common.parser(__doc__)
  args = p.parse_args()
  args.fit = False

  from dreaming.sleep import reader
  from dreaming.sleep.relations import Message

  found = json.loads(LABELS.read_text('utf-8'))
  found = found[::8] if args.quick else found
  own = Reader(args).own
  if own is None:
    raise ValueError('school.steps=0: nobody was at school, so nobody asks')
  messages = [Message(text=m['text'], source=i, user=m['user']) for i, m in enumerate(found)]
  rows = [
    (messages[i], q, a, label)
    for i, m in enumerate(found)
    for q, a, label in m['questions']
    if reader.sound(messages[i], q, a)
  ]
  known = own.known([row[:3] for row in rows])
  names = list(reader.WEIGHTS)
  x = np.asarray([[k[n] for n in names] for k in known])
  y = np.asarray([label for *_, label in rows])
  people = np.asarray([m.user for m, *_ in rows])
  odds = np.zeros(len(y))
  for who in dict.fromkeys(people.tolist()):
    mine = people == who
    odds[mine] = x[mine] @ logistic(x[~mine], (y[~mine] > 0) * 1.0, np.ones((~mine).sum()))
  for least in (-0.5, 0.0, 0.5, 1.0):
    kept = y[odds >= least]
    told = ', '.join(
      f'{int((kept == k).sum())} {w}' for k, w in ((2, 'right'), (1, 'harmless'), (0, 'wrong'))
    )
    print(f'odds {least:4.1f}: {told}')
  fitted = logistic(x, (y > 0) * 1.0, np.ones(len(y)))
  print(dict(zip(names, np.round(fitted, 2).tolist(), strict=True)))
  result = common.Result('questions', args, questions=len(y))
  kept = odds >= own.config.min_odds
  result.bar('right_or_harmless', float((y[kept] > 0).mean()), '>=', RIGHT_BAR)
  result.bar('right_ones_kept', float(kept[y == 2].mean()), '>=', KEPT_BAR)
  return result.finish()


if __name__ == '__main__':
  try:
    sys.exit(main())
  except (ValueError, OSError) as e:
    sys.exit(f'questions: {e}')
