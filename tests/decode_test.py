"""What is decoded is what the model says: greedily, sampled, streamed, batched, with any prefix."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreaming.brain import transformer, weights
from dreaming.brain.decode import CANDIDATES, Decoder, Sampler, top_candidates
from dreaming.brain.tokenizer import Tokenizer, model_proto
from dreaming.brain.transformer import ARCHITECTURES, Transformer, unembed
from dreaming.types import Mind

ARCH = dataclasses.replace(
  ARCHITECTURES['tiny'], num_layers=2, global_every=2, sliding_window=12, embed_dim=24,
  vocab_size=1024,
)  # fmt: skip
# Bytes, as fallback, and enough characters of their own that most tokens can be told by their text.
_PIECES = ['<pad>', '<eos>', '<bos>', '<unk>', '<start_of_turn>', '<end_of_turn>']
_PIECES += [f'<0x{i:02X}>' for i in range(256)] + ['▁', *(chr(0x4E00 + i) for i in range(761))]
TOKENIZER = Tokenizer(
  model_proto(_PIECES, [0.0] * 1024, [3, 3, 3, 2, 3, 3, *[6] * 256, *[1] * 762])
)
PROMPTS = ['a bird', 'Where is it?', 'x', 'the longest one', 'yes.']


@pytest.fixture(autouse=True, scope='module')
def quick_compilation():
  """Most of the time here goes into compiling toys."""
  before = jax.config.read('jax_disable_most_optimizations')
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


@functools.cache
def mind(seed=0, generation=0):
  """Random weights whose layers outweigh the embedding, which would only echo the last token."""
  params = weights._random(ARCH, seed)
  for i in range(ARCH.num_layers):
    for name in ('post_attention_norm', 'post_ffw_norm'):
      params[f'layer_{i}'][name]['scale'] = params[f'layer_{i}'][name]['scale'] + 8
  return Mind(params=params, generation=generation)


def new_decoder(**fields):
  return Decoder(ARCH, TOKENIZER, **{'cache_length': 96, **fields})


@functools.cache
def decoder():
  """One for all tests that do not look at its inside: it compiles once."""
  return new_decoder()


@functools.partial(jax.jit, static_argnames='length')
def _padded(params, ids, length):
  del length
  hidden, _ = Transformer(ARCH).apply({'params': params}, ids)
  return unembed(params, hidden)


def full_logits(ids, who=None):
  """Float['L V'] by a plain forward over all of the ids."""
  padded = np.zeros((1, 96), np.int32)
  padded[0, : len(ids)] = ids
  return np.asarray(_padded((who or mind()).params, padded, 96))[0, : len(ids)]


def reference(prompt, n, who=None):
  """Greedy ids by full forwards."""
  ids = TOKENIZER.encode(prompt, bos=True)
  start = len(ids)
  for _ in range(n):
    ids.append(int(full_logits(ids, who)[-1].argmax()))
  return ids[start:]


def say(prompts, who=None, n=16, by=None, **fields):
  fields = {'stop': (), **fields}
  return (by or decoder()).generate(who or mind(), prompts, max_tokens=n, **fields)


# ---- Greedy ----


def test_greedy_text_is_the_full_forwards_choice():
  for prompt in PROMPTS[:3]:
    assert say([prompt], n=24)[0] == TOKENIZER.decode(reference(prompt, 24))


def test_a_batch_says_what_each_prompt_says_alone():
  together = say(PROMPTS)
  assert together == [say([p])[0] for p in PROMPTS]
  assert len(set(together)) == len(PROMPTS)


def test_more_prompts_than_a_batch_keep_their_order():
  prompts = [f'{"long " * (i % 3)}number {i}' for i in range(40)]
  texts = say(prompts, n=6)
  for i in (0, 17, 39):
    assert texts[i] == say([prompts[i]], n=6)[0]


@pytest.mark.parametrize('sampler', [Sampler(), Sampler(temperature=1.0, seed=3)])
def test_what_several_batches_have_left_over_goes_on_together_as_it_was(sampler, monkeypatch):
  one, sizes = decoder(), collections.Counter()
  prompts = [f'{"x" * (i % 2)} {i}' for i in range(70)]
  stop = tuple('aeiost ') + tuple(chr(0x4E00 + i) for i in range(0, 761, 9))
  how = {'n': 30, 'sampler': sampler, 'stop': stop, 'prefix': 'Before. '}
  step = one._step
  with monkeypatch.context() as m:
    m.setattr(one, '_step', lambda *a, **k: sizes.update([len(a[4])]) or step(*a, **k))
    texts = say(prompts, by=one, **how)
  assert set(sizes) <= {32, 8} and sizes[32] < 0.7 * 3 * 29, sizes  # steps of three whole batches
  for i, prompt in enumerate(prompts):
    batch = one._begin(mind(), [prompt], [i], 30, sampler, how['prefix'])
    assert list(one._continue(mind(), batch, sampler, stop)) == [(i, texts[i])]
  assert len({len(t) for t in texts}) > 5


def test_equal_prompts_are_read_once_and_have_their_own_noise(monkeypatch):
  one, read = decoder(), []
  sampler = Sampler(temperature=1.0, seed=5)
  prompts = [PROMPTS[i % 3] for i in range(18)]
  prefill = one._prefill
  with monkeypatch.context() as m:
    m.setattr(one, '_prefill', lambda *a, **k: read.append(k['batch']) or prefill(*a, **k))
    texts = say(prompts, n=8, sampler=sampler)
  assert read == [4] and len(set(texts)) > 12
  for i, prompt in enumerate(prompts):
    batch = one._begin(mind(), [prompt], [i], 8, sampler, '')
    assert list(one._continue(mind(), batch, sampler, ())) == [(i, texts[i])]


def test_no_batch_has_more_tokens_than_memory_is_planned_for():
  one = new_decoder()
  prompts = ['x' * (i % 7 + 1) for i in range(40)] + ['y' * 500] * 20
  groups = one._groups(prompts, more=100)
  assert sorted(i for g in groups for i in g) == list(range(60))
  for group in groups:
    longest = max(len(TOKENIZER.encode(prompts[i])) for i in group)
    assert len(group) * (longest + 100) <= 4096
  assert max(map(len, groups)) == 32
  assert one._groups(['z' * 20_000], more=100) == [[0]]


def test_ids_are_prompts_too():
  ids = tuple(TOKENIZER.encode(PROMPTS[1]))
  assert say([ids, PROMPTS[0]]) == say([PROMPTS[1], PROMPTS[0]])
  assert say([ids], prefix=tuple(TOKENIZER.encode('Before. '))) == say(
    [PROMPTS[1]], prefix='Before. '
  )


# ---- Where it ends ----


def test_the_earliest_stop_ends_the_text_and_is_not_in_it():
  whole = say([PROMPTS[0]], n=24)[0]
  for stops in ((whole[5:8],), (whole[9], whole[4:6]), ('nowhere in it',)):
    cut = min((at for s in stops if (at := whole.find(s)) >= 0), default=len(whole))
    assert say([PROMPTS[0]], n=24, stop=stops)[0] == whole[:cut]


def test_no_text_begins_with_what_is_avoided():
  likely = np.argsort(full_logits(TOKENIZER.encode(PROMPTS[0], bos=True))[-1])
  first, second = int(likely[-1]), int(likely[-2])
  assert say(PROMPTS[:1], n=1) == [TOKENIZER.decode([first])]
  assert say(PROMPTS[:1], n=1, avoid=first) == [TOKENIZER.decode([second])]
  assert say(PROMPTS, avoid=second) == say(PROMPTS)  # nothing began so


@pytest.mark.parametrize('sampler', [Sampler(), Sampler(temperature=1.0, seed=2)])
def test_who_has_few_words_says_what_is_likeliest_of_them(sampler):
  few = np.sort(np.random.default_rng(0).choice(np.arange(263, 1024), 256, replace=False))
  who = mind().replace(params=transformer.speaking(mind().params, few))
  masked = np.full(1024, -np.inf, np.float32)
  masked[few] = 0
  ids = TOKENIZER.encode(PROMPTS[0], bos=True)
  start = len(ids)
  for _ in range(12):
    ids.append(int((full_logits(ids)[-1] + masked).argmax()))
  texts = say(PROMPTS, who=who, n=12, sampler=sampler)
  own = {TOKENIZER.decode([i]) for i in few.tolist()}
  assert all(len(t) == 12 and {*t} <= own for t in texts)
  assert not all({*t} <= own for t in say(PROMPTS, n=12, sampler=sampler))
  assert texts[:1] == say(PROMPTS[:1], who=who, n=12, sampler=sampler)
  if sampler.mode == 'greedy':
    assert texts[0] == TOKENIZER.decode(ids[start:]) != say(PROMPTS[:1], n=12)[0]


def test_a_stop_in_one_row_does_not_stop_the_others():
  whole = say(PROMPTS, n=12)
  stop = whole[2][3:5]
  expected = [w[: w.find(stop)] if stop in w else w for w in whole]
  assert expected != whole
  assert say(PROMPTS, n=12, stop=(stop,)) == expected


@pytest.mark.parametrize('which', ['eos', 'end_of_turn'])
def test_the_end_of_the_text_or_turn_ends_it(which):
  ids = reference(PROMPTS[0], 8)
  third = next(i for i in ids[2:] if i not in ids[:2])
  end = property(lambda self: third)
  tokenizer = type('Tokenizer', (Tokenizer,), {which: end})(TOKENIZER.model_proto)
  ended = Decoder(ARCH, tokenizer, cache_length=96)
  expected = TOKENIZER.decode(ids[: ids.index(third)])
  assert say([PROMPTS[0]], n=8, by=ended)[0] == expected
  assert ''.join(ended.stream(mind(), PROMPTS[0], max_tokens=8, stop=())) == expected


def test_the_cache_can_be_filled_to_its_last_token_and_no_further():
  """Around the ring and up to the end: max_tokens beyond the room are not an error."""
  prompt = 'x' * 90  # with the beginning of sequence, 91 of 96
  text = say([prompt], n=50)[0]
  ids = reference(prompt, 5)  # full_logits has room for no more
  assert text.startswith(TOKENIZER.decode(ids))
  assert say(['x' * 95], n=50)[0] == TOKENIZER.decode(reference('x' * 95, 1))
  with pytest.raises(ValueError, match='97 tokens of prompt exceed decode.cache_length=96') as e:
    say(['x' * 96])
  assert '\n' not in str(e.value)
  with pytest.raises(ValueError, match='97 tokens of prompt'):
    say(['x' * 46], prefix='y' * 50)


def test_nothing_to_continue_is_an_error_only_after_a_prefix():
  with pytest.raises(ValueError, match='an empty prompt'):
    say([''], prefix='Before. ')
  assert say([''], n=4)[0] == TOKENIZER.decode(reference('', 4))


# ---- Streaming ----


@pytest.mark.parametrize('seed', range(4))
def test_a_stream_is_the_text_in_pieces(seed):
  sampler = Sampler(temperature=1.5, seed=seed)  # byte noise: broken characters everywhere
  whole = say([PROMPTS[0]], n=24, sampler=sampler)[0]
  for stop in ((), (whole[7:10],), (whole[3:5], whole[11:12])):
    stop = tuple(s for s in stop if s)
    pieces = list(decoder().stream(mind(), PROMPTS[0], max_tokens=24, stop=stop, sampler=sampler))
    assert ''.join(pieces) == say([PROMPTS[0]], n=24, sampler=sampler, stop=stop)[0]
    assert all(pieces) and (stop or len(pieces) > 5)


def test_a_stream_never_takes_back_what_may_become_a_stop_or_a_character(monkeypatch):
  """The text grows as 'wait', 'wait E', ..., with a character of four bytes in it."""
  text = 'wait En 🦜 END'
  ids = TOKENIZER.encode(text)
  feed = iter(ids)
  one = decoder()
  monkeypatch.setattr(one, '_first', lambda *a, **k: np.asarray([next(feed)]))
  monkeypatch.setattr(one, '_step', lambda *a, **k: (None, np.asarray([next(feed)])))
  pieces = list(one.stream(mind(), 'x', max_tokens=len(ids), stop=('END',)))
  assert ''.join(pieces) == 'wait En 🦜 '
  for said in itertools.accumulate(pieces):
    assert '\ufffd' not in said and not said.endswith(('E', 'EN'))


def test_a_stream_keeps_the_mind_it_began_with():
  expected = say([PROMPTS[1]], n=20)[0]
  stream = decoder().stream(mind(), PROMPTS[1], max_tokens=20, stop=())
  said = next(stream)
  say([PROMPTS[1]], who=mind(1))
  assert said + ''.join(stream) == expected


# ---- Sampling ----


def sampled(sampler, count=32, prompt='a bird', rounds=1):
  """First tokens of many draws, as a Counter of texts."""
  draws = collections.Counter()
  for i in range(rounds):
    one = dataclasses.replace(sampler, seed=sampler.seed + i)
    draws.update(say([prompt] * count, n=1, sampler=one))
  return draws


def likeliest(prompt='a bird'):
  logits = full_logits(TOKENIZER.encode(prompt, bos=True))[-1]
  order = np.argsort(-logits, kind='stable')
  return order, logits[order]


def test_a_seed_repeats_and_another_does_not():
  hot = Sampler(temperature=1.0, seed=3)
  assert say(PROMPTS, sampler=hot) == say(PROMPTS, sampler=hot)
  assert say(PROMPTS, sampler=hot) != say(PROMPTS, sampler=dataclasses.replace(hot, seed=4))


def test_a_sampled_text_does_not_depend_on_what_shares_its_batch():
  hot = Sampler(temperature=1.0, seed=3)
  many = say([PROMPTS[0], *PROMPTS[1:4]], sampler=hot)
  assert say([PROMPTS[0]], sampler=hot)[0] == many[0]
  assert say(PROMPTS[:2], sampler=hot) == many[:2]


def test_equal_prompts_get_different_texts_also_beyond_one_batch():
  texts = say(['a bird'] * 64, n=12, sampler=Sampler(temperature=1.0))
  assert len(set(texts)) == 64


def test_temperature_draws_from_the_models_distribution():
  order, logits = likeliest()
  for temperature in (0.5, 0.25):
    p = np.exp(logits / temperature - np.logaddexp.reduce(logits / temperature))
    expected = collections.Counter()
    for token, mass in zip(order.tolist(), p.tolist(), strict=True):
      expected[TOKENIZER.decode([token])] += mass
    draws = sampled(Sampler(temperature=temperature), rounds=16)
    total = sum(draws.values())
    assert expected.most_common(5)[4][1] > 0.02
    for text, mass in expected.most_common(5):
      assert abs(draws[text] / total - mass) < 4 * np.sqrt(mass * (1 - mass) / total), text


def test_top_k_of_one_is_greedy():
  cold = Sampler(temperature=2.0, top_k=1, seed=9)
  assert say(PROMPTS, sampler=cold) == say(PROMPTS)


def test_top_k_and_top_p_draw_from_their_sets_and_from_all_of_them():
  order, logits = likeliest()
  p = np.exp(logits - np.logaddexp.reduce(logits))
  nucleus = int(np.searchsorted(np.cumsum(p), 0.3) + 1)  # the smallest set of that mass
  assert 3 < nucleus < CANDIDATES
  for sampler, size in (
    (Sampler(temperature=1.0, top_k=3), 3),
    (Sampler(temperature=1.0, top_p=0.3), nucleus),
    (Sampler(temperature=1.0, top_k=2, top_p=0.3), 2),
  ):
    allowed = {TOKENIZER.decode([t]) for t in order[:size]}
    draws = sampled(sampler, rounds=16)
    assert set(draws) <= allowed
    if size <= 3:
      assert set(draws) == allowed


def test_a_nucleus_is_of_the_whole_vocabularys_mass():
  """Nearly uniform logits: of the candidates' own mass, a tenth would be a dozen tokens."""
  flat = jax.tree.map(lambda x: x, mind().params)
  flat = {**flat, 'final_norm': {'scale': jnp.full_like(flat['final_norm']['scale'], -0.999)}}
  texts = say(
    ['a bird'] * 32, n=1, who=Mind(params=flat), sampler=Sampler(temperature=1.0, top_p=0.1)
  )
  logits = full_logits(TOKENIZER.encode('a bird', bos=True), Mind(params=flat))[-1]
  order = np.argsort(-logits)
  p = np.exp(logits[order] - np.logaddexp.reduce(logits))
  size = int(np.searchsorted(np.cumsum(p), 0.1) + 1)
  assert 80 < size < CANDIDATES
  drawn = {t for t in texts if t not in ('', '\ufffd')}
  ranks = [r for r, token in enumerate(order) if TOKENIZER.decode([int(token)]) in drawn]
  assert 40 < max(ranks) < size


