"""The whole loop: a new identity lives a day, sleeps, and is asked about it, once for each seed.

  python benchmarks/one_night.py [--day=FILE] [--seeds=3] [--json=FILE] [--quick]
  python benchmarks/one_night.py --day=days/tomas.json --recall-bar=0.6   # nothing is tuned on it

Every seed is a process of its own and goes the way of `--mode=live`: it talks, sleeps once, and
asks the day's probes in the four arms (base, retrieval, weights, both). Then it rolls back, and the
base has to answer bit for bit what it answered before the day. A probe that a dream happens to ask
as well is none of the unseen ones that are judged: it is told, and left out of that seed's shares.

With --json every seed is written as it comes, and a further call with the same configuration and
day takes it from there. Expected: up to 10 minutes a seed on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

RECALL_BAR, NEVER_BAR, GENERAL_BAR, NLL_BAR = 0.70, 0.20, 0.05, 0.03
SECONDS_BAR, MEMORY_BAR = 600.0, 5.0  # s, GiB
ARMS = ('base', 'retrieval', 'weights', 'both')
ROUNDS = 10_000  # of the bootstrap
# Two-sided 95% quantiles of Student's t by degrees of freedom; the normal one above.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


# ---- What is run ----


def config_of(args: argparse.Namespace, seed: int, workdir: pathlib.Path) -> Any:
  """The configuration of one seed, as flags of dreaming.main would make it."""
  c = common.config_of(args.config)
  c.seed = seed
  c.workdir = str(workdir)
  c.life.days = (str(args.day),)
  if args.cache:
    c.cache = str(args.cache)
  if args.quick:  # enough to go through everything, promotion and rollback too
    c.select.top_k = min(c.select.top_k, 4)
    c.train.steps = min(c.train.steps, 4)
    c.school.steps = min(c.school.steps, 4)
    c.corpus.replay_questions = min(c.corpus.replay_questions, 8)
    c.corpus.replay_texts = min(c.corpus.replay_texts, 4)
    c.prune.recovery_steps = 1
    common.ungate(c)
  return c


def digest_of(config: Any, day: pathlib.Path) -> str:
  """Of all that decides a seed's result but the code: two seeds have two digests."""
  from dreaming import configuration

  plain = configuration.plain(config)
  plain.pop('workdir'), plain.pop('cache'), plain['life'].pop('days')  # where, not what
  text = json.dumps(plain, sort_keys=True).encode()
  return hashlib.sha256(text + day.read_bytes()).hexdigest()[:16]


def code_digest() -> str:
  """Of the package, its data included."""
  digest = hashlib.sha256()
  for path in sorted((common.ROOT / 'dreaming').rglob('*')):
    if path.suffix in ('.py', '.json', '.jsonl', '.txt'):
      digest.update(path.read_bytes())
  return digest.hexdigest()[:16]


# ---- One seed, in a process of its own ----


def live_once(args: argparse.Namespace, seed: int, workdir: pathlib.Path) -> dict[str, Any]:
  """A day, its night, its examination, and the way back."""
  begin = time.monotonic()
  from rich.console import Console

  from dreaming import days, live
  from dreaming.agent import Agent
  from dreaming.sleep.lineage import EXAM_STYLES
  from dreaming.types import Status

  config, console = config_of(args, seed, workdir), Console(highlight=False)
  day = days.load(args.day, user=config.life.user)
  questions = [p.question for p in day.probes] + [q.question for q in day.never_mentioned]
  with Agent(config) as agent:
    if agent.status().experiences:
      raise ValueError(f'{workdir} has lived already: give another --workdir, or none')
    agent.answer([questions[0]], user=day.user)  # loads what a demo loads
    started = time.monotonic() - begin
    before, asked = _said(agent, questions, day), time.monotonic()  # this is no part of a demo
    live.live(agent, [day], console)
    seconds = time.monotonic() - asked + started
    memory = live._peak_memory()
    result = json.loads((workdir / 'result.json').read_text())
    rolled_back = None  # nothing to roll back where nothing was promoted
    if result['generation']:
      after_night = _said(agent, questions, day)
      agent.rollback()
      rolled_back = _said(agent, questions, day) == before
      agent.rollback(result['generation'])  # and forth again: it is as it was
      rolled_back &= _said(agent, questions, day) == after_night
    kept = [d for d in agent.dreams() if d.status == Status.KEPT]
  trained = [d for d in kept if d.style not in EXAM_STYLES]
  night = result['nights'][-1]
  return {
    'seconds': seconds,
    'peak_memory_gib': memory,
    'night': {k: v for k, v in night.items() if k != 'losses'},
    'losses': night['losses'],
    'rolled_back': rolled_back,
    'probes_in_dreams': leaked(questions, trained),
    'trained_questions': sum(len(d.pairs) for d in trained),
    'spent': result['seconds'],
    'day': result['days'][0],
    'generation': result['generation'],
  }


