"""ChatGPT's data export: conversations as trees of messages, of which one branch was read last.

An export is a zip with conversations.json, since 2026 with conversations-000.json and on; each is
an array of conversations {id, title, create_time, current_node, mapping: {node: {parent,
message}}}. There is no official description; this follows what exports of 2023 to 2026 hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from dreaming.memory.imports import bounded, item
from dreaming.memory.imports.item import Item, Reading, Skipped, Source

FORMAT = 'chatgpt'
_SPOKEN = ('text', 'multimodal_text')  # content types; others are code, results, thoughts, settings


@dataclasses.dataclass(kw_only=True)
class _Turn:
  place: str
  id: str
  time: float
  text: str
  model: str = ''
  answers: list[str] = dataclasses.field(default_factory=list)


def fits(value: Any) -> bool:
  """Whether a JSON value is a conversation of this format."""
  return isinstance(value, dict) and isinstance(value.get('mapping'), dict)


def read(source: Source, reading: Reading) -> Iterator[Item | Skipped]:
  """What a user said and what was answered, along the branch that was read last."""
  for place, value in bounded.values(source, reading.limits):
    if isinstance(value, Skipped):
      yield value
    elif fits(value):
      yield from _conversation(value, f'{source.name}, {place}', reading)
    else:
      yield Skipped(place=place, why='is no conversation: it has no mapping', damaged=True)


def _conversation(c: Mapping[str, Any], place: str, reading: Reading) -> Iterator[Item | Skipped]:
  id = item.name(c.get('conversation_id')) or item.name(c.get('id'))
  title = item.name(c.get('title'))
  began = item.seconds(c.get('create_time')) or item.seconds(c.get('update_time'))
  turn: _Turn | None = None
  for node, message in _branch(c):
    at = f'{place}, message {node}'
    why, role, text = _heard(message)
    if why:
      yield Skipped(place=at, why=why)
      continue
    if role == 'assistant':
      if turn is None:
        yield Skipped(place=at, why='is an answer that no message of the user came before')
      else:
        turn.answers.append(text)
        turn.model = item.name((message.get('metadata') or {}).get('model_slug')) or turn.model
      continue
    if turn is not None:
      yield _item(turn, id, title, reading)
    turn, time = None, item.seconds(message.get('create_time')) or began
    if time is None:
      yield Skipped(place=at, why='has no time, and neither has its conversation', damaged=True)
      continue
    turn = _Turn(place=at, id=item.name(message.get('id')), time=time, text=text)
  if turn is not None:
    yield _item(turn, id, title, reading)


def _item(turn: _Turn, id: str, title: str, reading: Reading) -> Item:
  response = '\n\n'.join(turn.answers)
  # An answer may come after the export was made: then the next export's turn is another one.
  identity = (id, turn.id) if id and turn.id else (turn.time, turn.text, response)
  about = {'title': title, 'message': turn.id, 'model': turn.model}
  return Item(
    place=turn.place,
    key=item.digest(FORMAT, *identity, bool(response)),
    time=turn.time,
    speaker=reading.user,
    content=turn.text,
    response=response,
    session=f'{FORMAT}/{id or title or "unnamed"}',
    metadata={k: v for k, v in about.items() if v},
  )


def _branch(c: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
  """(node, message) from the root to the node that was read last; a cycle ends it."""
  mapping = c['mapping']
  node = c.get('current_node')
  if not isinstance(node, str) or node not in mapping:  # then the node that came last
    node = next(reversed(mapping), None)
  found, seen = [], set()
  while isinstance(node, str) and node not in seen and isinstance(mapping.get(node), dict):
    seen.add(node)
    message = mapping[node].get('message')
    if isinstance(message, dict):
      found.append((node[:60], message))
    node = mapping[node].get('parent')
  return found[::-1]


def _heard(message: Mapping[str, Any]) -> tuple[str, str, str]:
  """(why it is left out, role, text) of a message."""
  author, content = message.get('author'), message.get('content')
  metadata = message.get('metadata')
  role = item.name(author.get('role')) if isinstance(author, dict) else ''
  if role not in ('user', 'assistant'):
    return f'is of the {role or "unnamed"} role, not said by anyone', role, ''
  if isinstance(metadata, dict) and metadata.get('is_visually_hidden_from_conversation'):
    return 'was hidden in the conversation', role, ''
  if message.get('recipient') not in (None, 'all'):
    return 'is a call of a tool', role, ''
  if not isinstance(content, dict) or content.get('content_type') not in _SPOKEN:
    kind = item.name(content.get('content_type')) if isinstance(content, dict) else ''
    return f'is {kind or "content of no type"}, not said', role, ''
  parts = content.get('parts')
  texts = [_part(p) for p in parts] if isinstance(parts, list) else []
  text = '\n'.join(t for t in texts if t)
  pictures = any(isinstance(p, dict) for p in parts or ()) if isinstance(parts, list) else False
  empty = 'has only pictures or files: texts are imported' if pictures else 'is empty'
  return ('' if text else empty), role, text


def _part(part: Any) -> str:
  """A part's text: itself, or what was understood of speech."""
  return item.text(part.get('text')) if isinstance(part, dict) else item.text(part)
