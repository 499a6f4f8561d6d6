"""Which memories come to mind: recency, importance and relevance, each with its weight.

After Park et al. 2023, Generative Agents (arXiv 2304.03442), section 4.1. Relevance is found twice,
by meaning (vectors) and by words (BM25), and a memory is also relevant by what was said just before
or after it, by whose words it is, and by its time, when the query says so. What of it a question is
about, rerank.py judges. The parts of each memory's score come back with it, for `/why`.
"""

from __future__ import annotations

import dataclasses
import datetime
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dreaming import types
from dreaming.memory import score, when
from dreaming.memory.diary import Diary
from dreaming.memory.embed import Embedder
from dreaming.memory.index import Index

_MARKS = '.,;:!?"()'
_POOL = 64  # memories that each way of finding brings


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallConfig:
  """As `config.memory`."""

  recall_k: int = 8
  read_k: int = 1  # of them, that a question is answered from: see rerank.py
  recall_weights: tuple[float, float, float] = (0.2, 0.2, 1.0)  # recency, importance, relevance
  recency_half_life_hours: float = 72.0
  min_relevance: float = 0.0  # below which nothing is recalled
  words: float = 0.4  # what the best match of words adds to relevance
  beside: float = 0.3  # share of a neighbour's relevance that a turn has, too
  when: float = 0.3  # what a memory of the time that is asked about has more
  speaker: float = 0.2  # and one that is told by whom the query names
  min_evidence: float = 2.6  # nats for a reply from notes: see rerank.evidence
  sure_evidence: float = 3.6  # for one that counts more than what the weights say
  retell: bool = True  # reply with the sentence that was read, not with the word: see retell.py
  near_duplicate: float = 0.6  # cosine from which a newer memory may correct an older one

  def __post_init__(self):
    if len(self.recall_weights) != 3 or min(self.recall_weights) < 0:
      raise ValueError(f'memory.recall_weights are three numbers >= 0, not {self.recall_weights}')
    if not self.min_evidence <= self.sure_evidence:
      raise ValueError(
        f'memory.sure_evidence is {self.sure_evidence}, less than memory.min_evidence, '
        f'{self.min_evidence}: raise the one or lower the other'
      )
    if not self.recency_half_life_hours > 0:
      raise ValueError(
        f'memory.recency_half_life_hours is {self.recency_half_life_hours}: take more than 0'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recalled:
  """One memory and why it came."""

  experience: types.Experience
  score: float  # w_r recency + w_i importance/10 + w_rel (relevance and what adds to it)
  recency: float  # 0 to 1, halves with every half-life
  importance: float  # 1 to 10
  relevance: float  # by meaning: cosine, -1 to 1
  words: float = 0.0  # by words: BM25 as a share of the best one's
  beside: float = 0.0  # of the turn before or after: its meaning and words together
  when: bool = False  # of the time that the query names
  named: bool = False  # of a speaker whom the query names
  corrects: int | None = None  # the older memory for whose sake this newer one came along


def recall(
  diary: Diary,
  index: Index,
  embedder: Embedder,
  query: str,
  now: float,
  config: RecallConfig,
  worth: Callable[[types.Experience], bool] = lambda e: True,
  among: Mapping[str, Any] | None = None,
) -> list[Recalled]:
  """The memories for a query, best first, at most `recall_k` and possibly none.

  Args:
    worth: what is not, does not come to mind.
    among: only these: filters of `Diary.ids` (speaker, kind, session, since, until).

  Of memories with the same words the newest counts. A memory that is chosen brings its newest near
  duplicate along, directly before it, and yields to it when there is one place only: a correction
  must not stay behind what it corrects. Memories from after `now` count as of this moment.
  """
  if config.recall_k <= 0 or not len(index) or not query.strip():
    return []
  ranked = _rank(diary, index, embedder, query, now, config, among)
  ranked = [r for r in ranked if worth(r.experience)]
  chosen: dict[int, Recalled] = {}
  for r in ranked:
    if len(chosen) == config.recall_k:
      break
    if r.experience.id in chosen:
      continue
    newer = correction(r, ranked, index, config)
    if newer is not None and newer.experience.id not in chosen:
      chosen[newer.experience.id] = dataclasses.replace(newer, corrects=r.experience.id)
    if len(chosen) < config.recall_k:
      chosen[r.experience.id] = r
  return list(chosen.values())


def correction(
  older: Recalled, among: Sequence[Recalled], index: Index, config: RecallConfig
) -> Recalled | None:
  """The newest that says nearly the same later."""
  later = (n for n in among if _corrects(n, older, index, config))
  return max(later, key=lambda n: (n.experience.time, n.experience.id), default=None)


def lay_out(recalled: Sequence[Recalled]) -> str:
  """The memories as prompt lines, oldest first: where two disagree, the later line is the newer.

  [2026-03-02 09:10] Priya: My parrot is called Kiwi.
  """
  experiences = sorted((r.experience for r in recalled), key=lambda e: (e.time, e.id))
  lines = []
  for e in experiences:
    when = datetime.datetime.fromtimestamp(e.time, datetime.UTC)
    seen = [f'({m.kind}: {m.description})' for m in e.media if m.description]
    # One line each: a message cannot pretend to be several memories.
    said = ' '.join(' '.join([e.content, *seen]).split())
    lines.append(f'[{when:%Y-%m-%d %H:%M}] {e.speaker}: {said}')
  return '\n'.join(lines)


def _rank(
  diary: Diary,
  index: Index,
  embedder: Embedder,
  query: str,
  now: float,
  config: RecallConfig,
  among: Mapping[str, Any] | None,
) -> list[Recalled]:
  """What may be meant, by falling score: a few hundred at most, however long the life is."""
  vector = embedder([query])[0]
  only = None if among is None else diary.ids(**among)
  near = [i for i, _ in index.search(vector, _POOL, only)]
  words = diary.by_words(query, _POOL, only)
  spans = when.spans(query, now)
  asked = {i for s in spans for i in diary.ids(since=s.start, until=s.end, limit=_POOL)}
  beside = diary.beside({*near, *words})
  around = {i for pair in beside.values() for i in pair}
  ids = [i for i in {*near, *words, *asked, *around} if i in index]
  if only is not None:
    allowed = set(only)
    ids = [i for i in ids if i in allowed]
  more = set(ids) - words.keys()
  words |= diary.words_of(query, more)
  most = max(words.values(), default=0.0) or 1.0
  cosine = dict(zip(ids, (index.vectors(ids) @ _unit(vector)).tolist(), strict=True))
  own = {i: cosine[i] + config.words * words.get(i, 0.0) / most for i in ids}
  named = _names(query)
  ranked, said = [], set()
  w_recency, w_importance, w_relevance = config.recall_weights
  beside |= diary.beside(more)
  for e in diary.experiences(ids=ids, newest_first=True):
    if (same := (e.speaker, ' '.join(e.content.casefold().split()))) in said:
      continue
    said.add(same)
    recency = 0.5 ** (max(now - e.time, 0.0) / 3600 / config.recency_half_life_hours)
    importance = e.scores.importance if e.scores else score.NEUTRAL
    neighbour = max((own.get(i, 0.0) for i in beside[e.id]), default=0.0)
    in_time = any(e.time in s for s in spans)
    by_name = e.speaker.casefold() in named
    relevance = own[e.id] + config.beside * max(neighbour, 0.0)
    relevance += config.when * in_time + config.speaker * by_name
    if relevance < config.min_relevance:
      continue
    ranked.append(
      Recalled(
        experience=e,
        score=w_recency * recency + w_importance * importance / 10 + w_relevance * relevance,
        recency=recency,
        importance=importance,
        relevance=cosine[e.id],
        words=words.get(e.id, 0.0) / most,
        beside=neighbour,
        when=in_time,
        named=by_name,
      )
    )
  return sorted(ranked, key=lambda r: -r.score)


def _corrects(newer: Recalled, older: Recalled, index: Index, config: RecallConfig) -> bool:
  a, b = newer.experience, older.experience
  if (a.time, a.id) <= (b.time, b.id):
    return False
  return float(index.vector(a.id) @ index.vector(b.id)) >= config.near_duplicate


def _names(query: str) -> set[str]:
  """What may be a speaker's name in a query: its words, and two of them together."""
  words = [w.removesuffix("'s").strip(_MARKS) for w in query.casefold().split()]
  return {*words, *(' '.join(pair) for pair in itertools.pairwise(words))}


def _unit(vector: np.ndarray) -> np.ndarray:
  return vector / max(float(np.linalg.norm(vector)), 1e-12)
