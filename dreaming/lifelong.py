"""A life of many days: a night after each, and after each night the questions of all days so far.

What the weights alone still answer is a matrix, night by day (Lopez-Paz and Ranzato, "Gradient
Episodic Memory", arXiv 1706.08840, section 3). A row is written when its night is over, and a life
that was cut off goes on after its last row.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dreaming import live, report
from dreaming.agent import Agent
from dreaming.days import Day
from dreaming.identity import drift

ROWS, RESULT, PLOT = 'lifelong.jsonl', 'lifelong.json', 'lifelong.png'


def run(agent: Agent, given: Sequence[Day | None], console: Console) -> int:
  """Lives the days and reports; 0 when every night was promoted."""
  lived = [day for day in given if day is not None]
  if len({day.path for day in lived}) < len(given):
    raise ValueError("life.days: --mode=life takes files, each named once, and no '-'")
  rows = _read(agent.workdir / ROWS)
  if len(rows) > len(lived) or any(
    r['days'] != [str(d.path) for d in lived[: i + 1]] for i, r in enumerate(rows)
  ):
    raise ValueError(
      f'{agent.workdir} has lived other days ({", ".join(rows[-1]["days"])}): name the same ones '
      'first, or choose another --config.workdir'
    )
  if rows:
    console.print(f'{len(rows)} of {len(lived)} nights are over already')
  for i in range(len(rows), len(lived)):
    rows.append(_day_and_night(agent, lived[: i + 1], console))
    _write(agent.workdir / ROWS, [json.dumps(row, ensure_ascii=False) for row in rows])
  summary = summarize(rows)
  show(rows, summary, console)
  result = agent.workdir / RESULT
  _write(result, [json.dumps({**summary, 'rows': rows}, indent=1, ensure_ascii=False)])
  picture = report.draw(agent.workdir / PLOT, lambda figure: _draw(figure, rows), agent.cache)
  console.print(f'kept in {result} and {picture}', soft_wrap=True)
  return 0 if all(r['promoted'] for r in rows) else 1


def _day_and_night(agent: Agent, so_far: Sequence[Day], console: Console) -> dict[str, Any]:
  """One more day: talk, sleep, then all days' questions to the weights, the last day's to all."""
  number, day, start = len(so_far), so_far[-1], time.monotonic()
  live.talk(agent, day, console)
  talked = time.monotonic()
  night: dict[str, Any] = {}
  if len(_ended(agent)) < number:  # or it was cut off between its night and its row
    night = report.night(live.sleep_after(agent, day, console), agent.workdir)
  slept = time.monotonic()
  with console.status(f'Asking about {number} days'):
    exams = [agent.examine(d, ('weights',)).plain() for d in so_far[:-1]]
    last = agent.examine(day).plain()
  blue = agent.identity.blue
  losses = [row['values'] for row in night.get('losses', ())]
  return {
    'days': [str(d.path) for d in so_far],
    'generation': blue.generation,
    'promoted': _ended(agent)[number - 1] == 'promoted',
    'reason': night.get('reason', ''),
    'weights': [e['recall']['weights'] for e in (*exams, last)],
    'invented': [e['never_mentioned']['weights'] for e in (*exams, last)],
    'arms': last['recall'],
    'arms_invented': last['never_mentioned'],
    'measures': night.get('measures', {}),
    'base': night.get('base', {}),
    'distance': drift.distance(blue.params, agent.base.params, agent.base.arch),
    'loss_tokens': sum(v.get('loss_tokens') or 0 for v in losses),
    'seconds': {
      'talk': talked - start,
      'sleep': slept - talked,
      'ask': time.monotonic() - slept,
    },
  }


def _ended(agent: Agent) -> list[str]:
  """How each night ended; one that was abandoned is none."""
  return [state for _, state in agent.status().nights if state in ('promoted', 'rejected')]


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
  """The rows so far; a last one that was cut off in writing is left out."""
  rows = []
  for line in path.read_text(encoding='utf-8').splitlines() if path.exists() else ():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break
  return rows


def _write(path: pathlib.Path, lines: Sequence[str]) -> None:
  """Whole or not at all."""
  temporary = path.with_name(f'.{path.name}.tmp')
  temporary.write_text('\n'.join(lines) + '\n', encoding='utf-8')
  os.replace(temporary, path)


# ---- What it came to ----


def summarize(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Plain values.

  `learned` is the mean over days of what the weights answered the morning after, `final` the mean
  after the last night, `retention` their ratio over all days but the last, `backward_transfer` the
  mean difference over those; None of a life of one day.
  """
  if not rows:
    return {}
  first = [row['weights'][i] for i, row in enumerate(rows)]
  last = list(rows[-1]['weights'])
  pairs = [
    (a, b) for a, b in zip(first[:-1], last[:-1], strict=True) if a is not None and b is not None
  ]  # a day without probes has no share
  before = sum(a for a, _ in pairs)
  measures = rows[-1]['measures']
  base = rows[-1]['base']
  return {
    'nights': len(rows),
    'learned': _mean(first),
    'final': _mean(last),
    'retention': sum(b for _, b in pairs) / before if before else None,
    'backward_transfer': _mean([b - a for a, b in pairs]),
    'general_drop': _change(base.get('general'), measures.get('general')),
    'nll_increase': _ratio(measures.get('nll'), base.get('nll')),
    'distance': rows[-1]['distance'],
    'seconds_a_night': _mean([r['seconds']['sleep'] for r in rows]),
  }


