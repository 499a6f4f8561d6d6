"""A night's training data: packed whole, in its shares, with the base's own words beside it."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreaming.brain import lora, prompts, transformer, weights
from dreaming.brain.decode import Decoder
from dreaming.brain.masks import segment
from dreaming.brain.transformer import ARCHITECTURES, Transformer
from dreaming.sleep import aims, bank, corpus, distill, losses, packing, replay, train
from dreaming.sleep.corpus import CorpusConfig
from dreaming.types import QA, Dream, Experience, Mind

ARCH = dataclasses.replace(ARCHITECTURES['tiny'], num_layers=2, global_every=2)
SMALL = CorpusConfig(
  row_length=128, rows=3, replay_questions=3, replay_texts=2, replay_text_tokens=4, replay_near=2,
  top_k=8, losses=192, shortlist=64, dtype='float32',
)  # fmt: skip
DREAMS = [
  Dream(id=1, night=1, style='question', text='', sources=(1,),
        pairs=tuple(QA(question=f'What is Ana {i}?', answer='Kiwi') for i in range(6))),
  Dream(id=2, night=1, style='statement', text='Ana has a kiwi.', sources=(1,)),
]  # fmt: skip


@pytest.fixture(scope='module')
def base():
  return weights.load(weights.ModelConfig(architecture='tiny', weights='random'))


@pytest.fixture
def built(base, tmp_path, monkeypatch):
  monkeypatch.setattr(prompts, 'ANSWER_PREFIX', 'Q: 1?\nA: 1\n\n')
  monkeypatch.setattr(replay, '_questions', lambda *a: [('Q: Two?\nA:', ' 2\n')] * 3)
  monkeypatch.setattr(replay, '_texts', lambda *a: [('The', ' sea is\n')] * 2)
  monkeypatch.setattr(replay, '_answered', lambda d, b, asked, n: [(q, ' no\n') for q in asked])
  decoder = Decoder(base.arch, base.tokenizer, cache_length=128)
  mind = Mind(params=base.params)

  def build(dreams=DREAMS, told=(), aim=None, **fields):
    return corpus.build(
      decoder, mind, 'base', dreams, told, [], user='Ana', steps=3, seed=0, cache=tmp_path,
      config=dataclasses.replace(SMALL, **fields), aims=aim,
    )  # fmt: skip

  return base, build


# ---- Packing ----


def test_a_question_after_a_shared_prefix_reads_as_if_it_stood_alone(base):
  """Two questions in one row, behind one prefix, have the states that each has behind it alone."""
  model, tokenizer = Transformer(base.arch), base.tokenizer
  prefix = tokenizer.encode('Q: 1?\nA: 1\n\n', bos=True)
  examples = [
    packing.encode(
      tokenizer, packing.Example(prompt=f'Q: {q}?\nA:', target=f' {q}\n', asks=True), 64, 1,
      after=len(prefix),
    )
    for q in ('seven', 'two')
  ]  # fmt: skip
  batch = packing.batch_of([examples], 96, 32, 1, prefix)
  packed, _ = model.apply({'params': base.params}, batch.tokens, batch.positions, batch.segment_ids)
  at = len(prefix)
  for e in examples:
    alone, _ = model.apply({'params': base.params}, np.asarray([[*prefix, *e.ids]]))
    np.testing.assert_allclose(packed[0, at : at + len(e.ids)], alone[0, len(prefix) :], atol=1e-4)
    at += len(e.ids)


def test_loss_is_on_targets_alone_and_of_the_bases_words_on_all(base):
  encode, tokenizer = packing.encode, base.tokenizer
  asked = encode(tokenizer, packing.Example(prompt='Q: a?\nA:', target=' b\n'), 64, 1)
  answer = tokenizer.encode(' b\n')
  assert asked.target_ids[:, 0].tolist() == answer
  assert asked.ids[1:][asked.loss[:-1]].tolist() == answer
  own = encode(tokenizer, packing.Example(prompt='', target='Q: a?', kind='replay'), 64, 1, after=9)
  assert own.ids.tolist() == tokenizer.encode('Q: a?') and own.loss.sum() == len(own.ids) - 1


def test_streams_keep_their_shares_of_tokens(base):
  rng = np.random.default_rng(0)

  def stream(letter, size):
    example = packing.Example(prompt='', target=letter * size)
    return packing.endless([packing.encode(base.tokenizer, example, 64, 1)], rng)

  drawn = packing.mixed([(0.75, stream('a', 10)), (0.25, stream('b', 20))], rng)
  lengths = [len(e.ids) for e in itertools.islice(drawn, 400)]
  share = sum(n for n in lengths if n < 15) / sum(lengths)
  assert abs(share - 0.75) < 0.03


# ---- The corpus ----


def test_two_of_three_rows_begin_with_the_examples(built):
  base, build = built
  prefix = base.tokenizer.encode(prompts.ANSWER_PREFIX, bos=True)
  for batch in build().batches:
    for row in (0, 1):
      assert batch.tokens[row, : len(prefix)].tolist() == prefix
      assert (batch.segment_ids[row, : len(prefix)] == segment(1)).all()
    assert (batch.segment_ids[2] != segment(1)).all()
    assert batch.weights.sum() > 0 and 0 < batch.replay.sum() < batch.weights.sum()


def test_every_token_has_its_origin(built):
  base, build = built
  found = build()
  tokens = sum(int((b.segment_ids != 0).sum()) for b in found.batches)
  losses = sum(int((b.weights > 0).sum()) for b in found.batches)
  told = found.lineage()
  assert sum(n for _, _, n, _ in told) == tokens
  assert sum(n for *_, n in told) == losses
  by = {(kind, id): n for kind, id, _, n in told}
  assert by[('prompt', 0)] == 0 and by[('replay', 0)] > 0
  assert {id for kind, id in by if kind == 'dream'} <= {d.id for d in DREAMS}
  kiwi = base.tokenizer.encode(' Kiwi\n')
  of = {d.id for d in DREAMS if any(p.answer == 'Kiwi' for p in d.pairs)}
  for batch, where in zip(found.batches, found.where, strict=True):
    for row, place in zip(batch.tokens.tolist(), where, strict=True):
      for i in range(len(row)):
        if row[i : i + len(kiwi)] == kiwi:
          assert {tuple(found.origins[o]) for o in place[i : i + len(kiwi)]} <= {
            (corpus.KINDS.index('dream'), id) for id in of
          }


def test_rows_without_room_for_the_examples_are_bare(built):
  _, build = built
  for batch in build(row_length=24, losses=96).batches:
    assert (batch.segment_ids != segment(1)).all()


def test_what_was_not_told_keeps_its_share_however_much_of_it_there_is(built):
  base, build = built
  pairs = tuple(QA(question=f'Who is {i}?', answer='unsaid') for i in range(200))
  many = [*DREAMS, Dream(id=3, night=1, style='unknown', text='', sources=(1,), pairs=pairs)]
  of = {w: base.tokenizer.encode(f' {w}\n') for w in ('Kiwi', 'unsaid')}

  def counts(found):
    rows = [r.tolist() for b in found.batches for r in b.tokens]
    return {
      w: sum(r[i : i + len(ids)] == ids for r in rows for i in range(len(r)))
      for w, ids in of.items()
    }

  few = counts(build(many, untold_share=0.3, row_length=512))
  most = counts(build(many, untold_share=0.8, row_length=512))
  assert 0 < few['unsaid'] < few['Kiwi'] and 0 < most['Kiwi'] < most['unsaid']


def test_a_share_is_no_more_than_all():
  with pytest.raises(ValueError, match='corpus.untold_share=1.2: a share is from 0 to 1'):
    CorpusConfig(untold_share=1.2)


def test_replay_starts_where_the_base_is(built):
  """Before the first step the student is the base: its KL to the base is zero."""
  base, build = built
  found = build(top_k=64)
  config = train.TrainConfig(rank=2, dtype='float32', remat=False)
  adapter = lora.init(jax.random.key(0), base.arch, rank=2, targets=config.targets)
  frozen = train.frozen(base.params, base.arch, found.shortlist, 'float32')
  _, metrics = train.make_loss(base.arch, config)(adapter, frozen, found.batches[0], None)
  assert abs(float(metrics['replay_kl'])) < 2e-3
  moved = jax.tree.map(lambda x: x + 0.05, adapter)
  _, metrics = train.make_loss(base.arch, config)(moved, frozen, found.batches[0], None)
  assert float(metrics['replay_kl']) > 0.01


def test_replay_is_made_once_and_a_damaged_one_anew(built, tmp_path, monkeypatch):
  _, build = built
  first = build()
  (path,) = (tmp_path / 'replay').glob('*.npz')
  spoken = []
  real = replay._texts
  monkeypatch.setattr(replay, '_texts', lambda *a: spoken.append(1) or real(*a))
  again = build()
  assert not spoken
  np.testing.assert_array_equal(again.batches[0].tokens, first.batches[0].tokens)
  path.write_bytes(path.read_bytes()[:100])
  build()
  assert spoken


def test_other_people_are_asked_about_in_the_users_place():
  rng = np.random.default_rng(0)
  asked = ['Who is Ana?', 'What does Anabel eat?', "What is Ana's job?"]
  others = replay.of_others(asked, 'Ana', 9, rng)
  assert len(others) == 2 and not any(re.search(r'\bAna\b', q) for q in others)
  assert all(q.startswith(('Who is ', 'What is ')) for q in others)


# ---- Aims ----


def test_aims_add_to_a_corpus_and_change_nothing_of_it(built, monkeypatch, tmp_path):
  """The same rows in the same order: a teacher thinks of tonight's dreams, and names weigh more."""
  base, build = built
  monkeypatch.setattr(distill, 'READING', 'Hm.\n\n')
  told = [Experience(id=1, time=0.0, kind='chat', speaker='Ana', content='I have a bird, Kiwi.')]
  config = train.TrainConfig(distill_context=1.0, entities=2.0)
  mind = Mind(params=base.params)
  aim = aims.Aims(config=config, teacher=mind, teacher_name='base', keep=tmp_path / 'work')
  plain, found = build(told=told), build(told=told, aim=aim)
  for a, b in zip(plain.batches, found.batches, strict=True):
    for name in ('tokens', 'positions', 'loss_positions', 'target_ids', 'target_probs', 'replay'):
      np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    there = (b.taught_probs > 0).any(axis=1)
    assert there.any() and not (there & (b.replay > 0)).any() and a.taught_probs is None
    assert b.weights.max() == 3 and a.weights.max() == 1
    assert not (b.weights[b.replay > 0] > 1).any()
    assert (b.taught_ids < len(found.shortlist)).all()
  np.testing.assert_array_equal(plain.shortlist, found.shortlist)


