"""Plain JSON Lines: what our own export writes, or as little as time, speaker and content."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from dreaming import types
from dreaming.memory.imports import bounded, item
from dreaming.memory.imports.item import Item, Reading, Refused, Skipped, Source

FORMAT = 'jsonl'
_KINDS = ('', 'chat', 'observation', 'reflection')  # what an export has; '' is a chat
_PARTS = ('importance', 'novelty', 'emotion', 'feedback')


def fits(value: Any) -> bool:
  """Whether a JSON value is a line of this format."""
  return isinstance(value, dict) and isinstance(value.get('content'), str) and 'time' in value


def read(source: Source, reading: Reading) -> Iterator[Item | Skipped]:
  """One experience a line; a line that is none is told, and the next one is read."""
  for place, line in bounded.lines(source, reading.limits):
    if isinstance(line, Skipped):
      yield line
      continue
    try:
      value = bounded.parse(line, reading.limits, at=place)
      yield _item(value, place, source, reading)
    except Refused as e:
      yield Skipped(place=place, why=str(e).removeprefix(f'{place}: '), damaged=True)


def _item(value: Any, place: str, source: Source, reading: Reading) -> Item:
  if not isinstance(value, dict):
    raise Refused('is no object')
  texts = {k: value.get(k, '') for k in ('content', 'response', 'speaker', 'session', 'kind')}
  for field, text in texts.items():
    if not isinstance(text, str):
      raise Refused(f'{field} is {str(text)[:40]!r}: give a text')
  time = item.seconds(value.get('time'))
  if time is None:
    raise Refused(f'time is {str(value.get("time"))[:40]!r}: give Unix seconds or ISO 8601')
  if texts['kind'] not in _KINDS:
    raise Refused(f"kind is {texts['kind'][:40]!r}: give 'chat', 'observation' or 'reflection'")
  metadata = value.get('metadata') or {}
  if not isinstance(metadata, dict):
    raise Refused('metadata is no object')
  speaker = texts['speaker'] or reading.user
  return Item(
    place=place,
    key=item.digest(FORMAT, time, speaker, texts['content'], texts['response']),
    time=time,
    kind=texts['kind'] or 'chat',
    speaker=speaker,
    content=texts['content'],
    response=texts['response'],
    session=texts['session'] if 'session' in value else f'{FORMAT}/{source.name}',
    metadata=metadata,
    media=_media(value.get('media')),
    scores=_scores(value.get('scores')),
    exact=True,
  )


def _media(value: Any) -> tuple[types.Media, ...]:
  found = []
  for m in value if isinstance(value, list) else ():
    fields = {k: m.get(k, '') for k in ('kind', 'digest', 'description')} if _plain(m) else {}
    if not fields or not all(isinstance(v, str) for v in fields.values()) or not fields['digest']:
      raise Refused('media has an entry without a kind and a digest')
    found.append(types.Media(**fields))
  return tuple(found)


def _scores(value: Any) -> types.Scores | None:
  if value is None:
    return None
  if not _plain(value) or not isinstance(value.get('rater', ''), str):
    raise Refused('scores is no object with a rater')
  parts = {k: value.get(k, 0.0) for k in _PARTS}
  for k, v in parts.items():
    number = isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)
    if not number or not 0 <= v <= 10 or (k == 'importance' and v < 1):
      raise Refused(f'scores.{k} is {str(v)[:20]}: give a number from 1 to 10')
  return types.Scores(**{k: float(v) for k, v in parts.items()}, rater=value.get('rater', ''))


def _plain(value: Any) -> bool:
  return isinstance(value, Mapping)
