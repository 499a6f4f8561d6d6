"""JSON and JSON Lines from a stream, with bounds on all that a value can cost.

The standard library's parser reads a value once its extent, depth and number of parts are known. A
streaming parser would hold less text but does not bound what it builds: ijson took 2 GiB for 100 MB
of '[],[],' and half a minute for one string of that size.
"""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

from dreaming.memory.imports.item import Limits, Refused, Skipped, Source

_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.S)  # up to its quote, or as far as there is text
_MARK = re.compile(rb'["\[\]{}]')
_MARK_OR_COMMA = re.compile(rb'["\[\]{},]')
_OUTSIDE = re.compile(rb'[^\s,]')
_ENCODINGS = (  # the longer ones first: UTF-32's begins with UTF-16's
  (codecs.BOM_UTF32_LE, 'UTF-32'),
  (codecs.BOM_UTF32_BE, 'UTF-32'),
  (codecs.BOM_UTF8, 'utf-8'),
  (codecs.BOM_UTF16_LE, 'utf-16-le'),
  (codecs.BOM_UTF16_BE, 'utf-16-be'),
)


class NoText(Refused):
  """In no encoding that is read."""


# ---- Encodings ----


def utf8(source: Source) -> Iterator[bytes]:
  """The text of a source as UTF-8 without a mark, checked; UTF-16 needs one.

  Raises:
    NoText: another encoding, with the byte at which it shows.
  """
  chunks = source.chunks()
  first = next(chunks, b'')
  while len(first) < 4 and (more := next(chunks, b'')):
    first += more
  encoding, mark = 'utf-8', b''
  for mark_, name in _ENCODINGS:
    if first.startswith(mark_):
      encoding, mark = name, mark_
      break
  if encoding == 'UTF-32':
    raise NoText(f'{source.name} is UTF-32 (byte 0): save it as UTF-8')
  if not mark and (zero := first[:64].find(0)) >= 0:
    raise NoText(
      f'{source.name} has a zero at byte {zero}: it is no text, or UTF-16 without a mark; save it '
      'as UTF-8'
    )
  decoder = codecs.getincrementaldecoder(encoding)()
  done = len(mark)
  for chunk in itertools.chain((first[len(mark) :],), chunks):
    waiting = len(decoder.getstate()[0])
    try:
      decoded = decoder.decode(chunk)
      yield chunk if encoding == 'utf-8' else decoded.encode()
    except UnicodeError as e:
      at = done - waiting + getattr(e, 'start', 0)
      raise NoText(
        f'{source.name} is not {encoding.upper()} at byte {at:,}: save it as UTF-8'
      ) from None
    done += len(chunk)


# ---- Values ----


def parse(raw: bytes | bytearray, limits: Limits, *, at: str) -> Any:
  """One JSON value, measured before it is built.

  Args:
    at: its place, for the message.

  Raises:
    Refused: too deep, too many parts, or no JSON.
  """
  depth = parts = pos = 0
  while m := _MARK.search(raw, pos):
    pos, mark, parts = m.end(), m[0], parts + 1
    if mark == b'"':
      pos = _STRING.match(raw, pos).end() + 1
    else:
      depth += 1 if mark in b'[{' else -1
    if why := _too_much(depth, parts, limits):
      raise Refused(f'{at}: {why}')
  return _load(raw, at)


def _too_much(depth: int, parts: int, limits: Limits) -> str:
  if depth > limits.depth:
    return f'nested more than {limits.depth} deep (depth)'
  if parts > limits.values:
    return f'more than {limits.values:,} parts in one value (values)'
  return ''


def _load(raw: bytes | bytearray, at: str) -> Any:
  try:
    return json.loads(raw, parse_constant=_no_number)
  except RecursionError:
    raise Refused(f'{at}: nested too deeply') from None
  except json.JSONDecodeError as e:
    raise Refused(f'{at}: no JSON ({e.msg} at character {e.pos:,})') from None
  except ValueError as e:
    raise Refused(f'{at}: no JSON ({str(e)[:80]})') from None


def _no_number(constant: str) -> Any:
  raise ValueError(f'{constant} is no number of JSON')


# ---- Lines ----


