"""What a night dreams of: the profound, the different, the trusted, in order of time."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming import types
from dreaming.memory.diary import Diary
from dreaming.memory.score import UNWANTED, WANTED, ProfoundnessWeights
from dreaming.sleep import select as select_lib
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


def test_what_was_asked_for_has_its_place_and_what_was_to_be_forgotten_has_none(diary):
  live(diary, 'secret', 10.0, 4, s={'feedback': UNWANTED})
  live(diary, 'asked for', 1.0, 3, s={'feedback': WANTED})
  live(diary, 'liked', 3.0, 2, s={'feedback': 9.0})
  live(diary, 'profound', 9.0, 1)
  assert chosen(diary, threshold=4.0) == ['asked for', 'profound']
  assert chosen(diary, threshold=4.0, top_k=1) == ['asked for']
  assert chosen(diary, fraction=0.01) == ['asked for']
  weights = ProfoundnessWeights(importance=1.0, feedback=1.0)  # then 'liked' is worth 6
  assert chosen(diary, threshold=4.0, weights=weights) == ['asked for', 'liked', 'profound']


def test_of_too_much_that_was_asked_for_the_latest_comes_first(diary):
  for i in range(4):
    live(diary, str(i), 9.0 - i, 9 - i, s={'feedback': WANTED})
  live(diary, 'profound', 10.0, 1)
  assert chosen(diary, top_k=3, recent=1) == ['1', '2', '3']
  assert chosen(diary, top_k=2, fraction=0.1) == ['2', '3']


def test_asking_does_not_make_foreign_or_consumed_text_fit(diary):
  live(diary, 'imported', 9.0, trust=types.Trust.IMPORTED, s={'feedback': WANTED})
  live(diary, 'old', 9.0, 9, s={'feedback': WANTED})
  assert chosen(diary, period_days=2.0) == []


@pytest.mark.parametrize(
  ('fraction', 'count'), [(0.0, 24), (1.0, 24), (0.01, 1), (0.05, 2), (0.2, 5), (0.28, 7)]
)
def test_a_fraction_is_of_those_above_the_threshold_and_at_most_top_k(diary, fraction, count):
  for i in range(25):  # 0.28 * 25 is a little above 7 in floating point
    live(diary, str(i), 5.0 + i / 10, 30 - i)
  for _ in range(5):
    live(diary, 'trivial', 1.0)
  assert chosen(diary, threshold=4.0, fraction=fraction) == [str(i) for i in range(25)][-count:]
  assert len(chosen(diary, threshold=4.0, fraction=fraction, top_k=4)) == min(count, 4)


def test_the_latest_have_their_place(diary):
  for i, importance in enumerate((9, 8, 1, 1)):
    live(diary, str(i), importance, 9 - i)
  assert chosen(diary, threshold=4.0) == ['0', '1']
  assert chosen(diary, threshold=4.0, recent=1) == ['0', '1', '3']
  assert chosen(diary, threshold=4.0, recent=2, top_k=3) == ['0', '2', '3']
  live(diary, 'secret', 9.0, 0.5, s={'feedback': UNWANTED})
  assert chosen(diary, threshold=4.0, recent=1) == ['0', '1', '3']


class Compass:
  name, dim = 'e', 2

  def __call__(self, texts):
    return np.array([{'east': [1.0, 0.0], 'north': [0.0, 1.0]}[t] for t in texts], np.float32)


def test_what_is_like_a_theme_counts_as_profounder(diary):
  live(diary, 'eastern', 2.0, 5, [3.0, 0.0])
  live(diary, 'western', 4.5, 4, [-1.0, 0.0])
  live(diary, 'between', 3.0, 3, [1.0, 1.0])
  live(diary, 'no vector', 3.0, 2)

  def themed(*themes, **config):
    c = SelectConfig(themes=themes, threshold=4.0, **config)
    return [e.content for e in select(diary, diary.embeddings('e'), c, NOW, Compass())]

  assert themed() == ['western']
  assert themed('east') == ['eastern', 'western', 'between']
  assert themed('east', theme_weight=1.9) == ['western', 'between']
  assert themed('north') == themed('north', theme_weight=2.0) == ['western', 'between']
  assert themed('north', 'east') == ['eastern', 'western', 'between']
  assert themed('east', theme_weight=0.0) == ['western']
  with pytest.raises(ValueError, match='need the embedder'):
    chosen(diary, themes=('east',))


@pytest.mark.parametrize(
  'bad',
  [
    {'top_k': 0},
    {'diversity': 1.5},
    {'period_days': -1.0},
    {'fraction': 1.1},
    {'fraction': float('nan')},
    {'recent': -1},
    {'recent': 25},
    {'themes': ('home', ' ')},
    {'theme_weight': -1.0},
    {'theme_weight': float('inf')},
  ],
)
def test_bad_configs_are_refused(bad):
  with pytest.raises(ValueError, match=f'select.{next(iter(bad))} is'):
    SelectConfig(**bad)


# ---- As it is read ----


class Reads:
  """Its tokens are bytes; a quarter of its context are ten."""

  cache_length = 40

  class tokenizer:
    encode = staticmethod(lambda text: list(text.encode()))
    decode = staticmethod(lambda ids: bytes(ids).decode(errors='replace'))


@pytest.mark.parametrize(
  ('said', 'read'),
  [
    ('One two.', 'One two.'),
    ('One two. Three four.', 'One two.'),  # whole sentences
    ('I am. Seven eight.', 'I am.'),
    ('abcdefg hijklmn', 'abcdefg'),  # or words
    ('a bcdefghijklmn', 'a bcdefghi'),  # or what fits
    ('𠀀𠀀𠀀𠀀', '𠀀𠀀'),
    ('b' + ' ' * 12, 'b'),
  ],
)
def test_of_what_is_long_the_beginning_is_read(diary, said, read):
  e = diary.append(time=1.0, kind='chat', speaker='Ana', content=said, response=said)
  (found,) = select_lib.chosen(diary, [e.id], SelectConfig(), Reads())
  assert (found.content, found.response) == (read, read)
  (whole,) = select_lib.chosen(diary, [e.id], SelectConfig())
  assert whole.content == said == diary.experiences()[0].content
