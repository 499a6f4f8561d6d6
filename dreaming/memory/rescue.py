"""Saves what is left of a damaged diary into a new one, and keeps the damaged file beside it.

Every row that can still be read comes along with its id: experiences when their words have their
digest, other rows when their page has its checksum. Experiences that have not are written beside
it for a person to look at. What can be made anew is: indexes, the words that are searched, and
vectors that are missing, when something is recalled next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import apsw

from dreaming.memory import log, schema, whole
from dreaming.memory.diary import Diary
from dreaming.types import Trust

# In an order in which what is referred to comes first. FTS tables are made anew.
_TABLES = {
  'media': None,
  'scores': 'id',
  'embeddings': 'rowid',
  'nights': 'number',
  'night_steps': None,
  'night_experiences': None,
  'dreams': 'id',
  'dream_sources': None,
  'generations': 'number',
  'imported': None,
  'archived': 'experience',
  'approvals': 'experience',
}
_MAGIC, _PAGE = b'SQLite format 3\0', 4096
_MOST, _SOME = 100, 8  # pages of a schema, and that tell whether they have checksums
_GAP = 10_000_000  # ids that are tried one by one
_FIELDS = ('time', 'kind', 'speaker', 'content', 'response', 'session', 'metadata')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rescued:
  """What became of a damaged diary."""

  path: pathlib.Path  # of the new one, where the damaged one was
  kept: pathlib.Path  # the damaged file; its log and mark have the same beginning
  experiences: int  # that were saved
  last: int  # id that was given last: with gaps where experiences were forgotten or are lost
  damaged: pathlib.Path | None  # JSON Lines of experiences that do not have their digest
  damaged_ids: tuple[int, ...]
  left: dict[str, int]  # table -> rows of it that could not be kept, at least


def rescue(path: str | pathlib.Path) -> Rescued:
  """Puts a new diary in the place of a damaged one, with all that can be read of it.

  Raises:
    ValueError: nothing of it can be read, or it is whole.
    OSError: it cannot be read, or the new one not be written.
  """
  path = pathlib.Path(path)
  if not path.exists():
    aside = sorted(path.parent.glob(f'{path.name}.broken-*[0-9]'))
    hint = f'; {aside[-1]} was put aside: move it back and try again' if aside else ''
    raise ValueError(f'there is no diary {path}: put a backup there{hint}')
  if _is_whole(path):
    raise ValueError(f'the diary {path} is whole: there is nothing to rescue')
  now = datetime.datetime.now(datetime.UTC)
  kept = path.with_name(f'{path.name}.broken-{now:%Y%m%d-%H%M%S}')
  with tempfile.TemporaryDirectory(dir=path.parent, prefix='.rescue-') as directory:
    source, target = pathlib.Path(directory) / 'old.sqlite', pathlib.Path(directory) / path.name
    _copy(path, source)
    with Diary(target) as new:
      saved = _save(source, new, path)
    wrong = None
    if saved.damaged:
      wrong = kept.with_name(f'{kept.name}.jsonl')
      lines = ''.join(
        json.dumps(row, ensure_ascii=False, default=str) + '\n' for row in saved.damaged
      )
      wrong.write_text(lines, encoding='utf-8', errors='replace')
    _put(path, kept, target)
  return Rescued(
    path=path,
    kept=kept,
    experiences=saved.experiences,
    last=saved.last,
    damaged=wrong,
    damaged_ids=tuple(row['id'] for row in saved.damaged),
    left=saved.left,
  )


def _is_whole(path: pathlib.Path) -> bool:
  try:
    Diary(path).close()
  except ValueError:
    return False
  return True


def _copy(path: pathlib.Path, to: pathlib.Path) -> None:
  """The file with what its log has for it, mended so far that SQLite opens it."""
  shutil.copyfile(path, to)
  _check_identity(to, path)
  with to.open('rb+') as f:
    head = bytearray(f.read(100).ljust(100, b'\0'))
    size = int.from_bytes(head[16:18], 'big')
    if size not in (512, 1024, 2048, 4096, 8192, 16_384, 32_768):
      size = _PAGE
    f.seek(size)
    some = [page for _ in range(_SOME) if len(page := f.read(size)) == size and any(page)]
    sealed = head[20] == whole.RESERVED or any(map(log.is_sealed, some))
    beside = path.with_name(f'{path.name}-wal')
    if beside.exists():
      _apply(f, beside.read_bytes(), size, sealed)
      f.seek(0)
      head = bytearray(f.read(100).ljust(100, b'\0'))
    head[:24] = _MAGIC + size.to_bytes(2, 'big') + bytes((2, 2, 8 * sealed, 64, 32, 32))
    pages = int.from_bytes(head[28:32], 'big')
    end = f.seek(0, os.SEEK_END)
    if end < pages * size <= 2 * end:  # cut off
      f.truncate(pages * size)
    f.seek(0)
    f.write(head)
    if sealed:
      _seal_schema(f, size)
  _check_identity(to, path)


def _apply(f: BinaryIO, data: bytes, size: int, sealed: bool) -> None:
  """Writes the log's pages into the file, those that are damaged with a wrong checksum."""
  pages, count = log.pages(data, size)
  for number, page in pages.items():
    text = page.data
    if sealed:
      seal = log.seal(text)
      text = text[:-8] + (seal if page.whole else bytes(b ^ 255 for b in seal))
    f.seek((number - 1) * size)
    f.write(text)
  if count:
    f.truncate(count * size)


