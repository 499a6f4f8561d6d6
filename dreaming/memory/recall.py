"""Which memories come to mind: recency, importance and relevance, each with its weight.

After Park et al. 2023, Generative Agents (arXiv 2304.03442), section 4.1, with more than a cosine
for relevance: relevance.py finds its parts. What a question is about, rerank.py judges. The parts
of each memory's score come back with it, for `/why`.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dreaming import types
from dreaming.memory import relevance as relevance_lib
from dreaming.memory import score
from dreaming.memory.diary import Diary
from dreaming.memory.embed import Embedder
from dreaming.memory.index import Index
from dreaming.memory.relevance import Parts

_SPARE = 12  # memories that are looked at beyond those that come to mind


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallConfig:
  """As `config.memory`."""

  recall_k: int = 8
  read_k: int = 1  # of them, that a question is answered from: see rerank.py
  recall_weights: tuple[float, float, float] = (0.2, 0.2, 1.0)  # recency, importance, relevance
  recency_half_life_hours: float = 72.0
  min_relevance: float = 0.0  # below which nothing is recalled
  # Chosen on made-up lives of development (benchmarks/recall.py --ablate).
  words: float = 0.05  # what the best match of words (BM25) adds to the cosine
  before: float = 0.5  # share of the turn before's cosine, for what has none of the query's names
  names: float = 0.1  # for the share of the query's names that a memory has,
  names_near: float = 0.275  # and that it or one of the two turns before has
  when: float = 0.35  # for a memory of the time that is asked about
  speaker: float = 0.2  # for one that is told by somebody whom the query names
  length: float = 0.07  # for each e-fold of words: what is longer tells more
  min_evidence: float = 2.6  # nats for a reply from notes: see rerank.evidence
  sure_evidence: float = 3.6  # for one that counts more than what the weights say
  retell: bool = True  # reply with the sentence that was read, not with the word: see retell.py
  near_duplicate: float = 0.8  # cosine from which a newer memory comes to mind with an older one
  correction: float = 0.5  # and from which it is read with the one that answers: it may correct it

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
  relevance: float  # cosine, -1 to 1
  parts: Parts | None = None  # all of its relevance
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
    newer = correction(r, ranked, index, config.near_duplicate)
    if newer is not None and newer.experience.id not in chosen:
      chosen[newer.experience.id] = dataclasses.replace(newer, corrects=r.experience.id)
    if len(chosen) < config.recall_k:
      chosen[r.experience.id] = r
  return list(chosen.values())


def correction(
  older: Recalled, among: Sequence[Recalled], index: Index, cosine: float
) -> Recalled | None:
  """The newest that says nearly the same later: that is as near as `cosine`."""
  later = (n for n in among if _corrects(n, older, index, cosine))
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
  """The best by falling score, more of them than are recalled."""
  w_recency, w_importance, w_relevance = config.recall_weights
  ranked = []
  for parts in relevance_lib.find(diary, index, embedder, query, now, among):
    line, relevance = parts.line, _relevance(parts, config)
    if relevance < config.min_relevance:
      continue
    recency = 0.5 ** (max(now - line.time, 0.0) / 3600 / config.recency_half_life_hours)
    importance = score.NEUTRAL if line.importance is None else line.importance
    total = w_recency * recency + w_importance * importance / 10 + w_relevance * relevance
    ranked.append((total, recency, importance, parts))
  ranked.sort(key=lambda x: -x[0])
  best = _newest_of_same(ranked[: 2 * (config.recall_k + _SPARE)])[: config.recall_k + _SPARE]
  whole = {e.id: e for e in diary.experiences(ids=[parts.line.id for *_, parts in best])}
  return [
    Recalled(
      experience=whole[parts.line.id],
      score=total,
      recency=recency,
      importance=importance,
      relevance=parts.cosine,
      parts=parts,
    )
    for total, recency, importance, parts in best
  ]


def _newest_of_same(ranked: Sequence[tuple[float, float, float, Parts]]):
  """Of memories with the same words of the same speaker the newest alone, in the same order."""
  newest: dict[tuple[str, str], Any] = {}
  for x in ranked:
    line = x[-1].line
    same = line.speaker, ' '.join(line.content.casefold().split())
    if same not in newest or (line.time, line.id) > newest[same][-1].line[1::-1]:
      newest[same] = x
  return sorted(newest.values(), key=lambda x: -x[0])


def _relevance(parts: Parts, c: RecallConfig) -> float:
  return (
    parts.cosine
    + c.words * parts.words
    + c.before * (1 - parts.names) * parts.before
    + c.names * parts.names
    + c.names_near * parts.names_near
    + c.when * parts.when
    + c.speaker * parts.named
    + c.length * math.log1p(len(parts.line.content.split()))
  )


def _corrects(newer: Recalled, older: Recalled, index: Index, cosine: float) -> bool:
  a, b = newer.experience, older.experience
  if (a.time, a.id) <= (b.time, b.id):
    return False
  return float(index.vector(a.id) @ index.vector(b.id)) >= cosine
