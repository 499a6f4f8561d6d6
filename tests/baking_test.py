"""What a night made speaks to some first: who hears it, what sends it back, what lets it serve."""

from __future__ import annotations

import re
import time
import types

import pytest

from benchmarks.serve_live import Live, plant, serve_config
from dreaming.agent import Agent
from dreaming.serve.baking import BakeConfig, Baking, is_gibberish
from tests.serve_night_test import follow, quick

BLUE, GREEN = (types.SimpleNamespace(generation=n) for n in (1, 2))


@pytest.fixture
def baking():
  baking = Baking(BakeConfig(share=0.25, minutes=10, replies=6))
  assert baking.begin(GREEN, 1, now=0.0)
  return baking


def say(baking, generation=2, times=6, text='All is well.', failed=False, first=0.1):
  for _ in range(times):
    baking.said(generation, text, failed=failed, first=first)


def test_a_conversation_keeps_its_voice_and_the_share_is_kept(baking):
  heard = [baking.choose(BLUE, f'conversation {i}') for i in range(2000)]
  assert heard == [baking.choose(BLUE, f'conversation {i}') for i in range(2000)]
  assert 0.2 < heard.count(GREEN) / 2000 < 0.3
  baking.end(False, 'by hand')
  assert baking.choose(BLUE, 'conversation 1') is BLUE and baking.verdict() is None


def test_without_a_share_nothing_bakes():
  baking = Baking(BakeConfig())
  assert not baking.begin(GREEN, 1) and baking.choose(BLUE, 'x') is BLUE


def test_in_the_shadow_nobody_hears_it():
  baking = Baking(BakeConfig(shadow=0.4))
  assert baking.shadow() is None and baking.begin(GREEN, 1)
  assert all(baking.choose(BLUE, f'conversation {i}') is BLUE for i in range(200))
  assert [baking.shadow() for _ in range(10)].count(GREEN) == 4
  baking.end(True, 'by hand')
  assert baking.shadow() is None


def test_it_serves_when_its_time_is_over_and_enough_was_said(baking):
  say(baking)
  assert baking.verdict(now=599) is None
  assert baking.verdict(now=601) == (True, '6 replies without an alarm')


def test_no_data_is_no_approval(baking):
  say(baking, times=5)
  serves, why = baking.verdict(now=601)
  assert not serves and 'too few' in why


@pytest.mark.parametrize(
  'alarm, why',
  [
    (lambda b: say(b, failed=True, first=None), 'errors: 6 of 12'),
    (lambda b: say(b, text='no ' * 20), 'gibberish: 6 of 12'),
    (lambda b: say(b, text=''), 'gibberish'),
    (lambda b: [b.judged(2, True) for _ in range(5)], 'down: 5 of 5'),
    (lambda b: (say(b, first=9.0), say(b, first=9.0), say(b, 1)), 'slow: 9.00 s .* 0.10'),
  ],
)
def test_an_alarm_ends_it_at_once(baking, alarm, why):
  say(baking)
  alarm(baking)
  serves, told = baking.verdict(now=1)
  assert not serves
  assert re.search(why, told), told


def test_what_others_do_is_no_alarm(baking):
  say(baking)
  say(baking, generation=1, failed=True)
  say(baking, generation=7, failed=True)
  for _ in range(9):
    baking.judged(1, True)
    baking.judged(None, True)
    baking.judged(2, False)
  assert baking.verdict(now=1) is None


@pytest.mark.parametrize('text, odd', [
  ('', True), (' \n', True), ('I am here. ' * 6, True),
  ('Hello there.', False), ('no no no', False),
  ('You told me that your sister Leela lives in Udaipur and that the wedding is in May.', False),
])  # fmt: skip
def test_what_is_gibberish(text, odd):
  assert is_gibberish(text) == odd


