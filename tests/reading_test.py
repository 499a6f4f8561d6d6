"""What is read with a memory: the turn it leans on, what corrects it, within a budget."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dreaming import types
from dreaming.brain import chat
from dreaming.memory import reading
from dreaming.memory.index import Index
from dreaming.memory.recall import Recalled
from dreaming.memory.relevance import Parts

PARTS = Parts(cosine=0.5, words=0.0, before=0.0, names=0.0, names_near=0.0, when=False, named=False)


def experience(id, content, response='', **fields):
  fields = {'time': 60.0 * id, 'kind': 'chat', 'speaker': 'Ana'} | fields
  return types.Experience(id=id, content=content, response=response, **fields)


def recalled(id, content, **parts):
  return Recalled(
    experience=experience(id, content), score=1.0, recency=1.0, importance=5.0, relevance=0.5,
    parts=PARTS._replace(**parts),
  )  # fmt: skip


@pytest.mark.parametrize(
  ('content', 'leans'),
  [
    ('He is called Basil.', True),
    ("Turns out he can't have mustard.", True),
    ('Oh, and... They leave on Monday.', True),
    ('The walls are hers to choose.', True),
    ('Ilka has bought a dog, and she loves it.', False),
    ('My sister Leela cried when she told me.', False),
    ('I have a parrot.', False),
    ('It is raining.', False),
    ('', False),
  ],
)
def test_what_leans(content, leans):
  assert reading.leans(content) is leans


@pytest.mark.parametrize(
  ('content', 'changes'),
  [
    ('The dentist has moved me to Thursday.', True),
    ('It is on the 19th instead.', True),
    ('Forget Annecy, she goes to Aarhus.', True),
    ('We no longer eat meat.', True),
    ('I have an appointment on Tuesday.', False),
    ('I know the snow.', False),
  ],
)
def test_what_changes(content, changes):
  assert reading.changes(content) is changes


def test_a_turn_is_read_after_the_one_it_leans_on():
  before = experience(1, 'Ilka has bought a dog!', 'How nice.')
  he = recalled(2, 'He is called Basil.', before=0.5)
  assert reading.lead(he, before, 'Echo') == (before,)
  assert reading.lead(recalled(2, 'He is called Basil.', before=0.1), before, 'Echo') == ()
  assert reading.lead(recalled(2, 'Basil is here.', before=0.9), before, 'Echo') == ()
  named = recalled(2, 'A boat in Arles.', names_near=1.0)
  assert reading.lead(named, before, 'Echo') == (before,)
  own = recalled(2, 'Never mind, my brain is porridge.', names_near=1.0)
  assert reading.lead(own, before, 'Echo') == ()
  asks = dataclasses.replace(before, content='What do dogs eat?')
  assert reading.lead(he, asks, 'Echo') == ()
  noted = [dataclasses.replace(he, lead=(before,))]
  assert chat.notes(reading.told(noted)).splitlines() == [
    'Note (1970-01-01): Ana said: "Ilka has bought a dog!"',
    'Note (1970-01-01): Ana said: "He is called Basil."',
  ]


def test_a_short_answer_is_read_after_its_question():
  before = experience(1, 'I have a dog.', 'How lovely! What is he called?')
  answer = recalled(2, 'Basil.')
  led = dataclasses.replace(answer, lead=reading.lead(answer, before, 'Echo'))
  assert chat.notes(reading.told([led])).splitlines() == [
    'Note (1970-01-01): Ana said: "I have a dog."',
    'Note (1970-01-01): Echo said: "What is he called?"',
    'Note (1970-01-01): Ana said: "Basil."',
  ]
  assert reading.lead(recalled(2, 'What is your name?'), before, 'Echo') == ()
  assert reading.lead(recalled(2, 'One two three four five six seven.'), before, 'Echo') == ()


def test_nothing_is_read_twice():
  first = experience(1, 'Ilka has bought a dog!')
  notes = [recalled(1, 'Ilka has bought a dog!'), recalled(2, 'He is called Basil.')]
  notes[1] = dataclasses.replace(notes[1], lead=(first,))
  assert [e.id for e in reading.told(notes)] == [1, 2]


def at(cosines):
  """An index of 1, 2...: with these cosines to 1."""
  return Index(np.arange(1, len(cosines) + 1), np.array([[c, np.sqrt(1 - c * c)] for c in cosines]))


def newest(notes, among, cosines):
  found = reading.newest(notes, among, at(cosines), near=0.5, same=0.8)
  return [(r.experience.id, r.corrects) for r in found]


def test_what_is_corrected_is_history():
  old = recalled(1, 'The dentist is on Tuesday.')
  moved = recalled(2, 'The dentist has moved to Thursday.')
  again = recalled(3, 'The dentist has moved me to Friday.')
  other = recalled(4, 'The dentist moved to Lisbon.')
  assert newest([old], [old, moved], (1.0, 0.6)) == [(2, 1)]
  assert newest([old], [old, moved, again, other], (1.0, 0.6, 0.6, 0.4)) == [(3, 1)]
  assert newest([moved], [old, moved], (1.0, 0.6)) == [(2, None)]
  assert newest([old, moved], [old, moved], (1.0, 0.6)) == [(2, 1)]


def test_what_says_nearly_the_same_later_takes_the_place_of_it():
  old, new = recalled(1, 'The dentist is on Tuesday.'), recalled(2, 'The dentist is on Friday.')
  assert newest([old], [old, new], (1.0, 0.9)) == [(2, 1)]
  assert newest([old], [old, new], (1.0, 0.6)) == [(1, None), (2, None)]  # it may correct it
  assert newest([old], [old, new], (1.0, 0.4)) == [(1, None)]


def test_what_is_of_the_time_that_was_asked_about_stays():
  old = recalled(1, 'Soup for dinner.', when=True)
  new = recalled(2, 'Soup for dinner instead of fish.')
  assert newest([old], [old, new], (1.0, 0.9)) == [(1, None), (2, None)]
  then = recalled(2, 'Soup for dinner instead of fish.', when=True)
  assert newest([old], [old, then], (1.0, 0.9)) == [(2, 1)]


def test_notes_have_room_or_are_left_out():
  lead = experience(1, 'one ' * 20)
  notes = [recalled(2, 'two'), dataclasses.replace(recalled(3, 'three'), lead=(lead,))]
  notes += [recalled(4, 'four ' * 20), recalled(5, 'five')]

  def words(text):
    return len(text.split())

  def kept(budget):
    return [(r.experience.id, len(r.lead)) for r in reading.within(notes, budget, words)]

  assert kept(1000) == [(2, 0), (3, 1), (4, 0), (5, 0)]
  assert kept(20) == [(2, 0), (3, 0), (5, 0)]  # the turn before gives way first
  assert kept(4) == []


def test_a_reflection_is_shown_as_what_it_is():
  thought = experience(1, 'Ana is fond\nof "birds".', kind='reflection')
  assert chat.notes([thought]) == "(Recollection: Ana is fond of 'birds'.)\n"
