"""Recall: is what answers a question among the five memories that come to mind, and how soon?

  python benchmarks/recall.py [--quick] [--json=FILE] [--life=FILE] [--ablate] [--dev] [--million]

Lives are made up (lives.py), 1,000 experiences each; a question counts when one of the experiences
that answer it is among five, a correction when the newest is. Only questions marked test are asked,
the handwritten ones of the first life alone; --dev asks the others, on which weights were chosen
(--ablate leaves each part out). Intervals are Wilson's, of 95%; questions of one life are alike, so
they are rather wider. Latency is that of a search with one core, without the encoding of the query,
which stands beside it. There the life is put into the diary in bulk, and its vectors are static,
turned to the encoder's dimension: to encode a million texts would take hours.
Expected: 3 minutes on two cores; --million takes 20 more, and 7 GiB.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

from benchmarks import common, lives

K = 5
DEV, TEST = (0, 1, 2), (1000, 1001, 1002)
RECALL_BAR, GAIN_BAR = 0.9, 0.1
SEARCHES, WARM = 300, 20  # of which so many do not count
LATENCY_BARS = {1_000: 5.0, 100_000: 15.0, 1_000_000: 40.0}  # ms, p99
PARTS = ('words', 'before', 'names', 'names_near', 'when', 'speaker', 'length', 'hubness')


# ---- Finding ----


def tell(life: lives.Life, path: pathlib.Path):
  """A diary with the life in it, and the id of its first experience."""
  from dreaming.memory.diary import Diary

  diary = Diary(path)
  with diary.transaction():
    ids = [
      diary.append(
        time=e.time, speaker=e.speaker, content=e.content, response=e.response, session=e.session
      ).id
      for e in life.experiences
    ]
  return diary, ids[0]


def arms(ablate: bool) -> dict[str, tuple[str, Any]]:
  """Name -> (which vectors, how what is found is weighed)."""
  from dreaming.memory.recall import RecallConfig

  ours = RecallConfig(recall_k=K)
  alone = dataclasses.replace(ours, recall_weights=(0.0, 0.0, 1.0), **dict.fromkeys(PARTS, 0.0))
  found = {'recall': ('minilm', ours), 'wordllama': ('wordllama', ours)}
  if ablate:
    less = {f'without {p}': ('minilm', dataclasses.replace(ours, **{p: 0.0})) for p in PARTS}
    found |= less | {'without all': ('minilm', alone)}
  return found


def ask(
  life: lives.Life, questions: Sequence[lives.Question], ablate: bool
) -> dict[str, list[bool]]:
  """Whether each question's evidence is found, by arm."""
  from dreaming.memory import embed, index, recall

  out: dict[str, list[bool]] = collections.defaultdict(list)
  with tempfile.TemporaryDirectory() as directory:
    diary, first = tell(life, pathlib.Path(directory) / 'diary.sqlite')
    with diary:
      encoders = {n: embed.make(n, encoders=True) for n in ('minilm', 'wordllama')}
      indexes = {n: index.build(diary, e) for n, e in encoders.items()}
      for q in questions:
        known = life.known(q)  # what had been told when it was asked
        among = {'until': q.asked + 1e-3} if known < len(life.experiences) else None
        told = range(first, first + known)

        def note(arm, ids, q=q):
          out[arm].append(bool({i - first for i in ids} & {*q.evidence}))

        for arm, (which, config) in arms(ablate).items():
          found = recall.recall(
            diary, indexes[which], encoders[which], q.question, q.asked, config, among=among
          )
          note(arm, [r.experience.id for r in found])
        for name, encoder in encoders.items():
          near = indexes[name].search(encoder([q.question])[0], K, told)
          note(f'embeddings alone, {name}', [i for i, _ in near])
        note('words alone', diary.by_words(q.question, K, told))
  return out


def find(args: argparse.Namespace, result: common.Result) -> None:
  split = 'dev' if args.dev else 'test'
  if args.life:
    told = [lives.load(args.life)]
    asked = [told[0].questions]
  else:
    seeds = (DEV if args.dev else TEST)[: 1 if args.quick else None]
    told = [lives.life(seed) for seed in seeds]
    asked = [[q for q in life.questions if q.split == split] for life in told]
    written = {q.question for q in told[0].questions[lives.GENERATED :]}
    asked[1:] = [[q for q in some if q.question not in written] for some in asked[1:]]
  kinds: list[str] = []
  right: dict[str, list[bool]] = collections.defaultdict(list)
  for life, questions in zip(told, asked, strict=True):
    kinds += [q.kind for q in questions]
    for arm, found in ask(life, questions, args.ablate).items():
      right[arm] += found
    print(f'{len(kinds)} questions asked', flush=True)
  names = sorted(set(kinds))
  print(f'{"recall@5":28} {"all":20} ' + ' '.join(f'{k:>11}' for k in names))
  for arm, found in right.items():
    low, high = common.interval(sum(found), len(found))
    of_kind = [np.mean([f for f, k in zip(found, kinds, strict=True) if k == n]) for n in names]
    print(
      f'{arm:28} {np.mean(found):.3f} ({low:.3f}-{high:.3f}) '
      + ' '.join(f'{share:11.2f}' for share in of_kind)
    )
  result.keep(
    [
      {'arm': a, 'kind': k, 'right': r}
      for a, f in right.items()
      for k, r in zip(kinds, f, strict=True)
    ]
  )
  share = {arm: float(np.mean(found)) for arm, found in right.items()}
  alone = max(v for k, v in share.items() if k.startswith('embeddings alone'))
  result.bar('recall_at_5', share['recall'], '>=', RECALL_BAR)
  result.bar('gain_over_embeddings', share['recall'] - alone, '>=', GAIN_BAR)


