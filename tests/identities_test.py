"""Several identities in one process: one base and one engine, and nothing else in common."""

from __future__ import annotations

import sys
from concurrent import futures

import openai
import pytest

from benchmarks.serve_live import Live, plant, serve_config
from dreaming import configuration
from dreaming.agent import Agent
from dreaming.serve import server as server_lib
from dreaming.serve.config import ServeConfig

SAY = [{'role': 'user', 'content': 'I have a parrot.'}]


@pytest.fixture(scope='module')
def live(tmp_path_factory):
  config = serve_config(tmp_path_factory, 'first')
  config.serve.identities = ('ben', 'cleo')
  with Agent(config) as agent:
    names = server_lib._names(agent)
    ben, cleo = (Agent(server_lib._config_of(agent, n)) for n in names)
    with ben, cleo:
      plant(ben, 1)
      with Live(agent, others={'ben': ben, 'cleo': cleo}) as live:
        live.ben, live.cleo = ben, cleo
        yield live


def said_by(live, name, **fields):
  url = f'{live.url}/agents/{name}/v1' if name else f'{live.url}/v1'
  with openai.OpenAI(base_url=url, api_key='none', max_retries=0, timeout=60) as client:
    fields = {'model': 'agent', 'messages': SAY, 'max_tokens': 6} | fields
    return client.chat.completions.create(**fields)


def test_each_has_its_own_diary_generations_and_name(live):
  assert [said_by(live, n).model for n in ('', 'ben', 'cleo')] == ['agent@0', 'agent@1', 'agent@0']
  said_by(live, 'cleo', messages=[{'role': 'user', 'content': 'I play the cello.'}])
  told = [
    [e['content'] for e in live.http.get(f'{p}/api/experiences').json()['experiences']]
    for p in ('', '/agents/ben', '/agents/cleo')
  ]
  assert told == [
    ['I have a parrot.'], ['I have a parrot.'], ['I play the cello.', 'I have a parrot.'],
  ]  # fmt: skip
  assert live.ben.workdir.name == 'ben' and live.ben.life.agent == 'Ben'
  listed = live.http.get('/agents').json()['identities']
  assert [(i['name'], i['serving'], i['failed']) for i in listed] == [
    ('ben', 1, None), ('cleo', 0, None),
  ]  # fmt: skip


def test_base_and_engine_are_shared(live):
  first, ben, cleo = live.agent.base, live.ben.base, live.cleo.base
  assert first is ben and first is cleo
  servers = [live.server, *live.server.others]
  assert len({id(s.engine) for s in servers}) == 1
  voices = [s.voices.get(0) for s in servers]
  assert len({id(v.served) for v in voices}) == 1 and len({id(v) for v in voices}) == 3


def test_what_an_identity_says_does_not_depend_on_the_others(live):
  alone = said_by(live, 'ben', model='agent@1', temperature=0).choices[0].message.content
  other = said_by(live, '', model='agent@0', temperature=0).choices[0].message.content
  again = said_by(live, 'ben', model='agent@1', temperature=0).choices[0].message.content
  assert alone == again and alone != other


def test_one_rolls_back_and_the_others_stay(live):
  assert live.http.post('/agents/ben/api/generations/rollback', json={}).json() == {'serving': 0}
  assert said_by(live, 'ben').model == 'agent@0' and live.agent.diary.active() == 0
  promoted = live.http.post('/agents/ben/api/generations/1/promote', json={}).json()
  assert promoted == {'serving': 1} and said_by(live, 'cleo').model == 'agent@0'


def test_the_machine_bears_one_night_at_a_time(live, monkeypatch):
  nights = live.server.others[0].nights
  monkeypatch.setattr(type(nights), 'running', property(lambda self: self is nights))
  for path in ('', '/agents/cleo'):
    answer = live.http.post(f'{path}/api/nights', json={})
    assert answer.status_code == 409 and 'another identity' in answer.json()['error']['message']


def test_of_two_nights_that_begin_at_once_one_does(live):
  slow = 'import sys, time; sys.stdin.readline(); time.sleep(60)'
  for server in (live.server, *live.server.others):
    server.nights.command = [sys.executable, '-c', slow]
  paths = ['', '/agents/ben', '/agents/cleo']
  with futures.ThreadPoolExecutor(3) as threads:
    answers = list(threads.map(lambda p: live.http.post(f'{p}/api/nights', json={}), paths))
  assert sorted(a.status_code for a in answers) == [202, 409, 409]
  (began,) = (p for p, a in zip(paths, answers, strict=True) if a.status_code == 202)
  begun = next(a.json() for a in answers if a.status_code == 202)
  assert begun['events'] == f'{began}/api/nights/current/events'
  assert live.http.post(f'{began}/api/nights/current/cancel', json={}).status_code == 200


def test_an_unknown_one_is_not_there(live):
  assert live.http.get('/agents/eve/api/status').status_code == 404
  assert live.http.get('/agents/ben/health').status_code == 404  # of the process, once


def test_one_that_cannot_be_loaded_leaves_the_others_alone(tmp_path_factory):
  config = serve_config(tmp_path_factory, 'broken')
  with Agent(config) as agent:
    other = server_lib._config_of(agent, 'ben')
    other.model.dtype = 'bfloat16'
    with Agent(other) as ben, Live(agent, others={'ben': ben}) as live:
      assert said_by(live, '').model == 'agent@0'
      ready = live.http.get('/agents/ben/ready')
      assert ready.status_code == 503 and 'another base' in ready.json()['error']['message']
      assert live.http.get('/agents').json()['identities'][0]['failed']


@pytest.mark.parametrize('names', [('Ben',), ('../x',), ('',), ('ben', 'ben'), ('a' * 41,)])
def test_names_that_are_none(names):
  with pytest.raises(ValueError, match=r'serve\.identities'):
    ServeConfig(identities=names)


def test_the_first_is_not_named_again(tmp_path_factory):
  config = serve_config(tmp_path_factory, 'same')
  config.serve.identities = ('life',)
  with Agent(config) as agent, pytest.raises(ValueError, match='workdir itself'):
    server_lib._names(agent)
  assert configuration.group(config, 'serve', ServeConfig).identities == ('life',)
