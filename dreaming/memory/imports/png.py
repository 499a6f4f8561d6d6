"""Texts in a PNG's chunks; its pixels are never decoded.

PNG specification (third edition), sections 5.3 and 11.3.3.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from dreaming.memory.imports.item import Limits, Refused, Source

SIGNATURE = b'\x89PNG\r\n\x1a\n'


def texts(source: Source, limits: Limits) -> Iterator[tuple[str, bytes]]:
  """(keyword, text) of each tEXt, zTXt and iTXt chunk, up to the end of the image.

  Raises:
    Refused: no PNG, cut off, a chunk whose checksum is wrong, or more of anything than is allowed.
  """
  stream = _Stream(source)
  if stream.take(8) != SIGNATURE:
    raise Refused(f'{source.name} is no PNG')
  for number in range(limits.chunks):
    length, kind = struct.unpack('>I4s', stream.take(8))
    if kind == b'IEND':
      return
    if (number == 0) != (kind == b'IHDR') or length > 2**31 - 1:
      raise Refused(f'{source.name} is a damaged PNG (chunk {number} is {kind!r})')
    if kind not in (b'IHDR', b'tEXt', b'zTXt', b'iTXt'):
      stream.skip(length + 4)
      continue
    if length > limits.value_bytes:
      raise Refused(
        f'{source.name} has a text of {length:,} bytes, the limit is {limits.value_bytes:,} '
        '(value_bytes)'
      )
    data = stream.take(length)
    if zlib.crc32(data, zlib.crc32(kind)) != struct.unpack('>I', stream.take(4))[0]:
      raise Refused(f'{source.name} is a damaged PNG (chunk {number}, {kind.decode()}: checksum)')
    if kind == b'IHDR':
      _check_size(source, data, limits)
    else:
      yield _text(source, kind, data, limits)
  raise Refused(f'{source.name} has over {limits.chunks:,} chunks (chunks)')


def _check_size(source: Source, header: bytes, limits: Limits) -> None:
  if len(header) != 13:
    raise Refused(f'{source.name} is a damaged PNG (its header)')
  width, height = struct.unpack('>II', header[:8])
  if width * height > limits.pixels:
    raise Refused(
      f'{source.name} claims {width:,} x {height:,} pixels, the limit is {limits.pixels:,} (pixels)'
    )


def _text(source: Source, kind: bytes, data: bytes, limits: Limits) -> tuple[str, bytes]:
  keyword, _, rest = data.partition(b'\0')
  if kind == b'zTXt':
    rest = _inflate(source, rest[1:], limits)
  elif kind == b'iTXt':  # flag, method, language, translated keyword, text
    compressed, rest = rest[:1] == b'\1', rest[2:]
    *_, rest = rest.split(b'\0', 2)
    rest = _inflate(source, rest, limits) if compressed else rest
  return keyword.decode('latin-1'), rest


def _inflate(source: Source, data: bytes, limits: Limits) -> bytes:
  inflater = zlib.decompressobj()
  try:
    text = inflater.decompress(data, limits.value_bytes)
  except zlib.error as e:
    raise Refused(f'{source.name} has a damaged text ({e})') from None
  if inflater.unconsumed_tail or not inflater.eof:
    raise Refused(
      f'{source.name} has a text that inflates to over {limits.value_bytes:,} bytes (value_bytes), '
      'or is cut off'
    )
  return text


class _Stream:
  """Bytes of a source, in order, none twice."""

  def __init__(self, source: Source):
    self._name, self._chunks, self._held = source.name, source.chunks(), b''

  def take(self, size: int) -> bytes:
    parts, missing = [], size
    while missing > 0:
      piece = self._some()[:missing]
      self._held = self._held[len(piece) :]
      parts.append(piece)
      missing -= len(piece)
    return b''.join(parts)

  def skip(self, size: int) -> None:
    while size > 0:
      size -= (gone := min(size, len(self._some())))
      self._held = self._held[gone:]

  def _some(self) -> bytes:
    while not self._held:
      if not (chunk := next(self._chunks, b'')):
        raise Refused(f'{self._name} ends in the middle of a chunk: it was cut off')
      self._held = chunk
    return self._held
