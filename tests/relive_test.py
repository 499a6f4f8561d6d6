"""A life is lived again without something: its nights are those of a life that never had it.

The nights here are toys, which depend on all that a night may depend on: what was chosen, scores,
feedback, number, seed, parent, dreams of before. benchmarks/forgetting.py --quick lives real ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types

import numpy as np
import pytest

from configs import tiny
from dreaming import configuration
from dreaming.agent import Agent
from dreaming.identity import forget, generations, relive
from dreaming.memory import corroborate, rating
from dreaming.memory.index import Index
from dreaming.sleep import artifacts, lineage, select
from dreaming.sleep.outcome import plain
from dreaming.types import QA, Dream, Mind, Trust

DAY = 86_400.0
SECRET = 'My brother Ruben plays the cello in Nairobi.'
DAYS = (
  ('I have a parrot, his name is Biscuit.', 'My flat is in Porto, near the river.'),
  (SECRET, 'I am learning Finnish with Aino.', 'My brother has a new bow for his cello.'),
  ('My bike is a green Raleigh.', 'On Friday I start at the bakery.'),
)


class Rater:
  """Rates by the length of the text."""

  tokenizer = None

  def logprobs(self, mind, prompts, continuations, *, prefix=''):
    return [
      np.array([-((int(c) - min(len(p) / 12, 10)) ** 2)])
      for p, c in zip(prompts, continuations, strict=True)
    ]


class Toy:
  """A sleeper; `dies` is the call of `sleep` that is killed, after its dreams."""

  def __init__(self, embedder):
    self.embedder, self.calls, self.dies = embedder, 0, 0

  def ready(self, diary, config):
    diary.corroborate(corroborate.witnesses(diary.experiences()))
    index = Index(*diary.embeddings(self.embedder))
    rating.rate(diary, index, Rater(), Mind(params={}), model='m')

  def sleep(self, diary, identity, path, config, now):
    self.calls += 1
    number = diary.open_night() or diary.begin_night(plain(dataclasses.asdict(config)))
    vectors = diary.embeddings(self.embedder)
    found = select.select(diary, vectors, config.select, now)
    ids, parent = [e.id for e in found], diary.active()
    last = max(diary.ids(archived=None), default=0)
    diary.set_night_step(number, 'select', {'ids': ids, 'now': now, 'last': last, 'parent': parent})
    if not ids:
      return diary.end_night(number, 'rejected', {'outcome': 'empty'})
    if not diary.dreams(number):
      diary.add_dreams([
        Dream(
          id=0, night=number, style='statement', text=f'{e.content} {e.scores}', sources=(e.id,),
          pairs=(QA(question=f'What of {e.time}?', answer=e.content),),
        )
        for e in select.chosen(diary, ids, config.select)
      ])  # fmt: skip
    if self.calls == self.dies:
      raise KeyboardInterrupt
    root = path / 'generations'
    rehearsed = [(d.text, d.pairs) for d in lineage.rehearsal(diary)]
    dreamt = [(d.text, d.pairs, d.trust) for d in diary.dreams(number)]
    seed = hashlib.sha256(repr((config.seed, number, dreamt, rehearsed)).encode()).digest()
    a = np.random.default_rng(list(seed)).normal(size=4).astype(np.float32)
    if parent:
      a += generations.load(root, parent)[1]['layers']['q']['a'] / 2
    made = generations.save(
      root, generations.next_number(root), adapter={'layers': {'q': {'a': a}}},
      beside={'fisher.npz': {'a': a**2}},
      manifest_fields={
        'parent': parent or None, 'night': number, 'created': now, 'base': 'b', 'sources': ids,
        'seed': config.seed, 'lora': {}, 'scores': {}, 'config': {},
      },
    )  # fmt: skip
    fields = {'path': made.path, 'result': {'generation': made.number}}
    diary.promote(made.manifest, ids, number, **fields)
    return None

  def __call__(self):
    return relive.Sleeper(
      base=types.SimpleNamespace(params={}, arch=None, digest='b'), embedder=self.embedder,
      ready=self.ready, sleep=self.sleep, config=configuration.night_of,
    )  # fmt: skip


def opened(home, name):
  c = tiny.get_config()
  c.workdir, c.cache = str(home / name), str(home / 'cache')
  c.score.novelty = 1.0  # what was said before counts, also when it is forgotten
  c.select.top_k = 2
  agent = Agent(c)
  agent._sleeper = Toy(agent.embedder.name)
  return agent


def slept(agent, now):
  toy, config = agent._sleeper, agent.night_config
  toy.ready(agent.diary, config)
  toy.sleep(agent.diary, None, agent.workdir, config, now)


def lived(home, name, without=(), days=DAYS):
  """An agent after some days, a night after each."""
  agent = opened(home, name)
  for d, said in enumerate(days):
    for i, text in enumerate(said):
      if text not in without:
        agent.observe(text, 'I see.', now=(1 + d) * DAY + i, session=f'day {d}')
    slept(agent, (1 + d) * DAY + 1000)
  return agent


def adapters(agent):
  """night -> digest of its adapter, of the generation that serves and its ancestors."""
  found = {}
  numbers = {g.manifest.night: g.number for g in agent.generations()}
  for n in lineage.nights(agent.diary):
    generation, adapter, masks = generations.load(agent.workdir / 'generations', numbers[n])
    beside = generations.beside(generation)
    assert beside  # it comes along
    found[n] = artifacts.digest([adapter, masks, beside])
  return found


def dreamt(agent):
  return [(d.night, d.style, d.text, d.pairs, d.status) for d in agent.diary.dreams()]


def scored(agent):
  return {e.content: e.scores for e in agent.diary.experiences()}


def everything(agent):
  """All bytes below the identity's directory."""
  agent.diary._run('PRAGMA wal_checkpoint(TRUNCATE)')
  return b''.join(p.read_bytes() for p in agent.workdir.rglob('*') if p.is_file())


