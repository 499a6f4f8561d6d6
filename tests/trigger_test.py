"""Nights begin when they should: once for what was lived, and not in quiet hours."""

from __future__ import annotations

import datetime

import pytest

from dreaming.memory.diary import Diary
from dreaming.sleep import trigger
from dreaming.sleep.trigger import TriggerConfig
from dreaming.types import Scores

UTC = datetime.UTC


def at(text: str) -> float:
  return datetime.datetime.fromisoformat(f'{text}+00:00').timestamp()


NOON, EVENING = at('2026-03-02T12:00'), at('2026-03-02T20:00')


@pytest.fixture
def diary(tmp_path):
  with Diary(tmp_path / 'diary.sqlite') as diary:
    for i in range(3):
      e = diary.append(time=NOON + 60 * i, speaker='P', content=f'said {i}')
      if i < 2:
        diary.set_scores(e.id, Scores(importance=4.0, rater='r'))
    yield diary


def due(diary, now=EVENING, **fields):
  return trigger.due(diary, now, TriggerConfig(**fields), UTC)


def _night(diary, started, state='rejected'):
  number = diary.begin_night({})
  diary._run('UPDATE nights SET started = ? WHERE number = ?', (started, number))
  if state:
    diary.end_night(number, state, {})
  return number


@pytest.mark.parametrize(
  ('fields', 'why'),
  [
    ({}, ''),
    ({'interactions': 3}, '3 interactions'),
    ({'interactions': 4}, ''),
    ({'importance': 8.0}, 'importance of 8'),
    ({'importance': 8.5}, ''),
    ({'idle_minutes': 60.0}, 'nobody has talked for 478 minutes'),
    ({'idle_minutes': 500.0}, ''),
    ({'at': '19:30'}, 'past 19:30'),
    ({'at': '20:30'}, ''),
    ({'at': '11:00'}, ''),  # all was said after that: it is for tomorrow
    ({'interactions': 1, 'quiet': '08:00-22:00'}, ''),
    ({'interactions': 1, 'quiet': '21:00-08:00'}, '3 interactions'),
    ({'interactions': 1, 'quiet': '19:00-08:00'}, ''),  # past midnight
  ],
)
def test_what_begins_a_night(diary, fields, why):
  found = due(diary, **fields)
  assert why in found and bool(why) == bool(found)


def test_the_same_experiences_begin_no_second_night(diary):
  _night(diary, at('2026-03-02T12:30'))  # rejected: nothing is consumed
  for fields in ({'interactions': 1}, {'importance': 1.0}, {'idle_minutes': 1.0}, {'at': '19:30'}):
    assert due(diary, **fields) == ''
  diary.append(time=at('2026-03-02T13:00'), speaker='P', content='and this')
  assert due(diary, interactions=1) == '1 interactions since the last night'


def test_at_its_hour_it_sleeps_once_a_day(diary):
  _night(diary, at('2026-03-02T19:31'))
  diary.append(time=at('2026-03-02T19:40'), speaker='P', content='late')
  assert due(diary, at='19:30') == ''
  assert due(diary, now=at('2026-03-03T19:29'), at='19:30') == ''
  assert 'past 19:30' in due(diary, now=at('2026-03-03T19:31'), at='19:30')


def test_a_night_that_was_cut_off_is_tried_again_later(diary):
  number = _night(diary, EVENING, state=None)
  assert due(diary, EVENING + 60, interactions=1) == ''
  assert due(diary, EVENING + 3600, interactions=1) == f'night {number} is not over'
  assert due(diary, EVENING + 3600) == ''  # nothing is armed


def test_an_empty_life_never_sleeps(tmp_path):
  with Diary(tmp_path / 'other.sqlite') as diary:
    assert due(diary, interactions=1, idle_minutes=1.0, at='00:00') == ''


@pytest.mark.parametrize(
  'fields',
  [{'at': '25:00'}, {'at': 'noon'}, {'quiet': '08:00'}, {'interactions': -1},
   {'importance': float('nan')}],
)  # fmt: skip
def test_bad_values_say_so(fields):
  (name,) = fields
  with pytest.raises(ValueError, match=f'trigger.{name}='):
    TriggerConfig(**fields)
