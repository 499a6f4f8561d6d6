"""A supervisor can only say no, and what it does not answer holds the night up."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import json
import threading

import pytest

from dreaming.sleep import review, supervise
from dreaming.sleep.supervise import SupervisorConfig
from dreaming.types import Status
from tests import night_test

make_life, base, life = night_test.make_life, night_test.base, night_test.life


@contextlib.contextmanager
def supervisor(answer):
  """A server whose reply to a prompt is `answer(prompt)`: text, bytes of a body, or a status."""
  heard = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
      size = int(self.headers.get('Content-Length') or 0)
      body = json.loads(self.rfile.read(size) or '{"messages": [{"content": ""}]}')
      heard.append((self.path, self.headers.get('Authorization'), body))
      said = answer(body['messages'][0]['content'])
      moved = isinstance(said, str) and said.startswith('!')
      self.send_response(302 if moved else said if isinstance(said, int) else 200)
      if moved:
        self.send_header('Location', said[1:])
      self.end_headers()
      if isinstance(said, str):
        said = json.dumps({'choices': [{'message': {'content': said}}]}).encode()
      self.wfile.write(said if isinstance(said, bytes) else b'')

    do_GET = do_POST  # what a redirect would become

    def log_message(self, *args):
      pass

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  thread = threading.Thread(target=server.serve_forever)
  thread.start()
  try:
    yield f'http://127.0.0.1:{server.server_port}/v1', heard
  finally:
    server.shutdown()
    thread.join()
    server.server_close()


def sleep(life, url, **fields):
  given = {'url': url, 'model': 'judge'} | fields
  return life.sleep(dataclasses.replace(night_test.CONFIG, supervisor=SupervisorConfig(**given)))


def talk(life):
  return life.talk(*(content for content, _, _ in night_test.FACTS))


def test_a_vetoed_fact_does_not_train_and_the_rest_is_learned(life):
  talk(life)
  with supervisor(lambda prompt: 'No.' if 'Lyon' in prompt else 'Yes') as (url, heard):
    outcome = sleep(life, url)
  assert outcome.promoted
  rejected = [d for d in life.diary.dreams(1) if d.quality.reason == supervise.VETOED]
  assert rejected and all(d.status == Status.REJECTED and 'Lyon' in str(d) for d in rejected)
  told = [body['messages'][0]['content'] for _, _, body in heard]
  assert any('What was said:\nPriya: I am moving to Lyon.' in t for t in told)
  assert 'new version' in told[-1]
  path, key, body = heard[0]
  assert path == '/v1/chat/completions' and key is None and body['model'] == 'judge'


def test_a_vetoed_generation_does_not_serve(life):
  talk(life)
  with supervisor(lambda prompt: 'no' if 'new version' in prompt else 'yes') as (url, _):
    outcome = sleep(life, url)
  assert (outcome.state, outcome.reason) == ('rejected', supervise.VETOED)
  assert life.diary.active() == 0 and len(life.diary.experiences(unconsumed=True)) == 3


@pytest.mark.parametrize(
  'answer, why',
  [
    ('Perhaps.', 'neither yes nor no'),
    ('yesterday', 'neither yes nor no'),
    (500, 'HTTP Error 500'),
    (b'{}', 'cannot be asked'),
    (b'[' * 100_000, 'cannot be asked'),
    (b' ' * (2 << 20), 'more than 1,048,576 bytes'),
  ],
)
def test_what_is_no_answer_holds_the_night_up(life, answer, why):
  talk(life)
  with supervisor(lambda prompt: answer) as (url, _), pytest.raises(OSError, match=why):
    sleep(life, url)
  assert life.diary.open_night() == 1 and life.diary.active() == 0
  assert not any(d.quality.reason == supervise.VETOED for d in life.diary.dreams(1))


def test_what_was_said_follows_no_redirect_and_no_proxy(life, monkeypatch):
  talk(life)
  with supervisor(lambda prompt: 'yes') as (other, elsewhere):
    monkeypatch.setenv('http_proxy', other.removesuffix('/v1'))
    with supervisor(lambda prompt: f'!{other}/chat/completions') as (url, heard):
      with pytest.raises(OSError, match='cannot be asked'):
        sleep(life, url)
  assert heard and not elsewhere


def test_secrets_are_struck_before_it_is_asked(life):
  life.talk('My parrot is called Kiwi.', 'My PIN is 4921.')
  with supervisor(lambda prompt: 'yes') as (url, heard):
    sleep(life, url)
  assert heard and '4921' not in json.dumps([body for _, _, body in heard])


def test_a_night_goes_on_when_it_can_be_asked_again(life):
  talk(life)
  count = 0

  def answer(prompt):
    nonlocal count
    count += 1
    return 'maybe' if count == 2 else 'yes'

  with supervisor(answer) as (url, heard):
    with pytest.raises(OSError, match='neither'):
      sleep(life, url)
    assert sleep(life, url).promoted
  assert life.diary.active() == 1 and len(heard) == count


def test_it_is_asked_once_where_a_review_follows(life):
  talk(life)
  config = dataclasses.replace(night_test.CONFIG, review=review.ReviewConfig(dreams=True))
  with supervisor(lambda prompt: 'yes') as (url, heard):
    given = SupervisorConfig(url=url, model='judge', generations=False)
    config = dataclasses.replace(config, supervisor=given)
    assert life.sleep(config).state == 'waiting'
    asked = len(heard)
    assert review.waiting(life.diary).point == 'dreams'
    review.go_on(life.diary, 'Ana')
    assert life.sleep(config).promoted and len(heard) == asked


def test_a_key_comes_from_the_environment(life, monkeypatch):
  talk(life)
  with supervisor(lambda prompt: 'yes') as (url, heard):
    with pytest.raises(ValueError, match=r"no variable 'JUDGE_KEY'"):
      sleep(life, url, key='JUDGE_KEY')
    monkeypatch.setenv('JUDGE_KEY', 'secret')
    assert sleep(life, url, key='JUDGE_KEY').promoted
  assert {key for _, key, _ in heard} == {'Bearer secret'}
  assert 'secret' not in json.dumps(dict(life.diary.night(1).config))


@pytest.mark.parametrize(
  'fields, why',
  [
    ({'url': 'ftp://x', 'model': 'm'}, 'give one like'),
    ({'url': 'file:///etc/passwd', 'model': 'm'}, 'give one like'),
    ({'url': 'http://example.org/v1', 'model': 'm'}, 'in the clear'),
    ({'url': 'http://127.0.0.1/v1'}, 'supervisor.model'),
    ({'url': 'https://x/v1', 'model': 'm', 'weights': 'w'}, 'both name one'),
  ],
)
def test_what_is_no_supervisor_is_refused(fields, why):
  with pytest.raises(ValueError, match=why):
    SupervisorConfig(**fields)
  assert not SupervisorConfig().armed
  assert SupervisorConfig(url='https://example.org/v1', model='m').armed


def test_another_checkpoint_says_it_by_its_likelihoods(life, tmp_path):
  config = SupervisorConfig(weights='random', architecture='tiny')
  ask = supervise.connect(config, tmp_path)
  assert ask('Is water wet? Answer:') in (True, False)
  assert ask('Is water wet? Answer:') == ask('Is water wet? Answer:')
