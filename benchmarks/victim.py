"""What is done to: a toy's life whose disk, memory or process fails. See faults.py, which asks.

python benchmarks/victim.py   reads what to do, one JSON a line, and answers so
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pathlib
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax

from benchmarks import faulty, toys
from dreaming.brain import lora, programs
from dreaming.identity import bluegreen, generations
from dreaming.memory.diary import Diary
from dreaming.memory.store import Store
from dreaming.sleep import artifacts, backoff, metrics, night, prune, train

SECONDS = 300  # after which an act hangs
DAYS = 2  # of the life that faults come to: the first with its night, the second without

ACTS: dict[str, Callable[[toys.Agent], Any]] = {
  'talk': lambda a: a.reply('I have moved to Nairobi.', now=5 * toys.DAY),
  'score': lambda a: a.rate(),
  'sleep': lambda a: toys.sleep(a, DAYS),
  'rollback': lambda a: a.rollback(0),
  'forget': lambda a: a.forget([1]),
  'trim': lambda a: a.trim(now=9 * toys.DAY),
  'prepare': lambda a: a.prepare(),
  'cold': lambda a: toys.sleep(a, DAYS),
  'compile': toys.compiled,
}
COLD = ('prepare', 'cold', 'compile')  # those that begin without a cache
SLEEPS = ('sleep', 'cold')
HOW = {
  'full': (faulty.GROWS, errno.ENOSPC, True),  # until somebody makes room
  'broken': (faulty.CHANGES, errno.EIO, False),  # once
  'unread': (faulty.READ, errno.EIO, False),
}


def _exhausted() -> None:
  raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 5 bytes.\n  at x')


def _no_memory() -> None:
  raise MemoryError


STRIKES = {'device': _exhausted, 'memory': _no_memory}
CALLS = faulty.Calls(
  [
    ('stream', toys.Voice, 'stream'),
    ('generate', toys.Voice, 'generate'),
    ('logprobs', toys.Voice, 'logprobs'),
    ('embed', toys.Letters, '__call__'),
    ('train', toys, 'stepped'),
    ('materialize', lora, 'materialize'),
    ('mask', prune, 'merged_mask'),
    ('delta', prune, 'delta_mask'),
    ('wake', bluegreen, 'wake'),
  ]
)
STEPS = faulty.Calls(
  [
    ('open', Store, '__init__'),
    ('append', Diary, 'append'),
    ('scores', Diary, 'set_scores'),
    ('begin', Diary, 'begin_night'),
    ('step', Diary, 'set_night_step'),
    ('dreams', Diary, 'add_dreams'),
    ('commit', Store, '_commit'),
    ('dream', night.dream, 'dream'),
    ('corpus', night.corpus, 'build'),
    ('train', night.train, 'train'),
    ('checkpoint', train, '_save'),
    ('artifact', artifacts, 'write'),
    ('prune', backoff, 'back_off'),
    ('save', generations, 'save'),
    ('adapter', generations, '_write_adapter'),
    ('masks', generations, '_write_masks'),
    ('manifest', generations, '_write_manifest'),
    ('folder', generations, '_sync_directory'),
    ('rename', os, 'rename'),
    ('promote', Diary, 'promote'),
    ('activate', Diary, 'activate'),
    ('forget', Diary, 'forget'),
    ('archive', Diary, 'archive'),
    ('flip', bluegreen.BlueGreen, '_flip'),
    ('discard', generations, 'discard'),
    ('sweep', generations, 'sweep'),
    ('over', metrics, 'close_over'),
    ('summary', metrics, 'write_summary'),
    ('remove', shutil, 'rmtree'),
  ]
)


class Hangs(BaseException):
  pass


def _hang(*_: Any) -> None:
  raise Hangs


# ---- The Nth fails ----


def make(home: pathlib.Path) -> dict[str, Any]:
  """The life that faults come to, and what it will be when no fault does."""
  for day in range(1, DAYS + 1):
    with toys.wake(home) as agent:
      toys.talk(agent, day)
      if day < DAYS:
        toys.sleep(agent, day)
  return after(home)


def after(home: pathlib.Path) -> dict[str, Any]:
  """act -> what undisturbed it leaves, and how often it does what may fail."""
  out: dict[str, Any] = {}
  for act, do in ACTS.items():
    with _copied(home, act) as copy, toys.wake(copy) as agent:
      agent.identity.blue  # noqa: B018
      disk = faulty.Disk(_watched(copy, act))
      with CALLS.at(None) as calls:
        do(agent)
      out[act] = {'operations': disk.seen, 'calls': calls.seen}
      disk.end()
      # The copy goes after they are counted: its removal is none of theirs.
      with _copied(home, act) as another, STEPS.at(None) as steps, toys.wake(another) as again:
        do(again)
      out[act] |= {'steps': dict(steps.counts), 'look': toys.look(agent)}
  return out


def _watched(copy: pathlib.Path, act: str) -> pathlib.Path:
  """Where the disk fails: all of it, or the cache's alone where a night begins without one."""
  return copy / 'cache' if act == 'cold' else copy


