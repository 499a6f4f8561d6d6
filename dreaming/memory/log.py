"""The log beside a diary (SQLite's WAL) when a part of it is damaged.

SQLite takes the first page whose checksum is wrong for the end of the log, as after a power cut.
Where it is a fault of the disk, whole transactions that were acknowledged stand behind it. Format:
https://sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import collections
import struct

_MAGIC = 0x377F0682  # its checksums read words of little-endian; with 1 more of big-endian
_VERSION = 3_007_000
_HEADER, _FRAME = 32, 24


def repaired(log: bytes, page_size: int) -> bytes:
  """A log that SQLite reads to its end, without the pages of which it is not known which they are.

  A page whose own words were damaged stays in it: the file's checksums and the experiences'
  digests tell what of it is wrong. What no commit follows is left for SQLite to leave out.

  Args:
    log: the damaged one.
    page_size: of the database, bytes; a power of two.
  """
  size = _FRAME + page_size
  frames = [log[i : i + size] for i in range(_HEADER, len(log) - size + 1, size)]
  salts = collections.Counter(f[8:16] for f in frames)
  of_header = log[16:24]
  salt = of_header if salts[of_header] else max(salts, key=lambda s: salts[s], default=of_header)
  order = '>' if log[:4] == struct.pack('>I', _MAGIC + 1) else '<'
  magic = _MAGIC + (order == '>')
  sequence = log[12:16].ljust(4, b'\0')
  head = struct.pack('>III', magic, _VERSION, page_size) + sequence + salt.ljust(8, b'\0')
  sums = checksum(head, order)
  out = [head + struct.pack('>II', *sums)]
  stored = log[24:32]  # that the next page's checksum goes on from
  last = max((i for i, f in enumerate(frames) if f[8:16] == salt), default=-1)
  for f in frames[: last + 1]:
    number, whole = f[:4], _follows(f, stored, order)
    stored = f[16:24]
    known = f[8:16] == salt and 0 < struct.unpack('>I', number)[0] < 2**31
    if not whole and (not known or is_sealed(f[_FRAME:])):
      continue  # the page is right, so that what is wrong may be its number
    sums = checksum(f[:8] + f[_FRAME:], order, sums)
    out.append(f[:8] + salt + struct.pack('>II', *sums) + f[_FRAME:])
  return b''.join(out)


def checksum(data: bytes, order: str = '<', start: tuple[int, int] = (0, 0)) -> tuple[int, int]:
  """SQLite's, of words of 32 bits in byte order '<' or '>', going on from another one."""
  a, b = start
  words = struct.unpack(f'{order}{len(data) // 4}I', data)
  for i in range(0, len(words), 2):
    a = (a + words[i] + b) & 0xFFFFFFFF
    b = (b + words[i + 1] + a) & 0xFFFFFFFF
  return a, b


def is_sealed(page: bytes) -> bool:
  """Whether a page carries its own checksum, as whole.py has them."""
  return seal(page) == page[-8:]


def seal(page: bytes) -> bytes:
  """The checksum that a page should end with."""
  return struct.pack('<II', *checksum(page[:-8]))


def _follows(frame: bytes, stored: bytes, order: str) -> bool:
  """Whether a page's checksum in the log goes on from the one before, as it stands there."""
  start = struct.unpack('>II', stored.ljust(8, b'\0'))
  return struct.pack('>II', *checksum(frame[:8] + frame[_FRAME:], order, start)) == frame[16:24]
