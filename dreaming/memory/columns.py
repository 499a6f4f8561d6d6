"""What recall looks at of every experience, in memory as arrays: times, speakers, turns, lengths.

A cache of the diary that is brought up to date before each use. Experiences are append-only, so
what is new is added; forgetting drops it. A million experiences take 60 MB and seconds to read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dreaming.memory.store import Store

GAP = 3600.0  # seconds between turns, from which they are of different conversations
_TEXTS = 100_000  # texts that are kept, however long the life is
_LONG = 4_000  # characters: longer texts are not kept
_ROOM = 1024
_ARRAYS = ('ids', 'time', 'speaker', 'session', 'length', 'importance', 'last', 'next', 'said')


class Table:
  """The columns, one row for each experience, in the order of ids.

  Arrays are longer than `count`; what is beyond is undefined.
  """

  def __init__(self):
    self.count = 0
    self.ids = np.zeros(0, np.int64)
    self.time = np.zeros(0, np.float64)  # Unix seconds
    self.speaker = np.zeros(0, np.int32)  # place in `speakers`
    self.session = np.zeros(0, np.int32)
    self.length = np.zeros(0, np.int32)  # words of its content
    self.importance = np.zeros(0, np.float64)  # the latest; NaN before it was rated
    self.last = np.zeros(0, np.int32)  # row of the turn before in the session, -1 without one
    self.next = np.zeros(0, np.int32)  # and of the one after
    self.speakers: dict[str, int] = {}
    self.said = np.zeros(0, np.int64)  # a hash of speaker and words: the same for the same
    self.texts: dict[int, str] = {}  # by row: speaker and content, case folded
    self.words = 0  # of all
    self.common: set[str] = set()  # words that very many have: see words.py
    self._sessions: dict[str, int] = {}
    self._ends: dict[int, int] = {}  # a session's last row
    self.scored = 0  # the last row of scores that is in `importance`

  @property
  def newest(self) -> int:
    """The greatest id, 0 without any."""
    return int(self.ids[self.count - 1]) if self.count else 0

  def rows(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """The row of each id, Int['N'], -1 of those that are not there."""
    ids = np.asarray(ids, np.int64)
    known = self.ids[: self.count]
    at = np.minimum(np.searchsorted(known, ids), self.count - 1)
    return np.where(known[at] == ids, at, -1) if self.count else np.full(len(ids), -1)

  def before(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the turn right before each and of the one before that; -1 for those that are not of
    the same session and hour."""
    last = self.last[rows]
    earlier = np.where(last >= 0, self.last[last], -1)
    return self._of_hour(rows, last), self._of_hour(rows, earlier)

  def after(self, rows: np.ndarray) -> np.ndarray:
    """Rows of the turn right after each, as `before` has them."""
    return self._of_hour(rows, self.next[rows])

  def _of_hour(self, rows: np.ndarray, turns: np.ndarray) -> np.ndarray:
    near = np.abs(self.time[turns] - self.time[rows]) <= GAP
    return np.where(near & (turns >= 0), turns, -1)

  def extend(self, found: Sequence[tuple[int, float, str, str, str]]) -> None:
    """Adds (id, time, speaker, session, content) with rising ids."""
    start, stop = self.count, self.count + len(found)
    if stop > len(self.ids):
      room = max(stop, 2 * self.count, _ROOM) - len(self.ids)
      for name in _ARRAYS:
        setattr(self, name, np.pad(getattr(self, name), (0, room)))
    self.last[start:stop] = self.next[start:stop] = -1
    self.importance[start:stop] = math.nan
    in_order = start > 0 or len(found) == 1
    for row, (id, time, speaker, session, content) in enumerate(found, start):
      self.ids[row], self.time[row] = id, time
      self.speaker[row] = self.speakers.setdefault(speaker, len(self.speakers))
      self.session[row] = code = self._sessions.setdefault(session, len(self._sessions))
      words = content.casefold().split()
      self.length[row] = len(words)
      self.words += len(words)
      self.said[row] = hash((speaker, *words))
      if in_order:
        in_order = self._link(row, code)
    self.count = stop
    if not in_order:
      self._link_all()

  def _link(self, row: int, session: int) -> bool:
    """Appends a row to its session; False if it belongs somewhere before its end."""
    end = self._ends.get(session, -1)
    if end >= 0 and self.time[end] > self.time[row]:
      return False
    if end >= 0:
      self.last[row], self.next[end] = end, row
    self._ends[session] = row
    return True

  def _link_all(self) -> None:
    n = self.count
    order = np.lexsort((self.time[:n], self.session[:n]))  # stable: of one time by id
    same = self.session[order[1:]] == self.session[order[:-1]]
    self.last[:n] = self.next[:n] = -1
    self.last[order[1:][same]] = order[:-1][same]
    self.next[order[:-1][same]] = order[1:][same]
    ends = order[np.append(~same, True)]
    self._ends = dict(zip(self.session[ends].tolist(), ends.tolist(), strict=True))


class Columns(Store):
  """The part of the diary that is in memory."""

  _table: Table | None = None

  def columns(self) -> Table:
    """The columns as of now."""
    with self._lock:
      table = self._table or Table()
      self._refresh(table)
      # What is read within a transaction may be rolled back, and its ids given again.
      self._table = None if self._depth else table
      return table

  def drop_columns(self) -> None:
    """They are read anew: what was forgotten or archived must not stay in memory."""
    self._table = None

  def folded(self, table: Table, rows: Sequence[int]) -> list[str]:
    """Speaker and content of each row, case folded; '' for what is not there any more."""
    kept = table.texts
    missing = [row for row in rows if row not in kept]
    long: dict[int, str] = {}
    if missing:
      if len(kept) + len(missing) > _TEXTS:
        kept.clear()
        missing = list(rows)
      found = self._run(
        'SELECT id, speaker, content FROM experiences WHERE id IN (SELECT value FROM json_each(?))',
        (json.dumps(table.ids[missing].tolist()),),
      )
      texts = {id: f'{speaker} {content}'.casefold() for id, speaker, content in found}
      for row, id in zip(missing, table.ids[missing].tolist(), strict=True):
        text = texts.get(id, '')
        (kept if len(text) <= _LONG else long)[row] = text
    return [kept[row] if row in kept else long[row] for row in rows]

  def _refresh(self, table: Table) -> None:
    new: list[Any] = self._run(
      'SELECT id, time, speaker, session, content FROM experiences WHERE id > ?'
      ' AND id NOT IN (SELECT experience FROM archived) ORDER BY id',
      (table.newest,),
    )
    if new:
      table.extend(new)
    scores = self._run(
      'SELECT id, experience, importance FROM scores WHERE id > ? ORDER BY id', (table.scored,)
    )
    if scores:
      importance = {experience: value for _, experience, value in scores}  # the latest counts
      rows = table.rows([*importance])
      there = rows >= 0
      table.importance[rows[there]] = np.array([*importance.values()])[there]
      table.scored = scores[-1][0]