@contextlib.contextmanager
def _copied(home: pathlib.Path, act: str) -> Iterator[pathlib.Path]:
  """A copy of a life for an act, that goes when it was used."""
  copy = home.with_name(f'{home.name}-{os.getpid()}-{time.time_ns()}')
  try:
    shutil.copytree(home, copy)
    if act in COLD:
      shutil.rmtree(copy / 'cache')
    yield copy
  finally:
    shutil.rmtree(copy, ignore_errors=True)


def fails(home: pathlib.Path, act: str, how: str, n: int, want: dict[str, Any]) -> dict[str, Any]:
  """Lets the nth operation or call of an act fail, and looks at what became of the life.

  Args:
    want: of `after`, this act's.
  """
  with _copied(home, act) as copy:
    agent = toys.wake(copy)
    before = toys.look(agent)
    error, fired, wrong = None, False, []
    try:
      if how in STRIKES:
        with CALLS.at(STRIKES[how], n) as calls:
          error = _tried(ACTS[act], agent)
        fired = calls.fired
      else:
        kinds, number, stays = HOW[how]
        disk = faulty.Disk(_watched(copy, act), kinds)
        disk.fail(n, number, stays)
        error = _tried(ACTS[act], agent)
        fired = disk.fired
        if how == 'full' and fired:
          faulty.Disk(copy, kinds).fail(1, number, stays)
          wrong = _goes_on(agent, before, want['look'])
        disk.end()
      wrong += _wrong(copy, agent, act, how, error, before, want)
    except Hangs:
      wrong += ['it hangs']
    finally:
      faulty.Disk(copy).end()
      agent.close()
  line = '' if error is None else f'{type(error).__name__}: {error}'
  return {'fired': fired, 'line': line, 'wrong': wrong, 'files': len(os.listdir('/proc/self/fd'))}


def _tried(do: Callable[[toys.Agent], Any], agent: toys.Agent) -> Exception | None:
  signal.signal(signal.SIGALRM, _hang)
  signal.alarm(SECONDS)
  try:
    do(agent)
  except Exception as e:
    return e
  finally:
    signal.alarm(0)
  return None


def _unclear(error: Exception | None) -> list[str]:
  """What is wrong with what an error says; nothing with none."""
  line = str(error or '')
  clear = isinstance(error, ValueError | OSError) and '\n' not in line and len(line) > 30
  if error is None or (clear and not line.startswith('[Errno')):
    return []
  where = traceback.extract_tb(error.__traceback__)[-1]
  return [f'no clear line: {type(error).__name__} {line!r} ({where.name})']


def _goes_on(agent: toys.Agent, before: dict[str, Any], done: dict[str, Any]) -> list[str]:
  """Talk on a disk that stays full: what is wrong. `before` gets what was acknowledged."""
  wrong = []
  for text in ('I like snow.', 'I like fog.'):
    trouble = _tried(lambda a: a.reply(text, now=5.5 * toys.DAY), agent)  # noqa: B023
    wrong += _unclear(trouble)
    if trouble is None:
      before['said'][str(agent.diary.ids(limit=1)[0])] = text
  wrong += _unclear(_tried(lambda a: a.memories('Which name has the parrot?'), agent))
  now = agent.diary.active(), toys.digest(agent.identity.blue.params)
  if now not in [(s['active'], s['blue']) for s in (before, done)]:
    wrong.append(f'{now} serves')
  return [f'while it stays full: {w}' for w in wrong]


def _wrong(copy, agent, act, how, error, before, want) -> list[str]:
  """What is not as it has to be after a fault."""
  wrong = _unclear(error) if how not in STRIKES or act in (*SLEEPS, 'prepare') else []
  done = want['look']
  for agent_ in (agent, None):  # the same one, then one that is opened anew
    name = 'the same agent' if agent_ else 'a new one'
    if agent_ is None:
      agent.close()
      agent_ = toys.wake(copy)
    try:
      if trouble := _tried(lambda a: a.reply('I like rain.', now=6 * toys.DAY), agent_):
        wrong.append(f'{name} does not talk: {trouble!r}')
        continue
      for id in agent_.diary.ids(since=5.2 * toys.DAY):
        agent_.feedback(1, id)  # nothing for a night
      asked = 'Which name has the parrot?'
      if trouble := _tried(lambda a: a.reply(asked, now=6 * toys.DAY), agent_):  # noqa: B023
        wrong.append(f'{name} does not recall: {trouble!r}')
      agent_.feedback(1)
      now = toys.look(agent_)
      states = (before, done)
      lost = {i for i, text in before['said'].items() if now['said'].get(i) != text}
      if lost and not (act == 'forget' and lost == {'1'}):
        wrong.append(f'{name} lost {sorted(lost)}')
      if (now['active'], now['blue']) not in [(s['active'], s['blue']) for s in states]:
        wrong.append(f'{name} serves {now["active"]} {now["blue"]}: neither old nor new')
      if now['twice']:
        wrong.append(f'{name} learned {now["twice"]} twice')
      if agent_ is agent:
        continue
      # Again, to its end: as if nothing had happened.
      if act in SLEEPS:
        if now['active'] == before['active'] and (trouble := _tried(ACTS[act], agent_)):
          wrong.append(f'the next night fails: {trouble!r}')
        now = toys.look(agent_)
        if now['generations'] != done['generations'] or now['active'] != done['active']:
          wrong.append(f'the next night made {now["generations"]} {now["nights"]}')
        metrics.close_over(copy / 'life' / 'nights', agent_.diary)
        generations.sweep(copy / 'life' / 'generations')
      elif trouble := _tried(ACTS[act], agent_):
        wrong.append(f'{act} again: {trouble!r}')
      left = [*copy.glob('life/generations/.tmp*'), *copy.glob('life/nights/*/work')]
      left += [p for p in copy.glob('cache/xla/*-cache') if not programs._whole(p.read_bytes())]
      if left:
        wrong.append(f'left behind: {[str(p.relative_to(copy)) for p in left]}')
    finally:
      if agent_ is not agent:
        agent_.close()
  return wrong


