"""What became of a night, and how it is kept."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from dreaming.sleep.gate import Row
from dreaming.types import Generation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """What became of a night.

  `state` is 'promoted', 'rejected', 'empty' (nothing to learn) or, of a night that is not over,
  'waiting' (for its review: see review.py).
  """

  number: int  # of the night
  state: str
  reason: str  # one line; '' when promoted
  generation: Generation | None = None  # when promoted
  selected: tuple[int, ...] = ()  # experiences
  consumed: tuple[int, ...] = ()
  dreams_kept: int = 0
  dreams_rejected: int = 0
  pruned: float = 0.0  # share of the merged weights
  measures: Mapping[str, float | None] = dataclasses.field(default_factory=dict)  # of Green
  base_measures: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
  rows: tuple[Row, ...] = ()  # of the gate
  seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of this run, by step

  @property
  def promoted(self) -> bool:
    return self.state == 'promoted'

  @property
  def code(self) -> int:
    """For a program's exit: 0, 1 nothing was learned, 3 it waits for its review."""
    return {'promoted': 0, 'waiting': 3}.get(self.state, 1)

  def plain(self) -> dict[str, Any]:
    """For the diary and summary.json."""
    return plain(
      {
        'outcome': self.state,
        'reason': self.reason,
        'generation': self.generation.number if self.generation else None,
        'selected': self.selected,
        'consumed': self.consumed,
        'dreams': {'kept': self.dreams_kept, 'rejected': self.dreams_rejected},
        'pruned': self.pruned,
        'measures': self.measures,
        'base': self.base_measures,
        'gate': [vars(row) for row in self.rows],
        'seconds': {k: round(v, 3) for k, v in self.seconds.items()},
      }
    )


def finite(measures: Mapping[str, float]) -> dict[str, float | None]:
  """Measures as JSON has them: None where one is no number."""
  return {name: value if math.isfinite(value) else None for name, value in measures.items()}


def plain(value: Any) -> Any:
  """As JSON has it: lists for tuples, and text for numbers that are not finite."""
  if isinstance(value, Mapping):
    return {k: plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [plain(v) for v in value]
  return str(value) if isinstance(value, float) and not math.isfinite(value) else value
