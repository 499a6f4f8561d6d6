"""Sleeping offline: the weights go, what is said waits on the disk, and is answered on waking."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import sys
import threading
import time
import weakref

import openai
import pytest

from benchmarks.serve_live import Live, plant, serve_config
from dreaming.agent import Agent
from dreaming.brain.chat import Turn
from dreaming.brain.sampler import Sampler
from dreaming.memory.senses.media import MediaStore, digest_of
from dreaming.serve import completions
from dreaming.serve import doze as doze_lib
from dreaming.serve.access import Refused
from dreaming.serve.config import ServeConfig
from dreaming.serve.doze import Doze
from dreaming.serve.message import Message
from dreaming.serve.shown import Shown
from dreaming.types import Media

PROGRAM = """
import pathlib, sys, time
sys.path[:0] = ['.', 'tests']
import serve_night_test as t
while not pathlib.Path(sys.argv[1]).exists():
  time.sleep(0.02)
t.night(sys.argv[2])
"""


def config_of(factory, name: str, **serve):
  config = serve_config(factory, name)
  config.serve.pause, config.serve.slots = True, 1
  config.serve.update(serve)
  return config


@pytest.fixture(scope='module')
def live(tmp_path_factory):
  with Agent(config_of(tmp_path_factory, 'pause', queue=4)) as agent:
    plant(agent, 1, promote=False)
    with Live(agent) as live:
      yield live


class Night:
  """A night of a live server that lasts until it is told to end."""

  def __init__(self, live, path, how: str = ''):
    self.live, self.go = live, path / 'go'
    live.server.nights.command = [sys.executable, '-c', PROGRAM, str(self.go), how]

  def __enter__(self):
    assert self.live.http.post('/api/nights', json={}).status_code == 202
    assert self.live.http.get('/api/status').json()['asleep']
    return self

  def end(self) -> dict:
    self.go.touch()
    until(lambda: not self.live.http.get('/api/nights/current').json()['running'])
    return self.live.http.get('/api/nights/current').json()['last']

  def __exit__(self, *_) -> None:
    self.end()


def until(true, seconds: float = 60) -> None:
  end = time.monotonic() + seconds
  while not true():
    assert time.monotonic() < end
    time.sleep(0.02)


def saying(live, text: str, found: list, **fields) -> threading.Thread:
  """Says something from a thread; what is answered comes to stand in `found`."""

  def say() -> None:
    messages = [{'role': 'user', 'content': text}]
    try:
      fields_ = {'model': 'agent', 'messages': messages, 'max_tokens': 4} | fields
      made = live.client.chat.completions.create(**fields_)
      found.append(list(made) if fields.get('stream') else made)
    except openai.OpenAIError as e:
      found.append(e)

  thread = threading.Thread(target=say)
  thread.start()
  return thread


def leave(live, text: str, stream: bool) -> None:
  """Says something, and does not wait for the answer."""
  body = {'model': 'agent', 'messages': [{'role': 'user', 'content': text}], 'stream': stream}
  data, held = json.dumps(body).encode(), live.server.talk.doze.held
  head = f'POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}'
  with socket.create_connection(('127.0.0.1', live.port)) as connection:
    connection.sendall(head.encode() + b'\r\n\r\n' + data)
    until(lambda: live.server.talk.doze.held > held)
  until(lambda: not sum(live.server.talk.doze._attended.values()))  # it has noticed


def said(live) -> dict[str, str]:
  return {e.content: e.response for e in live.agent.diary.experiences()}


# ---- A server ----


def test_it_lets_go_of_its_weights_and_answers_on_waking(live, tmp_path):
  before = live.client.chat.completions.create(
    model='agent', messages=[{'role': 'user', 'content': 'Hello.'}], max_tokens=4
  )
  assert before.model == 'agent@0'
  weights = weakref.ref(live.agent.base.params['embedder']['input_embedding'])
  found, streamed = [], []
  with Night(live, tmp_path) as night:
    assert weights() is None and 'base' not in live.agent.__dict__
    waiting = [
      saying(live, 'Are you there?', found),
      saying(live, 'It rains.', streamed, stream=True, stream_options={'include_usage': True}),
    ]
    until(lambda: live.http.get('/api/status').json()['held'] == 2)
    assert live.http.get('/health').json() == {'status': 'asleep'}
    for ask in (
      lambda: live.http.get('/ready'),
      lambda: live.http.post('/v1/completions', json={'model': 'agent', 'prompt': 'x'}),
      lambda: live.http.post('/v1/embeddings', json={'model': 'agent', 'input': 'x'}),
      lambda: live.http.post('/api/generations/rollback', json={}),
    ):
      answer = ask()
      assert (answer.status_code, answer.json()['error']['code']) == (503, 'asleep')
    for path in ('/v1/models', '/api/generations', '/api/diary', '/metrics', '/api/matrix'):
      assert live.http.get(path).status_code == 200, path
    told = live.http.post('/api/experiences', json={'content': 'The ferry is late.'})
    assert told.status_code == 201  # what needs no answer is taken at once
    assert not found and not streamed
    assert night.end()['outcome'] == 'promoted'
    for thread in waiting:
      thread.join(60)
  assert found[0].model == 'agent@1' and found[0].dreaming['generation'] == 1
  assert streamed[0][-1].dreaming['experience'] and streamed[0][0].model == 'agent@1'
  assert {'Are you there?', 'It rains.'} <= {*said(live)}
  status = live.http.get('/api/status').json()
  assert (status['asleep'], status['held'], status['serving']) == (False, 0, 1)
  assert live.http.get('/ready').json()['generation'] == 1
  assert live.http.post('/api/generations/rollback', json={}).json() == {'serving': 0}


@pytest.mark.parametrize('stream', [True, False])
def test_who_leaves_finds_the_answer_in_the_diary(live, tmp_path, stream):
  text = f'I am off to bed, {stream}.'
  with Night(live, tmp_path, 'die'):
    leave(live, text, stream)
    assert live.server.talk.doze.held == 1 and text not in said(live)
    spoken = time.time()
  until(lambda: text in said(live))
  until(lambda: not live.server.talk.doze.held)
  (e,) = [e for e in live.agent.diary.experiences() if e.content == text]
  assert e.response and e.time < spoken and 'interrupted' not in e.metadata
  live.http.post('/api/nights/current/cancel', json={'abandon': True})


def test_a_night_that_is_cancelled_wakes_it(live, tmp_path):
  with Night(live, tmp_path):
    found = []
    thread = saying(live, 'Wake up.', found)
    until(lambda: live.server.talk.doze.held == 1)
    live.http.post('/api/nights/current/cancel', json={'abandon': True}, timeout=60)
    thread.join(60)
  assert found[0].model == 'agent@0'


def test_only_so_many_wait(live, tmp_path):
  found = []
  with Night(live, tmp_path, 'die'):
    threads = [saying(live, f'Message {i}.', found) for i in range(4)]
    until(lambda: live.server.talk.doze.held == 4)
    late = []
    saying(live, 'One too many.', late).join(60)
    assert late[0].status_code == 429 and 'serve.queue' in str(late[0])
  for thread in threads:
    thread.join(60)
  assert sorted(r.model for r in found) == ['agent@0'] * 4
  live.http.post('/api/nights/current/cancel', json={'abandon': True})


def test_what_a_killed_server_held_the_next_one_answers(tmp_path_factory):
  config = config_of(tmp_path_factory, 'killed')
  with Agent(config) as agent:
    doze = Doze(agent.workdir / 'held', agent.media, 4)
    doze.fall()
    asyncio.run(doze.keep(_message('Good night.')))
    with Live(agent) as live:
      until(lambda: not live.server.talk.doze.held)
      assert said(live)['Good night.'] and len(agent.diary.experiences()) == 1


# ---- What waits ----


def _message(text: str, **fields) -> Message:
  fields = {'user': 'Ana', 'max_tokens': 4, 'sampler': Sampler(temperature=0.5, seed=3)} | fields
  return Message(text=text, **fields)


@pytest.fixture
def doze(tmp_path):
  doze = Doze(tmp_path / 'held', MediaStore(tmp_path / 'media'), 2)
  doze.fall()
  return doze


async def waking(doze, answer, give_up) -> None:
  """It wakes, and answers until nothing is held."""
  doze.rise()
  task = asyncio.ensure_future(doze.answer_left(answer, give_up))
  while doze.held:
    await asyncio.sleep(0.01)
  task.cancel()


def test_a_message_is_read_as_it_was_kept(doze, tmp_path):
  message = _message(
    'Hello.', turns=(Turn(text='Hi', response='Hi!'),), system='Be brief.', stop=('x',),
    metadata={'client': {'session': 's'}}, client='me', retrieval=False,
  )  # fmt: skip
  kept = asyncio.run(doze.keep(message))
  (path,) = (tmp_path / 'held').iterdir()
  assert path.stat().st_mode & 0o077 == 0  # the diary's words are nobody else's
  other = Doze(tmp_path / 'held', MediaStore(tmp_path / 'media'), 2)
  assert other.held == 1
  whole = asyncio.run(other.back(kept))
  held = {**message.metadata, 'held': path.stem}
  assert whole == dataclasses.replace(message, at=whole.at, metadata=held) and whole.at
  assert kept.shown == () and kept.metadata == held


def test_what_is_not_to_be_stored_is_not_kept(doze, tmp_path):
  kept = asyncio.run(doze.keep(_message('Hello.', store=False)))
  assert kept.at and not (tmp_path / 'held').exists()


def test_only_what_was_answered_goes(doze):
  async def main():
    one, two = await doze.keep(_message('One.')), await doze.keep(_message('Two.'))
    with pytest.raises(Refused, match='2 messages wait'):
      await doze.keep(_message('Three.'))
    async with doze.attended(one):
      pass
    with contextlib.suppress(ConnectionError):
      async with doze.attended(two):
        raise ConnectionError
    answered = []

    async def answer(message):
      answered.append(message.text)

    await waking(doze, answer, answer)
    return answered

  assert asyncio.run(main()) == ['Two.']


def test_one_that_cannot_be_answered_keeps_no_other_and_is_kept_in_the_end(doze, monkeypatch):
  monkeypatch.setattr(doze_lib, '_AGAIN_SECONDS', 0.01)

  async def main():
    await doze.keep(_message('Bad.'))
    await doze.keep(_message('Good.'))
    doze._new.clear()  # nobody attends to them
    answered, tried, kept = [], [], []

    async def answer(message):
      if message.text == 'Bad.':
        tried.append(message.text)
        raise ValueError('it is bad')
      answered.append(message.text)

    async def give_up(message):
      kept.append(message.text)

    await waking(doze, answer, give_up)
    return answered, len(tried), kept

  assert asyncio.run(main()) == (['Good.'], 5, ['Bad.'])


def test_what_cannot_be_answered_is_in_the_diary_without(live):
  message = _message('No answer to this.', at=time.time() - 1, metadata={'held': '2-abc'})
  for _ in range(2):
    asyncio.run(live.server.talk.give_up(message))
  (e,) = [e for e in live.agent.diary.experiences() if e.content == message.text]
  assert e.response == '' and e.metadata['unanswered']


def test_what_is_in_the_diary_already_is_not_answered_twice(live):
  message = _message('Said once.', at=time.time() - 1, metadata={'held': '1-abc'})
  live.agent.observe('Said once.', 'Yes.', metadata={'held': '1-abc'})
  asyncio.run(live.server.talk.answer(message))
  assert [e.content for e in live.agent.diary.experiences()].count('Said once.') == 1


def test_who_asks_again_waits_for_the_same(doze):
  async def main():
    said = {'client': 'me', 'turns': (Turn(text='Hi', response='Hi!'),)}
    keys = []
    for fields in (said, said | {'sampler': Sampler(temperature=0.5, seed=4)}, {'client': 'me'}):
      keys.append((await doze.keep(_message('Hello.', **fields))).metadata['held'])
    with pytest.raises(Refused, match='2 messages wait'):
      await doze.keep(_message('Hello.', client='you'))
    assert (await doze.keep(_message('Hello.', **said))).metadata['held'] == keys[0]
    return keys

  first, again, other = asyncio.run(main())
  assert first == again != other


def test_pictures_without_words_are_told_apart(doze):
  def shows(data: bytes) -> Shown:
    media = Media(kind='image', digest=digest_of(data), description='a picture')
    return Shown(media=media, metadata={'format': 'PNG'}, data=data)

  async def main():
    kept = [await doze.keep(_message('Look at this.', shown=(shows(d),))) for d in (b'a', b'b')]
    return [(await doze.back(k)).shown[0].data for k in kept]

  assert asyncio.run(main()) == [b'a', b'b']


def test_half_a_message_of_a_killed_process_is_no_message(tmp_path):
  (tmp_path / '.1-abc.tmp').write_text('{"text": "Hel')
  assert Doze(tmp_path, MediaStore(tmp_path / 'media'), 2).held == 0
  assert not list(tmp_path.iterdir())


def test_what_a_second_night_interrupts_is_answered_after_it(doze):
  async def main():
    for text in ('One.', 'Two.'):
      await doze.keep(_message(text))
    doze._new.clear()
    answered = []

    async def answer(message):
      if not answered:
        doze.fall()
        answered.append('')
        raise Refused(503, 'it sleeps', 'asleep')
      answered.append(message.text)

    doze.rise()
    task = asyncio.ensure_future(doze.answer_left(answer, answer))
    await asyncio.sleep(0.1)
    assert answered == [''] and doze.held == 2
    doze.rise()
    while doze.held:
      await asyncio.sleep(0.01)
    task.cancel()
    return answered

  assert asyncio.run(main()) == ['', 'One.', 'Two.']


def test_no_night_begins_before_the_weights_are_there(live):
  engine, live.server.engine = live.server.engine, None
  try:
    answer = live.http.post('/api/nights', json={})
  finally:
    live.server.engine = engine
  assert (answer.status_code, answer.json()['error']['code']) == (503, 'not_ready')
  assert not live.http.get('/api/status').json()['asleep']
  assert live.http.get('/ready').status_code == 200


def test_cancelling_while_it_wakes_is_no_error(live, tmp_path, monkeypatch):
  reload, waking, going = live.server._reload, threading.Event(), threading.Event()
  monkeypatch.setattr(live.server, '_reload', lambda: (waking.set(), going.wait(30), reload()))
  with Night(live, tmp_path, 'die') as night:
    night.go.touch()
    assert waking.wait(60)
    threading.Timer(0.5, going.set).start()
    answer = live.http.post('/api/nights/current/cancel', json={'abandon': True}, timeout=60)
    assert answer.status_code == 200 and not answer.json()['running']


def test_a_reply_that_is_cut_off_is_made_again(live, tmp_path, monkeypatch):
  close, left = completions.gather, []

  async def cut(call, reply, done=None):
    if not left:
      left.append(reply)
      reply.close()
    return await close(call, reply, done)

  monkeypatch.setattr(completions, 'gather', cut)
  with Night(live, tmp_path, 'die'):
    found = []
    thread = saying(live, 'Is anybody listening now?', found)
    until(lambda: live.server.talk.doze.held == 1)
  thread.join(60)
  until(lambda: not live.server.talk.doze.held)
  (e,) = [e for e in live.agent.diary.experiences() if e.content == 'Is anybody listening now?']
  assert 'interrupted' not in e.metadata
  assert e.metadata['response_id'] != left[0].id  # which nobody heard to its end
  live.http.post('/api/nights/current/cancel', json={'abandon': True})


def test_one_identity_sleeps_alone():
  with pytest.raises(ValueError, match='serve.pause goes with one identity'):
    ServeConfig(pause=True, identities=('other',))
