"""First step of a night: which experiences are dreamt of.

Profound ones, and not all about the same thing: maximal marginal relevance (Carbonell and Goldstein
1998) between the profoundness score and the likeness to what was already chosen. What the user
asked to remember has its place before all others, what they asked to forget has none.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dreaming import types
from dreaming.brain import sentences
from dreaming.brain.decode import Decoder
from dreaming.memory import addressed, private, score
from dreaming.memory.diary import Diary
from dreaming.memory.embed import Embedder
from dreaming.memory.hearsay import Hearsay
from dreaming.memory.index import Index

_PARTS = 4  # of a context: one holds a message, the others examples before it, and what is asked


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectConfig:
  """As `config.select`."""

  threshold: float = 0.0  # profoundness (1 to 10) below which an experience is not dreamt of
  top_k: int = 24
  fraction: float = 0.0  # of those above the threshold, at most top_k; 0: top_k of them
  diversity: float = 0.3  # 0 takes the most profound, 1 the most different
  period_days: float = 0.0  # only this recent; 0: everything not yet consumed
  recent: int = 0  # of the latest, that have a place whatever their score
  themes: tuple[str, ...] = ()  # goals or subjects: what is like one of them counts as profounder
  theme_weight: float = 3.0  # points of profoundness at a cosine of 1
  trust: str = 'user'  # of types.Trust, in lower case: what is less trusted never trains
  corroborated: bool = True  # what others wrote may be dreamt of when the user has said it, too
  strike_contacts: bool = False  # addresses and telephone numbers go, as secrets always do
  weights: score.ProfoundnessWeights = score.ProfoundnessWeights()

  def __post_init__(self):
    if self.trust.upper() not in types.Trust.__members__:
      known = ', '.join(t.name.lower() for t in types.Trust)
      raise ValueError(f'select.trust is {self.trust!r}: take one of {known}')
    if self.top_k < 1:
      raise ValueError(f'select.top_k is {self.top_k}: take at least 1')
    for name in ('fraction', 'diversity'):
      if not 0 <= vars(self)[name] <= 1:
        raise ValueError(f'select.{name} is {vars(self)[name]}: take a number from 0 to 1')
    if not self.period_days >= 0:
      raise ValueError(f'select.period_days is {self.period_days}: take 0 (everything) or more')
    if not 0 <= self.recent <= self.top_k:
      raise ValueError(
        f'select.recent is {self.recent}: take 0 to select.top_k, which is {self.top_k}'
      )
    if not 0 <= self.theme_weight < math.inf:
      raise ValueError(f'select.theme_weight is {self.theme_weight}: take 0 or more')
    if not all(t.strip() for t in self.themes):
      raise ValueError(f'select.themes is {self.themes}: give texts, or () for none')

  @property
  def least(self) -> types.Trust:
    """The least trust that trains."""
    return types.Trust[self.trust.upper()]


def select(
  diary: Diary,
  vectors: tuple[np.ndarray, np.ndarray],
  config: SelectConfig,
  now: float,
  embedder: Embedder | None = None,
  owner: str = '',
) -> list[types.Experience]:
  """At most `top_k` experiences that no active night has consumed, in order of time.

  What is trusted less than `config.trust` is left out, imported and third-party texts that nobody
  approved: they do not reach the weights; so is what speaks to the agent as nobody does who talks
  with it (addressed.py), what somebody says of another speaker (hearsay.py), and what the user
  asked to forget (feedback UNWANTED). What they asked to
  remember (WANTED) has its place whatever its score and the fraction; if there are more than
  `top_k` the latest come first, and the others stay for the next night.

  Args:
    vectors: ids Int['N'] and Float['N D'], as `diary.embeddings(embedder.name)` gives them; an
      experience without a vector counts as unlike all others.
    now: Unix seconds; the end of the period.
    embedder: of these vectors; needed where there are themes.
    owner: whose agent it is.

  Raises:
    ValueError: there are themes and no embedder.
  """
  since = now - config.period_days * 86_400 if config.period_days else None
  hearsay = Hearsay(diary.speakers(), owner)
  allowed = [
    e
    for e in diary.experiences(since=since, unconsumed=True)
    if e.trust >= config.least and not 0 < _feedback(e) <= score.UNWANTED
    if config.least < types.Trust.USER or not (addressed.flagged(e) or hearsay(e))
  ]
  index = Index(*vectors)
  themed = _themed(allowed, index, config, embedder)
  latest = {e.id for e in allowed[len(allowed) - config.recent :]}
  candidates = [
    _Candidate(
      experience=e,
      worth=min(score.profoundness(e.scores, config.weights, (now - e.time) / 3600) + more, 10.0),
      sure=_feedback(e) >= score.WANTED or e.id in latest,
    )
    for e, more in zip(allowed, themed, strict=True)
  ]
  candidates = [c for c in candidates if c.sure or c.worth >= config.threshold]
  return sorted(_diverse(candidates, index, config), key=lambda e: (e.time, e.id))


def chosen(
  diary: Diary, ids: Sequence[int], config: SelectConfig, decoder: Decoder | None = None
) -> list[types.Experience]:
  """What was selected, as the night reads it: without passwords, keys and card numbers.

  Args:
    decoder: that reads it. Of what is long for it only the beginning is read; the diary has all.
  """
  secrets = private.Secrets.of(diary.experiences(archived=None), config.strike_contacts)
  found = diary.experiences(ids=ids)  # whose trust may have been withdrawn since
  read = [secrets.without(e) for e in found if e.trust >= config.least]
  return [_begun(e, decoder) for e in read] if decoder else read


def _begun(e: types.Experience, decoder: Decoder) -> types.Experience:
  content, response = (_beginning(text, decoder) for text in (e.content, e.response))
  return dataclasses.replace(e, content=content, response=response)


def _beginning(text: str, decoder: Decoder) -> str:
  """As many whole sentences as a part of the context holds, or else words."""
  room = decoder.cache_length // _PARTS
  if len(text.encode()) <= room or len(ids := decoder.tokenizer.encode(text)) <= room:
    return text
  text = decoder.tokenizer.decode(ids[:room]).rstrip('\ufffd')
  for last in (*sentences.split(text)[-1:], ' '):
    before, _, _ = text.rpartition(last)
    if len(before) >= len(text) / 2:
      return before.rstrip()
  return text


class _Candidate(NamedTuple):
  experience: types.Experience
  worth: float  # its profoundness, and what themes add; 1 to 10
  sure: bool  # whether it has a place whatever it is worth


def _feedback(e: types.Experience) -> float:
  return e.scores.feedback if e.scores else 0.0


def _themed(
  experiences: list[types.Experience],
  index: Index,
  config: SelectConfig,
  embedder: Embedder | None,
) -> list[float]:
  """What likeness to the nearest theme adds to each one's profoundness."""
  if not config.themes:
    return [0.0] * len(experiences)
  if embedder is None:
    raise ValueError('select.themes need the embedder of the vectors: give it to select')
  theme_TxD = embedder(config.themes)
  likeness = [
    float(np.max(theme_TxD @ index.vector(e.id))) if e.id in index else 0.0 for e in experiences
  ]
  return [config.theme_weight * max(cosine, 0.0) for cosine in likeness]


