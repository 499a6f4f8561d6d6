"""Streams while generations change: nothing fails, is cut or is mixed, and hardly anyone waits.

  python benchmarks/serve_under_swap.py [--quick] [--tiny] [--json=FILE]

A server on the loopback address, with a base and three generations of random adapters whose greedy
words differ. --streams clients ask --requests times in all; every reply must be the very text that
the generation it names says. This runs without swaps and then with --swaps promotions and rollbacks
meanwhile, in turn, --rounds times. Expected: 15 to 25 minutes on two cores; --tiny runs random
weights of a toy size within two.
"""

from __future__ import annotations

import pathlib
import random
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common
from benchmarks.serve_live import Live, plant

REQUESTS, SWAPS, STREAMS, TOKENS = 1000, 20, 8, 12
TTFT_BAR, SWAP_BAR, ROLLBACK_BAR = 2.0, 0.1, 1.0  # times; seconds; seconds
MESSAGES = (
  'I have adopted a parrot, his name is Biscuit.',
  'What is the capital of France?',
  'My brother plays the cello in Nairobi.',
  'Who wrote Hamlet?',
)


class Round:
  """What clients heard: (prompt, generation, text, seconds to the first token), and what failed."""

  def __init__(self) -> None:
    self.said: list[tuple[int, int, str, float]] = []
    self.failed: list[str] = []
    self.cut = 0
    self.lock = threading.Lock()


def talk(live: Live, prompt: int, tokens: int, heard: Round, model: str = 'agent@blue') -> None:
  """One streamed request."""
  start, first, text, finish, named = time.perf_counter(), None, '', None, set()
  try:
    for chunk in live.client.chat.completions.create(
      model=model,
      messages=[{'role': 'user', 'content': MESSAGES[prompt]}],
      max_tokens=tokens,
      stream=True,
      extra_body={'retrieval': False},
    ):
      named.add(chunk.model)
      choice = chunk.choices[0]
      if choice.delta.content and first is None:
        first = time.perf_counter() - start
      text += choice.delta.content or ''
      finish = choice.finish_reason or finish
  except Exception as e:
    with heard.lock:
      heard.failed.append(f'{type(e).__name__}: {e}')
    return
  with heard.lock:
    if finish is None or len(named) != 1:
      heard.cut += 1
    else:
      took = time.perf_counter() - start
      heard.said.append((prompt, int(named.pop().split('@')[1]), text, first or took))


def crowd(live: Live, args, swaps: list[int]) -> tuple[Round, list[float]]:
  """All clients at once; (what they heard, seconds of every swap)."""
  heard, left, took = Round(), iter(range(args.requests)), []
  lock = threading.Lock()

  def client() -> None:
    while True:
      with lock:
        number = next(left, None)
      if number is None:
        return
      talk(live, number % len(MESSAGES), args.tokens, heard)

  threads = [threading.Thread(target=client) for _ in range(args.streams)]
  for t in threads:
    t.start()
  for i, number in enumerate(swaps):
    while len(heard.said) + len(heard.failed) < (i + 1) * args.requests // (len(swaps) + 1):
      time.sleep(0.01)
    took.append(common.timed(lambda n=number: serve(live, n)))
  for t in threads:
    t.join()
  return heard, took


def serve(live: Live, number: int) -> None:
  answer = live.http.post(f'/api/generations/{number}/promote', json={})
  answer.raise_for_status()


