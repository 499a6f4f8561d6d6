"""Aims: what a night may care for beside its dreams. All are off by default, each by a weight of 0.

  distill_context    the student says what a teacher says that has the episode in its context
  distill_on_policy  the same, about what the student says itself
  contrast           a dream's states are like its sources', and unlike other episodes'
  effect             the adapter changes the weights little
  ewc                what earlier nights' answers depend on stays where it is
  trust              the night's own tokens do not move further from Blue than a bound
  entities           names and numbers of the source weigh more in the dreams' loss

The losses themselves are in losses.py. What of them worked is in docs/experiments.md.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax.struct
import jax.numpy as jnp

from dreaming.sleep import losses
from dreaming.types import Batch, Lora, Mind

if TYPE_CHECKING:
  from dreaming.identity.bluegreen import BlueGreen

LOSSES = ('distill_context', 'distill_on_policy', 'contrast', 'effect', 'ewc', 'trust')
"""Fields that are the weight of a term of the loss."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AimsConfig:
  """Fields of `config.train`; weights are of nats a token, where nothing else is said."""

  dream_weight: float = 1.0  # of the dreams' own loss: 0 leaves them to the teacher
  distill_context: float = 0.0
  distill_on_policy: float = 0.0
  teacher: str = 'base'  # or 'blue': who reads the episodes
  on_policy_questions: int = 64  # that the student answers, anew at every checkpoint
  contrast: float = 0.0  # of nats a dream
  contrast_pairs: int = 4  # dreams of as many episodes, with their sources, in a batch
  contrast_temperature: float = 0.1
  contrast_anchors: tuple[str, ...] = ()  # texts that all dreams draw near: who the agent is
  effect: float = 0.0  # of the squared norm of what the adapter adds to the weights
  ewc: float = 0.0
  ewc_decay: float = 0.95  # of what was stiff, each night
  ewc_rows: int = 24  # of the night's, that tell what is to be stiff
  trust: float = 0.0
  trust_bound: float = 1.0  # nats a token
  entities: float = 0.0  # added to the weight of 1 that a token has

  def __post_init__(self):
    for name in (*LOSSES, 'dream_weight', 'entities', 'trust_bound'):
      value = vars(self)[name]
      if not 0 <= value < float('inf'):
        raise ValueError(f'train.{name}={value}: a weight is 0, which is off, or more')
    for name in ('on_policy_questions', 'ewc_rows'):
      if vars(self)[name] < 1:
        raise ValueError(f'train.{name}={vars(self)[name]}: take at least 1')
    if self.teacher not in ('base', 'blue'):
      raise ValueError(f"train.teacher={self.teacher!r}: it is 'base' or 'blue'")
    if not 2 <= self.contrast_pairs <= 64:
      raise ValueError(f'train.contrast_pairs={self.contrast_pairs}: take 2 to 64')
    if self.contrast_temperature <= 0:
      raise ValueError(f'train.contrast_temperature={self.contrast_temperature}: it is positive')
    if not 0 <= self.ewc_decay <= 1:
      raise ValueError(f'train.ewc_decay={self.ewc_decay}: it is from 0 to 1')
    if not self.dream_weight and not self.distill_context and not self.distill_on_policy:
      raise ValueError('train.dream_weight=0.0 and no distillation: nothing would be learned')

  @property
  def any_loss(self) -> bool:
    return self.dream_weight != 1 or any(vars(self)[name] for name in LOSSES)


def without(config: Any) -> Any:
  """The configuration with all that is off by default off."""
  off = dict.fromkeys((*LOSSES, 'entities'), 0.0)
  return dataclasses.replace(config, dream_weight=1.0, **off)


# ---- In the loss ----


@flax.struct.dataclass
class Anchor:
  """Where a night began, and what holds it there."""

  adapter: Lora | None = None  # Blue's; None where Blue has none of tonight's kind
  fisher: Lora | None = None  # consolidate.fisher over the nights before


Reader = Callable[..., Any]
"""(adapter, tokens, positions, segment_ids, masked=True) -> last hidden states, [B, L, D]."""


