"""Whose conversation an experience is of, and which of them are asked for over HTTP."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks.serve_live import Live, serve_config
from dreaming.agent import Agent
from dreaming.brain.chat import Turn
from dreaming.brain.sampler import GREEDY
from dreaming.serve.message import Message, session_of
from tests.agent_test import LIKES

# ---- What the diary calls a conversation ----

MESSAGE = Message(text='Hello.', user='Ana', max_tokens=4, sampler=GREEDY, client='me')


def message(**fields):
  session = fields.pop('session', None)
  metadata = {} if session is None else {'client': {'session': session}}
  return dataclasses.replace(MESSAGE, metadata=metadata, **fields)


def test_all_messages_of_a_conversation_are_of_one_session():
  turns = Turn(text=' Hello. ', response='Hi.'), Turn(text='It rains.', response='Yes.')
  assert message().session == message(text='Bye.', turns=turns).session
  named = message(session='s').session
  assert named == message(session='s', text='Something else.').session
  assert named == session_of('me', 'Ana', 's') and named.startswith('s/')


def test_a_conversation_without_a_name_ends_with_the_day():
  noon, later, tomorrow = (86_400.0 * 20_000 + h * 3600 for h in (12, 20, 26))
  days = [message(at=t).session for t in (noon, later, tomorrow)]
  assert days[0] == days[1] != days[2] and days[0].startswith('chat/')
  assert message(session='s', at=noon).session == message(session='s', at=tomorrow).session


@pytest.mark.parametrize('other', [
  {'user': 'Ben'}, {'client': 'you'}, {'session': 's'}, {'user': 'Ana", "', 'text': 'x'},
])  # fmt: skip
def test_another_conversation_is_another_session(other):
  assert message(**other).session != message().session


@pytest.mark.parametrize('session', ['s', None])
def test_two_users_never_share_one(session):
  both = [message(user=user, session=session).session for user in ('Ana', 'Ben')]
  assert len({*both, message(client='you', session=session).session}) == 3


# ---- In a server ----


@pytest.fixture(scope='module')
def live(tmp_path_factory):
  with Agent(serve_config(tmp_path_factory, 'memories')) as agent, Live(agent) as live:
    yield live


class User:
  """Who talks over HTTP, and sends all that was said before."""

  def __init__(self, live, name):
    self.live, self.name, self.messages = live, name, []

  def say(self, text):
    """The experience that it became."""
    self.messages.append({'role': 'user', 'content': text})
    reply = self.live.client.chat.completions.create(
      model='agent', messages=self.messages, max_tokens=4, user=self.name
    )
    self.messages.append({'role': 'assistant', 'content': reply.choices[0].message.content})
    return self.live.agent.diary.experience(reply.dreaming['experience'])


def test_users_that_talk_in_turns_have_conversations_of_their_own(live):
  ana, ben = User(live, 'Ana'), User(live, 'Ben')
  said = [u.say(t) for t in ('Hello.', 'I have a dog.', 'He is called Basil.') for u in (ana, ben)]
  assert len({e.session for e in said}) == 2
  table = live.agent.diary.columns()
  rows = table.rows([e.id for e in said])
  last, _ = table.before(rows)
  assert last.tolist() == [-1, -1, *rows[:-2].tolist()]
  assert (table.speaker[last[2:]] == table.speaker[rows[2:]]).all()


def observe(live, **fields):
  return live.http.post('/api/experiences', json=fields).json()


def test_what_is_logged_without_an_answer_is_of_a_session_too(live):
  made = [observe(live, content='It rains.', user=u) for u in ('Zoe', 'Yan', 'Zoe')]
  named = observe(live, content='It rains.', user='Zoe', session='s')
  assert made[0]['session'] == made[2]['session']
  assert len({x['session'] for x in (*made, named)}) == 3
  reply = live.client.chat.completions.create(
    model='agent', messages=[{'role': 'user', 'content': 'Still?'}], user='Zoe', max_tokens=4,
    metadata={'session': 's'},
  )  # fmt: skip
  said = live.agent.diary.experience(reply.dreaming['experience'])
  assert said.session == named['session']


@pytest.fixture(scope='module')
def ferries(live):
  """Two dozen, told by two."""
  return [
    observe(live, content=f'The ferry carries {LIKES[i]}.', user='Ida' if i % 2 else 'Olaf',
            time=1000.0 + i, kind='observation' if i < 4 else 'chat', session=f's{i % 3}')
    for i in range(24)
  ]  # fmt: skip


def test_recall_brings_as_many_as_are_asked_for_and_of_those(live, ferries):
  def found(**fields):
    answer = live.http.post('/api/recall', json={'query': 'the ferry'} | fields)
    return sorted(x['time'] - 1000 for x in answer.json()['experiences'] if x['time'] < 2000)

  def told(**fields):
    answer = live.http.get('/api/experiences', params={'limit': 100} | fields)
    return sorted(x['time'] - 1000 for x in answer.json()['experiences'] if x['time'] < 2000)

  assert len(found(limit=24, until=2000)) == 24 and len(found(limit=3, until=2000)) == 3
  for look in (told, lambda **fields: found(limit=24, **fields)):
    assert look(speaker='Ida', until=2000) == [*range(1, 24, 2)]
    assert look(kind='observation', since=1001, until=1024) == [1, 2, 3]
    sessions = ferries[1]['session'], ferries[4]['session']
    assert sessions[0] != sessions[1]  # 's1' is Ida's here, and Olaf's there
    assert look(session=sessions[0]) == [1, 7, 13, 19]
    assert look(since=1010.0, until=1013.0) == [10, 11, 12]
    assert look(speaker='Eve') == []


@pytest.mark.parametrize('fields', [
  {'since': 'yesterday'}, {'until': -1}, {'since': 1e12}, {'kind': 'dream'}, {'speaker': ''},
  {'speaker': 'A\nB'}, {'session': 'x' * 513}, {'limit': 101}, {'limit': 0}, {'who': 'Ida'},
])  # fmt: skip
def test_a_wrong_filter_is_refused(live, fields):
  assert live.http.post('/api/recall', json={'query': 'ferry'} | fields).status_code == 422
  if 'limit' not in fields or not fields['limit']:
    assert live.http.get('/api/experiences', params=fields).status_code == 422


def test_the_document_names_filters_and_sessions(live):
  paths = live.http.get('/openapi.json').json()['paths']

  def body(path):
    operation = paths[path]['post']
    return operation['requestBody']['content']['application/json']['schema']['properties']

  filters = {'speaker', 'kind', 'session', 'since', 'until'}
  assert filters < set(body('/api/recall')) and 'session' in body('/api/experiences')
  assert filters < {p['name'] for p in paths['/api/experiences']['get']['parameters']}


def test_turns_come_as_episodes(live, ferries):
  found = live.http.get('/api/episodes?since=1000&until=1024&limit=2').json()
  assert found['total'] == 6 and len(found['episodes']) == 2
  every = live.http.get('/api/episodes?since=1000&until=1024').json()['episodes']
  assert sorted(i for e in every for i in e['ids']) == sorted(e['id'] for e in ferries)
  assert {len(e['ids']) for e in every} == {4}
  assert every[0]['start'] > every[1]['start'] and every[0]['gist'].startswith('The ferry')
  assert live.http.get('/api/episodes?since=soon').status_code == 422
