"""A night's process says by its exit code what became of the night."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
NIGHT = """
import sys
from dreaming.serve import sleeper
from dreaming.sleep import outcome

def sleep(told, tell):
  if told['outcome'] == 'mistake':
    raise ValueError('gate.doubt is -1')
  made = outcome.Outcome(number=1, state=told['outcome'], reason='')
  return {'event': 'ended', **made.plain()}, made.code

sleeper.sleep = sleep
sys.exit(sleeper.main())
"""


@pytest.mark.parametrize(
  ('outcome', 'code', 'event'),
  [
    ('promoted', 0, 'ended'),
    ('rejected', 1, 'ended'),
    ('empty', 1, 'ended'),
    ('waiting', 3, 'ended'),
    ('mistake', 2, 'failed'),
  ],
)
def test_a_night_that_changed_nothing_is_no_success(outcome, code, event):
  process = subprocess.Popen(
    [sys.executable, '-c', NIGHT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    cwd=ROOT,
  )  # fmt: skip
  process.stdin.write(json.dumps({'outcome': outcome}) + '\n')
  process.stdin.flush()
  (line,) = process.stdout.read().splitlines()
  assert process.wait(30) == code and json.loads(line)['event'] == event
  process.stdin.close()
  process.stdout.close()
