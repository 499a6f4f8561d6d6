"""What a night dreams of: the profound, the different, the trusted, in order of time."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming import types
from dreaming.memory.diary import Diary
from dreaming.memory.score import ProfoundnessWeights
from dreaming.sleep.select import SelectConfig, select

DAY = 86_400.0
NOW = 100 * DAY


@pytest.fixture
def diary(tmp_path):
  with Diary(tmp_path / 'diary.sqlite') as diary:
    yield diary


def live(diary, content, importance=5.0, days=1.0, vector=None, **fields):
  scores = (
    None if importance is None else types.Scores(importance=importance, **fields.pop('s', {}))
  )
  e = diary.append(time=NOW - days * DAY, speaker='P', content=content, scores=scores, **fields)
  if vector is not None:
    diary.set_embedding(e.id, np.asarray(vector), 'e')
  return e


def chosen(diary, **config):
  return [e.content for e in select(diary, diary.embeddings('e'), SelectConfig(**config), NOW)]


def test_the_most_profound_in_order_of_time(diary):
  for content, importance, days in (('c', 9, 1), ('b', 2, 2), ('a', 8, 3), ('d', 3, 0.5)):
    live(diary, content, importance, days)
  assert chosen(diary) == ['a', 'b', 'c', 'd']
  assert chosen(diary, top_k=2) == ['a', 'c']
  assert chosen(diary, threshold=3) == ['a', 'c', 'd']
  assert chosen(diary, period_days=2.5, top_k=2) == ['c', 'd']
  assert chosen(diary, threshold=10) == []


def test_an_empty_diary_gives_an_empty_night(diary):
  assert chosen(diary) == []


def test_diversity_passes_over_what_is_alike(diary):
  live(diary, 'one', 9.0, 3, [1.0, 0.0])
  live(diary, 'one again', 8.9, 2, [2.0, 0.05])  # rows need not be unit
  live(diary, 'two', 7.0, 1, [0.0, 1.0])
  assert chosen(diary, top_k=2, diversity=0.0) == ['one', 'one again']
  assert chosen(diary, top_k=2, diversity=0.3) == ['one', 'two']
  assert chosen(diary, top_k=2, diversity=1.0) == ['one', 'two']
  assert chosen(diary, top_k=3, diversity=1.0) == ['one', 'one again', 'two']


def test_without_a_vector_an_experience_is_unlike_all_others(diary):
  live(diary, 'one', 9.0, 3, [1.0, 0.0])
  live(diary, 'one again', 8.9, 2, [1.0, 0.0])
  live(diary, 'no vector', 5.0, 1)
  assert chosen(diary, top_k=2, diversity=0.5) == ['one', 'no vector']


def test_foreign_text_is_not_dreamt_unless_approved(diary):
  for trust in types.Trust:
    live(diary, trust.name, trust=trust)
  assert sorted(chosen(diary)) == ['APPROVED', 'USER']


def test_what_a_night_consumed_is_not_chosen_again_until_it_is_rolled_back(diary):
  a, _ = live(diary, 'a', days=2), live(diary, 'b', days=1)
  night = diary.begin_night({})
  manifest = types.Manifest(
    number=1,
    parent=None,
    night=night,
    created=0.0,
    base='',
    sources=(a.id,),
    seed=0,
    files={},
    lora={},
    scores={},
    config={},
  )
  diary.promote(manifest, [a.id], night)
  assert chosen(diary) == ['b']
  diary.activate(0)
  assert chosen(diary) == ['a', 'b']


def test_weights_decide_what_profound_means_and_unrated_is_neutral(diary):
  live(diary, 'important', 9.0, 3)
  live(diary, 'novel', 2.0, 2, s={'novelty': 10.0})
  live(diary, 'unrated', None, 1)
  assert chosen(diary, top_k=1) == ['important']
  assert chosen(diary, top_k=1, weights=ProfoundnessWeights(importance=0.1, novelty=1.0)) == [
    'novel'
  ]
  assert chosen(diary, threshold=5.0) == ['important', 'unrated']


@pytest.mark.parametrize('bad', [{'top_k': 0}, {'diversity': 1.5}, {'period_days': -1.0}])
def test_bad_configs_are_refused(bad):
  with pytest.raises(ValueError, match=f'select.{next(iter(bad))} is'):
    SelectConfig(**bad)
