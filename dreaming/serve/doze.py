"""Sleeping offline (`serve.pause`): while a night runs nothing is answered, and nothing is lost.

For machines that cannot hold a night and a server at once. The server lets go of its weights, the
night runs, the server reads them again. What is said meanwhile is kept on the disk before anything
else happens to it, and answered on waking: to whoever still waits, and into the diary.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import json
import logging
import math
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
ASLEEP = 'asleep'
"""The code of what is refused while it sleeps."""
_NEW_SECONDS = 10.0  # in which a response begins
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
    self._attended: collections.Counter[str] = collections.Counter()
    self._new: dict[str, float] = {}  # key -> when it was kept, until somebody attends to it
    self._given_up: set[str] = set()
    self._kept: dict[tuple, Message] = {}  # by what is said: who asks again is not another one
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
    self._given_up.clear()
    self._awake.set()

  def check(self) -> None:
    """Raises Refused for what cannot wait."""
    if self.asleep:
      line = 'it sleeps offline (serve.pause): try again when it is awake, or talk to it'
      raise Refused(503, line, ASLEEP, {'Retry-After': '60'})

  async def keep(self, message: Message) -> Message:
    """The message as it waits: what is to be stored is on the disk now.

    Raises:
      Refused: too many wait.
      OSError: it cannot be kept.
    """
    if self.held >= self._most:
      line = f'it sleeps, and {self._most} messages wait for its waking (serve.queue): try later'
      raise Refused(429, line, 'queue_full', {'Retry-After': '60'})
    what = message.client, message.user, message.conversation, message.text, message.store
    known = self._kept.get(what)
    if known is not None and self._path(known).exists():  # a client that asks again
      return known
    message = dataclasses.replace(message, at=time.time())
    if message.store:
      key = f'{time.time_ns()}-{uuid.uuid4().hex[:8]}'
      message = dataclasses.replace(message, metadata={**message.metadata, 'held': key})
      self._new[key] = time.monotonic()
      try:
        await asyncio.to_thread(self._write, key, message)
      except BaseException:
        self._new.pop(key)
        raise
      self._kept[what] = message
    return message

  @contextlib.asynccontextmanager
  async def attended(self, message: Message) -> AsyncIterator[None]:
    """Somebody waits for the answer. Left with an error, `answer_left` sees to it."""
    key = message.metadata.get('held', '')
    self._attended[key] += 1
    self._new.pop(key, None)
    self._waiting += 1
    try:
      yield
      self._drop(message)
    finally:
      self._waiting -= 1
      self._attended[key] -= 1

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

  async def answer_left(self, answer: Callable[[Message], Awaitable[None]]) -> None:
    """Has messages answered that nobody waits for any more, for as long as it is not cancelled.

    Args:
      answer: puts one with its reply into the diary; not twice, whatever happened before.
    """
    while True:
      await self._awake.wait()
      for key in self._keys():
        if self.asleep:
          break
        if self._attended[key] or key in self._given_up or self._is_new(key):
          continue
        try:
          message = await asyncio.to_thread(self._read, key)
          await answer(message)
          self._drop(message)
        except Exception:  # the others can still be answered, this one after the next night
          if not self.asleep:
            self._given_up.add(key)
            _log.exception('a message that came while it slept could not be answered')
      await asyncio.sleep(_AGAIN_SECONDS)

  def _is_new(self, key: str) -> bool:
    """Whether who has said it is about to wait for the answer."""
    return time.monotonic() - self._new.get(key, -math.inf) < _NEW_SECONDS

  # ---- On the disk ----

  def _path(self, message: Message) -> pathlib.Path:
    return self.directory / f'{message.metadata["held"]}.json'

  def _drop(self, message: Message) -> None:
    if message.metadata.get('held'):
      self._path(message).unlink(missing_ok=True)
      self._kept = {k: m for k, m in self._kept.items() if m is not message}

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
