"""A whole agent is killed in its nights, and each ends as the night that nobody disturbed.

  python benchmarks/killed_nights.py [--config=configs/tiny.py] [--day=days/priya.json]
                                     [--kills=10] [--seed=0] [--json=FILE] [--quick]

faults.py kills a toy at every step; this is the agent itself, with its own decoder, dreams,
training and exam. It hears a day. From there one night is slept undisturbed, in a process of its
own, and others are killed (SIGKILL) at random moments of that time: the next process goes on, and
gets a moment of its own, until the night is over; then another begins from the day. The gate is
open: a night that it ends would leave nothing to compare.

Each night must leave the generation of the undisturbed one: adapter and masks bit for bit, and all
of the manifest (not Orbax's own files, which have times and random names in them). What was said is
all there, nothing was learned twice, and an agent that is opened where one was killed answers.

With --config=configs/gemma3_270m.py a night takes six minutes, and what kills cost comes on top.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

KILLS, QUICK = 10, 2
RESTARTS, RESTART = 3, 15.0  # how many, and seconds
LONGEST = 7200.0  # seconds of a night: after that it hangs
AFTER = 3600.0  # seconds from the last word of the day to the night
QUESTION = 'Do you still know what we talked about?'

# ---- In processes of their own ----


def config_of(args: argparse.Namespace) -> Any:
  config = common.config_of(args.config)
  config.workdir, config.cache = str(args.life), str(common.cache_of(args))
  common.ungate(config)
  return config


def live(args: argparse.Namespace) -> None:
  """What one process does: a day, a night or what is left of it, or a reply. Lines of JSON."""
  from dreaming import days
  from dreaming.agent import Agent

  def tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)

  day = days.load(args.day)
  night = day.interactions[-1].time + AFTER
  common.keep_programs(common.cache_of(args))
  with Agent(config_of(args)) as agent:
    if args.do == 'day':
      for said in day.interactions:
        who = said.user or day.user
        e = agent.observe(said.text, said.response, user=who, now=said.time)
        tell(id=e.id, said=said.text)
    elif args.do == 'reply':
      tell(reply=agent.reply(QUESTION, user=day.user, now=night + 1))
    elif not agent.diary.nights() or agent.diary.open_night() is not None:  # it is not over yet
      outcome = agent.sleep(
        user=day.user, now=night, progress=lambda *at: tell(at=f'{at[0]} {at[1]}/{at[2]}')
      )
      tell(state=outcome.state, reason=outcome.reason)


def start(args: argparse.Namespace, do: str, life: pathlib.Path, out: Any) -> subprocess.Popen:
  command = [sys.executable, __file__, f'--do={do}', f'--life={life}', f'--day={args.day}']
  command += [f'--config={args.config}', f'--cache={common.cache_of(args)}']
  return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, text=True)


# ---- What became of a life ----


@dataclasses.dataclass(frozen=True)
class Left:
  """All that must not be lost, doubled or another one."""

  said: dict[int, str]
  night: dict[int, int | None]  # experience -> the night that consumed it
  active: int
  states: tuple[str, ...]  # of the nights
  generations: dict[int, str]
  twice: list[int]  # experiences and nights that are in two generations


def left(life: pathlib.Path) -> Left:
  """Raises ValueError or OSError where something cannot be read."""
  from dreaming.identity import generations
  from dreaming.memory.diary import Diary
  from dreaming.sleep import artifacts

  def saved(number: int) -> str:
    found, adapter, masks = generations.load(life / 'generations', number)
    manifest = dataclasses.replace(found.manifest, files={})
    return f'{artifacts.digest(adapter)} {artifacts.digest(masks)} {manifest}'

  with Diary(life / 'diary.sqlite') as diary:
    lived = diary.experiences(archived=None)
    manifests = [g.manifest for g in diary.generations()]
    learned = collections.Counter(i for m in manifests for i in m.sources)
    nights = collections.Counter(m.night for m in manifests)
    return Left(
      said={e.id: e.content for e in lived},
      night={e.id: e.night for e in lived},
      active=diary.active(),
      states=tuple(n.state for n in diary.nights()),
      generations={m.number: saved(m.number) for m in manifests},
      twice=[i for count in (learned, nights) for i, n in count.items() if n > 1],
    )


# ---- Killing ----


class Killer:
  """Nights that are killed, each in a copy of the life that has its day behind it."""

  def __init__(self, args: argparse.Namespace, day: pathlib.Path, said: dict[int, str]):
    self._args, self._day, self._said = args, day, said
    self._rng = random.Random(args.seed)
    self.seconds = LONGEST  # of a night from its beginning to its end
    self.kills = 0
    self.restarts: list[float] = []
    self.out = collections.Counter(lost=0, twice=0, differs=0, failed=0)
    self.runs: list[dict[str, Any]] = []

  def undisturbed(self) -> Left | None:
    self._reply(self._day)  # compiles what replies need: not counted
    life = self._copy('undisturbed')
    self._run(life, None)
    return self._look(life)

  def night(self, number: int, want: Left) -> None:
    """One night, killed until so many kills came, or it is over before the next one."""
    life, whole = self._copy(f'night{number}'), True
    while self.kills < self._args.kills:
      if not self._run(life, self._rng.uniform(0, self.seconds), whole):
        break
      whole = False
    else:
      self._run(life, None, whole)
    if (found := self._look(life)) is None:
      return
    if found != want:
      self.out['differs'] += 1
      print(f'{life.name} differs: {found} instead of {want}', flush=True)
    self._reply(life)  # who has slept answers, too
    shutil.rmtree(life)

  def _copy(self, name: str) -> pathlib.Path:
    life = self._day.with_name(name)
    shutil.copytree(self._day, life)
    return life

  def _run(self, life: pathlib.Path, kill: float | None, whole: bool = True) -> bool:
    """Sleeps until it is killed, or to the end; whether it was killed."""
    log, begin = life.with_suffix('.log'), time.monotonic()
    with log.open('w+') as out:
      process = start(self._args, 'night', life, out)
      try:
        code = process.wait(timeout=LONGEST if kill is None else kill)
      except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    took, last = time.monotonic() - begin, (log.read_text().splitlines() or ['starting'])[-1]
    if code == -signal.SIGKILL and kill is not None:
      self.kills += 1
      seconds = [self._reply(life) for _ in range(-(-RESTARTS // self._args.kills))]
      print(f'kill {self.kills} at {took:.1f} s: {last}; answers in {seconds[0]:.1f} s', flush=True)
      self.restarts += seconds
      self.runs.append({'kill': took, 'at': last, 'restart': seconds})
      return True
    print(f'{life.name}: ended with {code} after {took:.1f} s: {last}', flush=True)
    self.out['failed'] += bool(code)
    if whole and not code:  # the first one compiled what the others read
      self.seconds = min(self.seconds, took)
    return False

  def _reply(self, life: pathlib.Path) -> float:
    """Seconds from a new Python to its first reply, in a copy: no night is to see it."""
    copy = life.with_name('answering')
    shutil.copytree(life, copy)
    begin = time.monotonic()
    process = start(self._args, 'reply', copy, subprocess.PIPE)
    assert process.stdout
    said, took = [], float('nan')
    for line in process.stdout:
      said.append(line)
      if line.startswith('{"reply"'):
        took = time.monotonic() - begin
    if process.wait() or took != took:
      print(f'{life.name} does not answer: {"".join(said)[-1000:]}', flush=True)
      self.out['failed'] += 1
    shutil.rmtree(copy)
    return took

  def _look(self, life: pathlib.Path) -> Left | None:
    try:
      found = left(life)
    except (ValueError, OSError) as e:
      print(f'{life.name} cannot be read: {e}', flush=True)
      self.out['failed'] += 1
      return None
    self.out['lost'] += sum(found.said.get(i) != text for i, text in self._said.items())
    self.out['twice'] += len(found.twice)
    return found


# ---- All ----


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--config', type=pathlib.Path, default=common.ROOT / 'configs' / 'tiny.py')
  p.add_argument('--day', type=pathlib.Path, default=common.ROOT / 'days' / 'priya.json')
  p.add_argument('--kills', type=int, help=f'how many (default {KILLS})')
  p.add_argument('--seed', type=int, default=0, help='of the moments')
  p.add_argument('--do', choices=('day', 'night', 'reply'), help=argparse.SUPPRESS)
  p.add_argument('--life', type=pathlib.Path, help=argparse.SUPPRESS)
  args = p.parse_args()
  if args.do:
    live(args)
    return 0
  if args.quick:
    args.config = common.ROOT / 'configs' / 'tiny.py'
  args.kills = args.kills or (QUICK if args.quick else KILLS)
  if args.kills < 1:
    p.error(f'--kills={args.kills}: take at least 1')
  result = common.Result(
    'killed_nights', args, config=args.config.stem, day=args.day.name, kills=args.kills
  )
  with tempfile.TemporaryDirectory() as tmp:
    return kill_all(args, pathlib.Path(tmp), result)


def kill_all(args: argparse.Namespace, folder: pathlib.Path, result: common.Result) -> int:
  day, log = folder / 'day', folder / 'day.log'
  with log.open('w') as out:
    code = start(args, 'day', day, out).wait()
  lines = log.read_text().splitlines()
  if code:
    raise ValueError(f'the day ended with {code}: {lines[-1] if lines else "nothing was said"}')
  told = [json.loads(x) for x in lines if x.startswith('{"id"')]
  killer = Killer(args, day, {x['id']: x['said'] for x in told})
  want, nights = killer.undisturbed(), 0
  if want is None or killer.out['failed']:
    raise ValueError('the night that nobody disturbed failed: there is nothing to compare with')
  while killer.kills < args.kills and not killer.out['failed']:
    nights += 1
    killer.night(nights, want)
  result.keep(killer.runs)
  result.add('said', len(told))
  result.add('nights', nights)
  result.add('night', killer.seconds, 's')
  result.bar('kills', killer.kills, '>=', args.kills)
  result.bar('promoted', len(want.generations), '>=', 1)
  for name, count in killer.out.items():
    result.bar(name, count, '<=', 0)
  seconds = result.add('restart', killer.restarts or [float('nan')], 's')
  result.bar('restart_s', seconds, '<=', RESTART)
  return result.finish()


if __name__ == '__main__':
  try:
    sys.exit(main())
  except (ValueError, OSError) as e:
    sys.exit(f'killed_nights: {e}')
