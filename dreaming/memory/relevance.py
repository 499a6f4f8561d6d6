"""What may be meant by a query, and in which ways each memory is relevant to it.

Whoever is named in a question draws in all that was ever said of them, so its meaning is compared
mostly without names, and names are looked for apart, also in the turns before: "He is called Basil"
is about a dog that was spoken of a moment ago. Times and speakers that a question names count, too,
and what is near to everything (hubness.py) less. recall.py weighs these parts.
"""

from __future__ import annotations

import calendar
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dreaming.memory import when
from dreaming.memory.columns import Table
from dreaming.memory.diary import Diary
from dreaming.memory.embed import Embedder
from dreaming.memory.index import Index

_POOL = 64  # memories that each way of finding brings
_BY_WORDS = 0.6  # a good cosine: what the best match of words counts as without one
_UNNAMED = 2 / 3  # of the query's meaning is that without names
_SOMEONE = 'someone'
_WORD = re.compile(r'\w+')
# What is before a word that begins a sentence, which 'Dr.' does not end.
_BEGINS = re.compile(r'(?:^|(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bSt)[.!?:]\s)\W*$')
# Whether a query asks what somebody said: by name alone, others' words about them are as good.
_TOLD = re.compile(
  r'\b(?:tells?|told|telling|says?|said|saying|mention\w*|writes?|wrote|written|speaks?|spoken?|'
  r'talk\w*|admit\w*|confess\w*|claim\w*|explain\w*|describ\w*|report\w*|recommend\w*|'
  r'advi[sc]\w*|suggest\w*|confid\w*|reveal\w*|announc\w*|according|words|to you|ask(?:s|ed)? you|'
  r'let you know)\b',
  re.IGNORECASE,
)
_NUMBER, _YEAR = re.compile(r'\d{3}'), re.compile(r'(?:19|20)\d\d')
_NO_NAMES = {'i', *(n.casefold() for n in (*calendar.day_name, *calendar.month_name))}


class Parts(NamedTuple):
  """The ways in which one memory is relevant."""

  cosine: float = 0.0  # of its meaning and the query's, mostly without names, -1 to 1
  words: float = 0.0  # BM25 as a share of the best one's
  before: float = 0.0  # cosine of the turn before, 0 without one
  names: float = 0.0  # share of the query's names that it has
  names_near: float = 0.0  # and that it or one of the two turns before has
  when: float = 0.0  # how much it is of the time that the query names, 0 to 1
  named: bool = False  # told by somebody of whose words the query asks
  hubness: float = 0.0  # mean cosine of its meaning and those of the memories nearest to it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
  """What may be meant by a query; each field is one array [N], the parts as in Parts."""

  ids: np.ndarray
  time: np.ndarray  # Unix seconds
  importance: np.ndarray  # NaN before it was rated
  length: np.ndarray  # in words
  said: np.ndarray  # a number, the same for the same words of the same speaker
  cosine: np.ndarray
  words: np.ndarray
  before: np.ndarray
  names: np.ndarray
  names_near: np.ndarray
  when: np.ndarray
  named: np.ndarray
  hubness: np.ndarray

  def parts(self, some: np.ndarray) -> list[Parts]:
    columns = (vars(self)[name][some].tolist() for name in Parts._fields)
    return [Parts(*x) for x in zip(*columns, strict=True)]


