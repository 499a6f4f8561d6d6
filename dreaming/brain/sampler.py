"""How the next token is chosen."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

CANDIDATES = 128  # top-k and top-p sample among this many likeliest tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampler:
  """How the next token is chosen; temperature 0 takes the likeliest."""

  temperature: float = 0.0
  top_k: int = 0  # 0: no limit
  top_p: float = 1.0
  seed: int = 0

  def __post_init__(self):
    if self.temperature < 0 or not 0 < self.top_p <= 1 or not 0 <= self.top_k <= CANDIDATES:
      raise ValueError(
        f'temperature={self.temperature}, top_k={self.top_k}, top_p={self.top_p}: temperature is '
        f'at least 0, top_p in (0, 1], top_k in 0..{CANDIDATES}'
      )

  @property
  def mode(self) -> str:
    if self.temperature == 0:
      return 'greedy'
    return 'filtered' if self.top_k or self.top_p < 1 else 'free'

  @property
  def knobs(self) -> Float[np.ndarray, '3']:
    """What one program does for all samplers of a mode: temperature, top_k, top_p."""
    return np.asarray([self.temperature, self.top_k, self.top_p], np.float32)


GREEDY = Sampler()
