"""Where sentences end: at stops and line breaks, never within 'Dr. Silva', '10 a.m.' or 'No. 5'."""

from __future__ import annotations

import re
from collections.abc import Iterator

# What closes a sentence: stops and closing quotes before white space or the end of the line.
_STOP = re.compile(r'[.!?…]+["\'”’)\]]*(?=\s|$)')
_INITIALS = re.compile(r'[^\W\d_](\.[^\W\d_])*')  # 'J', 'a.m', 'e.g', 'U.S'
_TITLES = frozenset('dr mr mrs ms prof st mt rev gen capt vs ca approx'.split())
_BEFORE_NUMBERS = frozenset('no nr jan feb mar apr jun jul aug sep sept oct nov dec'.split())


def _goes_on(before: str, stop: str, after: str) -> bool:
  """Whether the sentence goes on over `stop`: an abbreviation, a list number, an ellipsis."""
  word = before.split()[-1].strip('("\'“‘[').casefold() if before.strip() else ''
  if stop in ('...', '…'):
    return after[:1].islower()
  return stop == '.' and (
    word in _TITLES
    or _INITIALS.fullmatch(word) is not None
    or (word in _BEFORE_NUMBERS and after[:1].isdigit())
    or not any(c.isalpha() for c in before)
  )


def split(text: str) -> list[str]:
  """All sentences, without the white space between them; a line break always ends one."""
  return list(_each(text))


def first(text: str) -> str:
  """'See Dr. Silva at 10 a.m. on Friday. Bye.' without its 'Bye.'; '' of nothing."""
  return next(_each(text), '')


def _each(text: str) -> Iterator[str]:
  for line in filter(None, map(str.strip, text.splitlines())):
    begin = 0
    for stop in _STOP.finditer(line):
      if not _goes_on(line[begin : stop.start()], stop.group(), line[stop.end() :].lstrip()):
        yield line[begin : stop.end()].strip()
        begin = stop.end()
    if line[begin:].strip():
      yield line[begin:].strip()
