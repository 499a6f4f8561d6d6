"""What was told, and how well the weights hold it: one line for each experience that nights saw.

heard       not dreamt of yet
dreamt      dreamt of, and no exam has asked about it
held        at its last exam the weights alone answered at least half of its questions
missed      they never did: it is recalled by day and dreamt of again
slipping    once they did, at the last exam they did not
superseded  a later night answers otherwise, or nights may not learn it any more; it stays in the
            diary as history
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dreaming.memory.diary import Diary
from dreaming.sleep import examine, lineage
from dreaming.types import Dream, Status, Trust

STATES = ('heard', 'dreamt', 'held', 'missed', 'slipping', 'superseded')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
  """An experience and what became of it."""

  experience: int
  time: float  # Unix seconds
  text: str
  nights: tuple[int, ...]  # that dreamt of it
  exams: tuple[tuple[int, float], ...]  # (night, share of its questions answered rightly)
  state: str  # of STATES


def facts(diary: Diary) -> list[Fact]:
  """Of the generation that serves: what its nights dreamt of, and what no night has seen yet."""
  nights = lineage.nights(diary)
  dreamt: dict[int, list[int]] = {}
  once_told: set[int] = set()
  for night in nights:
    kept = diary.dreams(night, status=Status.KEPT)
    for i in sorted({i for d in kept if d.style != 'unknown' for i in d.sources}):
      dreamt.setdefault(i, []).append(night)
    once_told |= {i for d in lineage.told(diary, night) for i in d.sources}
  exams = _exams(diary, nights)
  rehearsed = {i for d in lineage.standing(diary) for i in d.sources}
  new = {e.id for e in diary.experiences(unconsumed=True)}
  found = []
  for e in diary.experiences():
    if e.id not in dreamt and e.id not in new:
      continue  # a night looked at it and found nothing to learn
    shares = exams.get(e.id, [])
    if e.id not in dreamt:
      state = 'heard'
    elif e.id in once_told and e.id not in rehearsed:
      state = 'superseded'
    elif not shares:
      state = 'dreamt'
    elif shares[-1][1] >= 0.5:
      state = 'held'
    else:
      state = 'slipping' if any(share >= 0.5 for _, share in shares) else 'missed'
    fields = {'experience': e.id, 'time': e.time, 'text': e.content, 'state': state}
    found.append(Fact(nights=tuple(dreamt.get(e.id, ())), exams=tuple(shares), **fields))
  return found


def rehearsal(
  diary: Diary, newer: Sequence[Dream], times: int, least: Trust = Trust.USER
) -> list[Dream]:
  """lineage.rehearsal of at least that trust, what slips or was missed `times` over."""
  dreams = lineage.rehearsal(diary, lineage.lessons(newer, least), least=least)
  weak = {f.experience for f in facts(diary) if f.state in ('slipping', 'missed')}
  return [d for d in dreams for _ in range(times if weak & {*d.sources} else 1)]


def _exams(diary: Diary, nights: Sequence[int]) -> dict[int, list[tuple[int, float]]]:
  """Experience -> (night, share) of every exam that asked about it."""
  sources: dict[str, tuple[int, ...]] = {}
  found: dict[int, list[tuple[int, float]]] = {}
  for night in nights:
    for question in examine.held_out(diary.dreams(night))[0]:
      sources[question.text] = question.sources
    replies = (diary.night(night).payloads.get('examine') or {}).get('replies', {})
    asked: dict[int, list[bool]] = {}
    for text, _, right in (*replies.get('recall', ()), *replies.get('earlier', ())):
      for i in sources.get(text, ()):
        asked.setdefault(i, []).append(right)
    for i, right in asked.items():
      found.setdefault(i, []).append((night, sum(right) / len(right)))
  return found