# ---- Killed ----


def killed(spec: dict[str, Any]) -> None:
  """In a process of its own: a day, a night or an act, up to a blow that nobody can catch."""
  home = pathlib.Path(spec['home'])
  told = os.open(spec['told'], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

  def tell(**what: Any) -> None:
    os.write(told, json.dumps(what).encode() + b'\n')

  def strike() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

  jax.config.update('jax_compilation_cache_dir', spec['xla'])
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
  began = time.monotonic()
  toys.base()
  disk = faulty.Disk(home)
  kill = spec.get('kill') or {}
  if spec.get('record'):
    disk.record(pathlib.Path(spec['record']))
  if 'n' in kill:
    disk.kill(kill['n'], kill.get('half', False))
  if 'seconds' in kill:  # of this process's own time: the machine may be busy
    signal.setitimer(signal.ITIMER_PROF, kill['seconds'])
  where = kill.get('step')
  start = time.process_time()
  with STEPS.at(strike if where else None, kill.get('nth', 0), where, kill.get('after', False)):
    with toys.wake(home) as agent:
      tell(awake=time.monotonic() - began)

      def said(text: str, id: int) -> None:
        disk.note(json.dumps({'said': text, 'id': id}))
        tell(said=text, id=id)

      for act in spec['acts']:
        if act.startswith('day '):
          toys.talk(agent, int(act[4:]), said)
        elif act.startswith('night '):
          night_ = int(act[6:])
          if len([g for g in agent.generations()]) < night_:
            toys.sleep(agent, night_)
        else:
          ACTS[act](agent)
        disk.note(json.dumps({'done': act, 'active': agent.diary.active()}))
        tell(done=act, active=agent.diary.active())
  signal.setitimer(signal.ITIMER_PROF, 0)
  tell(operations=disk.seen, cpu=time.process_time() - start)
  disk.end()
  if spec.get('record'):
    shutil.copytree(home, f'{spec["record"]}.left')
  with toys.wake(home) as agent:
    tell(look=toys.look(agent))


def forked(spec: dict[str, Any]) -> dict[str, Any]:
  """Nothing of JAX has run here yet, so that a fork is as good as a new process, and faster."""
  start = time.monotonic()
  pid = os.fork()
  if pid == 0:
    code = 1
    try:
      os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
      killed(spec)
      code = 0
    except BaseException:
      traceback.print_exc()
    finally:
      sys.stderr.flush()
      os._exit(code)
  _, status = os.waitpid(pid, 0)
  told = pathlib.Path(spec['told'])
  lines = [json.loads(x) for x in told.read_text().splitlines()] if told.exists() else []
  told.unlink(missing_ok=True)
  signalled = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
  return {
    'signal': signalled, 'code': -1 if signalled else os.WEXITSTATUS(status), 'told': lines,
    'seconds': time.monotonic() - start,
  }  # fmt: skip


def main() -> None:
  out = os.fdopen(os.dup(1), 'w', buffering=1)
  os.dup2(2, 1)
  toys.play()
  wants: dict[str, Any] = {}
  for line in sys.stdin:
    ask = json.loads(line)
    home = pathlib.Path(ask.get('home', '.'))
    if ask['do'] == 'make':
      answer: dict[str, Any] = make(home)
      wants[ask['home']] = answer
    elif ask['do'] == 'after':
      answer = wants[ask['home']] = after(home)
    elif ask['do'] == 'fails':
      answer = fails(home, ask['act'], ask['how'], ask['n'], wants[ask['home']][ask['act']])
    else:
      answer = forked(ask)
    out.write(json.dumps(answer) + '\n')
  out.flush()
  os._exit(0)  # what 1,460 lives left takes Python more than a minute to tidy


if __name__ == '__main__':
  main()
