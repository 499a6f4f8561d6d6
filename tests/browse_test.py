"""What the page asks for: the diary by filters, a night in full, facts, the matrix, imports; and
its files, which come under fixed names with a strict policy."""

from __future__ import annotations

import json
import re

import pytest
from starlette.testclient import TestClient

from benchmarks import page_live
from benchmarks.serve_live import serve_config
from dreaming.agent import Agent
from dreaming.memory.diary import Diary
from dreaming.serve import page
from dreaming.serve.server import Server
from dreaming.types import Trust

TOKEN = 'admin-' * 5


@pytest.fixture(scope='module')
def server(tmp_path_factory):
  """A life of two nights; no weights are read, and a token is needed."""
  tokens = tmp_path_factory.mktemp('tokens') / 'tokens'
  tokens.write_text(f'me admin {TOKEN}\nguest read {"reader" * 5}\n')
  tokens.chmod(0o600)
  config = serve_config(tmp_path_factory, 'browse')
  config.serve.tokens, config.life.user = str(tokens), 'Ana'
  config.serve.max_body_bytes = 20_000
  with Agent(config) as agent:
    page_live.fill(agent, experiences=30, nights=2)
    yield Server(agent)


@pytest.fixture
def http(server):
  client = TestClient(server.app, base_url='http://127.0.0.1')  # not entered: nothing is loaded
  client.headers['Authorization'] = f'Bearer {TOKEN}'
  return client


# ---- The diary by filters ----


@pytest.fixture(scope='module')
def diary(tmp_path_factory):
  with Diary(tmp_path_factory.mktemp('diary') / 'diary.sqlite') as diary:
    for i in range(30):
      trust = Trust.IMPORTED if i % 3 == 0 else Trust.THIRD_PARTY if i % 3 == 1 else Trust.USER
      kind = 'observation' if i % 2 else 'chat'
      content = f'The café is closed on day {i}.' if i % 5 else f'Paul plays the cello, {i}.'
      diary.append(time=float(i), speaker='Ana', content=content, kind=kind, trust=trust)
    yield diary


def test_pages_are_all_of_it_in_order_and_none_twice(diary):
  found = [diary.browse(limit=7, offset=o) for o in range(0, 35, 7)]
  assert [i for ids, _ in found for i in ids] == list(range(30, 0, -1))
  assert {total for _, total in found} == {30}


def test_filters_narrow_together_as_a_plain_search_does(diary):
  everything = diary.experiences()
  for text in ('', 'CAFE closed', 'cel'):
    for kind in (None, 'chat'):
      for trust in (None, *Trust):
        for waiting in (False, True):
          words = text.casefold().replace('cafe', 'café').split()
          wanted = [
            e.id for e in everything
            if all(re.search(rf'\b{w}', e.content.casefold()) for w in words)
            and kind in (None, e.kind) and trust in (None, e.trust)
            and (e.trust < Trust.USER or not waiting)
          ]  # fmt: skip
          ids, total = diary.browse(text=text, kind=kind, trust=trust, waiting=waiting)
          assert (ids, total) == (wanted[::-1], len(wanted)), (text, kind, trust, waiting)


@pytest.mark.parametrize('text', ['"', '* OR 1', 'a"b', 'NEAR(', '???', '\x00', 'x' * 200, '-'])
def test_no_text_is_an_operator(diary, text):
  assert diary.browse(text=text) == ([], 0)


def test_a_night_has_what_it_consumed_and_zero_the_rest(server):
  diary = server.agent.diary
  first, second = (set(diary.browse(night=n)[0]) for n in (1, 2))
  rest = set(diary.browse(night=0, limit=1000)[0])
  assert len(first) == len(second) == 2 and not first & second
  assert first | second | rest == {e.id for e in diary.experiences()}


def test_what_is_archived_is_not_looked_through(tmp_path):
  with Diary(tmp_path / 'diary.sqlite') as diary:
    ids = [diary.append(time=float(i), speaker='A', content='rain').id for i in range(3)]
    diary.archive(ids[:2])
    assert diary.browse() == diary.browse(text='rain') == ([ids[2]], 1)


