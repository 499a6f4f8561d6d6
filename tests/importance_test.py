"""The labelled events are as many and as even as they are said to be, and bad files are refused."""

from __future__ import annotations

import collections
import json
import pathlib
import re

import numpy as np
import pytest

from benchmarks import importance
from dreaming.memory import emotion, score

ROOT = pathlib.Path(__file__).parents[1]


def test_150_events_by_three_raters_in_two_parts():
  events = importance.load(importance.EVENTS)
  assert len(events) == len({e['text'] for e in events}) == 150
  assert collections.Counter(e['part'] for e in events) == {'dev': 50, 'test': 100}
  assert all(len(e['ratings']) == 3 for e in events)
  assert sum('emotion' in e for e in events) == 60
  domains = collections.Counter(e['domain'] for e in events)
  assert len(domains) >= 6 and set(domains.values()) == {10}
  mean = np.array([np.mean(e['ratings']) for e in events])
  counts, _ = np.histogram(mean, [1, 2, 4, 7, 9, 10.1])
  assert counts.min() >= 10  # trivial to life-changing
  lengths = [len(e['text']) for e in events]
  assert min(lengths) < 10 and max(lengths) > 150
  for a, b in ((0, 1), (0, 2), (1, 2)):
    agree = importance.spearman(*(([e['ratings'][i] for e in events]) for i in (a, b)))
    assert 0.85 < agree < 0.99


def test_no_event_is_an_example_or_a_day_s_line():
  def words(text):
    return re.findall(r'\w+', text.casefold())

  said = [score.RATING_PROMPT, emotion.EMOTION_PROMPT, *score.ANCHORS_LOW, *score.ANCHORS_HIGH]
  said += [*emotion.ANCHORS_CALM, *emotion.ANCHORS_MOVED]
  said += [x['text'] for x in json.loads((ROOT / 'days/priya.json').read_text())['interactions']]
  said += [x['text'] for x in json.loads((ROOT / 'benchmarks/messages.json').read_text())]
  known = {tuple(w[i : i + 5]) for w in map(words, said) for i in range(len(w) - 4)}
  for event in importance.load(importance.EVENTS):
    w = words(event['text'])
    assert not known & {tuple(w[i : i + 5]) for i in range(len(w) - 4)}, event['text']


def test_correlations():
  x = [1.0, 2.0, 3.0, 4.0]
  assert importance.spearman(x, [10, 20, 30, 999]) == pytest.approx(1.0)
  assert importance.spearman(x, [4, 3, 2, 1]) == pytest.approx(-1.0)
  assert importance.spearman(x, [5, 5, 5, 5]) == 0.0
  rng = np.random.default_rng(0)
  z = rng.normal(size=500)
  a, b = z + rng.normal(size=500), z + rng.normal(size=500)
  assert importance.spearman(a, b) > 0.4 and abs(importance.beyond(a, b, z)) < 0.1
  assert importance.beyond(a, b, rng.normal(size=500)) > 0.4
  low, high = importance.interval(a, b)
  assert low < importance.spearman(a, b) < high < low + 0.2


GOOD = [{'text': 'Hello', 'ratings': [1]}] * 3


@pytest.mark.parametrize(
  ('change', 'why'),
  [
    ({'text': ' '}, 'event 1: give a text'),
    ({'ratings': []}, 'event 1: give a text, and ratings'),
    ({'ratings': [11]}, 'ratings from 1 to 10'),
    ({'ratings': [True]}, 'ratings from 1 to 10'),
    ({'part': 'train'}, 'part is dev or test'),
    ({'emotion': 0}, 'emotion 1 to 10'),
    ({'text': 'x' * 70_000}, 'longer than 65,536 bytes'),
  ],
)
def test_a_bad_event_is_one_line(tmp_path, change, why):
  path = tmp_path / 'events.json'
  path.write_text(json.dumps([GOOD[0], GOOD[1] | change, GOOD[2]]))
  with pytest.raises(ValueError, match=why) as e:
    importance.load(path)
  assert '\n' not in str(e.value) and str(path) in str(e.value)


@pytest.mark.parametrize('text', ['', '{', '{}', '[1]', '[1, 2, 3]', '[null, null, null]'])
def test_a_bad_file_is_refused(tmp_path, text):
  path = tmp_path / 'events.json'
  path.write_text(text)
  with pytest.raises(ValueError, match='events.json'):
    importance.load(path)
  path.write_text(json.dumps(GOOD))
  assert importance.load(path) == GOOD
