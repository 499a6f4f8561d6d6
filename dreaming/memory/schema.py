"""How the diary's file is opened and checked; tables.py has what is in it.

A file of an earlier version is brought up to date when it is opened, after a copy was made beside
it. One that is not whole (whole.py) is refused as it is; rescue.py saves what is left of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import apsw

from dreaming.memory import whole
from dreaming.memory.tables import APPLICATION_ID, STEPS, VERSION


@contextlib.contextmanager
def clear_errors(path: pathlib.Path) -> Iterator[None]:
  """Turns SQLite's errors about the file into one line that names it and the way out.

  Raises:
    ValueError: the file is damaged, or is no database.
    OSError: it cannot be read or written: permissions, full disk, another process that holds it.
  """
  try:
    yield
  except (apsw.CorruptError, apsw.NotADBError) as e:
    raise ValueError(_damaged(path, e)) from e
  except apsw.FullError as e:
    raise OSError(f'no space left for the diary {path}: free some and try again') from e
  except (apsw.BusyError, apsw.LockedError) as e:
    raise OSError(f'the diary {path} is held by another process: end it and try again') from e
  except apsw.IOError as e:
    if whole.is_damage(e):
      raise ValueError(_damaged(path, 'a page does not have its checksum')) from e
    raise OSError(f'the diary {path} cannot be read or written ({e}): check its disk') from e
  except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as e:
    raise OSError(
      f'the diary {path} cannot be opened for writing ({e}): check the path, its permissions'
    ) from e


def _damaged(path: pathlib.Path, why: object) -> str:
  return (
    f'the diary {path} is damaged ({why}): put a backup in its place, or save what is left with '
    '--mode=rescue, which keeps the damaged file; nothing was changed'
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
  """A diary's file, checked and brought up to date."""

  connection: apsw.Connection
  identity: str
  writes: int
  closed: str = ''  # its digest, when it is the very one that was closed in order
  remark: str = ''  # one line, of what was unusual about it


def connect(path: pathlib.Path) -> Opened:
  """Opens the diary's file, makes it when there is none, and checks that it is whole and ours.

  Raises:
    ValueError: damaged, not a diary, less than what was acknowledged, or written by a newer version
      of this program.
    OSError: see `clear_errors`.
  """
  connection = None
  try:
    with clear_errors(path):
      path.parent.mkdir(parents=True, exist_ok=True)
      mark = whole.read_mark(path)
      if mark and mark.writes and not (path.exists() and path.stat().st_size):
        raise ValueError(whole.gone(path, mark))
      connection = _open(path)
      with whole.as_damage():
        version = _version(connection, path)
      closed = mark.closed if mark and whole.as_closed(path, mark) else ''
      remark = _check(connection, path, version, mark, closed)
      if whole.vfs() is None and connection.reserve_bytes(None, -1) == whole.RESERVED:
        raise ValueError(
          f'the pages of {path} have checksums, which this apsw cannot write: install one whose '
          'apsw.sqlite_extra has cksumvfs'
        )
      if whole.vfs() and version == 0:
        connection.reserve_bytes(None, whole.RESERVED)
      _ready(connection)
      if version < VERSION:
        if version > 0:
          _copy(connection, path, version)
        _update(connection)
      if whole.vfs() and connection.reserve_bytes(None, -1) != whole.RESERVED:
        connection.reserve_bytes(None, whole.RESERVED)
        connection.execute('VACUUM')  # gives every page its checksum
        connection.close()
        connection = _open(path)
        _ready(connection)
      connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
      identity, writes = connection.execute('SELECT identity, writes FROM state').fetchone()
    return Opened(
      connection=connection, identity=identity, writes=writes, closed=closed, remark=remark
    )
  except BaseException:
    if connection is not None:
      connection.close()
    raise


def _open(path: pathlib.Path) -> apsw.Connection:
  connection = apsw.Connection(str(path), vfs=whole.vfs())
  # A file that is refused is left as it is, with the log beside it, which a last connection would
  # otherwise write into the file, and remove.
  connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
  connection.set_busy_timeout(10_000)
  whole.register(connection)
  return connection


def _ready(connection: apsw.Connection) -> None:
  """For writing."""
  _pragma(connection, 'journal_mode = WAL')
  _pragma(connection, 'synchronous = FULL')  # an acknowledged append survives a power cut
  _pragma(connection, 'foreign_keys = ON')
  _pragma(connection, 'recursive_triggers = ON')  # else REPLACE deletes without its trigger
  _pragma(connection, 'secure_delete = ON')  # what is forgotten is overwritten


def _version(connection: apsw.Connection, path: pathlib.Path) -> int:
  """The schema's, 0 of a new file."""
  version = _pragma(connection, 'user_version')
  tables = connection.execute('SELECT count(*) FROM sqlite_schema').get
  if version == 0 and tables == 0:
    return 0
  if _pragma(connection, 'application_id') != APPLICATION_ID:
    raise ValueError(f'{path} is a SQLite file but not a diary: choose another workdir')
  if version > VERSION:
    raise ValueError(
      f'the diary {path} has schema version {version}, this program knows up to {VERSION}: '
      'update the program, or choose another workdir'
    )
  return version


def _check(
  connection: apsw.Connection,
  path: pathlib.Path,
  version: int,
  mark: whole.Mark | None,
  closed: str,
) -> str:
  """Whether it is whole, and all; a remark, or ''."""
  if version == 0:
    return ''
  with whole.as_damage():
    remark = '' if closed else whole.check(connection, path, mark, digests=version >= 3)
    if version < 3:  # there was no mark
      return remark
    identity, writes = connection.execute('SELECT identity, writes FROM state').fetchone()
  if lost := whole.lost(path, mark, identity, writes):
    raise ValueError(lost)
  return remark


def _copy(connection: apsw.Connection, path: pathlib.Path, version: int) -> None:
  """Keeps the file as it was, beside itself, before a newer version of the program changes it."""
  kept = path.with_name(f'{path.name}.v{version}')
  if kept.exists():  # an update that was interrupted has made it
    return
  unfinished = kept.with_name(f'{kept.name}.part')
  unfinished.unlink(missing_ok=True)
  connection.execute('VACUUM INTO ?', (str(unfinished),))
  with unfinished.open('rb') as f:
    os.fsync(f.fileno())
  unfinished.rename(kept)


def _update(connection: apsw.Connection) -> None:
  """All steps that are still to take, or none."""
  connection.execute('BEGIN IMMEDIATE')
  try:
    version = _pragma(connection, 'user_version')  # another process may have been first
    for step in STEPS[version:]:
      connection.execute(step)
    connection.execute(f'PRAGMA application_id = {APPLICATION_ID}')
    connection.execute(f'PRAGMA user_version = {VERSION}')
    connection.execute('COMMIT')
  except BaseException:
    connection.execute('ROLLBACK')
    raise


def _pragma(connection: apsw.Connection, pragma: str):
  return connection.execute(f'PRAGMA {pragma}').get