def _check_identity(source: pathlib.Path, path: pathlib.Path) -> None:
  """Another diary in this one's place, even under its log, would bring another life along."""
  if (mark := whole.read_mark(path)) is None:
    return
  connection = apsw.Connection(str(source), vfs=whole.vfs())
  try:
    identity = connection.execute('SELECT identity FROM state').get
  except (apsw.Error, UnicodeDecodeError):
    return  # that is damaged, or of before there were marks
  finally:
    connection.close()
  if identity != mark.identity:
    raise ValueError(
      f'{path} is another diary than the one that was here: put the right one in its place, or '
      f'remove {whole.mark_of(path)}; nothing was changed'
    )


def _seal_schema(f: BinaryIO, size: int) -> None:
  """Gives the pages that tell where tables are their checksums: there are no rows in them."""
  todo, done = [1], set()
  while todo:
    number = todo.pop()
    if number in done or number < 1:
      continue
    done.add(number)
    f.seek((number - 1) * size)
    if len(page := f.read(size)) < size:
      continue
    start = 100 if number == 1 else 0
    if page[start] == 5:  # an inner one of a table's tree
      count = int.from_bytes(page[start + 3 : start + 5], 'big')
      places = struct.unpack_from(f'>{min(count, _MOST)}H', page, start + 12)
      children = [int.from_bytes(page[p : p + 4], 'big') for p in places if p <= size - 4]
      todo += [*children, int.from_bytes(page[start + 8 : start + 12], 'big')]
    if len(done) > _MOST:
      return
    f.seek((number - 1) * size)
    f.write(page[:-8] + log.seal(page))


def _put(path: pathlib.Path, kept: pathlib.Path, new: pathlib.Path) -> None:
  """The damaged one aside, the new one in its place.

  Until the last step the old mark is there: whoever opens the diary after a kill in between is told
  that it is not whole.
  """
  mark, beside = whole.mark_of(path), path.with_name(f'{path.name}-wal')
  if mark.exists():
    shutil.copyfile(mark, whole.mark_of(kept))
  if beside.exists() and beside.stat().st_size > 0:
    os.rename(beside, kept.with_name(f'{kept.name}-wal'))
  os.rename(path, kept)
  for end in ('-wal', '-shm'):
    path.with_name(f'{path.name}{end}').unlink(missing_ok=True)
  os.rename(new, path)
  os.rename(whole.mark_of(new), mark)
  directory = os.open(path.parent, os.O_RDONLY)
  try:
    os.fsync(directory)
  finally:
    os.close(directory)


# ---- Reading ----


@dataclasses.dataclass
class _Saved:
  experiences: int = 0
  last: int = 0
  damaged: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  left: dict[str, int] = dataclasses.field(default_factory=dict)

  def leave(self, table: str) -> None:
    self.left[table] = self.left.get(table, 0) + 1


def _save(source: pathlib.Path, new: Diary, path: pathlib.Path) -> _Saved:
  strict, lax = (apsw.Connection(str(source), vfs=whole.vfs()) for _ in range(2))
  try:
    for connection in (strict, lax):
      with contextlib.suppress(apsw.Error):  # what is wrong with one table is not with the others
        connection.execute('PRAGMA writable_schema = ON').fetchall()
    with contextlib.suppress(apsw.Error):
      lax.execute('PRAGMA checksum_verification = OFF').fetchall()  # digests tell what is right
    try:
      tables = {name for (name,) in strict.execute('SELECT name FROM sqlite_schema')}
      if strict.execute('PRAGMA application_id').get != schema.APPLICATION_ID:
        tables = set()
    except (apsw.Error, UnicodeDecodeError):
      tables = set()
    if 'experiences' not in tables:
      raise ValueError(
        f'nothing of {path} can be read as a diary: put a backup in its place, or move it away and '
        'import an export (--mode=import); nothing was changed'
      )
    saved = _Saved()
    with new.transaction():
      _save_experiences(lax, strict, new, saved)
      for table, key in _TABLES.items():
        if table in tables:
          _save_table(lax if table == 'media' else strict, new, table, key, saved)
      _finish(strict, new, saved)
    return saved
  finally:
    strict.close()
    lax.close()


