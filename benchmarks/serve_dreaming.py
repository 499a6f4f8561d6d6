"""Chat while it dreams: how long a message waits for its first token, and the night for its end.

  python benchmarks/serve_dreaming.py [--quick] [--steps=N] [--json=FILE]

The real model, the first shipped day in its diary, and the same night twice from one start: once
with nobody there, once with somebody who says something every few seconds. Before, the same things
are said without a night. Expected: two nights, some 40 minutes on two cores with the steps of the
default recipe; --steps shortens both nights alike.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

TTFT_BAR, NIGHT_BAR = 2.5, 2.0  # times
SAID = (
  'The rain has not stopped since noon.', 'Do you think I should take the early train?',
  'What did I tell you about my sister?', 'I will make soup tonight.', 'Where does Amara live now?',
)  # fmt: skip


def first_token(live, text: str) -> float:
  """Seconds from asking to the first token of a reply that is not logged."""
  start = time.perf_counter()
  stream = live.client.chat.completions.create(
    model='agent', messages=[{'role': 'user', 'content': text}], max_tokens=16, stream=True,
    extra_body={'store': False},
  )  # fmt: skip
  seconds = 0.0
  for chunk in stream:
    if not seconds and chunk.choices and chunk.choices[0].delta.content:
      seconds = time.perf_counter() - start
  return seconds or time.perf_counter() - start


def night(live) -> tuple[float, dict]:
  """(seconds, last event) of a night."""
  start = time.perf_counter()
  answer = live.http.post('/api/nights', json={})
  answer.raise_for_status()
  event: dict = {}
  with live.http.stream('GET', '/api/nights/current/events', timeout=7200) as lines:
    for line in lines.iter_lines():
      if line.startswith('data: '):
        event = json.loads(line[6:])
  return time.perf_counter() - start, event


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--steps', type=int, help='of training, by default those of the recipe')
  p.add_argument('--every', type=float, default=5.0, help='seconds between two messages')
  args = p.parse_args()
  if args.quick:
    args.steps = args.steps or 2

  from rich.console import Console

  from benchmarks.serve_live import Live
  from configs import gemma3_270m
  from dreaming import days
  from dreaming.agent import Agent

  config = gemma3_270m.get_config()
  config.cache, config.serve.rate = str(common.cache_of(args)), 0
  config.decode.choose_replies = False  # every reply is to be a stream
  config.train.steps = args.steps or config.train.steps
  if args.quick:
    config.prune.amounts = (0.0,)
  day = days.load(common.ROOT / 'days' / 'priya.json', user=config.life.user)
  result = common.Result('serve_dreaming', args, steps=config.train.steps, every=args.every)
  console = Console()
  with tempfile.TemporaryDirectory() as tmp:
    config.workdir = f'{tmp}/told'
    with Agent(config) as agent, console.status('The day is told'):
      for x in day.interactions:
        agent.observe(x.text, x.response or 'I see.', user=x.user, now=x.time)
    seconds, ends, waits = {}, {}, {}
    for name in ('alone', 'beside'):
      config.workdir = f'{tmp}/{name}'
      shutil.copytree(f'{tmp}/told', config.workdir)
      with Agent(config) as agent, Live(agent) as live:
        for text in SAID:
          first_token(live, text)
        if name == 'alone':
          waits['without'] = [first_token(live, t) for t in SAID * (1 if args.quick else 4)]
          with console.status('A night with nobody there'):
            seconds[name], ends[name] = night(live)
          continue
        waits['with'], over = [], threading.Event()

        def talk(live=live, over=over) -> None:
          i = 0
          while not over.wait(args.every):
            waits['with'].append(first_token(live, SAID[i % len(SAID)]))
            i += 1

        talking = threading.Thread(target=talk)
        talking.start()
        with console.status('The same night, and somebody talks'):
          seconds[name], ends[name] = night(live)
        over.set()
        talking.join()
  for name, event in ends.items():
    if event.get('event') != 'ended':
      raise RuntimeError(f'the night {name} did not end: {event}')
  without = result.add('first_token_s', waits['without'], 's')
  beside = result.add('first_token_beside_s', waits['with'], 's')
  result.add('first_token_p95_ratio', _p95(waits['with']) / _p95(waits['without']), 'times')
  for name, value in seconds.items():
    result.add(f'night_{name}_s', value, 's')
  result.bar('first_token_ratio', beside / without, '<=', TTFT_BAR)
  result.bar('night_ratio', seconds['beside'] / seconds['alone'], '<=', NIGHT_BAR)
  return result.finish()


def _p95(values: list[float]) -> float:
  return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0]


if __name__ == '__main__':
  sys.exit(main())