def _said(agent: Any, questions: Sequence[str], day: Any) -> tuple[list[str], str]:
  """(what the serving weights reply, a digest of their log-likelihoods of a text)."""
  replies = agent.answer(questions, user=day.user, now=day.interactions[-1].time + 1)
  text = ' '.join(x.text for x in day.interactions[:4])
  rows = agent.decoder.logprobs(agent.identity.blue, [''], [text])
  return replies, hashlib.sha256(rows[0].tobytes()).hexdigest()


def folded(text: str) -> str:
  """Case folded, punctuation stripped."""
  return ' '.join(re.sub(r'[^\w\s]', '', text.casefold()).split())


def leaked(questions: Iterable[str], trained: Iterable[Any]) -> list[str]:
  """The day's questions that dreams ask, too, or have in their text."""
  asked = {folded(p.question) for d in trained for p in d.pairs}
  texts = [f' {folded(d.text)} ' for d in trained if d.text]
  return [q for q in questions if folded(q) in asked or any(f' {folded(q)} ' in t for t in texts)]


# ---- Intervals ----


def over_seeds(values: Sequence[float]) -> tuple[float, float] | None:
  """95% interval of the mean by Student's t; None of a single one."""
  n = len(values)
  if n < 2:
    return None
  t = T95[n - 2] if n - 2 < len(T95) else 1.96
  half = t * statistics.stdev(values) / math.sqrt(n)
  return statistics.fmean(values) - half, statistics.fmean(values) + half


def over_groups(groups: Sequence[Sequence[float]]) -> tuple[float, float] | None:
  """95% interval of the mean of all values by bootstrap over whole groups; None of fewer than 2."""
  if len(groups) < 2:
    return None
  rng = random.Random(0)
  sums = [(sum(g), len(g)) for g in groups]
  means = []
  for _ in range(ROUNDS):
    drawn = rng.choices(sums, k=len(sums))
    means.append(sum(s for s, _ in drawn) / sum(n for _, n in drawn))
  means.sort()
  return means[int(0.025 * ROUNDS)], means[int(0.975 * ROUNDS) - 1]


def show(name: str, interval: tuple[float, float] | None, over: str, of: str = 'one_night') -> None:
  if interval:
    print(f'{of}.{name} 95% {interval[0]:.3f} to {interval[1]:.3f} over {over}', flush=True)


# ---- Judging ----


def change(run: Mapping[str, Any], name: str) -> tuple[float, float]:
  """(Green's, the base's) measure of the night's own exam; nan where it was not taken."""
  measures = run['night']['measures'].get(name), run['night']['base'].get(name)
  green, base = (math.nan if v is None else v for v in measures)
  return green, base


def unseen(run: Mapping[str, Any], day: Any, arm: str) -> dict[int, float]:
  """Index of each probe that no dream of this run asked -> whether it was answered."""
  seen = set(run['probes_in_dreams'])
  return {
    i: float(run['day']['answers'][i][arm]['right'])
    for i, probe in enumerate(day.probes)
    if probe.question not in seen
  }


