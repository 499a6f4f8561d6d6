"""Our Gemma 3 is Gemma 3: parity with the official modules, and one model in all its layouts."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreaming.brain import kv_cache, transformer, weights
from dreaming.brain.transformer import ARCHITECTURES, Architecture, Transformer, unembed

# Two sliding layers around a global one, which compile fast.
SMALL = Architecture(
  num_layers=3, embed_dim=32, hidden_dim=64, num_heads=4, num_kv_heads=1, head_dim=16,
  sliding_window=8, vocab_size=128, global_every=2,
)  # fmt: skip
# Shaped like the real ones: order of layers, grouping of heads, position and query scale.
ONE = dataclasses.replace(SMALL, num_layers=7, global_every=6)
FOUR = dataclasses.replace(ONE, num_heads=8, num_kv_heads=4, global_scale=8.0)
TWENTY_SEVEN = dataclasses.replace(FOUR, query_scale=(32 / 8) ** -0.5)
SHAPES = {'1b': ONE, '4b': FOUR, '27b': TWENTY_SEVEN}


@functools.cache
def params_of(arch, seed=0):
  """Random weights under which every part counts: norms that are not one, logits of size one."""
  leaves, treedef = jax.tree.flatten(weights.expected_shapes(arch))
  rng = np.random.default_rng(seed)
  arrays = [
    rng.standard_normal(x.shape).astype(np.float32)
    * (0.3 if len(x.shape) == 1 else arch.embed_dim**-0.5)
    for x in leaves
  ]
  return jax.tree.map(jnp.asarray, jax.tree.unflatten(treedef, arrays))


def tokens_of(arch, batch, length, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.integers(6, arch.vocab_size, (batch, length)), jnp.int32)


@functools.partial(jax.jit, static_argnames=('arch', 'scanned', 'remat'))
def logits_of(params, tokens, arch, positions=None, segment_ids=None, scanned=False, remat=False):
  model = Transformer(arch, scanned=scanned, remat=remat)
  hidden, _ = model.apply({'params': params}, tokens, positions, segment_ids)
  return unembed(params, hidden)


def difference(x, y):
  return float(np.abs(np.asarray(x, np.float32) - np.asarray(y, np.float32)).max())


# ---- Parity with the official modules ----


def official(arch, query='BY_ONE_OVER_SQRT_HEAD_DIM'):
  """The same shape built from Gemma's own modules."""
  from gemma import gm

  config = gm.nn.config
  return gm.nn.Transformer(
    config=config.TransformerConfig(
      num_embed=arch.vocab_size,
      embed_dim=arch.embed_dim,
      hidden_dim=arch.hidden_dim,
      num_heads=arch.num_heads,
      head_dim=arch.head_dim,
      num_kv_heads=arch.num_kv_heads,
      final_logit_softcap=None,
      use_post_attn_norm=True,
      use_post_ffw_norm=True,
      use_qk_norm=True,
      attention_types=config.make_attention_layers_types(
        config.GEMMA3_ATTENTION_PATTERN, num_layers=arch.num_layers
      ),
      query_pre_attn_norm=config.QueryPreAttentionNormalisation[query],
      sliding_window_size=arch.sliding_window,
      transpose_gating_einsum=True,
      local_base_frequency=10_000,
      global_base_frequency=1_000_000,
      global_scale_factor=arch.global_scale,
    ),
    tokens='tokens',
    dtype=jnp.float32,
  )


def official_logits(model, params, tokens):
  with jax.numpy_rank_promotion('allow'):
    return model.apply({'params': params}, tokens=tokens).logits


@pytest.mark.parametrize('shape', SHAPES)
def test_logits_are_those_of_the_official_modules(shape):
  arch = SHAPES[shape]
  query = 'BY_ONE_OVER_SQRT_EMBED_DIM_DIV_NUM_HEADS' if shape == '27b' else (
    'BY_ONE_OVER_SQRT_HEAD_DIM'
  )  # fmt: skip
  params, tokens = params_of(arch), tokens_of(arch, 2, 40)  # five windows long
  theirs = official_logits(official(arch, query), params, tokens)
  ours = logits_of(params, tokens, arch)
  assert float(jnp.std(theirs)) > 0.5  # not a comparison of zeros
  assert difference(ours, theirs) < 1e-3


