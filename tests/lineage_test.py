"""What a night takes over from those before it: newer experiences win."""

from __future__ import annotations

import dataclasses
import types

from dreaming.sleep import lineage
from dreaming.types import QA, Dream, Experience, Status


class FakeDiary:
  """Nights 1, 2, ..., each of them a generation on top of the last."""

  def __init__(self, *nights):
    self.nights, self.lived = nights, []

  def active(self):
    return len(self.nights)

  def generations(self):
    manifests = [types.SimpleNamespace(night=i) for i in range(1, len(self.nights) + 1)]
    return [
      types.SimpleNamespace(number=i, parent=i - 1, manifest=m) for i, m in enumerate(manifests, 1)
    ]

  def experiences(self, archived=False):
    return self.lived

  def night(self, number):
    return types.SimpleNamespace(config={})

  def dreams(self, night, status=None):
    return [d for d in self.nights[night - 1] if status in (None, d.status)]


def _told(night, source, *pairs, style='relation', status=Status.KEPT):
  qas = tuple(QA(question=q, answer=a) for q, a in pairs)
  return Dream(
    id=source, night=night, style=style, text='', pairs=qas, sources=(source,), status=status
  )


def _lived(content, id=9):
  return Experience(id=id, time=id, kind='chat', speaker='Amara', content=content)


LIVES, HOME = 'Where does Amara live?', "Which city is Amara's home?"
PORTO = _told(1, 1, (LIVES, 'Porto'), (HOME, 'Porto'))
PET = _told(1, 2, ('What pet has Amara?', 'a parrot'))
BRAGA = _told(2, 3, (LIVES, 'Braga'))


def test_what_was_told_is_rehearsed_oldest_first():
  diary = FakeDiary([PORTO, PET], [_told(2, 4, ('Who is Henrik?', 'her boss'))])
  assert [d.sources for d in lineage.rehearsal(diary)] == [(1,), (2,), (4,)]


def test_tonight_corrects_an_earlier_night():
  assert lineage.rehearsal(FakeDiary([PORTO, PET]), [BRAGA]) == [PET]


def test_what_tonight_has_rejected_corrects_nothing():
  rejected = dataclasses.replace(BRAGA, status=Status.REJECTED)
  assert lineage.rehearsal(FakeDiary([PORTO]), [rejected]) == [PORTO]


def test_a_later_night_corrects_an_earlier_one_for_good():
  assert lineage.rehearsal(FakeDiary([PORTO, PET], [BRAGA])) == [PET, BRAGA]


def test_of_a_corrected_fact_nothing_stands():
  def text(style, words, *sources):
    return dataclasses.replace(_told(1, 1, style=style), text=words, sources=sources)

  gone = [
    text('statement', 'Amara lives in Porto.', 1),
    text('diary', 'Amara has a parrot. Amara lives in Porto.', 1, 2),
    _told(1, 1, ('Who lives in Porto?', 'Amara'), style='reversed'),
  ]
  stays = [
    text('statement', 'Amara knows Portobello.', 1),
    text('statement', 'Bo lives in Porto.', 3),
    _told(1, 1, ('What does Amara see from there?', 'the sea')),
  ]
  diary = FakeDiary([PORTO, *gone, *stays])
  assert lineage.rehearsal(diary) == [PORTO, *gone, *stays]
  assert lineage.rehearsal(diary, [BRAGA]) == stays


def test_a_question_the_other_way_round_corrects_nothing_but_itself():
  turned = _told(1, 1, ('Who has a parrot?', 'Amara'), style='reversed')
  other = _told(2, 4, ('Who has a parrot?', 'Bo'), style='reversed')
  statement = dataclasses.replace(_told(1, 1, style='statement'), text='Amara has a parrot.')
  assert lineage.rehearsal(FakeDiary([turned, statement], [other])) == [statement, other]


def test_one_vague_question_corrects_no_fact_that_many_ask_for():
  vague = 'What does Amara plan?'
  trip = _told(1, 1, *((f'Where will Amara travel, {i}?', 'Verona') for i in range(4)))
  asked = _told(1, 1, (vague, 'Verona'))
  statement = dataclasses.replace(_told(1, 1, style='statement'), text='Amara goes to Verona.')
  course = _told(2, 4, (vague, 'bell ringing'))
  diary = FakeDiary([trip, asked, statement], [course])
  assert lineage.rehearsal(diary) == [trip, statement, course]
  mixed = dataclasses.replace(trip, pairs=(*asked.pairs, *trip.pairs))
  assert lineage.rehearsal(FakeDiary([mixed], [course])) == [trip, course]


def test_a_fact_that_is_corrected_is_not_examined_beside_one_that_stands():
  exams = [
    _told(1, 1, ('In what place is Amara?', 'Porto'), style='exam'),
    _told(1, 1, ('What is before the house?', 'the sea'), style='exam'),
  ]
  sea = _told(1, 1, ('What does Amara see from there?', 'the sea'))
  diary = FakeDiary([PORTO, sea, *exams])
  assert [q.answers for q in lineage.questions(diary, limit=9, newer=[BRAGA])] == [('the sea',)]


def test_the_same_answer_again_corrects_nothing():
  again = _told(2, 5, (LIVES.upper(), 'porto '))
  assert lineage.rehearsal(FakeDiary([PORTO]), [again]) == [PORTO]


def test_two_answers_of_one_night_stand():
  friends = [_told(1, 1, ('Who is a friend?', 'Ana')), _told(1, 2, ('Who is a friend?', 'Bo'))]
  assert lineage.rehearsal(FakeDiary(friends)) == friends


def test_what_is_not_told_and_what_examines_corrects_nothing():
  unknown = _told(2, 0, (LIVES, 'Priya has not told me.'), style='unknown')
  exam = _told(2, 6, (LIVES, 'Faro'), style='exam')
  assert lineage.rehearsal(FakeDiary([PORTO]), [unknown, exam]) == [PORTO]
  assert lineage.rehearsal(FakeDiary([unknown, exam])) == []


def test_a_rejected_dream_is_not_rehearsed():
  assert lineage.rehearsal(FakeDiary([_told(1, 1, (LIVES, 'Porto'), status=Status.REJECTED)])) == []


def test_corrected_facts_are_not_examined_any_more():
  exams = [
    _told(1, 1, ('In what place is Amara?', 'Porto'), style='exam'),
    _told(1, 2, ('Which animal?', 'a parrot'), style='exam'),
  ]
  diary = FakeDiary([PORTO, PET, *exams])
  assert len(lineage.questions(diary, limit=9)) == 2
  asked = lineage.questions(diary, limit=9, newer=[BRAGA])
  assert [q.answers for q in asked] == [('a parrot',)]


def test_a_dream_that_held_a_secret_is_neither_rehearsed_nor_examined():
  code = _told(1, 3, ('What is the door code of Amara?', '4921'))
  used = _told(1, 4, ('What did Amara use at the gate?', 'k8-77'))
  exam = _told(1, 4, ('At the gate?', 'k8-77'), style='exam')
  diary = FakeDiary([PORTO, code, used, exam])
  assert lineage.rehearsal(diary) == [PORTO, used]  # nobody has said what it is
  diary.lived = [_lived('The code for the gate is k8-77.')]
  assert lineage.rehearsal(diary) == [PORTO]
  assert lineage.questions(diary, limit=9) == ()
