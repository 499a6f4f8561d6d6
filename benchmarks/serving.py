"""Serving: eight streams against one, and from nothing to ready.

  python benchmarks/serving.py [--quick] [--tiny] [--json=FILE]

Decoding is timed over HTTP while all streams speak: from the moment when the last has begun to the
one when the first has ended. Beside the wall clock stands the processor time of a token, which the
work of others on the machine hardly changes. Starting is a process of its own, from its first
instruction to the first 200 of /ready, which generates a token; an uncounted start before it warms
the caches. Expected: 4 to 8 minutes on two cores.
"""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

RATIO_BAR, READY_BAR = 3.0, 12.0  # times; seconds
PROMPT = 'The lighthouse stood on the last rock before the open sea. Every evening the keeper'


def speak(live, streams: int, tokens: int) -> tuple[float, float]:
  """(tokens a second, processor seconds a token) while all streams speak."""
  engine, begun, ended = live.server.engine, [], []

  def stream(i: int) -> None:
    for chunk in live.client.completions.create(
      model='agent@0', prompt=f'{PROMPT} {i}', max_tokens=tokens, stream=True, temperature=0,
    ):  # fmt: skip
      if chunk.choices[0].text and i not in begun:
        begun.append(i)
    ended.append(i)

  threads = [threading.Thread(target=stream, args=(i,)) for i in range(streams)]
  for t in threads:
    t.start()
  while len(begun) < streams:
    time.sleep(0.002)
  start, cpu, before = time.perf_counter(), time.process_time(), engine.tokens
  while not ended:
    time.sleep(0.002)
  seconds, cpu, said = (
    time.perf_counter() - start, time.process_time() - cpu, engine.tokens - before
  )  # fmt: skip
  for t in threads:
    t.join()
  return said / seconds, cpu / said


def start(config: str, workdir: str, cache: pathlib.Path) -> float:
  """Seconds until a new server is ready."""
  import httpx

  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  begin = time.perf_counter()
  # Python's own cache is one of the warm ones, also where the environment keeps it from writing.
  env = {**os.environ, 'XLA_FLAGS': '', 'PYTHONPYCACHEPREFIX': str(common.ROOT / 'build/bytecode')}
  env.pop('PYTHONDONTWRITEBYTECODE', None)
  process = subprocess.Popen(
    [sys.executable, '-m', 'dreaming.main', '--mode=serve', f'--config={config}',
     f'--config.workdir={workdir}', f'--config.cache={cache}', f'--config.serve.port={port}'],
    cwd=common.ROOT, stderr=subprocess.DEVNULL,
    env=env,
  )  # fmt: skip
  try:
    while process.poll() is None:
      try:
        if httpx.get(f'http://127.0.0.1:{port}/ready', timeout=30).status_code == 200:
          return time.perf_counter() - begin
      except httpx.TransportError:
        pass
      time.sleep(0.05)
    raise RuntimeError(f'the server ended with code {process.returncode}')
  finally:
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--tokens', type=int, default=64, help='of each stream')
  p.add_argument('--streams', type=int, default=8)
  p.add_argument('--rounds', type=int, default=5)
  p.add_argument('--tiny', action='store_true', help='random weights of a toy size')
  args = p.parse_args()
  if args.quick:
    args.tokens, args.rounds = 16, 1

  from benchmarks.serve_live import Live
  from configs import gemma3_270m, tiny
  from dreaming.agent import Agent

  cache = common.cache_of(args)
  name = 'tiny' if args.tiny else 'gemma3_270m'
  config = (tiny if args.tiny else gemma3_270m).get_config()
  config.cache, config.serve.rate, config.serve.slots = str(cache), 0, args.streams
  result = common.Result('serving', args, tokens=args.tokens, streams=args.streams, model=name)
  ready = []
  with tempfile.TemporaryDirectory() as tmp:
    for i in range(1 + (1 if args.quick else 3)):
      took = start(f'configs/{name}.py', f'{tmp}/{i}', cache)
      ready += [took] if i else []
    ready_s = result.add('ready_s', ready, 's')

    config.workdir = f'{tmp}/life'
    with Agent(config) as agent, Live(agent) as live:
      speak(live, 1, 8)
      speed: dict[int, list[float]] = {1: [], args.streams: []}
      cpu: dict[int, list[float]] = {1: [], args.streams: []}
      for _ in range(args.rounds):
        for streams in speed:
          a, b = speak(live, streams, args.tokens)
          speed[streams].append(a)
          cpu[streams].append(1e3 * b)
  rate = {n: result.add(f'tokens_per_s_{n}', speed[n], 'tokens/s') for n in speed}
  cost = {n: result.add(f'cpu_ms_per_token_{n}', cpu[n], 'ms') for n in cpu}
  result.add('cpu_ratio', cost[1] / cost[args.streams], 'times')
  result.bar('ratio', rate[args.streams] / rate[1], '>=', RATIO_BAR)
  result.bar('ready_s', ready_s, '<=', READY_BAR)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
