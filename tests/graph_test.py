"""A graph's file is believed when it is right, and made anew when it is not."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming.memory import graph, index
from dreaming.memory.graph import Graph
from dreaming.memory.index import Index


def rows(count, seed=0, dim=16):
  vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def built(monkeypatch):
  """How often a graph was built."""
  count = []
  build = graph._build
  monkeypatch.setattr(graph, '_build', lambda v: count.append(len(v)) or build(v))
  return count


def test_it_finds_what_an_exact_search_finds():
  vectors = rows(2000)
  near = Graph(vectors).near(vectors[7], 10)
  exact = np.argsort(-vectors @ vectors[7])[:10]
  assert near[0] == 7
  assert len({*near.tolist()} & {*exact.tolist()}) >= 9


def test_it_is_made_once(tmp_path, built):
  path = tmp_path / 'new' / 'words.usearch'
  first = Graph(rows(300), path).near(rows(300)[5], 4)
  again = Graph(rows(300), path).near(rows(300)[5], 4)
  assert built == [300]
  assert first.tolist() == again.tolist()
  Graph(rows(300, seed=1), path)
  assert built == [300, 300]  # other vectors
  Graph(rows(301, seed=1), path)
  assert built == [300, 300, 301]


def _flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(bytes(data))


@pytest.mark.parametrize('name', ['g', 'g.json'])
@pytest.mark.parametrize(
  'spoil',
  [_flip, lambda p: p.write_bytes(p.read_bytes()[:-9]), lambda p: p.write_bytes(b''),
   lambda p: p.unlink(), lambda p: p.write_text('[1]')],
)  # fmt: skip
def test_a_spoilt_one_is_made_anew(tmp_path, built, name, spoil):
  path = tmp_path / 'g'
  good = Graph(rows(200), path).near(rows(200)[3], 5).tolist()
  spoil(tmp_path / name)
  assert Graph(rows(200), path).near(rows(200)[3], 5).tolist() == good
  assert len(built) == 2
  Graph(rows(200), path)
  assert len(built) == 2


def test_a_large_index_looks_at_what_was_added_since(monkeypatch, built):
  monkeypatch.setattr(index, '_EXACT', 100)
  vectors = rows(150)
  large = Index(np.arange(1, 121), vectors[:120])
  assert large.search(vectors[3], 1) == [(4, pytest.approx(1.0, abs=1e-5))]
  for i in range(120, 150):
    large.add(i + 1, vectors[i])
    assert large.search(vectors[i], 1)[0][0] == i + 1
  assert built == [120]
  for i in range(150, 170):
    large.add(i + 1, rows(1, seed=i)[0])
    large.search(vectors[0], 1)
  assert built == [120, 157]  # a third more than it was made of
  large.add(4, vectors[100])  # another vector in its place
  assert [i for i, _ in large.search(vectors[100], 2)] in ([101, 4], [4, 101])
