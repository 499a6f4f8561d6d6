"""What recall keeps in memory is what the diary says, whatever was added, scored or forgotten."""

from __future__ import annotations

import random

import numpy as np
import pytest

from dreaming import types
from dreaming.memory import columns
from dreaming.memory.diary import Diary

HOUR = 3600.0


@pytest.fixture
def diary(tmp_path):
  with Diary(tmp_path / 'diary.sqlite') as diary:
    yield diary


def say(diary, content='Hello there.', time=0.0, session='s', speaker='Ana', **fields):
  return diary.append(time=time, speaker=speaker, content=content, session=session, **fields).id


def turns(diary):
  """{id: (turn before, the one before that, turn after)}, 0 for none."""
  table = diary.columns()
  rows = np.arange(table.count)
  found = np.stack([*table.before(rows), table.after(rows)], axis=1)
  ids = table.ids
  return {int(ids[i]): tuple(int(ids[j]) if j >= 0 else 0 for j in found[i]) for i in rows}


def told(diary):
  """The same, from the experiences themselves."""
  everything, out = diary.experiences(), {}
  for e in everything:
    own = [x for x in everything if x.session == e.session and abs(x.time - e.time) <= HOUR]
    own.sort(key=lambda x: (x.time, x.id))
    at = [x.id for x in own].index(e.id)
    ids = [0, 0, *(x.id for x in own), 0]
    out[e.id] = (ids[at + 1], ids[at], ids[at + 3])
  return out


@pytest.mark.parametrize('seed', range(4))
def test_turns_are_right_however_they_came(diary, seed):
  rng = random.Random(seed)
  for i in range(60):
    orderly = seed % 2 == 0
    time = 600.0 * i if orderly else 600.0 * rng.randrange(60)
    say(diary, time=time, session=rng.choice('ab'))
    if rng.random() < 0.3:
      assert turns(diary) == told(diary)
  assert turns(diary) == told(diary)
  gone = rng.sample(range(1, 61), 20)
  diary.forget(gone)
  assert turns(diary) == told(diary)


def test_rows_of_ids(diary):
  ids = [say(diary) for _ in range(5)]
  diary.forget(ids[1:3])
  table = diary.columns()
  assert table.rows([ids[4], ids[2], 99, ids[0], -1]).tolist() == [2, -1, -1, 0, -1]
  assert table.rows([]).tolist() == []
  assert columns.Table().rows([1]).tolist() == [-1]


def test_the_latest_score_counts(diary):
  first, second = say(diary), say(diary)
  assert np.isnan(diary.columns().importance[:2]).all()
  diary.set_scores(second, types.Scores(importance=3.0))
  diary.set_scores(second, types.Scores(importance=7.0))
  assert diary.columns().importance[1] == 7.0
  diary.set_scores(first, types.Scores(importance=2.0))
  assert diary.columns().importance[:2].tolist() == [2.0, 7.0]


def test_lengths_and_what_is_the_same(diary):
  say(diary, ' I  like\ntea. ')
  say(diary, 'i like tea.')
  say(diary, 'I like tea.', speaker='Bo')
  table = diary.columns()
  assert table.length[:3].tolist() == [3, 3, 3]
  assert table.said[0] == table.said[1] != table.said[2]


def test_what_is_rolled_back_was_never_there(diary):
  say(diary, 'one')
  with pytest.raises(RuntimeError), diary.transaction():
    say(diary, 'two of four words')
    assert diary.columns().count == 2
    raise RuntimeError
  assert diary.columns().count == 1
  say(diary, 'three')  # with the id that was given to the other
  table = diary.columns()
  assert (table.count, table.length[1]) == (2, 1)
  assert diary.folded(table, [0, 1]) == ['ana one', 'ana three']


def test_what_another_process_tells_is_seen(diary):
  say(diary)
  assert diary.columns().count == 1
  with Diary(diary.path) as other:
    say(other, 'More.')
    other.set_scores(1, types.Scores(importance=9.0))
  table = diary.columns()
  assert (table.count, table.importance[0]) == (2, 9.0)


def test_texts_are_read_once_and_few_are_kept(diary, monkeypatch):
  monkeypatch.setattr(columns, '_TEXTS', 3)
  monkeypatch.setattr(columns, '_LONG', 20)
  for text in ('A', 'B', 'C', 'D', 'E' * 30):
    say(diary, text)
  table = diary.columns()
  assert diary.folded(table, [0, 1, 2]) == ['ana a', 'ana b', 'ana c']
  with monkeypatch.context() as closed:
    closed.setattr(diary, '_run', None)
    assert diary.folded(table, [2, 0]) == ['ana c', 'ana a']
  assert diary.folded(table, [3, 4, 0]) == ['ana d', f'ana {"e" * 30}', 'ana a']
  assert len(table.texts) <= 3


def test_what_is_forgotten_is_not_in_memory(diary):
  say(diary, 'one')
  gone = say(diary, 'secret')
  diary.folded(diary.columns(), [0, 1])
  diary.forget([gone])
  table = diary.columns()
  assert (table.count, table.texts) == (1, {})


def test_what_is_archived_is_not_looked_at_until_it_comes_back(diary):
  ids = [diary.append(time=float(i), speaker='Ana', content=f'words {i}').id for i in range(3)]
  assert diary.columns().count == 3
  diary.archive([ids[1]])
  table = diary.columns()
  assert table.ids[: table.count].tolist() == [ids[0], ids[2]]
  diary.restore([ids[1]])
  table = diary.columns()
  assert table.ids[: table.count].tolist() == ids
