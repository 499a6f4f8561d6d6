"""A new encoder embeds a life anew while it goes on, and loses nothing when it is interrupted."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from configs import tiny
from dreaming.agent import Agent
from dreaming.memory import embed, reembed
from dreaming.memory.diary import Diary
from dreaming.memory.index import Index
from dreaming.memory.recall import RecallConfig, recall
from dreaming.memory.reembed import Reembedding


class Slow:
  """An encoder that waits to be let on, one batch at a time."""

  name, dim = 'slow', 4

  def __init__(self, free=0):
    self.free = threading.Semaphore(free)
    self.seen = []

  def __call__(self, texts):
    if len(texts) > 1:  # a query does not wait
      assert self.free.acquire(timeout=20)
      self.seen += texts
    rows = np.array([[len(t), t.count('e'), t.count('o'), 1.0] for t in texts], np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def diary(tmp_path, monkeypatch):
  monkeypatch.setattr(reembed, '_BATCH', 2)
  with Diary(tmp_path / 'diary.sqlite') as diary:
    for i, text in enumerate(('a parrot', 'one tree', 'a boat', 'two eels', 'a lighthouse', 'tea')):
      diary.append(time=10_000.0 * i, speaker='Ana', content=text)
    yield diary


def begin(diary, encoder):
  index = Index(*diary.embeddings(encoder.name))
  return index, Reembedding(diary, encoder, index, diary.unembedded(encoder.name))


def until(condition):
  for _ in range(2000):
    if condition():
      return
    threading.Event().wait(0.01)
  raise AssertionError('it never came')


def test_the_latest_come_first_and_it_goes_on_where_it_was_stopped(diary):
  encoder = Slow(free=1)
  index, running = begin(diary, encoder)
  until(lambda: running.done == 2)
  assert running.adopt() and running.total == 6
  assert sorted(index.ids.tolist()) == [5, 6] == diary.embeddings('slow')[0].tolist()
  encoder.free.release()  # the batch that it is at ends, and no other begins
  running.stop()
  assert not running.adopt() and len(index) == 4

  again = Slow(free=9)
  index, running = begin(diary, again)
  running.wait()
  assert again.seen == ['a parrot', 'one tree'] and len(index) == 6
  assert (running.done, running.total) == (2, 2)
  assert index.vector(1) == pytest.approx(again(['a parrot'])[0])


def test_words_find_what_has_no_vector_yet(diary):
  encoder = Slow()
  index, running = begin(diary, encoder)
  assert len(index) == 0

  def found(query):
    config = RecallConfig(recall_k=1, recall_weights=(0.0, 0.0, 1.0))
    return [r.experience.content for r in recall(diary, index, encoder, query, 1e6, config)]

  assert found('Where is the lighthouse?') == ['a lighthouse']
  assert found('Who has a parrot?') == ['a parrot']
  encoder.free.release(9)
  running.wait()
  assert found('Who has a parrot?') != []


def test_what_is_forgotten_or_said_meanwhile_is_no_trouble(diary):
  encoder = Slow()
  index, running = begin(diary, encoder)
  diary.forget([6, 1])
  e = diary.append(time=1e6, speaker='Ana', content='new')
  index.add(e.id, encoder(['new'])[0])
  diary.set_embedding(e.id, encoder(['new'])[0], 'slow')
  encoder.free.release(9)
  running.wait()
  assert sorted(index.ids.tolist()) == [2, 3, 4, 5, 7] and diary.unembedded('slow') == []


def test_what_ends_it_is_told_once_and_what_was_done_is_kept(diary):
  class Broken(Slow):
    def __call__(self, texts):
      if 'one tree' in texts:
        raise ValueError('the encoder has lost its words')
      return super().__call__(texts)

  index, running = begin(diary, Broken(free=9))
  with pytest.raises(ValueError, match='lost its words'):
    running.wait()
  assert not running.adopt() and len(index) == 4
  assert diary.unembedded('slow') == [1, 2]


def test_an_agent_talks_while_its_memories_are_embedded_anew(tmp_path, monkeypatch):
  monkeypatch.setattr(reembed, 'AT_ONCE', 3)
  monkeypatch.setattr(reembed, '_BATCH', 4)
  encoder = Slow()
  make = embed.make
  monkeypatch.setattr(embed, 'make', lambda n, encoders=False: encoder if encoders else make(n))
  c = tiny.get_config()
  c.workdir, c.cache = str(tmp_path / 'life'), str(tmp_path / 'cache')
  c.memory.encoder = 'another'
  with Agent(c) as agent:
    for i, text in enumerate(('parrot', 'boat', 'lighthouse', 'eel', 'tree')):
      agent.diary.append(time=1000.0 * i, speaker='Ana', content=f'There is the {text}.')
    assert agent.embedding is None
    assert agent.memories('lighthouse')[0].content == 'There is the lighthouse.'
    assert agent.embedding == (0, 5)
    agent.observe('There is a mole.', now=9000.0)
    assert 'There is a mole.' in [e.content for e in agent.memories('mole')]
    encoder.free.release(9)
    agent.adopt_vectors(wait=True)
    assert agent.embedding is None and len(agent.memories_index) == 6
  with Agent(c) as agent:
    assert len(agent.memories_index) == 6 and agent.embedding is None
    agent.diary.forget([1])
    agent.renew_indexes()
    assert len(agent.memories_index) == 5


def test_closing_does_not_wait_for_the_rest(tmp_path, monkeypatch):
  monkeypatch.setattr(reembed, 'AT_ONCE', 1)
  monkeypatch.setattr(reembed, '_BATCH', 2)
  encoder = Slow(free=1)
  make = embed.make
  monkeypatch.setattr(embed, 'make', lambda n, encoders=False: encoder if encoders else make(n))
  c = tiny.get_config()
  c.workdir, c.cache = str(tmp_path / 'life'), str(tmp_path / 'cache')
  c.memory.encoder = 'another'
  with Agent(c) as agent:
    for i in range(20):
      agent.diary.append(time=1000.0 * i, speaker='Ana', content=f'There are {i} eels.')
    assert len(agent.memories_index) == 0
    until(lambda: agent.embedding == (2, 20))
    encoder.free.release()
  with Diary(tmp_path / 'life' / 'diary.sqlite') as diary:
    assert 2 <= len(diary.embeddings('slow')[0]) <= 4
