"""What flows through a Dreaming Machine: frozen dataclasses and pytrees, no I/O.

Times are Unix seconds (UTC, float). Ids are positive integers given by the diary. Everything here
is immutable: a changed thing is a new thing (`dataclasses.replace`).
"""

from __future__ import annotations

import dataclasses
import enum
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.struct
import jax

Params = Mapping[str, Any]
"""A nested dict of arrays: the base, named as in official Gemma checkpoints."""

Lora = Mapping[str, Any]
"""{'layers': {'attn': {'q': {'a': [layers, in, rank], 'b': [layers, rank, out]}, ...}}}, f32."""


class Trust(enum.IntEnum):
  """How far a text may go. A dream has the minimum over its sources."""

  IMPORTED = 0  # foreign logs and files: recalled as data, never dreamt unless approved
  THIRD_PARTY = 1  # tools, web pages, other people's words: the same
  USER = 2  # the user's own words to the agent
  APPROVED = 3  # read and approved by the operator


class Status(enum.StrEnum):
  """What became of a dream."""

  KEPT = 'kept'
  REJECTED = 'rejected'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
  """The parts of an experience's profoundness, each 1 to 10; `feedback` is 0 without any."""

  importance: float
  novelty: float = 0.0
  emotion: float = 0.0
  feedback: float = 0.0
  rater: str = ''  # which model and prompt rated: scores of different raters do not compare


@dataclasses.dataclass(frozen=True, kw_only=True)
class Media:
  """A picture or a sound that came with an experience, kept by digest."""

  kind: str  # 'image' or 'audio'
  digest: str  # SHA-256, hex
  description: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experience:
  """One logged interaction or observation."""

  id: int
  time: float
  kind: str  # 'chat', 'observation'
  speaker: str  # whose words `content` is, for example 'Priya'
  content: str
  response: str = ''  # what the agent answered
  media: tuple[Media, ...] = ()
  scores: Scores | None = None
  trust: Trust = Trust.USER
  session: str = ''
  metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  night: int | None = None  # the night that consumed it


@dataclasses.dataclass(frozen=True, kw_only=True)
class QA:
  """A question and its short answer."""

  question: str
  answer: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
  """What the grounding filter measured.

  `gain` is the log-likelihood of the dream's content with its source minus without it, in nats a
  token; `grounded` the share of its names and numbers that the source contains (0 to 1).
  """

  gain: float = 0.0
  grounded: float = 0.0
  reason: str = ''  # why it was rejected, '' when kept


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dream:
  """Text that the agent wrote about chosen experiences."""

  id: int
  night: int
  style: str
  text: str
  pairs: tuple[QA, ...] = ()
  sources: tuple[int, ...] = ()
  quality: Quality = Quality()
  status: Status = Status.KEPT
  trust: Trust = Trust.USER


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
  """What a generation is, written beside its weights as manifest.json."""

  number: int
  parent: int | None
  night: int | None  # None for generation 0, the bare base
  created: float
  base: str  # SHA-256 of the base weights' source
  sources: tuple[int, ...]  # experience ids that its own night trained on
  seed: int
  files: Mapping[str, str]  # relative path -> SHA-256
  lora: Mapping[str, Any]  # rank, alpha, targets
  scores: Mapping[str, float]  # the gate's measures
  config: Mapping[str, Any]  # the night's configuration, plain values
  pinned: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
  """An immutable, numbered set of weights on disk."""

  number: int
  parent: int | None
  path: pathlib.Path
  manifest: Manifest


@flax.struct.dataclass
class Batch:
  """One packed training batch.

  A loss position p predicts the token that follows it. Its target is a distribution over K
  candidates: a one-hot in column 0 for text that is to be learned, the base's top K for replay.
  """

  tokens: jax.Array  # Int['B L']
  positions: jax.Array  # Int['B L'], counted from 0 in each segment
  segment_ids: jax.Array  # Int['B L'], 0 is padding
  loss_positions: jax.Array  # Int['N'], flat indices into B*L; padded with 0 where weight is 0
  target_ids: jax.Array  # Int['N K']
  target_probs: jax.Array  # Float['N K'], sums to at most 1; what is missing is the base's tail
  weights: jax.Array  # Float['N'], 0 for padding
  replay: jax.Array  # Float['N'], 1 where the target is the base's own distribution
  # Of losses that are off by default (sleep/aims.py): None where nobody asks for them.
  taught_ids: jax.Array | None = None  # Int['N K'], of a teacher that has read the episode
  taught_probs: jax.Array | None = None  # Float['N K'], all 0 where there is no teacher
  near: Texts | None = None
  own: Batch | None = None  # what the student says itself, taught as above

  @property
  def shape(self) -> tuple[int, int]:
    return self.tokens.shape


@flax.struct.dataclass
class Texts:
  """Dreams and what they are compared with, one text a row: see losses.attraction."""

  tokens: jax.Array  # Int['T L'], the dreams first
  segment_ids: jax.Array  # Int['T L'], 0 is padding
  positives: jax.Array  # Float['P T-P'], 1 where a text belongs to a dream


@flax.struct.dataclass
class TrainState:
  step: jax.Array  # Int['']
  adapter: Lora
  opt_state: Any


@flax.struct.dataclass
class Mind:
  """Weights that can speak: what decode and examine take.

  `params` is the base with adapter and mask already materialized (the base itself for
  generation 0), so that one compiled decode serves every generation.
  """

  params: Params
  generation: int = flax.struct.field(pytree_node=False, default=0)