def percentile(values: list[float], share: float) -> float:
  values = sorted(values)
  return values[min(len(values) - 1, int(share * len(values)))]


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--requests', type=int, default=REQUESTS, help='of each round')
  p.add_argument('--swaps', type=int, default=SWAPS)
  p.add_argument('--streams', type=int, default=STREAMS)
  p.add_argument('--tokens', type=int, default=TOKENS)
  p.add_argument('--rounds', type=int, default=1)
  p.add_argument('--tiny', action='store_true', help='random weights of a toy size')
  args = p.parse_args()
  if args.quick:
    args.requests, args.swaps, args.rounds, args.tokens = 40, 6, 1, 6

  from configs import gemma3_270m, tiny
  from dreaming.agent import Agent

  config = (tiny if args.tiny else gemma3_270m).get_config()
  config.cache = str(common.cache_of(args))
  config.serve.rate, config.serve.slots = 0, args.streams
  config.decode.choose_replies = False  # every reply is to be a stream
  result = common.Result(
    'serve_under_swap', args, model=config.model.architecture, requests=args.requests,
    swaps=args.swaps, streams=args.streams, tokens=args.tokens,
  )  # fmt: skip
  with tempfile.TemporaryDirectory() as tmp:
    config.workdir = tmp
    with Agent(config) as agent:
      strength = 0.25 if args.tiny else 0.03
      numbers = [0, *(plant(agent, seed, strength=strength) for seed in (1, 2, 3))]
      with Live(agent) as live:
        measure(live, args, numbers, result)
  return result.finish()


def measure(live: Live, args, numbers: list[int], result: common.Result) -> None:
  known = {}
  for number in numbers:  # alone, before anything else
    heard = Round()
    for prompt in range(len(MESSAGES)):
      talk(live, prompt, args.tokens, heard, model=f'agent@{number}')
    assert not heard.failed, heard.failed
    known |= {(prompt, n): text for prompt, n, text, _ in heard.said}
  texts = {n: tuple(known[p, n] for p in range(len(MESSAGES))) for n in numbers}
  assert len(set(texts.values())) == len(numbers), 'the generations must differ'
  compiled = live.server.engine.compilations

  rng = random.Random(0)
  first: dict[str, list[float]] = {'still': [], 'swaps': []}
  failed = cut = mixed = 0
  speed, rollbacks, stale = [], [], 0
  for _ in range(args.rounds):
    for kind in first:
      swaps, now = [], live.server.voices.blue.generation
      while kind == 'swaps' and len(swaps) < args.swaps:
        now = rng.choice([n for n in numbers if n != now])
        swaps.append(now)
      start = time.perf_counter()
      heard, took = crowd(live, args, swaps)
      seconds = time.perf_counter() - start
      if kind == 'still':
        speed.append(args.requests * args.tokens / seconds)
      else:
        rollbacks += took
      first[kind] += [s for *_, s in heard.said]
      failed += len(heard.failed)
      cut += heard.cut
      mixed += sum(text != known[p, n] for p, n, text, _ in heard.said)
      for line in heard.failed[:3]:
        print(line)
  for number in [numbers[1], numbers[2], numbers[1]]:  # A, B, A, with shared prefixes kept
    serve(live, number)
    heard = Round()
    for prompt in range(len(MESSAGES)):
      talk(live, prompt, args.tokens, heard)
    stale += sum((n != number) or text != known[p, n] for p, n, text, _ in heard.said)

  swap_p50 = result.add('swap_s', rollbacks, 's')
  result.add('tokens_per_s', speed, 'tokens/s')
  tail = {k: percentile(v, 0.99) for k, v in first.items()}
  for kind, values in first.items():
    result.add(f'ttft_{kind}_s', values, 's')
    result.add(f'ttft_{kind}_p99_s', tail[kind], 's')
  median = {k: percentile(v, 0.5) for k, v in first.items()}
  result.bar('failed', failed, '<=', 0)
  result.bar('cut', cut, '<=', 0)
  result.bar('mixed', mixed, '<=', 0)
  result.bar('stale', stale, '<=', 0)
  result.bar('compiled', live.server.engine.compilations - compiled, '<=', 0)
  result.bar('ttft_p99', tail['swaps'] / tail['still'], '<=', TTFT_BAR)
  result.bar('swap_added_s', max(0.0, median['swaps'] - median['still']), '<=', SWAP_BAR)
  result.bar('rollback_s', swap_p50, '<=', ROLLBACK_BAR)


if __name__ == '__main__':
  sys.exit(main())
