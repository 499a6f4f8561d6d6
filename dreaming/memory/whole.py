"""Whether a diary's file is whole: what is lost or changed must not pass for what was lived.

There are three witnesses:

- Every page carries a checksum (SQLite's checksum VFS, which apsw brings). A flipped byte, in a
  text or elsewhere, is an error when its page is read, and at the latest at the next opening.
- Every experience carries a digest of its words. A page of zeros has a right checksum, and so has
  one that was written in another's place.
- The mark beside the file counts the writes that were acknowledged, and has the digest of a file
  that was closed in order. It is written after each commit, so that it is never ahead of the disk:
  a file that has fewer writes has lost some, as when its log is damaged, which SQLite takes for
  the log's end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import apsw
import numpy as np

RESERVED = 8  # bytes at the end of each page, for its checksum
_MARK_BYTES = 256
_AT_ONCE = 2**22  # bytes that are looked at


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mark:
  """What was known of a diary when it was last written to, or closed."""

  identity: str  # random, of this diary
  writes: int  # that were acknowledged
  closed: str = ''  # SHA-256 of the file when it was closed in order, '' while it is open


@functools.cache
def vfs() -> str | None:
  """The name of the file layer with checksums; None on a platform for which apsw has none."""
  from apsw import sqlite_extra

  if sqlite_extra.has('cksumvfs') is None:
    return None
  connection = apsw.Connection(':memory:')
  try:
    sqlite_extra.load(connection, 'cksumvfs')
  finally:
    connection.close()
  return 'cksmvfs'


# ---- The mark ----


def mark_of(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f'{path.name}.mark')


def read_mark(path: pathlib.Path) -> Mark | None:
  """The mark beside a diary; None where there is none, or one that cannot be read."""
  try:
    with mark_of(path).open('rb') as f:
      value = json.loads(f.read(_MARK_BYTES))
    mark = Mark(**value)
  except (OSError, ValueError, TypeError, RecursionError):
    return None
  kinds = {'identity': str, 'writes': int, 'closed': str}
  fits = all(isinstance(vars(mark)[k], kind) for k, kind in kinds.items())
  return mark if fits and mark.writes >= 0 else None


class Marker:
  """Keeps the mark of an open diary."""

  def __init__(self, path: pathlib.Path, identity: str):
    self._identity = identity
    self._file = os.open(mark_of(path), os.O_RDWR | os.O_CREAT, 0o644)

  def note(self, writes: int, closed: str = '', *, sync: bool = False) -> None:
    """Counts what is on the disk. In one write, so that a kill leaves one mark or the other."""
    mark = Mark(identity=self._identity, writes=writes, closed=closed)
    text = json.dumps(vars(mark)).encode()
    os.pwrite(self._file, text.ljust(_MARK_BYTES - 1) + b'\n', 0)
    if sync:
      os.fsync(self._file)

  def close(self) -> None:
    if self._file >= 0:
      os.close(self._file)
      self._file = -1


# ---- Digests ----


def file_digest(path: pathlib.Path) -> str:
  with path.open('rb') as f:
    return hashlib.file_digest(f, 'sha256').hexdigest()


def closing_digest(path: pathlib.Path) -> str:
  """The digest of a file that was just closed; '' when a page of it does not have its checksum.

  Otherwise what was damaged while the file was open would be taken for what it was closed with.
  """
  digest = hashlib.sha256()
  with path.open('rb') as f:
    head = f.read(100)
    size = int.from_bytes(head[16:18], 'big')
    sealed = len(head) == 100 and size >= 512 and head[20] == RESERVED
    f.seek(0)
    while data := f.read(_AT_ONCE - _AT_ONCE % size if sealed else _AT_ONCE):
      digest.update(data)
      if sealed and not _all_sealed(data, size):
        return ''
  return digest.hexdigest()


def _all_sealed(data: bytes, size: int) -> bool:
  """Whether each page of `size` bytes ends with its checksum: see log.seal."""
  pages = np.frombuffer(data[: len(data) - len(data) % size], '<u4').reshape(-1, size // 4)
  words = np.ascontiguousarray(pages[:, :-2].T)
  a = np.zeros(len(pages), np.uint32)
  b = a.copy()
  for i in range(0, len(words), 2):
    a += words[i]
    a += b
    b += words[i + 1]
    b += a
  return bool((a == pages[:, -2]).all() and (b == pages[:, -1]).all())


def experience_digest(*row: Any) -> bytes:
  """Of time, kind, speaker, content, response, session, metadata and the media, as JSON.

  Args:
    row: as the columns have them; the last is JSON [[kind, digest, description], ...], whose layout
      does not count.
  """
  time, *texts, media = row
  time = float(time) + 0.0  # SQLite makes 0.0 of -0.0
  plain = json.dumps([time, *texts, json.loads(media)]).encode()
  return hashlib.blake2b(plain, digest_size=16).digest()


DIGEST = """experience_digest(time, kind, speaker, content, response, session, metadata,
  (SELECT json_group_array(json_array(kind, digest, description) ORDER BY place)
   FROM media WHERE experience = experiences.id))"""
"""In SQL, of a row of `experiences`."""


def register(connection: apsw.Connection) -> None:
  connection.create_scalar_function('experience_digest', experience_digest, deterministic=True)


# ---- Checks ----


_OUTSIDE = (
  apsw.BusyError,
  apsw.LockedError,
  apsw.CantOpenError,
  apsw.PermissionsError,
  apsw.ReadOnlyError,
  apsw.FullError,
  apsw.NoMemError,
)
"""No fault of the file's."""

