"""Corrections: what a later day told otherwise is what the weights say then, and no longer the old.

  python benchmarks/corrections.py [--file=FILE] [--seeds=3] [--workdir=DIR] [--json=FILE] [--quick]
  python benchmarks/corrections.py --lived=DIR [--lived=DIR ...]

FILE has rows {"question", "old", "new", "told", "corrected"}: accepted answers before and after,
and the days (from 1) that told them. The life is that of eight_nights.py, kept in the same
--workdir, up to the last correction. Each question is asked of the generation of the night before
its correction and of the one after it, diary closed; both answers must still be in the diary.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common, eight_nights, lived

NEW, OLD = 0.8, 0.05
_NAME = 'corrections'
_FIELDS = {'question', 'old', 'new', 'told', 'corrected'}


def load(path: pathlib.Path) -> list[dict[str, Any]]:
  rows = json.loads(path.read_text(encoding='utf-8'))
  for i, row in enumerate(rows):
    if not isinstance(row, dict) or set(row) != _FIELDS:
      raise ValueError(f'{path}: row {i} needs exactly the fields {", ".join(sorted(_FIELDS))}')
    if not 1 <= row['told'] < row['corrected']:
      raise ValueError(
        f'{path}: row {i} is told on day {row["told"]}, corrected on day {row["corrected"]}'
      )
  return rows


def asked(agent: Any, rows: Sequence[Mapping[str, Any]], night: int) -> list[str]:
  """Replies of the generation that served after so many nights, diary closed."""
  made = [g for g in agent.generations() if (g.manifest.night or 0) <= night]
  number = max((g.number for g in made), default=0)
  day = agent.diary.experiences(limit=1, newest_first=True)
  user = day[0].speaker if day else agent.life.user
  return agent.answer([r['question'] for r in rows], user=user, generation=number)


def look(life: lived.Life, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[bool]]:
  """For each question: do the weights say old and new, before and after; has the diary both."""
  from dreaming.agent import Agent
  from dreaming.days import is_right

  out: dict[str, list[bool]] = collections.defaultdict(list)
  with Agent(lived.config_of(life)) as agent:
    said = ' '.join(e.content.casefold() for e in agent.diary.experiences(archived=None))
    for corrected in sorted({r['corrected'] for r in rows}):
      own = [r for r in rows if r['corrected'] == corrected]
      for when, night in (('before', corrected - 1), ('after', corrected)):
        for r, reply in zip(own, asked(agent, own, night), strict=True):
          out[f'{when}_old'].append(is_right(reply, r['old']))
          out[f'{when}_new'].append(is_right(reply, r['new']))
      for r in own:
        both = (any(a.casefold() in said for a in r[side]) for side in ('old', 'new'))
        out['diary'].append(all(both))
  return out


def main() -> int:
  p = eight_nights.parse(__doc__)
  file = common.ROOT / 'days' / 'eight' / 'corrections.json'
  p.add_argument('--file', type=pathlib.Path, default=file)
  args = p.parse_args()
  rows = load(args.file)
  result = common.Result(_NAME, args, file=args.file.name, config=args.config.stem)
  found: dict[str, list[bool]] = collections.defaultdict(list)
  with tempfile.TemporaryDirectory() as tmp:
    eight_nights.quick(args, tmp)
    for life in eight_nights.lives(args, 'continual'):
      last = min(max(r['corrected'] for r in rows), len(life.days))
      some = [r for r in rows if r['corrected'] <= last]
      if not args.lived:
        life = dataclasses.replace(life, days=life.days[: 2 if args.quick else last])
        lived.ensure(life)
      for name, values in look(life, some or rows[:3]).items():
        found[name] += values
  for name, values in found.items():
    low, high = common.interval(sum(values), len(values))
    result.add(name, sum(values) / len(values))
    print(f'{_NAME}.{name} 95% {low:.3f} to {high:.3f} of {len(values)} questions')
  result.bar('new', result.add('new', sum(found['after_new']) / len(found['after_new'])), '>=', NEW)
  result.bar('old', result.add('old', sum(found['after_old']) / len(found['after_old'])), '<=', OLD)
  return result.finish()


if __name__ == '__main__':
  try:
    sys.exit(main())
  except (ValueError, OSError, subprocess.CalledProcessError) as e:
    sys.exit(f'{_NAME}: {e}')
