"""What the diary knows of imports: which items it has had, and which texts wait for approval."""

from __future__ import annotations

import dataclasses
import json
import time as time_lib
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Approval:
  """Who let nights dream of an experience that is not the user's own words."""

  experience: int
  was: types.Trust  # before
  who: str
  witness: int | None  # the user's own words that say the same
  time: float  # Unix seconds


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

  def approve(self, ids: Iterable[int], who: str = 'operator') -> int:
    """Lets nights dream of experiences, by Trust.APPROVED; returns how many were not yet.

    Args:
      who: approves; kept with each of them.

    Raises:
      ValueError: the diary lacks one of them; nothing is approved then.
    """
    return self._raise(dict.fromkeys(map(int, ids)), types.Trust.APPROVED, who)

  def corroborate(self, witnesses: Mapping[int, int]) -> int:
    """Lets nights dream of what the user's own words say, too: id -> id of these words.

    It is trusted as they are, for as long as they are there. Returns how many were not yet.

    Raises:
      ValueError: the diary lacks one of them; nothing has changed then.
    """
    return self._raise(witnesses, types.Trust.USER, "the user's own words")

  def _raise(self, ids: Mapping[int, int | None], trust: types.Trust, who: str) -> int:
    count = 0
    with self.transaction():
      for id, witness in sorted(ids.items()):
        for each in (id, *([] if witness is None else [witness])):
          self._require('experience', each)
        ((was,),) = self._run('SELECT trust FROM experiences WHERE id = ?', (id,))
        if was >= trust:
          continue
        self._run(
          'INSERT OR REPLACE INTO approvals VALUES'
          ' (?1, ifnull((SELECT was FROM approvals WHERE experience = ?1), ?2), ?3, ?4, ?5)',
          (id, was, who, witness, time_lib.time()),
        )
        self._run('UPDATE experiences SET trust = ? WHERE id = ?', (int(trust), id))
        count += 1
    return count

  def approvals(self, ids: Iterable[int] | None = None) -> list[Approval]:
    """Who approved experiences, of all or of these; what never had to be is not among them."""
    rows = self._run(
      'SELECT experience, was, who, witness, time FROM approvals'
      ' WHERE ?1 IS NULL OR experience IN (SELECT value FROM json_each(?1)) ORDER BY experience',
      (None if ids is None else json.dumps([int(i) for i in ids]),),
    )
    return [
      Approval(experience=e, was=types.Trust(was), who=who, witness=witness, time=time)
      for e, was, who, witness, time in rows
    ]

  def _withdraw(self, witnesses: Iterable[int]) -> None:
    """Takes back what these words had corroborated, and what that had corroborated in turn.

    What was dreamt of it has its trust by itself: see `Nights.dreams`.
    """
    chosen, values = '(SELECT value FROM json_each(?1))', (json.dumps([int(i) for i in witnesses]),)
    gone = f'SELECT experience FROM approvals WHERE witness IN {chosen}'
    fallen = {id for (id,) in self._run(gone, values)}
    if not fallen:
      return
    self._run(
      'UPDATE experiences SET trust ='
      ' (SELECT was FROM approvals WHERE experience = experiences.id)'
      f' WHERE id IN ({gone})',
      values,
    )
    self._run(f'DELETE FROM approvals WHERE witness IN {chosen}', values)
    values = (json.dumps(sorted(fallen)),)
    rows = self._run(  # what stands for it has the least trust of all that it stands for
      'UPDATE experiences SET trust = min(trust, (SELECT min(e.trust) FROM archived a'
      ' JOIN experiences e ON e.id = a.experience WHERE a.summary = experiences.id))'
      f' WHERE id IN (SELECT summary FROM archived WHERE experience IN {chosen}) RETURNING id',
      values,
    )
    self._withdraw(fallen | {id for (id,) in rows})

  def _drop_summaries(self, summaries: Iterable[int]) -> None:
    summaries = set(summaries)
    self._withdraw(summaries)  # while it is known what they had corroborated
    super()._drop_summaries(summaries)

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
