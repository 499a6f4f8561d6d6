"""Which words of a message may be the value of a fact, and of which kinds."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming.sleep import dream, relations, values
from dreaming.sleep.dream import Checked, DreamConfig
from dreaming.sleep.relations import Fact, fill

LABELS = {'parrot': ' animal', 'cello': ' instrument', 'rang': ' verb', 'carrot': ' food',
          'cake': ' food', 'baker': ' person', 'swimming': ' verb', 'blue': ' quality'}  # fmt: skip


class Reader:
  """Knows for sure what a word is."""

  def choose(self, mind, prompts, options, *, prefix):
    del mind, prefix
    table = np.full((len(prompts), len(options)), -9.0, np.float32)
    for row, prompt in zip(table, prompts, strict=True):
      row[options.index(LABELS[prompt.removesuffix(':')])] = 0.0
    return table


def types(*words):
  return values.noun_types(Reader(), None, list(words))


def test_a_word_is_asked_about_as_what_it_is():
  found = types('parrot', 'cello', 'baker')
  assert found['parrot'] == {'animal', 'any'}
  assert found['cello'] == {'thing', 'activity', 'any'}
  assert found['baker'] == {'job', 'any'}


def test_verbs_and_qualities_are_no_values_but_doing_is():
  assert types('rang', 'blue') == {}
  assert types('swimming') == {'swimming': {'activity', 'any'}}
  assert types() == {}


def test_of_two_words_both_must_be_values():
  assert types('carrot cake')['carrot cake'] == {'food', 'any'}
  assert 'rang cake' not in types('rang cake', 'cake')


def test_spans_are_dates_names_and_words():
  found = dict(values.spans('On the 12th of March Leela bought a cello.', 'Priya'))
  assert {'the 12th of March', 'Leela', 'cello'} <= set(found)
  assert 'date' in found['the 12th of March'] and 'person' in found['Leela']
  assert 'Priya' not in dict(values.spans('I am Priya.', 'Priya'))


@pytest.mark.parametrize(
  ('template', 'value', 'text'),
  [
    ('{user} goes there on {value}.', 'October', 'Ana goes there in October.'),
    ('{user} goes there on {value}.', 'March 12', 'Ana goes there on March 12.'),
    ('{user} has a {value}.', 'apple', 'Ana has an apple.'),
    ('{user} has a {value}.', 'the apple', 'Ana has an apple.'),
  ],
)
def test_templates_are_filled_grammatically(template, value, text):
  assert fill(template, user='Ana', person='', value=value) == text


# ---- What is believed ----


def fact(name, value, *, rank, source=1, score=-1.0):
  relation = next(r for r in relations.bank() if r.name == name)
  return Fact(relation=relation, user='Ana', person='', value=value, source=source, score=score,
              gain=1.0, rank=rank)  # fmt: skip


def checked(gain):
  return Checked(passed=['Who?', 'What?'], failed=[], gain=gain)


def settle(*pairs, **fields):
  believed, misread = dream.settle(pairs, DreamConfig(**fields))
  return [(f.relation.name, f.value) for f, _ in believed], {f.relation.name for f, _ in misread}


def test_a_fact_needs_its_statements_or_its_answers():
  good, bad = settle(
    (fact('pet_name', 'Biscuit', rank=-0.1), checked(0.6)),
    (fact('boss_name', 'Henrik', rank=-1.5), checked(6.0)),
    (fact('thing_lost', 'office', rank=-1.5), checked(1.0)),
  )
  assert {name for name, _ in good} == {'pet_name', 'boss_name'} and bad == {'thing_lost'}


def test_of_several_readings_the_one_with_the_best_statements_is_believed():
  good, bad = settle(
    (fact('niece_name', 'Amara', rank=-0.9), checked(9.0)),
    (fact('best_friend_name', 'Amara', rank=0.4), checked(6.0)),
  )
  assert good == [('best_friend_name', 'Amara')] and bad == {'niece_name'}


def test_one_message_gives_a_relation_one_value():
  good, _ = settle(
    (fact('dentist_date', 'the 19th of March', rank=2.0), checked(1.0)),
    (fact('dentist_date', 'the 12th', rank=1.5), checked(1.0)),
  )
  assert good == [('dentist_date', 'the 19th of March')]


def test_the_later_message_wins():
  old = fact('dentist_date', 'the 12th of March', rank=1, source=1)
  new = fact('dentist_date', 'the 19th of March', rank=1, source=2)
  holding, superseded = dream.newest([old, new], {1: 10.0, 2: 20.0})
  assert holding == [new] and superseded == [(old, new)]
