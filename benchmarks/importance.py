"""Importance: do the default scorer's ratings go with what people think matters?

  python benchmarks/importance.py [--quick] [--json=FILE] [--config=FILE] [--file=FILE]
    [--plot=FILE]

events.json has 150 events, each rated 1 to 10 by three raters (one author's, from three points of
view), and 60 of them with the strength of the feeling. They are told to a fresh agent and scored as
before a night. Judged is Spearman's correlation with the mean rating on the test part, 100 events
on which nothing was tuned; its interval is a bootstrap's over events, of 95%. Beside it: the length
of the text alone, which tells much here, since what is trivial was said in few words; what the
score tells beyond it; and VADER's valence. --file takes events in the same form, with "part" and
"emotion" or without: [{"text": "Hello", "ratings": [1, 2]}, ...]. --config takes another model of
configs/: an -it one is asked in its chat template. Expected: 6 minutes on two cores.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

EVENTS = pathlib.Path(__file__).with_name('events.json')
CONFIG = common.ROOT / 'configs' / 'gemma3_270m.py'
BAR = 0.6
QUICK = 12  # events
RESAMPLES = 2000
LONGEST = 65_536  # bytes, as decode.max_message_bytes


def load(path: pathlib.Path) -> list[dict[str, Any]]:
  """Events of a file. Raises ValueError, naming what is wrong, and OSError."""
  try:
    events = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as e:
    raise ValueError(f'{path} is no JSON: {e}') from None
  if not isinstance(events, list) or len(events) < 3:
    raise ValueError(f'{path}: give a list of three events or more')
  for i, e in enumerate(events):
    good = isinstance(e, dict) and isinstance(e.get('text'), str) and e['text'].strip()
    ratings = e.get('ratings') if good else None
    if not isinstance(ratings, list) or not ratings or not all(map(_rating, ratings)):
      raise ValueError(f'{path}, event {i}: give a text, and ratings from 1 to 10 in a list')
    if len(e['text'].encode(errors='replace')) > LONGEST:
      raise ValueError(f'{path}, event {i}: its text is longer than {LONGEST:,} bytes')
    if e.get('part', 'test') not in ('dev', 'test') or not _rating(e.get('emotion', 1)):
      raise ValueError(f'{path}, event {i}: part is dev or test, emotion 1 to 10')
  return events


def _rating(x: Any) -> bool:
  return isinstance(x, int | float) and not isinstance(x, bool) and 1 <= x <= 10


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
  """Correlation of the ranks, -1 to 1; 0 where one side is constant."""
  from scipy import stats

  a, b = stats.rankdata(x), stats.rankdata(y)
  if not a.std() or not b.std():
    return 0.0
  return float(np.corrcoef(a, b)[0, 1])


def beyond(x: Sequence[float], y: Sequence[float], z: Sequence[float]) -> float:
  """Spearman's partial correlation of x and y, what z tells of both taken out."""
  xy, xz, yz = spearman(x, y), spearman(x, z), spearman(y, z)
  rest = (1 - xz**2) * (1 - yz**2)
  return (xy - xz * yz) / rest**0.5 if rest > 1e-12 else 0.0


def interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
  """Percentiles 2.5 and 97.5 of Spearman's correlation over resampled pairs."""
  rng, x, y = np.random.default_rng(0), np.asarray(x), np.asarray(y)
  rows = rng.integers(0, len(x), (RESAMPLES, len(x)))
  low, high = np.percentile([spearman(x[r], y[r]) for r in rows], [2.5, 97.5])
  return float(low), float(high)


def score(events: Sequence[dict[str, Any]], config: Any, cache: pathlib.Path) -> list[Any]:
  """Scores of each event, as an agent of this ConfigDict has them before its first night."""
  from dreaming.agent import Agent

  config.cache, config.score.emotion = str(cache), 1.0
  with tempfile.TemporaryDirectory() as workdir:
    config.workdir = workdir
    with Agent(config) as agent:
      for i, e in enumerate(events):
        agent.observe(e['text'], now=1000.0 + i)
      agent.rate(lambda n, of: print(f'\rrated {n} of {of}', end='', file=sys.stderr, flush=True))
      print(file=sys.stderr)
      return [e.scores for e in agent.diary.experiences()]


