"""Nothing is lost: a diary that is killed at any moment, and files that are damaged in any way.

  python benchmarks/diary_faults.py [--quick] [--json=FILE] [--kills=N] [--mutants=N] [--diary=FILE]

Kills: a process appends, alone and in bursts, scores, embeds, makes the graph of an index, sleeps,
trims and restores, tells what was acknowledged, and is killed (SIGKILL) at a random moment; then
the same diary goes on. After each kill everything that was acknowledged must be there, once, with
its scores, and found by its vector and by its words.

Damage: flipped bits, overwritten and cut files, pages of zeros, swapped pages, files that are
grown, emptied, stale, another diary's or of another format altogether. It is done to a diary that
was closed, to one that was killed, to the log of that one, to its mark, to an index's graph and
note, and to files that are imported. Each must be refused in one line that names the file, and left
as it is, or make no difference: the contents of every table are compared. What was refused is then
rescued, and no experience may come back altered. What an import takes in cannot be compared: it is
handled when it is refused, or reported. `--diary` damages copies of your diary in the same ways.
Expected: 15 minutes on two cores.
"""

from __future__ import annotations

import collections
import multiprocessing
import pathlib
import random
import sys
import tempfile
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

from benchmarks import common, damage, imports
from dreaming import types
from dreaming.memory import archive, trim
from dreaming.memory import index as index_lib
from dreaming.memory.diary import Diary

KILLS, MUTANTS = 100, 500
ACTS = {'append': 6, 'burst': 2, 'score': 4, 'index': 2, 'sleep': 1, 'trim': 2, 'restore': 1}
LEAD, WITHIN = 0.3, 0.03  # seconds, at most: before an act, and in it

# ---- Kills ----