@pytest.mark.parametrize('shape, k', [((3, 4096), 5), ((2, 512), 128), ((1, 300), 300)])
def test_top_candidates_are_those_of_a_full_sort(shape, k):
  logits = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
  logits[0, :7] = 9.0  # a whole crowd in one block
  values, ids = jax.jit(top_candidates, static_argnums=1)(logits, k)
  assert np.array_equal(values, -np.sort(-logits, axis=1)[:, :k])
  assert np.array_equal(np.take_along_axis(logits, np.asarray(ids), 1), values)
  assert all(len(set(row)) == k for row in np.asarray(ids).tolist())


@pytest.mark.parametrize(
  'fields', [{'temperature': -0.1}, {'top_p': 0.0}, {'top_p': 1.1}, {'top_k': -1}, {'top_k': 129}]
)
def test_an_impossible_sampler_is_refused(fields):
  with pytest.raises(ValueError, match=r'temperature is at least 0, top_p in \(0, 1\]') as e:
    Sampler(**{'temperature': 1.0, **fields})
  assert '\n' not in str(e.value) and str(next(iter(fields.values()))) in str(e.value)


# ---- Prefixes ----


def test_a_prefix_changes_no_answer():
  texts = say(PROMPTS, prefix='Some examples. ')
  assert texts == say([f'Some examples. {p}' for p in PROMPTS])


