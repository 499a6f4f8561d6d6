"""Damaged copies of diaries, indexes and imports, and what becomes of each: see diary_faults.py.

python benchmarks/damage.py DIRECTORY   reads what to damage, one JSON a line, and answers so
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

from benchmarks import imports
from dreaming import types
from dreaming.memory import graph, rescue, trim
from dreaming.memory import index as index_lib
from dreaming.memory.diary import Diary
from dreaming.memory.imports import item, run

PAGE = 4096
TABLES = (
  'experiences media scores embeddings nights night_steps night_experiences dreams dream_sources '
  'generations imported archived approvals'
).split()
CHANGE = ('experiences', 'nights', 'night_steps')  # whose rows do: an earlier one is no altered one
ENDS = ('', '-wal', '.mark')


class Hashed:
  """An embedder that needs no weights: the same text has the same vector, another one another."""

  name, dim = 'hashed', 32

  def __call__(self, texts: list[str]) -> np.ndarray:
    seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:8]) for t in texts]
    rows = [np.random.default_rng(s).normal(size=self.dim) for s in seeds]
    return np.array(rows, np.float32).reshape(-1, self.dim)


def sleep_over(diary: Diary, ids: list[int]) -> None:
  """A night that learns these."""
  number = max((g.number for g in diary.generations()), default=0) + 1
  night = diary.open_night() or diary.begin_night({})
  diary.add_dreams(types.Dream(id=0, night=night, style='s', text=f'd{i}', sources=(i,))
                   for i in ids[:5])  # fmt: skip
  diary.set_night_step(night, 'select', {'ids': ids})
  manifest = types.Manifest(
    number=number, parent=diary.active() or None, night=night, created=1.0, base='b',
    sources=tuple(ids), seed=0, files={}, lora={}, scores={}, config={},
  )  # fmt: skip
  diary.promote(manifest, ids, night)


# ---- Lives ----


def make_lives(root: pathlib.Path, own: pathlib.Path | None) -> None:
  """closed, killed and older: one life at three moments. another: somebody else's."""
  rng, ever = random.Random(1), {}
  words = imports.__doc__.split()

  def lived(diary: Diary, count: int) -> None:
    for i in range(count):
      long = rng.choice((1, 1, 1, 1, 12, 40))
      with diary.transaction():
        e = diary.append(
          time=1.7e9 + i, speaker=rng.choice(('Ana', 'Bo')), session=f'{i // 20}',
          content=f'w{i} ' + ' '.join(rng.choices(words, k=20 * long)), response='ä' * (i % 50),
          media=[types.Media(kind='image', digest=f'{i}', description='a bird')] * (i % 5 == 0),
          trust=types.Trust(i % 4), metadata={'i': i},
        )  # fmt: skip
        diary.set_scores(e.id, types.Scores(importance=1 + i % 9, rater='r'))
        diary.set_embedding(e.id, Hashed()([e.content])[0], 'hashed')
    others = diary.unapproved()
    own = [e.id for e in diary.experiences() if e.trust is types.Trust.USER]
    diary.approve(others[::3], 'Ines')
    diary.corroborate(dict(zip(others[1::3], own, strict=False)))
    sleep_over(diary, [e.id for e in diary.experiences(unconsumed=True)][: count // 2])
    ever.update(contents(diary)['rows'])  # a cut log may bring back what trimming takes away
    config = trim.TrimConfig(days=0.0, below=3.0, keep=count // 4)
    embedded = index_lib.Index(*diary.embeddings('hashed'))
    trim.trim(diary, trim.plan(diary, config, 2e9, embedded, 0.9).chosen, config)

  for name in ('another', 'closed'):
    home = root / name
    home.mkdir()
    if own and name == 'closed':
      for end in ENDS:
        if pathlib.Path(f'{own}{end}').exists():
          shutil.copyfile(f'{own}{end}', home / f'diary.sqlite{end}')
    with Diary(home / 'diary.sqlite') as diary:
      if not own or name == 'another':
        lived(diary, 150)
  shutil.copytree(root / 'closed', root / 'older')
  with Diary(root / 'closed' / 'diary.sqlite') as diary:
    lived(diary, 30)
    # What a kill would leave: the files as they are while the diary is open.
    shutil.copytree(root / 'closed', root / 'killed', ignore=shutil.ignore_patterns('*-shm'))
  for name in ('closed', 'killed'):
    shutil.copytree(root / name, root / 'copy')
    with Diary(root / 'copy' / 'diary.sqlite') as diary:
      truth = contents(diary)
      (root / f'{name}.json').write_text(json.dumps(truth | {'ever': ever | truth['rows']}))
    shutil.rmtree(root / 'copy')
  vectors = np.load(save_vectors(root))
  graph.Graph(vectors, root / 'h.usearch')
  for i, data in enumerate(goods()):
    (root / f'import{i}').write_bytes(data)


def goods() -> list[bytes]:
  export = imports.export(2, 3)
  return [export, imports.tavern(5), json.dumps(imports.CARD).encode(), imports.card_picture(),
          imports.lines(20), imports.zipped(('conversations.json', export))]  # fmt: skip


def save_vectors(root: pathlib.Path) -> pathlib.Path:
  vectors = Hashed()([f'{i}' for i in range(1500)])
  np.save(root / 'vectors.npy', vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
  return root / 'vectors.npy'


def contents(diary: Diary) -> dict[str, Any]:
  """All that is in a diary: a digest for each table and row, and what each experience is."""
  out: dict[str, Any] = {'rows': {}}
  for table in TABLES:
    rows = diary._run(f'SELECT * FROM {table} ORDER BY 1, 2')
    out[table] = hashlib.sha256(repr(rows).encode()).hexdigest()
    if table not in CHANGE:
      out['rows'] |= {f'{table} {hashlib.sha256(repr(r).encode()).hexdigest()}': 1 for r in rows}
  out['state'] = diary._run('SELECT active, forgetting FROM state')[0]
  out['words'] = [sorted(diary.by_words(f'w{i} file memory', 20)) for i in range(5)]
  out['each'] = {
    e.id: hashlib.sha256(f'{(e.time, e.kind, e.speaker, e.content, e.response, e.media)}'
                         f'{(e.session, dict(e.metadata))}'.encode()).hexdigest()
    for e in diary.experiences(archived=None)
  }  # fmt: skip
  out['trust'] = {e.id: int(e.trust) for e in diary.experiences(archived=None)}
  return json.loads(json.dumps(out))


# ---- Damage ----

FOREIGN = {
  'PNG': imports.picture(),
  'ZIP': imports.zipped(('a', b'a' * 9000)),
  'text': b'Dear diary, ' * 900,
  'JSON': b'{"mapping": {}}',
  'zeros': bytes(50_000),
  'random': random.Random(3).randbytes(50_000),
}
KINDS = {
  'flip': 30, 'bytes': 14, 'burst': 10, 'cut': 12, 'zero': 10, 'swap': 10, 'grow': 4, 'empty': 3,
  'format': 4, 'older': 2, 'another': 1,
}  # fmt: skip


def harm(data: bytearray, kind: str, rng: random.Random) -> bytes:
  size = len(data)
  if kind == 'flip':
    data[rng.randrange(size)] ^= 1 << rng.randrange(8)
  elif kind == 'bytes':
    for _ in range(8):
      data[rng.randrange(size)] = rng.randrange(256)
  elif kind == 'burst':
    at = rng.randrange(size)
    data[at : at + 512] = rng.randbytes(min(512, size - at))
  elif kind == 'cut':
    del data[rng.randrange(size) :]
  elif kind in ('zero', 'swap'):
    unit = PAGE if size >= 4 * PAGE else max(size // 4, 1)
    a, b = (unit * rng.randrange(size // unit) for _ in range(2))
    if kind == 'zero':
      data[a : a + unit] = bytes(unit)
    else:
      data[a : a + unit], data[b : b + unit] = data[b : b + unit], data[a : a + unit]
  elif kind == 'grow':
    data += rng.randbytes(rng.choice((1, 100, PAGE, 20_000)))
  elif kind == 'empty':
    data.clear()
  else:
    data[:] = FOREIGN[rng.choice(sorted(FOREIGN))]
  return bytes(data)


SHARES = {
  'closed': 0.26, 'killed': 0.18, 'log': 0.17, 'mark': 0.04, 'graph': 0.09, 'note': 0.06,
  'import': 0.2,
}  # fmt: skip


def specs(count: int) -> list[dict[str, Any]]:
  rng = random.Random(2)
  out = []
  for i in range(count):
    (target,) = rng.choices(list(SHARES), list(SHARES.values()))
    (kind,) = rng.choices(list(KINDS), list(KINDS.values()))
    if target not in ('closed', 'killed') and kind in ('older', 'another'):
      kind = 'flip'
    out.append({'target': target, 'kind': kind, 'seed': i})
  return out


# ---- What becomes of it ----


def child(root: pathlib.Path) -> None:
  """Damages what comes on a line, tries it, and answers with a line."""
  truth = {n: json.loads((root / f'{n}.json').read_text()) for n in ('closed', 'killed')}
  vectors = np.load(root / 'vectors.npy')
  for line in sys.stdin:
    spec = json.loads(line)
    with tempfile.TemporaryDirectory(dir=root) as tmp:
      home, rng = pathlib.Path(tmp) / 'life', random.Random(spec['seed'])
      if spec['target'] in ('graph', 'note'):
        answer = try_graph(root, home, spec, rng, vectors)
      elif spec['target'] == 'import':
        answer = try_import(root, home, spec, rng)
      else:
        life = 'closed' if spec['target'] in ('closed', 'mark') else 'killed'
        answer = try_diary(root, home, life, spec, rng, truth[life])
    print(json.dumps(spec | answer), flush=True)


def try_diary(root, home, life, spec, rng, truth) -> dict[str, Any]:
  shutil.copytree(root / life, home)
  path = home / 'diary.sqlite'
  end = {'log': '-wal', 'mark': '.mark'}.get(spec['target'], '')
  victim = pathlib.Path(f'{path}{end}')
  if spec['kind'] in ('older', 'another'):
    shutil.copyfile(root / spec['kind'] / 'diary.sqlite', path)
  else:
    victim.write_bytes(harm(bytearray(victim.read_bytes()), spec['kind'], rng))
  before = [_bytes(f'{path}{e}') for e in ENDS]
  try:
    with Diary(path) as diary:
      same = contents(diary) == {k: v for k, v in truth.items() if k != 'ever'}
      return {'became': 'harmless' if same else 'SILENT', 'line': diary.remark}
  except (ValueError, OSError) as e:
    line = str(e)
  kept = [_bytes(f'{path}{e}') for e in ENDS] == before
  clear = kept and str(path) in line and '\n' not in line
  return {'became': 'refused' if clear else 'UNCLEAR', 'line': line} | rescued(path, truth)


def rescued(path: pathlib.Path, truth: dict[str, Any]) -> dict[str, Any]:
  """The share of experiences that come back from a damaged diary, and whether one is altered."""
  if not path.exists() or not path.stat().st_size:
    return {'rescued': 0.0}
  try:
    done = rescue.rescue(path)
  except (ValueError, OSError) as e:
    return {'rescued': 0.0, 'why': str(e)}
  if not done.kept.exists():
    return {'became': 'NOT KEPT'}
  with Diary(path) as diary:
    found = contents(diary)
  altered = [i for i, text in found['each'].items() if truth['each'].get(i) != text]
  altered += [i for i, t in found['trust'].items() if t > truth['trust'].get(i, -1)]
  altered += [row for row in found['rows'] if row not in truth['ever']]
  out = {'rescued': len(found['each']) / len(truth['each'])}
  return out | ({'became': 'ALTERED', 'altered': altered} if altered else {})


def try_graph(root, home, spec, rng, vectors) -> dict[str, Any]:
  home.mkdir()
  for end in ('', '.json'):
    shutil.copyfile(root / f'h.usearch{end}', home / f'h.usearch{end}')
  victim = home / ('h.usearch' if spec['target'] == 'graph' else 'h.usearch.json')
  victim.write_bytes(harm(bytearray(victim.read_bytes()), spec['kind'], rng))
  made = graph.Graph(vectors, home / 'h.usearch')
  rows = range(0, len(vectors), 50)
  right = sum(made.near(vectors[i], 1)[0] == i for i in rows) >= 0.9 * len(rows)
  again = graph.Graph(vectors, home / 'h.usearch')
  right = right and not again.remark
  became = 'rebuilt' if made.remark else 'harmless'
  return {'became': became if right else 'SILENT', 'line': made.remark}


def try_import(root, home, spec, rng) -> dict[str, Any]:
  home.mkdir()
  path = home / 'file'
  good = root / f'import{spec["seed"] % len(goods())}'
  path.write_bytes(harm(bytearray(good.read_bytes()), spec['kind'], rng))
  with Diary(home / 'diary.sqlite') as diary:
    try:
      r = run.import_file(diary, path, user='Ana')
    except item.Refused as e:
      clear = '\n' not in str(e) and len(str(e)) > 20 and not diary.ids()
      return {'became': 'refused' if clear else 'UNCLEAR', 'line': str(e)}
    trusted = any(e.trust >= types.Trust.USER for e in diary.experiences())
    became = 'SILENT' if trusted or len(diary.ids()) != r.added else 'taken, untrusted'
    return {'became': became, 'line': f'{r.added} added, {r.damaged} damaged, {r.skipped} skipped'}


def _bytes(path: str) -> bytes:
  return pathlib.Path(path).read_bytes() if os.path.exists(path) else b''


def damaged(root: pathlib.Path, todo: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """What became of each; one that ends its process, or takes a minute, has crashed."""
  out: list[dict[str, Any]] = []
  while todo:
    text = ''.join(json.dumps(s) + '\n' for s in todo)
    command = [sys.executable, __file__, str(root)]
    with tempfile.TemporaryFile('w+') as told:
      try:
        done = subprocess.run(
          command, input=text, stdout=told, stderr=subprocess.PIPE, text=True,
          timeout=120 + 20 * len(todo),
        )  # fmt: skip
        why = (done.stderr.strip().splitlines() or [f'exit code {done.returncode}'])[-1]
      except subprocess.TimeoutExpired:
        why = 'it takes for ever'
      told.seek(0)
      answers = [json.loads(line) for line in told if line.endswith('\n')]
    out += answers
    todo = todo[len(answers) :]
    if todo:
      out.append(todo.pop(0) | {'became': 'CRASHED', 'line': why})
  return out


if __name__ == '__main__':
  child(pathlib.Path(sys.argv[1]))
