"""What a night measured, in a directory that explains itself.

  nights/0001/README.txt       what lies here
              config.json      the night's configuration
              metrics.jsonl    one line a measurement, the record
              tensorboard/     the same, made from metrics.jsonl
              summary.json     what became of the night

Numbers only: what was said and dreamt stays in the diary, where it can be forgotten.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import Any

from dreaming.memory.diary import Diary

README = """\
Night {number}

config.json     the configuration that this night ran with
metrics.jsonl   one JSON object a line: step of the night, index within it, time, values
tensorboard/    the same for TensorBoard: tensorboard --logdir {directory}
summary.json    outcome, measures of Green and of the base, the gate's rows, seconds of each step
work/           adapter and checkpoints while the night runs; removed when it is over

The steps are select, dream, corpus, train, prune, examine, promote. dreaming/sleep/ has a file for
each. A night that was killed goes on where it was. Dreams, and the exam's questions and answers,
are in the diary; the weights of a promoted night are in generations/.
"""


class NightLog:
  """Writes a night's directory; one that a killed process left is continued.

  Example:
    with NightLog(workdir / 'nights' / '0001', number=1, config={...}) as log:
      log.write('train', 12, {'dream_loss': 1.5})

  A measurement that is there already (same step, same index) is not written again: a resumed night
  repeats some. Values that are not finite become null, in TensorBoard they are left out.
  """

  def __init__(self, directory: pathlib.Path, *, number: int, config: Mapping[str, Any]):
    self.directory = directory
    directory.mkdir(parents=True, exist_ok=True)
    (directory / 'README.txt').write_text(README.format(number=number, directory=directory))
    _write_json(directory / 'config.json', config)
    path = directory / 'metrics.jsonl'
    rows = read(path)
    self._seen = {(r['step'], r['index']) for r in rows}
    _replace(path, ''.join(_line(r) for r in rows))  # without a line that was cut off
    self._file = path.open('a', encoding='utf-8')
    self._events: Any = None
    for row in rows:
      self._draw(row)

  def __enter__(self) -> NightLog:
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def write(self, step: str, index: int, values: Mapping[str, float]) -> None:
    """One measurement: the values at an index (of a train step, an attempt) of the night's step."""
    if (step, index) in self._seen:
      return
    self._seen.add((step, index))
    numbers = {k: float(v) for k, v in values.items()}
    numbers = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
    row = {'step': step, 'index': index, 'time': time.time(), 'values': numbers}
    self._file.write(_line(row))
    self._file.flush()
    self._draw(row)

  def close(self) -> None:
    # What ends a night must not hide behind what this meets: the same full disk, mostly.
    with contextlib.suppress(OSError):
      self._file.close()
    self._close_events()

  def _close_events(self) -> None:
    if self._events:
      with contextlib.suppress(OSError):
        self._events.close()
    self._events = False

  def _draw(self, row: Mapping[str, Any]) -> None:
    if self._events is False:  # over, or given up: the record is what counts
      return
    # Not through its SummaryWriter, whose thread dies of a full disk: then the night would wait for
    # it for ever. Half a second of imports that only a night pays.
    from tensorboardX import record_writer, summary
    from tensorboardX.proto import event_pb2

    try:
      if self._events is None:
        target = self.directory / 'tensorboard'
        shutil.rmtree(target, ignore_errors=True)  # of a killed process: drawn anew from the record
        target.mkdir()
        path = target / f'events.out.tfevents.{time.time():.0f}'
        self._events = record_writer.RecordWriter(str(path))
        first = event_pb2.Event(wall_time=row['time'], file_version='brain.Event:2')
        self._events.write(first.SerializeToString())
      for name, value in row['values'].items():
        if value is not None:
          tag = f'{row["step"]}/{name}'.replace(' ', '_')  # TensorBoard takes no spaces
          event = event_pb2.Event(wall_time=row['time'], step=row['index'])
          event.summary.CopyFrom(summary.scalar(tag, value))
          self._events.write(event.SerializeToString())
      self._events.flush()
    except OSError:
      self._close_events()


def write_summary(directory: pathlib.Path, fields: Mapping[str, Any]) -> None:
  """What became of the night, plain values."""
  _write_json(directory / 'summary.json', fields)


def close_over(root: pathlib.Path, diary: Diary) -> None:
  """Closes the directories of nights that are over: what they worked with goes, a summary comes."""
  running = diary.open_night()
  for work in sorted(root.glob('[0-9]*/work')):
    if int(work.parent.name) != running:
      night = diary.night(int(work.parent.name))
      write_summary(work.parent, {'state': night.state, **night.result})
      shutil.rmtree(work)


def read(path: str | pathlib.Path) -> list[dict[str, Any]]:
  """The rows of a metrics.jsonl; what a killed writer left half written is left out."""
  try:
    lines = pathlib.Path(path).read_text(encoding='utf-8', errors='replace').splitlines()
  except FileNotFoundError:
    return []
  rows = []
  for line in lines:
    try:
      row = json.loads(line)
      row['step'], row['index'], row['time'], row['values'].items()
    except (ValueError, TypeError, KeyError, AttributeError):
      continue
    rows.append(row)
  return rows


def _line(row: Mapping[str, Any]) -> str:
  return json.dumps(row, allow_nan=False) + '\n'


def _write_json(path: pathlib.Path, value: Any) -> None:
  _replace(path, json.dumps(value, indent=1, allow_nan=False) + '\n')


def _replace(path: pathlib.Path, text: str) -> None:
  temporary = path.with_name(f'.{path.name}.tmp')
  temporary.write_text(text, encoding='utf-8')
  os.replace(temporary, path)
