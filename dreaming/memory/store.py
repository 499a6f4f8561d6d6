"""The open diary file: its connection, transactions, and how plain values become text.

A transaction is as slow as the disk that it must be safe on. Threads that write at the same time
share one: whoever has the lock first does the work of all who wait for it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import apsw
import numpy as np

from dreaming.memory import schema, whole

_TOGETHER = 256  # writes that share a transaction


@dataclasses.dataclass(eq=False)
class _Work:
  """What one thread wants written, and what came of it."""

  do: Callable[[], Any]
  result: Any = None
  error: Exception | None = None
  over: bool = False


class Store:
  """A checked, locked connection that the two halves of the diary share.

  Raises:
    ValueError: the file is damaged, is no diary, or was written by a newer version.
    OSError: the file cannot be opened or written.
  """

  def __init__(self, path: str | pathlib.Path):
    self.path = pathlib.Path(path)
    self._lock = threading.RLock()
    self._depth = 0
    self._closed = False
    self._changes = 0  # rows that were changed before this transaction
    self._writer = 0  # the thread that is in a transaction
    self._waiting: collections.deque[_Work] = collections.deque()
    opened = schema.connect(self.path)
    self._connection = opened.connection
    self._opened = opened.writes, opened.closed
    self.remark = opened.remark
    """One line of what was unusual about the file; '' where nothing was."""
    try:
      self._marker = whole.Marker(self.path, opened.identity)
      self._marker.note(opened.writes, sync=True)  # from now on it is not what was closed
    except BaseException:
      self._connection.close()
      raise

  def copy(self, to: pathlib.Path) -> None:
    """Writes the diary as it is at this moment to another file, which must not be there."""
    with self._lock, whole.as_damage():
      self._connection.execute('VACUUM INTO ?', (str(to),))
    with to.open('rb') as f:
      os.fsync(f.fileno())

  def close(self) -> None:
    """Ends the use of the file; whoever closes it last notes what it is then."""
    with self._lock:
      if self._closed:
        return
      self._closed = True
      try:
        writes = self._connection.execute('SELECT writes FROM state').get
      except apsw.Error:  # damaged while it was open: opening it again will tell
        writes = None
      self._connection.close()
      if writes is not None and not self.path.with_name(f'{self.path.name}-wal').exists():
        with contextlib.suppress(OSError):  # moved away, or removed
          before, closed = self._opened
          if not closed or writes != before:
            closed = whole.closing_digest(self.path)
          self._marker.note(writes, closed)
      self._marker.close()

  @contextlib.contextmanager
  def transaction(self) -> Iterator[None]:
    """All writes inside happen, or none does; a nested transaction joins the outer one."""
    with self._lock, schema.clear_errors(self.path):
      if self._depth == 0:
        # Immediate: a reader that becomes a writer later would fail beside another process.
        self._connection.execute('BEGIN IMMEDIATE')
        self._writer = threading.get_ident()
        self._changes = self._connection.total_changes()
      self._depth += 1
      try:
        yield
      except BaseException:
        # SQLite itself ends the transaction at some errors, a full disk for one.
        if self._depth == 1 and self._connection.in_transaction:
          self._connection.execute('ROLLBACK')
        raise
      else:
        if self._depth == 1:
          self._commit()
      finally:
        self._depth -= 1
        if self._depth == 0:
          self._writer = 0

  def _shared(self, do: Callable[[], Any]) -> Any:
    """Does it in a transaction, which threads that wait for the same share; returns its result.

    When this returns, it is on the disk. What fails fails alone, and leaves nothing behind.
    """
    if self._writer == threading.get_ident():  # a part of what this thread is writing
      return do()
    work = _Work(do)
    self._waiting.append(work)
    with self._lock:
      if not work.over:
        some = [self._waiting.popleft() for _ in range(min(len(self._waiting), _TOGETHER))]
        if work not in some:  # many came first, or whoever took it was interrupted
          with contextlib.suppress(ValueError):
            self._waiting.remove(work)
          some.append(work)
        self._write_all(some)
    if work.error is not None:
      raise work.error
    return work.result

  def _write_all(self, some: Sequence[_Work]) -> None:
    try:
      with self.transaction():
        for work in some:
          if len(some) == 1:
            work.result = work.do()
          else:
            self._try(work)
    except Exception as e:
      for work in some:
        work.error = work.error or e
    except BaseException:  # of this thread alone: nothing of the others' is acknowledged
      for work in some:
        work.error = OSError('interrupted while it was written: look if it is there, or try again')
      raise
    finally:
      for work in some:
        work.over = True

  def _try(self, work: _Work) -> None:
    self._connection.execute('SAVEPOINT one')
    try:
      work.result = work.do()
    except Exception as e:
      work.error = e
      if self._connection.in_transaction:  # some errors, a full disk for one, end it all
        self._connection.execute('ROLLBACK TO one')
      else:
        raise
    self._connection.execute('RELEASE one')

  def _run(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple]:
    with self._lock, schema.clear_errors(self.path):
      return self._connection.execute(sql, values).fetchall()

  def _commit(self) -> None:
    try:
      writes = None
      if self._connection.total_changes() != self._changes:
        sql = 'UPDATE state SET writes = writes + 1 RETURNING writes'
        ((writes,),) = self._connection.execute(sql).fetchall()
      self._connection.execute('COMMIT')
    except BaseException:
      if self._connection.in_transaction:
        self._connection.execute('ROLLBACK')
      raise
    if writes is not None:
      with contextlib.suppress(
        OSError
      ):  # it is on the disk, and a mark that is behind does no harm
        self._marker.note(writes)

  def _require(self, what: str, number: int) -> None:
    sql = {
      'experience': 'SELECT 1 FROM experiences WHERE id = ?',
      'generation': 'SELECT 1 FROM generations WHERE number = ?',
      'dream': 'SELECT 1 FROM dreams WHERE id = ?',
    }[what]
    if not self._run(sql, (number,)):
      raise ValueError(f'the diary has no {what} {number}')


def dump(value: Any) -> str:
  """JSON of plain values, mappings, NumPy scalars and paths; NaN is refused."""
  try:
    return json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False)
  except TypeError as e:
    raise ValueError(f'the diary keeps plain values only: {e}') from e


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return dict(value)
  if isinstance(value, np.generic):
    return value.item()
  if isinstance(value, pathlib.PurePath):
    return str(value)
  raise TypeError(f'{type(value).__name__} is none')