def test_a_life_without_it_has_the_same_bytes(tmp_path):
  with lived(tmp_path, 'never', without=(SECRET,)) as never:
    expected, dreams, scores = adapters(never), dreamt(never), scored(never)
  with lived(tmp_path, 'life') as agent:
    before = adapters(agent)
    assert set(before) == set(expected) == {1, 2, 3}
    assert before[1] == expected[1] and before[2] != expected[2] and before[3] != expected[3]
    assert scored(agent) != scores  # the bow was less of a news
    [gone] = [e.id for e in agent.diary.experiences() if e.content == SECRET]
    assert b'Nairobi' in everything(agent)
    receipt = agent.replay([gone])
    assert adapters(agent) == expected
    assert dreamt(agent) == dreams and scored(agent) == scores
    assert b'Nairobi' not in everything(agent) and b'Ruben' not in everything(agent)
    # The first night knew nothing of it: it stays; the two others have new generations.
    assert [g.number for g in agent.generations()] == [1, 4, 5]
    assert sorted(p.name for p in (agent.workdir / 'generations').iterdir()) == ['1', '4', '5']
    assert [n.result['generation'] for n in agent.diary.nights()] == [1, 4, 5]
    assert receipt.complete and receipt.replayed == (2, 3)
    assert receipt.removed['experiences'] == 1 and receipt.removed['generations'] == 2
    assert agent.status().active == 5 and agent.diary.begin_night({}) == 4
    assert not forget.replaying(agent.workdir) and not (agent.workdir / forget.TWIN).exists()
    kept = json.loads((agent.workdir / 'forgotten' / '0002.json').read_text())
    assert kept['complete'] and kept['ids'] == [gone] and kept['replayed'] == [2, 3]


@pytest.mark.parametrize('dies', [1, 2])
def test_a_killed_replay_goes_on_and_ends_with_the_same_bytes(tmp_path, dies):
  days, gone = DAYS[:2], DAYS[0][0]
  with lived(tmp_path, 'never', without=(gone,), days=days) as never:
    expected = adapters(never)
  with lived(tmp_path, 'life', days=days) as agent:
    agent._sleeper.calls, agent._sleeper.dies = 0, dies
    with pytest.raises(KeyboardInterrupt):
      agent.replay([1])
    assert agent.diary.active() == 2  # the old weights serve
    assert forget.replaying(agent.workdir)
    with pytest.raises(ValueError, match='a replay is not over'):
      agent.forget([2])
    with pytest.raises(ValueError, match='is not over: finish it first'):
      agent.replay([2])
  with opened(tmp_path, 'life') as again:
    receipt = again.replay()
    assert adapters(again) == expected
    assert receipt.removed['experiences'] == 1 and receipt.ids == (1,)


