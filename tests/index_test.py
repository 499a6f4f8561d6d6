"""Exact search equals brute force, however the index came about."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming.memory import index as index_lib
from dreaming.memory.diary import Diary
from dreaming.memory.index import Index


def brute_force(ids, vectors, query, k):
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  cosines = unit @ (query / np.linalg.norm(query))
  order = np.argsort(-cosines)[:k]
  return [int(ids[i]) for i in order], cosines[order]


@pytest.mark.parametrize('start', [0, 1, 40])
def test_search_equals_brute_force_after_additions_and_replacements(start):
  rng = np.random.default_rng(start)
  ids = rng.permutation(1000)[:70]
  vectors = rng.normal(size=(70, 8)).astype(np.float32)
  index = Index(ids[:start], vectors[:start] if start else np.zeros((0, 0)))
  for id, vector in zip(ids[start:], vectors[start:], strict=True):
    index.add(int(id), rng.normal(size=8))
    index.add(int(id), vector)
  assert len(index) == 70 and index.ids.tolist() == ids.tolist() and index.dim == 8
  for k in (1, 7, 70, 500):
    query = rng.normal(size=8)
    expected_ids, expected = brute_force(ids, vectors, query, k)
    found = index.search(query, k)
    assert [id for id, _ in found] == expected_ids
    np.testing.assert_allclose([c for _, c in found], expected, atol=1e-5)


def test_an_index_does_not_write_into_what_it_was_given():
  ids, vectors = np.array([1, 2]), np.array([[2.0, 0.0], [0.0, 3.0]], np.float32)
  before = vectors.copy()
  index = Index(ids, vectors)
  index.add(1, np.array([0.0, 1.0]))
  np.testing.assert_array_equal(vectors, before)
  np.testing.assert_allclose(index.vector(1), [0, 1])


def test_equal_ones_come_in_their_order_and_zero_rows_are_like_nothing():
  index = Index(np.array([5, 3, 9]), np.array([[1.0, 0], [1.0, 0], [0, 0]]))
  assert index.search(np.array([1.0, 0]), 3) == [(5, 1.0), (3, 1.0), (9, 0.0)]
  assert index.search(np.array([0.0, 0]), 1) == [(5, 0.0)]
  ids = np.random.default_rng(0).permutation(300)  # many: short arrays are sorted stably anyway
  index = Index(ids, np.tile([[1.0, 0], [0, 1.0]], (150, 1)))
  found = [id for id, _ in index.search(np.array([1.0, 0]), 300)]
  assert found == [*ids[0::2], *ids[1::2]]


def test_an_empty_index_finds_nothing():
  index = Index(np.zeros(0), np.zeros((0, 0)))
  assert index.search(np.ones(4), 3) == [] and len(index) == 0 and 1 not in index
  assert index.search(np.ones(4), 0) == []


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match='twice'):
    Index(np.array([1, 1]), np.ones((2, 3)))
  with pytest.raises(ValueError, match='do not fit'):
    Index(np.array([1]), np.ones((2, 3)))
  index = Index(np.array([1]), np.ones((1, 3)))
  for act in (lambda: index.add(2, np.ones(4)), lambda: index.search(np.ones(4), 1)):
    with pytest.raises(ValueError, match='dimension 3, not 4'):
      act()


class Letters:
  """Counts letters: enough of an embedder to see which texts went through it."""

  name, dim = 'letters', 26

  def __init__(self):
    self.texts = []

  def __call__(self, texts):
    self.texts += texts
    rows = np.array([[t.lower().count(chr(97 + i)) for i in range(26)] for t in texts], np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def test_build_embeds_only_what_is_missing(tmp_path):
  with Diary(tmp_path / 'diary.sqlite') as diary:
    said = [diary.append(time=i, speaker='P', content=c * 3) for i, c in enumerate('abcde')]
    embedder = Letters()
    index = index_lib.build(diary, embedder, batch=2)
    assert embedder.texts == ['aaa', 'bbb', 'ccc', 'ddd', 'eee']
    assert index.search(embedder(['c'])[0], 1) == [(said[2].id, 1.0)]
    diary.append(time=9, speaker='P', content='zzz')
    embedder.texts.clear()
    assert len(index_lib.build(diary, embedder)) == 6
    assert embedder.texts == ['zzz']
