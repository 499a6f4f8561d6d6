"""Character cards V1, V2 and V3: JSON, or base64 in a PNG's `chara` or `ccv3` text.

A card is somebody's description, never something lived: what is taken from it are observations. Its
orders to a model (system prompt and the like) and its invented dialogues are left out.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dreaming.memory.imports import bounded, item, png
from dreaming.memory.imports.item import Item, Reading, Refused, Skipped, Source

FORMAT = 'card'
_TOLD = ('description', 'personality', 'scenario')
_LEFT = {
  'mes_example': 'is an example of a dialogue that never was',
  'system_prompt': 'is an order to a model',
  'post_history_instructions': 'is an order to a model',
  'creator_notes': 'is a note for people who use the card',
  'alternate_greetings': 'are further first messages; one is taken',
}


def fits(value: Any) -> bool:
  """Whether a JSON value is a card."""
  if not isinstance(value, dict):
    return False
  if item.text(value.get('spec')).startswith('chara_card_'):
    return isinstance(value.get('data'), dict)
  return isinstance(value.get('name'), str) and isinstance(value.get('first_mes'), str)


def read(source: Source, reading: Reading) -> Iterator[Item | Skipped]:
  """A card as JSON."""
  for place, value in bounded.values(source, reading.limits):
    if isinstance(value, Skipped):
      yield value
    elif fits(value):
      yield from _card(value, reading)
    else:
      yield Skipped(place=place, why='is no character card', damaged=True)


def read_png(source: Source, reading: Reading) -> Iterator[Item | Skipped]:
  """The card in a picture; where there are two, the newer format counts."""
  found: dict[str, bytes] = {}
  for keyword, text in png.texts(source, reading.limits):
    if keyword.lower() in ('chara', 'ccv3'):
      found.setdefault(keyword.lower(), text)
  if not found:
    raise Refused(f'{source.name} is a picture without a character card: import the original')
  keyword = 'ccv3' if 'ccv3' in found else 'chara'
  at = f'{source.name}, {keyword}'
  try:
    raw = base64.b64decode(found[keyword].strip(), validate=True)
    raw.decode()
  except (binascii.Error, ValueError) as e:
    raise Refused(f'{at} is damaged ({e})') from None
  value = bounded.parse(raw, reading.limits, at=at)
  if not fits(value):
    raise Refused(f'{at} is no character card')
  yield from _card(value, reading)


def _card(card: Mapping[str, Any], reading: Reading) -> Iterator[Item | Skipped]:
  data = card['data'] if isinstance(card.get('data'), dict) else card
  name = item.name(data.get('name')) or 'the character'
  author = item.name(data.get('creator')) or 'a character card'
  for field in _TOLD:
    if text := item.text(data.get(field)):
      yield _item(name, field, text, author, reading)
  if text := item.text(data.get('first_mes')):
    yield _item(name, 'first_mes', text, name, reading)
  for field, why in _LEFT.items():
    if data.get(field):
      yield Skipped(place=f'{name}, {field}', why=why)
  book = data.get('character_book')
  entries = book.get('entries') if isinstance(book, dict) else None
  for number, entry in enumerate(entries if isinstance(entries, list) else (), 1):
    place = f'{name}, lorebook entry {number}'
    if not isinstance(entry, dict) or not item.text(entry.get('content')):
      yield Skipped(place=place, why='is empty')
    elif entry.get('enabled') is False:
      yield Skipped(place=place, why='is switched off')
    else:
      keys = entry.get('keys')
      keys = [item.name(k) for k in keys if item.name(k)] if isinstance(keys, list) else []
      text = item.text(entry['content'])
      yield _item(name, f'lorebook entry {number}', text, author, reading, keys=keys)


def _item(
  name: str, field: str, text: str, speaker: str, reading: Reading, keys: list[str] | None = None
) -> Item:
  key = item.digest(FORMAT, name, field.rstrip(' 0123456789'), text)
  text = re.sub(r'\{\{char\}\}|<bot>', lambda _: name, text, flags=re.I)
  text = re.sub(r'\{\{user\}\}|<user>', lambda _: reading.user, text, flags=re.I)
  about = {'character': name, 'field': field} | ({'keys': keys} if keys else {})
  return Item(
    place=f'{name}, {field}',
    key=key,
    time=reading.now,
    kind='observation',
    speaker=speaker,
    content=text,
    session=f'{FORMAT}/{name}',
    metadata=about,
  )
