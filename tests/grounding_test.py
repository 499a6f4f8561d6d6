"""What a dream may say: nothing that its source does not have."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from dreaming.brain import weights
from dreaming.brain.tokenizer import Tokenizer
from dreaming.brain.transformer import ARCHITECTURES
from dreaming.sleep import emphasis, grounding, packing
from dreaming.sleep.grounding import Claim
from dreaming.types import QA, Experience

PAIRS = pathlib.Path(__file__).parents[1] / 'benchmarks' / 'grounding.json'
SOURCE = 'My sister Ana moved to Lyon on the 3rd of May with two cats.'


def claim(text='', pair=None, source=SOURCE):
  return Claim(user='Kim', sources=(source,), text=text, pair=pair)


@pytest.fixture(scope='module')
def tokenizer():
  return Tokenizer(weights._byte_proto(ARCHITECTURES['tiny'].vocab_size))


class Reader:
  """A base that finds each word likely that the prompt has, and dreams more likely with 'Ana'."""

  arch = ARCHITECTURES['tiny']

  def __init__(self, tokenizer):
    self.tokenizer, self.rows = tokenizer, []

  def logprobs(self, mind, prompts, continuations, *, prefix, shortlist):
    self.rows += list(zip(prompts, continuations, strict=True))
    out = []
    for prompt, text in self.rows[-len(prompts) :]:
      known = [w.strip('.') in prompt for w in text.split(' ')]
      words = zip(text.split(' '), known, strict=True)
      sizes = [(len(w.encode()) + (i > 0), ok) for i, (w, ok) in enumerate(words)]
      out.append(np.concatenate([np.full(n, -1.0 if ok else -3.0) for n, ok in sizes]))
      assert len(out[-1]) == len(self.tokenizer.encode(text))
      assert {*self.tokenizer.encode(text)} <= {*shortlist.tolist()}
    return out


# ---- Names and numbers ----


@pytest.mark.parametrize(
  ('text', 'invented'),
  [
    ('Ana moved to Lyon.', []),
    ('Ana has 2 cats.', []),
    ('Kim has a sister, Ana.', []),
    ('Ana moved to Paris.', ['Paris']),
    ('Ana moved on the 5th of May.', ['the 5th of May']),
    ('Ana has seven cats.', ['seven']),
    ('Leo moved to Lyon in May.', ['Leo']),
  ],
)
def test_names_and_numbers_are_those_of_the_source(text, invented):
  assert grounding.missing(claim(text)) == invented


def test_a_question_is_looked_at_with_its_answer():
  assert grounding.missing(claim(pair=QA(question='Where is Ana?', answer='Lyon'))) == []
  assert grounding.missing(claim(pair=QA(question='Where is Ana?', answer='Rome'))) == ['Rome']


def test_a_denial_has_to_come_from_somewhere():
  assert grounding._denies(claim('Ana did not move.'))
  assert grounding._denies(claim('Ana never swims.'))
  assert not grounding._denies(claim('Ana cannot', source='x')) and not grounding._denies(
    claim('Ana never swims.', source="Ana doesn't swim.")
  )


def test_names_are_exchanged_for_others_of_their_kind():
  said = {v.text for v in grounding._swapped(claim('Ana moved to Lyon.'))}
  assert 'Kim moved to Lyon.' in said and 'Lyon moved to Lyon.' in said
  assert not any('May' in s for s in said)  # a date is no person


# ---- Likelihoods ----


def test_what_the_source_makes_likely_scores_higher(tokenizer):
  reader = Reader(tokenizer)
  told, added, asked = grounding.features(
    reader, None,
    [claim('Ana moved to Lyon.'), claim('Ana moved to Lyon because of heartache.'),
     claim(pair=QA(question='Who lives elsewhere?', answer='Ana'))],
  )  # fmt: skip
  assert told['gain'] > added['gain'] and told['score'] > added['score']
  assert told['new'] == 0 < added['new'] and asked['new'] == 0  # a question may ask in new words
  assert told.keys() == {*grounding.WEIGHTS, 'missing', 'denial'}
  assert any('Hello' in prompt for prompt, _ in reader.rows)


class Schooled:
  """Believes what the message has word for word, and half of it elsewhere."""

  def believed(self, users, texts, asked, said):
    assert set(users) == {'Kim'} and len(texts) == len(asked) == len(said)
    self.asked = asked
    return np.asarray([-0.5 if s in t else -4.0 for t, s in zip(texts, said, strict=True)])


def test_who_was_at_school_judges_in_the_place_of_the_base():
  reader = Schooled()
  claims = [claim('Ana moved to Lyon'), claim('Ana likes cats'),
            claim(pair=QA(question='Where to?', answer='Lyon'))]  # fmt: skip
  told, added, asked = grounding.features(None, None, claims, reader)
  assert (told['score'], told['gain']) == (-0.5, 3.0) and (added['score'], added['gain']) == (-4, 0)
  assert told.keys() == {*grounding.READER_WEIGHTS, 'missing', 'denial'}
  assert asked['score'] == -0.5 and reader.asked == [None, None, 'Where to?']
  good, bad, answer = grounding.probabilities(None, None, claims, reader)
  assert good > 0.74 > bad and answer > 0.74


@pytest.mark.parametrize(
  ('text', 'astray'),
  [
    ('Ana moved to Lyon.', False),
    ('Kim moved to Lyon with two cats.', True),
  ],
)
def test_who_did_it_is_told_by_who_stands_before_it(text, astray):
  assert (grounding._astray(claim(text, source=SOURCE)) > 0.5) == astray


def test_who_is_answered_in_the_place_of_who():
  right, wrong = (claim(pair=QA(question='Who moved to Lyon?', answer=a)) for a in ('Ana', 'Kim'))
  assert grounding._astray(right) == 0 < grounding._astray(wrong)


def test_rules_forbid_whatever_the_likelihoods_say():
  good = {**dict.fromkeys(grounding.WEIGHTS, 1.0), 'new': 0.0, 'astray': 0.0}
  assert grounding.odds({**good, 'missing': 0.0, 'denial': 0.0}) > 0
  for rule in ('missing', 'denial'):
    assert grounding.odds({**good, 'missing': 0.0, 'denial': 0.0, rule: 1.0}) == -np.inf


def test_probabilities_follow_the_odds(tokenizer):
  reader = Reader(tokenizer)
  good, bad = grounding.probabilities(
    reader, None, [claim('Ana moved to Lyon.'), claim('Leo never moved to Paris with nine dogs.')]
  )
  assert 0 == bad < good < 1


def test_words_are_found_in_tokens(tokenizer):
  text = ' Ana lives.'
  for word, first, end in emphasis._words(tokenizer, text):
    assert word in tokenizer.decode(tokenizer.encode(text)[first:end])


# ---- Training ----


def test_names_of_the_source_weigh_more(tokenizer):
  told = {1: Experience(id=1, time=0.0, kind='chat', speaker='Kim', content=SOURCE)}
  example = packing.Example(prompt='', target='In Lyon now.\n', sources=(1,))
  encoded = packing.encode(tokenizer, example, 64, 1)
  found = emphasis.emphasised(tokenizer, example, encoded, told, 2.0)
  ids = encoded.target_ids[:, 0].tolist()
  heavy = tokenizer.decode([i for i, w in zip(ids, found.emphasis, strict=True) if w == 3])
  assert heavy.strip() == 'Lyon'
  batch = packing.batch_of([[found]], 64, 64, 1)
  assert batch.weights.sum() == len(ids) + 2 * len(heavy)
  plain = packing.Example(prompt='', target='It rains.\n', sources=(1,))
  encoded = packing.encode(tokenizer, plain, 64, 1)
  assert emphasis.emphasised(tokenizer, plain, encoded, told, 2.0) is encoded


# ---- The pairs ----


def test_pairs_are_two_halves_of_different_messages():
  pairs = json.loads(PAIRS.read_text(encoding='utf-8'))
  halves = {s: [p for p in pairs if p['split'] == s] for s in ('dev', 'test')}
  for half in halves.values():
    assert len(half) == 100 and sum(p['grounded'] for p in half) == 50
  assert not {p['source'] for p in halves['dev']} & {p['source'] for p in halves['test']}
  assert not {p['user'] for p in halves['dev']} & {p['user'] for p in halves['test']}
  assert all(bool(p.get('text')) != bool(p.get('question')) for p in pairs)