def test_killed_while_it_takes_their_place_it_ends_the_same(tmp_path, monkeypatch):
  with lived(tmp_path, 'never', without=(SECRET,)) as never:
    expected = adapters(never)
  discard, calls = generations.discard, []

  def dies(*args):
    calls.append(args)
    if len(calls) == 2:
      raise KeyboardInterrupt
    discard(*args)

  with lived(tmp_path, 'life') as agent:
    with monkeypatch.context() as m:
      m.setattr(generations, 'discard', dies)
      with pytest.raises(KeyboardInterrupt):
        agent.replay([3])
    assert adapters(agent) == expected  # the new ones serve; an old one is left
  with opened(tmp_path, 'life') as again:
    assert again.replay().complete and adapters(again) == expected
    there = {p.name for p in (again.workdir / 'generations').iterdir()}
    assert there == {str(g.number) for g in again.generations()}


def test_what_came_of_it_goes_and_what_was_given_by_hand_stays(tmp_path):
  """A wish that was told in it, words that it corroborated, a rating that was given."""
  wish, page = 'Please remember: I have a parrot, his name is Biscuit.', 'His name is Biscuit.'

  def life(name, without=()):
    agent = opened(tmp_path, name)
    agent.observe('The tram was late.', now=DAY, session='a')
    liked = agent.observe('I like the smell of tea.', now=DAY + 1, session='a')
    agent.feedback(10, liked.id)
    if not without:
      agent.observe(wish, now=DAY + 2, session='a')
    agent.observe(page, now=DAY + 3, session='mail', trust=Trust.THIRD_PARTY)
    slept(agent, 2 * DAY)
    agent.observe('My bike is a green Raleigh.', now=3 * DAY, session='b')
    slept(agent, 4 * DAY)
    return agent

  with life('never', without=(wish,)) as never:
    expected, dreams = adapters(never), dreamt(never)
  with life('life') as agent:
    assert adapters(agent) != expected
    agent.replay([3])
    assert adapters(agent) == expected and dreamt(agent) == dreams
    assert {e.content: e.trust for e in agent.diary.experiences()}[page] == Trust.THIRD_PARTY


def test_nights_that_were_rolled_back_keep_their_numbers(tmp_path):
  def life(name, without=()):
    agent = lived(tmp_path, name, without, DAYS[:2])
    agent.diary.activate(1)  # as rollback does, without weights
    agent.observe('My bike is a green Raleigh.', now=5 * DAY, session='c')
    slept(agent, 6 * DAY)
    return agent

  with life('never', without=(SECRET,)) as never:
    expected = adapters(never)
    assert set(expected) == {1, 3}
  with life('life') as agent:
    agent.replay([3])
    assert adapters(agent) == expected
    assert [n.state for n in agent.diary.nights()] == ['promoted', 'failed', 'promoted']


def test_what_no_night_has_seen_needs_none(tmp_path):
  with lived(tmp_path, 'life', days=DAYS[:1]) as agent:
    agent.observe('Later.', now=2 * DAY)
    plan = relive.plan(agent.diary, [2])
    assert [(n.number, n.lived, n.last, n.now) for n in plan.nights] == [(1, True, 2, DAY + 1000)]
    assert plan.first == 1 and dataclasses.replace(plan, ids=(3,)).first == 2
    receipt = agent.replay([3])
    assert receipt.complete and receipt.replayed == () and agent.status().active == 1
    with pytest.raises(ValueError, match='there is nothing to forget'):
      agent.replay([3])
    (agent.workdir / 'replay.json').write_text('{"ids": ')
    with pytest.raises(ValueError, match='is damaged'):
      agent.replay()
