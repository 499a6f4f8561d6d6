"""Pictures and voice notes that come with a message: out of the request, perceived, into the diary.

They come as OpenAI's parts of the last message: `image_url` with a data: URL (nothing is fetched),
`input_audio` with its base64. What is said in a voice note is the message itself, the user's own
words. What stands in a picture is others': it is logged beside the message, as an observation.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from dreaming.agent import Agent
from dreaming.memory.senses import media as media_lib
from dreaming.memory.senses import perception
from dreaming.serve.access import Refused
from dreaming.types import Experience, Media, Trust

_MOST = 4  # of a message
_WAITING = 8  # messages that are looked at or wait for that


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
  """One picture or voice note, perceived; `said` are the words of a voice note."""

  media: Media
  metadata: Mapping[str, Any]
  data: bytes = dataclasses.field(repr=False)
  said: str = ''

  def plain(self) -> dict[str, Any]:
    """For the answer."""
    return {**vars(self.media), **({'said': self.said} if self.said else {})}


class _Part(NamedTuple):
  kind: str
  data: str  # base64


def parts(messages: Sequence[Mapping[str, Any]]) -> list[_Part]:
  """Of the last message: earlier ones are in the diary. Raises Refused."""
  found: list[_Part] = []
  for message in reversed(messages):
    if message['role'] != 'user':
      break
    content = message.get('content')
    for part in content if isinstance(content, list) else ():
      if part['type'] == 'image_url':
        found.append(_Part('image', _of_url(part['image_url']['url'])))
      elif part['type'] == 'input_audio':
        found.append(_Part('audio', part['input_audio']['data']))
  if len(found) > _MOST:
    line = f'{len(found)} pictures and voice notes, a message may have {_MOST}: send several'
    raise Refused(422, line, 'invalid_value')
  return found


def _of_url(url: str) -> str:
  head, comma, data = url.partition(',')
  if not comma or not head.startswith('data:image/') or not head.endswith(';base64'):
    line = f'image_url: {url[:60]!r} is not fetched: give data:image/png;base64,... or the like'
    raise Refused(422, line, 'invalid_image_url')
  return data


def size(body: Mapping[str, Any]) -> int:
  """Characters of a chat's body that are pictures and sounds."""
  contents = (m.get('content') for m in body['messages'])
  given = (part for c in contents if isinstance(c, list) for part in c)
  return sum(
    len(p['image_url']['url'] if p['type'] == 'image_url' else p['input_audio']['data'])
    for p in given
    if p['type'] != 'text'
  )


class Senses:
  """Looks and listens on a thread of its own, one after the other, while others talk.

  Args:
    agent: whose limits count and whose store keeps what is logged.
    limit: bytes that the pictures and voice notes of a message may have together.
    asleep: whether no weights are to be read.
  """

  def __init__(self, agent: Agent, limit: int, asleep: Callable[[], bool] = lambda: False):
    self._agent, self._limit, self._asleep = agent, limit, asleep
    self._thread = ThreadPoolExecutor(1, thread_name_prefix='senses')
    self._waiting = 0

  @property
  def there(self) -> dict[str, bool]:
    """Kind -> whether a message may come with one."""
    return {kind: there and self._limit > 0 for kind, there in self._agent.senses.items()}

  async def perceive(self, given: Sequence[_Part]) -> tuple[Shown, ...]:
    """Raises Refused, and OSError where the extra `senses` is missing. Nothing is kept."""
    if not given:
      return ()
    if (size := sum(len(p.data) for p in given) * 3 // 4) > self._limit:
      line = f'pictures and voice notes of {size:,} bytes, the limit is {self._limit:,}'
      raise Refused(413, f'{line} (serve.max_media_bytes): shrink them', 'body_too_large')
    if self._waiting >= _WAITING:  # each holds its bytes
      line = f'{_WAITING} messages with pictures or voice notes are looked at: try again'
      raise Refused(429, line, 'queue_full', {'Retry-After': '5'})
    self._waiting += 1
    try:
      return await asyncio.get_running_loop().run_in_executor(self._thread, self._perceive, given)
    finally:
      self._waiting -= 1

  def _perceive(self, given: Sequence[_Part]) -> tuple[Shown, ...]:
    return tuple(self._one(i, part) for i, part in enumerate(given, 1))

  def _one(self, number: int, part: _Part) -> Shown:
    try:
      data = base64.b64decode(part.data, validate=True)
      kind, _ = media_lib.kind(data)
      if kind != part.kind:
        raise ValueError(f'it is no {part.kind}, but {kind}')
      media, metadata = self._agent.sense(data, wake=not self._asleep())
      said = ''
      if kind == 'audio':
        said, media = perception.spoken(media, metadata)
    except (ValueError, binascii.Error) as e:
      raise Refused(422, f'{part.kind} {number}: {e}', 'invalid_media') from None
    return Shown(media=media, metadata=metadata, data=data, said=said)

  def close(self) -> None:
    self._thread.shutdown(wait=True, cancel_futures=True)


def worded(text: str, shown: Sequence[Shown]) -> str:
  """The message: what was written, and what was said."""
  words = [text.strip(), *(s.said for s in shown)]
  silent = [perception.WORDS[s.media.kind] for s in shown if not s.said][:1]
  return '\n'.join(filter(None, words)) or ''.join(silent)


def seen(shown: Sequence[Shown], user: str) -> list[Experience]:
  """The pictures as experiences that are in no diary yet."""
  return [
    Experience(
      id=0, time=time.time(), kind='observation', speaker=user, content=perception.WORDS['image'],
      media=(s.media,), trust=Trust.THIRD_PARTY,
    )
    for s in shown if s.media.kind == 'image'
  ]  # fmt: skip


def log(agent: Agent, text: str, reply: str, shown: Sequence[Shown], **fields: Any) -> Experience:
  """Keeps what is shown, then the message; returns what `Agent.observe` does of that.

  Args:
    fields: of the message, as `Agent.observe` takes them; `metadata`, `user`, `session` at least.
  """
  for s in shown:
    agent.media.put(s.data)
  metadata, user = dict(fields.pop('metadata')), fields['user']
  notes, pictures = ([s for s in shown if s.media.kind == k] for k in ('audio', 'image'))
  if notes:
    metadata['media'] = [dict(s.metadata) for s in notes]
  if pictures:
    metadata['shown'] = [
      _observed(agent, e, s, metadata.get('held'), now=fields.get('now'), session=fields['session'])
      for s, e in zip(pictures, seen(pictures, user), strict=True)
    ]
  media = tuple(s.media for s in notes)
  return agent.observe(text, reply, metadata=metadata, media=media, **fields)


def _observed(
  agent: Agent, e: Experience, s: Shown, key: str | None, *, now: float | None, session: str
) -> int:
  """A picture as an experience; of a message that waited (`key`) the one that it is already."""
  beside = {} if key is None else {'beside': key}
  for known in agent.diary.experiences(since=now) if key else ():
    if known.metadata.get('beside') == key and known.media == e.media:
      return known.id
  metadata = {'media': [dict(s.metadata)], **beside}
  how = {'kind': e.kind, 'media': e.media, 'trust': e.trust, 'metadata': metadata}
  return agent.observe(e.content, user=e.speaker, now=now, session=session, **how).id