# ---- Latency ----


def latency(count: int) -> dict[str, Any]:
  """In a process of its own, with one core: ms of searches and of encoding a query."""
  from dreaming.memory import embed, index, recall, relevance
  from dreaming.memory.diary import Diary

  encoder, rough = embed.make('minilm', encoders=True), embed.wordllama()
  # Vectors as long as the encoder's, of real texts, in seconds instead of hours.
  turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(encoder.dim, rough.dim)))
  turn = turn.T.astype(np.float32)
  questions = [q.question for q in lives.life(0).questions]
  questions = (questions * -(-SEARCHES // len(questions)))[:SEARCHES]
  texts = [relevance.without(relevance.names_of(q), q) for q in questions] + questions
  known = dict(zip(texts, rough(texts) @ turn, strict=True))

  class Known:
    name, dim = 'known', encoder.dim

    def __call__(self, texts):
      return np.stack([known[t] for t in texts])

  config = recall.RecallConfig(recall_k=8)
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory)
    begin = time.perf_counter()
    with Diary(path / 'diary.sqlite') as diary:
      ids, vectors = fill(diary, lives.stream(0, count), lambda texts: rough(texts) @ turn)
      told = time.perf_counter() - begin
      begin = time.perf_counter()
      found = index.Index(ids, vectors, path / 'graph')
      del vectors  # the index has its own
      found.search(known[texts[0]], 1)
      built = time.perf_counter() - begin
      begin = time.perf_counter()
      diary.columns()
      read = time.perf_counter() - begin
      now, times, cpu = float(time.time()), [], []
      for q in questions:
        start, spent = time.perf_counter(), time.thread_time()
        recall.recall(diary, found, Known(), q, now, config)
        cpu.append(1e3 * (time.thread_time() - spent))
        times.append(1e3 * (time.perf_counter() - start))
  encoder(questions[:1])
  both = [{q, t} for q, t in zip(questions, texts, strict=False)][:100]
  encoding = [1e3 * common.timed(lambda b=b: [encoder([t]) for t in b]) for b in both]
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  return {
    'told_s': told, 'index_s': built, 'columns_s': read, 'search_ms': times[WARM:],
    'cpu_ms': cpu[WARM:], 'encode_ms': encoding, 'peak_gib': peak,
  }  # fmt: skip


def fill(diary, stream, embed) -> tuple[np.ndarray, np.ndarray]:
  """Tells a life in bulk: rows as `Diary.append` makes them, without reading each back."""
  columns = 'time, kind, speaker, content, response, trust, session, metadata'
  insert = f"INSERT INTO experiences ({columns}) VALUES (?, 'chat', ?, ?, ?, 2, ?, '{{}}')"
  vectors, last = [], 0
  while some := list(itertools.islice(stream, 20_000)):
    with diary.transaction():
      for e in some:
        diary._run(insert, (e.time, e.speaker, e.content, e.response, e.session))
      diary._run('INSERT INTO words (rowid, text) SELECT id, text FROM texts WHERE id > ?', (last,))
    vectors.append(embed([e.content for e in some]))
    last += len(some)
  return np.array(diary.ids()[::-1]), np.concatenate(vectors)


def measure(args: argparse.Namespace, result: common.Result) -> None:
  counts = [n for n in LATENCY_BARS if n < 10**6 or args.million][: 1 if args.quick else None]
  core = min(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else None
  for count in counts:
    env = os.environ | {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}
    command = [sys.executable, __file__, f'--latency-of={count}']
    if core is not None:
      command = ['taskset', '-c', str(core), *command]
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    row = json.loads(done.stdout.splitlines()[-1])
    p99 = float(np.percentile(row['search_ms'], 99))
    result.add(f'search_{count}', row['search_ms'], 'ms')
    # What a busy machine does not add to: the time that the search itself had the core.
    result.add(f'search_cpu_{count}', row['cpu_ms'], 'ms')
    result.add(f'search_cpu_p99_{count}', float(np.percentile(row['cpu_ms'], 99)), 'ms')
    result.add(f'encode_query_at_{count}', row['encode_ms'], 'ms')
    for name, unit in (('told', 's'), ('index', 's'), ('columns', 's'), ('peak', 'gib')):
      result.add(f'{name}_{count}', row[f'{name}_{unit}'], unit)
    result.bar(f'p99_ms_{count}', p99, '<=', LATENCY_BARS[count])


def main() -> int:
  parser = common.parser(__doc__)
  parser.add_argument('--life', type=pathlib.Path, help='a life of your own, as lives.py has it')
  parser.add_argument('--dev', action='store_true', help='the questions of development')
  parser.add_argument('--ablate', action='store_true', help='leave out each part of relevance')
  parser.add_argument('--million', action='store_true', help='latency among a million, too')
  parser.add_argument('--latency-of', type=int, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.latency_of:
    print(json.dumps(latency(args.latency_of)))
    return 0
  common.keep_programs(common.cache_of(args))
  result = common.Result('recall', args, split='dev' if args.dev else 'test', life=str(args.life))
  find(args, result)
  if not args.life:
    measure(args, result)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