def test_a_prefix_is_computed_once_for_each_mind(monkeypatch):
  one = decoder()
  one._prefixes.clear()
  calls = []
  prefill = one._prefill
  monkeypatch.setattr(one, '_prefill', lambda p, *a, **k: calls.append(p) or prefill(p, *a, **k))
  for who in (mind(), mind(), mind(1), mind()):
    say(['x'], who=who, by=one, n=2, prefix='Before. ')
  prefixes = len(calls) - 4
  assert prefixes == 2


def test_no_mind_speaks_from_anothers_cache():
  alone = {
    seed: say(PROMPTS[:2], who=mind(seed), by=new_decoder(), prefix='P: ') for seed in (0, 1)
  }
  assert alone[0] != alone[1]
  one = new_decoder()
  for seed in (0, 1, 0, 1):
    assert say(PROMPTS[:2], who=mind(seed), by=one, prefix='P: ') == alone[seed]


def test_a_new_mind_at_a_freed_ones_address_gets_its_own_cache():
  """Python uses addresses again: keys that are only ids would answer from the dead."""
  expected = [say(['P: x'], who=mind(seed), n=8) for seed in range(3)]
  for seed in (0, 1, 2, 0, 1, 2):
    params = dict(mind(seed).params)
    assert say(['x'], who=Mind(params=params), n=8, prefix='P: ') == expected[seed]
    decoder().forget(Mind(params=params))


