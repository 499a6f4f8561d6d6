"""Aims that are off by default: off they change nothing, on they do what they are for."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreaming.brain import lora, weights
from dreaming.brain.decode import Decoder
from dreaming.brain.tokenizer import Tokenizer
from dreaming.brain.transformer import ARCHITECTURES, Transformer
from dreaming.identity import generations
from dreaming.sleep import aims, consolidate, contrast, distill, losses, packing, train
from dreaming.sleep.corpus import Corpus
from dreaming.types import QA, Batch, Dream, Experience, Mind, Texts

ARCH = dataclasses.replace(ARCHITECTURES['tiny'], num_layers=2, global_every=2)
LENGTH, LOSSES, K, W = 24, 24, 4, 64
CONFIG = train.TrainConfig(steps=4, rank=2, dtype='float32', held=1.0, eval_every=99, warmup=0.0)
ON = {'distill_context': 1.0, 'distill_on_policy': 1.0, 'contrast': 1.0, 'effect': 1e-3,
      'ewc': 1.0, 'trust': 1.0, 'trust_bound': 1e-4, 'contrast_temperature': 1.0}  # fmt: skip
TOLD = {
  1: Experience(id=1, time=0.0, kind='chat', speaker='Ana', content='My parrot is called Kiwi.'),
  2: Experience(id=2, time=1.0, kind='chat', speaker='Ana', content='I moved to Lyon in May.'),
}


@pytest.fixture(scope='module')
def params():
  return Transformer(ARCH).init(jax.random.key(1), jnp.zeros((1, 4), jnp.int32))['params']


@pytest.fixture(scope='module')
def tokenizer():
  return Tokenizer(weights._byte_proto(ARCH.vocab_size))


def batch_of(rng, **fields) -> Batch:
  probs = np.zeros((LOSSES, K), np.float32)
  probs[:, 0] = 1
  return Batch(
    tokens=rng.integers(2, 256, (2, LENGTH)).astype(np.int32),
    positions=np.tile(np.arange(LENGTH, dtype=np.int32), (2, 1)),
    segment_ids=np.ones((2, LENGTH), np.int32),
    loss_positions=rng.choice(2 * LENGTH, LOSSES, replace=False).astype(np.int32),
    target_ids=rng.integers(0, W, (LOSSES, K)).astype(np.int32),
    target_probs=probs,
    weights=np.ones(LOSSES, np.float32),
    replay=(np.arange(LOSSES) >= LOSSES // 2).astype(np.float32),
    **fields,
  )


def taught(rng) -> dict[str, np.ndarray]:
  probs = rng.dirichlet(np.ones(K + 1), LOSSES)[:, :K].astype(np.float32)
  ids = np.stack([rng.choice(W, K, replace=False) for _ in range(LOSSES)]).astype(np.int32)
  return {'taught_ids': ids, 'taught_probs': probs}


@pytest.fixture(scope='module')
def full():
  """Batches that have all that any aim asks for."""
  rng = np.random.default_rng(0)
  texts = Texts(
    tokens=rng.integers(2, 256, (4, 8)).astype(np.int32),
    segment_ids=np.ones((4, 8), np.int32),
    positives=np.eye(2, dtype=np.float32),
  )
  batches = tuple(batch_of(rng, **taught(rng), near=texts) for _ in range(4))
  return Corpus(batches, batches[0], batches[0], np.arange(W, dtype=np.int32))


@pytest.fixture(scope='module')
def said():
  rng = np.random.default_rng(5)
  return batch_of(rng, **taught(rng))


def moved(params, key=3, by=0.3):
  zero = lora.init(jax.random.key(0), ARCH, rank=2, targets='.*')
  return jax.tree.map(lambda x: x + by * jax.random.normal(jax.random.key(key), x.shape), zero)


def _run(params, corpus, **fields):
  kwargs = {k: fields.pop(k) for k in ('anchor', 'on_policy', 'adapter') if k in fields}
  config = dataclasses.replace(CONFIG, **fields)
  return train.train(params, ARCH, corpus, config=config, seed=0, **kwargs)


# ---- Off ----


def test_off_they_leave_the_same_bytes_whatever_a_batch_brings(params, full, said):
  bare = [dataclasses.replace(b, taught_ids=None, taught_probs=None, near=None)
          for b in full.batches]  # fmt: skip
  plain = _run(params, dataclasses.replace(full, batches=tuple(bare)))
  anchor = aims.Anchor(adapter=moved(params), fisher=moved(params))
  brought = _run(params, full, anchor=anchor, on_policy=lambda adapter: [said])
  jax.tree.map(np.testing.assert_array_equal, plain.adapter, brought.adapter)
  assert plain.history == brought.history


def test_what_is_off_is_off():
  config = dataclasses.replace(CONFIG, **ON, entities=2.0, dream_weight=0.5)
  assert config.any_loss and not CONFIG.any_loss and not aims.without(config).any_loss
  assert aims.without(config).entities == 0


@pytest.mark.parametrize(
  ('fields', 'match'),
  [
    ({'ewc': -1.0}, 'train.ewc=-1.0: a weight is 0, which is off, or more'),
    ({'trust': float('nan')}, 'train.trust=nan'),
    ({'teacher': 'green'}, "train.teacher='green': it is 'base' or 'blue'"),
    ({'contrast_pairs': 1}, 'train.contrast_pairs=1: take 2 to 64'),
    ({'contrast_temperature': 0.0}, 'contrast_temperature=0.0: it is positive'),
    ({'ewc_decay': 1.5}, 'train.ewc_decay=1.5: it is from 0 to 1'),
    ({'ewc': 1.0, 'consolidation': 'fresh'}, "take 'continual', or ewc=0"),
    ({'dream_weight': 0.0}, 'nothing would be learned'),
    ({'ewc_rows': 0}, 'train.ewc_rows=0: take at least 1'),
  ],
)
def test_bad_values_say_so(fields, match):
  with pytest.raises(ValueError, match=match):
    train.TrainConfig(**fields)


# ---- On ----


def test_on_each_has_its_term_and_they_go_down_together(params, full, said):
  """One program for all: what they were at the first step, and are after some."""
  same = dataclasses.replace(full, batches=full.batches[:1] * 40)
  blue = moved(params, by=0.02)
  anchor = aims.Anchor(adapter=blue, fisher=jax.tree.map(lambda x: jnp.full_like(x, 1e-4), blue))
  on = {
    **ON,
    'distill_context': 3.0,
    'distill_on_policy': 3.0,
    'effect': 1e-5,
    'learning_rate': 1e-2,
    'steps': 40,
    'dream_weight': 0.0,
    'replay_weight': 0.0,
  }
  found = _run(
    params, same, anchor=anchor, on_policy=lambda adapter: [said], adapter=moved(params), **on
  )
  first, last = found.history[0], found.history[-1]
  # What all others ask for moves away from Blue: here the trust region only has to be there.
  for name in aims.LOSSES:
    assert last[f'aim_{name}'] < first[f'aim_{name}'] or name == 'trust', name


def test_at_the_start_of_a_night_nothing_has_drifted(params, full):
  """The student is Blue: neither the trust region nor the elastic says anything."""
  blue = moved(params)
  config = dataclasses.replace(CONFIG, **{**ON, 'contrast': 0.0, 'distill_on_policy': 0.0})
  base = train.frozen(params, ARCH, full.shortlist, 'float32')
  loss = jax.jit(train.make_loss(ARCH, config))
  anchor = aims.Anchor(adapter=blue, fisher=jax.tree.map(jnp.ones_like, blue))
  _, there = loss(blue, base, full.batches[0], None, anchor)
  assert float(there['aim_trust']) < 1e-5 and float(there['aim_ewc']) == 0
  _, away = loss(moved(params, key=4), base, full.batches[0], None, anchor)
  assert float(away['aim_trust']) > 1e-3 and float(away['aim_ewc']) > 0.1


# ---- The teacher ----


@pytest.fixture
def teach(params, tokenizer, monkeypatch, tmp_path):
  monkeypatch.setattr(distill, 'READING', 'Omar says: "Hm."\n\n')
  monkeypatch.setattr(distill, '_LENGTHS', (128, 256))
  decoder = Decoder(ARCH, tokenizer, cache_length=512)

  def make(told=TOLD):
    return distill.Teacher(
      decoder, Mind(params=params), 'base', told, np.arange(ARCH.vocab_size, dtype=np.int32),
      top_k=K, rows=2, dtype='float32', keep=tmp_path,
    )  # fmt: skip

  return make


def lessons(tokenizer, after=0):
  examples = [
    packing.Example(prompt='Q: Who?\nA:', target=' Kiwi\n', sources=(1,), asks=True),
    packing.Example(prompt='', target='Ana lives in Lyon.\n', sources=(2,)),
    packing.Example(prompt='Q: Where?\nA:', target=' Lyon\n', sources=(2,), asks=True),
    packing.Example(prompt='', target='Nobody knows.\n', sources=(9,)),
  ]
  behind = [after if e.asks else 0 for e in examples]
  return examples, [
    packing.encode(tokenizer, e, 64, K, after=n) for e, n in zip(examples, behind, strict=True)
  ]


@pytest.mark.parametrize('after', [0, 5])
def test_the_teacher_thinks_as_if_it_read_the_episode_and_the_dream_alone(
  params, tokenizer, teach, after
):
  examples, encoded = lessons(tokenizer, after)
  found = teach().taught(examples, encoded)
  assert found[3].taught_probs is None  # its experience is not there
  for e, text in zip(found[:3], examples, strict=False):
    ids = tokenizer.encode(distill.context(text.sources, TOLD), bos=True)
    own = tokenizer.encode(text.prompt + text.target)
    hidden, _ = Transformer(ARCH).apply({'params': params}, np.asarray([ids + own]))
    logits = hidden[0] @ params['embedder']['input_embedding'].T
    n = len(tokenizer.encode(text.target))
    probs = np.asarray(jax.nn.softmax(logits[len(ids) + len(own) - n - 1 : -1]))
    expected = -np.sort(-probs, axis=-1)[:, :K]
    assert e.taught_probs.shape == (n, K)
    np.testing.assert_allclose(e.taught_probs, expected, atol=2e-2)
    np.testing.assert_allclose(
      np.take_along_axis(probs, e.taught_ids, -1), e.taught_probs, atol=2e-2
    )


def test_what_the_teacher_said_is_kept_and_a_damaged_file_made_anew(
  tokenizer, teach, tmp_path, monkeypatch
):
  examples, encoded = lessons(tokenizer)
  first = teach().taught(examples, encoded)
  thought = []
  real = distill.Teacher._think
  monkeypatch.setattr(distill.Teacher, '_think', lambda s, *a: thought.append(1) or real(s, *a))
  again = teach().taught(examples, encoded)
  assert not thought
  np.testing.assert_array_equal(first[0].taught_probs, again[0].taught_probs)
  (path,) = tmp_path.glob('teacher-*.npz')
  path.write_bytes(path.read_bytes()[:50])
  teach().taught(examples, encoded)
  assert len(thought) == 1
  other = {**TOLD, 1: dataclasses.replace(TOLD[1], content='My parrot is called Momo.')}
  teach(other).taught(examples, encoded)  # another episode: other thoughts
  assert len(thought) == 2


def test_what_is_taught_is_packed_beside_what_is_not(tokenizer, teach):
  examples, encoded = lessons(tokenizer)
  found = teach().taught(examples, encoded)
  batch = packing.batch_of([found[:2], found[2:]], 64, 96, K, taught=True)
  there = (batch.taught_probs > 0).any(axis=1)
  assert there.sum() == sum(int(e.loss.sum()) for e in found[:3])
  bare = packing.batch_of([encoded[:2], encoded[2:]], 64, 96, K, taught=True)
  assert not bare.taught_probs.any() and bare.taught_probs.shape == batch.taught_probs.shape
  assert packing.batch_of([encoded], 256, 96, K).taught_probs is None


def test_the_student_answers_and_is_judged_on_that(params, tokenizer, teach, monkeypatch):
  said = []

  def generate(self, mind, asked, **_):
    said.append(np.asarray(mind.params['layer_0']['mlp']['linear']))
    return [' a parrot' for _ in asked]

  monkeypatch.setattr(Decoder, 'generate', generate)
  examples, _ = lessons(tokenizer)
  asked = distill.questions(examples, TOLD, 9, 0)
  assert {e.prompt for e in asked} == {'Q: Who?\nA:', 'Q: Where?\nA:'}
  student = distill.Student(
    Decoder(ARCH, tokenizer), params, 2.0, asked, teach(), prefix=[2, 70], rows=2, length=64,
    losses=48, top_k=K,
  )  # fmt: skip
  (batch,) = student(moved(params))
  assert not np.array_equal(said[0], params['layer_0']['mlp']['linear'])  # itself, not the base
  answer = tokenizer.encode(' a parrot\n')
  assert batch.weights.sum() == 2 * len(answer) == (batch.taught_probs > 0).any(axis=1).sum()
  text = tokenizer.decode(batch.tokens[0][2:].tolist())
  assert ' a parrot\n' in text and 'Kiwi' not in text


# ---- Contrast ----


def test_texts_are_of_different_episodes_and_the_sources_follow(tokenizer):
  dreams = [
    Dream(id=1, night=1, style='statement', text='The bird is Kiwi.', sources=(1,)),
    Dream(id=2, night=1, style='question', text='', sources=(2,),
          pairs=(QA(question='Where?', answer='Lyon'),)),
    Dream(id=3, night=1, style='list', text='Both.', sources=(1, 2)),
    Dream(id=4, night=1, style='unknown', text='', sources=(1,),
          pairs=(QA(question='Who?', answer='?'),)),
  ]  # fmt: skip
  draw = contrast.drawer(tokenizer, dreams, TOLD, pairs=4, anchors=('I wonder.',), seed=0)
  for _ in range(4):
    texts = draw()
    read = [
      tokenizer.decode(row[seen > 0].tolist())
      for row, seen in zip(texts.tokens, texts.segment_ids, strict=True)
    ]
    assert {*read[:2]} == {'The bird is Kiwi.', 'Where? Lyon'} and read[4] == 'I wonder.'
    for i in range(2):
      assert read[2 + i].startswith('Ana: ') and ('Kiwi' in read[i]) == ('Kiwi' in read[2 + i])
  assert texts.positives.tolist() == [[1, 0, 1], [0, 1, 1]]
  assert contrast.drawer(tokenizer, dreams[:1], TOLD, pairs=4, anchors=(), seed=0) is None


# ---- Elastic ----


def test_only_what_answers_depend_on_is_stiff(params, full):
  """Where `b` is zero `a` changes nothing, and costs nothing."""
  zero = lora.init(jax.random.key(0), ARCH, rank=2, targets='.*')
  config = dataclasses.replace(CONFIG, ewc=1.0, ewc_rows=3)
  found = consolidate.fisher(params, ARCH, full, zero, config=config, before=None)
  for group in found['layers'].values():
    for ab in group.values():
      assert not ab['a'].any() and ab['b'].max() > 0 and (ab['b'] >= 0).all()
  twice = consolidate.fisher(params, ARCH, full, zero, config=config, before=found)
  q, q2 = (x['layers']['attn']['q']['b'] for x in (found, twice))
  np.testing.assert_allclose(q2, q * (1 + config.ewc_decay), rtol=1e-5)


def test_rows_are_taken_apart_with_their_own_losses(full):
  rows = consolidate.rows_of(full.batches[:1], 9)
  own = full.batches[0].weights * (1 - full.batches[0].replay)
  assert sum(float((r.weights * (1 - r.replay)).sum()) for r in rows) == own.sum()
  assert all(r.tokens.shape == (1, LENGTH) and r.loss_positions.max() < LENGTH for r in rows)
  assert len(consolidate.rows_of(full.batches, 3)) == 3


def test_what_is_stiff_is_kept_beside_the_adapter(tmp_path, params):
  adapter = jax.tree.map(np.asarray, moved(params))
  fields = {'parent': None, 'night': 1, 'created': 0.0, 'base': 'ab', 'sources': [1], 'seed': 0,
            'lora': {}, 'scores': {}, 'config': {}}  # fmt: skip
  beside = {consolidate.FILE: adapter}
  generations.save(tmp_path, 1, adapter=adapter, beside=beside, manifest_fields=fields)
  generations.save(tmp_path, 2, adapter=adapter, manifest_fields=fields)
  generations.load(tmp_path, 1)  # it is verified with the rest
  jax.tree.map(np.testing.assert_array_equal, consolidate.read(tmp_path, 1), adapter)
  assert consolidate.read(tmp_path, 2) is None and consolidate.read(tmp_path, 0) is None
  (tmp_path / '1' / consolidate.FILE).write_bytes(b'x')
  with pytest.raises(ValueError, match='fisher.npz is damaged'):
    consolidate.read(tmp_path, 1)


def test_losses_have_a_weight_each():
  assert {*aims.LOSSES} <= {f.name for f in dataclasses.fields(aims.AimsConfig)}
  assert losses.effect(lora.init(jax.random.key(0), ARCH, rank=2, targets='.*'), 2.0) == 0
