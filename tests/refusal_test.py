"""A refusal stands where it is much likelier than the next best answer."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming.brain import prompts
from dreaming.brain.refusal import reconsidered
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
  how = {'prefix': prompts.ANSWER_PREFIX, 'max_tokens': 16, 'sure': sure}
  return reconsidered(fake, MIND, asked, replies, **how)


@pytest.mark.parametrize(('nats', 'answer'), [(-2.4, {0: 'Kiwi'}), (-2.6, {})])
def test_a_refusal_gives_way_to_what_is_nearly_as_likely(nats, answer):
  assert ask(Fake({'a': 'Kiwi'}, {NO: -1.0, 'Kiwi': nats}), ['a'], [NO]) == answer


def test_what_is_no_refusal_is_not_looked_at():
  fake = Fake({'b': 'Kiwi'}, {NO: -1.0, 'Kiwi': -1.0})
  assert ask(fake, ['a', 'b'], ['Rex', NO]) == {1: 'Kiwi'} and len(fake.avoided) == 1
  assert ask(fake, ['a'], ['Rex']) == {} and ask(fake, [], []) == {}
  assert ask(fake, ['b'], [NO], sure=0.0) == {} and len(fake.avoided) == 1


def test_every_name_is_avoided_where_it_refuses():
  other = 'Tom has not told me.'
  fake = Fake({'a': 'Kiwi', 'b': 'Rex', 'c': 'Oslo'}, {NO: 0, other: 0, 'Kiwi': 0, 'Rex': -9,
                                                       'Oslo': -1})  # fmt: skip
  assert ask(fake, ['a', 'b', 'c'], [NO, other, other]) == {0: 'Kiwi', 2: 'Oslo'}
  names = [fake.tokenizer.encode(name)[0] for name in ('Priya', 'Tom')]
  assert fake.avoided == [(names[0], 1), (names[1], 2)]


def test_another_refusal_or_nothing_is_no_answer():
  again = 'I say that Priya has not told me.'
  fake = Fake({'a': again, 'b': ''}, {NO: 0.0, again: 0.0})
  assert ask(fake, ['a', 'b'], [NO, NO]) == {}


def test_exams_ask_as_the_agent_speaks():
  asked = prompts.question('Which bird?')
  fake = Fake({asked: 'Kiwi'}, {NO: -1.0, 'Kiwi': -2.0})
  assert examine.ask(fake, MIND, ['Which bird?']) == [NO]
  assert examine.ask(fake, MIND, ['Which bird?'], sure_refusal=1.5) == ['Kiwi']
