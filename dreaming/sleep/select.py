"""First step of a night: which experiences are dreamt of.

Profound ones, and not all about the same thing: maximal marginal relevance (Carbonell and Goldstein
1998) between the profoundness score and the likeness to what was already chosen.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from dreaming import types
from dreaming.memory import score
from dreaming.memory.diary import Diary
from dreaming.memory.index import Index


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectConfig:
  """As `config.select`."""

  threshold: float = 0.0  # profoundness (1 to 10) below which an experience is not dreamt of
  top_k: int = 24
  diversity: float = 0.3  # 0 takes the most profound, 1 the most different
  period_days: float = 0.0  # only this recent; 0: everything not yet consumed
  weights: score.ProfoundnessWeights = score.ProfoundnessWeights()

  def __post_init__(self):
    if self.top_k < 1:
      raise ValueError(f'select.top_k is {self.top_k}: take at least 1')
    if not 0 <= self.diversity <= 1:
      raise ValueError(f'select.diversity is {self.diversity}: take a number from 0 to 1')
    if not self.period_days >= 0:
      raise ValueError(f'select.period_days is {self.period_days}: take 0 (everything) or more')


def select(
  diary: Diary,
  vectors: tuple[np.ndarray, np.ndarray],
  config: SelectConfig,
  now: float,
) -> list[types.Experience]:
  """At most `top_k` experiences that no active night has consumed, in order of time.

  Imported and third-party texts are left out unless approved: they do not reach the weights.

  Args:
    vectors: ids Int['N'] and Float['N D'], as `diary.embeddings(embedder.name)` gives them; an
      experience without a vector counts as unlike all others.
    now: Unix seconds; the end of the period.
  """
  since = now - config.period_days * 86_400 if config.period_days else None
  candidates = [
    (e, profoundness)
    for e in diary.experiences(since=since, unconsumed=True)
    if e.trust >= types.Trust.USER
    and (profoundness := score.profoundness(e.scores, config.weights)) >= config.threshold
  ]
  return sorted(_diverse(candidates, Index(*vectors), config), key=lambda e: (e.time, e.id))


def _diverse(
  candidates: list[tuple[types.Experience, float]], index: Index, config: SelectConfig
) -> list[types.Experience]:
  """Greedy maximal marginal relevance; of equal ones the earlier is taken."""
  worth = np.array([profoundness / 10 for _, profoundness in candidates])
  likeness = np.zeros(len(candidates))  # with the most similar chosen one
  unit_NxD = np.zeros((len(candidates), index.dim), np.float32)
  for row, (e, _) in enumerate(candidates):
    if e.id in index:
      unit_NxD[row] = index.vector(e.id)
  open_ = np.ones(len(candidates), bool)
  chosen = []
  for _ in range(min(config.top_k, len(candidates))):
    value = (1 - config.diversity) * worth - config.diversity * likeness
    best = int(np.argmax(np.where(open_, value, -np.inf)))
    open_[best] = False
    chosen.append(candidates[best][0])
    likeness = np.maximum(likeness, unit_NxD @ unit_NxD[best])
  return chosen
