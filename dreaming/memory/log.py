"""The log beside a diary (SQLite's WAL) when a part of it is damaged.

SQLite takes the first page whose checksum is wrong for the end of the log, as after a power cut.
Where it is a fault of the disk, whole transactions that were acknowledged stand behind it. Format:
https://sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import collections
import struct
from typing import NamedTuple

_MAGIC = 0x377F0682  # its checksums read words of little-endian; with 1 more of big-endian
_HEADER, _FRAME = 32, 24


class Page(NamedTuple):
  """The last version of a page that the log has."""

  data: bytes
  whole: bool  # whether it is as it was written


def pages(log: bytes, page_size: int) -> tuple[dict[int, Page], int]:
  """All that the log would write into the file, by page number, and how many pages that has then.

  Each page has a checksum that goes on from the one before. What does not follow is taken with one
  flipped bit of its number set right, if that makes it follow, or else as damaged. What no commit
  follows is left out.

  Args:
    log: the damaged one.
    page_size: of the database, bytes; a power of two.

  Returns:
    No pages and 0 where there is nothing in it.
  """
  size = _FRAME + page_size
  frames = [log[i : i + size] for i in range(_HEADER, len(log) - size + 1, size)]
  salts = collections.Counter(f[8:16] for f in frames)
  salt = log[16:24]  # of the header, unless it is damaged
  salt = salt if salts[salt] else max(salts, key=lambda s: salts[s], default=salt)
  order = '>' if log[:4] == struct.pack('>I', _MAGIC + 1) else '<'
  last = max((i for i, f in enumerate(frames) if f[8:16] == salt), default=-1)
  highest = max((struct.unpack('>I', f[:4])[0] for f in frames if f[8:16] == salt), default=0)
  out: dict[int, Page] = {}
  waiting: dict[int, Page] = {}
  count, stored = 0, log[24:32]
  for f in frames[: last + 1]:
    head = _head(f, stored, order)
    stored = f[16:24]
    number, committed = struct.unpack('>II', head or f[:8])
    if head or 0 < number <= min(highest, len(frames) + 2**20):
      waiting[number] = Page(f[_FRAME:], head is not None)
    if committed and (head or committed <= 2 * highest):
      out |= waiting
      waiting, count = {}, committed
  return out, count


def _head(frame: bytes, stored: bytes, order: str) -> bytes | None:
  """Page number and size after commit of a frame that follows; None when it does not."""
  start = struct.unpack('>II', stored.ljust(8, b'\0'))
  want = struct.unpack('>II', frame[16:24])
  if checksum(frame[:8] + frame[_FRAME:], order, start) == want:
    return frame[:8]
  for bit in range(64):
    head = (int.from_bytes(frame[:8]) ^ 1 << bit).to_bytes(8)
    if checksum(head + frame[_FRAME:], order, start) == want:
      return head
  return None


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
