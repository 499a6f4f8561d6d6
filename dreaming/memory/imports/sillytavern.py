"""SillyTavern's chats: JSON Lines, a header, then a line for each message.

{"user_name", "character_name", "create_date", "chat_metadata"}, then {"name", "is_user",
"is_system", "send_date", "mes", "swipes"}. Of several answers to a message, `mes` is the one that
was chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from dreaming.memory.imports import bounded, item
from dreaming.memory.imports.item import Item, Reading, Refused, Skipped, Source

FORMAT = 'sillytavern'


@dataclasses.dataclass(kw_only=True)
class _Turn:
  place: str
  time: float
  speaker: str
  text: str
  date: Any
  count: int
  answers: list[tuple[str, str]] = dataclasses.field(default_factory=list)  # (name, text)


def fits(value: Any) -> bool:
  """Whether a JSON value is a line of this format."""
  return isinstance(value, dict) and (
    isinstance(value.get('mes'), str)
    or ('chat_metadata' in value or 'user_name' in value and 'character_name' in value)
  )


def read(source: Source, reading: Reading) -> Iterator[Item | Skipped]:
  """What the user wrote with the characters' answers; a greeting is an observation."""
  header: Mapping[str, Any] = {}
  turn: _Turn | None = None
  minute, counts = None, {}  # equal messages of one date are told apart by their order
  for place, line in bounded.lines(source, reading.limits):
    if isinstance(line, Skipped):
      yield line
      continue
    try:
      value = bounded.parse(line, reading.limits, at=place)
    except Refused as e:
      yield Skipped(place=place, why=str(e).removeprefix(f'{place}: '), damaged=True)
      continue
    if not fits(value):
      yield Skipped(place=place, why='is no message: it has no mes', damaged=True)
      continue
    if not isinstance(value.get('mes'), str):
      header = value
      continue
    why, time, text = _heard(value, header)
    if why:
      yield Skipped(place=place, why=why, damaged=time is None)
      continue
    who, date = item.name(value.get('name')), value.get('send_date')
    is_user = bool(value.get('is_user'))
    if not is_user and turn is not None:
      turn.answers.append((who, text))
      continue
    if turn is not None:
      yield _item(turn, header, 'chat')
    if date != minute:
      minute, counts = date, {}
    count = counts[who, text] = counts.get((who, text), -1) + 1
    speaker = who or (reading.user if is_user else 'the character')
    now = _Turn(place=place, time=time, speaker=speaker, text=text, date=date, count=count)
    turn = now if is_user else None
    if not is_user:
      yield _item(now, header, 'observation')
  if turn is not None:
    yield _item(turn, header, 'chat')


def _heard(value: Mapping[str, Any], header: Mapping[str, Any]) -> tuple[str, float | None, str]:
  """(why it is left out, time, text) of a message."""
  text = item.text(value['mes'])
  time = item.seconds(value.get('send_date'))
  if time is None:
    time = item.seconds(header.get('create_date'))
  if time is None:
    return f'has no time that is known: {str(value.get("send_date"))[:40]!r}', None, text
  if value.get('is_system'):
    return 'is of the system, hidden from the chat', time, text
  return ('' if text else 'is empty'), time, text


def _item(turn: _Turn, header: Mapping[str, Any], kind: str) -> Item:
  names = {name for name, _ in turn.answers}
  group = len(names) > 1
  response = '\n\n'.join(f'{name}: {text}' if group else text for name, text in turn.answers)
  character = item.name(header.get('character_name'))
  about = {'character': character, 'answered by': ', '.join(sorted(names))}
  # Without the chat's name: a branch of a chat repeats what came before it, and so does its copy.
  identity = character, turn.date, turn.speaker, turn.text, turn.count, bool(response)
  return Item(
    place=turn.place,
    key=item.digest(FORMAT, *identity),
    time=turn.time,
    kind=kind,
    speaker=turn.speaker,
    content=turn.text,
    response=response,
    session=f'{FORMAT}/{character or "unnamed"}/{item.name(str(header.get("create_date", "")))}',
    metadata={k: v for k, v in about.items() if v},
  )