@pytest.mark.parametrize('name', [n for n in ARCHITECTURES if n != 'tiny'])
def test_architectures_have_the_official_numbers(name):
  from gemma import gm

  models = {
    'gemma3_270m': gm.nn.Gemma3_270M, 'gemma3_1b': gm.nn.Gemma3_1B, 'gemma3_4b': gm.nn.Gemma3_4B,
    'gemma3_12b': gm.nn.Gemma3_12B, 'gemma3_27b': gm.nn.Gemma3_27B,
  }  # fmt: skip
  theirs, ours = models[name].config, ARCHITECTURES[name]
  assert ours.vocab_size == theirs.num_embed
  for field in ('num_layers', 'embed_dim', 'hidden_dim', 'num_heads', 'num_kv_heads', 'head_dim'):
    assert dataclasses.asdict(ours)[field] == (
      theirs.num_layers if field == 'num_layers' else dataclasses.asdict(theirs)[field]
    ), field
  assert ours.sliding_window == theirs.sliding_window_size
  assert ours.is_global == tuple(t == gm.nn.AttentionType.GLOBAL for t in theirs.attention_types)
  assert ours.query_multiplier == pytest.approx(theirs.query_pre_attn_scalar(), rel=1e-6)
  assert (ours.local_base, ours.global_base) == (
    theirs.local_base_frequency, theirs.global_base_frequency
  )  # fmt: skip
  assert ours.global_scale == theirs.global_scale_factor


@pytest.mark.real
def test_the_real_model_says_what_the_official_modules_say():
  from dreaming.brain.decode import Decoder
  from dreaming.types import Mind

  base = weights.load(weights.ModelConfig())
  prompt = 'The old lighthouse keeper looked at the sea and'
  decoder = Decoder(base.arch, base.tokenizer, cache_length=128)
  text = decoder.generate(Mind(params=base.params), [prompt], max_tokens=64, stop=())[0]
  head = base.tokenizer.encode(prompt, bos=True)
  said = base.tokenizer.encode(prompt + text, bos=True)[: len(head) + 64]
  assert said[: len(head)] == head and len(said) == len(head) + 64
  tokens = jnp.asarray([said], jnp.int32)
  theirs = np.asarray(official_logits(official(base.arch), base.params, tokens))
  ours = np.asarray(logits_of(base.params, tokens, base.arch))
  assert difference(ours, theirs) < 1e-3
  # Each of the 64 tokens is the official choice after those before it: so is the whole sequence.
  assert theirs[0, len(head) - 1 : -1].argmax(axis=-1).tolist() == said[len(head) :]


# ---- One model in all its layouts ----


def test_scanned_is_unrolled_and_stack_is_undone_by_unstack():
  params, tokens = params_of(SMALL), tokens_of(SMALL, 2, 20)
  stacked = transformer.stack(params, SMALL.num_layers)
  expected = logits_of(params, tokens, SMALL)
  assert difference(logits_of(stacked, tokens, SMALL, scanned=True), expected) < 1e-4
  assert not jax.tree.leaves(
    jax.tree.map(
      lambda x, y: None if np.array_equal(x, y) else True,
      transformer.unstack(stacked, SMALL.num_layers),
      params,
    )
  )


def test_remat_changes_neither_loss_nor_gradient():
  tokens = tokens_of(SMALL, 2, 12)
  params = params_of(SMALL)

  @functools.partial(jax.jit, static_argnames=('scanned', 'remat'))
  def loss(params, scanned, remat=False):
    logits = logits_of(params, tokens, SMALL, scanned=scanned, remat=remat)
    return -jax.nn.log_softmax(logits)[..., 7].mean()

  kept, kept_grad = jax.value_and_grad(loss)(params, scanned=False)  # where nothing is made anew
  kept_grad = transformer.stack(kept_grad, SMALL.num_layers)
  for remat in (False, True):
    stacked = transformer.stack(params, SMALL.num_layers)
    made, grad = jax.value_and_grad(loss)(stacked, scanned=True, remat=remat)
    assert float(made) == pytest.approx(float(kept), abs=1e-5)
    assert max(jax.tree.leaves(jax.tree.map(difference, kept_grad, grad))) < 1e-5


