"""Own words, retold of who said them."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming.memory import retell
from dreaming.types import Experience


class Ear:
  """A model to which what occurs in `knows` sounds right."""

  def __init__(self, *knows):
    self.knows = knows
    self.heard = 0

  def logprobs(self, mind, prompts, continuations):
    self.heard += len(continuations)
    return [np.array([sum(k in c for k in self.knows)], float) for c in continuations]


def note(id_, text):
  return Experience(id=id_, time=0.0, kind='chat', speaker='Ana', content=text)


@pytest.mark.parametrize(
  'said, told',
  [
    ('My parrot is Kiwi.', "Bo's parrot is Kiwi."),
    ('I ride a moped, and I always squint.', 'Bo rides a moped, and Bo always squints.'),
    ('I have a tuba, I am happy and I do sing.', 'Bo has a tuba, Bo is happy and Bo does sing.'),
    ("I don't eat it, I haven\u2019t for years.", "Bo doesn't eat it, Bo hasn't for years."),
    ('I was late but I will come.', 'Bo was late but Bo will come.'),
    ('I drove home, I watch it, I try.', 'Bo drove home, Bo watches it, Bo tries.'),
    ('On Thursdays I rehearse.', 'On Thursdays Bo rehearses.'),
    ('We moved, our cat waits for us.', "Bo and others moved, Bo's cat waits for them."),
    ("we're a house of jam", 'Bo and others are a house of jam'),
    ('The US has won World War I again.', 'The US has won World War I again.'),
  ],
)
def test_a_sentence_is_told_of_its_user(said, told):
  knows = ('rides', 'squints', 'watches', 'tries', 'rehearses')
  assert retell.of_user(Ear(*knows), None, [(said, 'Bo')]) == [told]


def test_the_model_tells_present_from_past_and_is_asked_only_where_there_is_a_choice():
  ear = Ear('Bo put ', 'Ana puts')
  told = [('I put it down.', 'Bo'), ('My cat.', 'Bo'), ('I put it down.', 'Ana')]
  assert retell.of_user(ear, None, told) == ['Bo put it down.', "Bo's cat.", 'Ana puts it down.']
  assert ear.heard == 4
  assert retell.of_user(None, None, []) == []


def test_many_verbs_cost_no_more_than_some():
  ear = Ear()
  retell.of_user(ear, None, [(' and '.join(['I run'] * 50), 'Bo')])
  assert ear.heard <= 32


def test_the_sentence_that_a_reply_is_from():
  notes = [note(1, 'Hm. My parrot is Kiwi. Is it late?'), note(2, 'The parrot is Rex now.')]
  assert retell.nearest('kiwi', notes) == (notes[0], 'My parrot is Kiwi.')
  assert retell.nearest('Rex', notes) == (notes[1], 'The parrot is Rex now.')
  assert retell.nearest('the parrot', notes) == (notes[1], 'The parrot is Rex now.')
  assert retell.nearest('Biscuit', notes) == (notes[0], 'Hm.')
  assert retell.nearest('Kiwi', [note(1, 'Is it Kiwi?')]) is None
