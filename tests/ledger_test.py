"""What became of each thing that was told."""

from __future__ import annotations

import types

import pytest

from dreaming.sleep import ledger
from dreaming.types import QA, Dream, Experience, Status


class FakeDiary:
  """Experiences 1, 2, ... and promoted nights, each (dreams, replies of its exam)."""

  def __init__(self, said, nights, consumed=()):
    self.said, self.nights, self.consumed = said, nights, set(consumed)

  def active(self):
    return len(self.nights)

  def generations(self):
    return [
      types.SimpleNamespace(number=i, parent=i - 1, manifest=types.SimpleNamespace(night=i))
      for i in range(1, len(self.nights) + 1)
    ]

  def dreams(self, night, status=None):
    return [d for d in self.nights[night - 1][0] if status in (None, d.status)]

  def night(self, number):
    replies = self.nights[number - 1][1]
    left = {'examine': {'replies': replies}} if replies else {}
    return types.SimpleNamespace(payloads=left, config={})

  def experiences(self, unconsumed=False, archived=False):
    return [
      Experience(id=i, time=float(i), kind='chat', speaker='P', content=text)
      for i, text in enumerate(self.said, 1)
      if not (unconsumed and i in self.consumed)
    ]


def _dream(source, question, answer, style='relation'):
  pair = QA(question=question, answer=answer)
  return Dream(id=0, night=0, style=style, text='', pairs=(pair,), sources=(source,))


def _fact(source, question, answer):
  """A dream, and the question that it is examined with."""
  exam = _dream(source, f'exam: {question}', answer, style='exam')
  return [_dream(source, question, answer), exam]


def _reply(question, right):
  return [f'exam: {question}', 'whatever', right]


PET, CITY = 'What pet?', 'Which city?'


@pytest.mark.parametrize(
  ('exams', 'state'),
  [
    ([True], 'held'),
    ([False], 'missed'),
    ([True, False], 'slipping'),
    ([False, False], 'missed'),
    ([False, True], 'held'),
    ([True, False, True], 'held'),
  ],
)
def test_states_follow_the_exams(exams, state):
  nights = []
  for i, right in enumerate(exams):
    name = 'earlier' if i else 'recall'
    nights.append(([] if i else _fact(1, PET, 'a goat'), {name: [_reply(PET, right)]}))
  (fact,) = ledger.facts(FakeDiary(['I have a goat.'], nights, consumed=[1]))
  assert fact.state == state and fact.nights == (1,)
  assert fact.exams == tuple((i, float(r)) for i, r in enumerate(exams, 1))


def test_what_no_night_has_seen_is_heard_and_small_talk_is_left_out():
  diary = FakeDiary(['I have a goat.', 'Hm.', 'New!'], [(_fact(1, PET, 'a goat'), {})], [1, 2])
  assert [(f.experience, f.state) for f in ledger.facts(diary)] == [(1, 'dreamt'), (3, 'heard')]


def test_a_corrected_fact_is_superseded_and_not_rehearsed():
  nights = [
    (_fact(1, CITY, 'Porto'), {'recall': [_reply(CITY, True)]}),
    (_fact(2, CITY, 'Braga'), {'recall': [_reply(CITY, True)]}),
  ]
  diary = FakeDiary(['I live in Porto.', 'I live in Braga now.'], nights, consumed=[1, 2])
  assert [f.state for f in ledger.facts(diary)] == ['superseded', 'held']
  assert [d.sources for d in ledger.rehearsal(diary, [], 3)] == [(2,)]


def test_what_slips_is_rehearsed_more_often():
  dreams = _fact(1, PET, 'a goat') + _fact(2, CITY, 'Porto')
  nights = [
    (dreams, {'recall': [_reply(PET, True), _reply(CITY, True)]}),
    ([], {'earlier': [_reply(PET, False), _reply(CITY, True)]}),
  ]
  diary = FakeDiary(['A goat.', 'Porto.'], nights, consumed=[1, 2])
  assert [d.sources for d in ledger.rehearsal(diary, [], 3)] == [(1,)] * 3 + [(2,)]
  assert [d.sources for d in ledger.rehearsal(diary, [], 1)] == [(1,), (2,)]


def test_a_life_without_nights():
  assert ledger.facts(FakeDiary([], [])) == []
  (fact,) = ledger.facts(FakeDiary(['Hello.'], []))
  assert fact.state == 'heard' and fact.nights == () == fact.exams


def test_rejected_dreams_count_for_nothing():
  rejected = [Dream(id=0, night=1, style='relation', text='', sources=(1,), status=Status.REJECTED)]
  (fact,) = ledger.facts(FakeDiary(['Hello.'], [(rejected, {})]))
  assert fact.state == 'heard'
