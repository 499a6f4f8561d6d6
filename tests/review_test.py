"""A night waits for its review: nothing counts before, and what was decided counts then."""

from __future__ import annotations

import dataclasses
import types

import pytest

from benchmarks import toys
from dreaming import reviewing
from dreaming.memory.diary import Diary
from dreaming.sleep import review, trigger
from dreaming.types import QA, Dream, Quality, Status
from tests import night_test

CONFIG = dataclasses.replace(
  night_test.CONFIG, review=review.ReviewConfig(dreams=True, generations=True)
)
make_life, base, life = night_test.make_life, night_test.base, night_test.life


@pytest.fixture
def slept(life):
  """A life whose night waits with its dreams."""
  life.ids = life.talk(*(content for content, _, _ in night_test.FACTS))
  life.outcome = life.sleep(CONFIG)
  return life


def steps(life):
  return set(life.diary.night(1).payloads)


def test_a_night_waits_twice_and_then_serves(slept):
  diary = slept.diary
  assert slept.outcome.state == 'waiting' and slept.outcome.code == 3
  assert steps(slept) == {'select', 'dream', 'waiting'} and diary.open_night() == 1
  assert review.waiting(diary) == review.Waiting(night=1, point='dreams')
  assert slept.sleep(CONFIG).state == 'waiting'  # asking again changes nothing
  review.go_on(diary, 'Ana')
  assert review.waiting(diary) is None  # it is not over, and waits for nobody
  assert slept.sleep(CONFIG).state == 'waiting'
  assert review.waiting(diary).point == 'generations' and diary.active() == 0
  assert diary.experiences(unconsumed=True)
  review.go_on(diary, 'Ana')
  assert slept.sleep(CONFIG).promoted and diary.active() == 1
  assert diary.night(1).payloads['review generations']['by'] == 'Ana'
  with pytest.raises(ValueError, match='nothing waits'):
    review.go_on(diary, 'Ana')


def test_what_is_rejected_does_not_train(slept, monkeypatch):
  statements = [d for d in slept.diary.dreams(1) if d.style == 'statement']
  review.decide(slept.diary, [statements[0].id], keep=False)
  review.decide(slept.diary, [statements[1].id], text='Priya: I am moving to Lille.')
  trained = []

  def build(decoder, mind, digest, dreams, *args, **kwargs):
    trained.extend(d.text for d in dreams)
    return toys.lessons(decoder, mind, digest, dreams, *args, **kwargs)

  monkeypatch.setattr('dreaming.sleep.corpus.build', build)
  review.go_on(slept.diary, 'Ana')
  slept.sleep(CONFIG)
  assert trained == ['Priya: I am moving to Lille.', statements[2].text]
  with pytest.raises(ValueError, match='no dreams wait'):  # too late
    review.decide(slept.diary, [statements[2].id], keep=False)


def test_a_night_of_which_all_was_rejected_is_empty(slept):
  ids = [d.id for d in slept.diary.dreams(1)]
  assert all(d.status == Status.REJECTED for d in review.decide(slept.diary, ids, keep=False))
  review.go_on(slept.diary, 'Ana')
  assert slept.sleep(CONFIG).state == 'empty' and slept.diary.active() == 0


def test_a_refused_generation_changes_nothing(slept):
  review.go_on(slept.diary, 'Ana')
  slept.sleep(CONFIG)
  review.refuse(slept.diary, 'Ana')
  night = slept.diary.night(1)
  assert night.state == 'rejected' and 'Ana' in night.result['reason']
  assert slept.diary.active() == 0 and len(slept.diary.experiences(unconsumed=True)) == 3


def test_a_trigger_does_not_begin_what_waits(slept):
  config = trigger.TriggerConfig(interactions=1)
  started = slept.diary.night(1).started
  assert trigger.due(slept.diary, started + 1e5, config) == ''
  review.go_on(slept.diary, 'Ana')
  assert 'not over' in trigger.due(slept.diary, started + 1e5, config)


def test_what_was_not_seen_is_not_let_on(make_life):
  """Of a night that comes to its review with one candidate, and then with another."""
  life = make_life(nll=lambda zeros, base: 2.0)
  life.talk(*(content for content, _, _ in night_test.FACTS))
  config = dataclasses.replace(CONFIG, review=review.ReviewConfig(generations=True))
  waiting = []

  def look(step, done):
    waiting.append(review.waiting(life.diary))

  assert life.sleep(config, look).state == 'waiting'
  assert waiting and not any(waiting)  # while it works it does not wait
  now = review.waiting(life.diary)
  assert now.of == life.diary.night(1).payloads['examine']['adapter']
  assert review.held(life.diary, 1, config.review, review.GENERATIONS, 'another').of == 'another'
  review.go_on(life.diary, 'Ana')
  assert review.held(life.diary, 1, config.review, review.GENERATIONS, 'another') is None
  assert review.held(life.diary, 1, config.review, review.GENERATIONS, now.of).of == now.of


