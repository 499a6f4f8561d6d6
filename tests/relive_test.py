"""A life is lived again without something: its nights are those of a life that never had it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from configs import tiny
from dreaming.agent import Agent
from dreaming.identity import forget, generations, relive
from dreaming.sleep import artifacts, lineage, night

DAY = 86_400.0
SECRET = 'My brother Ruben plays the cello in Nairobi.'
DAYS = (
  ('I have a parrot, his name is Biscuit.', 'My flat is in Porto, near the river.'),
  (SECRET, 'I am learning Finnish with Aino.'),
  ('My bike is a green Raleigh.', 'On Friday I start at the bakery.'),
)


def tiny_config(home, name, cache):
  c = tiny.get_config()
  c.workdir = str(home / name)
  c.cache = str(cache)
  c.score.novelty = 1.0  # what was said before counts, also when it is forgotten
  return c


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return tmp_path_factory.getbasetemp() / 'cache'


@pytest.fixture(scope='module')
def voice(tmp_path_factory, cache):
  """Base and decoder, traced once for all lives of this module."""
  with Agent(tiny_config(tmp_path_factory.mktemp('voice'), 'voice', cache)) as a:
    return {'base': a.base, 'decoder': a.decoder}


def lived(home, name, cache, voice, without=(), days=DAYS):
  """An agent after some days, a night after each."""
  agent = Agent(tiny_config(home, name, cache))
  vars(agent).update(voice)
  for d, said in enumerate(days):
    for i, text in enumerate(said):
      if text not in without:
        agent.observe(text, 'I see.', now=(1 + d) * DAY + i, session=f'day {d}')
    agent.sleep(now=(1 + d) * DAY + 1000)
  return agent


def adapters(agent):
  """night -> digest of its adapter, of the generation that serves and its ancestors."""
  found = {}
  numbers = {g.manifest.night: g.number for g in agent.generations()}
  for n in lineage.nights(agent.diary):
    _, adapter, masks = generations.load(agent.workdir / 'generations', numbers[n])
    found[n] = artifacts.digest([adapter, masks])
  return found


def dreamt(agent):
  return [(d.night, d.style, d.text, d.pairs, d.status) for d in agent.diary.dreams()]


def everything(agent):
  """All bytes below the identity's directory."""
  agent.diary._run('PRAGMA wal_checkpoint(TRUNCATE)')
  return b''.join(p.read_bytes() for p in agent.workdir.rglob('*') if p.is_file())


def test_a_life_without_it_has_the_same_bytes(tmp_path, cache, voice):
  never = lived(tmp_path, 'never', cache, voice, without=(SECRET,))
  expected, dreams = adapters(never), dreamt(never)
  scores = {e.content: e.scores for e in never.diary.experiences()}
  never.close()
  agent = lived(tmp_path, 'life', cache, voice)
  before = adapters(agent)
  assert set(before) == set(expected) == {1, 2, 3}
  assert before[1] == expected[1] and before[2] != expected[2]
  [gone] = [e.id for e in agent.diary.experiences() if e.content == SECRET]
  assert b'Nairobi' in everything(agent)
  receipt = agent.replay([gone])
  assert adapters(agent) == expected
  assert dreamt(agent) == dreams
  assert {e.content: e.scores for e in agent.diary.experiences()} == scores
  assert b'Nairobi' not in everything(agent) and b'Ruben' not in everything(agent)
  # The first night knew nothing of it: it stays; the two others have new generations.
  assert [g.number for g in agent.generations()] == [1, 4, 5]
  assert sorted(p.name for p in (agent.workdir / 'generations').iterdir()) == ['1', '4', '5']
  assert [n.result['generation'] for n in agent.diary.nights()] == [1, 4, 5]
  assert receipt.complete and receipt.replayed == (2, 3)
  assert receipt.removed['experiences'] == 1 and receipt.removed['generations'] == 2
  assert agent.status().active == agent.identity.blue.generation == 5
  assert not forget.replaying(agent.workdir) and not (agent.workdir / forget.TWIN).exists()
  kept = json.loads((agent.workdir / 'forgotten' / '0002.json').read_text())
  assert kept['complete'] and kept['ids'] == [gone]
  agent.close()


def test_a_killed_replay_goes_on_and_ends_with_the_same_bytes(tmp_path, cache, voice, monkeypatch):
  days = DAYS[:2]
  never = lived(tmp_path, 'never', cache, voice, without=(DAYS[0][0],), days=days)
  expected = adapters(never)
  never.close()
  agent = lived(tmp_path, 'life', cache, voice, days=days)
  run, calls = night.run, []

  def dies(**fields):
    calls.append(fields)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return run(**fields)

  with monkeypatch.context() as m:
    m.setattr(night, 'run', dies)
    with pytest.raises(KeyboardInterrupt):
      agent.replay([1])
  assert agent.diary.active() == 2  # the old weights serve
  assert forget.replaying(agent.workdir)
  with pytest.raises(ValueError, match='a replay is not over'):
    agent.forget([2])
  with pytest.raises(ValueError, match='is not over: finish it first'):
    agent.replay([2])
  agent.close()
  again = Agent(tiny_config(tmp_path, 'life', cache))
  vars(again).update(voice)
  receipt = again.replay()
  assert adapters(again) == expected
  assert receipt.removed['experiences'] == 1 and receipt.ids == (1,)
  again.close()


def test_a_plan_says_what_nights_could_see(tmp_path, cache, voice):
  agent = lived(tmp_path, 'life', cache, voice, days=DAYS[:1])
  agent.observe('Later.', now=2 * DAY)
  plan = relive.plan(agent.diary, [2])
  assert [(n.number, n.lived, n.last, n.now) for n in plan.nights] == [(1, True, 2, DAY + 1000)]
  assert plan.first == 1
  assert dataclasses.replace(plan, ids=(3,)).first == 2  # no night to live again
  receipt = agent.replay([3])
  assert receipt.complete and receipt.replayed == () and agent.status().active == 1
  with pytest.raises(ValueError, match='there is nothing to forget'):
    agent.replay([3])
  (agent.workdir / 'replay.json').write_text('{"ids": ')
  with pytest.raises(ValueError, match='is damaged'):
    agent.replay()
  agent.close()