def _diverse(
  candidates: list[_Candidate], index: Index, config: SelectConfig
) -> list[types.Experience]:
  """The sure ones, then greedy maximal marginal relevance; of equal ones the earlier is taken."""
  worth = np.array([c.worth / 10 for c in candidates])
  likeness = np.zeros(len(candidates))  # with the most similar chosen one
  unit_NxD = np.zeros((len(candidates), index.dim), np.float32)
  for row, c in enumerate(candidates):
    if c.experience.id in index:
      unit_NxD[row] = index.vector(c.experience.id)
  # What was asked for, then what is recent, each the latest first.
  sure = [row for row, c in enumerate(candidates) if c.sure][::-1]
  sure.sort(key=lambda row: -_feedback(candidates[row].experience))
  open_ = np.ones(len(candidates), bool)
  chosen = []
  for place in range(max(_places(len(candidates), config), min(len(sure), config.top_k))):
    value = (1 - config.diversity) * worth - config.diversity * likeness
    best = sure[place] if place < len(sure) else int(np.argmax(np.where(open_, value, -np.inf)))
    open_[best] = False
    chosen.append(candidates[best].experience)
    likeness = np.maximum(likeness, unit_NxD @ unit_NxD[best])
  return chosen


def _places(count: int, config: SelectConfig) -> int:
  """How many of `count` candidates are chosen."""
  share = math.ceil(round(config.fraction * count, 9)) if config.fraction else count
  return min(share, config.top_k)
