"""Nights beside a server: one process at a time, its progress as events, and the cut-over after it.

The process promotes Green in the diary itself, as any night does. The server then reads Green,
lays it out and reads the prefixes that Blue has read, while Blue still speaks; the cut-over is one
reference. Streams that Blue began, Blue ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from dreaming.agent import Agent
from dreaming.serve.access import Refused
from dreaming.serve.metrics import Metrics
from dreaming.sleep import trigger
from dreaming.sleep.trigger import TriggerConfig

_log = logging.getLogger('dreaming.serve')
_EVENTS = 2000  # of a night that are kept for who listens later
_LINE = 1 << 20  # bytes
_END_SECONDS = 10.0  # that a cancelled night has before it is killed


class Nights:
  """Starts, watches and cancels nights.

  Args:
    agent: whose nights; its lock is shared with their processes.
    cut_over: called when a night's process has ended, and may have promoted a generation.
  """

  def __init__(self, agent: Agent, metrics: Metrics, cut_over: Callable[[], Awaitable[Any]]):
    self._agent, self._metrics, self._cut_over = agent, metrics, cut_over
    self._process: asyncio.subprocess.Process | None = None
    self._task: asyncio.Task | None = None
    self._events: list[dict[str, Any]] = []
    self._first = 0  # number of the oldest event that is kept
    self._news = asyncio.Condition()
    self._cancelled = self._closing = False
    self.starting = asyncio.Lock()  # one of all identities: the machine bears one night at a time
    self.run = 0  # how many were started here
    self.beside: list[Nights] = []  # of other identities
    self.poll_seconds = 30.0  # between looks at whether one is due
    # Before a night's process begins: a server that sleeps offline lets go of its weights.
    self.fall: Callable[[], Awaitable[None]] | None = None
    self.command = [sys.executable, '-m', 'dreaming.serve.sleeper']

  @property
  def running(self) -> bool:
    return self._task is not None and not self._task.done()

  @property
  def last(self) -> dict[str, Any] | None:
    """The latest event."""
    return self._events[-1] if self._events else None

  async def start(
    self, user: str | None = None, before: Callable[[], Awaitable[Any]] | None = None
  ) -> int:
    """Begins a night, or goes on with one; returns the number of this run.

    Args:
      user: whom it dreams about.
      before: done when it is sure that it begins.

    Raises:
      Refused: a night is running, here or of another identity.
    """
    async with self.starting:
      return await self._start(user, before)

  async def _start(self, user: str | None, before: Callable[[], Awaitable[Any]] | None) -> int:
    if self.running:
      raise Refused(409, 'a night is running: wait for it, or cancel it', 'night_running')
    if any(n.running for n in self.beside):
      raise Refused(409, 'another identity dreams: wait until its night is over', 'night_running')
    self._cancelled = False
    if self.fall is not None:
      await self.fall()
    try:
      if self._cancelled:
        raise Refused(409, 'it was cancelled before it began', 'cancelled')
      if before is not None:
        await before()
      await self._begin(user)
    except BaseException:
      await self._follow()
      raise
    return self.run

  async def _begin(self, user: str | None) -> None:
    self._events, self._first = [], 0
    self.run += 1
    config = self._agent.config.to_dict()
    config |= {'workdir': str(self._agent.workdir), 'cache': str(self._agent.cache)}
    lock = self._agent.lock.fileno()
    self._process = await asyncio.create_subprocess_exec(
      *self.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
      pass_fds=(lock,), limit=_LINE,
    )  # fmt: skip
    told = {'config': config, 'lock': lock, 'user': user}
    self._process.stdin.write(json.dumps(told).encode() + b'\n')
    await self._process.stdin.drain()
    self._task = asyncio.create_task(self._watch(self._process))

  async def fall_asleep(self, config: TriggerConfig, awake: Callable[[], bool]) -> None:
    """Begins nights when they are due, for as long as it is not cancelled.

    Args:
      awake: whether the server speaks already.
    """
    while config.armed:
      await asyncio.sleep(self.poll_seconds)
      if any(n.running for n in (self, *self.beside)) or not awake():
        continue
      try:
        why = await asyncio.to_thread(trigger.due, self._agent.diary, time.time(), config)
        if why:
          _log.info('a night is due', extra={'fields': {'why': why}})
          await self.start()
      except Exception:  # the next look may find it well again
        _log.exception('no night could be begun')

  async def cancel(self, abandon: bool = False) -> None:
    """Ends the night's process. What it finished stays for the next one, unless it is abandoned."""
    self._cancelled = True  # also one that is falling asleep
    if self.running:
      with contextlib.suppress(ProcessLookupError):  # it has ended, and the server wakes
        self._process.terminate()
      try:
        await asyncio.wait_for(asyncio.shield(self._task), _END_SECONDS)
      except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
          self._process.kill()
        await self._task
    if abandon:
      from dreaming.sleep import night

      await asyncio.to_thread(night.abandon, self._agent.diary, 'cancelled')

  async def events(self, after: int = -1) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """(number, event) of this run after a number, to its end."""
    run = self.run
    number = max(after + 1, self._first)
    while run == self.run:
      number = max(number, self._first)
      while number < self._first + len(self._events):
        yield number, self._events[number - self._first]
        number += 1
      if not self.running:
        return
      async with self._news:
        with contextlib.suppress(TimeoutError):
          await asyncio.wait_for(self._news.wait(), 5)

  async def close(self) -> None:
    self._closing = True
    if self.running:
      await self.cancel()

  async def _watch(self, process: asyncio.subprocess.Process) -> None:
    started = time.monotonic()
    end: dict[str, Any] | None = None
    try:
      while line := await process.stdout.readline():
        event = json.loads(line)
        if event.get('event') in ('ended', 'failed'):
          end = event
        else:
          await self._tell(event)
    except Exception as e:  # whatever it says, the server wakes
      _log.exception('a night cannot be followed')
      end = {'event': 'failed', 'reason': str(e)}
      await _ended(process)
    code = await process.wait()
    kind = 'cancelled' if self._cancelled else 'failed'
    end = end or {'event': kind, 'reason': f'its process ended with code {code}'}
    # Whatever it said: it may have been killed between its commit and its last line.
    await self._tell(end | {'swap_ms': await self._follow()})
    state = end.get('outcome') or end['event']
    self._metrics.nights.labels(state).inc()
    seconds = round(time.monotonic() - started, 1)
    _log.info('night', extra={'fields': {'state': state, 'seconds': seconds}})

  async def _follow(self) -> float:
    start = time.monotonic()
    try:
      if not self._closing:  # then nobody speaks any more
        await self._cut_over()
    except Exception:
      _log.exception('the generation that was promoted cannot serve')
    return round(1e3 * (time.monotonic() - start), 1)

  async def _tell(self, event: dict[str, Any]) -> None:
    self._events.append({'time': round(time.time(), 3), **event})
    if len(self._events) > _EVENTS:
      del self._events[0]
      self._first += 1
    async with self._news:
      self._news.notify_all()


async def _ended(process: asyncio.subprocess.Process) -> None:
  """Ends a process, by force if it does not go."""
  with contextlib.suppress(ProcessLookupError):
    process.terminate()
    try:
      await asyncio.wait_for(process.wait(), _END_SECONDS)
    except TimeoutError:
      process.kill()