def lines(source: Source, limits: Limits) -> Iterator[tuple[str, bytes | Skipped]]:
  """(place, line) of each line that is not empty; one that is too long comes as Skipped."""
  number, dropped, held = 1, 0, bytearray()
  for chunk in utf8(source):
    for i, piece in enumerate(chunk.split(b'\n')):
      if i:
        yield from _line(number, held, dropped, limits)
        number, dropped, held = number + 1, 0, bytearray()
      held += piece
      if dropped or len(held) > limits.line_bytes:
        dropped += len(held)
        held.clear()
  yield from _line(number, held, dropped, limits)


def _line(
  number: int, held: bytearray, dropped: int, limits: Limits
) -> Iterator[tuple[str, bytes | Skipped]]:
  place = f'line {number}'
  if dropped:
    why = f'has {dropped:,} bytes, the limit is {limits.line_bytes:,} (line_bytes)'
    yield place, Skipped(place=place, why=why, damaged=True)
  elif held.strip():
    yield place, bytes(held)


# ---- Arrays ----


def values(source: Source, limits: Limits) -> Iterator[tuple[str, Any]]:
  """(place, value) of each element of the array that a source is, or of the objects in it.

  What is damaged or too large comes as Skipped, and the next one is read.

  Raises:
    Refused: the file ends in the middle, or what lies between values is no JSON.
  """
  for number, (start, raw) in enumerate(_extents(source, limits), 1):
    place = f'value {number} (byte {start:,})'
    if isinstance(raw, str):
      yield place, Skipped(place=place, why=raw, damaged=True)
      continue
    try:
      value = _load(raw, place)
    except Refused as e:
      value = Skipped(place=place, why=str(e).removeprefix(f'{place}: '), damaged=True)
    yield place, value


def _extents(source: Source, limits: Limits) -> Iterator[tuple[int, bytearray | str]]:
  """(offset, text) of each value; instead of its text why it is not given, if it costs too much."""
  held, base = bytearray(), 0  # text that is still needed, and the offset of its first byte
  pos = depth = parts = began = 0  # `pos` is in `held`, `began` is the value's offset
  state = 'outside'  # of any value; 'inside' one, in a 'string' of it, 'after' the array
  array, why = None, ''
  for chunk in utf8(source):
    held += chunk
    while pos < len(held):
      if state == 'string':
        pos = _STRING.match(held, pos).end()
        if held[pos : pos + 1] != b'"':
          break  # its end is in the next chunk, and so is what a last backslash escapes
        pos, state = pos + 1, 'inside'
        continue
      if state != 'inside':
        if not (m := _OUTSIDE.search(held, pos)):
          pos = len(held)
          break
        pos, mark = m.start(), m[0]
        if array is None:
          array = mark == b'['
          pos += array
        elif mark == b']' and array and state == 'outside':
          pos, state = pos + 1, 'after'
        if pos > m.start():
          continue
        if state == 'after' or mark in b']}:' or not (array or mark == b'{'):
          raise Refused(f'{source.name}: no JSON at byte {base + pos:,}, after {began:,}')
        began, state, depth, parts, why = base + pos, 'inside', 0, 0, ''
      if not (m := (_MARK if depth else _MARK_OR_COMMA).search(held, pos)):
        pos = len(held)
        break
      pos, mark, parts, ended = m.end(), m[0], parts + 1, False
      if mark == b'"':
        state = 'string'
      elif mark in b'[{':
        depth += 1
      elif depth:  # the end of an object in no array is the end of a value
        depth -= 1
        ended = not depth and not array
      else:  # a comma, or the end of the array
        pos, ended = pos - 1, True
      why = why or _too_much(depth, parts, limits)
      if parts > 4 * limits.values:  # to look for its end would take minutes
        raise Refused(f'{source.name}, value at byte {began:,}: {why}; what follows is not read')
      if ended:
        why = why or _too_large(base + pos - began, limits)
        yield began, why or held[began - base : pos]
        state = 'outside'
    if state in ('inside', 'string'):
      why = why or _too_large(base + pos - began, limits)
    keep = began - base if state in ('inside', 'string') and not why else pos
    del held[:keep]
    base, pos = base + keep, pos - keep
  if array is None:
    raise Refused(f'{source.name} is empty: there is nothing to import')
  if state in ('inside', 'string') or (array and state != 'after'):
    raise Refused(f'{source.name} ends in the middle, at byte {base + len(held):,}: it was cut off')


def _too_large(size: int, limits: Limits) -> str:
  limit = limits.value_bytes
  return f'has over {limit:,} bytes in one value (value_bytes)' if size > limit else ''
