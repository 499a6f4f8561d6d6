"""Trimming: what is old, unimportant and absorbed goes to the archive, and a summary stands for it.

Absorbed is what a night of the generation that serves, or of its ancestors, has consumed: after a
rollback it is so no longer, and comes back. What a user gave feedback on stays, and so does what
may correct something older, which would be believed again. Nothing is deleted (archive.py).
"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence

from dreaming.brain import sentences
from dreaming.memory.archive import SUMMARY
from dreaming.memory.diary import Diary
from dreaming.memory.index import Index
from dreaming.types import Experience

_DAY, _WEEK = 86_400.0, 604_800.0  # seconds
_CHARS = 600  # of a summary
_NEAR = 16  # neighbours that are looked at first for something older
_CORRECTS = re.compile(
  r'^\W*(?:no|sorry|wait|actually|correction)\b|\b(?:actually|i meant|i was wrong|not true|mistake'
  r'|correct (?:that|this|myself)|no longer|not .{1,40}\bbut\b|instead of|changed|any ?more)\b',
  re.IGNORECASE,
)
"""Words of people who correct something. A message too many stays, which does no harm."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrimConfig:
  """As `config.memory.trim`."""

  days: float = 90.0  # older than this
  below: float = 4.0  # and less important (1 to 10)
  keep: int = 1_000  # of the latest experiences, that stay however old they are
  sentences: int = 3  # of a speaker's week, that its summary repeats

  def __post_init__(self):
    if not self.days >= 0:
      raise ValueError(f'memory.trim.days is {self.days}: take 0 or more')
    if self.keep < 0:
      raise ValueError(f'memory.trim.keep is {self.keep}: take 0 or more')
    if not 1 <= self.sentences <= 20:
      raise ValueError(f'memory.trim.sentences is {self.sentences}: take 1 to 20')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What would go, and why the others stay."""

  chosen: tuple[Experience, ...]  # in order of time
  kept: dict[str, int]  # reason -> how many experiences; each has the first that holds for it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trimmed:
  """What went."""

  archived: tuple[int, ...]
  summaries: tuple[int, ...]


def plan(diary: Diary, config: TrimConfig, now: float, index: Index, correction: float) -> Plan:
  """What is old, unimportant and absorbed, and nobody's wish or correction. Nothing is changed.

  Args:
    now: Unix seconds.
    index: of all experiences, by the encoder that recalls.
    correction: cosine from which something later may correct something earlier: as
      `memory.correction`.
  """
  lived = diary.experiences()
  recent = {e.id for e in lived[len(lived) - config.keep :]} if config.keep else set()
  kept: collections.Counter[str] = collections.Counter()
  chosen = []
  times = {e.id: (e.time, e.id) for e in lived}
  words = {e.id: _plain(e) for e in lived}
  for e in lived:
    if reason := _stays(e, config, now, recent):
      kept[reason] += 1
    elif _CORRECTS.search(e.content) or _corrects(e, index, correction, times, words):
      kept['may correct something older'] += 1
    else:
      chosen.append(e)
  return Plan(chosen=tuple(chosen), kept=dict(kept))


def trim(diary: Diary, chosen: Iterable[Experience], config: TrimConfig) -> Trimmed:
  """Archives what was chosen, in one transaction: all of it with its summaries, or nothing.

  Raises:
    ValueError: one of them is not absorbed (any more), is a summary, or is not in the diary.
  """
  groups = collections.defaultdict(list)
  archived, summaries = [], []
  with diary.transaction():
    for e in diary.experiences(ids=[e.id for e in chosen]):
      if e.night is None:
        raise ValueError(f'experience {e.id} is not absorbed: no night that counts has learned it')
      groups[e.speaker, e.time // _WEEK, e.night].append(e)
    for some in groups.values():
      summary = _summarise(diary, some, config)
      diary.archive([e.id for e in some], summary.id)
      archived += [e.id for e in some]
      summaries.append(summary.id)
  return Trimmed(archived=tuple(archived), summaries=tuple(summaries))


# ---- What stays ----


def _stays(e: Experience, config: TrimConfig, now: float, recent: set[int]) -> str:
  """Why, or ''."""
  if e.kind == SUMMARY:
    return 'is a summary'
  if e.night is None:
    return 'is not absorbed by a night that counts'
  if e.scores is None or not e.scores.rater:
    return 'is not rated'
  if e.scores.feedback:
    return 'has feedback'
  if e.scores.importance >= config.below:
    return 'is important'
  if now - e.time < config.days * _DAY:
    return 'is recent'
  return 'is among the latest' if e.id in recent else ''


def _corrects(
  e: Experience,
  index: Index,
  cosine: float,
  times: dict[int, tuple[float, int]],
  words: dict[int, str],
) -> bool:
  """Whether something older says nearly the same in other words; what is not embedded may."""
  if e.id not in index:
    return True
  vector, k = index.vector(e.id), _NEAR
  while True:
    found = index.search(vector, k)
    near = [i for i, c in found if c >= cosine]
    if any(i in times and times[i] < times[e.id] and words[i] != words[e.id] for i in near):
      return True
    if len(near) < k or k >= len(index):
      return False
    k *= 4


def _plain(e: Experience) -> str:
  return f'{e.speaker}: {" ".join(e.content.casefold().split())}'


# ---- Summaries ----


def _summarise(diary: Diary, some: Sequence[Experience], config: TrimConfig) -> Experience:
  """Appends what stands for others of one speaker, week, and night that learned them: a rollback
  gives all or none of them back."""
  first, last = some[0], some[-1]
  top = max((e.scores for e in some if e.scores), key=lambda s: s.importance, default=None)
  return diary.append(
    time=last.time,
    kind=SUMMARY,
    speaker=first.speaker,
    content=_summary(some, config.sentences),
    scores=top and dataclasses.replace(top, feedback=0.0),
    trust=min(e.trust for e in some),
    session=first.session if len({e.session for e in some}) == 1 else '',
    metadata={'of': len(some), 'since': first.time, 'until': last.time},
  )


def _summary(some: Sequence[Experience], count: int) -> str:
  """The speaker's own sentences that matter most, in their order; nothing is invented."""
  said = [
    (e.scores.importance if e.scores else 0.0, len(set(s.split())), -place, s)
    for place, (e, s) in enumerate((e, s) for e in some for s in sentences.split(e.content))
  ]
  told = [x for x in said if not x[3].endswith('?')] or said
  best, left = [], _CHARS
  for x in sorted(told, reverse=True)[:count]:
    if best and len(x[3]) > left:
      continue
    best.append(x)
    left -= len(x[3])
  text = ' '.join(s for *_, s in sorted(best, key=lambda x: -x[2]))
  return text[:_CHARS] or some[0].content[:_CHARS] or f'({len(some)} without words)'
