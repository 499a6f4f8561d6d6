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
import hashlib
import json
import logging
import math
import os
import pathlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

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
_TRIES = 5  # to answer one of them, each after twice the time
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
    self._new: dict[str, float] = {}  # key -> when it came, until somebody attends to it
    self._known: dict[str, str] = {}  # fingerprint -> key: who asks again says nothing new
    self._failed: dict[str, tuple[int, float]] = {}  # key -> how often, and when to try again
    self._unsaved = 0  # that wait and are not to be stored
    for left in directory.glob('.*.tmp'):  # of a process that was killed as it wrote
      left.unlink(missing_ok=True)

  @property
  def asleep(self) -> bool:
    return not self._awake.is_set()

  @property
  def held(self) -> int:
    """How many messages wait for an answer."""
    return len({*self._keys(), *self._new}) + self._unsaved

  def fall(self) -> None:
    self._awake.clear()

  def rise(self) -> None:
    self._awake.set()

  def check(self) -> None:
    """Raises Refused for what cannot wait."""
    if self.asleep:
      line = 'it sleeps offline (serve.pause): try again when it is awake, or talk to it'
      raise Refused(503, line, ASLEEP, {'Retry-After': '60'})

  async def keep(self, message: Message) -> Message:
    """The message as it waits; one that is to be stored is on the disk now, and only there whole.

    Raises:
      Refused: too many wait.
      OSError: it cannot be kept.
    """
    what = _fingerprint(message)
    key = self._known.get(what) if message.store else None
    if key is None or not (key in self._new or self._path(key).exists()):
      if self.held >= self._most:
        line = f'it sleeps, and {self._most} messages wait for its waking (serve.queue): try later'
        raise Refused(429, line, 'queue_full', {'Retry-After': '60'})
      message = dataclasses.replace(message, at=time.time())
      if not message.store:
        return message
      key = f'{time.time_ns()}-{uuid.uuid4().hex[:8]}'
      self._known[what], self._new[key] = key, time.monotonic()
      try:
        await asyncio.to_thread(self._write, key, _marked(message, key))
      except BaseException:
        self._gone(key)
        raise
    return _marked(dataclasses.replace(message, shown=()), key)

  @contextlib.asynccontextmanager
  async def attended(self, kept: Message) -> AsyncIterator[None]:
    """Somebody waits for the answer. Left with an error, `answer_left` sees to it."""
    key = kept.metadata.get('held', '')
    self._attended[key] += 1
    self._new.pop(key, None)
    self._unsaved += not key
    try:
      yield
      self._drop(key)
    finally:
      self._unsaved -= not key
      self._attended[key] -= 1

  async def back(self, kept: Message) -> Message:
    """The message whole again. Raises OSError or ValueError when it is not as it was kept."""
    if not (key := kept.metadata.get('held')):
      return kept
    whole = await asyncio.to_thread(self._read, key)
    return dataclasses.replace(whole, n=kept.n, logprobs=kept.logprobs)

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

  async def answer_left(
    self,
    answer: Callable[[Message], Awaitable[None]],
    give_up: Callable[[Message], Awaitable[None]],
  ) -> None:
    """Has messages answered that nobody waits for any more, for as long as it is not cancelled.

    Args:
      answer: puts one with its reply into the diary; not twice, whatever happened before.
      give_up: puts one that cannot be answered there without.
    """
    while True:
      await self._awake.wait()
      for key in self._keys():
        if self.asleep:
          break
        times, when = self._failed.get(key, (0, 0.0))
        if self._attended[key] or self._is_new(key) or time.monotonic() < when:
          continue
        try:
          message = await asyncio.to_thread(self._read, key)
          await (answer if times < _TRIES else give_up)(message)
          self._drop(key)
        except Exception:  # the others can still be answered
          if not self.asleep:
            self._failed[key] = times + 1, time.monotonic() + _AGAIN_SECONDS * 2**times
            _log.exception('a message that came while it slept could not be answered')
      await asyncio.sleep(_AGAIN_SECONDS)

  def _is_new(self, key: str) -> bool:
    """Whether who has said it is about to wait for the answer."""
    return time.monotonic() - self._new.get(key, -math.inf) < _NEW_SECONDS

  # ---- On the disk ----

  def _keys(self) -> list[str]:
    return sorted(p.stem for p in self.directory.glob('*-*.json'))

  def _path(self, key: str) -> pathlib.Path:
    return self.directory / f'{key}.json'

  def _drop(self, key: str) -> None:
    if key:
      self._path(key).unlink(missing_ok=True)
      self._gone(key)

  def _gone(self, key: str) -> None:
    self._new.pop(key, None)
    self._failed.pop(key, None)
    self._known = {what: k for what, k in self._known.items() if k != key}

  def _write(self, key: str, message: Message) -> None:
    for s in message.shown:
      self._store.put(s.data)
    self.directory.mkdir(parents=True, exist_ok=True)
    temporary = self.directory / f'.{key}.tmp'
    try:
      with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'w') as f:
        json.dump(_plain(message), f)
        f.flush()
        os.fsync(f.fileno())
      temporary.rename(self._path(key))
    finally:
      temporary.unlink(missing_ok=True)
    handle = os.open(self.directory, os.O_RDONLY)
    try:
      os.fsync(handle)
    finally:
      os.close(handle)

  def _read(self, key: str) -> Message:
    with self._path(key).open() as f:
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


def _marked(message: Message, key: str) -> Message:
  return dataclasses.replace(message, metadata={**message.metadata, 'held': key})


def _plain(message: Message) -> dict[str, Any]:
  """All of it but the bytes of what it shows."""
  fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
  return fields | {
    'turns': [dataclasses.asdict(t) for t in message.turns],
    'sampler': dataclasses.asdict(message.sampler),
    'shown': [
      {'media': vars(s.media), 'metadata': dict(s.metadata), 'said': s.said} for s in message.shown
    ],
    'metadata': dict(message.metadata),
  }


def _fingerprint(message: Message) -> str:
  """By which one is told from others: all that was said, but not the seed, which is drawn."""
  fields = _plain(message)
  del fields['at'], fields['sampler']['seed']
  return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
