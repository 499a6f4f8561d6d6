"""A page of the diary: what has these words, this kind, this trust, or was read by this night."""

from __future__ import annotations

import re

from dreaming import types
from dreaming.memory.archive import SUMMARY
from dreaming.memory.imported import Imported

_WORD = re.compile(r'\w+')
_WORDS = 16  # of a text: of longer ones the beginning counts


class Browse(Imported):
  """The part of the diary that is looked through, a page at a time."""

  def browse(
    self,
    *,
    text: str = '',
    kind: str | None = None,
    trust: types.Trust | None = None,
    waiting: bool = False,
    night: int | None = None,
    limit: int = 50,
    offset: int = 0,
  ) -> tuple[list[int], int]:
    """(ids of one page, newest first; how many there are on all pages). The archive stays closed.

    Args:
      text: every word of it must begin a word of the experience, accents and case aside.
      trust: exactly this.
      waiting: only what nights may not read before it is approved.
      night: that consumed it; 0 for what no night of the generation that serves has.
    """
    where, values = ['id NOT IN (SELECT experience FROM archived)'], []
    if text.strip():
      words = _WORD.findall(text)[:_WORDS]
      if not words:
        return [], 0
      where += ['id IN (SELECT rowid FROM words WHERE words MATCH ?)']
      values += [' '.join(f'"{w}"*' for w in words)]  # in quotes, so that none is an operator
    if kind is not None:
      where, values = [*where, 'kind = ?'], [*values, kind]
    if trust is not None:
      where, values = [*where, 'trust = ?'], [*values, int(trust)]
    if waiting:
      where, values = [*where, 'trust < ?'], [*values, int(types.Trust.USER)]
    if night == 0:
      where += ['id NOT IN (SELECT experience FROM consumed)']
    elif night is not None:
      where += ['id IN (SELECT experience FROM night_experiences WHERE night = ?)']
      values += [night]
    chosen = f'FROM experiences WHERE {" AND ".join(where)}'
    ((total,),) = self._run(f'SELECT count(*) {chosen}', values)
    rows = self._run(
      f'SELECT id {chosen} ORDER BY time DESC, id DESC LIMIT ? OFFSET ?', (*values, limit, offset)
    )
    return [id for (id,) in rows], total

  def count(self, *, unconsumed: bool = False) -> int:
    """How many `experiences` there are, of all or of the unconsumed: without reading them."""
    where = 'id NOT IN (SELECT experience FROM archived)'
    if unconsumed:
      where += f" AND kind != '{SUMMARY}' AND id NOT IN (SELECT experience FROM consumed)"
    return self._run(f'SELECT count(*) FROM experiences WHERE {where}')[0][0]