def _save_experiences(
  old: apsw.Connection, strict: apsw.Connection, new: Diary, saved: _Saved
) -> None:
  """Those that have their digest. A file of before there were digests has to be believed.

  Trust may change and is not in the digest: where its page is damaged nobody has approved.
  """
  columns = _columns(old, 'experiences')
  for row in _rows(old, 'experiences', columns, 'id', saved):
    e = dict(zip(columns, row, strict=True))
    saved.last = max(saved.last, e['id'])
    try:
      media = old.execute(
        'SELECT kind, digest, description FROM media WHERE experience = ? ORDER BY place',
        (e['id'],),
      ).fetchall()
      digest = whole.experience_digest(*(e[f] for f in _FIELDS), json.dumps(media))
      if e.get('digest', digest) != digest:
        raise ValueError('its words do not have their digest')
      try:
        strict.execute('SELECT trust FROM experiences WHERE id = ?', (e['id'],)).fetchall()
      except apsw.Error:
        e['trust'] = int(Trust.IMPORTED)
      e['digest'] = digest
      _insert(new, 'experiences', [*e], [*e.values()])
    except (apsw.Error, TypeError, ValueError, UnicodeDecodeError):
      saved.damaged.append({'id': e['id']} | {f: e[f] for f in _FIELDS[:-1]})
    else:
      saved.experiences += 1


def _save_table(
  old: apsw.Connection, new: Diary, table: str, key: str | None, saved: _Saved
) -> None:
  try:
    known = _columns(new._connection, table)
    columns = [c for c in _columns(old, table) if c in known]
    for row in _rows(old, table, columns, key, saved):
      try:
        _insert(new, table, columns, row)
      except apsw.Error:  # of an experience that is lost, or damaged itself
        saved.leave(table)
  except (apsw.Error, UnicodeDecodeError):
    saved.leave(table)


def _insert(new: Diary, table: str, columns: list[str], row: Sequence[Any]) -> None:
  places = ', '.join('?' * len(columns))
  sql = f'INSERT OR IGNORE INTO {table} ({", ".join(columns)}) VALUES ({places})'
  new._connection.execute(sql, row)


def _columns(connection: apsw.Connection, table: str) -> list[str]:
  return [row[1] for row in connection.execute(f'PRAGMA table_info({table})')]


def _rows(
  old: apsw.Connection, table: str, columns: list[str], key: str | None, saved: _Saved
) -> Iterator[Sequence[Any]]:
  """All rows that can be read: from both ends, and of those between one by one.

  What cannot is counted in `saved`; where nobody can say how much it is, as one.
  """
  chosen = ', '.join(columns)
  if key is None:  # without a number of its own: by its primary key
    order = [r[1] for r in old.execute(f'PRAGMA table_info({table})') if r[5]]
    for way in ('ASC', 'DESC'):
      by = ', '.join(f'{c} {way}' for c in order)
      scan = _Scan(old, f'SELECT 0, {chosen} FROM {table} ORDER BY {by}')
      yield from scan
      if scan.whole:
        return
    saved.leave(table)
    return
  select = f'SELECT {key}, {chosen} FROM {table}'
  up = _Scan(old, f'{select} ORDER BY {key}')
  yield from up
  if up.whole:
    return
  down = _Scan(old, f'{select} ORDER BY {key} DESC', -1)
  yield from down
  first, last = up.last or 0, down.last or 0
  if down.last is None:
    saved.leave(table)
  for number in range(first + 1, min(last, first + _GAP)):
    one = _Scan(old, f'{select} WHERE {key} = {number}')
    yield from one
    if not one.whole:
      saved.leave(table)


class _Scan:
  """Rows up to the first that cannot be read."""

  def __init__(self, old: apsw.Connection, sql: str, step: int = 1):
    self._old, self._sql, self._step = old, sql, step
    self.last: int | None = None  # key of the last row
    self.whole = False  # whether all were read

  def __iter__(self) -> Iterator[Sequence[Any]]:
    with contextlib.suppress(apsw.Error, UnicodeDecodeError):
      for key, *row in self._old.execute(self._sql):
        if self.last is not None and (key - self.last) * self._step < 0:
          return  # the tree is in disorder from here on
        self.last = key
        yield row
      self.whole = True


# ---- What follows from the rows ----


def _finish(old: apsw.Connection, new: Diary, saved: _Saved) -> None:
  run = new._connection.execute
  run(
    'INSERT INTO words (rowid, text) SELECT id, text FROM texts'
    ' WHERE id NOT IN (SELECT experience FROM archived)'
  )
  with contextlib.suppress(apsw.Error):
    for name, last in old.execute('SELECT name, seq FROM sqlite_sequence').fetchall():
      run('UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?', (last, name))
  with contextlib.suppress(apsw.Error):
    saved.last = max(
      saved.last, run("SELECT seq FROM sqlite_sequence WHERE name = 'experiences'").get or 0
    )
  with contextlib.suppress(apsw.Error):
    active = old.execute('SELECT active FROM state').get
    if run('SELECT 1 FROM generations WHERE number = ?', (active,)).get:
      run('UPDATE state SET active = ?', (active,))
    elif active:
      saved.left['state'] = 1  # the base serves until another generation is chosen
