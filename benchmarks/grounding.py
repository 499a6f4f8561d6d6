"""Grounding: which dreams of labelled pairs the filter keeps, and how many of those it should not.

  python benchmarks/grounding.py [--quick] [--json=FILE] [--pairs=FILE]
  python benchmarks/grounding.py --fit    # makes grounding.WEIGHTS anew, of the development half

grounding.json has 200 pairs: what somebody says, and a statement or a question with its answer that
follows from it or does not (half of each). What does not is hard: another name, number or person, a
denial, a role, or something true-sounding that nobody said. Weights and threshold are of the
development half (100 pairs, 25 messages) alone; the bars are on the other half. With --fit what is
said of the development half is of weights fitted without the same message. Judged as in nights, by
who was at school; what the base says without school is shown beside it.
Precision is the share of what is kept that is grounded, recall the share of what is grounded that
is kept; intervals are Wilson's, of 95%. Expected: about a minute of
CPU time, programs compiled before.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common
from benchmarks.reading import logistic

HERE = pathlib.Path(__file__).parent
PRECISION_BAR, RECALL_BAR = 0.90, 0.50
AIM = 0.70  # recall on the development half at which the threshold is as strict as can be


def claims(pairs: Sequence[dict[str, Any]]) -> list[Any]:
  from dreaming.sleep.grounding import Claim
  from dreaming.types import QA

  return [
    Claim(
      user=p['user'],
      sources=(p['source'],),
      text=p.get('text', ''),
      pair=QA(question=p['question'], answer=p['answer']) if 'question' in p else None,
    )
    for p in pairs
  ]


def judge(
  args: argparse.Namespace, pairs: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
  """grounding.features of all pairs, by the reader of nights, and by their base."""
  from configs import gemma3_270m
  from dreaming import configuration
  from dreaming.brain import transformer, weights
  from dreaming.brain.decode import Decoder
  from dreaming.sleep import grounding, reader
  from dreaming.types import Mind

  cache = common.cache_of(args)
  common.keep_programs(cache)
  base = weights.load(weights.ModelConfig(), cache)
  config = configuration.night(gemma3_270m.get_config())
  mind = Mind(params=transformer.cast(base.params, config.dream.dtype), generation=0)
  decoder = Decoder(base.arch, base.tokenizer)
  make = reader.of_night(base, decoder, config, cache, 0)
  asked = decoder, mind, claims(pairs)
  return grounding.features(*asked, make(mind)), grounding.features(*asked)


def figures(kept: np.ndarray, right: np.ndarray) -> dict[str, Any]:
  """Of Bool['N'] each: counts, shares and intervals."""
  hits = int((kept & right).sum())
  n, told = int(kept.sum()), int(right.sum())
  return {
    'kept': n, 'grounded': told, 'both': hits,
    'precision': hits / n if n else 0.0, 'precision_interval': common.interval(hits, n),
    'recall': hits / told if told else 0.0, 'recall_interval': common.interval(hits, told),
  }  # fmt: skip


def threshold(scores: np.ndarray, right: np.ndarray) -> float:
  """Of those that keep AIM of what is grounded, the one of the best precision."""

  def precision(t: float) -> float:
    return float((right & (scores >= t)).sum() / (scores >= t).sum())

  enough = [t for t in scores.tolist() if (right & (scores >= t)).sum() >= AIM * right.sum()]
  return max(enough, key=lambda t: (precision(t), t))


def fit(
  features: Sequence[dict[str, float]], pairs: Sequence[dict[str, Any]], names: Sequence[str]
) -> dict[str, Any]:
  """Weights and threshold of the development half, and its figures, fitted without the message."""
  x = np.asarray([[f[name] for name in names] for f in features])
  y = np.asarray([p['grounded'] for p in pairs])
  passing = np.asarray([not f['missing'] and not f['denial'] for f in features])
  sources = np.asarray([p['source'] for p in pairs])

  def weights(train: np.ndarray) -> np.ndarray:
    train = train & passing  # the rules have spoken of the others
    return logistic(x[train], y[train].astype(float), np.ones(int(train.sum())))

  left_out = np.full(len(y), -99.0)
  for source in dict.fromkeys(sources.tolist()):
    own = (sources == source) & passing
    left_out[own] = x[own] @ weights(sources != source)
  at = threshold(left_out, y)
  found = np.round(weights(np.ones(len(y), bool)), 2).tolist()
  named = dict(zip(names, found, strict=True))
  return {'weights': named, 'threshold': round(at, 2), **figures(left_out >= at, y)}


def show(name: str, found: dict[str, Any]) -> None:
  low, high = found['precision_interval']
  least, most = found['recall_interval']
  print(
    f'{name}: precision {found["precision"]:.2f} ({low:.2f} to {high:.2f}), recall '
    f'{found["recall"]:.2f} ({least:.2f} to {most:.2f}); kept {found["kept"]}, '
    f'{found["both"]} of {found["grounded"]} grounded'
  )


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--pairs', type=pathlib.Path, default=HERE / 'grounding.json')
  p.add_argument('--fit', action='store_true', help='fit grounding.WEIGHTS on the dev half')
  args = p.parse_args()
  from dreaming.sleep import grounding

  pairs = json.loads(args.pairs.read_text(encoding='utf-8'))
  pairs = [x for x in pairs if x.get('split', 'test') == ('dev' if args.fit else 'test')]
  pairs = pairs[:8] if args.quick else pairs
  begin = time.perf_counter()
  features, of_base = judge(args, pairs)
  if args.fit:
    for name, rows, weights in (
      ('reader', features, grounding.READER_WEIGHTS), ('base', of_base, grounding.WEIGHTS)
    ):  # fmt: skip
      print(name, json.dumps(fit(rows, pairs, list(weights)), indent=1))
    if args.json:
      known = [p | {'features': f} for p, f in zip(pairs, features, strict=True)]
      args.json.write_text(json.dumps(known))
    return 0
  limit = grounding.READER_THRESHOLD
  result = common.Result('grounding', args, pairs=args.pairs.name, threshold=limit)
  result.add('seconds', time.perf_counter() - begin, 's')
  right = np.asarray([p['grounded'] for p in pairs])
  kept = np.asarray([grounding.odds(f) >= limit for f in features])
  found = figures(kept, right)
  show('the filter', found)
  alone = np.asarray([grounding.odds(f) >= grounding.THRESHOLD for f in of_base])
  gain = np.asarray([f['gain'] for f in of_base]) > 0.5
  kinds = {'without school': alone, 'gain of the source alone': gain}
  beside = {name: figures(other, right) for name, other in kinds.items()}
  for name, other in beside.items():
    show(name, other)
  wrong = collections.Counter(
    p['why'] for p, k in zip(pairs, kept, strict=True) if not p['grounded']
  )
  passed = [p for p, k in zip(pairs, kept, strict=True) if k and not p['grounded']]
  slips = collections.Counter(p['why'] for p in passed)
  print('kept wrongly, by kind:', ', '.join(f'{w} {slips[w]} of {n}' for w, n in wrong.items()))
  for x in passed:
    print('  ', x['source'], '=>', x.get('text') or f'{x["question"]} {x["answer"]}')
  result.keep([found | {'slips': dict(slips), 'beside': beside}])
  result.bar('precision', found['precision'], '>=', PRECISION_BAR)
  result.bar('recall', found['recall'], '>=', RECALL_BAR)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