def invented(run: Mapping[str, Any], day: Any, arm: str) -> float:
  """Share of the never-mentioned questions that no dream asked, answered with a user's fact."""
  seen, answers = set(run['probes_in_dreams']), run['day']['never_mentioned_answers']
  marks = [
    float(answers[i][arm]['invented'])
    for i, q in enumerate(day.never_mentioned)
    if q.question not in seen
  ]
  return statistics.fmean(marks) if marks else 0.0


def share(marks: Mapping[int, float]) -> float:
  return statistics.fmean(marks.values()) if marks else 0.0


def judge(runs: Sequence[Mapping[str, Any]], failed: int, day: Any, args, result) -> int:
  recall = {arm: [share(unseen(r, day, arm)) for r in runs] for arm in ARMS}
  never = {arm: [invented(r, day, arm) for r in runs] for arm in ARMS}
  general = [base - green for green, base in (change(r, 'general') for r in runs)]
  nll = [green / base - 1 for green, base in (change(r, 'nll') for r in runs)]
  more = [
    b - max(r, w)
    for b, r, w in zip(recall['both'], recall['retrieval'], recall['weights'], strict=True)
  ]
  for arm in ARMS:
    result.add(f'recall_{arm}', recall[arm])
    result.add(f'never_mentioned_{arm}', never[arm])
  result.add('general_kept', [r['night']['measures'].get('general_kept') or 0.0 for r in runs])
  result.add('promoted', [float(bool(r['generation'])) for r in runs])
  result.add('trained_questions', [float(r['trained_questions']) for r in runs])
  for what in sorted({w for r in runs for w in r['spent']}):
    result.add(f'{what}_s', [r['spent'].get(what, 0.0) for r in runs], 's')
  for question in sorted({q for r in runs for q in r['probes_in_dreams']}):
    print(f'a dream asks what the day asks, which is not judged: {question!r}')
  result.add('probes_in_dreams', [float(len(r['probes_in_dreams'])) for r in runs])

  # Of each probe the share of seeds that answer it; probes of one fact stand or fall together.
  count = len(day.probes)
  for arm in ('weights', 'both'):
    by_probe = [unseen(r, day, arm) for r in runs]
    facts: dict[tuple[int, ...], list[float]] = {}
    groups = []
    for i in range(count):
      marks = [own[i] for own in by_probe if i in own]
      if marks:
        groups.append([statistics.fmean(marks)])
        facts.setdefault(day.probes[i].about, []).extend(groups[-1])
    show(f'recall_{arm}', over_seeds(recall[arm]), f'{len(runs)} seeds (t)')
    show(f'recall_{arm}', over_groups(groups), f'{len(groups)} probes (bootstrap)')
    show(f'recall_{arm}', over_groups(list(facts.values())), f'{len(facts)} facts (bootstrap)')
  for name, values in (('general_drop', general), ('nll_increase', nll), ('both_vs_best', more)):
    show(name, over_seeds(values), f'{len(runs)} seeds (t)')

  mean = statistics.fmean
  result.bar('recall_weights', mean(recall['weights']), '>=', args.recall_bar)
  result.bar('general_drop', mean(general), '<=', GENERAL_BAR)
  result.bar('nll_increase', mean(nll), '<=', NLL_BAR)
  for arm in ('weights', 'both'):
    result.bar(f'never_mentioned_{arm}', mean(never[arm]), '<=', NEVER_BAR)
  result.bar('both_vs_best', mean(more), '>=', 0.0)
  result.bar('seconds', max(r['seconds'] for r in runs), '<=', SECONDS_BAR)
  result.bar('peak_memory_gib', max(r['peak_memory_gib'] for r in runs), '<=', MEMORY_BAR)
  result.bar('rollback_identical', mean(float(r['rolled_back'] is True) for r in runs), '>=', 1.0)
  result.bar('failed_seeds', float(failed), '<=', 0.0)
  return result.finish()


# ---- All seeds ----


def earlier(path: pathlib.Path | None) -> dict[str, dict[str, Any]]:
  """Digest -> run, of what an earlier call has left."""
  if path is None or not path.exists():
    return {}
  try:
    return {r['digest']: r for r in json.loads(path.read_text()).get('runs', [])}
  except (ValueError, KeyError, AttributeError, TypeError):
    raise ValueError(f'--json={path} is no result of this benchmark: give another file') from None


