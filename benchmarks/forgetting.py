"""Verified forgetting: a person goes out of a life, and the weights are those of one without them.

  python benchmarks/forgetting.py [--config=configs/gemma3_270m.py] [--day=days/priya.json]
      [--person=Leela] [--nights=2] [--seeds=1] [--json=FILE] [--quick]

A day is lived in as many parts as there are nights. Then the person is forgotten with a replay
(relive.py), and three things are looked at: the probes of what was said of them, by the weights
alone, against the base's share and its 95% interval (Wilson); the other probes before and after;
and the adapters of all nights against those of a life that never heard of them, byte by byte. Each
seed takes the nights of the life twice over, and those since the person again: two to three hours
on two busy cores at 20 minutes a night. With --quick the tiny config with random weights lives:
only the bytes mean anything there.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

_NAME = 'forgetting'
BAR_OTHERS = 0.05


def live(config: Any, day: Any, nights: int, without: Sequence[int] = (), parts: Any = None):
  """An agent after a day in parts, a night after each; `parts`: base and decoder to share."""
  from dreaming.agent import Agent

  agent = Agent(config)
  vars(agent).update(parts or {})
  if not 0 < nights <= len(day.interactions):
    raise ValueError(f'--nights={nights}: the day has {len(day.interactions)} interactions')
  for some in np.array_split(range(len(day.interactions)), nights):
    for i in some:
      x = day.interactions[i]
      if i not in without:
        agent.observe(x.text, x.response or 'I see.', user=x.user, now=x.time)
    agent.sleep(user=day.user, now=day.interactions[some[-1]].time + 1)
  return agent


def digests(agent: Any) -> dict[int, str]:
  """night -> digest of its adapter and masks, of who serves and its ancestors."""
  from dreaming.identity import generations
  from dreaming.sleep import artifacts, lineage

  numbers = {g.manifest.night: g.number for g in agent.generations()}
  found = {}
  for n in lineage.nights(agent.diary):
    _, adapter, masks = generations.load(agent.workdir / 'generations', numbers[n])
    found[n] = artifacts.digest([adapter, masks])
  return found


def shares(agent: Any, day: Any, of_them: set[int]) -> dict[str, tuple[int, int]]:
  """(right, of how many) of the probes about the person, of the others, and of the base's."""
  examined = agent.examine(day, names=('base', 'weights'))
  out: dict[str, tuple[int, int]] = {}
  for name, arm in examined.arms.items():
    pairs = list(zip(day.probes, arm.right, strict=True))
    theirs = [right for probe, right in pairs if set(probe.about) & of_them]
    others = [right for probe, right in pairs if not set(probe.about) & of_them]
    out[f'{name} theirs'] = sum(theirs), len(theirs)
    out[f'{name} others'] = sum(others), len(others)
  return out


def run(args: Any, home: pathlib.Path, cache: pathlib.Path, seed: int) -> dict[str, Any]:
  from dreaming import days

  def config(life: str):
    c = common.config_of(pathlib.Path(args.config))
    c.workdir, c.cache, c.seed, c.score.novelty = str(home / life), str(cache), seed, 1.0
    return c

  day = days.load(pathlib.Path(args.day), user='Priya')
  agent = live(config('life'), day, args.nights)
  parts = {'base': agent.base, 'decoder': agent.decoder}
  gone = agent.about(args.person)
  of_them = {i for i, x in enumerate(day.interactions) if x.text in {e.content for e in gone}}
  before = shares(agent, day, of_them)
  receipt = agent.replay(e.id for e in gone)
  after, own = shares(agent, day, of_them), digests(agent)
  agent.close()
  never = live(config('never'), day, args.nights, without=sorted(of_them), parts=parts)
  expected = digests(never)
  never.close()
  return {
    'seed': seed, 'forgotten': len(gone), 'before': before, 'after': after,
    'receipt': receipt.plain(), 'nights': len(expected),
    'same': float(own == expected and len(own) > 0),
  }  # fmt: skip


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--config', default='configs/gemma3_270m.py', help='of the agent')
  p.add_argument('--day', default='days/priya.json')
  p.add_argument('--person', default='Leela')
  p.add_argument('--nights', type=int, default=2)
  p.add_argument('--seeds', type=int, default=1)
  args = p.parse_args()
  if args.quick:
    args.config, args.seeds = 'configs/tiny.py', 1
  cache = common.cache_of(args)
  common.keep_programs(cache)
  result = common.Result(_NAME, args, config=args.config, day=args.day, person=args.person)
  runs = []
  for seed in range(args.seeds):
    with tempfile.TemporaryDirectory() as home:
      runs.append(run(args, pathlib.Path(home), cache, seed))
    result.keep(runs)
  low, high = common.interval(*(sum(r['after']['base theirs'][i] for r in runs) for i in (0, 1)))

  def share(when: str, what: str) -> float:
    right, of = (sum(r[when][what][i] for r in runs) for i in (0, 1))
    return right / of if of else 0.0

  result.add('theirs_before', share('before', 'weights theirs'))
  after = result.add('theirs_after', share('after', 'weights theirs'))
  result.add('theirs_base', share('after', 'base theirs'))
  others = [share(when, 'weights others') for when in ('before', 'after')]
  result.add('others_before', others[0])
  result.add('others_after', others[1])
  result.add('experiences', [float(r['forgotten']) for r in runs])
  result.bar('theirs_within_the_base', after, '<=', high)
  result.bar('others_lost', others[0] - others[1], '<=', BAR_OTHERS)
  result.bar('byte_identical', min(r['same'] for r in runs), '>=', 1.0)
  result.bar('receipt_complete', min(float(r['receipt']['complete']) for r in runs), '>=', 1.0)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
