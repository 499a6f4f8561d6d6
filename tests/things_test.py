"""What is spoken of, of whom, and what can be asked about it whatever was said."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming.sleep import kinds, things
from dreaming.sleep.relations import Message
from dreaming.sleep.things import Thing


def row(label, share=0.9):
  shares = np.full(len(kinds.LABELS), (1 - share) / (len(kinds.LABELS) - 1))
  shares[kinds.LABELS.index(label)] = share
  return np.log(shares)


def found(text, words, people=(), names=()):
  """(value, kind, owners) of a message in which `words` are known for sure."""
  typed = [(w, {'any': 0.0}) for w in words] + [(n, t) for n, t in names]
  message = Message(text=text, source=1, user='Ana')
  out = things.of_message(message, typed, {w: row(k) for w, k in words.items()}, list(people))
  return [(t.value, t.kind, t.owners) for t in out]


def test_a_thing_is_of_whom_its_clause_speaks():
  text = 'My sister Leela plays the tuba, but I have asthma.'
  assert found(text, {'tuba': 'instrument', 'asthma': 'illness'}, ['Leela']) == [
    ('tuba', 'instrument', ('Leela',)),
    ('asthma', 'illness', ('Ana',)),
  ]
  unnamed = found('My sister sings jazz.', {'jazz': 'music'}, ["Ana's sister"])
  assert unnamed[0][2] == ("Ana's sister",)


def test_who_is_meant_by_she_was_named_before():
  owners = found('Leela rang. She broke her arm.', {'arm': 'body'}, ['Leela'])[0][2]
  assert owners == ('Leela',)


def test_unclear_words_are_no_things():
  typed = [('stuff', {'any': 0.0})]
  message = Message(text='I have stuff.', source=1, user='Ana')
  assert things.of_message(message, typed, {'stuff': row('thing', 0.2)}, []) == []
  assert found('I walked far.', {'walked': 'verb'}) == []


def test_two_words_are_one_thing():
  of = {'operator': 'job', 'telegraph operator': 'job'}
  assert [v for v, _, _ in found('She was a telegraph operator.', of)] == ['telegraph operator']


def test_names_and_dates_are_things_by_what_they_may_be():
  names = [('Udaipur', {'place': 0.0, 'person': -2.0}), ('19 March', {'date': 0.0, 'any': 0.0})]
  kinds_of = {v: k for v, k, _ in found('We meet in Udaipur on 19 March.', {}, names=names)}
  assert kinds_of == {'Udaipur': 'place name', '19 March': 'date'}


def thing(value, kind, *, source=1, owners=('Ana',), beside=()):
  return Thing(value=value, kind=kind, source=source, user='Ana', owners=owners, beside=beside)


def asked(t, aliases=None, alone=('Ana',)):
  return [p.question for p in things.questions(t, aliases or {}, frozenset(alone))]


def test_a_thing_is_asked_for_by_its_kind():
  questions = asked(thing('tuba', 'instrument'))
  assert 'What does Ana play?' in questions
  assert all('tuba' not in q and '{' not in q for q in questions)
  assert {p.answer for p in things.questions(thing('tuba', 'instrument'), {}, frozenset())} == set()


def test_who_has_a_thing_is_asked_about_by_every_name():
  questions = asked(thing('tuba', 'instrument', owners=('Leela',)),
                    {'Leela': ["Ana's sister"]}, ['Leela'])  # fmt: skip
  assert 'What does Leela play?' in questions
  assert any("Ana's sister" in q for q in questions)


def test_a_plumber_who_came_is_nobodys_job():
  assert found('I am a plumber.', {'plumber': 'job'}) == [('plumber', 'job', ('Ana',))]
  assert found('I work as plumber.', {'plumber': 'job'}) == [('plumber', 'job', ('Ana',))]
  assert found('The plumber came.', {'plumber': 'job'}) == []
  assert found('I am furious.', {'furious': 'job'}) == []


def test_of_two_of_a_kind_neither_is_asked_for_by_its_kind_alone():
  two = [thing('tuba', 'instrument'), thing('harp', 'instrument'), thing('asthma', 'illness')]
  assert things.only(two, two[0]) == frozenset() and things.only(two, two[2]) == {'Ana'}


def test_a_date_is_asked_for_by_what_is_beside_it():
  questions = asked(thing('26 May', 'date', beside=('operation', 'Lugo')))
  assert 'When is it with the operation?' in questions and 'When is it with Lugo?' in questions


def test_a_later_date_of_the_same_replaces_the_earlier():
  old = thing('19 May', 'date', beside=('operation',))
  new = thing('26 May', 'date', source=2, beside=('operation', 'knee'))
  other = thing('3 June', 'date', beside=('party',))
  assert things.settle([new, old, other], {1: 10.0, 2: 20.0}) == [other, new]
  words = [thing('tuba', 'instrument', beside=('band',)), thing('harp', 'instrument', source=2,
           beside=('band',))]  # fmt: skip
  assert things.settle(words, {1: 10.0, 2: 20.0}) == words


def test_what_was_told_is_asked_of_everybody_else_in_the_same_words():
  spoken = [thing('tuba', 'instrument'), thing('notary', 'job', owners=('Leela',))]
  rng = np.random.default_rng(0)
  questions = {q for _ in range(20) for q in things.unsaid(spoken, 'Ana', ['Bruno'], rng)}
  assert 'What does Bruno play?' in questions and 'What does Leela play?' in questions
  assert 'What does Ana do for a living?' in questions
  assert 'What does Ana play?' not in questions
  assert 'What does Leela do for a living?' not in questions
  assert any('vehicle' in q and 'Ana' in q for q in questions)  # did not come up
  assert all('{' not in q for q in questions)


def test_where_nobody_else_is_left_nothing_is_asked_of_them():
  spoken = [thing('tuba', 'instrument')]
  assert 'What does Ana play?' not in things.unsaid(spoken, 'Ana', [], np.random.default_rng(0))


def test_what_is_asked_by_what_is_beside_it_is_asked_beside_something_else():
  spoken = [thing('26 May', 'date', beside=('operation',))]
  questions = things.unsaid(spoken, 'Ana', ['Bruno'], np.random.default_rng(0))
  assert any(q.startswith('When is it with the ') for q in questions)
  assert 'When is it with the operation?' not in questions


@pytest.mark.parametrize('kind', [k for k in kinds.LABELS if k not in kinds.NO_THINGS])
def test_every_kind_can_be_asked_for(kind):
  kind = 'job' if kind == 'person' else kind
  questions = asked(thing('xyzzy', kind, beside=('operation',)))
  assert questions and all(q.endswith('?') and '{' not in q for q in questions)
