"""Full text: what shares rare words is found, whatever is asked, and what is forgotten is not."""

from __future__ import annotations

import pytest

from dreaming import types
from dreaming.memory import words
from dreaming.memory.diary import Diary


@pytest.fixture
def diary(tmp_path):
  with Diary(tmp_path / 'diary.sqlite') as diary:
    yield diary


def tell(diary, *contents, **fields):
  return [
    diary.append(time=i, speaker='Ana', content=c, **fields).id for i, c in enumerate(contents)
  ]


def test_the_best_match_comes_first(diary):
  ids = tell(diary, 'the parrot', 'a parrot called Kiwi', 'nothing', 'kiwi fruit for the parrot')
  found = diary.by_words("What is the parrot's favourite kiwi fruit?", 10)
  assert next(iter(found)) == ids[3]
  assert found.keys() == {ids[0], ids[1], ids[3]}
  assert list(found.values()) == sorted(found.values(), reverse=True)
  assert len(diary.by_words('parrot', 2)) == 2


def test_words_are_folded_and_stemmed(diary):
  (one, two) = tell(diary, 'Das Café schließt', 'We were hiking')
  assert [*diary.by_words('cafe', 5)] == [one]
  assert [*diary.by_words('HIKED', 5)] == [two]


@pytest.mark.parametrize(
  'query',
  ['', '?!', '"', 'a" OR "b', 'NEAR(', '*', '-', 'text:', 'AND', 'x' * 10_000, '\0', '\ud800'],
)
def test_no_query_is_an_error(diary, query):
  tell(diary, 'a b')
  assert isinstance(diary.by_words(query, 5), dict)


def test_only_among(diary):
  ids = tell(diary, *(f'parrot {i}' for i in range(20)))
  assert set(diary.by_words('parrot', 3, ids[15:])) < set(ids[15:])
  assert diary.by_words('parrot', 3, []) == {}
  assert diary.by_words('parrot', 0) == {}


def test_common_words_do_not_count(diary, monkeypatch):
  monkeypatch.setattr(words, '_ROWS', 10)
  ids = tell(diary, *(f'the day {i}' for i in range(30)), 'the parrot')
  assert [*diary.by_words('the parrot', 50)] == [ids[-1]]
  assert diary.by_words('the day', 50) == {}
  diary.forget(ids[:25])
  assert [*diary.by_words('the day', 50)] == ids[25:-1]


def test_what_a_picture_shows_is_found(diary):
  media = (types.Media(kind='image', digest='0' * 64, description='a lighthouse'),)
  (id,) = tell(diary, 'Look!', media=media)
  assert [*diary.by_words('lighthouse', 5)] == [id]


def test_what_is_forgotten_is_nowhere_in_the_file(diary):
  media = (types.Media(kind='image', digest='0' * 64, description='a xylophonist'),)
  (gone,) = tell(diary, 'The zebrafinch sings.', media=media)
  tell(diary, *(f'More of it: {i} {i * 7919}' for i in range(200)))
  diary.forget([gone])
  assert diary.by_words('zebrafinch xylophonist', 5) == {}
  assert len(diary.by_words('7919', 5)) == 1
  diary._run('PRAGMA wal_checkpoint(TRUNCATE)')
  raw = diary.path.read_bytes()
  assert not any(word in raw.lower() for word in (b'zebra', b'xylo'))


def test_who_has_a_word_latest_first(diary):
  ids = tell(diary, 'my uncles', 'a parrot', 'An UNCLE of mine', 'her aunt')
  assert diary.having(['uncle', 'aunt'], 9) == [ids[3], ids[2], ids[0]]
  assert diary.having(['uncle', 'aunt'], 1) == [ids[3]]
  assert diary.having(['cousin'], 9) == []
