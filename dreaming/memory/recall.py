"""Which memories come to mind: recency, importance and relevance, each with its weight.

After Park et al. 2023, Generative Agents (arXiv 2304.03442), section 4.1, with more than a cosine
for relevance: relevance.py finds its parts. What a question is about, rerank.py judges. The parts
of each memory's score come back with it, for `/why`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dreaming import types
from dreaming.memory import relevance as relevance_lib
from dreaming.memory import score
from dreaming.memory.diary import Diary
from dreaming.memory.embed import Embedder
from dreaming.memory.index import Index
from dreaming.memory.relevance import Parts

_LEAST = 128  # tokens
_TELLING = 16  # words, from which a memory tells no more by being longer
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
  before: float = 0.55  # share of the turn before's cosine, for what has none of the query's names
  names: float = 0.1  # for the share of the query's names that a memory has,
  names_near: float = 0.3  # and that it or one of the two turns before has
  when: float = 0.5  # for a memory of the time that is asked about
  speaker: float = 0.25  # for one that is told by somebody of whose words the query asks
  length: float = 0.1  # for each e-fold of words, up to 16: what is longer tells more
  hubness: float = 0.5  # of the cosine with what is nearest to it, that a memory's own loses
  min_evidence: float = 2.6  # nats for a reply from notes: see rerank.evidence
  sure_evidence: float = 3.6  # for one that counts more than what the weights say
  retell: bool = True  # reply with the sentence that was read, not with the word: see retell.py
  near_duplicate: float = 0.9  # cosine from which a newer memory comes to mind instead of an older
  correction: float = 0.5  # and from which it is read with the one that answers, or in its place
  read_tokens: int = 384  # that notes may take of a prompt

  def __post_init__(self):
    if len(self.recall_weights) != 3 or min(self.recall_weights) < 0:
      raise ValueError(f'memory.recall_weights are three numbers >= 0, not {self.recall_weights}')
    if not self.min_evidence <= self.sure_evidence:
      raise ValueError(
        f'memory.sure_evidence is {self.sure_evidence}, less than memory.min_evidence, '
        f'{self.min_evidence}: raise the one or lower the other'
      )
    if self.read_tokens < _LEAST:
      raise ValueError(
        f'memory.read_tokens is {self.read_tokens}, and a note takes up to {_LEAST}: take as many'
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
  parts: Parts = Parts()  # all of its relevance
  corrects: int | None = None  # the older memory in whose place it came
  lead: tuple[types.Experience, ...] = ()  # what is read before it: see reading.py


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

  Of memories that say the same, in the same words or nearly so, the newest alone comes: it may
  correct the others, and nothing takes two places. Memories from after `now` count as of this
  moment.
  """
  if config.recall_k <= 0 or not query.strip():
    return []
  ranked = _rank(diary, index, embedder, query, now, config, among)
  ranked = [r for r in ranked if worth(r.experience)]
  chosen: dict[int, Recalled] = {}
  for r, newer in zip(ranked, _newer(ranked, index, config.near_duplicate), strict=True):
    if len(chosen) == config.recall_k:
      break
    # What is asked of a time, what was said since cannot answer.
    if newer is not None and r.parts.when <= newer.parts.when:
      chosen.setdefault(newer.experience.id, dataclasses.replace(newer, corrects=r.experience.id))
    else:
      chosen.setdefault(r.experience.id, r)
  return list(chosen.values())


def _newer(ranked: Sequence[Recalled], index: Index, cosine: float) -> list[Recalled | None]:
  """Of each the newest that says nearly the same later."""
  if not ranked:
    return []
  vectors = index.vectors([r.experience.id for r in ranked])
  times = [_time(r) for r in ranked]
  order = sorted(range(len(ranked)), key=times.__getitem__, reverse=True)
  near = vectors @ vectors[order].T >= cosine
  near[order, range(len(order))] = True  # each is near itself, also without a vector
  near = near.argmax(axis=1)  # the newest that is
  newest = (ranked[order[i]] for i in near.tolist())
  return [n if _time(n) > t else None for n, t in zip(newest, times, strict=True)]


def _time(r: Recalled) -> tuple[float, int]:
  return r.experience.time, r.experience.id


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
  found = relevance_lib.find(diary, index, embedder, query, now, among)
  relevance = _relevance(found, config)
  recency = 0.5 ** (np.maximum(now - found.time, 0.0) / 3600 / config.recency_half_life_hours)
  importance = np.where(np.isnan(found.importance), score.NEUTRAL, found.importance)
  w_recency, w_importance, w_relevance = config.recall_weights
  total = w_recency * recency + w_importance * importance / 10 + w_relevance * relevance
  total[relevance < config.min_relevance] = -np.inf
  order = np.lexsort((-found.ids, -found.time, -total))  # of equals the newest first
  order = order[: 2 * (config.recall_k + _SPARE)]
  order = _newest_of_same(found, order[np.isfinite(total[order])])[: config.recall_k + _SPARE]
  whole = {e.id: e for e in diary.experiences(ids=found.ids[order].tolist())}
  columns = (x[order].tolist() for x in (found.ids, total, recency, importance))
  return [
    Recalled(
      experience=whole[id],
      score=total,
      recency=recency,
      importance=importance,
      relevance=parts.cosine,
      parts=parts,
    )
    for id, total, recency, importance, parts in zip(*columns, found.parts(order), strict=True)
    if id in whole  # another process may have forgotten it
  ]


def _newest_of_same(found: relevance_lib.Found, order: np.ndarray) -> np.ndarray:
  """Of memories with the same words of the same speaker the newest alone, in the same order."""
  newest: dict[int, int] = {}
  for i, said in zip(order.tolist(), found.said[order].tolist(), strict=True):
    if said not in newest or found.time[i] > found.time[newest[said]]:
      newest[said] = i
  kept = {*newest.values()}
  return np.array([i for i in order.tolist() if i in kept], np.int64)


def _relevance(found: relevance_lib.Found, c: RecallConfig) -> np.ndarray:
  return (
    found.cosine
    + c.words * found.words
    + c.before * (1 - found.names) * found.before
    + c.names * found.names
    + c.names_near * found.names_near
    + c.when * found.when
    + c.speaker * found.named
    + c.length * np.log1p(np.minimum(found.length, _TELLING))
    - c.hubness * found.hubness
  )
