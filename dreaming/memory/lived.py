"""What forgetting needs of the diary: traces of experiences, and nights that can be replaced.

A night that was lived again without something takes the place of the one that knew it: its row, its
steps, its dreams, its generation, and the scores that led to it, in one transaction.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dreaming import types
from dreaming.memory.imported import Imported
from dreaming.memory.store import dump

_TRACES = {
  'experiences': 'SELECT count(*) FROM experiences WHERE id IN {ids}',
  'scores': 'SELECT count(*) FROM scores WHERE experience IN {ids}',
  'embeddings': 'SELECT count(*) FROM embeddings WHERE experience IN {ids}',
  'full-text entries': 'SELECT count(*) FROM experiences WHERE id IN {ids}'
  ' AND id NOT IN (SELECT experience FROM archived)',
  'media entries': 'SELECT count(*) FROM media WHERE experience IN {ids}',
  'archive entries': 'SELECT count(*) FROM archived WHERE experience IN {ids}',
  'import keys': 'SELECT count(*) FROM imported WHERE experience IN {ids}',
  'approvals': 'SELECT count(*) FROM approvals WHERE experience IN {ids} OR witness IN {ids}',
  'dreams': 'SELECT count(*) FROM dreams',  # before and after: more go than those of these sources
  'summaries': "SELECT count(*) FROM experiences WHERE kind = 'summary'",
  'steps of nights': 'SELECT count(*) FROM night_steps',
}
# In an order in which what is referred to comes first; what says which night a row is of.
_TABLES = {
  'nights': 'number',
  'night_steps': 'night',
  'night_experiences': 'night',
  'dreams': 'night',
  'dream_sources': '(SELECT night FROM dreams WHERE id = dream)',
  'generations': 'night',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NightRows:
  """Nights with all that hangs on them, as a diary of this version has it."""

  tables: Mapping[str, tuple[Sequence[Any], ...]]
  active: int

  @property
  def generations(self) -> list[int]:
    return [row[0] for row in self.tables['generations']]


class Lived(Imported):
  """Traces, and nights that can be replaced."""

  def traces(self, ids: Iterable[int]) -> dict[str, int]:
    """What -> how many rows there are of some experiences; of dreams, steps, summaries of all."""
    chosen = '(SELECT value FROM json_each(?1))'
    given = json.dumps([int(i) for i in ids])
    found = {}
    for what, sql in _TRACES.items():
      values = (given,) if '{ids}' in sql else ()
      ((found[what],),) = self._run(sql.format(ids=chosen), values)
    return found

  def given(self) -> list[tuple[int, float]]:
    """(experience, feedback) whenever it changed, in that order: by a hand, or by words."""
    last: dict[int, float] = {}
    found = []
    for id, value in self._run('SELECT experience, feedback FROM scores ORDER BY id'):
      if value != last.get(id, 0.0):
        found.append((id, value))
      last[id] = value
    return found

  def next_id(self, id: int) -> None:
    """The experience that is appended next has this id; one that was used is not used again."""
    with self.transaction():
      name = ('experiences',)
      rows = self._run('SELECT seq FROM sqlite_sequence WHERE name = ?', name)
      if rows and rows[0][0] >= id:
        raise ValueError(f'experience {id} was there already: ids are never used twice')
      self._run('DELETE FROM sqlite_sequence WHERE name = ?', name)
      self._run("INSERT INTO sqlite_sequence VALUES ('experiences', ?)", (id - 1,))

  def night_rows(self, since: int = 1, until: int | None = None) -> NightRows:
    """The nights since <= number < until, and the generation of them that serves or served last."""
    limits = (since, 1 << 62 if until is None else until)
    tables = {
      table: tuple(self._run(f'SELECT * FROM {table} WHERE {night} >= ? AND {night} < ?', limits))
      for table, night in _TABLES.items()
    }
    sql = 'SELECT number FROM lineage WHERE night < ? ORDER BY night DESC LIMIT 1'
    found = self._run(sql, limits[1:])
    return NightRows(tables=tables, active=found[0][0] if found else 0)

  def add_night_rows(self, rows: NightRows) -> None:
    """Into a diary that has none of these nights."""
    with self.transaction():
      self._insert_nights(rows)
      self._run('UPDATE state SET active = ?', (rows.active,))

  def score_rows(self) -> list[tuple]:
    """All scores, oldest first."""
    columns = 'experience, rater, importance, novelty, emotion, feedback'
    return self._run(f'SELECT {columns} FROM scores ORDER BY id')

  def replace_nights(
    self,
    first: int,
    rows: NightRows,
    manifests: Mapping[int, types.Manifest],
    *,
    active: int,
    scores: Sequence[tuple],
  ) -> tuple[int, ...]:
    """Puts other nights in the place of those from `first` on; returns the generations that went.

    Args:
      rows: the new ones.
      manifests: generation's number in `rows` -> what it is here, under its new number.
      active: the generation that serves from now on.
      scores: as `score_rows` gives them; they replace those of the same experiences.

    Raises:
      ValueError: a night is running.
    """
    with self.transaction():
      if (number := self.open_night()) is not None:
        raise ValueError(f'night {number} is not over: let it end before its like takes its place')
      old = [n for (n,) in self._run('SELECT number FROM generations WHERE night >= ?', (first,))]
      for table, night in reversed(_TABLES.items()):
        self._run(f'DELETE FROM {table} WHERE {night} >= ?', (first,))
      generations = [
        (m.number, m.parent, m.night, m.created, dump(vars(m)), f'generations/{m.number}')
        for m in manifests.values()
      ]
      numbers = {n: m.number for n, m in manifests.items()}
      nights = [_renumbered(row, numbers) for row in rows.tables['nights']]
      tables = {**rows.tables, 'nights': nights, 'generations': generations}
      self._insert_nights(dataclasses.replace(rows, tables=tables))
      rated = json.dumps(sorted({row[0] for row in scores}))
      chosen = '(SELECT value FROM json_each(?))'
      self._run(f'DELETE FROM scores WHERE experience IN {chosen}', (rated,))
      for row in scores:
        self._run(
          'INSERT INTO scores (experience, rater, importance, novelty, emotion, feedback)'
          ' VALUES (?, ?, ?, ?, ?, ?)',
          row,
        )
      self._run('UPDATE state SET active = ?', (active,))
      self.restore_unlearned()
    self._run('PRAGMA wal_checkpoint(TRUNCATE)')
    self.drop_columns()
    return tuple(old)

  def _insert_nights(self, rows: NightRows) -> None:
    for table, some in rows.tables.items():
      for row in some:
        self._run(f'INSERT INTO {table} VALUES ({", ".join("?" * len(row))})', row)


def _renumbered(row: Sequence[Any], numbers: Mapping[int, int]) -> tuple[Any, ...]:
  """A night whose result names its generation as it is called here."""
  number, state, step, config, result, started, ended = row
  fields = json.loads(result)
  if fields.get('generation') in numbers:
    fields['generation'] = numbers[fields['generation']]
  return number, state, step, config, dump(fields), started, ended
