"""Sleeping offline (`serve.pause`): while a night runs nothing is answered, and nothing is lost.

For machines that cannot hold a night and a server at once. The server lets go of its weights, the
night runs, the server reads them again. What is said meanwhile is kept on the disk before anything
else happens to it, and answered on waking: to whoever still waits, and into the diary.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

from dreaming.brain.chat import Turn
from dreaming.brain.sampler import Sampler
from dreaming.memory.senses.media import MediaStore
from dreaming.serve.access import Refused
from dreaming.serve.message import Message
from dreaming.serve.shown import Shown
from dreaming.types import Media

_log = logging.getLogger('dreaming.serve')
_AGAIN_SECONDS = 1.0  # between looks at what nobody waits for any more
_MAX_FILE = 16 << 20  # bytes


class Doze:
  """What is said while it sleeps.

  Args:
    directory: of the messages that wait, made when one does.
    store: of the pictures and voice notes that come with them.
    most: messages that may wait.
  """

  def __init__(self, directory: pathlib.Path, store: MediaStore, most: int):
    self.directory, self._store, self._most = directory, store, most
    self._awake = asyncio.Event()
    self._awake.set()
    self._attended: set[str] = set()
    self._waiting = 0

  @property
  def asleep(self) -> bool:
    return not self._awake.is_set()

  @property
  def held(self) -> int:
    """How many messages wait for an answer."""
    return max(len(self._keys()), self._waiting)

  def fall(self) -> None:
    self._awake.clear()

  def rise(self) -> None:
    self._awake.set()

  def check(self) -> None:
    """Raises Refused for what cannot wait."""
    if self.asleep:
      line = 'it sleeps offline (serve.pause): try again when it is awake, or talk to it'
      raise Refused(503, line, 'asleep', {'Retry-After': '60'})

  async def keep(self, message: Message) -> Message:
    """The message as it waits: what is to be stored is on the disk now.

    Raises:
      Refused: too many wait.
      OSError: it cannot be kept.
    """
    if self.held >= self._most:
      line = f'it sleeps, and {self._most} messages wait for its waking (serve.queue): try later'
      raise Refused(429, line, 'queue_full', {'Retry-After': '60'})
    message = dataclasses.replace(message, at=time.time())
    if message.store:
      key = f'{time.time_ns()}-{uuid.uuid4().hex[:8]}'
      message = dataclasses.replace(message, metadata={**message.metadata, 'held': key})
      await asyncio.to_thread(self._write, key, message)
    return message

  @contextlib.asynccontextmanager
  async def attended(self, message: Message) -> AsyncIterator[None]:
    """Somebody waits for the answer. Left with an error, `answer_left` sees to it."""
    key = message.metadata.get('held', '')
    self._attended.add(key)
    self._waiting += 1
    try:
      yield
      self._drop(message)
    finally:
      self._waiting -= 1
      self._attended.discard(key)

  async def awake(self, gone: Callable[[], Awaitable[None]] | None = None) -> bool:
    """Waits until it wakes; False when `gone` is over before."""
    waits = [asyncio.ensure_future(self._awake.wait())]
    if gone is not None:
      waits.append(asyncio.ensure_future(gone()))
    try:
      await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
      for wait in waits:
        wait.cancel()
    return not self.asleep

  def _drop(self, message: Message) -> None:
    if key := message.metadata.get('held'):
      (self.directory / f'{key}.json').unlink(missing_ok=True)

  async def answer_left(self, answer: Callable[[Message], Awaitable[None]]) -> None:
    """Has messages answered that nobody waits for any more, for as long as it is not cancelled.

    Args:
      answer: puts one with its reply into the diary; not twice, whatever happened before.
    """
    while True:
      await self._awake.wait()
      for key in [k for k in self._keys() if k not in self._attended]:
        try:
          message = await asyncio.to_thread(self._read, key)
          await answer(message)
          self._drop(message)
        except Exception:  # the others can still be answered, this one by the next process
          self._attended.add(key)
          _log.exception('a message that came while it slept could not be answered')
      await asyncio.sleep(_AGAIN_SECONDS)

  # ---- On the disk ----

  def _keys(self) -> list[str]:
    return sorted(p.stem for p in self.directory.glob('*-*.json'))

  def _write(self, key: str, message: Message) -> None:
    for s in message.shown:
      self._store.put(s.data)
    fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    fields['turns'] = [dataclasses.asdict(t) for t in message.turns]
    fields['sampler'] = dataclasses.asdict(message.sampler)
    fields['shown'] = [
      {'media': vars(s.media), 'metadata': dict(s.metadata), 'said': s.said} for s in message.shown
    ]
    fields['metadata'] = dict(message.metadata)
    self.directory.mkdir(parents=True, exist_ok=True)
    temporary = self.directory / f'.{key}.tmp'
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'w') as f:
      json.dump(fields, f)
      f.flush()
      os.fsync(f.fileno())
    temporary.rename(self.directory / f'{key}.json')
    handle = os.open(self.directory, os.O_RDONLY)
    try:
      os.fsync(handle)
    finally:
      os.close(handle)

  def _read(self, key: str) -> Message:
    with (self.directory / f'{key}.json').open() as f:
      fields = json.loads(f.read(_MAX_FILE))
    fields['turns'] = tuple(Turn(**t) for t in fields['turns'])
    fields['sampler'] = Sampler(**fields['sampler'])
    fields['stop'] = tuple(fields['stop'])
    fields['shown'] = tuple(
      Shown(
        media=(media := Media(**s['media'])),
        metadata=s['metadata'],
        said=s['said'],
        data=self._store.read(media.digest),
      )
      for s in fields['shown']
    )
    return Message(**fields | {'n': 1, 'logprobs': False})