@pytest.mark.parametrize('scanned', [False, True])
def test_no_output_depends_on_a_later_token(scanned):
  arch = dataclasses.replace(SMALL, sliding_window=4, vocab_size=12)
  params = params_of(arch)
  if scanned:
    params = transformer.stack(params, arch.num_layers)
  tokens = jnp.arange(12, dtype=jnp.int32)[None]  # each its own row of the table

  @jax.jit
  def output(table, at):
    moved = {**params, 'embedder': {'input_embedding': table}}
    hidden, _ = Transformer(arch, scanned=scanned).apply({'params': moved}, tokens)
    return (hidden[0, at] * jnp.arange(arch.embed_dim)).sum()

  gradient = jax.jit(jax.grad(output))
  for at in (0, 5, 11):
    grad = np.asarray(gradient(params['embedder']['input_embedding'], at))
    reaches = np.abs(grad).max(axis=1) > 0
    assert not reaches[at + 1 :].any()
    assert reaches[: at + 1].all()  # through the global layer, all that came before


def test_a_sliding_layer_sees_its_window_and_no_further():
  arch = dataclasses.replace(SMALL, num_layers=1, sliding_window=4)
  tokens = tokens_of(arch, 1, 12)
  params = params_of(arch)
  base = logits_of(params, tokens, arch)
  other = logits_of(params, tokens.at[0, 3].set((tokens[0, 3] + 1) % 128), arch)
  changed = np.abs(np.asarray(base - other))[0].max(axis=-1) > 0
  assert np.flatnonzero(changed).tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize('scanned', [False, True])
def test_packed_texts_do_not_see_each_other(scanned):
  params = params_of(SMALL)
  if scanned:
    params = transformer.stack(params, SMALL.num_layers)
  a, b = tokens_of(SMALL, 1, 11, seed=1), tokens_of(SMALL, 1, 7, seed=2)
  packed = jnp.concatenate([a, b, jnp.zeros((1, 2), jnp.int32)], axis=1)
  positions = jnp.asarray([[*range(11), *range(7), 0, 0]], jnp.int32)
  segments = jnp.asarray([[1] * 11 + [2] * 7 + [0] * 2], jnp.int32)
  logits = logits_of(params, packed, SMALL, positions, segments, scanned=scanned)
  assert difference(logits[:, :11], logits_of(params, a, SMALL, scanned=scanned)) < 1e-4
  assert difference(logits[:, 11:18], logits_of(params, b, SMALL, scanned=scanned)) < 1e-4
  # And not by luck: in one segment they do.
  together = logits_of(params, packed, SMALL, positions, jnp.ones_like(segments), scanned=scanned)
  assert difference(together[:, 11:18], logits[:, 11:18]) > 1e-2


# ---- The cache ----


@functools.partial(jax.jit, static_argnames='arch')
def extend(params, tokens, positions, cache, arch):
  hidden, cache = Transformer(arch).apply({'params': params}, tokens, positions, None, cache)
  return unembed(params, hidden), cache


def in_chunks(params, arch, tokens, chunks, length):
  """Logits of all positions, computed chunk by chunk through a cache of `length`."""
  cache = kv_cache.init_cache(arch, tokens.shape[0], length)
  out, at = [], 0
  for n in chunks:
    positions = jnp.broadcast_to(jnp.arange(at, at + n, dtype=jnp.int32), (tokens.shape[0], n))
    logits, cache = extend(params, tokens[:, at : at + n], positions, cache, arch)
    out.append(logits)
    at += n
  assert at == tokens.shape[1]
  return jnp.concatenate(out, axis=1), cache


@pytest.mark.parametrize(
  'chunks',
  [
    (5, *[1] * 25),  # prompt shorter than the window, decode around the ring three times
    (19, *[1] * 11),  # prompt longer than the ring
    (8, *[1] * 22),  # exactly the ring
    (3, 9, 1, 1, 14, 1, 1),  # a prefix, a prompt, an answer, the next prompt
  ],
)
def test_prefill_and_decode_equal_a_full_forward(chunks):
  arch = dataclasses.replace(SMALL, num_kv_heads=2, global_scale=8.0)
  params, tokens = params_of(arch), tokens_of(arch, 2, 30)
  logits, cache = in_chunks(params, arch, tokens, chunks, length=30)
  assert difference(logits, logits_of(params, tokens, arch)) < 1e-4
  sizes = [layer.k.shape[1] for layer in cache]
  assert sizes == [30 if g else 8 for g in arch.is_global]
  ring = np.sort(np.asarray(cache[0].positions[0]))
  assert ring.tolist() == list(range(22, 30))  # the last window, nothing older


