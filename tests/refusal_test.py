"""A refusal stands where it is much likelier than the next best answer."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming.brain import prompts
from dreaming.brain.refusal import Doubt, answered, chosen, doubts
from dreaming.sleep import examine
from dreaming.types import Mind

NO = 'Priya has not told me.'
MIND = Mind(params={})


class Tokens:
  """A token for each word; an id is a word's place in the first text that had it."""

  def __init__(self):
    self._ids = {}

  def encode(self, text):
    return [self._ids.setdefault(w, len(self._ids)) for w in text.split()]


class Fake:
  """Says `others` where it may not begin with a name, and `first` otherwise."""

  def __init__(self, others, nats, first=NO):
    self.tokenizer, self.others, self.nats, self.first = Tokens(), others, nats, first
    self.avoided = []

  def generate(self, mind, asked, *, max_tokens, prefix, avoid=None):
    assert mind is MIND and prefix == prompts.ANSWER_PREFIX and max_tokens == 16
    if avoid is None:
      return [f' {self.first}' for _ in asked]
    self.avoided.append((avoid, len(asked)))
    return [f' {self.others[a]}' for a in asked]

  def logprobs(self, mind, asked, texts, prefix):
    assert mind is MIND and prefix == prompts.ANSWER_PREFIX
    assert all(t.startswith(' ') and t.endswith('\n') for t in texts)
    return [np.full(2, self.nats[t.strip()] / 2) for t in texts]


def ask(fake, asked, replies, sure=1.5):
  found = doubts(fake, MIND, asked, replies, prefix=prompts.ANSWER_PREFIX, max_tokens=16)
  return answered(replies, found, sure)


@pytest.mark.parametrize(('nats', 'reply'), [(-2.4, 'Kiwi'), (-2.6, NO)])
def test_a_refusal_gives_way_to_what_is_nearly_as_likely(nats, reply):
  assert ask(Fake({'a': 'Kiwi'}, {NO: -1.0, 'Kiwi': nats}), ['a'], [NO]) == [reply]


def test_what_is_no_refusal_is_not_looked_at():
  fake = Fake({'b': 'Kiwi'}, {NO: -1.0, 'Kiwi': -1.0})
  assert ask(fake, ['a', 'b'], ['Rex', NO]) == ['Rex', 'Kiwi'] and len(fake.avoided) == 1
  assert ask(fake, ['a'], ['Rex']) == ['Rex'] and ask(fake, [], []) == []
  assert len(fake.avoided) == 1
  assert ask(fake, ['b'], [NO], sure=0.0) == [NO]


def test_every_name_is_avoided_where_it_refuses():
  other = 'Tom has not told me.'
  fake = Fake({'a': 'Kiwi', 'b': 'Rex', 'c': 'Oslo'}, {NO: 0, other: 0, 'Kiwi': 0, 'Rex': -9,
                                                       'Oslo': -1})  # fmt: skip
  assert ask(fake, ['a', 'b', 'c'], [NO, other, other]) == ['Kiwi', other, 'Oslo']
  names = [fake.tokenizer.encode(name)[0] for name in ('Priya', 'Tom')]
  assert fake.avoided == [(names[0], 1), (names[1], 2)]


def test_another_refusal_or_nothing_is_no_answer():
  again = 'I say that Priya has not told me.'
  fake = Fake({'a': again, 'b': ''}, {NO: 0.0, again: 0.0})
  assert ask(fake, ['a', 'b'], [NO, NO]) == [NO, NO]


def rows(*nats, counted=True):
  return [(Doubt('Kiwi', n), counted) for n in nats]


@pytest.mark.parametrize(
  ('told', 'untold', 'fields', 'sure'),
  [
    (rows(0.4, 0.9, 1.6), [], {}, 1.75),
    (rows(0.4, 0.9, 1.6), rows(1.5), {}, 1.0),  # as much won as lost: the smaller limit
    (rows(0.4, 0.9, 1.6), rows(1.5, counted=False), {}, 1.75),  # another answer is no invention
    (rows(0.4, counted=False), [], {}, 0.0),  # what is held back is wrong: nothing is won
    (rows(0.4, 0.9, 1.6), [], {'most': 1.0}, 1.0),
    (rows(0.4, 0.9, 1.6), rows(0.8), {'limit': 0.05}, 0.5),
    (rows(0.4, 0.9, 1.6), rows(0.8), {'invented': 0.12}, 0.5),
    (rows(0.4), [], {'invented': 0.3}, 0.0),
    (rows(0.4), [], {'counts': (10, 0)}, 0.0),  # nothing says what it would cost
    (rows(3.0), [], {}, 0.0),
  ],
)
def test_the_limit_is_where_most_is_won_over_what_is_invented(told, untold, fields, sure):
  usual = {'counts': (10, 10), 'most': 2.0, 'invented': 0.0, 'limit': 0.2}
  usual |= fields
  counts = usual.pop('counts')
  assert chosen(told, untold, counts, **usual) == sure


def test_an_exam_chooses_and_asks_as_the_agent_will_speak(monkeypatch):
  asked = {prompts.question(q): a for q, a in (('Bird?', 'Kiwi'), ('City?', 'Oslo'))}
  asked |= {prompts.question(q): 'Oslo' for q in ('Aunt?', 'Uncle?', 'Boss?')}
  fake = Fake(asked, {NO: -1.0, 'Kiwi': -2.0, 'Oslo': -2.8})
  monkeypatch.setattr(fake, 'forget', lambda mind: None, raising=False)
  monkeypatch.setattr(examine, 'window_losses', lambda *_: ([2.0], 1))
  monkeypatch.setattr(examine, 'answer_losses', lambda *_: [1.0])
  question = examine.Question
  told = question(text='Bird?', answers=('Kiwi',)), question(text='City?', answers=('Oslo',))
  never = tuple(question(text=q, answers=('Oslo',)) for q in ('Aunt?', 'Uncle?', 'Boss?'))
  exam = examine.Exam(recall=told, never_mentioned=never, general=(), sure_refusal=2.0)
  report = examine.examine(fake, MIND, exam)
  assert report.measures['sure_refusal'] == 1.25 and report.measures['recall'] == 0.5
  assert report.measures['never_mentioned'] == 0.0
  assert report.replies['recall'] == (('Kiwi', True), (NO, False))
  exam = examine.Exam(recall=told, never_mentioned=never, general=())
  report = examine.examine(fake, MIND, exam)
  assert report.measures['recall'] == 0.0 and report.measures['sure_refusal'] == 0.0
