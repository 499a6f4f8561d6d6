"""Every combination of comma-separated settings, run one after the other, in one table.

  python launch/sweep.py --out=lives/sweep --config=configs/gemma3_270m.py \
    --config.train.learning_rate=1e-4,3e-4 --config.seed=0,1,2

Each flag of dreaming.main may list values; a comma inside brackets or quotes does not separate, and
`\\,` is a comma. Run i lives in OUT/i (its --config.workdir) with its log and command.json; the
numbers of its result.json become one row of OUT/table.csv, which is also printed. A sweep that was
interrupted goes on: runs that have a result are kept, an unfinished one starts anew. Exits with 1
when a run failed.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

RESULT = 'result.json'  # what a run leaves in its workdir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """One combination."""

  directory: pathlib.Path
  command: tuple[str, ...]
  settings: Mapping[str, str]  # of the flags that vary, in the order given


def split(value: str) -> list[str]:
  """Splits at commas outside brackets and quotes; `\\,` stands for a comma.

  Raises:
    ValueError: brackets or quotes are not closed, or a value between two commas is empty.
  """
  values, closers, start_quote, i = [''], [], '', 0
  while i < len(value):
    c = value[i]
    if value.startswith('\\,', i):
      c, i = ',', i + 1
    elif start_quote:
      start_quote = '' if c == start_quote else start_quote
    elif closers and c == closers[-1]:
      closers.pop()
    elif c in '\'"':
      start_quote = c
    elif c in '([{':
      closers.append(')]}'['([{'.index(c)])
    elif c == ',' and not closers:
      values.append('')
      i += 1
      continue
    values[-1] += c
    i += 1
  if closers or start_quote:
    raise ValueError(f'{value!r} lacks a closing {(closers or [start_quote])[-1]}')
  if len(values) > 1 and '' in values:
    raise ValueError(
      f'{value!r} has an empty value between its commas; write \\, for a plain comma'
    )
  return values


def plan(flags: Sequence[str], out: pathlib.Path, command: Sequence[str]) -> list[Run]:
  """The Cartesian product of what the flags list, the last flag varying fastest.

  Args:
    flags: `--name=value[,value...]`, each name once.
    out: the sweep's directory.
    command: what is run, before its flags.

  Raises:
    ValueError: a flag that is not `--name=value`, is given twice, or is the sweep's own to set.
  """
  choices: dict[str, list[str]] = {}
  for flag in flags:
    match = re.fullmatch(r'--([\w.]+)=(.*)', flag, flags=re.DOTALL)
    if not match:
      raise ValueError(f'{flag!r} is not --name=value')
    name, value = match.groups()
    if name == 'config.workdir':
      raise ValueError('--config.workdir is set by the sweep, one for each run; use --out')
    if name in choices:
      raise ValueError(f'--{name} is given twice; list its values with commas')
    choices[name] = split(value)
  varying = [name for name, values in choices.items() if len(values) > 1]
  runs = []
  for i, combination in enumerate(itertools.product(*choices.values())):
    values = dict(zip(choices, combination, strict=True))
    directory = out / f'{i:03d}'
    runs.append(
      Run(
        directory=directory,
        command=(
          *command,
          *(f'--{name}={value}' for name, value in values.items()),
          f'--config.workdir={directory}',
        ),
        settings={name: values[name] for name in varying},
      )
    )
  return runs


def execute(run: Run) -> int:
  """Runs one combination unless it has its result, and returns the exit code.

  Raises:
    ValueError: the directory holds something else than this very run.
  """
  note = run.directory / 'command.json'
  if run.directory.exists():
    if not note.exists() or json.loads(note.read_text()) != list(run.command):
      raise ValueError(f'{run.directory} holds something else; choose another --out')
    if (run.directory / RESULT).exists():
      return 0
    shutil.rmtree(run.directory)  # half a life would not be the one that its settings describe
  run.directory.mkdir(parents=True)
  note.write_text(json.dumps(run.command))
  with (run.directory / 'log').open('ab') as log:
    return subprocess.run(run.command, stdout=log, stderr=log, check=False).returncode


def numbers(tree: Any, prefix: str = '') -> dict[str, float]:
  """The numbers in nested dicts, by their path: {'a': {'b': 1}} gives {'a/b': 1.0}."""
  if isinstance(tree, Mapping):
    found: dict[str, float] = {}
    for key, value in tree.items():
      found |= numbers(value, f'{prefix}/{key}' if prefix else str(key))
    return found
  if isinstance(tree, int | float) and not isinstance(tree, bool):
    return {prefix: float(tree)}
  return {}


def row(run: Run, code: int, seconds: float) -> dict[str, Any]:
  """A run's line in the table: number, outcome, settings, time, then the numbers of its result."""
  result = run.directory / RESULT
  state = 'ok' if code == 0 and result.exists() else f'failed ({code})' if code else 'no result'
  cells = {'run': run.directory.name, 'state': state, **run.settings, 'seconds': round(seconds, 1)}
  return cells | (numbers(json.loads(result.read_text())) if state == 'ok' else {})


def write_table(rows: Sequence[Mapping[str, Any]], path: pathlib.Path) -> list[str]:
  """Writes the rows as CSV and returns them as aligned lines."""
  columns = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
  with path.open('w', newline='') as f:
    writer = csv.DictWriter(f, columns)
    writer.writeheader()
    writer.writerows(rows)
  cells = [columns]
  for r in rows:
    values = [r.get(column, '') for column in columns]
    cells.append([f'{v:.4g}' if isinstance(v, float) else str(v) for v in values])
  widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
  return [
    '  '.join(v.rjust(w) for v, w in zip(line, widths, strict=True)).rstrip() for line in cells
  ]


def main(argv: Sequence[str]) -> int:
  parser = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0], allow_abbrev=False)
  parser.add_argument('--out', default='lives/sweep', help='directory of the sweep')
  parser.add_argument('--command', default=f'{shlex.quote(sys.executable)} -m dreaming.main')
  options, flags = parser.parse_known_args(argv)
  out = pathlib.Path(options.out).absolute()
  try:
    runs = plan(flags, out, shlex.split(options.command))
    rows = []
    for i, run in enumerate(runs):
      about = ' '.join(f'{name}={value}' for name, value in run.settings.items())
      print(f'[{i + 1}/{len(runs)}] {about}', flush=True)
      start = time.monotonic()
      code = execute(run)
      rows.append(row(run, code, time.monotonic() - start))
      lines = write_table(rows, out / 'table.csv')
      if rows[-1]['state'] != 'ok':
        print(f'  {rows[-1]["state"]}: see {run.directory / "log"}', flush=True)
  except (ValueError, OSError) as e:
    print(f'sweep: {e}', file=sys.stderr)
    return 2
  print('\n'.join(lines))
  return 0 if all(r['state'] == 'ok' for r in rows) else 1


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
