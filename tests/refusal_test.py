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


HOW = {'user': 'Priya', 'prefix': prompts.ANSWER_PREFIX, 'max_tokens': 16}


def ask(fake, asked, replies, line=1.5):
  return redrawn(fake, MIND, asked, replies, line, **HOW)


@pytest.mark.parametrize(('nats', 'reply'), [(-2.4, 'Kiwi'), (-2.6, NO)])
def test_a_refusal_gives_way_to_what_is_nearly_as_likely(nats, reply):
  fake = Fake({'a': 'Kiwi'}, {NO: -1.0, 'Kiwi': nats})
  assert ask(fake, ['a'], [NO]) == [reply]
  found = doubts(fake, MIND, ['a'], [NO], **HOW)
  assert found == {0: Doubt('Kiwi', NO, pytest.approx(-1.0 - nats))}


@pytest.mark.parametrize(('nats', 'reply'), [(-2.6, 'Kiwi'), (-2.4, NO)])
def test_an_answer_gives_way_to_a_refusal_that_is_nearly_as_likely(nats, reply):
  fake = Fake({}, {NO: nats, 'Kiwi': -1.0})
  assert ask(fake, ['a'], ['Kiwi'], line=-1.5) == [reply] and not fake.avoided


def test_only_what_the_line_can_change_is_looked_at():
  fake = Fake({'b': 'Kiwi'}, {NO: -1.0, 'Kiwi': -1.0, 'Rex': -1.0})
  assert ask(fake, ['a', 'b'], ['Rex', NO]) == ['Rex', 'Kiwi'] and len(fake.avoided) == 1
  assert ask(fake, ['a', 'b'], ['Rex', NO], line=-1.0) == [NO, NO]
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


def rows(*nats, counted=True):
  return [(Doubt('Kiwi', NO, n), counted) for n in nats]


def test_what_was_said_is_the_likelier_whatever_the_whole_texts_are():
  fake = Fake({'a': 'Kiwi'}, {NO: -1.0, 'Kiwi': -0.5, 'Rex': -3.0})
  found = doubts(fake, MIND, ['a', 'b'], [NO, 'Rex'], **HOW)
  assert found[0].nats == 0.0 and -0.01 < found[1].nats < 0
  for line in (0.0, 1.5):  # as `redrawn`, which does not look at answers then
    assert drawn([NO, 'Rex'], found, line)[1] == 'Rex'
  assert drawn([NO, 'Rex'], found, 0.0) == [NO, 'Rex']


def test_an_answer_that_was_cut_off_stays():
  long = ' '.join(f'w{i}' for i in range(16))
  fake = Fake({}, {NO: -1.0, long: -50.0, long[:-4]: -50.0})
  assert ask(fake, ['a'], [long], line=-1.0) == [long]
  assert ask(fake, ['a'], [long[:-4]], line=-1.0) == [NO]


@pytest.mark.parametrize(
  ('told', 'untold', 'counts', 'line'),
  [
    (rows(0.4, 0.9, 1.6), [], (10, 10), 1.75),
    (rows(0.4, 0.9, 1.6), rows(1.5), (10, 10), 1.0),  # one right answer less, and no invention
    (rows(0.4, 0.9, 1.55, 1.6, 1.65), rows(1.5), (10, 10), 1.75),
    (rows(0.4, 0.9, 1.6), rows(1.5, counted=False), (10, 10), 1.75),  # no invention, only wrong
    (rows(-3.0, -2.5), [], (10, 10), 0.0),  # nothing to win
    (rows(0.4, counted=False), [], (10, 10), 0.0),
    (rows(-3.0, -0.4), rows(-0.6), (10, 10), -0.75),  # an invention is worth two right answers
    (rows(-3.0, -0.4, -0.3, -0.2), rows(-0.6), (10, 10), 0.0),
    (rows(-3.0, -0.4), rows(-0.6), (10, 40), 0.0),  # of many questions it is a smaller share
    (rows(-3.0), rows(-2.5), (10, 10), 0.0),  # further than the line may go
    (rows(0.4, 2.4), [], (10, 10), 0.5),
    (rows(0.4), [], (10, 0), 0.0),  # nothing says what it would cost
    ([], rows(-1.0), (0, 10), 0.0),
  ],
)
def test_the_line_is_where_right_answers_outweigh_inventions_most(told, untold, counts, line):
  assert chosen(told, untold, counts, 2.0) == line
  assert abs(chosen(told, untold, counts, 0.6)) <= 0.5 and chosen(told, untold, counts, 0.1) == 0


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
  fields = {'recall': told, 'never_mentioned': never, 'general': general, 'user': 'Priya'}
  report = examine.examine(fake, MIND, examine.Exam(**fields, most_line=2.0))
  assert report.measures['refusal_line'] == 1.25 and report.measures['recall'] == 0.5
  assert report.measures['never_mentioned'] == report.measures['general'] == 0.0
  assert report.replies['recall'] == (('Kiwi', True), (NO, False))
  report = examine.examine(fake, MIND, examine.Exam(**fields))
  assert report.measures['recall'] == 0.0 and 'refusal_line' not in report.measures
