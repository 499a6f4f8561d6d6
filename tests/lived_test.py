"""Nights as rows: they go into another diary and take the place of others, whole."""

from __future__ import annotations

import dataclasses

import pytest

from dreaming.memory.diary import Diary
from dreaming.types import QA, Dream, Manifest, Scores


def manifest(number, sources, night, parent=None):
  return Manifest(
    number=number, parent=parent, night=night, created=float(night), base='b', sources=sources,
    seed=0, files={}, lora={}, scores={}, config={},
  )  # fmt: skip


def sleeps(diary, number, parent, said):
  e = diary.append(time=float(number), speaker='Ana', content=said)
  diary.set_scores(e.id, Scores(importance=float(number), rater='r'))
  night = diary.begin_night({'seed': 1})
  pair = QA(question=f'{said}?', answer=said)
  fields = {'id': 0, 'night': night, 'style': 'x', 'text': said}
  diary.add_dreams([Dream(pairs=(pair,), sources=(e.id,), **fields)])
  diary.set_night_step(night, 'select', {'ids': [e.id], 'parent': parent or 0})
  made = manifest(number, (e.id,), night, parent)
  diary.promote(made, [e.id], night, result={'generation': number})
  return e


@pytest.fixture
def diary(tmp_path):
  with Diary(tmp_path / 'a' / 'diary.sqlite') as diary:
    sleeps(diary, 1, None, 'one')
    sleeps(diary, 2, 1, 'two')
    sleeps(diary, 3, 2, 'three')
    yield diary


def seen(diary):
  dreams = [(d.night, d.text, d.pairs, d.sources) for d in diary.dreams()]
  nights = [(n.number, n.state, n.payloads, n.result) for n in diary.nights()]
  return dreams, nights, [e.night for e in diary.experiences()]


def test_nights_go_into_another_diary_as_they_are(diary, tmp_path):
  rows = diary.night_rows(until=3)
  assert rows.generations == [1, 2] and rows.active == 2
  with Diary(tmp_path / 'b' / 'diary.sqlite') as other:
    for e in diary.experiences()[:2]:
      other.next_id(e.id + 10)
      assert other.append(time=e.time, speaker='Ana', content=e.content).id == e.id + 10
    with pytest.raises(ValueError, match='ids are never used twice'):
      other.next_id(5)
  with Diary(tmp_path / 'c' / 'diary.sqlite') as other:
    for e in diary.experiences()[:2]:
      other.append(time=e.time, speaker='Ana', content=e.content)
    other.add_night_rows(rows)
    assert [g.number for g in other.generations()] == [1, 2] and other.active() == 2
    assert seen(other)[0] == seen(diary)[0][:2] and seen(other)[1] == seen(diary)[1][:2]
    assert other.begin_night({}) == 3  # the numbers go on


def test_nights_take_the_place_of_others_in_one_transaction(diary, tmp_path):
  with Diary(tmp_path / 'b' / 'diary.sqlite') as other:
    for e in diary.experiences()[:1]:
      other.append(time=e.time, speaker='Ana', content=e.content)
    other.add_night_rows(diary.night_rows(until=2))
    sleeps(other, 2, 1, 'two')
    other.set_scores(1, Scores(importance=9.0, rater='again'))
    rows = other.night_rows(since=2)
    made = {2: manifest(7, (2,), 2, 1)}
    before = seen(diary)
    with pytest.raises(ValueError, match='night 4 is not over'):
      night = diary.begin_night({})
      diary.replace_nights(2, rows, made, active=7, scores=other.score_rows())
    diary.end_night(night, 'failed')
    assert seen(diary)[0] == before[0]
    gone = diary.replace_nights(2, rows, made, active=7, scores=other.score_rows())
  assert gone == (2, 3)
  assert [g.number for g in diary.generations()] == [1, 7] and diary.active() == 7
  assert [n.number for n in diary.nights()] == [1, 2]
  assert diary.night(2).result == {'generation': 7}
  assert [e.night for e in diary.experiences()] == [1, 2, None]
  scores = [dataclasses.astuple(e.scores)[0] for e in diary.experiences()]
  assert scores == [9.0, 2.0, 3.0]  # of those that the other knew
  assert [d.text for d in diary.dreams()] == ['one', 'two']


def test_feedback_is_known_in_the_order_in_which_it_was_given(diary):
  for id, value in ((1, 10.0), (2, 1.0), (1, 0.0)):
    diary.set_scores(id, Scores(importance=5.0, feedback=value))
  assert diary.given() == [(1, 10.0), (2, 1.0), (1, 0.0)]
