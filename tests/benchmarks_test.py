"""What people trust it with, in the short form of its benchmarks: a bar that breaks is seen.

Speeds are not judged here: a test's machine is busy; nor is memory, as a short life with an empty
cache mostly compiles. The bars themselves come from the full runs.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MACHINE = re.compile(r'_ms|latency|growth_mib|memory')


@pytest.mark.real
@pytest.mark.parametrize(
  ('name', 'flags', 'bars'),
  [
    ('gate', (), {'good_accepted', 'bad_blocked'}),
    ('poisoning', ('--lives=0',), {'selected_0', 'said_as_fact_0', 'refused_0'}),
    ('privacy', ('--times=1',), {'read_1', 'trained_1', 'dreamt_1', 'left_1'}),
    ('access', (), {'strangers_refused', 'refused_otherwise', 'others_affected', 'fuzzed_errors'}),
    ('soak', (), {'files_growth', 'nights_missing'}),
  ],
)
def test_what_people_trust_it_with_holds(name, flags, bars, tmp_path):
  command = [sys.executable, str(ROOT / 'benchmarks' / f'{name}.py'), '--quick', *flags]
  command += [f'--cache={tmp_path}', f'--json={tmp_path / "result.json"}']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=540)
  assert done.returncode == 0, done.stderr[-2000:]
  found = dict(re.findall(rf'^BAR {name}\.(\w+) .* (ok|short)\b', done.stdout, re.MULTILINE))
  assert {bar: v for bar, v in found.items() if not MACHINE.search(bar)} == dict.fromkeys(
    bars, 'ok'
  )