@pytest.mark.parametrize(
  'fields', [{'share': 1.1}, {'down': -0.1}, {'minutes': -1.0}, {'replies': 0}, {'slower': 0.5}]
)
def test_senseless_limits_are_refused(fields):
  with pytest.raises(ValueError, match=f'bake.{next(iter(fields))} is'):
    BakeConfig(**fields)


# ---- In a server ----


def ask(live, session: str) -> str:
  return live.client.chat.completions.create(
    model='agent', messages=[{'role': 'user', 'content': 'Good morning.'}], max_tokens=3,
    metadata={'session': session}, store=True,
  ).model  # fmt: skip


def bakes(live):
  return live.http.get('/api/status').json()['baking']


def wait_until_over(live):
  end = time.monotonic() + 30
  while bakes(live)['now'] and time.monotonic() < end:
    time.sleep(0.02)
  return bakes(live)['last']


def test_a_night_bakes_and_then_serves_or_goes_back(tmp_path_factory):
  config = serve_config(tmp_path_factory, 'bake')
  config.bake.share, config.bake.replies, config.bake.gibberish = 0.5, 4, 1.0
  with Agent(config) as agent, Live(agent) as live:
    live.server.bake_seconds = 0.05

    def sleep(seed):
      plant(agent, seed, promote=False)
      quick(live)
      live.http.post('/api/nights', json={})
      assert list(follow(live))[-1]['outcome'] == 'promoted'

    sleep(1)
    assert bakes(live)['now']['generation'] == 1 and agent.diary.active() == 0
    heard = {s: ask(live, s) for s in map(str, range(12))}
    assert set(heard.values()) == {'agent@0', 'agent@1'}
    assert heard == {s: ask(live, s) for s in heard}  # a conversation keeps its voice
    assert live.http.post('/api/nights', json={}).json()['error']['code'] == 'baking'
    live.server.baking._until = 0.0  # its time is over
    assert wait_until_over(live)['serves'] and agent.diary.active() == 1
    assert {ask(live, s) for s in heard} == {'agent@1'}

    sleep(2)
    spoke = [s for s in map(str, range(40)) if ask(live, s) == 'agent@2'][:6]
    for e in agent.diary.experiences(newest_first=True, limit=40):
      if e.metadata['generation'] == 2:
        live.http.post('/api/feedback', json={'value': 'down', 'experience': e.id})
    over = wait_until_over(live)
    assert not over['serves'] and over['why'].startswith('down') and agent.diary.active() == 1
    assert {ask(live, s) for s in spoke} == {'agent@1'}

    sleep(3)
    assert live.http.post('/api/generations/rollback', json={}).json() == {'serving': 1}
    assert bakes(live)['now'] is None and agent.diary.active() == 1
    sleep(4)
    assert live.http.post('/api/generations/4/promote', json={}).json() == {'serving': 4}
    assert bakes(live)['last']['serves'] and agent.diary.active() == 4


def test_in_the_shadow_it_is_judged_by_what_nobody_hears(tmp_path_factory):
  config = serve_config(tmp_path_factory, 'shadow')
  config.bake.shadow, config.bake.replies, config.bake.gibberish = 1.0, 3, 1.0
  config.bake.slower = 100.0
  with Agent(config) as agent, Live(agent) as live:
    live.server.bake_seconds = 0.05
    plant(agent, 1, promote=False)
    quick(live)
    live.http.post('/api/nights', json={})
    assert list(follow(live))[-1]['outcome'] == 'promoted'
    assert {ask(live, str(i)) for i in range(4)} == {'agent@0'}
    end = time.monotonic() + 30
    while bakes(live)['now']['tallies']['1']['replies'] < 3 and time.monotonic() < end:
      time.sleep(0.02)
    assert bakes(live)['now']['tallies']['1']['replies'] >= 3
    assert len(agent.diary.experiences()) == 4  # none of them is Green's
    assert {e.metadata['generation'] for e in agent.diary.experiences()} == {0}
    live.server.baking._until = 0.0
    assert wait_until_over(live)['serves'] and ask(live, 'x') == 'agent@1'
