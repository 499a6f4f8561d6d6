"""The open diary file: its connection, transactions, and how plain values become text."""

from __future__ import annotations

import contextlib
import json
import pathlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dreaming.memory import schema


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
    self._connection = schema.connect(self.path)

  def close(self) -> None:
    with self._lock:
      self._connection.close()

  @contextlib.contextmanager
  def transaction(self) -> Iterator[None]:
    """All writes inside happen, or none does; a nested transaction joins the outer one."""
    with self._lock, schema.clear_errors(self.path):
      if self._depth == 0:
        # Immediate: a reader that becomes a writer later would fail beside another process.
        self._connection.execute('BEGIN IMMEDIATE')
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

  def _run(self, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple]:
    with self._lock, schema.clear_errors(self.path):
      return self._connection.execute(sql, values).fetchall()

  def _commit(self) -> None:
    try:
      self._connection.execute('COMMIT')
    except BaseException:
      if self._connection.in_transaction:
        self._connection.execute('ROLLBACK')
      raise

  def _require(self, what: str, number: int) -> None:
    sql = {
      'experience': 'SELECT 1 FROM experiences WHERE id = ?',
      'generation': 'SELECT 1 FROM generations WHERE number = ?',
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
