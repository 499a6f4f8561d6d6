"""What every reader yields, what it may cost, and how names, texts and times are taken.

A reader is a generator over one source: an Item for each experience, a Skipped for each part that
is none, in the order of the file. It raises Refused where nothing after this place can be read.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from dreaming import types

MIB = 2**20


class Refused(ValueError):
  """A file, or the rest of it, that is not imported; the message says why and the way out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """What an import may cost; a file that asks for more is refused, with the limit's name."""

  file_bytes: int = 8 * 1024 * MIB  # on the disk; an archive may hold many pictures
  inflated_bytes: int = 4 * 1024 * MIB  # of all that is read from an archive
  ratio: int = 200  # inflated to compressed; chat logs stay below 30
  directory_bytes: int = 8 * MIB  # of a zip's list of entries
  entries: int = 50_000  # in a zip
  value_bytes: int = 16 * MIB  # of one JSON value: a conversation, a card
  line_bytes: int = 8 * MIB  # of one line of JSONL
  values: int = 1_000_000  # strings and brackets in one JSON value: each becomes an object
  depth: int = 100  # of nested JSON
  chunks: int = 10_000  # in a PNG
  pixels: int = 100_000_000  # of a PNG: they are never decoded, and no card needs as many


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
  """An experience that a file tells, not yet in the diary."""

  place: str  # in the file, for people
  key: str  # the same for the same experience, in this file and in later ones
  time: float
  speaker: str
  content: str
  response: str = ''
  kind: str = 'chat'
  session: str = ''
  metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # see run.py for `source`
  media: tuple[types.Media, ...] = ()
  scores: types.Scores | None = None
  exact: bool = False  # the diary may have it as lived: told by its time and words


@dataclasses.dataclass(frozen=True, kw_only=True)
class Skipped:
  """A part of a file that is not imported."""

  place: str
  why: str
  damaged: bool = False  # it should have been an experience, and could not be read as one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
  """What a reader knows besides the file."""

  user: str  # whose words a user's messages are where the file does not say
  now: float  # when something happened where the file has no time
  limits: Limits = Limits()


class Source(Protocol):
  """A file, or an entry of an archive, that can be read more than once."""

  name: str
  size: int

  def chunks(self) -> Iterator[bytes]: ...


Reader = Callable[[Source, Reading], Iterator[Item | Skipped]]


def digest(*parts: Any) -> str:
  """A key: SHA-256 over plain values, hex."""
  return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def text(value: Any) -> str:
  """A text without what surrounds it; '' for anything else than a text."""
  return value.strip() if isinstance(value, str) else ''


def name(value: Any) -> str:
  """A name on one line; '' for anything else."""
  return ' '.join(value.split())[:200] if isinstance(value, str) else ''


def file_name(path: pathlib.Path) -> str:
  """A file's name as a name: on the disk it may be no Unicode, and the diary keeps nothing else."""
  return name(path.name.encode(errors='replace').decode())


# ---- Times ----

_HUMANIZED = re.compile(
  r'(\d{4})-(\d{1,2})-(\d{1,2}) ?@ ?(\d{1,2})h ?(\d{1,2})m ?(\d{1,2})s(?: ?(\d{1,3})ms)?'
)
_SPELLED = re.compile(r'([A-Z][a-z]+) (\d{1,2}), (\d{4}),? (\d{1,2}):(\d{2}) ?([ap]m)', re.I)
_MONTHS = 'jan feb mar apr may jun jul aug sep oct nov dec'.split()
_MILLISECONDS = 1e11  # a number from there on counts them: as seconds it would be the year 5138


def seconds(value: Any) -> float | None:
  """A moment in Unix seconds, None where it is none that is known.

  Numbers are seconds, or milliseconds when they are that large. Texts are ISO 8601, or what
  SillyTavern has written over the years: '2023-10-16 @22h 31m 12s 345ms', which is UTC, and
  'June 19, 2023 4:13pm', which like any text without a zone is this machine's local time.
  """
  try:
    if isinstance(value, str):
      number = float(value) if re.fullmatch(r'\d{9,16}(\.\d*)?', value.strip()) else None
      if number is None:
        return _written(value.strip()).timestamp()
      value = number
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
      return None
    return float(value) / 1000 if value >= _MILLISECONDS else float(value)
  except (ValueError, OverflowError, OSError):
    return None


def _written(value: str) -> datetime.datetime:
  if m := _HUMANIZED.fullmatch(value):
    *parts, ms = (int(g or 0) for g in m.groups())
    return datetime.datetime(*parts, ms * 1000, tzinfo=datetime.UTC)
  if m := _SPELLED.fullmatch(value):
    month = _MONTHS.index(m[1][:3].lower()) + 1
    hour = int(m[4]) % 12 + 12 * (m[6].lower() == 'pm')
    return datetime.datetime(int(m[3]), month, int(m[2]), hour, int(m[5]))
  return datetime.datetime.fromisoformat(value)
