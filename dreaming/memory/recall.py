"""Which memories come to mind: recency, importance and relevance, each with its weight.

After Park et al. 2023, Generative Agents (arXiv 2304.03442), section 4.1, with a floor on
relevance. What of it a question is about, rerank.py judges. The parts of each memory's score come
back with it, for `/why`.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Sequence

import numpy as np

from dreaming import types
from dreaming.memory import score
from dreaming.memory.diary import Diary
from dreaming.memory.embed import Embedder
from dreaming.memory.index import Index


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecallConfig:
  """As `config.memory`."""

  recall_k: int = 8
  read_k: int = 1  # of them, that a question is answered from: see rerank.py
  recall_weights: tuple[float, float, float] = (0.2, 0.2, 1.0)  # recency, importance, relevance
  recency_half_life_hours: float = 72.0
  min_relevance: float = 0.0  # cosine
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
  score: float  # w_r recency + w_i importance/10 + w_rel relevance
  recency: float  # 0 to 1, halves with every half-life
  importance: float  # 1 to 10
  relevance: float  # cosine, -1 to 1
  corrects: int | None = None  # the older memory for whose sake this newer one came along


def recall(
  diary: Diary,
  index: Index,
  embedder: Embedder,
  query: str,
  now: float,
  config: RecallConfig,
  worth: Callable[[types.Experience], bool] = lambda e: True,
) -> list[Recalled]:
  """The memories for a query, best first, at most `recall_k` and possibly none.

  Of memories with the same words the newest counts. A memory that is chosen brings its newest near
  duplicate along, directly before it, and yields to it when there is one place only: a correction
  must not stay behind what it corrects. Memories from after `now` count as of this moment; what is
  not `worth` it does not come to mind.
  """
  if config.recall_k <= 0 or not len(index) or not query.strip():
    return []
  ranked = _rank(diary, index, index.cosines(embedder([query])[0]), now, config)
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
  diary: Diary, index: Index, cosines: np.ndarray, now: float, config: RecallConfig
) -> list[Recalled]:
  """Every memory that is relevant enough, by falling score."""
  w_recency, w_importance, w_relevance = config.recall_weights
  near = cosines >= config.min_relevance
  relevance = dict(zip(index.ids[near].tolist(), cosines[near].tolist(), strict=True))
  ranked, words = [], set()
  for e in diary.experiences(ids=relevance, newest_first=True):
    if (said := (e.speaker, ' '.join(e.content.casefold().split()))) in words:
      continue
    words.add(said)
    recency = 0.5 ** (max(now - e.time, 0.0) / 3600 / config.recency_half_life_hours)
    importance = e.scores.importance if e.scores else score.NEUTRAL
    ranked.append(
      Recalled(
        experience=e,
        score=w_recency * recency + w_importance * importance / 10 + w_relevance * relevance[e.id],
        recency=recency,
        importance=importance,
        relevance=relevance[e.id],
      )
    )
  return sorted(ranked, key=lambda r: -r.score)


def _corrects(newer: Recalled, older: Recalled, index: Index, config: RecallConfig) -> bool:
  a, b = newer.experience, older.experience
  if (a.time, a.id) <= (b.time, b.id):
    return False
  return float(index.vector(a.id) @ index.vector(b.id)) >= config.near_duplicate
