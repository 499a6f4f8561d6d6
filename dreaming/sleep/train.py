"""Trains a small adapter on a night's corpus: pure `(state, batch) -> (state, metrics)`.

A run may be killed: it goes on from its last checkpoint and ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dreaming.brain import lora, sharding, transformer
from dreaming.brain.transformer import Architecture, Transformer
from dreaming.sleep import aims, artifacts, begin, losses, prune
from dreaming.sleep.corpus import Corpus
from dreaming.types import Batch, Lora, Params, TrainState


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(aims.AimsConfig):
  """Mirrors `config.train`."""

  learning_rate: float = 5e-4
  steps: int = 88
  warmup: float = 0.1  # share of steps
  optimizer: str = 'adamw'  # or 'adafactor'
  weight_decay: float = 0.0
  clip: float = 1.0
  rank: int = 16
  scale: float = 2.0
  targets: str = r'layers/(attn|mlp)/.*'
  consolidation: str = 'continual'  # or 'fresh', 'fold': see BlueGreen.ground
  begin: str = 'random'  # or 'dreams': what a new adapter's `a` are, see begin.py
  begin_batches: int = 8  # that it looks at
  begin_damping: float = 0.1
  replay_weight: float = 8.0
  held: float = 0.95  # tokens of dreams that are likelier already are not learned further
  dtype: str = 'bfloat16'  # of the products with the frozen weights; the adapter is f32
  remat: bool = False
  eval_every: int = 20  # steps between looks at held-out dreams
  patience: int = 3  # looks without a better held-out loss, after which training stops
  min_raw_loss: float = 0.1  # nats a token on the raw experiences: below, they are known by heart
  checkpoint_every: int = 20  # steps

  def __post_init__(self):
    super().__post_init__()
    if self.learning_rate <= 0 or self.steps < 1 or self.rank < 1 or self.scale <= 0:
      raise ValueError(
        f'train: learning_rate={self.learning_rate}, steps={self.steps}, rank={self.rank}, '
        f'scale={self.scale}: each must be positive'
      )
    if self.optimizer not in ('adamw', 'adafactor'):
      raise ValueError(f"train.optimizer={self.optimizer!r}: it is 'adamw' or 'adafactor'")
    if self.consolidation not in ('continual', 'fresh', 'fold'):
      raise ValueError(
        f"train.consolidation={self.consolidation!r}: it is 'continual', 'fresh' or 'fold'"
      )
    if self.begin not in ('dreams', 'random'):
      raise ValueError(f"train.begin={self.begin!r}: it is 'dreams' or 'random'")
    if self.begin_batches < 1 or self.begin_damping <= 0:
      raise ValueError(
        f'train.begin_batches={self.begin_batches}, train.begin_damping={self.begin_damping}: '
        'each must be positive'
      )
    if self.ewc and self.consolidation != 'continual':
      raise ValueError(
        f'train.ewc={self.ewc} with train.consolidation={self.consolidation!r}: only an adapter '
        "that is carried on can stay where it is; take 'continual', or ewc=0"
      )


@dataclasses.dataclass(frozen=True)
class Trained:
  """What training leaves."""

  adapter: Lora  # NumPy arrays
  history: list[dict[str, float]]  # metrics of every step, with 'step'
  steps_done: int
  stopped: str  # why it ended before its last step, '' when it did not


def train(
  base_params: Params,
  arch: Architecture,
  corpus: Corpus,
  *,
  config: TrainConfig,
  seed: int,
  adapter: Lora | None = None,
  masks: Mapping[str, Any] | None = None,
  on_step: Callable[[int, Mapping[str, float]], None] | None = None,
  checkpoint: pathlib.Path | None = None,
  anchor: aims.Anchor | None = None,
  on_policy: Callable[[Lora], Sequence[Batch]] | None = None,
) -> Trained:
  """Trains on a corpus, from a new adapter or from `adapter`.

  Args:
    base_params: frozen, official layout; on a mesh, so is the training.
    arch: its architecture.
    corpus: as corpus.build makes it.
    config: optimizer, rank, schedule.
    seed: of a new adapter.
    adapter: to go on with (another night's), or None.
    masks: pruned weights (prune.merged_mask), which stay zero.
    on_step: told step (from 1) and metrics, one step late so that the device never waits.
    checkpoint: directory to resume from and to write to.
    anchor: where the night began, for the aims that hold it there.
    on_policy: adapter -> what it says itself and what its teacher thinks of it, in batches; asked
      after every checkpoint.
  """
  steps = min(config.steps, len(corpus.batches))
  new = adapter is None
  if adapter is None:
    adapter = lora.init(jax.random.key(seed), arch, rank=config.rank, targets=config.targets)
  adapter = jax.tree.map(jnp.array, adapter)  # the step donates it: the caller keeps their own
  optimizer = make_optimizer(config)
  state = TrainState(
    step=jnp.zeros((), jnp.int32), adapter=adapter, opt_state=optimizer.init(adapter)
  )
  base = frozen(base_params, arch, corpus.shortlist, config.dtype)
  mask = None
  if masks is not None:
    # Masked training merges every weight with its delta: remat keeps that to a layer at a time.
    config = dataclasses.replace(config, remat=True)
    mask = prune.collection(masks, arch.num_layers)
  place = _placing(base_params)
  state = place(state, sharding.ADAPTER)
  step_fn, loss_fn = make_step(arch, config, optimizer), make_eval(arch, config)

  history: list[dict[str, float]] = []
  looks: list[float] = []
  state, history, looks = _resume(checkpoint, state, history, looks)
  if new and config.begin == 'dreams' and not history:
    seen = [place(b, sharding.BATCH) for b in corpus.batches[: config.begin_batches]]
    look = make_gradient(arch, config)
    begun = begin.whitened(state.adapter, base, seen, look, arch, damping=config.begin_damping)
    state = state.replace(adapter=begun)
  state = place(state, sharding.ADAPTER)
  anchor = None if anchor is None else place(jax.tree.map(jnp.asarray, anchor), sharding.ADAPTER)
  held_out, raw = (place(b, sharding.BATCH) for b in (corpus.held_out, corpus.raw))
  stopped, late = '', None

  def report(late):
    step, metrics = late
    row = {'step': step, **{k: float(v) for k, v in metrics.items()}}
    history.append(row)
    if on_step:
      on_step(step, {k: v for k, v in row.items() if k != 'step'})

  own: Sequence[Batch] = ()
  for step in range(int(state.step) + 1, steps + 1):
    batch = corpus.batches[step - 1]
    if on_policy is not None:
      if not own or (step - 1) % config.checkpoint_every == 0:  # as a resumed night does it
        own = on_policy(state.adapter)
      batch = batch.replace(own=own[step % len(own)])
    state, metrics = step_fn(state, base, place(batch, sharding.BATCH), mask, anchor)
    if late is not None:
      report(late)
    late = step, metrics
    if step % config.eval_every == 0 and step < steps:
      held = float(loss_fn(state.adapter, base, held_out, mask))
      by_heart = float(loss_fn(state.adapter, base, raw, mask))
      looks.append(held)
      late = step, {**metrics, 'held_out_loss': held, 'raw_loss': by_heart}
      if by_heart < config.min_raw_loss:
        stopped = f'the experiences are known by heart ({by_heart:.2f} nats a token)'
      elif min(looks[-config.patience :]) > min(looks):
        stopped = f'no better on held-out dreams for {config.patience} looks'
      if stopped:
        break
    if checkpoint is not None and step % config.checkpoint_every == 0:
      report(late)
      late = None
      _save(checkpoint, state, history, looks)
  if late is not None:
    report(late)
  adapter = jax.tree.map(np.asarray, state.adapter)
  return Trained(adapter, history, int(state.step), stopped)


def _placing(base_params: Params) -> Callable[[Any, sharding.Rules], Any]:
  """Moves what trains to the mesh of the base; the identity on one device."""
  found = base_params['embedder']['input_embedding'].sharding
  mesh = getattr(found, 'mesh', None)
  if mesh is None:
    return lambda tree, rules: tree
  return lambda tree, rules: sharding.shard(tree, mesh, rules)


def _save(directory: pathlib.Path, state: TrainState, history: list, looks: list) -> None:
  """One file, renamed into place when it is whole; its digest is its name's second half."""
  leaves = {f'{i:04d}': np.asarray(x) for i, x in enumerate(jax.tree.leaves(state))}
  keys = sorted({k for row in history for k in row})
  table = np.asarray([[row.get(k, np.nan) for k in keys] for row in history])
  tree = {'state': leaves, 'history': table, 'keys': np.asarray(keys), 'looks': np.asarray(looks)}
  partial = directory / 'partial.npz'
  digest = artifacts.write(partial, tree)
  old = list(directory.glob('step-*.npz'))
  partial.rename(directory / f'step-{int(state.step):06d}-{digest}.npz')
  for path in old:
    path.unlink()


def _resume(directory, state, history, looks):
  """The newest whole checkpoint, or what was given."""
  for path in sorted(directory.glob('step-*.npz'), reverse=True) if directory else ():
    tree = artifacts.read(path, path.stem.rsplit('-', 1)[1])
    if tree is None:
      continue
    leaves, treedef = jax.tree.flatten(state)
    saved = [tree['state'][f'{i:04d}'] for i in range(len(leaves))]
    rows = [
      {k: float(v) for k, v in zip(tree['keys'], row, strict=True) if not np.isnan(v)}
      for row in tree['history']
    ]
    rows = [{**row, 'step': int(row['step'])} for row in rows]
    return jax.tree.unflatten(treedef, map(jnp.asarray, saved)), rows, tree['looks'].tolist()
  return state, history, looks


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
  warmup = max(1, round(config.warmup * config.steps))
  schedule = optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=config.learning_rate,
    warmup_steps=warmup,
    decay_steps=max(config.steps, warmup + 1),  # a single step has none to decay over
    end_value=0.1 * config.learning_rate,
  )
  if config.optimizer == 'adamw':
    update = optax.adamw(schedule, b2=0.99, weight_decay=config.weight_decay)
  else:
    update = optax.adafactor(schedule, multiply_by_parameter_scale=False)
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


