"""What a night takes over from those before it: newer experiences win."""

from __future__ import annotations

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


def test_a_later_night_corrects_an_earlier_one_for_good():
  assert lineage.rehearsal(FakeDiary([PORTO, PET], [BRAGA])) == [PET, BRAGA]


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