def test_kept_caches_are_few_and_can_be_forgotten():
  one = decoder()
  for i in range(12):
    say(['x'], by=one, n=1, prefix=f'Prefix {i}. ')
  assert len(one._prefixes) == 4
  say(['x'], by=one, who=mind(1), n=1, prefix='P: ')
  one.forget(mind())
  assert [v.params is mind(1).params for v in one._prefixes.values()] == [True]


def test_a_decoder_that_rested_keeps_nothing_and_says_the_same():
  one = new_decoder()
  before = say(['x'], by=one, prefix='P: '), one.logprobs(mind(), ['x'], ['y'], prefix='P: ')
  one.rest()
  assert not one._prefixes and not one._layers and one._embedding == (None, None)
  assert one._score._stacked == (None, None) and not one._score._kept
  again = say(['x'], by=one, prefix='P: '), one.logprobs(mind(), ['x'], ['y'], prefix='P: ')
  assert before[0] == again[0]
  np.testing.assert_array_equal(before[1][0], again[1][0])


# ---- Log-probabilities ----


def expected_logprobs(prompt, continuation, who=None, among=None):
  head, tail = TOKENIZER.encode(prompt, bos=True), TOKENIZER.encode(continuation)
  logits = full_logits(head + tail, who)[len(head) - 1 : -1]
  if among is not None:
    masked = np.full_like(logits, -np.inf)
    masked[:, among] = logits[:, among]
    logits = masked
  logp = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
  return logp[np.arange(len(tail)), tail]