def _mean(values: Sequence[float | None]) -> float | None:
  known = [v for v in values if v is not None]
  return statistics.fmean(known) if known else None


def _change(a: float | None, b: float | None) -> float | None:
  return None if a is None or b is None else a - b


def _ratio(a: float | None, b: float | None) -> float | None:
  return None if a is None or not b else a / b - 1


# ---- For people ----


def show(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], console: Console) -> None:
  """The forgetting matrix, with what each night cost."""
  table = Table(title='What the weights alone answer, %', title_justify='left')
  table.add_column('after night', justify='right')
  for i in range(len(rows)):
    table.add_column(f'day {i + 1}', justify='right')
  for name in ('nll', 'moved', 'seconds'):
    table.add_column(name, justify='right')
  for i, row in enumerate(rows):
    shares = ['-' if v is None else f'{100 * v:.0f}' for v in row['weights']]
    rise = _ratio(row['measures'].get('nll'), row['base'].get('nll'))
    table.add_row(
      f'{i + 1}' if row['promoted'] else f'{i + 1}, rejected',
      *shares,
      *[''] * (len(rows) - len(shares)),
      '-' if rise is None else f'{100 * rise:+.1f}%',
      f'{100 * row["distance"]:.1f}%',
      f'{row["seconds"]["sleep"]:.0f}',
    )
  console.print(table)
  for name, value in summary.items():
    if value is not None:
      console.print(f'{name.replace("_", " ")}: {value:.3g}', highlight=False)


def _draw(figure: Any, rows: Sequence[Mapping[str, Any]]) -> None:
  matrix, curve = figure.subplots(1, 2)
  n = len(rows)
  cells = [[100 * (v or 0) for v in r['weights']] + [float('nan')] * (n - i - 1)
           for i, r in enumerate(rows)]  # fmt: skip
  image = matrix.imshow(cells, vmin=0, vmax=100, cmap='viridis')
  for i, row in enumerate(cells):
    for j, v in enumerate(row[: i + 1]):
      matrix.text(j, i, f'{v:.0f}', ha='center', va='center', color='white' if v < 60 else 'black')
  numbers = [str(i + 1) for i in range(n)]
  matrix.set_xticks(range(n), numbers)
  matrix.set_yticks(range(n), numbers)
  matrix.set(xlabel='day', ylabel='after night', title='right answers of the weights alone, %')
  figure.colorbar(image, ax=matrix)
  for day in range(n):
    held = [100 * (r['weights'][day] or 0) for r in rows[day:]]
    curve.plot(range(day + 1, n + 1), held, '.-', color='tab:blue', alpha=0.35, linewidth=1)
  mean = [100 * (_mean(r['weights']) or 0) for r in rows]
  curve.plot(range(1, n + 1), mean, 'o-', color='tab:red', label='all days so far')
  curve.legend()
  curve.set(ylim=(-2, 102), xlabel='after night', ylabel='%', title='each day, night by night')
  curve.set_xticks(range(1, n + 1))