def test_rows_of_different_length_share_a_batch():
  params, tokens = params_of(SMALL), tokens_of(SMALL, 2, 24)
  lengths = (13, 6)
  chunk = jnp.where(jnp.arange(16)[None] < jnp.asarray(lengths)[:, None], tokens[:, :16], 0)
  positions = jnp.where(jnp.arange(16)[None] < jnp.asarray(lengths)[:, None], jnp.arange(16), -1)
  cache = kv_cache.init_cache(SMALL, 2, 32)
  _, cache = extend(params, chunk, positions.astype(jnp.int32), cache, SMALL)
  for step in range(10):
    at = jnp.asarray([[n + step] for n in lengths], jnp.int32)
    new = jnp.take_along_axis(tokens, at, axis=1)
    logits, cache = extend(params, new, at, cache, SMALL)
  for row, n in enumerate(lengths):
    alone = logits_of(params, tokens[row : row + 1, : n + 10], SMALL)
    assert difference(logits[row, 0], alone[0, -1]) < 1e-4


def test_a_cache_is_not_changed_by_what_reads_it():
  params, tokens = params_of(SMALL), tokens_of(SMALL, 1, 12)
  _, prefix = in_chunks(params, SMALL, tokens[:, :9], (9,), length=32)
  before = jax.tree.map(np.array, prefix)
  positions = jnp.asarray([[9, 10, 11]], jnp.int32)
  first, _ = extend(params, tokens[:, 9:], positions, prefix, SMALL)
  extend(params, tokens[:, :3], positions, prefix, SMALL)
  again, _ = extend(params, tokens[:, 9:], positions, prefix, SMALL)
  assert np.array_equal(first, again)
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, before, prefix)))


def test_a_cache_refuses_the_other_layout():
  stacked = transformer.stack(params_of(SMALL), SMALL.num_layers)
  tokens = tokens_of(SMALL, 1, 4)
  with pytest.raises(ValueError, match='one cache of all layers'):
    cache = kv_cache.init_cache(SMALL, 1, 16)
    Transformer(SMALL, scanned=True).apply({'params': stacked}, tokens, None, None, cache)
  with pytest.raises(ValueError, match='one cache of all layers'):
    cache = kv_cache.init_stacked(SMALL, 16)
    Transformer(SMALL).apply({'params': params_of(SMALL)}, tokens, None, None, cache)


def test_a_stacked_cache_is_that_of_every_layer():
  params, tokens = params_of(SMALL), tokens_of(SMALL, 1, 9)
  stacked = transformer.stack(params, SMALL.num_layers)
  empty = kv_cache.init_stacked(SMALL, 16)
  _, cache = Transformer(SMALL, scanned=True).apply(
    {'params': stacked}, tokens[:, :6], None, None, empty
  )
  assert cache.positions.tolist() == [[[*range(6), *[-1] * 10]]] * SMALL.num_layers
  positions = jnp.arange(6, 9)[None]
  after, _ = Transformer(SMALL, scanned=True).apply(
    {'params': stacked}, tokens[:, 6:], positions, None, cache
  )
  whole, _ = Transformer(SMALL).apply({'params': params}, tokens)
  assert np.allclose(after, whole[:, 6:], atol=1e-5)


# ---- Unembedding ----


@pytest.mark.parametrize('rows', [1, 2, 16, 17])
def test_the_logits_are_the_products_with_every_row_of_the_table(rows):
  params = params_of(SMALL)
  hidden = np.random.default_rng(0).standard_normal((rows, 32)).astype(np.float32)
  expected = hidden @ np.asarray(params['embedder']['input_embedding']).T
  assert difference(jax.jit(unembed)(params, jnp.asarray(hidden)), expected) < 1e-5


@pytest.mark.parametrize('rows', [1, 3, 65])
def test_a_bf16_table_gives_the_same_logits_whatever_the_number_of_rows(rows):
  params = params_of(SMALL)
  table = params['embedder']['input_embedding'].astype(jnp.bfloat16)
  half = {'embedder': {**params['embedder'], 'unembedding': table}}
  hidden = jnp.asarray(np.random.default_rng(0).standard_normal((rows, 32)), jnp.float32)
  expected = hidden.astype(jnp.bfloat16).astype(np.float32) @ table.astype(np.float32).T
  logits = unembed(half, hidden)
  assert logits.shape == (rows, SMALL.vocab_size) and logits.dtype == jnp.float32
  assert difference(logits, expected) < 1e-3
