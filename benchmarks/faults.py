"""Nothing is lost when disk, memory or power fail, or the process is killed, at any moment.

  python benchmarks/faults.py [--quick] [--json=FILE] [--parts=fails,steps,random,power]
                              [--every=N] [--kills=N]

A toy's life (toys.py: real diary, cache, nights, checkpoints, generations and swaps, on the tiny
configuration) with a layer of faults under it (faulty.py), four ways:

fails   The Nth write, sync, rename, removal or read, model call or allocation fails, for every N
        until none does, over talk, score, a whole night, rollback, forget and trim, and where there
        is no cache yet over preparing, a night (its cache alone fails) and a compilation. While a
        disk stays full the user talks on. Then the same agent and one that is opened anew talk,
        Blue is as it was bit for bit, or wholly the new one, what stopped says so in one line, and
        the act done again ends as if nothing had been.
steps   kill -9 before and after every named step of a night and of a swap, then on.
random  kill -9 at random moments of days and nights: at an operation on the disk, which it leaves
        half done, or after some of the process's own seconds. Each night must end with the bytes of
        one that nobody disturbed.
power   What was written is recorded, and cut off at many points: what no fsync followed is gone,
        there, or there in part and out of order. Then the life is opened.

Expected: more than half an hour on two idle cores. Needs Linux and a C compiler.
"""

from __future__ import annotations

import collections
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common, faulty
from dreaming.identity import generations
from dreaming.memory.diary import Diary

KILLS = 200
A_DAY = 5  # kills of it
PARTS = ('fails', 'steps', 'random', 'power')
DISK, CALLS = ('full', 'broken', 'unread'), ('device', 'memory')
ACTS = ('talk', 'score', 'sleep', 'rollback', 'forget', 'trim', 'prepare', 'cold', 'compile')
RESTART = 15.0  # seconds


