"""Who may ask what: every route without a token, from elsewhere, and beyond every limit."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pathlib
import re
import threading
import time
from typing import ClassVar

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from benchmarks.serve_live import Live, serve_config
from dreaming import configuration
from dreaming.agent import Agent
from dreaming.serve import access as access_lib
from dreaming.serve import page, routes, schemas
from dreaming.serve.access import Access, Refused
from dreaming.serve.config import ServeConfig
from dreaming.serve.fair import FairQueue, Full
from dreaming.serve.server import Server, _config_of

TOKENS = {scope: scope * 8 + '-token' for scope in ('read', 'talk', 'admin')}
OPEN = {  # named one by one: whoever opens another path has to open it here, too
  '/health', '/', '/page/style.css', '/page/icon.svg', '/page/app.js', '/page/api.js',
  '/page/dom.js', '/page/media.js', '/page/chart.js', '/page/chat.js', '/page/diary.js',
  '/page/nights.js', '/page/night.js', '/page/identity.js',
}  # fmt: skip
METHODS = ('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS')


@pytest.fixture(scope='module')
def tokens(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokens') / 'tokens'
  path.write_text('# mine\n' + ''.join(f'{k} {k} {v}\n' for k, v in TOKENS.items()))
  path.chmod(0o600)
  return str(path)


@pytest.fixture(scope='module')
def server(tmp_path_factory, tokens):
  """Without weights: what is refused is refused before they are needed."""
  config = serve_config(tmp_path_factory, 'access')
  config.serve.tokens, config.serve.origins = tokens, ('https://example.org',)
  config.serve.max_body_bytes = 20_000
  with Agent(config) as agent:
    yield Server(agent)


@pytest.fixture
def http(server):
  return TestClient(server.app, base_url='http://127.0.0.1')  # not entered: nothing is loaded


def bearer(token: str) -> dict[str, str]:
  return {'Authorization': f'Bearer {token}'}


def paths(server):
  return [(e, re.sub(r'\{\w+\}', '1', e.path)) for e in server.endpoints]


# ---- Tokens ----


def test_every_route_but_health_needs_a_token_of_its_scope(server, http):
  for endpoint, path in paths(server):
    ask = {'method': endpoint.method, 'url': path, 'json': {}}
    if endpoint.scope is None:
      assert path == '/health' and http.request(**ask).status_code == 200
      continue
    assert http.request(**ask).status_code == 401, path
    wrong = http.request(**ask, headers=bearer('x' * 30))
    assert wrong.status_code == 401 and wrong.json()['error']['code'] == 'invalid_api_key', path
    for scope, token in TOKENS.items():
      if scope not in (endpoint.scope, 'admin'):
        assert http.request(**ask, headers=bearer(token)).status_code == 403, (path, scope)
  assert http.get('/nix').status_code == 401
  assert http.get('/nix', headers=bearer(TOKENS['read'])).status_code == 404


@pytest.fixture(scope='module')
def told(tmp_path_factory, tokens):
  """Another server, of two identities that have names, and something in their diaries."""
  config = serve_config(tmp_path_factory, 'told')
  config.serve.tokens, config.serve.origins = tokens, ('https://example.org',)
  config.life.user, config.life.agent = 'Zebedee', 'Quixotella'
  with Agent(config) as agent, Agent(_config_of(agent, 'ottoline')) as other:
    for each in (agent, other):
      each.diary.append(time=1.0, speaker='Zebedee', content='My marmoset is called Wilhelmina.')
    yield Server(agent, {'ottoline': other})


def test_health_and_the_files_of_the_page_are_all_that_answers_without_a_token(told):
  http = TestClient(told.app, base_url='http://127.0.0.1', follow_redirects=False)
  assert {type(r) for r in told.app.routes} == {Route}  # none that has others below it, no socket
  paths = {re.sub(r'\{\w+\}', '1', r.path) for r in told.app.routes}
  assert paths > OPEN and '/agents/ottoline/api/experiences' in paths
  own = {'Origin': 'https://example.org'}
  for path, method in ((p, m) for p in sorted(paths) for m in METHODS):
    for headers in ({}, bearer('x' * 30), own):
      answer = http.request(method, path, headers=headers)
      if path in OPEN and method in ('GET', 'HEAD'):
        assert answer.status_code == 200, (method, path)
      elif method == 'OPTIONS' and headers is own:  # may it ask? the answer is of no path
        assert (answer.status_code, answer.content) == (204, b''), path
      else:
        assert answer.status_code == 401, (method, path)
        assert answer.headers['www-authenticate'] == 'Bearer'


@pytest.mark.parametrize(
  'path',
  ['', '//', '/.', '/./', '/page', '/page/', '/page/index.html', '/page/server.py', '/page/App.js',
   '/page/app.js/', '/page//app.js', '/page/app.js?', '/page/app.js\0', '/page/app.js/../api.js',
   '/page/../server.py', '/page/../../../configs/default.py', '/page/../../etc/passwd',
   '/page/%2e%2e/server.py', '/page//etc/passwd', '/health/', '/health/../metrics'],
)  # fmt: skip
def test_what_only_looks_like_a_page_needs_a_token(told, path):
  assert asked(told.app, path) == 401
  assert asked(told.app, path, TOKENS['admin']) in (307, 404)  # and there is nothing


def asked(app, path: str, token: str = '') -> int:
  """The status of a path as it came: a client would have made it neat."""
  headers = [(b'host', b'127.0.0.1'), (b'authorization', f'Bearer {token}'.encode())]
  scope = {'type': 'http', 'http_version': '1.1', 'method': 'GET', 'scheme': 'http', 'path': path,
           'raw_path': path.encode(), 'query_string': b'', 'headers': headers, 'root_path': '',
           'client': ('127.0.0.1', 1), 'server': ('127.0.0.1', 80)}  # fmt: skip
  sent: list[dict] = []

  async def receive():
    return {'type': 'http.request', 'body': b'', 'more_body': False}

  async def send(message):
    sent.append(message)

  asyncio.run(app(scope, receive, send))
  return sent[0]['status']


def test_what_needs_no_token_knows_nobody(server, told):
  """Byte for byte what the package brings, whoever is served, whatever is asked with it."""
  one, other = (TestClient(s.app, base_url='http://127.0.0.1') for s in (server, told))
  assert one.get('/health').json() == other.get('/health').json() == {'status': 'ok'}
  assert {*page.OPEN} == OPEN - {'/health'}
  for path, name in page.OPEN.items():
    first, file = one.get(path), page.ROOT / name
    assert file.is_file() and not file.is_symlink() and first.content == file.read_bytes()
    asks = {'Authorization': f'Bearer {TOKENS["admin"]}', 'Cookie': 'user=Zebedee'}
    for answer in (other.get(path), other.get(f'{path}?user=Zebedee&file=../x', headers=asks)):
      assert (answer.status_code, answer.content) == (200, first.content), path
      assert answer.headers == first.headers
    for word in ('zebedee', 'quixotella', 'ottoline', 'marmoset', str(told.agent.workdir).lower()):
      assert word not in f'{first.text} {first.headers}'.lower(), path


@pytest.mark.parametrize('kind', ['Basic', 'bearer', 'BEARER', ''])
def test_only_bearer_tokens_count(http, kind):
  status = http.get(
    '/api/status', headers={'Authorization': f'{kind} {TOKENS["read"]}'}
  ).status_code
  assert status == (200 if kind.lower() == 'bearer' else 401)


@pytest.mark.parametrize(
  'text, why',
  [
    ('', 'no token in it'),
    ('a read', 'NAME SCOPES TOKEN'),
    ('a write ' + 'x' * 30, "'write' is no scope"),
    ('a read short', '5 characters'),
  ],
)
def test_a_bad_file_of_tokens_is_refused_and_not_shown(tmp_path, text, why):
  path = tmp_path / 'tokens'
  path.write_text(text)
  path.chmod(0o600)
  with pytest.raises(ValueError, match=why) as e:
    access_lib.read_tokens(str(path))
  assert 'xxx' not in str(e.value) and 'short' not in str(e.value)


def test_a_file_of_tokens_that_others_can_read_is_refused(tokens, tmp_path):
  path = tmp_path / 'tokens'
  path.write_text(pathlib.Path(tokens).read_text())
  path.chmod(0o640)
  with pytest.raises(ValueError, match='chmod 600'):
    access_lib.read_tokens(str(path))


# ---- Addresses ----


@pytest.mark.parametrize('host', ['0.0.0.0', '::', '192.168.1.2', 'example.org', ''])
def test_an_address_that_others_reach_needs_tokens(host, tokens):
  with pytest.raises(ValueError, match='serve.tokens names no file'):
    ServeConfig(host=host)
  config = ServeConfig(host=host, tokens=tokens)
  if host in ('0.0.0.0', '::', ''):
    with pytest.raises(ValueError, match='serve.hosts'):
      Access(config)
    config = dataclasses.replace(config, hosts=('box.example.org',))
  Access(config)


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost', '::1', '127.0.0.2'])
def test_loopback_needs_none(host):
  Access(ServeConfig(host=host))


def test_a_server_for_others_does_not_start_without_tokens(tmp_path_factory):
  config = serve_config(tmp_path_factory, 'open')
  config.serve.host = '0.0.0.0'
  with pytest.raises(ValueError, match=r'serve\.tokens'):
    configuration.group(config, 'serve', ServeConfig)


@pytest.mark.parametrize(
  'headers, status',
  [
    ({'Host': '127.0.0.1:8377'}, 200),
    ({'Host': 'localhost'}, 200),
    ({'Host': '[::1]:8377'}, 200),
    ({'Host': 'evil.example'}, 403),
    ({'Host': '127.0.0.1.evil.example'}, 403),
    ({'Host': ''}, 403),
    ({'Host': '127.0.0.1', 'Origin': 'http://127.0.0.1'}, 200),
    ({'Host': '127.0.0.1', 'Origin': 'https://example.org'}, 200),
    ({'Host': '127.0.0.1', 'Origin': 'http://evil.example'}, 403),
    ({'Host': '127.0.0.1', 'Origin': 'http://127.0.0.1.evil.example'}, 403),
    ({'Host': '127.0.0.1', 'Origin': 'null'}, 403),
  ],
)
def test_foreign_hosts_and_origins_are_refused(http, headers, status):
  answer = http.get('/api/status', headers=headers | bearer(TOKENS['admin']))
  assert answer.status_code == status


def test_a_named_page_may_read_the_answers_and_others_may_not(http):
  ask = {'Origin': 'https://example.org', 'Access-Control-Request-Method': 'POST'}
  allowed = http.options('/v1/chat/completions', headers=ask)
  assert allowed.status_code == 204
  assert allowed.headers['access-control-allow-origin'] == 'https://example.org'
  other = http.options('/v1/chat/completions', headers=ask | {'Origin': 'https://evil.example'})
  assert other.status_code == 403 and 'access-control-allow-origin' not in other.headers


# ---- Sizes ----


def post(http, path, body: bytes, **headers):
  start = time.monotonic()
  answer = http.post(
    path, content=body, headers=bearer(TOKENS['admin']) | {'Content-Type': 'application/json'}
    | headers,
  )  # fmt: skip
  return answer.status_code, answer.json()['error']['code'], time.monotonic() - start


def test_what_is_too_large_is_refused_at_once(http):
  path = '/v1/chat/completions'
  messages = [{'role': 'user', 'content': 'Hi'}]
  body = {'model': 'agent', 'messages': messages}
  assert post(http, '/v1/completions', b'x' * 20_001)[:2] == (413, 'body_too_large')
  for fields in ({'n': 9}, {'max_tokens': 513}, {'max_completion_tokens': 10**9},
                 {'stop': ['x'] * 9}, {'user': 'a\nb'}, {'messages': messages * 300}):  # fmt: skip
    status, code, seconds = post(http, path, json.dumps(body | fields).encode())
    assert (status, code) == (422, 'invalid_value') and seconds < 1, fields
  assert post(http, '/api/forget', json.dumps({'ids': [0]}).encode())[0] == 422


def test_a_stream_of_bytes_is_not_read_to_its_end():
  sent = 0

  class Endless:
    headers: ClassVar = {}

    async def stream(self):
      nonlocal sent
      while True:
        sent += 100_000
        yield b'x' * 100_000

  with pytest.raises(Refused) as e:
    asyncio.run(routes.read(Endless(), 20_000))
  assert e.value.status == 413 and sent < 20 << 20


@pytest.mark.parametrize('length', ['-1', 'x', '1e3', '99999999999999999999'])
def test_a_content_length_that_lies_is_refused(http, length):
  answer = http.post(
    '/api/recall', content=b'{}', headers=bearer(TOKENS['read']) | {'Content-Length': length}
  )
  assert answer.status_code == 413


@pytest.mark.parametrize(
  'body', [b'', b'nix', b'[]', b'"x"', b'{"query": NaN}', b'\xff', b'[' * 5000, b'{"query": 1}']
)
def test_a_body_that_is_wrong_is_refused(http, body):
  assert post(http, '/api/recall', body)[0] in (400, 422)


@pytest.mark.parametrize(
  'path',
  ['/api/experiences/../../etc/passwd', '/api/experiences/%2e%2e%2fdiary.sqlite', '/v1/models/../x',
   '/api/experiences/-1', '/api/experiences/1e9', '/api/experiences/99999999999999999999',
   '/api/nights/\u0661', '/api/replies/..%2f..%2fetc/why', '/static/../../etc/passwd'],
)  # fmt: skip
def test_no_path_reaches_the_files(http, path):
  assert http.get(path, headers=bearer(TOKENS['admin'])).status_code in (404, 503)


@pytest.mark.parametrize(
  'query', ['limit=0', 'limit=x', 'limit=501', 'nix=1', 'since=nan', 'limit=']
)
def test_a_query_that_is_wrong_is_refused(http, query):
  answer = http.get(f'/api/experiences?{query}', headers=bearer(TOKENS['read']))
  assert answer.status_code in (400, 422)


def test_every_schema_refuses_what_it_does_not_know(server):
  for endpoint in server.endpoints:
    if endpoint.body is not None:
      with pytest.raises(Refused) as e:
        schemas.parse(b'{"no_such_field": 1}', endpoint.body)
      assert e.value.status == 422


def test_the_document_has_every_route(server, http):
  document = http.get('/openapi.json', headers=bearer(TOKENS['read'])).json()
  for endpoint in server.endpoints:
    operation = document['paths'][endpoint.path][endpoint.method.lower()]
    assert operation['security'] == (
      [] if endpoint.scope is None else [{'token': [endpoint.scope]}]
    )


# ---- Rates and queues ----


def test_a_client_has_a_rate_of_its_own():
  now = [0.0]
  access = Access(ServeConfig(rate=60), now=lambda: now[0])
  ask = {'host': '127.0.0.1'}
  for _ in range(10):
    access.admit(ask, 'a')
  with pytest.raises(Refused) as e:
    access.admit(ask, 'a')
  assert e.value.status == 429 and e.value.headers['Retry-After'] == '2'
  access.admit(ask, 'b')
  now[0] += 1.0
  access.admit(ask, 'a')
  with pytest.raises(Refused):
    access.admit(ask, 'a')


def test_clients_take_turns_and_none_fills_the_queue():
  queue = FairQueue(8)
  queue.put('a', [1, 2, 3, 4])
  queue.put('b', [11, 12])
  with pytest.raises(Full, match='the limit is 8'):
    queue.put('a', [5, 6, 7])
  assert len(queue) == 6  # all or none
  queue.remove(2)
  assert [queue.pop() for _ in range(6)] == [1, 11, 3, 12, 4, None]


@pytest.fixture(scope='module')
def live(tmp_path_factory):
  config = serve_config(tmp_path_factory, 'crowd')
  config.serve.slots, config.serve.queue, config.serve.max_tokens = 2, 4, 512
  with Agent(config) as agent, Live(agent) as live:
    yield live


def test_a_full_queue_refuses_at_once_and_others_are_served(live):
  body = {'model': 'agent@0', 'messages': [{'role': 'user', 'content': 'Hi'}], 'max_tokens': 400}
  found = []

  def ask():
    start = time.monotonic()
    answer = live.http.post('/v1/chat/completions', json=body)
    found.append((answer.status_code, time.monotonic() - start))

  threads = [threading.Thread(target=ask) for _ in range(12)]
  for t in threads:
    t.start()
  for t in threads:
    t.join()
  assert {status for status, _ in found} == {200, 429}
  # What the queue holds, and one more if the slot was taken before it was full.
  assert sum(status == 200 for status, _ in found) >= 4


def test_who_leaves_makes_room(live):
  """A client that hangs up in the middle frees its slot, and what was said is kept."""
  engine, before = live.server.engine, len(live.agent.diary.experiences())
  body = {'model': 'agent', 'messages': [{'role': 'user', 'content': 'Hello.'}],
          'max_tokens': 500, 'stream': True}  # fmt: skip
  with live.http.stream('POST', '/v1/chat/completions', json=body) as answer:
    for _ in zip(range(4), answer.iter_lines(), strict=False):
      pass
    assert engine.active == 1
  end = time.monotonic() + 60
  while time.monotonic() < end and (engine.active or len(live.agent.diary.experiences()) == before):
    time.sleep(0.02)
  assert engine.active == 0
  logged = live.agent.diary.experiences()[-1]
  assert logged.metadata['interrupted'] is True
  leaving = threading.Thread(target=_hang_up, args=(live, body | {'stream': False}))
  leaving.start()
  leaving.join()
  end = time.monotonic() + 60
  while time.monotonic() < end and engine.active:
    time.sleep(0.02)
  assert engine.active == 0


def _hang_up(live, body) -> None:
  import httpx

  with pytest.raises(httpx.ReadTimeout):
    live.http.post('/v1/chat/completions', json=body, timeout=0.05)