def test_logprobs_are_those_of_a_full_forward():
  continuations = [' flies', ' Here, I think.', 'y', '', ' no']
  for got, prompt, continuation in zip(
    decoder().logprobs(mind(), PROMPTS, continuations), PROMPTS, continuations, strict=True
  ):
    assert np.allclose(got, expected_logprobs(prompt, continuation), atol=1e-4)
    assert len(got) == len(TOKENIZER.encode(continuation))


def test_logprobs_with_a_prefix_and_beyond_one_batch():
  prompts = [f'{"so " * (i % 4)}{i}:' for i in range(36)]
  continuations = [' yes' if i % 2 else ' never' for i in range(36)]
  got = decoder().logprobs(mind(), prompts, continuations, prefix='P. ')
  for i in (0, 7, 20, 35):
    want = expected_logprobs('P. ' + prompts[i], continuations[i])
    assert np.allclose(got[i], want, atol=1e-4)


def test_logprobs_among_a_shortlist():
  among = np.unique([*TOKENIZER.encode(' flies swims'), 40, 400])
  got = decoder().logprobs(mind(), ['a bird', 'x'], [' flies', ' swims'], shortlist=among)
  assert np.allclose(got[0], expected_logprobs('a bird', ' flies', among=among), atol=1e-4)
  assert np.allclose(got[1], expected_logprobs('x', ' swims', among=among), atol=1e-4)


