"""What may be meant by a query, and in which ways each memory is relevant to it.

Whoever is named in a question draws in all that was ever said of them, so its meaning is compared
without names, and names are looked for apart, also in the turns before: "He is called Basil" is
about a dog that was spoken of a moment ago. Times and speakers that a question names count, too.
recall.py weighs these parts.
"""

from __future__ import annotations

import calendar
import itertools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dreaming.memory import when
from dreaming.memory.diary import Diary
from dreaming.memory.embed import Embedder
from dreaming.memory.index import Index

_POOL = 64  # memories that each way of finding brings
_SOMEONE = 'someone'
_WORD = re.compile(r'\w+')
# What is before a word that begins a sentence, which 'Dr.' does not end.
_BEGINS = re.compile(r'(?:^|(?<!\bDr)(?<!\bMr)(?<!\bMrs)(?<!\bMs)(?<!\bSt)[.!?:]\s)\W*$')
_NUMBER, _YEAR = re.compile(r'\d{3}'), re.compile(r'(?:19|20)\d\d')
_NO_NAMES = {'i', *(n.casefold() for n in (*calendar.day_name, *calendar.month_name))}


class Line(NamedTuple):
  """What is looked at of an experience, as `Diary.lines` has it."""

  id: int
  time: float
  speaker: str
  content: str
  importance: float | None  # None before it was rated


class Parts(NamedTuple):
  """The ways in which one memory is relevant."""

  line: Line
  cosine: float  # of its meaning and the query's without names, -1 to 1
  words: float  # BM25 as a share of the best one's
  before: float  # cosine of the turn before, 0 without one
  names: float  # share of the query's names that it has
  names_near: float  # and that it or one of the two turns before has
  when: bool  # of the time that the query names
  named: bool  # told by somebody whom the query names


def find(
  diary: Diary,
  index: Index,
  embedder: Embedder,
  query: str,
  now: float,
  among: Mapping[str, Any] | None = None,
) -> list[Parts]:
  """Some two hundred memories at most, however long the life is, the newest first.

  Args:
    now: Unix seconds, from which 'last week' is seen.
    among: filters of `Diary.ids`; by default everything is looked at.
  """
  names = _names(query)
  vector = embedder([_without(names, query)])[0]
  vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
  only = None if among is None else diary.ids(**among)
  words = diary.by_words(query, _POOL, only)
  spans = when.spans(query, now)
  found = {*words, *diary.by_words(' '.join(names), _POOL, only)}
  found |= {i for i, _ in index.search(vector, _POOL, only)}
  found |= {i for s in spans for i in diary.ids(since=s.start, until=s.end, limit=_POOL)}
  found |= {i for name in names for i in diary.ids(speaker=name, limit=_POOL)}
  turns = diary.turns(found)
  paths = {i: [t for t in (last, earlier) if t] for i, (last, earlier, _) in turns.items()}
  for i, (last, _, after) in turns.items():
    # What is asked of a conversation may be in its next turn, with nothing to find it by.
    if after and after not in paths:
      paths[after] = [i, *([last] if last else [])]
  allowed = paths.keys() if only is None else paths.keys() & {*only}
  paths = {i: paths[i] for i in allowed if i in index}
  lines = {x[0]: Line._make(x) for x in diary.lines({*paths, *itertools.chain(*paths.values())})}
  known = [i for i in lines if i in index]
  cosines = dict(zip(known, (index.vectors(known) @ vector).tolist(), strict=True))
  folded = {n.casefold() for n in names}
  shares = {i: _share(folded, line) for i, line in lines.items()} if names else {}
  most = max(words.values(), default=0.0) or 1.0
  return [
    Parts(
      line=(line := lines[i]),
      cosine=cosines[i],
      words=words.get(i, 0.0) / most,
      before=cosines.get(paths[i][0], 0.0) if paths[i] else 0.0,
      names=shares.get(i, 0.0),
      names_near=max(shares.get(j, 0.0) for j in (i, *paths[i])),
      when=any(line.time in s for s in spans),
      named=line.speaker.casefold() in folded,
    )
    for i in sorted(paths, key=lambda i: (-lines[i].time, -i))
  ]


# ---- Names ----


def _names(query: str) -> set[str]:
  """Who and what a query calls by name: capital letters within a sentence, and numbers that
  are no part of a date."""
  found = set()
  for match in _WORD.finditer(query):
    word, begins = match[0], _BEGINS.search(query[: match.start()])
    name = word[0].isupper() and not begins and word.casefold() not in _NO_NAMES
    if name or (_NUMBER.search(word) and not _YEAR.fullmatch(word)):
      found.add(word)
  return found


def _without(names: set[str], query: str) -> str:
  return _WORD.sub(lambda m: _SOMEONE if m[0] in names else m[0], query)


def _share(names: set[str], line: Line) -> float:
  """Share of the names that a memory's words or speaker have."""
  text = f'{line.speaker} {line.content}'.casefold()
  if not any(n in text for n in names):  # most have none, and this is quick
    return 0.0
  return len(names.intersection(_WORD.findall(text))) / len(names)
