"""What the diary knows of imports: which items it has had, and which texts wait for approval."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping

from dreaming import types
from dreaming.memory.nights import Nights


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waiting:
  """Imported and third-party experiences of one session that nobody has approved."""

  session: str
  count: int
  first: float
  last: float


class Imported(Nights):
  """Keys of imported items, and approval: the one thing of an experience that may change."""

  def known(self, keys: Iterable[str]) -> set[str]:
    """Those of the keys whose items were imported already."""
    sql = 'SELECT key FROM imported WHERE key IN (SELECT value FROM json_each(?))'
    return {key for (key,) in self._run(sql, (json.dumps(list(keys)),))}

  def lived(self, time: float, speaker: str, content: str, response: str) -> bool:
    """Whether there is an experience of this moment with these words."""
    sql = (
      'SELECT 1 FROM experiences WHERE time = ? AND speaker = ? AND content = ? AND response = ?'
    )
    return bool(self._run(sql, (float(time), speaker, content, response)))

  def remember(self, keys: Mapping[str, int]) -> None:
    """Notes which experience each imported item has become: key -> id."""
    with self.transaction():
      for key, id in keys.items():
        self._require('experience', id)
        self._run('INSERT INTO imported VALUES (?, ?)', (key, id))

  def approve(self, ids: Iterable[int]) -> int:
    """Lets nights dream of experiences, by Trust.APPROVED; returns how many were not yet.

    Raises:
      ValueError: the diary lacks one of them; nothing is approved then.
    """
    ids = sorted({int(i) for i in ids})
    with self.transaction():
      for id in ids:
        self._require('experience', id)
      self._run(
        'UPDATE experiences SET trust = ?1 WHERE trust < ?1 AND id IN'
        ' (SELECT value FROM json_each(?2))',
        (int(types.Trust.APPROVED), json.dumps(ids)),
      )
      return self._connection.changes()

  def unapproved(self, session: str | None = None) -> list[int]:
    """Ids of experiences that are not trusted, of a session or of those that a pattern matches.

    Args:
      session: its name, or a pattern with * and ?; None is all.
    """
    sql = (
      'SELECT id FROM experiences WHERE trust < ?1'
      ' AND (?2 IS NULL OR session = ?2 OR session GLOB ?2) ORDER BY time, id'
    )
    return [id for (id,) in self._run(sql, (int(types.Trust.USER), session))]

  def waiting(self) -> list[Waiting]:
    """Sessions with experiences that are not trusted, in order of time."""
    rows = self._run(
      'SELECT session, count(*), min(time), max(time) FROM experiences WHERE trust < ?'
      ' GROUP BY session ORDER BY min(time), session',
      (int(types.Trust.USER),),
    )
    return [Waiting(session=s, count=n, first=a, last=b) for s, n, a, b in rows]