class Victim:
  """A process of victim.py: one request, one answer, each a line of JSON."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    command = [sys.executable, str(pathlib.Path(__file__).with_name('victim.py'))]
    self._said = (folder / 'said.txt').open('a')  # what Python and libraries print
    self._process = subprocess.Popen(
      command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
      env=faulty.environment(folder),
    )  # fmt: skip

  def __call__(self, do: str, **fields: Any) -> dict[str, Any]:
    assert self._process.stdin and self._process.stdout
    self._process.stdin.write(json.dumps({'do': do, **fields}) + '\n')
    self._process.stdin.flush()
    if not (line := self._process.stdout.readline()):
      said = (self.folder / 'said.txt').read_text()[-2000:]
      raise RuntimeError(f'the victim ended with {self._process.wait()} at {do} {fields}: {said}')
    return json.loads(line)

  def __enter__(self) -> Victim:
    return self

  def __exit__(self, *_: Any) -> None:
    if self._process.stdin:
      self._process.stdin.close()
    self._process.wait(timeout=60)
    if self._process.stdout:
      self._process.stdout.close()
    self._said.close()


# ---- The Nth fails ----


def fail_all(
  victim: Victim, home: pathlib.Path, every: int, acts=ACTS, hows=(*DISK, *CALLS)
) -> Iterator[dict[str, Any]]:
  """Every fault of an act until none comes: of a night, which does most, one in `every`."""
  for act in acts:
    for how in DISK if act in ('cold', 'compile') else hows:
      n = 1
      while True:
        found = victim('fails', home=str(home), act=act, how=how, n=n)
        yield found | {'act': act, 'how': how, 'n': n}
        if found['wrong']:
          print(f'  {act}, {how}, {n}: {found["wrong"]}', flush=True)
        if not found['fired']:
          break
        n += every if act == 'sleep' else max(1, every // 8)


# ---- Killed ----


class Mortal:
  """Lives that are killed and go on, each in processes of its own."""

  def __init__(self, victim: Victim, folder: pathlib.Path):
    self._victim, self._folder = victim, folder
    self.said: dict[pathlib.Path, dict[str, str]] = collections.defaultdict(dict)
    self.restarts: list[float] = []
    self.out = collections.Counter(lost=0, twice=0, half=0, differs=0, unkilled=0, failed=0)

  def live(
    self, home: pathlib.Path, acts: list[str], kill: dict[str, Any] | None = None, **more: Any
  ) -> dict[str, Any] | None:
    """Lives until it is killed (None), or to the end: what became of it."""
    told = self._folder / f'{home.name}.told'
    xla = str(self._folder / 'xla')
    done = self._victim(
      'forked', home=str(home), told=str(told), acts=acts, kill=kill, xla=xla, **more
    )
    lines = done['told']
    self.said[home] |= {str(x['id']): x['said'] for x in lines if 'said' in x}
    self.restarts += [x['awake'] for x in lines if 'awake' in x]
    if done['signal']:
      return None
    if kill:
      self.out['unkilled'] += 1
      if 'step' in kill:
        print(f'  not killed at {kill}', flush=True)
    if done['code'] or 'look' not in lines[-1]:
      self.out['failed'] += 1
      print(f'  {home.name} {acts} {kill}: ended with {done["code"]}', flush=True)
      return {'said': {}, 'twice': [], 'generations': {}, 'active': -1}
    used = next(x for x in lines if 'operations' in x)
    return lines[-1]['look'] | used

  def judge(
    self, home: pathlib.Path, found: dict[str, Any], want: dict[str, Any], what: str
  ) -> None:
    lost = [i for i, text in self.said[home].items() if found['said'].get(i) != text]
    wrong = {
      'lost': len(lost),
      'twice': len(found['twice']),
      'differs': int(found['generations'] != want['generations']),
      'half': int(found['active'] != want['active']),
    }
    self.out.update(wrong)
    if any(wrong.values()):
      print(f'  {what}: {wrong}, {found} instead of {want}', flush=True)


def named(counts: dict[str, int]) -> list[dict[str, Any]]:
  """Before and after each time that each step is done."""
  return [
    {'step': name, 'nth': i, 'after': after}
    for name, count in counts.items()
    for i in range(1, count + 1)
    for after in (False, True)
  ]


def kill_at_steps(mortal: Mortal, home: pathlib.Path, wants: dict[str, Any], every: int = 1) -> int:
  """kill -9 around each named step of a night and of a swap; how many there were."""
  at = 0
  for act, again in (('sleep', 'night 2'), ('rollback', 'rollback')):
    for kill in named(wants[act]['steps'])[::every]:
      copy = home.with_name(f'step{at}')
      shutil.copytree(home, copy)
      found = mortal.live(copy, [again], kill) or mortal.live(copy, [again])
      mortal.judge(copy, found, wants[act]['look'], f'{act} {kill}')
      shutil.rmtree(copy)
      at += 1
  return at


def kill_at_random(mortal: Mortal, folder: pathlib.Path, kills: int, seed: int = 0) -> int:
  """Days of two lives, one of them killed some times in each; how many kills came."""
  rng = random.Random(seed)
  whole, broken = folder / 'whole', folder / 'broken'
  came, day = 0, 0
  while came < kills:
    day += 1
    acts = [f'day {day}', f'night {day}']
    want = mortal.live(whole, acts)
    for _ in range(min(A_DAY, kills - came)):
      kill: dict[str, Any] = {'seconds': rng.uniform(0.02, want['cpu'])}
      if rng.random() < 0.5:
        kill = {'n': rng.randint(1, want['operations']), 'half': rng.random() < 0.5}
      found = mortal.live(broken, acts, kill)
      came += found is None
      if found is not None:
        break  # the rest of the day took less than that
    mortal.judge(broken, mortal.live(broken, acts), want, f'day {day}')
  return came


def restart(home: pathlib.Path, folder: pathlib.Path) -> float:
  """Seconds from a new Python to the first reply of a life that was killed."""
  code = (
    f'import sys, pathlib; sys.path.insert(0, {str(common.ROOT)!r})\n'
    'from benchmarks import toys\n'
    f'with toys.wake(pathlib.Path({str(home)!r})) as agent: agent.reply("Hello!")'
  )
  env = faulty.environment(folder)
  env.pop('LD_PRELOAD')
  return common.timed(
    lambda: subprocess.run([sys.executable, '-c', code], check=True, env=env, timeout=600)
  )


# ---- Power ----


def cuts(
  before: pathlib.Path, ops: list[faulty.Op], folder: pathlib.Path, every: int, seed: int = 0
) -> Iterator[dict[str, Any]]:
  """Cuts the power at many points of a record, and opens what is left: what is wrong with each."""
  rng = random.Random(seed)
  platter = faulty.Platter(before)
  active = _active(before)
  said: dict[str, str] = {}
  dones = [json.loads(op.data) for op in ops if op.kind == faulty.NOTE]
  actives = [x['active'] for x in dones if 'done' in x]
  forgotten, done = False, 0
  for i, op in enumerate(ops):
    if op.kind == faulty.NOTE:
      note = json.loads(op.data)
      if 'said' in note:
        said[str(note['id'])] = note['said']
      else:
        active, done = note['active'], done + 1
        forgotten |= note['done'] == 'forget'
    else:
      platter.do(op)
    telling = op.kind in (faulty.NOTE, faulty.RENAME, faulty.SYNC)
    if i % every and not (telling and i % max(1, every // 4) == 0) and op.kind != faulty.NOTE:
      continue
    for how in ('none', 'all', 'some'):
      left = folder / f'cut{i}-{how}'
      platter.cut(left, how, rng)
      wrong = opened(left / 'life', said, {active, *actives[done : done + 1]}, forgotten)
      shutil.rmtree(left)
      if wrong:
        print(f'  cut after operation {i}, {how}: {wrong}', flush=True)
      yield {'at': i, 'how': how, 'wrong': wrong}


def unseen(before: pathlib.Path, ops: list[faulty.Op], left: pathlib.Path) -> list[str]:
  """Names of what a recorded life left otherwise than its record: then cuts of it prove nothing."""
  platter = faulty.Platter(before)
  for op in ops:
    if op.kind != faulty.NOTE:
      platter.do(op)
  return platter.differs(left)


def _active(home: pathlib.Path) -> int:
  with tempfile.TemporaryDirectory() as tmp:
    shutil.copytree(home / 'life', f'{tmp}/life')
    with Diary(f'{tmp}/life/diary.sqlite') as diary:
      return diary.active()


def opened(
  home: pathlib.Path, said: dict[str, str], active: set[int], forgotten: bool
) -> list[str]:
  """What is wrong with a life after the power came back."""
  wrong = []
  try:
    with Diary(home / 'diary.sqlite') as diary:
      lived = {str(e.id): e.content for e in diary.experiences(archived=None)}
      if lost := [i for i, text in said.items() if lived.get(i) != text]:
        wrong.append(f'lost {lost}')
      if forgotten and '1' in lived:
        wrong.append('what was forgotten is back')
      if (serves := diary.active()) not in active:
        wrong.append(f'{serves} serves, not one of {active}')
      generations.sweep(home / 'generations')
      if serves:
        generations.load(home / 'generations', serves)
      sources = [i for g in diary.generations() for i in g.manifest.sources]
      if len(sources) > len(set(sources)):
        wrong.append(f'learned twice: {sources}')
  except (ValueError, OSError) as e:
    wrong.append(f'does not open: {e}')
  return wrong


# ---- All ----


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--parts', default=','.join(PARTS), help='some of them')
  p.add_argument('--every', type=int, help='of the faults of a night one in so many')
  p.add_argument('--kills', type=int, help=f'at random moments (default {KILLS})')
  args = p.parse_args()
  if why := faulty.missing():
    raise SystemExit(why)
  parts = args.parts.split(',')
  every = args.every or (60 if args.quick else 1)
  kills = args.kills or (20 if args.quick else KILLS)
  result = common.Result('faults', args, every=every, kills=kills, parts=parts)
  start = time.monotonic()
  kept: list[Any] = []
  with tempfile.TemporaryDirectory() as tmp:
    folder = pathlib.Path(tmp).resolve()
    with Victim(folder) as victim:
      home = folder / 'home'
      wants = victim('make', home=str(home))
      if 'fails' in parts:
        _fails(result, kept, list(fail_all(victim, home, every)))
    with Victim(folder) as victim:  # in which nothing of JAX has run
      for part in ('steps', 'random', 'power'):
        if part in parts:
          _killed(part, result, victim, folder, wants, every, kills)
  print(f'  {time.monotonic() - start:.0f} s')
  result.keep(kept)
  return result.finish()


def _fails(result: common.Result, kept: list[Any], found: list[dict[str, Any]]) -> None:
  kept += found
  fired = [f for f in found if f['fired']]
  tally = collections.Counter((f['act'], f['how']) for f in fired)
  print('  ' + ', '.join(f'{act} {how}: {n}' for (act, how), n in sorted(tally.items())))
  result.add('fails', len(fired))
  result.bar('fails_wrong', sum(bool(f['wrong']) for f in found), '<=', 0)
  result.bar('fails_hang', sum('it hangs' in f['wrong'] for f in found), '<=', 0)
  files = [f['files'] for f in found]
  result.bar('fails_files_left_open', max(files[-5:]) - max(files[:5]), '<=', 10)


def _killed(part, result, victim, folder, wants, every: int, kills: int) -> None:
  """One part of those that run in processes of their own."""
  home = folder / 'home'
  mortal = Mortal(victim, folder)
  if part == 'power':
    copy, log = folder / 'power', folder / 'power.log'
    shutil.copytree(home, copy)
    mortal.live(copy, ['night 2', 'day 3', 'rollback', 'forget'], record=str(log))
    ops = faulty.read_log(log)
    found = list(cuts(home, ops, folder, max(1, every // 2)))
    if missed := unseen(home, ops, log.with_name('power.log.left')):
      print(f'  the record lacks what made {missed}', flush=True)
    result.add('power_operations', len(ops))
    result.bar('power_unseen', len(missed), '<=', 0)
    result.add('power_cuts', len(found))
    result.bar('power_wrong', sum(bool(f['wrong']) for f in found), '<=', 0)
    result.bar('power_failed', mortal.out['failed'], '<=', 0)
    return
  if part == 'steps':
    came = kill_at_steps(mortal, home, wants, max(1, every // 10))
  else:
    came = kill_at_random(mortal, folder, kills)
    seconds = [restart(folder / 'broken', folder) for _ in range(3)]
    result.bar('restart_s', result.add('restart', seconds, 's'), '<=', RESTART)
  result.add(f'{part}_kills', came)
  if part == 'steps':  # at random a moment may be past the end
    result.bar('steps_unkilled', mortal.out['unkilled'], '<=', 0)
  result.add(f'{part}_opened', mortal.restarts, 's')
  for name in ('lost', 'twice', 'half', 'differs', 'failed'):
    result.bar(f'{part}_{name}', mortal.out[name], '<=', 0)


if __name__ == '__main__':
  sys.exit(main())
