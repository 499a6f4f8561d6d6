"""What is near to everything: as it is defined, however it came to be known."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming.memory import hubness
from dreaming.memory.hubness import Hubness
from dreaming.memory.index import Index


def unit(rng, n, d=8):
  vectors = rng.normal(size=(n, d)).astype(np.float32)
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def defined(vectors, rows, k=5):
  cosines = np.clip(vectors @ vectors.T, 0.0, 0.7)
  np.fill_diagonal(cosines, 0.0)
  return np.sort(cosines, axis=1)[rows, -k:].sum(axis=1) / k


@pytest.mark.parametrize('n', [1, 2, 5, 6, 200])
def test_it_is_the_mean_of_the_five_nearest(n):
  vectors, rows = unit(np.random.default_rng(n), n), np.arange(n)[::-2]
  got = Hubness().of(np.arange(1, n + 1), vectors, rows)
  np.testing.assert_allclose(got, defined(vectors, rows), atol=1e-6)


def test_what_is_told_over_and_over_loses_little():
  vectors = unit(np.random.default_rng(3), 40, 32)
  again = np.concatenate([vectors, np.repeat(vectors[:1], 6, axis=0)])
  once, often = (Hubness().of(np.arange(len(v)), v, np.array([0]))[0] for v in (vectors, again))
  assert once < often <= 0.7


def test_what_is_added_counts_for_what_was_known(monkeypatch):
  rng = np.random.default_rng(0)
  vectors, ids = unit(rng, 300), 7 * np.arange(1, 301)
  for most in (1024, 64):
    monkeypatch.setattr(hubness, '_SAMPLE', most)
    grown = Hubness()
    for n in (1, 3, 40, 41, 100, 299, 300):
      rows = rng.integers(0, n, 20)
      got = grown.of(ids[:n], vectors[:n], rows)
      np.testing.assert_allclose(got, Hubness().of(ids[:n], vectors[:n], rows), atol=1e-6)
      if n <= most and n > 5:
        np.testing.assert_allclose(got, defined(vectors[:n], rows), atol=1e-6)


def test_of_many_a_sample_stands_for_all(monkeypatch):
  monkeypatch.setattr(hubness, '_SAMPLE', 200)
  rng = np.random.default_rng(1)
  vectors = unit(rng, 1000, 32)
  vectors[500:] = unit(rng, 1, 32)[0] + 0.8 * vectors[500:]  # half are alike
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  for step in (1, 2, 8):  # whatever the ids have in common
    got = Hubness().of(step * np.arange(1000), vectors, np.arange(1000))
    assert np.median(got[500:]) > 0.65 > np.median(got[:500]) > 0.3


def test_an_index_tells_it_by_id():
  vectors = unit(np.random.default_rng(2), 9)
  index = Index(np.arange(10, 19), vectors)
  assert np.isnan(index.hubness([99, 10])).tolist() == [True, False]
  np.testing.assert_allclose(index.hubness([12]), defined(vectors, [2]), atol=1e-6)
  vectors[4] = vectors[2]
  index.add(14, vectors[4])  # replaced
  np.testing.assert_allclose(index.hubness([12]), defined(vectors, [2]), atol=1e-6)
  assert index.hubness([]).shape == (0,)
  assert np.isnan(Index(np.zeros(0), np.zeros((0, 0))).hubness([1])).all()
