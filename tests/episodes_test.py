"""Which turns belong together."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming.memory import episodes
from dreaming.memory.index import Index
from dreaming.types import Experience

MINUTE = 60.0


def life(*turns):
  """(minute, topic, session): topics are orthogonal, topic None has no vector."""
  said = [
    Experience(
      id=i, time=minute * MINUTE, kind='chat', speaker='Ana' if i % 2 else 'Bea',
      content=f'turn {i}', session=session,
    )
    for i, (minute, _, session) in enumerate(turns, 1)
  ]  # fmt: skip
  known = [(i, topic) for i, (_, topic, _) in enumerate(turns, 1) if topic is not None]
  vectors = np.zeros((len(known), 8), np.float32)
  for row, (_, topic) in enumerate(known):
    vectors[row, topic] = 1.0
  return said, Index(np.array([i for i, _ in known]), vectors)


def ids(turns):
  return [e.ids for e in episodes.group(*life(*turns))]


@pytest.mark.parametrize(
  ('turns', 'want'),
  [
    ([], []),
    ([(0, 0, 's')], [(1,)]),
    ([(0, 0, 's'), (2, 1, 's'), (4, 2, 's')], [(1, 2, 3)]),  # within minutes, whatever it is about
    ([(0, 0, 's'), (20, 0, 's'), (40, 1, 's')], [(1, 2), (3,)]),  # after a pause by topic
    ([(0, 0, 's'), (61, 0, 's')], [(1,), (2,)]),  # after an hour whatever it is about
    ([(0, 0, 's'), (20, None, 's'), (22, 1, 's')], [(1, 2, 3)]),  # not known what it is about
    ([(0, 0, 's'), (1, 0, 't'), (2, 0, 's')], [(1, 3), (2,)]),  # two conversations at a time
    (
      [(0, 0, 's'), (1, 1, 's'), (2, 2, 's'), (20, 1, 's')],
      [(1, 2, 3, 4)],
    ),  # of what was just said
  ],
)
def test_gap_and_topic_part_them(turns, want):
  assert ids(turns) == want


def test_every_turn_is_of_one_episode_whatever_the_order():
  turns = [(7 * i, i // 3, 's' if i % 5 else 't') for i in range(30)]
  said, index = life(*[(m, t % 8, s) for m, t, s in turns])
  found = episodes.group(said[::-1], index)
  assert sorted(i for e in found for i in e.ids) == list(range(1, 31))
  assert found == episodes.group(said, index) and len(found) > 5


def test_what_an_episode_tells_of_itself():
  (e,) = episodes.group(*life((0, 0, 's'), (1, 1, 's'), (2, 1, 's'), (4, 2, 's')))
  assert (e.start, e.end, e.session) == (0.0, 4 * MINUTE, 's')
  assert e.speakers == ('Ana', 'Bea') and e.gist == 'turn 2'
