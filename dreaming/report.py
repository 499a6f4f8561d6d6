"""What a life came to: tables for people, result.json for programs, a plot for papers.

`result` is plain values all through: {'days': [Examination.plain()], 'nights': [`night`],
'recall': {...}, 'seconds': {...}, ...}; live.py puts it together.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dreaming.arms import ARMS
from dreaming.sleep import metrics
from dreaming.sleep.outcome import Outcome

if TYPE_CHECKING:
  from dreaming.memory import trim
  from dreaming.sleep.night import Progress as NightProgress

RESULT = 'result.json'
PLOT = 'result.png'

# ---- Nights ----


def line(outcome: Outcome) -> str:
  """What became of a night, in one line; loud when it changed nothing."""
  if outcome.promoted and outcome.generation is not None:
    return (
      f'Night {outcome.number}: generation {outcome.generation.number} serves now, with '
      f'{len(outcome.consumed)} of {len(outcome.selected)} experiences in its weights '
      f'({outcome.dreams_kept} dreams kept, {outcome.dreams_rejected} rejected)'
    )
  if outcome.state == 'waiting':
    return f'Night {outcome.number} is not over: {outcome.reason}'
  return f'NIGHT {outcome.number} CHANGED NOTHING ({outcome.state}): {outcome.reason}'


def night(outcome: Outcome, workdir: pathlib.Path) -> dict[str, Any]:
  """A night as plain values, with its losses by step."""
  rows = metrics.read(workdir / 'nights' / f'{outcome.number:04d}' / 'metrics.jsonl')
  losses = [row for row in rows if row['step'] == 'train']
  return {'number': outcome.number, **outcome.plain(), 'losses': losses}


@contextlib.contextmanager
def progress(console: Console) -> Iterator[NightProgress]:
  """A line for each step of a night, with its bar, its time, and the latest values."""
  columns = ('{task.description:<8}', BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
  with Progress(*columns, TextColumn('{task.fields[values]}'), console=console) as bars:
    tasks = {}

    def show(step: str, done: int, total: int, values: Mapping[str, float]) -> None:
      text = '  '.join(f'{k.replace("_", " ")} {v:.3g}' for k, v in list(values.items())[:4])
      if step not in tasks:
        tasks[step] = bars.add_task(step, total=None, values='')
      if total:  # without one the step has only begun, or is measured in one go
        bars.update(tasks[step], total=total)
      bars.update(tasks[step], completed=done, values=text)

    yield show


# ---- Tables ----


def show_days(examined: Sequence[Mapping[str, Any]], console: Console) -> None:
  """The four arms of each day."""
  for day in examined:
    title = f'{pathlib.Path(day["day"]).name}, generation {day["generation"]} serving'
    table = Table(title=escape(title), title_justify='left')
    table.add_column('share of questions answered')
    for arm in ARMS:
      table.add_column(arm, justify='right')
    rows = (
      (f'rightly, of {day["probes"]}', day['recall']),
      (f'with an invention, of {day["never_mentioned_questions"]}', day['never_mentioned']),
    )
    for name, values in rows:
      table.add_row(name, *(_percent(values[arm]) for arm in ARMS))
    console.print(table)


def show_facts(facts: Sequence[tuple[str, float]], console: Console) -> None:
  """Which facts the weights hold: (what was said, share of its questions answered rightly)."""
  if not facts:
    return
  table = Table(title='Facts in the weights, diary closed', title_justify='left', expand=True)
  table.add_column('right', justify='right', no_wrap=True)
  # A column that takes what is left: or else a narrow terminal leaves nothing of the other.
  table.add_column('what was said', overflow='ellipsis', no_wrap=True, ratio=1)
  for said, share in facts:
    table.add_row(_percent(share), escape(' '.join(said.split())))
  console.print(table)


def show_night(night: Mapping[str, Any], console: Console) -> None:
  """The gate's rows of one night, and where its time went."""
  title = f'Night {night["number"]}: {night["outcome"]}'
  table = Table(title=title, title_justify='left')
  for column in ('gate', 'value', 'may be', 'limit', ''):
    table.add_column(column, justify='left' if column == 'gate' else 'right')
  for row in night['gate']:
    value = 'not measured' if row['value'] is None else f'{row["value"]:+.3f}'
    ends = row.get('low'), row.get('high')  # nights before there were intervals have none
    interval = '' if None in ends else f'{ends[0]:+.3f} to {ends[1]:+.3f}'
    verdict = 'ok' if row['ok'] else 'FAILED'
    table.add_row(row['name'], value, interval, f'{row["limit"]}', verdict)
  if table.row_count:
    console.print(table)
  spent = ', '.join(f'{step} {s:.0f} s' for step, s in night['seconds'].items())
  if spent:
    console.print(f'Night {night["number"]}: {spent}', highlight=False)


