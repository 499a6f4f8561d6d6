"""Prunes a trained Green by as much as it bears, and lets it recover.

The amounts are tried from the largest on. Each is: mask the smallest merged weights, train a few
steps more with what is left, take a quick look at the nll of generic text. The first that keeps
it within the gate's limit is taken, the last one in any case: then the whole exam decides. Where
the mask alone costs far more than a few steps can bring back, the next amount is tried at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from dreaming.brain.decode import Decoder
from dreaming.identity import bluegreen
from dreaming.identity.generations import Masks
from dreaming.sleep import examine, prune
from dreaming.types import Lora


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackOffConfig:
  """Mirrors `config.prune`."""

  amounts: tuple[float, ...] = (0.2, 0.1, 0.05, 0.0)  # of the merged weights, largest first
  delta: float = 0.1  # of the adapter's own delta
  scope: str = 'layer'
  protect: str = r'embedder|norm'
  recovery_steps: int = 4
  recoverable: float = 0.02  # relative nll beyond the gate's limit that recovery may bring back

  def __post_init__(self):
    if not self.amounts or list(self.amounts) != sorted(set(self.amounts), reverse=True):
      raise ValueError(f'prune.amounts={self.amounts}: give shares, the largest first')
    if self.recovery_steps < 0:
      raise ValueError(f'prune.recovery_steps={self.recovery_steps}: take 0 or more')
    for amount in self.amounts:
      self.at(amount)  # raises where a field is wrong

  def at(self, amount: float) -> prune.PruneConfig:
    """The configuration of one attempt."""
    return prune.PruneConfig(
      amount=amount, delta=self.delta, scope=self.scope, protect=self.protect
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
  """One amount that was tried. `nll` is None where nothing was measured."""

  amount: float
  nll: float | None
  ok: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruned:
  index: int  # in config.amounts
  adapter: Lora  # after recovery
  attempts: tuple[Attempt, ...]


def masks(
  base: bluegreen.Base,
  trained: Lora,
  recovered: Lora,
  *,
  index: int,
  scale: float,
  config: BackOffConfig,
) -> Masks:
  """What is pruned from `recovered`, which came from `trained`; the same inputs, the same bits."""
  chosen = config.at(config.amounts[index])
  out = {}
  if chosen.amount:
    out['merged'] = prune.merged_mask(base.params, trained, base.arch, scale=scale, config=chosen)
  if chosen.delta:
    out['delta'] = prune.delta_mask(recovered, base.arch, scale=scale, config=chosen)
  return out


def back_off(
  decoder: Decoder,
  base: bluegreen.Base,
  trained: Lora,
  recover: Callable[[Lora, prune.Mask, float], Lora],
  *,
  config: BackOffConfig,
  scale: float,
  max_nll: float,
  start: int = 0,
  on_attempt: Callable[[Attempt], Any] = lambda attempt: None,
) -> Pruned:
  """The first amount from `start` on whose quick nll is at most `max_nll`, or else the last.

  Args:
    trained: Green's adapter as it came from training; it is not changed.
    recover: (adapter, merged mask, amount): trains it a little more with the mask.
    scale: alpha / rank.
  """
  attempts: list[Attempt] = []
  last = len(config.amounts) - 1
  index = start
  if index < last and not _bearable(_nll(decoder, base, trained, {}, scale), max_nll):
    index = last  # it is beyond the limit without any pruning: less of it would not help
  while True:
    amount = config.amounts[index]
    adapter = trained
    if amount and config.recovery_steps:
      drop = masks(base, trained, trained, index=index, scale=scale, config=config)
      hurt = _nll(decoder, base, trained, drop, scale)
      if not _bearable(hurt, max_nll * (1 + config.recoverable)):
        attempts.append(Attempt(amount=amount, nll=hurt, ok=False))
        on_attempt(attempts[-1])
        index += 1
        continue
      adapter = recover(trained, drop['merged'], amount)
    nll = None
    if index < last:
      drop = masks(base, trained, adapter, index=index, scale=scale, config=config)
      nll = _nll(decoder, base, adapter, drop, scale)
    ok = nll is None or _bearable(nll, max_nll)
    attempts.append(Attempt(amount=amount, nll=nll, ok=ok))
    on_attempt(attempts[-1])
    if ok:
      return Pruned(index=index, adapter=adapter, attempts=tuple(attempts))
    index += 1


def _bearable(nll: float, max_nll: float) -> bool:
  return math.isfinite(nll) and nll <= max_nll


def _nll(decoder: Decoder, base: bluegreen.Base, adapter: Lora, drop: Masks, scale: float) -> float:
  green = bluegreen.wake(base, adapter, drop, scale=scale, number=0)
  try:
    return examine.generic_nll(decoder, green, quick=True)[0]
  finally:
    decoder.forget(green)


def describe(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
  """Attempts as plain values; an nll that is no number is None."""
  return [
    {'amount': a.amount, 'ok': a.ok, 'nll': a.nll if a.nll and math.isfinite(a.nll) else None}
    for a in attempts
  ]
