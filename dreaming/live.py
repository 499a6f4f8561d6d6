"""The modes that are no conversation: whole days with their nights, one night, exams, status."""

from __future__ import annotations

import contextlib
import datetime
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from absl import logging
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import Progress

from dreaming import configuration, days, mishaps, report, terminal, transfer
from dreaming.agent import Agent
from dreaming.arms import Examination
from dreaming.days import Day
from dreaming.sleep.outcome import Outcome

STDIN = '-'
_SHOWN = 10  # lines of flags


@mishaps.clearly('it stopped')
def run(mode: str, config: ConfigDict, carried: Mapping[str, str | None] | None = None) -> int:
  """One mode of the command line; returns the exit code.

  Args:
    carried: the flags of transfer.MODES, None where one was not given.

  Raises:
    ValueError, OSError: in one line that names the value and the way out.
  """
  if not logging.level_debug():  # --verbosity=1
    logging.set_verbosity(logging.WARNING)  # Orbax tells a dozen lines of each checkpoint
  console = Console(highlight=False)
  transfer.check(mode, carried or {})
  if mode == 'rescue':
    return transfer.rescue(config, console)
  if mode == 'import' and (packed := transfer.packed(carried or {})):
    return transfer.unpack(config, packed, console)
  lived = _days(config) if mode in ('live', 'life', 'examine') else []
  with Agent(config) as agent:
    if agent.diary.remark:
      print(f'dreaming: {agent.diary.remark}', file=sys.stderr)
    if mode == 'chat':
      return terminal.run(agent)
    if mode == 'serve':
      from dreaming.serve import server  # half a second that only a server pays

      return server.run(agent)
    if mode in transfer.MODES:
      return transfer.run(agent, mode, carried or {}, console)
    if mode == 'status':
      return status(agent, console)
    if mode == 'prepare':
      return prepare(agent, console)
    if mode == 'sleep':
      return sleep(agent, console)
    if mode == 'life':
      from dreaming import lifelong  # which needs this module

      if any(config.review.values()):
        raise ValueError('config.review: --mode=life lives night after night, and none may wait')
      return lifelong.run(agent, lived, console)
    if mode == 'examine':
      return examine(agent, [d for d in lived if d], console)
    return live(agent, lived, console)


def live(agent: Agent, lived: list[Day | None], console: Console) -> int:
  """Each day, then its night, then the four arms over all days so far; None is standard input."""
  configuration.night(agent.config)  # a mistake in it shows before the day is lived
  start, clock = time.monotonic(), _Clock()
  nights: list[Mapping[str, Any]] = []
  examined: list[Examination] = []
  asleep = 0
  for i, day in enumerate(lived):
    with clock.of('talk'):
      if day is None:
        _listen(agent, sys.stdin.buffer, console)
      else:
        talk(agent, day, console)
    with clock.of('sleep'):
      outcome = sleep_after(agent, day, console)
    asleep += not outcome.promoted
    nights.append(report.night(outcome, agent.workdir))
    if outcome.state == 'waiting':
      return outcome.code  # what it has not learned yet cannot be examined
    agent.rest()  # what the night needed
    with clock.of('examine'):
      examined = [agent.examine(d) for d in lived[: i + 1] if d]
  clock.seconds['total'] = time.monotonic() - start
  result = _result(agent, examined, nights, clock.seconds)
  _show(agent, examined, result, console)
  return 1 if asleep else 0


def prepare(agent: Agent, console: Console) -> int:
  with Progress(console=console) as bar:
    task = bar.add_task("Preparing: weights, the base's own exam, its words, school", total=None)
    agent.prepare(lambda done, total: bar.update(task, completed=done, total=total))
  return 0


def sleep(agent: Agent, console: Console) -> int:
  outcome = sleep_after(agent, None, console)
  report.show_night(report.night(outcome, agent.workdir), console)
  return outcome.code


def examine(agent: Agent, examined: list[Day], console: Console) -> int:
  clock = _Clock()
  with clock.of('examine'):
    done = [agent.examine(day) for day in examined]
  _show(agent, done, _result(agent, done, [], clock.seconds), console)
  return 0


def status(agent: Agent, console: Console) -> int:
  s = agent.status()
  serving = f'generation {s.active}' if s.active else 'the base (generation 0)'
  lines = [
    f'identity      {s.workdir}',
    f'serving       {serving}, of {s.generations} promoted',
    f'diary         {s.experiences} experiences, {s.unconsumed} of them not slept over'
    + (f'; {s.archived} archived' if s.archived else ''),
    f'nights        {", ".join(f"{n} {state}" for n, state in s.nights) or "none"}',
    f'dreams        {s.dreams}',
  ]
  if s.open_night is not None:
    lines.append(f'night {s.open_night} is not over: --mode=sleep resumes it')
  if s.waiting:
    lines.append(f"others' text   {s.waiting} not approved: recalled as theirs, never dreamt of")
  orders = agent.orders()
  for id, what in orders[:_SHOWN]:
    lines.append(terminal.printable(f'  experience {id} tells the agent what to do: {what!r}'))
  if (more := len(orders) - _SHOWN) > 0:
    lines.append(f'  and {more:,} more')
  for line in lines:
    console.print(line, markup=False, soft_wrap=True)
  return 0


