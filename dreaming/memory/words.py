"""Which experiences share words with a query: BM25 by SQLite's own full text search.

Vectors of meaning miss names, numbers and rare words; these find them. Words are stemmed (Porter)
and counted without their accents. Robertson et al. 1994, Okapi at TREC-3.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from dreaming.memory.store import Store

_ROWS = 500  # that a query may rank: what is more common finds nothing that vectors would not
_WORDS = 64  # of a query: of longer ones the beginning counts
_LONGEST = 64  # characters of a word
_WORD = re.compile(r'\w+')
# Of no use to search for, and in most questions: to count them would be half of the work.
_EMPTY = frozenset(
  'a about am an and are as at be been but by can could did do does for from had has have he her '
  'his how i if in is it its me my no not of on or our she so that the their them there they this '
  'to us was we were what when where which who whom whose why will with would you your'.split()
)


class Words(Store):
  """The part of the diary that is searched by words."""

  def by_words(self, query: str, k: int, only: Collection[int] | None = None) -> dict[int, float]:
    """The k experiences that share most with a query, with their BM25 (more is better).

    Words that hundreds of experiences have do not count.

    Args:
      only: the ids that they are among, by default all.
    """
    words = self._rare(query)
    if not words or k <= 0:
      return {}
    rows = self._run(
      'SELECT rowid, -rank FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?',
      (' OR '.join(words), k if only is None else _ROWS),
    )
    allowed = None if only is None else {*only}
    return dict([row for row in rows if allowed is None or row[0] in allowed][:k])

  def _rare(self, query: str) -> list[str]:
    """A query's words in quotes, so that none is an operator, the rarest first."""
    words = (w.casefold() for w in _WORD.findall(query) if len(w) <= _LONGEST)
    found = dict.fromkeys(w for w in words if w not in _EMPTY)
    counts = self._rows_with(list(found)[:_WORDS])
    out, left = [], _ROWS
    for word in sorted(counts, key=lambda w: counts[w]):
      left -= counts[word]
      if left < 0:
        break
      out += [f'"{word}"'] if counts[word] else []
    return out

  def _rows_with(self, words: Sequence[str]) -> dict[str, int]:
    """How many experiences have each word, up to one more than can be ranked."""
    if not words:
      return {}
    one = f'(SELECT count(*) FROM (SELECT 1 FROM words WHERE words MATCH ? LIMIT {_ROWS + 1}))'
    (counts,) = self._run(f'SELECT {", ".join([one] * len(words))}', [f'"{w}"' for w in words])
    return dict(zip(words, counts, strict=True))