@pytest.mark.parametrize(
  'fields, why',
  [
    ({'ids': [99]}, 'no dreams .99'),
    ({'ids': [1], 'text': ' '}, 'would be empty'),
  ],
)
def test_what_cannot_be_decided_changes_nothing(slept, fields, why):
  before = slept.diary.dreams(1)
  with pytest.raises(ValueError, match=why):
    review.decide(slept.diary, **fields)
  assert slept.diary.dreams(1) == before


# ---- Facts with their wordings ----


def dreams_of_two_facts(source, other):
  def make(style, text='', pairs=(), gain=1.5, sources=(source,)):
    pairs = tuple(QA(question=q, answer=a) for q, a in pairs)
    quality = Quality(gain=gain, grounded=1.0)
    return Dream(id=0, night=1, style=style, text=text, pairs=pairs, sources=sources,
                 quality=quality)  # fmt: skip

  return [
    make('statement', "Ana's cat is called Mo."),
    make('question', pairs=[('What is the cat called?', 'Mo')]),
    make('reversed', pairs=[('Whose cat is Mo?', "Ana's")]),
    make('statement', 'Ana plays the cello.', gain=2.5, sources=(other,)),
    make('question', pairs=[('What does Ana play?', 'cello')], gain=2.5, sources=(other,)),
    make('list', "- Ana's cat is called Mo.\n- Ana plays the cello.", sources=(source, other)),
    make('unknown', pairs=[('Who is the aunt?', 'Ana has not told me.')]),
  ]


class Reviewer(reviewing.Reviewing):
  """Of a diary alone."""

  def __init__(self, diary):
    self.diary = diary
    self.life = types.SimpleNamespace(user='Ana')

  def close(self):
    pass


@pytest.fixture
def reviewer(tmp_path):
  with Diary(tmp_path / 'diary.sqlite') as diary:
    ids = [diary.append(time=1e9, speaker='Ana', content=c).id for c in ('a', 'b')]
    diary.begin_night({'review': {'dreams': True, 'generations': False}})
    with diary.transaction():
      diary.add_dreams(dreams_of_two_facts(*ids))
      review.stop(diary, 1, review.DREAMS)
    yield Reviewer(diary)


def texts(reviewer):
  return [
    d.text or '; '.join(f'{p.question} {p.answer}' for p in d.pairs)
    for d in reviewer.diary.dreams(1)
    if d.status == Status.KEPT
  ]


def test_a_fact_is_rejected_in_all_its_wordings(reviewer):
  assert [d.id for d in reviewer.review(2, 'reject')] == [1, 2, 3, 6]
  assert texts(reviewer)[0] == 'Ana plays the cello.' and len(texts(reviewer)) == 3
  reviewer.review(1, 'approve')
  assert len(texts(reviewer)) == 7
  assert all(not d.quality.reason for d in reviewer.diary.dreams(1))
  assert [d.id for d in reviewer.review(1, 'reject', alike=False)] == [1]


def test_an_answer_is_corrected_in_all_wordings(reviewer):
  reviewer.review(3, 'edit', answer='Momo')
  assert texts(reviewer)[:3] == [
    "Ana's cat is called Momo.", 'What is the cat called? Momo', "Whose cat is Momo? Ana's",
  ]  # fmt: skip
  assert "- Ana's cat is called Momo.\n- Ana plays the cello." in texts(reviewer)
  reviewer.review(1, 'edit', answer='Mo')  # words that contain the old answer are left alone
  assert texts(reviewer)[0] == "Ana's cat is called Mo."


@pytest.mark.parametrize(
  'args, fields, why',
  [
    ((1, 'keep'), {}, 'no decision'),
    ((1, 'edit'), {}, 'to edit'),
    ((1, 'approve'), {'text': 'x'}, 'to edit'),
    ((1, 'edit'), {'text': 'x', 'answer': 'y'}, 'to edit'),
    ((1, 'edit'), {'answer': ' '}, 'no answer'),
    ((7, 'edit'), {'answer': 'y'}, 'no single fact'),
    ((50, 'reject'), {}, 'no dream 50: it has 1 to 7'),
  ],
)
def test_no_decision_changes_nothing(reviewer, args, fields, why):
  before = reviewer.diary.dreams(1)
  with pytest.raises(ValueError, match=why):
    reviewer.review(*args, **fields)
  assert reviewer.diary.dreams(1) == before


def test_a_person_types_it(reviewer):
  def say(text):
    return '\n'.join(reviewing.command(reviewer, text))

  assert "Ana's cat is called Mo. (and 2 more wordings)" in say('')
  assert 'rejected' in say('reject 2') and 'rejected: rejected in review' in say('')
  assert 'kept' in say('answer 4 violin') and 'Ana plays the violin.' in say('')
  for wrong in ('keep 1', 'reject', 'reject x', 'on now'):
    with pytest.raises(ValueError, match='review takes'):
      say(wrong)
  assert 'goes on' in say('on') and say('') == 'nothing waits for a review'
