"""Lives of many days and nights, as eight_nights.py, corrections.py and identity.py look at them.

A life is a process of its own and goes the way of `--mode=life`; killed, it goes on where it was
when it is asked for again. Some arms differ in what trains:

  continual  the default: one adapter, carried on
  fresh      a new adapter every night, on top of the earlier ones
  fold       every night is rounded into the base's own dtype, the naive way
  passages   the day's own words alone train, next token by next token: no dreams
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

ARMS = ('continual', 'fresh', 'fold', 'passages')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Life:
  """Where a life is lived, and how."""

  workdir: pathlib.Path
  days: tuple[pathlib.Path, ...]
  config: pathlib.Path
  arm: str = 'continual'
  seed: int = 0
  cache: pathlib.Path | None = None

  def rows(self) -> list[dict[str, Any]]:
    """What --mode=life has kept of its nights so far."""
    path = self.workdir / 'lifelong.jsonl'
    lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else ()
    return [json.loads(line) for line in lines]


def config_of(life: Life) -> Any:
  """Its configuration, as flags of dreaming.main would make it."""
  c = common.config_of(life.config)
  c.seed, c.workdir, c.life.days = life.seed, str(life.workdir), tuple(map(str, life.days))
  if life.cache:
    c.cache = str(life.cache)
  if life.arm == 'passages':  # it recalls next to nothing
    common.ungate(c)
    c.train.min_raw_loss = 0.0  # it is to be known by heart
  else:
    c.train.consolidation = life.arm
  if life.arm == 'fold':
    c.gate.max_earlier_lost = float('inf')  # what the naive way forgets is to be seen
  return c


def ensure(life: Life) -> list[dict[str, Any]]:
  """Lives what is not lived yet, in a process of its own; returns the nights.

  Raises:
    subprocess.CalledProcessError: it failed; its own words are on standard error.
  """
  if len(life.rows()) < len(life.days):
    life.workdir.mkdir(parents=True, exist_ok=True)
    given = dataclasses.asdict(life) | {'days': [str(d) for d in life.days]}
    text = json.dumps({k: str(v) if isinstance(v, pathlib.Path) else v for k, v in given.items()})
    command, env = [sys.executable, __file__, text], os.environ | {'PYTHONUNBUFFERED': '1'}
    done = subprocess.run(command, env=env).returncode
    if done and len(life.rows()) < len(life.days):  # 1 with all nights: one was rejected
      raise subprocess.CalledProcessError(done, f'the life in {life.workdir}')
  return life.rows()[: len(life.days)]


def given(paths: Sequence[pathlib.Path], config: pathlib.Path) -> list[Life]:
  """Lives that are over, of which the days are those that they say."""
  out = []
  for path in paths:
    life = Life(workdir=path, days=(), config=config)
    if not (rows := life.rows()):
      raise ValueError(f'--lived={path} has no lifelong.jsonl: give the directory of a life')
    out.append(dataclasses.replace(life, days=tuple(map(pathlib.Path, rows[-1]['days']))))
  return out


def words_alone(own: Any) -> Any:
  """A dreamer that dreams nothing but what was said; its exam is the night's own."""
  from dreaming.types import Dream

  def dream(decoder, base, experiences, **fields):
    told = [
      Dream(id=0, night=fields['night'], style='passage', text=e.content, sources=(e.id,))
      for e in experiences
    ]
    exams = own(decoder, base, experiences, **fields)
    return told + [d for d in exams if d.style in ('exam', 'exam_unknown')]

  return dream


def live(life: Life) -> int:
  """In this process."""
  from rich.console import Console

  from dreaming import days, lifelong
  from dreaming.agent import Agent
  from dreaming.sleep import night

  if life.arm == 'passages':
    night.dream.dream = words_alone(night.dream.dream)
  config = config_of(life)
  with Agent(config) as agent:
    lived = [days.load(d, user=config.life.user) for d in life.days]
    return lifelong.run(agent, lived, Console(highlight=False))


if __name__ == '__main__':
  fields = json.loads(sys.argv[1])
  for name in ('workdir', 'config', 'cache'):
    fields[name] = fields[name] and pathlib.Path(fields[name])
  sys.exit(live(Life(**fields | {'days': tuple(map(pathlib.Path, fields['days']))})))