def make_loss(arch: Architecture, config: TrainConfig, inputs: bool = False):
  """(adapter, base, batch, mask, anchor) -> (loss, metrics); `inputs` in these where asked."""
  model = Transformer(
    arch, scanned=True, remat=config.remat, lora_scale=config.scale, dtype=jnp.dtype(config.dtype)
  )

  def loss_fn(adapter, base, batch: Batch, mask, anchor=None):
    table = base['embedder']['unembedding']
    lookup = {'input_embedding': base['embedder']['input_embedding']}
    variables = {'params': {**base, 'embedder': lookup}}
    if adapter is not None:
      variables['lora'] = adapter
    if mask is not None:
      variables['mask'] = mask
    read = batch.tokens, batch.positions, batch.segment_ids
    (hidden, _), seen = model.apply(variables, *read, mutable=['inputs'] if inputs else [])
    hidden = hidden.reshape(-1, hidden.shape[-1])[batch.loss_positions]
    logits = jnp.einsum(
      'nd,wd->nw', hidden.astype(table.dtype), table, preferred_element_type=jnp.float32
    )
    ce = losses.cross_entropy(logits, batch.target_ids, batch.target_probs)
    own = batch.weights * (1 - batch.replay)
    dream = losses.weighted_mean(ce, own)
    kl = ce - losses.entropy(batch.target_probs)
    kl = losses.weighted_mean(kl, batch.weights * batch.replay)
    unheld = losses.unheld(ce, config.held)
    learned = losses.weighted_mean(unheld, own)
    held = losses.weighted_mean(unheld == 0, own)  # the share of the dreams' tokens
    metrics = {'dream_loss': dream, 'replay_kl': kl, 'held': held, **seen}
    if not config.any_loss:
      return learned + config.replay_weight * kl, metrics

    def states(lora, *seen, masked=True):
      also = {'lora': lora, 'mask': mask if masked else None}
      also = {k: x for k, x in also.items() if x is not None}
      return model.apply({'params': variables['params'], **also}, *seen)[0]

    def unembed(hidden, at):
      rows = hidden.reshape(-1, hidden.shape[-1])[at].astype(table.dtype)
      return jnp.einsum('nd,wd->nw', rows, table, preferred_element_type=jnp.float32)

    found = aims.terms(config, adapter, anchor, batch, own, logits, states, unembed)
    total = config.dream_weight * learned + config.replay_weight * kl
    for name, value in found.items():
      total += vars(config)[name] * value
    return total, metrics | aims.measured(found)

  return loss_fn


