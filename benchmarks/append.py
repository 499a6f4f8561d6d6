"""Appending to the diary, durably: how long one waits, and how many fit into a second.

  python benchmarks/append.py [--quick] [--json=FILE] [--directory=DIR] [--diary=FILE]

One speaker says one thing after the other, each of some forty words with a reply, to a diary that
holds 100,000 experiences already, and waits until each is on the disk (WAL, synchronous=FULL):
rounds of 1,000, of which the medians count. Beside it, not judged: the same in a new diary, eight
speakers at once, who share transactions, 256 in one transaction as an import does it, and what a
bare `fdatasync` of as many bytes as an append writes costs on this disk just then. A busy machine
shows first of all in that one: with more to run than cores, a process that slept on the disk waits
for its turn. `--directory` is on the disk that counts; `--diary` appends to a copy of yours. Last,
how long it takes to close that diary (which takes its digest), to open it again, and to open it
as after a kill, when all of it is checked.
Expected: 4 minutes on two cores.
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common
from dreaming.memory import whole
from dreaming.memory.diary import Diary

P99_BAR, RATE_BAR = 20.0, 300.0  # ms; experiences a second
LIVED = 100_000
PAGES = 11  # that an append writes to the log
_VOCABULARY = [f'word{i}' for i in range(20_000)]


class Life:
  """Texts with times, seeded."""

  def __init__(self, seed: int = 0):
    self._rng, self._time = random.Random(seed), 0.0

  def say(self, diary: Diary, speaker: str = 'Priya') -> None:
    self._time += 60.0
    content, response = (' '.join(self._rng.choices(_VOCABULARY, k=n)) for n in (25, 15))
    session = f'{self._time // 86_400:.0f}'
    diary.append(
      time=self._time, speaker=speaker, content=content, response=response, session=session
    )


def p99(seconds: list[float]) -> float:
  return sorted(seconds)[int(0.99 * (len(seconds) - 1))]


def one_by_one(diary: Diary, life: Life, count: int) -> list[float]:
  return [common.timed(lambda: life.say(diary)) for _ in range(count)]


def at_once(diary: Diary, count: int, speakers: int = 8) -> float:
  """Seconds that speakers take who each say `count` things."""

  def speak(i: int) -> None:
    life = Life(i + 1)
    for _ in range(count):
      life.say(diary, f'Speaker {i}')

  threads = [threading.Thread(target=speak, args=(i,)) for i in range(speakers)]
  start = time.perf_counter()
  for t in threads:
    t.start()
  for t in threads:
    t.join()
  return time.perf_counter() - start


def burst(diary: Diary, life: Life, count: int) -> float:
  start = time.perf_counter()
  with diary.transaction():
    for _ in range(count):
      life.say(diary)
  return time.perf_counter() - start


def syncs(directory: pathlib.Path, count: int) -> list[float]:
  """Seconds of bare syncs, each of the pages that an append writes, over a file that is there."""
  path, data = directory / 'bare', os.urandom(4096 * PAGES)
  path.write_bytes(data * count)
  file = os.open(path, os.O_RDWR)
  try:
    os.fsync(file)
    seconds = []
    for i in range(count):
      os.pwrite(file, data, i * len(data))
      seconds.append(common.timed(lambda: os.fdatasync(file)))
  finally:
    os.close(file)
    path.unlink()
  return seconds


def reopened(diary: Diary) -> dict[str, float]:
  """Seconds to close it, to open it, and to open it as after a kill; it is closed at the end."""
  path, out = diary.path, {'close': common.timed(diary.close)}
  start = time.perf_counter()
  diary = Diary(path)
  out['open'] = time.perf_counter() - start
  diary.close()
  mark = whole.read_mark(path)
  marker = whole.Marker(path, mark.identity)
  marker.note(mark.writes)  # not closed in order
  marker.close()
  start = time.perf_counter()
  diary = Diary(path)
  out['open_after_a_kill'] = time.perf_counter() - start
  diary.close()
  return out


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--directory', type=pathlib.Path, help='where the diaries are made')
  p.add_argument('--diary', type=pathlib.Path, help='append to a copy of this one')
  args = p.parse_args()
  lived, rounds, each = (2_000, 2, 100) if args.quick else (LIVED, 7, 1_000)
  result = common.Result('append', args, lived=lived, rounds=rounds, each=each)
  with tempfile.TemporaryDirectory(dir=args.directory) as tmp:
    root, life = pathlib.Path(tmp), Life()
    path = root / 'lived.sqlite'
    if args.diary:
      for end in ('', '-wal'):
        if (file := pathlib.Path(f'{args.diary}{end}')).exists():
          shutil.copy(file, f'{path}{end}')
    with Diary(root / 'new.sqlite') as new:
      diary = Diary(path)
      for _ in range(0 if args.diary else lived // 1_000):
        burst(diary, life, 1_000)
      one_by_one(diary, life, 100)  # from here on the log has its size
      rows: dict[str, list] = {name: [] for name in ('one', 'new', 'sync', 'eight', 'burst')}
      for _ in range(rounds):
        rows['one'].append(one_by_one(diary, life, each))
        rows['new'].append(one_by_one(new, life, each // 4))
        rows['sync'].append(syncs(root, each // 4))
        rows['eight'].append(8 * (each // 4) / at_once(diary, each // 4))
        rows['burst'].append(256 / burst(diary, life, 256))
      again = reopened(diary)
  took = {k: [statistics.mean(r) for r in rows[k]] for k in ('one', 'new', 'sync')}
  result.add('sync_ms', [1e3 * t for t in took['sync']], 'ms')
  result.add('sync_p99_ms', [1e3 * p99(r) for r in rows['sync']], 'ms')
  result.add('new_p99_ms', [1e3 * p99(r) for r in rows['new']], 'ms')
  result.add('new_per_s', [1 / t for t in took['new']], '/s')
  result.add('eight_speakers_per_s', rows['eight'], '/s')
  result.add('one_transaction_per_s', rows['burst'], '/s')
  for name, seconds in again.items():
    result.add(name, seconds, 's')
  slow = result.add('p99', [1e3 * p99(r) for r in rows['one']], 'ms')
  rate = result.add('rate', [1 / t for t in took['one']], '/s')
  result.bar('p99_ms', slow, '<=', P99_BAR)
  result.bar('per_s', rate, '>=', RATE_BAR)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