def terms(
  config: Any,
  adapter: Lora,
  anchor: Anchor | None,
  batch: Batch,
  own: Any,
  logits: Any,
  read: Reader,
  unembed: Callable[[Any, Any], Any],
) -> dict[str, Any]:
  """The losses whose weight is not 0, by name, not weighted.

  Args:
    config: a TrainConfig.
    adapter: the student's.
    anchor: where it began.
    batch: as the corpus makes it.
    own: Float['N'], the weights of the night's own loss positions.
    logits: Float['N W'], the student's.
    read: the model, for any adapter, with the student's mask or without one.
    unembed: (hidden [B, L, D], flat loss positions) -> logits.
  """
  anchor, out = anchor or Anchor(), {}
  if config.distill_context and batch.taught_probs is not None:
    kl = losses.distillation(logits, batch.taught_ids, batch.taught_probs)
    there = jnp.any(batch.taught_probs > 0, axis=-1)
    out['distill_context'] = losses.weighted_mean(kl, own * there)
  if config.distill_on_policy and batch.own is not None:
    said = batch.own
    hidden = read(adapter, said.tokens, said.positions, said.segment_ids)
    kl = losses.reverse_kl(unembed(hidden, said.loss_positions), said.taught_ids, said.taught_probs)
    out['distill_on_policy'] = losses.weighted_mean(kl, said.weights)
  if config.contrast and batch.near is not None:
    near = batch.near
    positions = jnp.broadcast_to(jnp.arange(near.tokens.shape[1]), near.tokens.shape)
    hidden = read(adapter, near.tokens, positions, near.segment_ids)
    vectors, count = losses.pooled(hidden, near.segment_ids), near.positives.shape[0]
    out['contrast'] = losses.attraction(
      vectors[:count], vectors[count:], near.positives, config.contrast_temperature
    )
  if config.effect:
    out['effect'] = losses.effect(adapter, config.scale)
  if config.ewc and anchor.fisher is not None and anchor.adapter is not None:
    out['ewc'] = losses.elastic(adapter, anchor.adapter, anchor.fisher)
  if config.trust:
    seen = batch.tokens, batch.positions, batch.segment_ids
    hidden = read(anchor.adapter, *seen, masked=False)
    moved = losses.drift(logits, unembed(hidden, batch.loss_positions), config.trust_bound)
    out['trust'] = losses.weighted_mean(moved, own)
  return out


# ---- In the night ----


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aims:
  """What tonight's aims need beside the dreams; nothing, where all are off."""

  config: Any  # a TrainConfig
  teacher: Mind | None = None
  teacher_name: str = ''  # in the cache
  anchor: Anchor | None = None
  keep: pathlib.Path | None = None  # directory for what the teacher said

  def held(self) -> dict[str, Any]:
    """What train.train takes."""
    return {} if self.anchor is None else {'anchor': self.anchor}

  def beside(self, ground: Any, material: Callable[[], Any], adapter: Lora) -> dict[str, Any]:
    """What a generation takes along for the next night's `ewc`: nothing where that is off.

    Args:
      ground: a Base, what the adapter is added to.
      material: makes the night's corpus, where it is needed.
      adapter: as it leaves the night.
    """
    if not self.config.ewc:
      return {}
    from dreaming.sleep import consolidate  # which reads this module

    made = ground.params, ground.arch, material(), adapter
    before = self.anchor.fisher if self.anchor else None
    return {consolidate.FILE: consolidate.fisher(*made, config=self.config, before=before)}


def of_night(
  config: Any,
  identity: BlueGreen,
  root: pathlib.Path,
  parent: int,
  *,
  base_digest: str,
  keep: pathlib.Path,
) -> Aims:
  """Reads what a night of this configuration needs.

  Args:
    config: a TrainConfig.
    identity: has Blue.
    root: of the generations.
    parent: the generation that serves.
    base_digest: names the base.
    keep: the night's directory for what can be made again.
  """
  from dreaming.sleep import consolidate, lineage  # which read the configuration

  teacher, name = None, ''
  if config.distill_context or config.distill_on_policy:
    teacher = identity.blue if config.teacher == 'blue' else identity.mind(0)
    name = f'{base_digest}-{teacher.generation}'
  anchor = None
  if config.ewc or config.trust:
    adapter = lineage.adapter(root, parent, config)
    stiff = consolidate.read(root, parent) if config.ewc else None
    anchor = Anchor(adapter=adapter, fisher=stiff)
  return Aims(config=config, teacher=teacher, teacher_name=name, anchor=anchor, keep=keep)


def measured(found: Mapping[str, Any]) -> dict[str, Any]:
  """As metrics: `aim_ewc` and so on."""
  return {f'aim_{name}': value for name, value in found.items()}
