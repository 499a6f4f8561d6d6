"""A night beside the server: its own process, the same lock, its progress, and the cut-over."""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time

import pytest

from benchmarks.serve_live import Live, plant, serve_config
from dreaming.agent import Agent
from dreaming.identity import generations
from dreaming.identity.bluegreen import IdentityLock
from dreaming.memory.diary import Diary
from dreaming.sleep import review
from dreaming.types import QA, Dream

TOLD = (
  'I have a parrot, his name is Biscuit.',
  'My brother Paul plays the cello in Nairobi.',
  'My sister Ana lives in Lisbon.',
  'I work at the harbour as a pilot.',
)


@pytest.fixture(scope='module')
def live(tmp_path_factory):
  config = serve_config(tmp_path_factory, 'night')
  config.serve.slots = 1
  config.train.steps, config.prune.amounts = 2, (0.0,)
  with Agent(config) as agent:
    plant(agent, 1, promote=False)
    with Live(agent) as live:
      for text in TOLD:
        assert live.http.post('/api/experiences', json={'content': text}).status_code == 201
      yield live


def follow(live, after: int = -1):
  """The night's events, until it ends."""
  with live.http.stream('GET', f'/api/nights/current/events?after={after}', timeout=280) as answer:
    for line in answer.iter_lines():
      if line.startswith('data: '):
        yield json.loads(line[6:])


def ask(live) -> str:
  reply = live.client.chat.completions.create(
    model='agent', messages=[{'role': 'user', 'content': 'Good morning.'}], max_tokens=4
  )
  return reply.model


NIGHT = """
import sys
sys.path.insert(0, 'tests')
import serve_night_test as t
t.night(sys.argv[1])
"""


def quick(live, how: str = '') -> None:
  """Nights take no time from now on: they promote what lies in generations/."""
  live.server.nights.command = [sys.executable, '-c', NIGHT, how]


def test_a_night_is_cancelled_and_the_next_one_goes_on_to_its_end(live):
  quick(live, 'dawdle')
  assert live.http.get('/api/nights').json() == {'nights': []}
  assert live.http.post('/api/nights', json={}).status_code == 202
  assert live.http.post('/api/nights', json={}).status_code == 409
  first = next(follow(live))
  assert (first['event'], first['step']) == ('progress', 'dream')
  with pytest.raises(BlockingIOError):
    IdentityLock(live.agent.workdir)
  assert ask(live) == 'agent@0'  # it is awake meanwhile
  assert live.http.post('/api/forget', json={'ids': [1]}).status_code == 422  # night 1 reads it
  cancelled = live.http.post('/api/nights/current/cancel', json={}).json()
  assert not cancelled['running'] and cancelled['last']['event'] == 'cancelled'
  assert live.agent.diary.open_night() == 1

  quick(live)
  assert live.http.post('/api/nights', json={}).status_code == 202
  events = list(follow(live))
  end = events[-1]
  assert (end['event'], end['outcome'], end['night']) == ('ended', 'promoted', 1)
  assert [e['event'] for e in events] == ['progress', 'ended']
  assert list(follow(live, after=0)) == events[1:]  # who comes later hears the rest
  assert ask(live) == 'agent@1' and live.agent.identity.blue.generation == 1
  night = live.http.get('/api/nights/1').json()
  assert night['state'] == 'promoted' and live.http.get('/api/nights/2').status_code == 404
  # The lock is still this process's: what the night did with its copy changed nothing.
  assert (live.agent.workdir / 'lock').read_text().strip() == str(os.getpid())
  with pytest.raises(BlockingIOError, match=str(os.getpid())):
    IdentityLock(live.agent.workdir)
  assert live.http.post('/api/generations/rollback', json={}).json() == {'serving': 0}
  assert ask(live) == 'agent@0'


@pytest.mark.parametrize('how, why', [('die', 'code -9'), ('babble', 'Expecting value')])
def test_a_night_that_dies_is_told_and_changes_nothing(live, how, why):
  quick(live, how)
  live.http.post('/api/nights', json={})
  end = list(follow(live))[-1]
  assert end['event'] == 'failed' and why in end['reason']
  answer = live.http.post('/api/nights/current/cancel', json={'abandon': True})
  assert answer.status_code == 200 and live.agent.diary.open_night() is None
  assert ask(live) == 'agent@0'


def test_what_was_promoted_before_a_night_died_serves(live):
  plant(live.agent, 2, promote=False)
  quick(live, 'promote and die')
  live.http.post('/api/nights', json={})
  assert list(follow(live))[-1]['event'] == 'failed'
  assert live.agent.diary.active() == 2 and ask(live) == 'agent@2'
  assert live.http.post('/api/generations/0/promote', json={}).json() == {'serving': 0}


def test_a_lock_that_is_not_ones_own_is_not_taken(tmp_path):
  with IdentityLock(tmp_path / 'a') as a, IdentityLock(tmp_path / 'b'):
    with pytest.raises(ValueError, match='is not the lock'):
      IdentityLock(tmp_path / 'b', shared=a.fileno())
    with IdentityLock(tmp_path / 'a', shared=os.dup(a.fileno())):
      pass
    with pytest.raises(BlockingIOError):  # closing a copy lets nobody in
      IdentityLock(tmp_path / 'a')


# ---- The diary over HTTP ----