def find(
  diary: Diary,
  index: Index,
  embedder: Embedder,
  query: str,
  now: float,
  among: Mapping[str, Any] | None = None,
) -> Found:
  """Some two hundred memories at most, however long the life is, in the order of their ids.

  Args:
    now: Unix seconds, from which 'last week' is seen.
    among: filters of `Diary.ids`; by default everything is looked at.
  """
  names = names_of(query)
  asked = index.asked(_meaning(embedder, names, query))
  only = None if among is None else diary.ids(**among)
  spans = when.spans(query, now)
  table = diary.columns()
  allowed = None if only is None else np.sort(table.rows(only))
  found = diary.rows_with(table, query)
  folded = {n.casefold() for n in names}
  # Of names that are too common to be looked up, each text is looked at.
  called = [found[n] for n in folded] if folded <= found.keys() else None
  if allowed is not None:
    found = {w: rows[np.isin(rows, allowed)] for w, rows in found.items()}
  rows, bm25 = (x[:_POOL] for x in diary.ranked(table, found.values()))
  by_name, _ = diary.ranked(table, [r for w, r in found.items() if w in folded])
  ids = asked.nearest(_POOL, only)[0].tolist()
  ids += [i for s in spans for i in diary.ids(since=s.start, until=s.end, limit=_POOL)]
  ids += [i for n in names & table.speakers.keys() for i in diary.ids(speaker=n, limit=_POOL)]
  pool = np.concatenate([rows, by_name[:_POOL], table.rows(ids)])
  pool = pool[pool >= 0]
  # What is asked of a conversation may be in its next turn, with nothing to find it by.
  after = table.after(pool)
  pool = np.unique(np.concatenate([pool, after[after >= 0]]))
  if allowed is not None:
    pool = pool[np.isin(pool, allowed)]
  last, earlier = table.before(pool)
  words = np.zeros(table.count, np.float32)
  words[rows] = bm25 / max(bm25[:1].sum(), 1e-12)  # a share of the best one's
  cosine = asked.of(table.ids[pool].tolist())
  cosine = np.where(np.isnan(cosine), _BY_WORDS * words[pool], cosine)  # it has no vector yet
  shares = np.zeros((1, len(pool)))
  if folded:
    shares = _shares(diary, table, folded, np.stack([pool, last, earlier]), called)
  said = _TOLD.search(query) is not None
  named = np.array([said and s.casefold() in folded for s in table.speakers], bool)
  hubness = index.hubness(table.ids[pool].tolist())
  unknown = np.isnan(hubness)  # it has no vector yet: as any other
  hubness[unknown] = hubness[~unknown].mean() if not unknown.all() else 0.0
  before = np.zeros(len(pool))
  before[last >= 0] = np.nan_to_num(asked.of(table.ids[last[last >= 0]].tolist()))
  return Found(
    ids=table.ids[pool],
    time=table.time[pool],
    importance=table.importance[pool],
    length=table.length[pool],
    said=table.said[pool],
    cosine=cosine,
    words=words[pool],
    before=before,
    names=shares[0],
    names_near=shares.max(axis=0),
    when=np.max([np.zeros(len(pool)), *(s.share(table.time[pool]) for s in spans)], axis=0),
    named=named[table.speaker[pool]],
    hubness=hubness,
  )


# ---- Names ----


def names_of(query: str) -> set[str]:
  """Who and what a query calls by name: capital letters within a sentence, and numbers that
  are no part of a date."""
  found = set()
  for match in _WORD.finditer(query):
    word, begins = match[0], _BEGINS.search(query[: match.start()])
    name = word[0].isupper() and not begins and word.casefold() not in _NO_NAMES
    if name or (_NUMBER.search(word) and not _YEAR.fullmatch(word)):
      found.add(word)
  return found


def _meaning(embedder: Embedder, names: set[str], query: str) -> np.ndarray:
  """What is compared, Float['D']: mostly without names, as one of these may be half of a query."""
  if not names:
    return embedder([query])[0]
  # One by one: an encoder's program for one text is there, and others are for many.
  unnamed, whole = embedder([without(names, query)])[0], embedder([query])[0]
  return _UNNAMED * unnamed + (1 - _UNNAMED) * whole


def without(names: set[str], query: str) -> str:
  """A query whose meaning is compared: 'someone' stands for each name."""
  return _WORD.sub(lambda m: _SOMEONE if m[0] in names else m[0], query)


def _shares(
  diary: Diary,
  table: Table,
  names: set[str],
  turns: np.ndarray,
  called: Sequence[np.ndarray] | None,
) -> np.ndarray:
  """Share of the names that each row's words or speaker have, in the shape of `turns`.

  Args:
    names: case folded.
    turns: rows; -1 for none has no name.
    called: rows with words of the same stem as each name; by default all are looked at.
  """
  share = np.zeros(table.count)
  rows = np.unique(turns)
  rows = rows[rows >= 0]
  if called is not None:
    told = [any(n in s.casefold() for n in names) for s in table.speakers]
    some = np.zeros(table.count, bool)
    some[np.concatenate(called)] = True
    rows = rows[some[rows] | np.array(told)[table.speaker[rows]]]
  texts = diary.folded(table, rows.tolist())
  share[rows] = [len(names.intersection(_WORD.findall(t))) / len(names) for t in texts]
  return np.where(turns >= 0, share[turns], 0.0)