def sleep_after(agent: Agent, day: Day | None, console: Console) -> Outcome:
  """A night, that of a scripted day right after its last interaction."""
  with report.progress(console) as progress:
    user, now = (day.user, day.interactions[-1].time + 1) if day else (None, None)
    outcome = agent.sleep(user=user, now=now, progress=progress)
  style = None if outcome.promoted else 'bold red'
  console.print(report.line(outcome), markup=False, soft_wrap=True, style=style)
  return outcome


# ---- Talking ----


def _days(config: ConfigDict) -> list[Day | None]:
  """All days, read and checked before anything is lived."""
  life = configuration.group(config, 'life', configuration.LifeConfig)
  limit = config.decode.max_message_bytes
  found: list[Day | None] = []
  for path in configuration.days(config):
    day = None if path == STDIN else days.load(path, user=life.user)
    for i, x in enumerate(day.interactions if day else ()):
      if (size := len(x.text.encode())) > limit:
        raise ValueError(
          f'{path}: interactions[{i}]: text has {size:,} bytes, the limit is {limit:,}: shorten or '
          'split it, or raise decode.max_message_bytes'
        )
    found.append(day)
  return found


def talk(agent: Agent, day: Day, console: Console) -> None:
  """Lives a day. What the diary has of it already, since an earlier run was cut off, is skipped."""
  known = {(e.time, e.speaker, e.content) for e in agent.diary.experiences(archived=None)}
  new = [x for x in day.interactions if (x.time, x.user, x.text) not in known]
  if len(new) < len(day.interactions):
    had = len(day.interactions) - len(new)
    console.print(f'{had} of {len(day.interactions)} interactions are in the diary already')
  with Progress(console=console, transient=True) as progress:
    for x in progress.track(new, description=f'Living {day.path.name}'):
      if x.response:
        response = x.response
        agent.observe(x.text, response, user=x.user, now=x.time)
      else:
        response = str(agent.reply(x.text, user=x.user, now=x.time))
      when = datetime.datetime.fromtimestamp(x.time, datetime.UTC)
      for name, text in ((x.user, x.text), (agent.life.agent, response)):
        line = terminal.printable(f'{when:%H:%M} {name}: {text}')
        progress.console.print(line, markup=False, soft_wrap=True)


def _listen(agent: Agent, source: BinaryIO, console: Console) -> None:
  """A day from standard input, one message a line. A message that is refused ends it, loudly."""
  for message in terminal.messages(source, agent.max_message_bytes):
    if isinstance(message, ValueError):
      raise message
    response = str(agent.reply(message))
    console.print(terminal.printable(response), markup=False, soft_wrap=True)


# ---- Reporting ----


class _Clock:
  """Seconds by what they were spent on."""

  def __init__(self) -> None:
    self.seconds: dict[str, float] = {}

  @contextlib.contextmanager
  def of(self, what: str) -> Iterator[None]:
    start = time.monotonic()
    try:
      yield
    finally:
      self.seconds[what] = self.seconds.get(what, 0.0) + time.monotonic() - start


def _result(
  agent: Agent,
  examined: list[Examination],
  nights: list[Mapping[str, Any]],
  seconds: Mapping[str, float],
) -> dict[str, Any]:
  """result.json: on top the numbers of the last day, which sweeps compare, then everything."""
  plain = [e.plain() for e in examined]
  last = plain[-1] if plain else {'recall': {}, 'never_mentioned': {}}
  return {
    'recall': last['recall'],
    'never_mentioned': last['never_mentioned'],
    'measures': dict(nights[-1].get('measures', {})) if nights else {},
    'seconds': dict(seconds),
    'peak_memory_gib': _peak_memory(),
    'generation': agent.status().active,
    'days': plain,
    'nights': nights,
    'config': configuration.plain(agent.config),
  }


def _show(
  agent: Agent, examined: list[Examination], result: Mapping[str, Any], console: Console
) -> None:
  for night in result['nights']:
    report.show_night(night, console)
  for e in examined:
    talk = e.day.interactions
    facts = [(talk[about[-1]].text, share) for about, share in e.taken()]
    report.show_facts(facts, console)
  report.show_days(result['days'], console)
  spent = ', '.join(f'{what} {s:.0f} s' for what, s in result['seconds'].items())
  console.print(f'{spent}; peak memory {result["peak_memory_gib"]:.1f} GiB')
  written = report.write(agent.workdir, result), report.plot(agent.workdir, result, agent.cache)
  console.print(f'kept in {" and ".join(map(str, written))}', soft_wrap=True)


def _peak_memory() -> float:
  """Of this process so far, in GiB."""
  unit = 1 if sys.platform == 'darwin' else 1024  # bytes there, KiB elsewhere
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
