"""Serving against transformers behind uvicorn: four clients, the same prompts, tokens a second.

  python benchmarks/serve_peer.py [--quick] [--json=FILE] [--peer-python=PYTHON]

Both serve our own weights over HTTP on this machine, in turn: ours in f32 with all streams in one
step, the peer in bf16, its faster one, with one request at a time and with four. The better
of its two figures counts. Expected: 6 minutes on two cores.
"""

from __future__ import annotations

import contextlib
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent import futures

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

CLIENTS, BAR = 4, 1.5
BEGINNINGS = (
  'The lighthouse stood on the last rock before the open sea. Every evening the keeper',
  'In the middle of the nineteenth century, the railways of Europe',
  'To bake a loaf of bread at home one needs flour, water, salt and yeast. First',
  'My grandmother used to tell me about the winter in which the river',
)


def speed(ask: Callable[[int], int], rounds: int) -> float:
  """Tokens a second of CLIENTS clients, each of which asks `rounds` times."""

  def client(i: int) -> int:
    return sum(ask(i) for _ in range(rounds))

  with futures.ThreadPoolExecutor(CLIENTS) as threads:
    start = time.perf_counter()
    tokens = sum(threads.map(client, range(CLIENTS)))
    return tokens / (time.perf_counter() - start)


@contextlib.contextmanager
def peer(python: pathlib.Path, directory: str, together: int) -> Iterator[str]:
  """The address of a peer that is ready."""
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
  script = common.ROOT / 'benchmarks' / 'peer_server.py'
  process = subprocess.Popen([str(python), str(script), directory, str(port), 'bfloat16',
                              str(together)])  # fmt: skip
  try:
    while True:
      if process.poll() is not None:
        raise RuntimeError(f'the peer ended with code {process.returncode}')
      with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1):
        break
      time.sleep(0.2)
    yield f'http://127.0.0.1:{port}'
  finally:
    process.terminate()
    process.wait(30)


def main() -> int:
  p = common.parser(__doc__)
  common.add_peer_flag(p)
  p.add_argument('--tokens', type=int, default=64)
  p.add_argument('--rounds', type=int, default=4, help='requests of each client')
  args = p.parse_args()
  if args.quick:
    args.tokens, args.rounds = 8, 1

  import httpx

  from benchmarks.serve_live import Live
  from configs import gemma3_270m
  from dreaming.agent import Agent

  cache = common.cache_of(args)
  python = common.peer_python(args.peer_python, cache)
  result = common.Result('serve_peer', args, clients=CLIENTS, tokens=args.tokens)
  with tempfile.TemporaryDirectory() as tmp:
    config = gemma3_270m.get_config()
    config.cache, config.workdir, config.serve.rate = str(cache), f'{tmp}/life', 0
    with Agent(config) as agent:
      bos, encode = agent.base.tokenizer.bos, agent.base.tokenizer.encode
      prompts = [[bos, *encode(text)] for text in BEGINNINGS]
      common.hand_over(agent.base, pathlib.Path(tmp) / 'weights')
      with Live(agent) as live:

        def ours(i: int) -> int:
          body = {'model': 'agent@0', 'prompt': prompts[i][1:], 'max_tokens': args.tokens,
                  'temperature': 0}  # fmt: skip
          return live.http.post('/v1/completions', json=body).json()['usage']['completion_tokens']

        speed(ours, 1)
        mine = result.add('ours_tokens_per_s', speed(ours, args.rounds), 'tokens/s')
    theirs = []
    for together in (1, CLIENTS):
      with (
        peer(python, f'{tmp}/weights', together) as url,
        httpx.Client(base_url=url, timeout=600) as client,
      ):

        def ask(i: int, client=client) -> int:
          body = {'prompt': prompts[i], 'max_tokens': args.tokens}
          return client.post('/v1/completions', json=body).json()['usage']['completion_tokens']

        ask(0)
        name = f'peer_tokens_per_s_{together}_at_a_time'
        theirs.append(result.add(name, speed(ask, args.rounds), 'tokens/s'))
  result.bar('ratio', mine / max(theirs), '>=', BAR)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
