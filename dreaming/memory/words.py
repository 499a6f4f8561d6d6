"""Which experiences share words with a query: BM25 over SQLite's full text index.

Vectors of meaning miss names, numbers and rare words; these find them. Words are stemmed (Porter)
and counted without their accents. Robertson et al. 1994, Okapi at TREC-3. SQLite finds the rows of
each word; to let it rank them, too, would read the index three times and take twice as long.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable

import numpy as np

from dreaming.memory.columns import Columns, Table

_ROWS = 500  # that a query may rank: what is more common finds nothing that vectors would not
_WORDS = 64  # of a query: of longer ones the beginning counts
_LONGEST = 64  # characters of a word
_K1, _B = 1.2, 0.75  # of BM25, as SQLite has them
_WORD = re.compile(r'\w+')
# Of no use to search for, and in most questions: to count them would be half of the work.
_EMPTY = frozenset(
  'a about am an and are as at be been but by can could did do does for from had has have he her '
  'his how i if in is it its me my no not of on or our she so that the their them there they this '
  'to us was we were what when where which who whom whose why will with would you your'.split()
)


class Words(Columns):
  """The part of the diary that is searched by words."""

  def by_words(self, query: str, k: int, only: Collection[int] | None = None) -> dict[int, float]:
    """The k experiences that share most with a query, with their BM25 (more is better).

    Words that hundreds of experiences have do not count, nor how often one has them.

    Args:
      only: the ids that they are among, by default all.
    """
    table = self.columns()
    rows, found = self.ranked(table, self.rows_with(table, query).values())
    pairs = zip(table.ids[rows].tolist(), found.tolist(), strict=True)
    allowed = None if only is None else {*only}
    return dict([p for p in pairs if allowed is None or p[0] in allowed][: max(k, 0)])

  def having(self, words: Collection[str], limit: int) -> list[int]:
    """The latest experiences, at most `limit`, that have one of the words, stemmed."""
    match = ' OR '.join(f'"{w}"' for w in words)
    sql = 'SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid DESC LIMIT ?'
    return [id for (id,) in self._run(sql, (match, limit))]

  def ranked(self, table: Table, found: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows Int['N'] that have any of the words, best first, and their BM25 Float['N'].

    Args:
      found: the rows of each word, as `rows_with` has them.
    """
    n, left = table.count, _ROWS
    total, kept = np.zeros(n), []
    for rows in sorted(filter(len, found), key=len):  # the rarest first
      left -= len(rows)
      if left < 0:
        break
      total[rows] += max(math.log((n - len(rows) + 0.5) / (len(rows) + 0.5)), 1e-6)
      kept.append(rows)
    if not kept:
      return np.zeros(0, np.int64), np.zeros(0)
    rows = np.unique(np.concatenate(kept))
    length = table.length[rows] * (n / max(table.words, 1))  # 1 is the mean
    bm25 = total[rows] * ((_K1 + 1) / (1 + _K1 * (1 - _B + _B * length)))
    order = np.argsort(-bm25, kind='stable')
    return rows[order], bm25[order]

  def rows_with(self, table: Table, query: str) -> dict[str, np.ndarray]:
    """The rows Int['N'] of each word of a query, of those that are not too common."""
    words = (w.casefold() for w in _WORD.findall(query) if len(w) <= _LONGEST)
    words = (w for w in words if w not in _EMPTY and w not in table.common)
    words = list(dict.fromkeys(words))[:_WORDS]
    if not words:
      return {}
    one = f'(SELECT rowid FROM words WHERE words MATCH ? LIMIT {_ROWS + 1})'
    found = self._run(
      ' UNION ALL '.join(f'SELECT {i}, rowid FROM {one}' for i in range(len(words))),
      [f'"{w}"' for w in words],  # in quotes, so that none is an operator
    )
    which, ids = (np.array(x, np.int64) for x in (zip(*found, strict=True) if found else ((), ())))
    rows = table.rows(ids)
    of_each = {w: rows[which == i] for i, w in enumerate(words)}
    table.common |= {w for w, r in of_each.items() if len(r) > _ROWS}
    return {w: r[r >= 0] for w, r in of_each.items() if len(r) <= _ROWS}