def test_what_was_told_is_listed_recalled_judged_and_forgotten(live):
  post = live.http.post
  made = post('/api/experiences', json={
    'content': 'The ferry leaves at nine.', 'user': 'Zoe', 'time': 1000.0, 'trust': 'third_party',
    'kind': 'observation', 'metadata': {'source': 'a poster'}}).json()  # fmt: skip
  id = made['id']
  assert (made['speaker'], made['time'], made['trust']) == ('Zoe', 1000.0, 'third_party')
  assert live.http.get(f'/api/experiences/{id}').json() == made
  assert live.http.get('/api/experiences?until=1001').json()['experiences'] == [made]
  found = post('/api/recall', json={'query': 'When does the ferry leave?', 'limit': 3}).json()
  assert id in [x['id'] for x in found['experiences']] and len(found['experiences']) <= 3
  assert post('/api/feedback', json={'value': 'up', 'experience': id}).status_code == 200
  assert post('/api/approve', json={'ids': [id]}).json() == {'approved': 1}
  assert post('/api/forget', json={'ids': [id]}).json()['forgotten'] == 1
  assert live.http.get(f'/api/experiences/{id}').status_code == 404
  for path, body in [('feedback', {'value': 'up', 'experience': id}), ('approve', {'ids': [id]})]:
    assert post(f'/api/{path}', json=body).status_code == 422


def test_why_is_told_of_a_reply_until_something_is_forgotten(live):
  reply = live.client.chat.completions.create(
    model='agent', messages=[{'role': 'user', 'content': 'It rains.'}], max_tokens=4
  )
  why = live.http.get(f'/api/replies/{reply.id}/why').json()
  assert why['question'] == 'It rains.' and 'It rains.' in why['prompt']
  live.http.post('/api/forget', json={'ids': [reply.dreaming['experience']]})
  assert live.http.get(f'/api/replies/{reply.id}/why').status_code == 404


def test_status_says_what_there_is(live):
  status = live.http.get('/api/status').json()
  assert status['agent'] == 'Echo' and status['experiences'] >= len(TOLD)
  assert not status['night_running']


# ---- A whole night ----


@pytest.mark.real
@pytest.mark.timeout(1200)
def test_a_real_night_of_a_toy_model_is_followed_and_serves(tmp_path_factory):
  config = serve_config(tmp_path_factory, 'whole')
  config.train.steps, config.prune.amounts = 2, (0.0,)
  config.decode.cache_length = 2048  # nights read long prompts
  with Agent(config) as agent, Live(agent) as live:
    live.http.post('/api/nights', json={})
    end = list(follow(live))[-1]
    assert (end['event'], end['outcome']) == ('ended', 'empty') and end['reason']
    for text in (*TOLD, 'It rains in Porto. ' * 200, '𠀀' * 700):  # more than the context holds
      live.http.post('/api/experiences', json={'content': text})
    live.http.post('/api/nights', json={})
    events = list(follow(live))
    assert (events[-1]['event'], events[-1]['outcome']) == ('ended', 'promoted'), events[-1]
    assert {'rate', 'dream', 'train', 'examine'} <= {e.get('step') for e in events}
    assert ask(live) == 'agent@1'
    dreams = live.http.get('/api/dreams').json()['dreams']
    assert dreams and {d['status'] for d in dreams} <= {'kept', 'rejected'}


def test_dreams_are_reviewed_over_http(tmp_path_factory):
  config = serve_config(tmp_path_factory, 'review')
  config.review.dreams = True
  with Agent(config) as agent, Live(agent) as live:
    status = live.http.get('/api/status').json()
    assert status['review'] and status['waiting'] is None
    number = agent.diary.begin_night({'review': {'dreams': True, 'generations': False}})
    told = agent.observe(TOLD[0])
    with agent.diary.transaction():
      pair = QA(question="What is the parrot's name?", answer='Biscuit')
      dream = Dream(id=0, night=number, style='question', text='', pairs=(pair,),
                    sources=(told.id,))  # fmt: skip
      [dream] = agent.diary.add_dreams([dream])
      review.stop(agent.diary, number, review.DREAMS)
    waiting = {'night': number, 'point': 'dreams'}
    assert live.http.get('/api/status').json()['waiting'] == waiting

    def post(path, **body):
      return live.http.post(path, json=body)

    path = f'/api/dreams/{dream.id}/review'
    changed = post(path, decision='edit', answer='Cracker').json()['dreams']
    assert changed[0]['pairs'][0]['answer'] == 'Cracker'
    assert post(path, decision='reject').json()['dreams'][0]['status'] == 'rejected'
    for wrong in ({'decision': 'maybe'}, {'decision': 'edit'}, {'decision': 'reject', 'text': 'x'}):
      assert post(path, **wrong).status_code == 422
    assert post('/api/dreams/99/review', decision='reject').status_code == 422
    quick(live)
    plant(agent, 1, promote=False)
    assert post('/api/nights').status_code == 202  # by hand: it was reviewed
    assert list(follow(live))[-1]['outcome'] == 'promoted'
    assert 'review dreams' in agent.diary.night(number).payloads
    assert post('/api/nights/refuse').status_code == 422  # nothing waits


def night(how: str) -> None:
  """What NIGHT does."""
  told = json.loads(sys.stdin.readline())
  home = pathlib.Path(told['config']['workdir'])
  with IdentityLock(home, shared=told['lock']), Diary(home / 'diary.sqlite') as diary:
    number = diary.open_night() or diary.begin_night({})
    if how == 'babble':
      print('what a night', flush=True)
      time.sleep(60)
    progress = {'event': 'progress', 'step': 'dream', 'done': 0, 'total': 0, 'values': {}}
    print(json.dumps(progress), flush=True)
    if how == 'dawdle':
      time.sleep(60)
    if how != 'die':
      made = generations.list_generations(home / 'generations')[-1]
      diary.promote(made.manifest, (), number, path=made.path)
    if 'die' in how:
      os.kill(os.getpid(), 9)
    end = {'event': 'ended', 'night': number, 'outcome': 'promoted', 'generation': made.number}
    print(json.dumps(end), flush=True)