def prepare(args: argparse.Namespace) -> None:
  """What a set-up does once for a base, so that no seed's time has it: see launch/demo.sh."""
  from dreaming.agent import Agent

  begin = time.monotonic()
  with tempfile.TemporaryDirectory() as tmp, Agent(config_of(args, 0, pathlib.Path(tmp))) as agent:
    agent.prepare()
  print(f'prepared in {time.monotonic() - begin:.0f} s', flush=True)


def run_seed(seed: int, workdir: pathlib.Path) -> dict[str, Any] | None:
  """One seed in its process; None when it failed, its own words are on standard error then."""
  workdir.mkdir(parents=True, exist_ok=True)
  out = workdir / 'run.json'
  command = [sys.executable, __file__, *sys.argv[1:], f'--seed={seed}', f'--life={workdir}']
  code = subprocess.run(command, env=os.environ | {'PYTHONUNBUFFERED': '1'}).returncode
  if code or not out.exists():
    print(f'seed {seed} FAILED with exit code {code}', flush=True)
    return None
  return json.loads(out.read_text())


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--day', type=pathlib.Path, default=common.ROOT / 'days' / 'priya.json')
  p.add_argument('--seeds', type=int, default=3, help='how many: 0, 1, ...')
  p.add_argument('--config', type=pathlib.Path, default=common.ROOT / 'configs' / 'gemma3_270m.py')
  p.add_argument('--workdir', type=pathlib.Path, help='keep the identities there')
  p.add_argument('--recall-bar', type=float, default=RECALL_BAR, help='of closed-book recall')
  p.add_argument('--seed', type=int, help=argparse.SUPPRESS)  # these two: the process of one seed
  p.add_argument('--life', type=pathlib.Path, help=argparse.SUPPRESS)
  args = p.parse_args()
  if args.seed is not None and args.life is not None:
    run = live_once(args, args.seed, args.life)
    (args.life / 'run.json').write_text(json.dumps(run))
    return 0
  if args.seeds < 1:
    p.error(f'--seeds={args.seeds}: take at least 1')
  seeds = 1 if args.quick else args.seeds

  from dreaming import days

  day, code = days.load(args.day), code_digest()
  if not day.probes:
    raise ValueError(f'{args.day} has no probes: there is nothing to measure')
  had, runs, failed = earlier(args.json), [], 0
  prepare(args)
  conditions = {'day': args.day.name, 'config': args.config.stem, 'code': code}
  result = common.Result('one_night', args, **conditions)
  with tempfile.TemporaryDirectory() as tmp:
    for seed in range(seeds):
      workdir = (args.workdir or pathlib.Path(tmp)) / f'seed-{seed}'
      digest = digest_of(config_of(args, seed, workdir), args.day)
      run = had.get(digest)
      if run is not None:
        note = '' if run['code'] == code else ', BY OTHER CODE than is here now'
        print(f'seed {seed} is in {args.json} already{note}', flush=True)
      else:
        load = os.getloadavg()[0]
        run = run_seed(seed, workdir)
        if run is None:
          failed += 1
          continue
        run = {'seed': seed, 'digest': digest, 'code': code, 'load_before': load} | run
      runs.append(run)
      shares = ', '.join(f'{arm} {run["day"]["recall"][arm] or 0:.1%}' for arm in ARMS)
      print(f'seed {seed}: {shares}; {run["seconds"]:.0f} s, {run["peak_memory_gib"]:.2f} GiB')
      others = [r for d, r in had.items() if d not in {x['digest'] for x in runs}]
      result.keep(runs + others)
  if not runs:
    print('no seed came to its end: there is nothing to judge', file=sys.stderr)
    return 1
  return judge(runs, failed, day, args, result)


if __name__ == '__main__':
  try:
    sys.exit(main())
  except (ValueError, OSError) as e:
    sys.exit(f'one_night: {e}')
