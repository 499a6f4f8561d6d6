"""Files and zip archives as sources: regular, bounded, read only where they are asked for.

Nothing of an archive is ever written to the disk. Its list of entries is read in bounded memory,
all names are checked, and sizes are counted while inflating: headers are only claims.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

from dreaming.memory.imports import item
from dreaming.memory.imports.item import Limits, Refused, Source

CHUNK = 256 * 1024
_READABLE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others' dictionaries have no bound
_CONVERSATIONS = re.compile(
  r'(.*/)?(conversations?([-_]?\d+)?\.json|conversations/[^/]+\.json)', re.I
)
# zipfile trusts the fields of an archive: a damaged one surfaces as whatever it leads to.
_DAMAGED = (
  zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, OverflowError,
  IndexError, NotImplementedError, RuntimeError,
)  # fmt: skip
_LOGS = ('.json', '.jsonl', '.png')


class File:
  """A regular file, open for reading. `counted` is told how many bytes were read."""

  def __init__(self, path: pathlib.Path, file: BinaryIO, size: int, counted: Callable[[int], None]):
    self.name, self.size = item.file_name(path), size
    self._file, self._counted = file, counted

  def chunks(self) -> Iterator[bytes]:
    self._file.seek(0)
    while chunk := self._file.read(CHUNK):
      self._counted(len(chunk))
      yield chunk


class Entry:
  """One entry of an archive, inflated piece by piece."""

  def __init__(self, archive: Archive, info: zipfile.ZipInfo):
    self.name, self.size = info.filename, info.file_size
    self._archive, self._info = archive, info

  def chunks(self) -> Iterator[bytes]:
    limits, info = self._archive.limits, self._info
    compressed = min(info.compress_size, self._archive.size)
    done = 0
    try:
      with self._archive.zip.open(info) as file:
        while chunk := file.read(CHUNK):
          done += len(chunk)
          self._archive.counted(len(chunk))
          if done > limits.inflated_bytes:
            raise Refused(
              f'{self.name} inflates to over {limits.inflated_bytes:,} bytes (inflated_bytes): '
              'split it'
            )
          if done > 2**20 and done > limits.ratio * compressed:
            raise Refused(
              f'{self.name} inflates to over {limits.ratio} times its size (ratio): a zip bomb'
            )
          yield chunk
      if done != info.file_size:
        raise Refused(
          f'{self.name} has {done:,} bytes and claims {info.file_size:,}: a damaged zip'
        )
    except Refused:
      raise
    except _DAMAGED as e:
      raise Refused(f'{self.name} is damaged in the archive: {e or type(e).__name__}') from None


class Archive:
  """A zip whose entries' names were checked."""

  def __init__(
    self,
    name: str,
    file: BinaryIO,
    size: int,
    limits: Limits,
    counted: Callable[[int], None],
  ):
    self.size, self.limits, self.counted = size, limits, counted
    try:
      self.zip = zipfile.ZipFile(_Guarded(file, limits.directory_bytes))
    except Refused:
      raise
    except _DAMAGED as e:
      raise Refused(f'{name} is a damaged zip: {e or type(e).__name__}') from None
    infos = self.zip.infolist()
    if len(infos) > limits.entries:
      raise Refused(f'{name} has {len(infos):,} entries, the limit is {limits.entries:,} (entries)')
    for info in infos:
      if why := _suspicious(info):
        raise Refused(f'{name} holds {info.orig_filename[:100]!r}, {why}: nothing of it is read')
    if len({i.filename for i in infos}) < len(infos):
      raise Refused(f'{name} has two entries of one name: nothing of it is read')
    files = [i for i in infos if not i.is_dir()]
    told = [i for i in files if _CONVERSATIONS.fullmatch(i.filename)]
    told = told or [i for i in files if i.filename.lower().endswith(_LOGS)]
    self.other = len(files) - len(told)  # pictures, pages, settings: nothing to import
    if not told:
      raise Refused(f'{name} holds no conversations*.json, no .json, .jsonl or .png')
    for info in told:
      if info.compress_type not in _READABLE:
        raise Refused(f'{name}: {info.filename} is not compressed with deflate: zip it anew')
      if info.flag_bits & 1:
        raise Refused(f'{name}: {info.filename} is encrypted: unpack it and import what is in it')
    claimed = sum(i.file_size for i in told)
    if claimed > limits.inflated_bytes:
      raise Refused(
        f'{name} inflates to {claimed:,} bytes, the limit is {limits.inflated_bytes:,} '
        '(inflated_bytes): import a part of it'
      )
    self.entries = [Entry(self, i) for i in sorted(told, key=lambda i: i.filename)]


class _Guarded(io.BufferedIOBase):
  """The archive's file, of which nothing large is read at once: zipfile reads lists whole."""

  def __init__(self, file: BinaryIO, limit: int):
    self._file, self._limit = file, limit
    self.seek, self.tell = file.seek, file.tell

  def seekable(self) -> bool:
    return True

  def read(self, size: int | None = -1) -> bytes:
    whole = size is None or size < 0
    data = self._file.read(self._limit + 1 if whole else min(size, self._limit + 1))
    if len(data) > self._limit:
      raise Refused(f'its list of entries has over {self._limit:,} bytes (directory_bytes)')
    return data


def _suspicious(info: zipfile.ZipInfo) -> str:
  name = info.orig_filename
  if not name or any(ord(c) < 32 for c in name):
    return 'which is no name'
  if name.startswith(('/', '\\')) or re.match(r'[A-Za-z]:', name):
    return 'an absolute path'
  if '..' in re.split(r'[/\\]', name):
    return 'a path that leaves the archive'
  mode = info.external_attr >> 16
  if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
    return 'a link or a device'
  return ''


@contextlib.contextmanager
def opened(
  path: pathlib.Path, limits: Limits, counted: Callable[[int], None]
) -> Iterator[tuple[list[Source], int]]:
  """The sources of a path, and how many of an archive's files are none.

  Args:
    counted: told how many bytes were read, each time some are.

  Raises:
    Refused: no regular file, too large, or an archive that is not as it should be.
    OSError: it cannot be opened.
  """
  if not stat.S_ISREG(path.stat().st_mode):
    raise Refused(f'{path} is no regular file: name one')
  with path.open('rb') as file:
    size = path.stat().st_size
    if size > limits.file_bytes:
      raise Refused(
        f'{path.name} has {size:,} bytes, the limit is {limits.file_bytes:,} (file_bytes): split it'
      )
    if file.read(4) in (b'PK\3\4', b'PK\5\6'):
      archive = Archive(path.name, file, size, limits, counted)
      with archive.zip:
        yield list(archive.entries), archive.other
    else:
      yield [File(path, file, size, counted)], 0
