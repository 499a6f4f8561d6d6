"""The archive: experiences that were trimmed. They stay in the diary's file, with their digests.

What is archived is neither searched nor recalled, nor embedded; a summary stands for it, which is
an experience of its own, of the kind 'summary'. It comes back when it is asked for by its id, when
the archive is searched, with an export, and for good with `restore`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from dreaming.memory.columns import Columns

SUMMARY = 'summary'
"""The kind of experience that stands for archived ones. Nights do not dream of it: they have dreamt
of what it is made of."""

_WORD = re.compile(r'\w+')
_WORDS = 16  # of a query


class Archive(Columns):
  """The part of the diary that was trimmed."""

  def archive(self, ids: Iterable[int], summary: int | None = None) -> int:
    """Puts experiences into the archive; returns how many were not there yet.

    Args:
      summary: the experience that stands for them.

    Raises:
      ValueError: the diary lacks one of them, or it is a summary.
    """
    ids = sorted({int(i) for i in ids})
    with self.transaction():
      for id in ids:
        self._require('experience', id)
      chosen = 'id IN (SELECT value FROM json_each(?1))'
      if found := self._run(
        f'SELECT id FROM experiences WHERE {chosen} AND kind = ?2', (json.dumps(ids), SUMMARY)
      ):
        raise ValueError(f'experience {found[0][0]} is a summary: it is not archived itself')
      new = f'{chosen} AND id NOT IN (SELECT experience FROM archived)'
      self._run(
        f"INSERT INTO words (words, rowid, text) SELECT 'delete', id, text FROM texts WHERE {new}",
        (json.dumps(ids),),
      )
      self._run(
        'DELETE FROM embeddings WHERE experience IN (SELECT value FROM json_each(?))',
        (json.dumps(ids),),
      )
      self._run(
        f"INSERT INTO archived SELECT id, ?2, unixepoch('subsec') FROM experiences WHERE {new}",
        (json.dumps(ids), summary),
      )
      count = self._connection.changes()
    self.drop_columns()
    return count

  def restore(self, ids: Iterable[int]) -> int:
    """Brings experiences back from the archive; returns how many came.

    With one of them come all that the same summary stands for, and the summary goes: it would tell
    again what is told.
    """
    given = json.dumps([int(i) for i in ids])
    with self.transaction():
      rows = self._run(
        'SELECT experience, summary FROM archived'
        ' WHERE experience IN (SELECT value FROM json_each(?1)) OR summary IN ('
        '  SELECT summary FROM archived WHERE experience IN (SELECT value FROM json_each(?1)))',
        (given,),
      )
      back = json.dumps([id for id, _ in rows])
      self._run(
        'DELETE FROM archived WHERE experience IN (SELECT value FROM json_each(?))', (back,)
      )
      self._run(
        'INSERT INTO words (rowid, text) SELECT id, text FROM texts'
        ' WHERE id IN (SELECT value FROM json_each(?))',
        (back,),
      )
      self._drop_summaries({summary for _, summary in rows if summary is not None})
    self.drop_columns()
    return len(rows)

  def restore_unlearned(self) -> int:
    """Brings back what is archived and in no night of the generation that serves."""
    sql = (
      'SELECT experience FROM archived WHERE experience NOT IN (SELECT experience FROM consumed)'
    )
    return self.restore([id for (id,) in self._run(sql)])

  def archived(self, query: str | None = None, limit: int | None = None) -> list[int]:
    """Ids in the archive: those with most words of a query, or all; of equals the newest first."""
    words = [w.casefold() for w in _WORD.findall(query or '')][:_WORDS]
    if query and not words:
      return []
    has = "(lower(e.content || ' ' || e.response) LIKE ?)"
    score = ' + '.join([has] * len(words)) or '1'
    rows = self._run(
      f'SELECT id FROM (SELECT e.id, e.time, {score} AS score FROM experiences e'
      ' JOIN archived ON experience = e.id) WHERE score > 0'
      ' ORDER BY score DESC, time DESC, id DESC LIMIT ?',
      (*(f'%{w}%' for w in words), -1 if limit is None else limit),
    )
    return [id for (id,) in rows]

  def summarised(self, summary: int) -> list[int]:
    """Ids of the archived experiences that a summary stands for."""
    sql = 'SELECT experience FROM archived WHERE summary = ? ORDER BY experience'
    return [id for (id,) in self._run(sql, (summary,))]

  def _drop_summaries(self, summaries: Iterable[int]) -> None:
    """Those that stand for nothing any more."""
    self._run('UPDATE state SET forgetting = 1')
    self._run(
      'DELETE FROM experiences WHERE id IN (SELECT value FROM json_each(?)) AND kind = ?'
      ' AND id NOT IN (SELECT summary FROM archived WHERE summary IS NOT NULL)',
      (json.dumps(sorted(summaries)), SUMMARY),
    )
    self._run('UPDATE state SET forgetting = 0')
