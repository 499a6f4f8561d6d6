"""Which turns belong together: an episode ends with a silence, sooner where talk turns elsewhere.

As TextTiling (Hearst 1997) finds subtopics: by how alike what comes is to what was just said. Two
short turns of one conversation are seldom alike (a cosine of 0.15 in made-up lives, whether or not
one goes on with the other), so that within minutes they always belong together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from dreaming.memory.columns import GAP
from dreaming.memory.index import Index
from dreaming.types import Experience

_PAUSE = 300.0  # seconds, after which another topic begins another episode
_ALIKE = 0.2  # cosine with the last turns, from which the topic is the same
_LAST = 3  # turns


@dataclasses.dataclass(frozen=True, kw_only=True)
class Episode:
  """Turns of one session that belong together, in order of time."""

  ids: tuple[int, ...]
  start: float  # Unix seconds
  end: float
  session: str
  speakers: tuple[str, ...]  # in the order in which they first spoke
  gist: str  # the turn that is most like all of them


def group(experiences: Sequence[Experience], index: Index) -> list[Episode]:
  """The episodes of experiences, in the order of their first turns.

  Args:
    experiences: whichever; those of different sessions are never of one episode.
    index: their vectors. What has none yet begins no topic.
  """
  open_turns: dict[str, list[Experience]] = {}
  episodes: list[list[Experience]] = []
  for e in sorted(experiences, key=lambda e: (e.time, e.id)):
    turns = open_turns.get(e.session)
    if turns is None or not _goes_on(turns, e, index):
      turns = open_turns[e.session] = []
      episodes.append(turns)
    turns.append(e)
  return [_episode(turns, index) for turns in episodes]


def _goes_on(turns: Sequence[Experience], e: Experience, index: Index) -> bool:
  silence = e.time - turns[-1].time
  if not _PAUSE < silence <= GAP:
    return silence <= _PAUSE
  last, new = (index.vectors([x.id for x in some]) for some in (turns[-_LAST:], [e]))
  mean = last.sum(axis=0)
  size = float(np.linalg.norm(mean) * np.linalg.norm(new))
  return size == 0.0 or float(mean @ new[0]) / size >= _ALIKE


def _episode(turns: Sequence[Experience], index: Index) -> Episode:
  vectors = index.vectors([e.id for e in turns])
  middle = int(np.argmax(vectors @ vectors.sum(axis=0)))
  return Episode(
    ids=tuple(e.id for e in turns),
    start=turns[0].time,
    end=turns[-1].time,
    session=turns[0].session,
    speakers=tuple(dict.fromkeys(e.speaker for e in turns)),
    gist=turns[middle].content,
  )
