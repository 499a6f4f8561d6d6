"""What earlier nights' answers depend on: the diagonal Fisher information of an adapter.

A night that is trained with `train.ewc` leaves it beside its adapter, accumulated over the nights
before (online: Schwarz et al., arXiv 1805.06370, section 3); the next night is held by it.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreaming.identity import generations
from dreaming.sleep import aims, artifacts
from dreaming.types import Batch, Lora, Params

FILE = 'fisher.npz'


def fisher(
  base_params: Params, arch: Any, corpus: Any, adapter: Lora, *, config: Any, before: Lora | None
) -> Lora:
  """How much each number of an adapter matters to what the night's dreams say.

  The empirical Fisher: squares of the gradients of the dreams' loss, by packed rows. It is per
  token, so that `0.5 * sum F d^2` is, to second order, what a change d costs a token in nats.

  Args:
    base_params: what the adapter is added to.
    arch: its architecture.
    corpus: the night's; `config.ewc_rows` of its rows are looked at, evenly from all.
    adapter: as it leaves the night.
    config: a TrainConfig.
    before: of the nights before, or None; it counts `config.ewc_decay` times.
  """
  from dreaming.sleep import train  # which reads aims.py, as this does

  plain = dataclasses.replace(aims.without(config), replay_weight=0.0, held=1.0, remat=False)
  loss_fn = train.make_loss(arch, plain)
  base = train.frozen(base_params, arch, corpus.shortlist, config.dtype)
  total = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), adapter)

  @jax.jit
  def add(total, adapter, base, row):
    count = jnp.sum(row.weights * (1 - row.replay))
    grads = jax.grad(lambda a: loss_fn(a, base, row, None)[0])(adapter)  # of the mean
    return jax.tree.map(lambda t, g: t + count * g**2, total, grads)

  chosen = rows_of(corpus.batches, config.ewc_rows)
  adapter = jax.tree.map(jnp.asarray, adapter)
  for row in chosen:
    total = add(total, adapter, base, row)
  found = jax.tree.map(lambda x: np.asarray(x) / np.float32(max(len(chosen), 1)), total)
  if before is None:
    return found
  decay = np.float32(config.ewc_decay)
  return jax.tree.map(lambda new, old: new + decay * np.asarray(old), found, before)


def rows_of(batches: Sequence[Batch], count: int) -> list[Batch]:
  """At most `count` rows with dreams in them, evenly from all batches, each as its own Batch."""
  rows = [
    row
    for batch in batches
    for row in map(lambda r, b=batch: _row(b, r), range(batch.shape[0]))
    if float(np.sum(row.weights * (1 - row.replay))) > 0
  ]
  if len(rows) > count:
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, count).astype(int)]
  return rows


def _row(batch: Batch, r: int) -> Batch:
  length = batch.shape[1]
  at = np.asarray(batch.loss_positions)
  here = (at // length == r) & (np.asarray(batch.weights) > 0)
  return Batch(
    tokens=np.asarray(batch.tokens)[r : r + 1],
    positions=np.asarray(batch.positions)[r : r + 1],
    segment_ids=np.asarray(batch.segment_ids)[r : r + 1],
    loss_positions=np.where(here, at - r * length, 0).astype(np.int32),
    target_ids=batch.target_ids,
    target_probs=batch.target_probs,
    weights=np.where(here, batch.weights, 0).astype(np.float32),
    replay=batch.replay,
  )


def read(root: pathlib.Path, number: int) -> Lora | None:
  """What generation `number` left, or None: it is the base, or was trained without.

  Raises:
    ValueError: its file is damaged; the line says which.
  """
  if number == 0:
    return None
  generation = generations.load(root, number, verify=False)[0]
  digest = generation.manifest.files.get(FILE)
  if digest is None:
    return None
  found = artifacts.read(generation.path / FILE, digest)
  if found is None:
    raise ValueError(
      f'{generation.path / FILE} is damaged: put it back from a backup, or sleep with train.ewc=0'
    )
  return found
