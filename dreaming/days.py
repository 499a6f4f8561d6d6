"""A day as a JSON file: what was said and what to ask afterwards (format: days/README.md)."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from dreaming.brain import sentences

MAX_FILE_BYTES = 10_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interaction:
  """One message of the day; `response` is '' where the agent is to answer live."""

  time: float  # Unix seconds; a time without an offset counts as UTC
  text: str
  response: str = ''
  user: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
  """A question about the day, with every accepted short answer."""

  question: str
  answers: tuple[str, ...]
  about: tuple[int, ...]  # indices of the interactions that tell the fact; one fact, one `about`


@dataclasses.dataclass(frozen=True, kw_only=True)
class NeverMentioned:
  """A question that the day does not answer, and the day's facts that would be an invention."""

  question: str
  wrong: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Day:
  interactions: tuple[Interaction, ...]
  user: str = ''
  probes: tuple[Probe, ...] = ()
  never_mentioned: tuple[NeverMentioned, ...] = ()
  path: pathlib.Path = pathlib.Path()


# --- Answers -------------------------------------------------------------------------------------


def _fold(text: str) -> str:
  text = unicodedata.normalize('NFC', unicodedata.normalize('NFC', text).casefold())
  return ' '.join(text.replace('’', "'").split())


def is_right(reply: str, answers: Sequence[str]) -> bool:
  """Whether one of `answers` stands in the first sentence of `reply`, as whole words, case folded.

  Accents count ('Ines' is not 'Inés'); a number is whole: '19' is neither in '19.5' nor '1,019'.
  """
  if isinstance(answers, str):
    raise ValueError(f'answers is the text {answers!r}: pass a list of accepted answers')
  sentence = _fold(sentences.first(reply))
  for answer in map(_fold, answers):
    left = r'(?<!\w)' + (r'(?<!\d[.,:])' if answer[:1].isdigit() else '')
    right = r'(?!\w)' + (r'(?![.,:]\d)' if answer[-1:].isdigit() else '')
    if answer and re.search(left + re.escape(answer) + right, sentence):
      return True
  return False


# --- Files ---------------------------------------------------------------------------------------

_Parser = Callable[[str, Any], Any]  # (where it stands, JSON value) -> checked value


def _fail(where: str, value: Any, way_out: str) -> ValueError:
  shown = ascii(value)
  return ValueError(f'{where} is {shown if len(shown) <= 60 else shown[:57] + "..."}: {way_out}')


def _text(where: str, value: Any) -> str:
  surrogates = isinstance(value, str) and any('\ud800' <= c <= '\udfff' for c in value)
  if not isinstance(value, str) or not value.strip() or surrogates:
    raise _fail(where, value, 'give a text that is not empty, in whole Unicode characters')
  return value


def _response(where: str, value: Any) -> str:
  return '' if value == '' else _text(where, value)


def _index(where: str, value: Any) -> int:
  if type(value) is not int:  # a bool is an int, but no index
    raise _fail(where, value, 'give the index of an interaction')
  return value


def _time(where: str, value: Any) -> float:
  try:
    time = datetime.datetime.fromisoformat(value)
    return time.replace(tzinfo=time.tzinfo or datetime.UTC).timestamp()
  except (TypeError, ValueError, OverflowError):
    raise _fail(where, value, 'give an ISO 8601 time such as 2026-03-02T09:10:00') from None


def _list(item: _Parser, *, empty: bool = False) -> _Parser:
  def parse(where: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list) or not (value or empty):
      raise _fail(where, value, 'give a list' + ('' if empty else ' of at least one'))
    return tuple(item(f'{where}[{i}]', v) for i, v in enumerate(value))

  return parse


def _object(cls: type, **fields: _Parser) -> _Parser:
  def parse(where: str, value: Any) -> Any:
    if not isinstance(value, dict):
      raise _fail(where, value, f'give an object with the fields {", ".join(fields)}')
    for name in value:
      if name not in fields:
        raise _fail(f'{where}: field', name, f'unknown, the fields are {", ".join(fields)}')
    for field in dataclasses.fields(cls):
      if field.default is dataclasses.MISSING and field.name not in value:
        raise _fail(where, value, f'add the field {field.name!r}')
    return cls(**{name: fields[name](f'{where}: {name}', v) for name, v in value.items()})

  return parse


_INTERACTION = _object(Interaction, time=_time, text=_text, response=_response, user=_text)
_PROBE = _object(Probe, question=_text, answers=_list(_text), about=_list(_index))
_NEVER = _object(NeverMentioned, question=_text, wrong=_list(_text))
_DAY = _object(
  Day,
  user=_text,
  interactions=_list(_INTERACTION),
  probes=_list(_PROBE, empty=True),
  never_mentioned=_list(_NEVER, empty=True),
)


def load(path: str | pathlib.Path, *, user: str = 'User') -> Day:
  """Reads a day; `user` is who talks where the file does not say.

  Raises FileNotFoundError for a missing file and ValueError for a bad one, in one line that names
  the file, the field, its value and the way out. How long a message may be is not checked here.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'no day at {path}: give a JSON file (see days/README.md)')
  if (size := path.stat().st_size) > MAX_FILE_BYTES:
    raise _fail(f'{path}: size in bytes', size, f'the limit is {MAX_FILE_BYTES}, split the day')
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, RecursionError) as e:  # bad UTF-8 and bad JSON are both ValueErrors
    raise ValueError(f'{path} is not JSON in UTF-8 ({e}): repair it') from None
  day = _DAY(f'{path}', value)
  talk = day.interactions
  for i in range(1, len(talk)):
    if talk[i].time < talk[i - 1].time:
      where, shown = f'{path}: interactions[{i}]: time', value['interactions'][i]['time']
      raise _fail(where, shown, 'earlier than the one before it, sort them')
  for i, probe in enumerate(day.probes):
    for index in probe.about:
      if not 0 <= index < len(talk):
        raise _fail(f'{path}: probes[{i}]: about', index, f'give 0 to {len(talk) - 1}')
  user = day.user or user
  talk = tuple(dataclasses.replace(x, user=x.user or user) for x in talk)
  return dataclasses.replace(day, user=user, interactions=talk, path=path)