def live(home: str, seed: int, tell: Any) -> None:
  """One life, until it is killed."""
  rng, count = random.Random(seed), 0
  index_lib._EXACT = 50  # so that there is a graph at once
  tell.send(('open', None))
  with Diary(pathlib.Path(home) / 'diary.sqlite') as diary:

    def say() -> dict[str, Any]:
      nonlocal count
      count += 1
      text = f'u{seed}x{count} ' + ' '.join(rng.choices(imports.__doc__.split(), k=30)) * (
        20 if count % 9 == 0 else 1
      )
      e = diary.append(time=1e9 + 1e3 * seed + count, speaker='Ana', content=text, session='s')
      return {'id': e.id, 'content': text}

    def append() -> list:
      return [say()]

    def burst() -> list:
      with diary.transaction():
        return [say() for _ in range(rng.randint(2, 9))]

    def score() -> list:
      ids = diary.ids(kind='chat', limit=50)
      chosen = rng.sample(ids, min(len(ids), 5))
      done = [(i, rng.uniform(1, 10)) for i in chosen]
      with diary.transaction():
        for i, value in done:
          diary.set_scores(i, types.Scores(importance=value, rater='r'))
      return done

    def make_index() -> int:
      path = pathlib.Path(home) / 'index' / 'h.usearch'
      made = index_lib.build(diary, damage.Hashed(), batch=16, path=path)
      made.search(np.ones(damage.Hashed.dim), 5)
      return len(made)

    def sleep() -> list:
      found = [e.id for e in diary.experiences(unconsumed=True)]
      if found:
        damage.sleep_over(diary, found[:40])
      return found[:40]

    def trim_some() -> list:
      config = trim.TrimConfig(days=0.0, below=6.0, keep=20)
      plan = trim.plan(diary, config, 2e9, index_lib.build(diary, damage.Hashed()), 0.9)
      return list(trim.trim(diary, plan.chosen[:60], config).archived)

    def restore() -> int:
      ids = diary.archived()
      return diary.restore(rng.sample(ids, len(ids) // 4))

    acts = {
      'append': append, 'burst': burst, 'score': score, 'index': make_index, 'sleep': sleep,
      'trim': trim_some, 'restore': restore,
    }  # fmt: skip
    while True:
      (name,) = rng.choices(list(ACTS), list(ACTS.values()))
      tell.send((name, None))
      tell.send((f'{name} done', acts[name]()))


def killed_at_random(home: pathlib.Path, kills: int) -> dict[str, Any]:
  """How much was lost, doubled or not found, and during what the kills came."""
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['benchmarks.diary_faults', 'usearch.index'])
  rng, during = random.Random(0), collections.Counter()
  said: dict[str, int] = {}
  scored: set[tuple[int, float]] = set()
  out = {'lost': 0, 'doubled': 0, 'scores_lost': 0, 'index_wrong': 0, 'unopened': 0}
  out['graph_missed'] = 0
  for seed in range(kills):
    hear, tell = context.Pipe(duplex=False)
    process = context.Process(target=live, args=(str(home), seed, tell))
    process.start()
    tell.close()
    heard = killed_in(process, hear, rng)
    for name, what in heard:
      if name in ('append done', 'burst done'):
        said |= {x['content']: x['id'] for x in what}
      if name == 'score done':
        scored |= {(i, value) for i, value in what}
    during[heard[-1][0].replace(' done', ' just done')] += 1
    for key, value in look(home, said, scored, rng).items():
      out[key] += value
  print(f'  kills during: {dict(during.most_common())}')
  print(f'  acknowledged: {len(said)} experiences, {len(scored)} scores')
  return out | {'during': dict(during), 'acknowledged': len(said)}


def killed_in(process: Any, hear: Any, rng: random.Random) -> list[tuple[str, Any]]:
  """Kills a life some time after it has begun a certain act; what it said until then."""
  heard = [hear.recv()]
  act, lead, within = rng.choice([*ACTS]), rng.uniform(0, LEAD), rng.uniform(0, WITHIN)
  start = time.monotonic()
  while time.monotonic() - start < lead or heard[-1][0] != act:
    heard.append(hear.recv())
  time.sleep(within)
  process.kill()
  process.join()
  try:
    while True:
      heard.append(hear.recv())
  except EOFError:
    hear.close()
  if process.exitcode != -9:
    raise RuntimeError(f'the process ended itself, with {process.exitcode}: {heard[-1]}')
  return heard


def look(home: pathlib.Path, said: dict[str, int], scored: set, rng: random.Random) -> dict:
  """What is missing from a diary that was killed."""
  try:
    diary = Diary(home / 'diary.sqlite')
  except (ValueError, OSError) as e:
    print(f'  not opened: {e}')
    return {'unopened': 1}
  with diary:
    everything = diary.experiences(archived=None)
    lived = [e for e in everything if e.kind != archive.SUMMARY]
    texts = collections.Counter(e.content for e in lived)
    ids = {e.content: e.id for e in lived}
    known = set(diary._run('SELECT experience, importance FROM scores'))
    index_lib._EXACT = 50
    made = index_lib.build(diary, damage.Hashed(), path=home / 'index' / 'h.usearch')
    archived = {*diary.archived()}
    wrong, missed = int(len(made) != len(everything) - len(archived)), 0
    for text in rng.sample(sorted(said), min(len(said), 8)):
      id, vector = said[text], damage.Hashed()([text])[0]
      if id not in archived:
        wrong += id not in made or float(made.vector(id) @ vector) < 0.999 * np.linalg.norm(vector)
        wrong += id not in diary.by_words(text.split()[0], 50)
        missed += [i for i, _ in made.search(vector, 1)] != [id]
    wrong = int(wrong)
    return {
      'lost': sum(ids.get(text) != id for text, id in said.items()),
      'doubled': sum(n > 1 for n in texts.values()),
      'scores_lost': len(scored - known),
      'index_wrong': wrong,
      'graph_missed': missed,
    }


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--kills', type=int)
  p.add_argument('--mutants', type=int)
  p.add_argument('--diary', type=pathlib.Path, help='damage copies of this one')
  args = p.parse_args()
  kills = args.kills if args.kills is not None else 10 if args.quick else KILLS
  mutants = args.mutants if args.mutants is not None else 50 if args.quick else MUTANTS
  result = common.Result('diary_faults', args, kills=kills, mutants=mutants)
  with tempfile.TemporaryDirectory() as tmp:
    root = pathlib.Path(tmp)
    killed = killed_at_random(root / 'life', kills) if kills else {}
    damage.make_lives(root, args.diary)
    answers = damage.damaged(root, damage.specs(mutants))
  for a in answers:
    became, share = a['became'], f', {a["rescued"]:.0%} rescued' if 'rescued' in a else ''
    print(f'  {a["target"]} {a["kind"]} ({a["seed"]}): {became}{share}: {a["line"][:160]}')
  tally = collections.Counter((a['target'], a['became']) for a in answers)
  print('  ' + ', '.join(f'{t} {b}: {n}' for (t, b), n in sorted(tally.items())))
  bad = [a for a in answers if a['became'].isupper()]
  shares = [a['rescued'] for a in answers if 'rescued' in a] or [1.0]
  if kills:  # a graph finds most of the nearest, not all
    result.add('graph_missed', killed['graph_missed'] / (8 * kills))
  for name in ('lost', 'doubled', 'scores_lost', 'index_wrong', 'unopened') if kills else ():
    result.bar(f'kill_{name}', killed[name], '<=', 0)
  if answers:
    result.add('rescued', shares)
    result.add('rescued_mean', sum(shares) / len(shares))
    result.bar('damage_told_or_harmless', 1 - len(bad) / len(answers), '>=', 1.0)
    result.bar('crashes', sum(a['became'] == 'CRASHED' for a in answers), '<=', 0)
  result.keep([killed, *answers])
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
