"""What comes to mind: the parts of its score, its limits, and corrections."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dreaming import types
from dreaming.memory import score
from dreaming.memory.diary import Diary
from dreaming.memory.index import Index
from dreaming.memory.recall import RecallConfig, recall

HOUR = 3600.0
NOW = 1_772_442_600.0  # 2026-03-02 09:10 UTC
PLAIN = dict.fromkeys(
  ('words', 'before', 'names', 'names_near', 'when', 'speaker', 'length', 'hubness'), 0.0
)
CONFIG = RecallConfig(recall_k=3, min_relevance=0.1, near_duplicate=0.99, **PLAIN)


class Query:
  """The question has a vector of its own; memories are put in at chosen angles from it."""

  name, dim = 'query', 3

  def __call__(self, texts):
    return np.tile(np.array([[1.0, 0.0, 0.0]], np.float32), (len(texts), 1))


class World:
  def __init__(self, path):
    self.diary = Diary(path)
    self.index = Index(np.zeros(0), np.zeros((0, 0)))

  def remember(self, content, cosine=0.8, hours=0.0, importance=None, side=1.0, turn=0.0, **fields):
    scores = None if importance is None else types.Scores(importance=importance)
    e = self.diary.append(
      time=NOW - hours * HOUR, speaker='Priya', content=content, scores=scores, **fields
    )
    sine = np.sqrt(1 - cosine**2)
    self.index.add(e.id, [cosine, side * sine * np.cos(turn), side * sine * np.sin(turn)])
    return e

  def recall(self, query='?', now=NOW, config=CONFIG, **changes):
    config = dataclasses.replace(config, **changes)
    return recall(self.diary, self.index, Query(), query, now, config)


@pytest.fixture
def world(tmp_path):
  world = World(tmp_path / 'diary.sqlite')
  yield world
  world.diary.close()


def contents(recalled):
  return [r.experience.content for r in recalled]


def test_the_parts_are_shown_and_add_up(world):
  world.remember('a', cosine=0.6, hours=144, importance=8.0)
  (r,) = world.recall(recall_weights=(0.3, 0.5, 2.0))
  assert r.recency == pytest.approx(0.25)  # two half-lives of 72 hours
  assert (r.importance, r.corrects) == (8.0, None)
  assert r.relevance == pytest.approx(0.6)
  assert r.score == pytest.approx(0.3 * 0.25 + 0.5 * 0.8 + 2.0 * 0.6)


def test_each_part_can_decide(world):
  world.remember('new', cosine=0.5, hours=0, importance=1.0, side=-1)
  world.remember('important', cosine=0.5, hours=99, importance=10.0)
  world.remember('relevant', cosine=0.9, hours=99, importance=1.0)
  for weights, best in (
    ((1.0, 0.0, 0.0), 'new'),
    ((0.0, 1.0, 0.0), 'important'),
    ((0.0, 0.0, 1.0), 'relevant'),
  ):
    assert contents(world.recall(recall_weights=weights))[0] == best


def test_no_more_than_k_and_nothing_irrelevant(world):
  for i, cosine in enumerate((0.09, 0.3, 0.9, 0.5, 0.7)):
    world.remember(str(i), cosine=cosine, hours=500 + 2 * i, importance=10.0)
  assert contents(world.recall()) == ['2', '4', '3']
  assert contents(world.recall(recall_k=10)) == ['2', '4', '3', '1']
  assert world.recall(min_relevance=0.95) == []
  assert world.recall(recall_k=0) == [] and world.recall(query=' ') == []


def test_an_unrated_memory_counts_as_neutral_and_the_future_as_now(world):
  world.remember('tomorrow', hours=-24)
  (r,) = world.recall()
  assert r.importance == score.NEUTRAL and r.recency == 1.0


def test_recency_follows_the_clock_of_the_question(world):
  world.remember('old', cosine=0.5, hours=1000)
  world.remember('new', cosine=0.5, hours=1, side=-1)
  recencies = [
    {r.experience.content: r.recency for r in world.recall(now=NOW + h * HOUR)} for h in (0, 72)
  ]
  for content in ('old', 'new'):
    assert recencies[1][content] == pytest.approx(recencies[0][content] / 2)


def test_the_same_words_take_one_place_and_the_newest_counts(world):
  world.remember('I like tea.', hours=50)
  newest = world.remember('i like  tea.', hours=1)
  world.remember('I like tea.', hours=20)
  (r,) = world.recall()
  assert r.experience.id == newest.id


def test_a_correction_comes_in_the_place_of_what_it_corrects(world):
  old = world.remember('Kiwi is a parrot.', cosine=0.9, hours=30, turn=0.0)
  world.remember('Other.', cosine=0.7, hours=20, turn=2.0)
  world.remember('Another.', cosine=0.65, hours=20, turn=4.0)
  world.remember('Kiwi is a cockatiel.', cosine=0.5, hours=2, turn=0.1)
  plain = world.recall(recall_k=2, recall_weights=(0.0, 0.0, 1.0))
  assert contents(plain) == ['Kiwi is a parrot.', 'Other.']
  two = world.recall(recall_k=2, recall_weights=(0.0, 0.0, 1.0), near_duplicate=0.8)
  assert contents(two) == ['Kiwi is a cockatiel.', 'Other.']
  assert [r.corrects for r in two] == [old.id, None]
  every = world.recall(recall_k=9, recall_weights=(0.0, 0.0, 1.0), near_duplicate=0.8)
  assert contents(every) == ['Kiwi is a cockatiel.', 'Other.', 'Another.']


def test_what_was_said_at_the_time_that_is_asked_about_stays(world):
  world.remember('Kiwi is a parrot.', cosine=0.9, hours=30)
  world.remember('Kiwi is a cockatiel.', cosine=0.9, hours=2)
  found = world.recall('What did I say yesterday?', recall_k=1, near_duplicate=0.8, when=0.5)
  assert contents(found) == ['Kiwi is a parrot.']


def test_what_has_no_vector_is_near_nothing(world):
  world.remember('The lighthouse.', hours=3)
  for e in ('The parrot is grey.', 'The boat is new.'):
    world.diary.append(time=NOW, speaker='Priya', content=e)
  found = world.recall('Where is the boat?', words=0.05, near_duplicate=0.8, recall_k=2)
  assert contents(found) == ['The lighthouse.', 'The boat is new.']
  assert all(r.corrects is None for r in found)


def test_what_is_longer_tells_more_up_to_a_length(world):
  for side, n in enumerate((4, 16, 60)):
    world.remember('word ' * n, turn=2.0 * side)
  by_length = {r.experience.content.count('word'): r for r in world.recall(length=0.1)}
  scores = [by_length[n].score for n in (4, 16, 60)]
  assert scores[0] < scores[1] == pytest.approx(scores[2])


@pytest.mark.parametrize(
  'bad',
  [
    {'recall_weights': (1.0, -1.0, 0.0)},
    {'recency_half_life_hours': 0.0},
    {'sure_evidence': 1.0, 'min_evidence': 2.0},
    {'read_tokens': 20},
  ],
)
def test_bad_configs_are_refused(bad):
  with pytest.raises(ValueError, match=f'memory.{next(iter(bad))}'):
    RecallConfig(**bad)
