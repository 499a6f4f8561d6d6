"""The diary's tables, and how its file is opened and checked.

Experiences are append-only, and the database itself holds this by triggers: nothing but `trust` can
be changed, and rows can be deleted only while `state.forgetting` is set, which `Diary.forget` does
inside its own transaction. What an experience's night is follows from the lineage of the active
generation, so a rollback gives the experiences of the nights it leaves back to the next one. A file
of an earlier version is brought up to date when it is opened, after a copy was made beside it. One
that is not whole (whole.py) is refused as it is; rescue.py saves what is left of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import apsw

from dreaming.memory import whole

VERSION = 4
APPLICATION_ID = 0x44524D31  # 'DRM1': tells a diary from any other SQLite file

_FIRST = """
CREATE TABLE experiences (
  id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice, not even after forgetting
  time REAL NOT NULL,
  kind TEXT NOT NULL,
  speaker TEXT NOT NULL,
  content TEXT NOT NULL,
  response TEXT NOT NULL,
  trust INTEGER NOT NULL,
  session TEXT NOT NULL,
  metadata TEXT NOT NULL  -- JSON object
) STRICT;
CREATE INDEX experiences_time ON experiences (time, id);

CREATE TABLE media (
  experience INTEGER NOT NULL REFERENCES experiences ON DELETE CASCADE,
  place INTEGER NOT NULL,
  kind TEXT NOT NULL,
  digest TEXT NOT NULL,
  description TEXT NOT NULL,
  PRIMARY KEY (experience, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE scores (
  id INTEGER PRIMARY KEY AUTOINCREMENT,  -- the latest one counts, the others are history
  experience INTEGER NOT NULL REFERENCES experiences ON DELETE CASCADE,
  rater TEXT NOT NULL,
  importance REAL NOT NULL,
  novelty REAL NOT NULL,
  emotion REAL NOT NULL,
  feedback REAL NOT NULL
) STRICT;
CREATE INDEX scores_experience ON scores (experience, id);

CREATE TABLE embeddings (
  experience INTEGER NOT NULL REFERENCES experiences ON DELETE CASCADE,
  embedder TEXT NOT NULL,
  vector BLOB NOT NULL,  -- float32, little-endian
  PRIMARY KEY (experience, embedder)
) STRICT;

CREATE TABLE nights (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  state TEXT NOT NULL,  -- running, promoted, rejected, failed
  step TEXT NOT NULL,
  config TEXT NOT NULL,  -- JSON
  result TEXT NOT NULL,  -- JSON
  started REAL NOT NULL,
  ended REAL
) STRICT;
CREATE UNIQUE INDEX nights_one_open ON nights (state) WHERE state = 'running';

CREATE TABLE night_steps (
  night INTEGER NOT NULL REFERENCES nights,
  step TEXT NOT NULL,
  payload TEXT NOT NULL,  -- JSON: what the step left for the next one
  time REAL NOT NULL,
  PRIMARY KEY (night, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE night_experiences (
  night INTEGER NOT NULL REFERENCES nights,
  experience INTEGER NOT NULL REFERENCES experiences ON DELETE CASCADE,
  PRIMARY KEY (night, experience)
) STRICT, WITHOUT ROWID;
CREATE INDEX night_experiences_experience ON night_experiences (experience);

CREATE TABLE dreams (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  night INTEGER NOT NULL REFERENCES nights,
  style TEXT NOT NULL,
  text TEXT NOT NULL,
  pairs TEXT NOT NULL,  -- JSON [[question, answer], ...]
  gain REAL NOT NULL,
  grounded REAL NOT NULL,
  reason TEXT NOT NULL,
  status TEXT NOT NULL,
  trust INTEGER NOT NULL
) STRICT;
CREATE INDEX dreams_night ON dreams (night, status);

CREATE TABLE dream_sources (
  dream INTEGER NOT NULL REFERENCES dreams ON DELETE CASCADE,
  place INTEGER NOT NULL,
  experience INTEGER NOT NULL REFERENCES experiences,
  PRIMARY KEY (dream, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX dream_sources_experience ON dream_sources (experience);

CREATE TABLE generations (
  number INTEGER PRIMARY KEY,
  parent INTEGER,  -- 0 or NULL: the base, which has no row
  night INTEGER REFERENCES nights,
  created REAL NOT NULL,
  manifest TEXT NOT NULL,  -- JSON
  path TEXT NOT NULL  -- relative to the diary's directory
) STRICT;

CREATE TABLE state (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  active INTEGER NOT NULL,  -- the generation that serves; 0 is the base
  forgetting INTEGER NOT NULL
) STRICT;
INSERT INTO state VALUES (1, 0, 0);

CREATE VIEW lineage AS
  WITH RECURSIVE ancestors (number) AS (
    SELECT active FROM state
    UNION SELECT parent FROM generations JOIN ancestors USING (number) WHERE parent IS NOT NULL)
  SELECT number, night FROM ancestors JOIN generations USING (number);
CREATE VIEW consumed AS
  SELECT experience, max(night) AS night FROM night_experiences
  WHERE night IN (SELECT night FROM lineage) GROUP BY experience;

CREATE TRIGGER experiences_fixed
  BEFORE UPDATE OF id, time, kind, speaker, content, response, session, metadata ON experiences
  BEGIN SELECT RAISE(ABORT, 'experiences are append-only'); END;
CREATE TRIGGER experiences_kept BEFORE DELETE ON experiences
  WHEN (SELECT forgetting FROM state) = 0
  BEGIN SELECT RAISE(ABORT, 'experiences are append-only: use Diary.forget'); END;
CREATE TRIGGER media_fixed BEFORE UPDATE ON media
  BEGIN SELECT RAISE(ABORT, 'experiences are append-only'); END;
CREATE TRIGGER media_kept BEFORE DELETE ON media
  WHEN (SELECT forgetting FROM state) = 0
  BEGIN SELECT RAISE(ABORT, 'experiences are append-only: use Diary.forget'); END;
"""

_SECOND = """
CREATE TABLE imported (
  key TEXT PRIMARY KEY,  -- SHA-256 of what makes an item the same one in a later export
  experience INTEGER NOT NULL REFERENCES experiences ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX imported_experience ON imported (experience);

CREATE VIEW texts AS  -- what stands for an experience when it is searched: see embed.py
  SELECT id, content || coalesce(
    (SELECT char(10) || group_concat(description, char(10)) FROM media
     WHERE experience = experiences.id AND description != ''), '') AS text
  FROM experiences;
CREATE VIRTUAL TABLE words USING fts5 (
  text, content = 'texts', content_rowid = 'id',
  tokenize = "porter unicode61 remove_diacritics 2");
INSERT INTO words (words, rank) VALUES ('secure-delete', 1);
INSERT INTO words (rowid, text) SELECT id, text FROM texts;
-- Before, as long as the media are there. What is added, Diary.append adds, when they are.
CREATE TRIGGER experiences_words BEFORE DELETE ON experiences
  BEGIN INSERT INTO words (words, rowid, text) SELECT 'delete', id, text FROM texts
    WHERE id = old.id; END;
CREATE INDEX experiences_session ON experiences (session, time, id);
CREATE INDEX experiences_speaker ON experiences (speaker, time, id);
"""

_THIRD = f"""
ALTER TABLE state ADD COLUMN identity TEXT NOT NULL DEFAULT '';
ALTER TABLE state ADD COLUMN writes INTEGER NOT NULL DEFAULT 0;  -- transactions: see whole.py
UPDATE state SET identity = lower(hex(randomblob(16)));
ALTER TABLE experiences ADD COLUMN digest BLOB NOT NULL DEFAULT x'';
UPDATE experiences SET digest = {whole.DIGEST};
DROP TRIGGER experiences_fixed;
CREATE TRIGGER experiences_fixed
  BEFORE UPDATE OF id, time, kind, speaker, content, response, session, metadata, digest
  ON experiences BEGIN SELECT RAISE(ABORT, 'experiences are append-only'); END;

CREATE TABLE archived (  -- what was trimmed: still there, and neither searched nor recalled
  experience INTEGER PRIMARY KEY REFERENCES experiences ON DELETE CASCADE,
  summary INTEGER REFERENCES experiences ON DELETE SET NULL,  -- that stands for it
  time REAL NOT NULL  -- when
) STRICT;
CREATE INDEX archived_summary ON archived (summary);
DROP TRIGGER experiences_words;
CREATE TRIGGER experiences_words BEFORE DELETE ON experiences
  WHEN NOT EXISTS (SELECT 1 FROM archived WHERE experience = old.id)
  BEGIN INSERT INTO words (words, rowid, text) SELECT 'delete', id, text FROM texts
    WHERE id = old.id; END;
"""

_FOURTH = """
CREATE TABLE approvals (  -- who let nights dream of what was not the user's own words
  experience INTEGER PRIMARY KEY REFERENCES experiences ON DELETE CASCADE,
  was INTEGER NOT NULL,  -- its trust before
  who TEXT NOT NULL,
  witness INTEGER REFERENCES experiences ON DELETE CASCADE,  -- own words that say the same
  time REAL NOT NULL  -- when
) STRICT;
CREATE INDEX approvals_witness ON approvals (witness);
"""

_STEPS = (_FIRST, _SECOND, _THIRD, _FOURTH)
"""Step n makes version n + 1 of version n; a new file takes all of them."""


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
    for step in _STEPS[version:]:
      connection.execute(step)
    connection.execute(f'PRAGMA application_id = {APPLICATION_ID}')
    connection.execute(f'PRAGMA user_version = {VERSION}')
    connection.execute('COMMIT')
  except BaseException:
    connection.execute('ROLLBACK')
    raise


def _pragma(connection: apsw.Connection, pragma: str):
  return connection.execute(f'PRAGMA {pragma}').get
