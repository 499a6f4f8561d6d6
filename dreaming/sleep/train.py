"""Trains a small adapter on a night's corpus: pure `(state, batch) -> (state, metrics)`."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dreaming.brain import transformer
from dreaming.brain.transformer import Architecture, Transformer
from dreaming.sleep import losses
from dreaming.types import Batch, Params, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
  """Mirrors `config.train`."""

  learning_rate: float = 3e-4
  steps: int = 60
  warmup: float = 0.1  # share of steps
  optimizer: str = 'adamw'  # or 'adafactor'
  weight_decay: float = 0.0
  clip: float = 1.0
  rank: int = 16
  scale: float = 2.0
  targets: str = r'layers/(attn|mlp)/.*'
  replay_weight: float = 1.0
  dtype: str = 'bfloat16'  # of the products with the frozen weights; the adapter is f32
  remat: bool = False


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
  schedule = optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=config.learning_rate,
    warmup_steps=max(1, round(config.warmup * config.steps)),
    decay_steps=config.steps,
    end_value=0.1 * config.learning_rate,
  )
  if config.optimizer == 'adamw':
    update = optax.adamw(schedule, b2=0.99, weight_decay=config.weight_decay)
  elif config.optimizer == 'adafactor':
    update = optax.adafactor(schedule, multiply_by_parameter_scale=False)
  else:
    raise ValueError(f"train.optimizer={config.optimizer!r}: it is 'adamw' or 'adafactor'")
  return optax.chain(optax.clip_by_global_norm(config.clip), update)


def frozen(params: Params, arch: Architecture, shortlist: Any, dtype: str) -> Params:
  """What a night reads of the base: stacked layers in `dtype`, embeddings, the shortlist's rows."""
  table = params['embedder']['input_embedding']
  rest = {k: v for k, v in params.items() if k.startswith('layer_') or k == 'final_norm'}
  cast = jax.tree.map(lambda x: x.astype(dtype) if x.ndim > 1 else x, rest)
  stacked = transformer.stack(cast, arch.num_layers)
  return {
    **stacked,
    'embedder': {'input_embedding': table, 'unembedding': table[shortlist].astype(dtype)},
  }


def make_step(arch: Architecture, config: TrainConfig, optimizer: optax.GradientTransformation):
  """The jitted train step. `base` is what `frozen` returned; target ids index its shortlist."""
  model = Transformer(
    arch, scanned=True, remat=config.remat, lora_scale=config.scale, dtype=jnp.dtype(config.dtype)
  )

  def loss_fn(adapter, base, batch: Batch, mask):
    variables = {'params': {**base, 'embedder': _inputs(base)}, 'lora': adapter}
    if mask is not None:
      variables['mask'] = mask
    hidden, _ = model.apply(variables, batch.tokens, batch.positions, batch.segment_ids)
    hidden = hidden.reshape(-1, hidden.shape[-1])[batch.loss_positions]
    table = base['embedder']['unembedding']
    logits = jnp.einsum(
      'nd,wd->nw', hidden.astype(table.dtype), table, preferred_element_type=jnp.float32
    )
    ce = losses.cross_entropy(logits, batch.target_ids, batch.target_probs)
    dream = losses.weighted_mean(ce, batch.weights * (1 - batch.replay))
    kl = ce - losses.entropy(batch.target_probs)
    kl = losses.weighted_mean(kl, batch.weights * batch.replay)
    return dream + config.replay_weight * kl, {'dream_loss': dream, 'replay_kl': kl}

  def step(state: TrainState, base: Params, batch: Batch, mask=None):
    grads, metrics = jax.grad(loss_fn, has_aux=True)(state.adapter, base, batch, mask)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.adapter)
    adapter = optax.apply_updates(state.adapter, updates)
    metrics['grad_norm'] = optax.global_norm(grads)
    return TrainState(step=state.step + 1, adapter=adapter, opt_state=opt_state), metrics

  return jax.jit(step, donate_argnums=(0,))


def _inputs(base: Params) -> Params:
  return {'input_embedding': base['embedder']['input_embedding']}