# ---- The archive ----


def trimmable(plan: trim.Plan) -> list[str]:
  """What would go to the archive, a line each, and how much stays for which reason."""
  lines = []
  for e in plan.chosen:
    when = datetime.datetime.fromtimestamp(e.time, datetime.UTC)
    importance = e.scores.importance if e.scores else 0.0
    text = ' '.join(e.content.split())
    text = text if len(text) <= 120 else text[:117] + '...'
    lines.append(f'{e.id:>4}  {when:%Y-%m-%d}  {importance:4.1f}  {e.speaker}: {text}')
  lines.append(f'{len(plan.chosen):,} experiences are old, unimportant and learned')
  return lines + [f'{count:>7,} stay: {reason}' for reason, count in plan.kept.items()]


def trimmed(done: trim.Trimmed) -> str:
  """What went there, in one line."""
  if not done.archived:
    return 'nothing is old, unimportant and learned: all stays as it is'
  return f'{len(done.archived):,} experiences are archived, {len(done.summaries):,} summaries stay'


def _percent(share: float | None) -> str:
  return '-' if share is None else f'{100 * share:.0f}%'


# ---- Files ----


def write(workdir: pathlib.Path, result: Mapping[str, Any]) -> pathlib.Path:
  """result.json, whole or not at all."""
  path = workdir / RESULT
  temporary = workdir / f'.{RESULT}.tmp'
  text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
  temporary.write_text(text + '\n', encoding='utf-8')
  os.replace(temporary, path)
  return path


def plot(workdir: pathlib.Path, result: Mapping[str, Any], cache: pathlib.Path) -> pathlib.Path:
  """result.png: recall of the four arms, the last night's losses, its gate."""

  def draw_all(figure: Any) -> None:
    recall, losses, gate = figure.subplots(1, 3)
    _draw_arms(recall, result['days'])
    night = result['nights'][-1] if result['nights'] else {}
    _draw_losses(losses, night.get('losses', []))
    _draw_gate(gate, night.get('gate', []))

  return draw(workdir / PLOT, draw_all, cache)


def draw(path: pathlib.Path, paint: Callable[[Any], None], cache: pathlib.Path) -> pathlib.Path:
  """A PNG of what `paint` puts into a matplotlib Figure, whole or not at all."""
  # Before the first import: matplotlib keeps its font list in the home directory otherwise.
  os.environ.setdefault('MPLCONFIGDIR', str(cache / 'matplotlib'))
  with contextlib.suppress(OSError):  # then it takes a temporary directory
    pathlib.Path(os.environ['MPLCONFIGDIR']).mkdir(parents=True, exist_ok=True)
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(12, 3.6), layout='constrained')
  FigureCanvasAgg(figure)
  paint(figure)
  temporary = path.with_name(f'.tmp-{path.name}')
  figure.savefig(temporary, format='png', dpi=120)
  os.replace(temporary, path)
  return path


def _draw_arms(axes: Any, examined: Sequence[Mapping[str, Any]]) -> None:
  width = 0.8 / max(len(examined), 1)
  for i, day in enumerate(examined):
    heights = [100 * (day['recall'][arm] or 0) for arm in ARMS]
    places = [x + (i - (len(examined) - 1) / 2) * width for x in range(len(ARMS))]
    bars = axes.bar(places, heights, width, label=pathlib.Path(day['day']).stem)
    axes.bar_label(bars, fmt='%.0f')
  axes.set_xticks(range(len(ARMS)), list(ARMS))
  axes.set(ylim=(0, 100), ylabel='right answers, %', title='recall on unseen wordings')
  if examined:
    axes.legend()


def _draw_losses(axes: Any, losses: Sequence[Mapping[str, Any]]) -> None:
  for name in ('dream_loss', 'held_out_loss', 'replay_kl'):
    points = [(row['index'], row['values'][name]) for row in losses if name in row['values']]
    points = [(x, y) for x, y in points if y is not None]
    if points:
      axes.plot(*zip(*points, strict=True), label=name.replace('_', ' '))
  axes.set(xlabel='step', ylabel='nats a token', title="the last night's losses")
  if axes.lines:
    axes.legend()


def _draw_gate(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
  rows = [row for row in rows if row['value'] is not None and isinstance(row['limit'], int | float)]
  places = range(len(rows))
  colours = ['tab:green' if row['ok'] else 'tab:red' for row in rows]
  axes.barh(places, [row['value'] for row in rows], color=colours)
  for place, row in zip(places, rows, strict=True):
    axes.plot([row['limit']] * 2, [place - 0.45, place + 0.45], color='black')
  axes.set_yticks(places, [row['name'].replace('_', ' ') for row in rows])
  axes.set(title='the gate (black: limit)')
  axes.invert_yaxis()