def test_the_endpoint_filters_and_refuses_what_it_does_not_know(http):
  found = http.get('/api/diary?text=parrot&night=1&trust=user&kind=chat').json()
  assert found['total'] == 1 and 'Biscuit' in found['experiences'][0]['content']
  assert http.get('/api/diary?trust=waiting').json() == {'total': 0, 'experiences': []}
  page = http.get('/api/diary?limit=3&offset=4').json()
  assert len(page['experiences']) == 3 and page['total'] == 30
  for wrong in ('kind=x', 'trust=0', 'limit=201', 'offset=-1', 'night=-1', 'text=' + 'x' * 201):
    assert http.get(f'/api/diary?{wrong}').status_code == 422, wrong


# ---- Facts, a night, the matrix ----


def test_facts_are_counted_and_come_in_pages(http):
  found = http.get('/api/facts?limit=2').json()
  assert found['states']['held'] == 4 and found['states']['heard'] == 26 == found['total'] - 4
  held = http.get('/api/facts?state=held&limit=3').json()
  more = http.get('/api/facts?state=held&limit=3&offset=3').json()
  assert [f['state'] for f in held['facts'] + more['facts']] == ['held'] * 4
  assert held['facts'][0]['exams'] == [{'night': 2, 'share': 1.0}]  # the newest first
  assert http.get('/api/facts?state=known').status_code == 422


def test_probes_have_their_answers_of_every_night(http):
  found = http.get('/api/probes').json()
  assert found['total'] == len(found['probes']) == 6
  twice = [p for p in found['probes'] if p['answers'] and len(p['replies']) == 2]
  assert len(twice) == 2  # the second night asked what the first had taught
  for p in twice:
    assert [r['night'] for r in p['replies']] == [1, 2] and p['answers'] and p['about']
  unknown = [p for p in found['probes'] if not p['answers']]
  assert {r['right'] for p in unknown for r in p['replies']} == {True, False}
  page = http.get('/api/probes?limit=3&offset=1').json()
  assert page == {'total': 6, 'probes': found['probes'][1:4]}


def test_a_night_is_told_in_full(http):
  first, second = (http.get(f'/api/nights/{n}/report').json() for n in (1, 2))
  assert [e['content'] for e in first['chosen']] == [t[0] for t in page_live.TOLD[:2]]
  assert first['chosen_count'] == 2 and first['parent'] == 0 and second['parent'] == 1
  by = {}
  for q in second['questions']:
    by.setdefault(q['measure'], []).append(q)
  assert {k: len(v) for k, v in by.items()} == {'recall': 2, 'earlier': 2, 'never_mentioned': 2}
  assert all(q['before'] == {'night': 1, 'reply': q['reply'], 'right': True} for q in by['earlier'])
  assert by['recall'][0]['answer'] and by['recall'][0]['before'] is None
  # Of what nobody said, an invention is what is not right.
  assert [q['right'] for q in by['never_mentioned']] == [False, True]
  assert second['measures']['recall'] == 1.0 and second['base']['recall'] == 0.0
  assert [r['index'] for r in second['losses']] == list(range(1, 25))
  assert http.get('/api/nights/3/report').status_code == 404


def test_a_night_whose_steps_were_forgotten_is_told_as_far_as_it_is_known(server, http):
  diary = server.agent.diary
  id = diary.append(time=1.0, speaker='Ana', content='A secret.').id
  number = diary.begin_night({})
  diary.set_night_step(number, 'select', {'ids': [id], 'now': 1.0, 'parent': 2})
  diary.end_night(number, 'rejected', {'outcome': 'empty', 'reason': 'no', 'selected': [id]})
  diary.forget([id])
  found = http.get(f'/api/nights/{number}/report').json()
  assert found['chosen'] == [] == found['questions'] and found['chosen_count'] == 1


def test_the_matrix_is_what_the_life_wrote_up_to_a_line_that_was_cut_off(server, http):
  path = server.agent.workdir / 'lifelong.jsonl'
  whole = path.read_text()
  assert [len(r['weights']) for r in http.get('/api/matrix').json()['rows']] == [1, 2]
  path.write_text(whole[:-20])
  assert [r['day'] for r in http.get('/api/matrix').json()['rows']] == ['1']
  path.unlink()
  assert http.get('/api/matrix').json() == {'rows': []}
  path.write_text(whole)


# ---- Imports ----


def line(content: str, **fields) -> str:
  return json.dumps({'time': 1.7e9, 'speaker': 'Ana', 'content': content, **fields}) + '\n'