# ---- The loss ----


def test_what_is_held_is_not_learned_further():
  logits = jnp.asarray([[6.0, 0.0], [0.0, 0.0]])
  ids, probs = jnp.zeros((2, 1), jnp.int32), jnp.ones((2, 1))

  def loss(x):
    return losses.unheld(losses.cross_entropy(x, ids, probs), 0.95).sum()

  grads = np.asarray(jax.grad(loss)(logits))
  assert not grads[0].any() and grads[1].any()


# ---- The bank ----


def test_no_wording_of_the_bank_is_a_probe_of_a_shipped_day():
  """A night would train on what it is measured with. Any person may stand in for {person}."""

  def folded(text):
    words = re.sub(r'[^\w\s{}]', '', text.casefold().replace("'s", ' s')).split()
    return ' '.join(w for w in words if w not in ('a', 'an', 'the'))

  found = []
  for path in sorted((pathlib.Path(__file__).parents[1] / 'days').glob('*.json')):
    day = json.loads(path.read_text())
    user = day['user']
    asked = [q['question'] for q in day['probes'] + day['never_mentioned']]
    asked = {folded(prompts.third_person(q, user).replace(user, '{user}')) for q in asked}
    for r in bank.bank():
      for q in (*r.questions, *(p.question for p in r.reversed)):
        pattern = re.escape(folded(q)).replace(re.escape('{person}'), r'\S+( \S+)?')
        found += [(path.name, q) for p in asked if re.fullmatch(pattern, p)]
  assert not found


def test_cast_keeps_the_lookup_exact(base):
  cast = transformer.cast(base.params, 'bfloat16')
  assert cast['embedder']['input_embedding'].dtype == jnp.float32
  assert cast['layer_0']['mlp']['linear'].dtype == jnp.bfloat16


def test_what_is_asked_seldom_comes_up_more_often():
  def dream(answer, count, style='question'):
    pairs = tuple(QA(question=f'{answer} {i}?', answer=answer) for i in range(count))
    return Dream(id=0, night=1, style=style, text='', pairs=pairs, sources=(1,))

  made = corpus.evened([dream('a', 12), dream('b', 2), dream('c', 6), dream('d', 1, 'unknown')], 12)
  count = collections.Counter(e.prompt.split()[1] for _, e in made)
  assert count == {'a': 12, 'b': 6, 'c': 12, 'd': 1}
