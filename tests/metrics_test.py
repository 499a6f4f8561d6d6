"""A night's record survives its writer, says everything once, and holds numbers only."""

from __future__ import annotations

import json
import math

from dreaming.sleep import metrics
from dreaming.sleep.metrics import NightLog


def _rows(directory):
  return [(r['step'], r['index'], r['values']) for r in metrics.read(directory / 'metrics.jsonl')]


def _events(directory):
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

  events = EventAccumulator(str(directory / 'tensorboard'))
  events.Reload()
  return {t: [(e.step, e.value) for e in events.Scalars(t)] for t in events.Tags()['scalars']}


def test_what_is_written_is_read(tmp_path):
  with NightLog(tmp_path, number=7, config={'seed': 1}) as log:
    log.write('train', 0, {'loss': 2.0})
    log.write('train', 1, {'loss': 1.5})
    log.write('prune', 0, {'nll': 2.5})
  metrics.write_summary(tmp_path, {'outcome': 'promoted'})
  assert _rows(tmp_path) == [
    ('train', 0, {'loss': 2.0}), ('train', 1, {'loss': 1.5}), ('prune', 0, {'nll': 2.5}),
  ]  # fmt: skip
  assert _events(tmp_path) == {'train/loss': [(0, 2.0), (1, 1.5)], 'prune/nll': [(0, 2.5)]}
  assert json.loads((tmp_path / 'summary.json').read_text()) == {'outcome': 'promoted'}
  assert json.loads((tmp_path / 'config.json').read_text()) == {'seed': 1}


def test_a_killed_night_goes_on_without_repeating_itself(tmp_path):
  log = NightLog(tmp_path, number=1, config={})
  log.write('train', 0, {'loss': 2.0})
  log.write('train', 1, {'loss': 1.5})
  log._file.write('{"step": "train", "index": 2, "val')  # and no more: the process was killed
  log.close()
  with NightLog(tmp_path, number=1, config={}) as log:
    log.write('train', 1, {'loss': 1.5})
    log.write('train', 2, {'loss': 1.0})
  assert [i for _, i, _ in _rows(tmp_path)] == [0, 1, 2]
  assert _events(tmp_path) == {'train/loss': [(0, 2.0), (1, 1.5), (2, 1.0)]}


def test_what_is_not_finite_is_null(tmp_path):
  with NightLog(tmp_path, number=1, config={}) as log:
    log.write('train', 0, {'loss': math.nan, 'norm': math.inf, 'kl': 0.5})
  assert _rows(tmp_path) == [('train', 0, {'loss': None, 'norm': None, 'kl': 0.5})]
  assert _events(tmp_path) == {'train/kl': [(0, 0.5)]}


def test_the_readme_names_every_file(tmp_path):
  with NightLog(tmp_path, number=3, config={}) as log:
    log.write('select', 0, {'chosen': 4})
  metrics.write_summary(tmp_path, {})
  readme = (tmp_path / 'README.txt').read_text()
  for path in tmp_path.iterdir():
    assert path.name == 'README.txt' or path.name in readme
