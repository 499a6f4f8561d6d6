"""Generations change under running streams: nothing is cut, nothing is mixed, nothing is stale."""

from __future__ import annotations

import threading
import time

import pytest

from benchmarks.serve_live import Live, plant, serve_config
from dreaming.agent import Agent

SAY = [{'role': 'user', 'content': 'I have a parrot.'}]


@pytest.fixture(scope='module')
def live(tmp_path_factory):
  with Agent(serve_config(tmp_path_factory, 'swap')) as agent:
    for seed in (1, 2):
      plant(agent, seed)
    with Live(agent) as live:
      yield live


def say(live, model: str, stream: bool = False, **fields) -> tuple[str, int]:
  """(text, the generation that it names)"""
  create = live.client.chat.completions.create
  fields = {'model': model, 'messages': SAY, 'max_tokens': 12, 'stream': stream} | fields
  if not stream:
    reply = create(**fields)
    return reply.choices[0].message.content, int(reply.model.split('@')[1])
  chunks = list(create(**fields))
  (model,) = {c.model for c in chunks}
  assert chunks[-1].choices[0].finish_reason == 'length'
  return ''.join(c.choices[0].delta.content or '' for c in chunks), int(model.split('@')[1])


@pytest.fixture(scope='module')
def known(live):
  """What each generation says."""
  texts = {n: say(live, f'agent@{n}')[0] for n in (0, 1, 2)}
  assert len(set(texts.values())) == 3
  return texts


def serve(live, number: int) -> None:
  answer = live.http.post(f'/api/generations/{number}/promote', json={})
  assert answer.json() == {'serving': number}


def test_streams_are_whole_and_of_one_generation_while_generations_change(live, known):
  said, failures = [], []
  done = threading.Event()

  def talk(stream: bool) -> None:
    try:
      while not done.is_set():
        said.append(say(live, 'agent@blue', stream=stream))
    except Exception as e:
      failures.append(e)

  threads = [threading.Thread(target=talk, args=(i % 2 == 0,)) for i in range(4)]
  for t in threads:
    t.start()
  for number in (1, 0, 2, 1, 2, 0) * 2:
    serve(live, number)
    time.sleep(0.05)
  done.set()
  for t in threads:
    t.join()
  assert not failures
  assert {number for _, number in said} == {0, 1, 2}
  assert all(text == known[number] for text, number in said)


def test_there_and_back_again_is_the_same_with_prefixes_kept(live, known):
  """The prefix that all these prompts share is kept read: each generation has its own."""
  for number in (1, 2, 1, 0, 1):
    serve(live, number)
    assert say(live, 'agent@blue') == (known[number], number)


def test_a_rollback_is_quick_exact_and_compiles_nothing(live):
  def exact():
    reply = live.client.chat.completions.create(
      model='agent@blue', messages=SAY, max_tokens=8, logprobs=True
    )
    return [(t.token, t.logprob) for t in reply.choices[0].logprobs.content]

  serve(live, 2)
  serve(live, 1)
  before, compiled = exact(), live.server.engine.compilations
  serve(live, 2)
  assert exact() != before
  start = time.monotonic()
  answer = live.http.post('/api/generations/rollback', json={})  # the parent
  assert time.monotonic() - start < 1 and answer.json() == {'serving': 1}
  assert exact() == before and live.server.engine.compilations == compiled
  assert live.agent.diary.active() == 1 and live.agent.identity.blue.generation == 1


def test_warm_generations_are_few_and_pinned_ones_stay(live):
  live.http.post('/api/generations/1/pin', json={})
  for number in (0, 1, 2, 0):
    say(live, f'agent@{number}')
  assert 1 in live.http.get('/api/generations').json()['warm']
  live.http.delete('/api/generations/1/pin')
  found = {g['number']: g for g in live.http.get('/api/generations').json()['generations']}
  assert set(found) == {0, 1, 2} and not found[1]['pinned']


def test_probes_say_which_generation_knows_what(live):
  question = 'Which nuts can Ana not eat?'
  body = {'questions': [question], 'generations': [0, 1]}
  said = live.http.post('/api/generations/compare', json=body).json()['answers']
  mine = said['1'][0]
  probes = [
    {'question': question, 'answers': ['walnuts', mine]},
    {'question': 'Who plays the cello?', 'answers': ['nobody at all']},
  ]
  answer = live.http.post('/api/probes', json={'probes': probes, 'generations': [1, 0]}).json()
  first, second = answer['probes']
  assert first['replies']['1'] == {'reply': mine, 'right': True}
  assert not second['replies']['0']['right'] and set(answer['right']) == {'0', '1'}
  assert answer['right']['1'] == 0.5
  for wrong in ({'probes': [], 'generations': [0]}, {'probes': probes, 'generations': []}):
    assert live.http.post('/api/probes', json=wrong).status_code == 422
  gone = live.http.post('/api/probes', json={'probes': probes, 'generations': [9]})
  assert gone.status_code == 422 and 'there is no generation 9' in gone.text


def test_generations_can_be_compared(live):
  body = {'questions': ['What is my pet called?'], 'generations': [0, 1]}
  answers = live.http.post('/api/generations/compare', json=body).json()['answers']
  assert set(answers) == {'0', '1'} and answers['0'] != answers['1']


def test_an_unknown_generation_changes_nothing(live):
  serving = live.agent.diary.active()
  for path in ('rollback', '7/promote', '7/pin'):
    body = {'generation': 7} if path == 'rollback' else {}
    assert live.http.post(f'/api/generations/{path}', json=body).status_code == 404
  assert live.agent.diary.active() == serving
