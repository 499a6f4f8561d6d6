"""All that decides a night, in one place."""

from __future__ import annotations

import dataclasses

from dreaming.sleep import backoff, corpus, dream, gate, review, school, select, supervise, train


@dataclasses.dataclass(frozen=True, kw_only=True)
class NightConfig:
  """All that decides a night. A group mirrors the group of the same name in the configuration."""

  seed: int = 0
  user: str = 'Priya'
  refusal_line: float = 0.0  # that of `decode`; -it models, that are asked otherwise, have none
  school: school.SchoolConfig = school.SchoolConfig()
  select: select.SelectConfig = select.SelectConfig()
  dream: dream.DreamConfig = dream.DreamConfig()
  corpus: corpus.CorpusConfig = corpus.CorpusConfig()
  train: train.TrainConfig = train.TrainConfig()
  prune: backoff.BackOffConfig = backoff.BackOffConfig()
  gate: gate.GateConfig = gate.GateConfig()
  review: review.ReviewConfig = review.ReviewConfig()
  supervisor: supervise.SupervisorConfig = supervise.SupervisorConfig()

  @property
  def judged(self) -> bool:
    """Whether somebody decides in it who is no part of the agent."""
    return self.review.dreams or self.review.generations or self.supervisor.armed