def plot(path: pathlib.Path, cache: pathlib.Path, sides: dict[str, tuple[Any, Any]]) -> None:
  """A scatter of each side's labels against its scores."""
  os.environ.setdefault('MPLCONFIGDIR', str(cache / 'matplotlib'))
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(5 * len(sides), 4.5), layout='constrained')
  FigureCanvasAgg(figure)
  for ax, (title, (labels, scores)) in zip(
    np.atleast_1d(figure.subplots(1, len(sides))), sides.items(), strict=True
  ):
    jitter = np.random.default_rng(0).uniform(-0.1, 0.1, len(labels))
    ax.scatter(np.asarray(labels) + jitter, scores, s=14, alpha=0.6, linewidths=0)
    ax.set(title=title, xlabel='label', ylabel='scored', xlim=(0.5, 10.5), ylim=(0.5, 10.5))
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=120)


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--config', type=pathlib.Path, default=CONFIG, help='of the agent that rates')
  p.add_argument('--file', type=pathlib.Path, default=EVENTS, help='events, in the form of ours')
  p.add_argument('--plot', type=pathlib.Path, help='write a scatter plot there, as PNG')
  args = p.parse_args()
  try:
    events, config = load(args.file), common.config_of(args.config)
  except (ValueError, OSError) as e:
    p.error(str(e))
  events = events[:QUICK] if args.quick else events
  common.keep_programs(common.cache_of(args))
  result = common.Result(
    'importance', args, config=args.config.name, file=args.file.name, events=len(events)
  )
  raters = list(zip(*(e['ratings'] for e in events), strict=False))
  pairs = list(itertools.combinations(raters, 2))
  if pairs:
    result.add('raters_agree', [spearman(a, b) for a, b in pairs])

  from dreaming.memory import emotion

  scored = score(events, config, common.cache_of(args))
  result.keep([
    {'text': e['text'], 'importance': s.importance, 'emotion': s.emotion}
    for e, s in zip(events, scored, strict=True)
  ])  # fmt: skip
  label = [float(np.mean(e['ratings'])) for e in events]
  sides: dict[str, tuple[Any, Any]] = {}
  for part in ('dev', 'test'):
    rows = [i for i, e in enumerate(events) if e.get('part', 'test') == part]
    if len(rows) < 3:
      continue
    y = [label[i] for i in rows]
    texts = [events[i]['text'] for i in rows]
    rated = [scored[i].importance for i in rows]
    result.add(f'{part}.spearman', spearman(rated, y))
    lengths = [len(t) for t in texts]
    result.add(f'{part}.length', spearman(lengths, y))
    result.add(f'{part}.beyond_length', beyond(rated, y, lengths))
    result.add(f'{part}.vader', spearman([emotion.words(t) for t in texts], y))
    sides[f'importance, {part}'] = y, rated
    felt = [i for i in rows if 'emotion' in events[i]]
    if len(felt) >= 3:
      y = [events[i]['emotion'] for i in felt]
      moved = [scored[i].emotion for i in felt]
      result.add(f'{part}.emotion', spearman(moved, y))
      by_words = [emotion.words(events[i]['text']) for i in felt]
      result.add(f'{part}.emotion_vader', spearman(by_words, y))
      sides[f'emotion, {part}'] = y, moved
  if args.plot:
    plot(args.plot, common.cache_of(args), sides)
  judged = sides.get('importance, test', (label, [s.importance for s in scored]))
  low, high = interval(*judged)
  print(f'importance.test of {len(judged[0])} events: 95% interval {low:.2f} to {high:.2f}')
  result.add('interval_low', low)
  result.add('interval_high', high)
  result.bar('spearman', spearman(*judged), '>=', BAR)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