# ---- Compilation ----


def test_choosing_compares_first_tokens_after_each_prompt():
  options = [' flies', ' Here', 'y']
  got = decoder().choose(mind(), PROMPTS[:3], options, prefix='P. ')
  assert got.shape == (3, 3)
  for row, prompt in zip(got, PROMPTS[:3], strict=True):
    want = [expected_logprobs('P. ' + prompt, option)[0] for option in options]
    assert np.allclose(row, want, atol=1e-4)


def test_after_warm_up_nothing_compiles():
  one = new_decoder()

  def everything(who, seed):
    for sampler in (Sampler(), Sampler(temperature=0.7 + seed, seed=seed)):
      for prompts in (['a bird'], ['a bird', 'yes', 'no way'], ['x' * 30]):
        say(prompts, who=who, by=one, n=3 + seed, sampler=sampler, prefix=f'Prefix {seed}')
    filtered = Sampler(temperature=1.0 + seed, top_k=2 + seed, top_p=0.5, seed=seed)
    list(one.stream(who, 'a bird', max_tokens=3, sampler=filtered))
    one.logprobs(who, ['a b', 'b'], ['c' * (1 + seed), ' d'], prefix=f'Prefix {seed}')

  everything(mind(), 0)
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compiled.append(event) if 'backend_compile' in event else None
  )
  traced = one.compilations
  for seed in (1, 2):
    everything(mind(seed), seed)  # other weights, lengths, seeds, knobs; the same buckets
  count = len(compiled)
  assert traced > 5 and one.compilations == traced
  assert not compiled
  jax.jit(lambda x: x * 3.25)(jnp.arange(7.0))
  assert len(compiled) > count  # the listener hears