_UNREAD = re.compile(rf': unable to get the page\. error code={apsw.SQLITE_IOERR_DATA}')


@contextlib.contextmanager
def as_damage() -> Iterator[None]:
  """While a file is checked, whatever SQLite cannot make sense of is damage."""
  try:
    yield
  except _OUTSIDE:
    raise
  except apsw.IOError as e:
    if not is_damage(e):
      raise
    raise apsw.CorruptError('a page does not have its checksum, or is cut off') from e
  except (apsw.NotADBError, apsw.CorruptError):
    raise
  except (apsw.Error, UnicodeDecodeError, json.JSONDecodeError, TypeError) as e:
    raise apsw.CorruptError(' '.join(f'{type(e).__name__}: {e}'.split())) from e


def is_damage(error: apsw.IOError) -> bool:
  """Whether a page was read, and was not what had been written."""
  return error.extendedresult in (apsw.SQLITE_IOERR_DATA, apsw.SQLITE_IOERR_SHORT_READ)


def as_closed(path: pathlib.Path, mark: Mark | None) -> bool:
  """Whether a file is the very one that was closed in order."""
  if mark is None or not mark.closed:
    return False
  log = path.with_name(f'{path.name}-wal')
  logged = log.exists() and log.stat().st_size > 0
  return not logged and file_digest(path) == mark.closed


def check(
  connection: apsw.Connection, path: pathlib.Path, mark: Mark | None, *, digests: bool
) -> str:
  """Looks at all of an open file; a remark, or ''.

  Args:
    digests: whether its experiences have them.

  Raises:
    apsw.CorruptError: and what is wrong.
  """
  sealed = vfs() is not None and connection.reserve_bytes(None, -1) == RESERVED
  found = connection.execute('PRAGMA integrity_check(1)').get
  if found != 'ok':
    line = str(found).splitlines()[-1]
    raise apsw.CorruptError(_UNREAD.sub(' does not have its checksum', line))
  sql = f'SELECT id FROM experiences WHERE digest IS NOT {DIGEST} LIMIT 1'
  if digests and (wrong := connection.execute(sql).get) is not None:
    raise apsw.CorruptError(f'experience {wrong} does not have its digest')
  if mark is None or not mark.closed:
    return ''
  how = 'whole' if sealed else 'as far as can be told whole'
  return f'the diary {path} was changed after it was closed; it is {how}, and is taken as it is'


def gone(path: pathlib.Path, mark: Mark) -> str:
  """What is wrong with a diary that is not there, or empty, beside its mark."""
  return (
    f'the diary {path} is gone or empty, and had {mark.writes:,} writes: put it back, or remove '
    f'{mark_of(path)} to begin anew; nothing was changed'
  )


def lost(path: pathlib.Path, mark: Mark | None, identity: str, writes: int) -> str:
  """Why a whole file is not all that was acknowledged, or ''."""
  if mark is None:
    return ''
  way_out = (
    f'put the right one in its place, or remove {mark_of(path)} to take it as it is; nothing was '
    'changed'
  )
  if mark.identity != identity:
    return f'{path} is not the diary that was here, but another one: {way_out}'
  if writes < mark.writes:
    return (
      f'the diary {path} has {writes:,} of the {mark.writes:,} writes that were acknowledged: it '
      f'is an older copy, or its log ({path.name}-wal) was damaged or removed; save what is left '
      f'with --mode=rescue, or {way_out}'
    )
  return ''
