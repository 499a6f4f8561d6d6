"""Where answers and refusals part, and who draws that line."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming.brain import prompts
from dreaming.brain.refusal import Doubt, chosen, doubts, drawn, redrawn
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


HOW = {'prefix': prompts.ANSWER_PREFIX, 'max_tokens': 16}


def ask(fake, asked, replies, line=1.5):
  return redrawn(fake, MIND, asked, replies, line, **HOW)


@pytest.mark.parametrize(('nats', 'reply'), [(-2.4, 'Kiwi'), (-2.6, NO)])
def test_a_refusal_gives_way_to_what_is_nearly_as_likely(nats, reply):
  fake = Fake({'a': 'Kiwi'}, {NO: -1.0, 'Kiwi': nats})
  assert ask(fake, ['a'], [NO]) == [reply]
  found = doubts(fake, MIND, ['a'], [NO], **HOW)
  assert found == {0: Doubt('Kiwi', pytest.approx(-1.0 - nats))}


def test_what_is_no_refusal_is_not_looked_at():
  fake = Fake({'b': 'Kiwi'}, {NO: -1.0, 'Kiwi': -1.0})
  assert ask(fake, ['a', 'b'], ['Rex', NO]) == ['Rex', 'Kiwi'] and len(fake.avoided) == 1
  assert ask(fake, ['a'], ['Rex']) == ['Rex'] and ask(fake, [], []) == []
  assert ask(fake, ['a', 'b'], ['Rex', NO], line=0.0) == ['Rex', NO] and len(fake.avoided) == 1


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
  assert doubts(fake, MIND, ['a', 'b', 'c'], [NO, NO, ''], **HOW) == {}


def test_without_a_line_refusals_stand_whatever_the_whole_texts_are():
  fake = Fake({'a': 'Kiwi'}, {NO: -1.0, 'Kiwi': -0.5})
  found = doubts(fake, MIND, ['a'], [NO], **HOW)
  assert found == {0: Doubt('Kiwi', 0.0)}
  assert drawn([NO], found, 0.0) == [NO] and drawn([NO], found, 0.25) == ['Kiwi']


def rows(*nats, counted=True):
  return [(Doubt('Kiwi', n), counted) for n in nats]


@pytest.mark.parametrize(
  ('told', 'untold', 'counts', 'line'),
  [
    (rows(0.4, 0.9, 1.6), [], (10, 10), 1.75),
    (rows(0.4, 0.9, 1.6), rows(1.5), (10, 10), 1.0),  # one right answer less, and no invention
    (rows(0.4, 0.9, 1.55, 1.6, 1.65), rows(1.5), (10, 10), 1.75),
    (rows(0.4, 0.9, 1.6), rows(1.5, counted=False), (10, 10), 1.75),  # no invention, only wrong
    (rows(0.4, 0.9), rows(0.3), (10, 10), 0.0),  # an invention outweighs what is won
    (rows(0.4, 0.9), rows(0.3), (10, 40), 1.0),  # of many questions it is a smaller share
    (rows(0.4, counted=False), [], (10, 10), 0.0),
    (rows(0.4, 2.4), [], (10, 10), 0.5),  # further than the line may go
    (rows(0.4), [], (10, 0), 0.0),  # nothing says what it would cost
    ([], rows(0.4), (0, 10), 0.0),
  ],
)
def test_the_line_is_where_right_answers_outweigh_inventions_most(told, untold, counts, line):
  assert chosen(told, untold, counts, 2.0) == line
  assert chosen(told, untold, counts, 0.6) <= 0.5 and chosen(told, untold, counts, 0.1) == 0


def test_an_exam_chooses_and_asks_as_the_agent_will_speak(monkeypatch):
  asked = {prompts.question(q): a for q, a in (('Bird?', 'Kiwi'), ('City?', 'Oslo'))}
  asked |= {prompts.question(q): 'Oslo' for q in ('Aunt?', 'Uncle?', 'Boss?', 'Sea?')}
  fake = Fake(asked, {NO: -1.0, 'Kiwi': -2.0, 'Oslo': -2.8})
  monkeypatch.setattr(fake, 'forget', lambda mind: None, raising=False)
  monkeypatch.setattr(examine, 'window_losses', lambda *_: ([2.0], 1))
  monkeypatch.setattr(examine, 'answer_losses', lambda *_: [1.0])
  question = examine.Question
  told = question(text='Bird?', answers=('Kiwi',)), question(text='City?', answers=('Oslo',))
  never = tuple(question(text=q, answers=('Oslo',)) for q in ('Aunt?', 'Uncle?', 'Boss?'))
  general = (question(text='Sea?', answers=('Oslo',)),)
  fields = {'recall': told, 'never_mentioned': never, 'general': general}
  report = examine.examine(fake, MIND, examine.Exam(**fields, most_line=2.0))
  assert report.measures['refusal_line'] == 1.25 and report.measures['recall'] == 0.5
  assert report.measures['never_mentioned'] == report.measures['general'] == 0.0
  assert report.replies['recall'] == (('Kiwi', True), (NO, False))
  report = examine.examine(fake, MIND, examine.Exam(**fields))
  assert report.measures['recall'] == 0.0 and 'refusal_line' not in report.measures