def make_step(arch: Architecture, config: TrainConfig, optimizer: optax.GradientTransformation):
  """The jitted train step. `base` is what `frozen` returned; target ids index its shortlist."""
  loss_fn = make_loss(arch, config)

  def step(state: TrainState, base: Params, batch: Batch, mask=None, anchor=None):
    grads, metrics = jax.grad(loss_fn, has_aux=True)(state.adapter, base, batch, mask, anchor)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.adapter)
    adapter = optax.apply_updates(state.adapter, updates)
    tokens = jnp.sum(batch.weights)
    metrics = {**metrics, 'grad_norm': optax.global_norm(grads), 'loss_tokens': tokens}
    return TrainState(step=state.step + 1, adapter=adapter, opt_state=opt_state), metrics

  return jax.jit(step, donate_argnums=(0,))


def make_gradient(arch: Architecture, config: TrainConfig):
  """(base, batch) -> (the dreams' gradient by the layers' weights, inputs); see begin.py."""
  config = dataclasses.replace(aims.without(config), replay_weight=0.0)
  loss_fn = make_loss(arch, config, inputs=True)

  def gradient(base: Params, batch: Batch):
    def by_layers(layers):
      loss, metrics = loss_fn(None, {**base, 'layers': layers}, batch, None)
      return loss, metrics['inputs']

    grads, inputs = jax.grad(by_layers, has_aux=True)(base['layers'])
    return grads, {name: x for group in inputs['layers'].values() for name, (x,) in group.items()}

  return gradient


def make_eval(arch: Architecture, config: TrainConfig):
  """The jitted loss of dreams, nothing changed."""
  loss_fn = make_loss(arch, aims.without(config))
  return jax.jit(lambda *args: loss_fn(*args)[1]['dream_loss'])
