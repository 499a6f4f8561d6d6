"""Nobody let in: tokens, scopes, Host and Origin on every route, limits at speed, and a fuzzer.

  python benchmarks/access.py [--quick] [--json=FILE]

A server of the tiny architecture with tokens. Every route is asked without a token, with a wrong
one, with those of other scopes, under a foreign Host and from a foreign Origin. What is too large
is sent while four streams speak, which must end as if nobody had sent it. Schemathesis, in an
environment of its own, makes up requests from the OpenAPI document, good and bad, and looks for
errors of the server; a short run of it comes first, since what is loaded and compiled once is no
growth.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

FUZZER = common.ROOT / 'benchmarks' / 'fuzzer.txt'
REFUSE_MS, GROWTH_MIB = 100.0, 64.0
SCOPES = ('read', 'talk', 'admin')
_LONG = {'model': 'agent@0', 'max_tokens': 300}
NIGHT = 'print(\'{"event": "ended", "night": 1, "outcome": "empty"}\')'
"""In the place of a night: what is asked for here is whether one may begin it."""


def rss() -> float:
  """Of this process, MiB."""
  text = pathlib.Path('/proc/self/status').read_text()
  return int(re.search(r'VmRSS:\s+(\d+)', text)[1]) / 1024


def strangers(live, tokens: dict[str, str]) -> tuple[int, int]:
  """(requests that must be refused, those that were)"""
  asked = refused = 0
  for e in live.server.endpoints:
    if e.scope is None:
      continue  # /health
    path = re.sub(r'\{\w+\}', '1', e.path)
    admin = {'Authorization': f'Bearer {tokens["admin"]}'}
    wrong: list[dict[str, str]] = [admin | {'Host': 'evil.example'}]
    wrong += [admin | {'Origin': o} for o in ('http://evil.example', 'null')]
    wrong += [{}, {'Authorization': 'Bearer ' + 'x' * 40}, {'Authorization': 'Basic eDp5'}]
    wrong += [
      {'Authorization': f'Bearer {token}'}
      for scope, token in tokens.items()
      if scope not in (e.scope, 'admin')
    ]
    for headers in wrong:
      asked += 1
      answer = live.http.request(e.method, path, json={}, headers=headers)
      if answer.status_code in (401, 403):
        refused += 1
      else:
        print(f'let in: {e.method} {path} {sorted(headers)}: {answer.status_code}')
  return asked, refused


def oversized(live, token: str, rounds: int) -> tuple[list[float], int]:
  """(ms of each refusal, answers of another status) for what is too large, among streams."""
  head = {'Authorization': f'Bearer {token}'}
  body = {'model': 'agent', 'messages': [{'role': 'user', 'content': 'Hi'}]}
  chat = '/v1/chat/completions'
  size = live.server.config.max_media_bytes

  def picture(url: str) -> bytes:
    parts = [{'type': 'image_url', 'image_url': {'url': url}}]
    return json.dumps(body | {'messages': [{'role': 'user', 'content': parts}]}).encode()

  data = 'data:image/png;base64,'
  cases = [
    ('/v1/completions', b'x' * (live.server.config.max_body_bytes + 1), 413),
    (chat, json.dumps(body | {'n': 10_000}).encode(), 422),
    (chat, json.dumps(body | {'max_tokens': 10**9}).encode(), 422),
    (chat, json.dumps(body | {'messages': body['messages'] * 1000}).encode(), 422),
    (chat, picture(data + 'A' * 500_000), 422),
    (chat, picture(data + 'A' * (size // 3 * 4 + 8)), 413),
    (chat, picture('http://127.0.0.1/a.png'), 422),
    (chat, json.dumps(body | {'messages': [{'role': 'user', 'content': 'x ' * 200_000}]}).encode(),
     422),
    ('/v1/completions', json.dumps({'model': 'agent', 'prompt': 'y ' * 200_000}).encode(), 422),
    ('/api/forget', json.dumps({'ids': list(range(1, 10_002))}).encode(), 422),
    ('/api/recall', b'[' * 100_000, 400),
  ]  # fmt: skip
  times, strange = [], 0
  for _ in range(rounds):
    for path, data, status in cases:
      start = time.perf_counter()
      answer = live.http.post(path, content=data, headers=head)
      times.append(1e3 * (time.perf_counter() - start))
      if answer.status_code != status:
        strange += 1
        print(f'{path}, {len(data):,} bytes: {answer.status_code}, not {status}')
  return times, strange


def full(live, token: str) -> tuple[list[float], int]:
  """(ms of each 429, requests that ended neither whole nor refused) when the queue is full.

  Who fills it is a process of its own: its threads are not the server's.
  """
  import httpx

  share = live.server.config.queue * 3 // 4  # that one client may have
  places = live.server.config.slots + share
  times = []
  command = [sys.executable, __file__, f'--crowd={2 * places}', f'--url={live.url}']
  crowd = subprocess.Popen(
    command, stdout=subprocess.PIPE, text=True, env=os.environ | {'TOKEN': token}
  )
  head = {'Authorization': f'Bearer {token}'}
  with crowd, httpx.Client(base_url=live.url, headers=head, timeout=300) as client:
    while crowd.poll() is None and len(times) < 50:
      if live.server.engine.waiting < share:
        time.sleep(0.002)
        continue
      start = time.perf_counter()
      if client.post('/v1/completions', json=_LONG | {'prompt': 'One'}).status_code == 429:
        times.append(1e3 * (time.perf_counter() - start))
    told = crowd.communicate()[0].splitlines()
  if crowd.returncode:
    raise RuntimeError(f'the crowd ended with exit code {crowd.returncode}')
  for line in told[:-1]:
    print(line)
  return times, int(told[-1])


def crowd(count: int, url: str, token: str) -> None:
  """Asks all at once, and prints how many ended neither whole nor refused."""
  import httpx

  head, limits = {'Authorization': f'Bearer {token}'}, httpx.Limits(max_connections=None)
  with (
    httpx.Client(base_url=url, headers=head, timeout=300, limits=limits) as client,
    futures.ThreadPoolExecutor(count) as threads,
  ):

    def ask(i: int) -> httpx.Response:
      return client.post('/v1/completions', json=_LONG | {'prompt': f'One {i}'})

    strange = 0
    for answer in threads.map(ask, range(count)):
      whole = answer.status_code == 200 and answer.json()['usage']['completion_tokens']
      if not whole and answer.status_code != 429:
        strange += 1
        print(f'a stream that waited: {answer.status_code} {answer.text[:200]}'.replace('\n', ' '))
  print(strange)


def speak(live, token: str, done: list[str], stop: threading.Event) -> None:
  """One stream after the other, with what each said."""
  import openai

  client = openai.OpenAI(base_url=f'{live.url}/v1', api_key=token, max_retries=0, timeout=120)
  while not stop.is_set():
    said = client.completions.create(
      model='agent@0', prompt='The lighthouse', max_tokens=64, temperature=0
    )
    done.append(said.choices[0].text)


def fuzz(live, python: pathlib.Path, token: str, seconds: int, report: pathlib.Path):
  """(requests, {status: count}) of Schemathesis."""
  listing = report / 'fuzzed.json'
  subprocess.run(
    [str(python.with_name('st')), 'run', f'{live.url}/openapi.json', '--url', live.url,
     '-H', f'Authorization: Bearer {token}', '--checks', 'not_a_server_error',
     '--phases', 'examples,coverage,fuzzing', '--continue-on-failure', '--max-time', str(seconds),
     '--generation-deterministic', '--suppress-health-check', 'all', '--request-timeout', '30',
     '--report', 'har', '--report-har-path', str(listing)],
    stdout=(report / 'fuzzed.txt').open('w'), stderr=subprocess.STDOUT, check=False, cwd=report,
    timeout=seconds + 300,
  )  # fmt: skip
  statuses: collections.Counter[int] = collections.Counter()
  for entry in json.loads(listing.read_text())['log']['entries']:
    status = entry['response']['status']
    statuses[status] += 1
    if status >= 500 and status != 503:
      request = entry['request']
      print(f'{status}: {request["method"]} {request["url"]} {request.get("postData", "")}'[:300])
  return sum(statuses.values()), statuses


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--peer-python', type=pathlib.Path, help=f'a Python with {FUZZER.name}')
  p.add_argument('--seconds', type=int, default=120, help='of fuzzing')
  p.add_argument('--crowd', type=int, help=argparse.SUPPRESS)  # these two: a process of `full`
  p.add_argument('--url', help=argparse.SUPPRESS)
  args = p.parse_args()
  if args.crowd:
    crowd(args.crowd, args.url, os.environ['TOKEN'])
    return 0
  if args.quick:
    args.seconds = 20

  from benchmarks.serve_live import Live
  from configs import tiny
  from dreaming.agent import Agent

  cache = common.cache_of(args)
  python = common.peer_python(args.peer_python, cache, FUZZER)
  tokens = {scope: f'{scope}-' * 6 for scope in SCOPES}
  result = common.Result('access', args, seconds=args.seconds)
  with tempfile.TemporaryDirectory() as tmp:
    named = pathlib.Path(tmp) / 'tokens'
    named.write_text(''.join(f'{scope} {scope} {token}\n' for scope, token in tokens.items()))
    named.chmod(0o600)
    config = tiny.get_config()
    config.workdir, config.cache = f'{tmp}/life', str(cache)
    config.decode.cache_length = 1024
    config.serve.tokens, config.serve.rate, config.serve.kernels = str(named), 0, False
    with Agent(config) as agent, Live(agent, token=tokens['admin']) as live:
      live.server.nights.command = [sys.executable, '-c', NIGHT]
      live.http.headers.pop('Authorization')
      asked, refused = strangers(live, tokens)

      alone, once = [], threading.Event()
      one = threading.Thread(target=speak, args=(live, tokens['talk'], alone, once))
      one.start()
      while not alone:
        time.sleep(0.01)
      once.set()
      one.join()
      # What is loaded and compiled once is no growth.
      _, first = fuzz(live, python, tokens['admin'], min(args.seconds, 20), pathlib.Path(tmp))
      stop, said = threading.Event(), [[] for _ in range(4)]
      threads = [threading.Thread(target=speak, args=(live, tokens['talk'], s, stop)) for s in said]
      before = rss()
      for t in threads:
        t.start()
      times, strange = oversized(live, tokens['admin'], 3 if args.quick else 30)
      stop.set()
      for t in threads:
        t.join()
      cut = sum(text != alone[0] for texts in said for text in texts)
      busy, broken = full(live, tokens['talk'])
      requests, statuses = fuzz(live, python, tokens['admin'], args.seconds, pathlib.Path(tmp))
      growth = rss() - before
      print('fuzzed:', dict(sorted(statuses.items())))
  result.add('asked_by_strangers', asked)
  result.add('refused_ms_median', times, 'ms')
  result.add('fuzzed_requests', requests)
  result.add('streams_beside', sum(map(len, said)))
  result.bar('strangers_refused', refused / asked, '>=', 1.0)
  result.bar('refused_otherwise', strange, '<=', 0)
  result.bar('refused_ms_max', max(times), '<=', REFUSE_MS)
  result.bar('full_queue_ms_max', max(busy, default=float('inf')), '<=', REFUSE_MS)
  result.bar('others_affected', cut + broken, '<=', 0)
  result.bar('growth_mib', growth, '<=', GROWTH_MIB)
  errors = sum(n for s, n in (first + statuses).items() if s >= 500 and s != 503)
  result.bar('fuzzed_errors', errors if requests > 100 else float('inf'), '<=', 0)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