def test_a_log_comes_in_untrusted_and_once(server, http):
  body = {'name': 'old log.jsonl', 'text': line('I like figs.') + line('And plums.') + 'nix\n'}
  first = http.post('/api/import', json=body).json()
  assert (first['added'], first['known'], first['damaged']) == (2, 0, 1)
  assert first['lines'][0]['place'] and first['formats'] == ['jsonl']
  assert http.post('/api/import', json=body).json()['known'] == 2
  waiting = http.get('/api/diary?trust=waiting').json()['experiences']
  assert [e['content'] for e in waiting] == ['And plums.', 'I like figs.']
  assert {e['session'] for e in waiting} == {'jsonl/old log.jsonl'}
  ids = [e['id'] for e in waiting]
  assert http.post('/api/approve', json={'ids': ids}).json() == {'approved': 2}
  assert http.post('/api/forget', json={'ids': ids}).json()['forgotten'] == 2


@pytest.mark.parametrize(
  'fields, status',
  [
    ({'name': '../x', 'text': 'x'}, 422),
    ({'name': 'a/b', 'text': 'x'}, 422),
    ({'name': '.x', 'text': 'x'}, 422),
    ({'name': 'x\x00', 'text': 'x'}, 422),
    ({'name': 'x', 'text': ''}, 422),
    ({'name': 'x', 'text': 'no log'}, 422),
    ({'name': 'x', 'text': '\ud800'}, 422),
    ({'name': 'x', 'text': 'x' * 20_000}, 413),
    ({'name': 'x'}, 422),
  ],
)
def test_a_log_that_is_none_changes_nothing(server, http, fields, status):
  before = len(server.agent.diary.experiences())
  body = json.dumps(fields).encode()
  answer = http.post('/api/import', content=body)
  assert answer.status_code == status and answer.json()['error']['message']
  assert len(server.agent.diary.experiences()) == before


def test_only_an_admin_brings_in(http):
  body = {'name': 'x.jsonl', 'text': line('Hello.')}
  guest = {'Authorization': f'Bearer {"reader" * 5}'}
  assert http.post('/api/import', json=body, headers=guest).status_code == 403
  assert http.get('/api/diary', headers=guest).status_code == 200


# ---- The files ----


def test_the_page_comes_without_a_token_and_holds_nothing_of_the_diary(http):
  del http.headers['Authorization']
  for name in page.FILES:
    path = '/' if name == 'index.html' else f'/page/{name}'
    answer = http.get(path)
    assert answer.status_code == 200 and answer.content == (page.ROOT / name).read_bytes()
    assert answer.headers['content-security-policy'] == page.POLICY
    assert answer.headers['x-content-type-options'] == 'nosniff'
    assert answer.headers['cache-control'] == 'no-cache'
    etag = {'If-None-Match': answer.headers['etag']}
    again = http.get(path, headers=etag)
    assert (again.status_code, again.content) == (304, b'')
    assert http.post(path).status_code in (401, 405)


@pytest.mark.parametrize(
  'path',
  ['/page/', '/page/../server.py', '/page/%2e%2e/server.py', '/page/..%2fserver.py', '/page/app',
   '/page/app.js/', '/page//app.js', '/index.html', '/page/index.html', '/page/App.js'],
)  # fmt: skip
def test_no_other_path_is_a_file(http, path):
  answer = http.get(path, follow_redirects=False)
  assert answer.status_code in (307, 404)
  assert b'import' not in answer.content and b'<html' not in answer.content


def test_every_file_is_served_and_every_import_is_a_file():
  there = {p.name for p in page.ROOT.iterdir() if p.is_file()}
  assert there == set(page.FILES)
  for name in there:
    text = (page.ROOT / name).read_text()
    found = re.findall(r"from '\./([^']+)'", text) + re.findall(r'/page/([\w.]+)', text)
    assert set(found) <= there, name


def test_data_never_becomes_markup():
  """Beside the policy, which would refuse it, and the test in a browser, which would see it."""
  for path in page.ROOT.glob('*.js'):
    text = path.read_text()
    for word in ('innerHTML', 'outerHTML', 'insertAdjacentHTML', 'document.write', 'eval(',
                 'DOMParser', 'createContextualFragment', 'Function('):  # fmt: skip
      assert word not in text, (path.name, word)
  html = (page.ROOT / 'index.html').read_text()
  assert re.findall(r'<script[^>]*>(.*?)</script>', html) == ['']
  assert not re.search(r'\son\w+=|\sstyle=|https?://', html)
