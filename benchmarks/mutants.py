"""Damaged generations, weights and figures: none is ever read as if it were whole.

  python benchmarks/mutants.py [--quick] [--mutants=N] [--json=FILE]

A generation (adapter, masks, Fisher information, manifest, checksum), the cache of converted
weights and the base's own exam are damaged as diary_faults.py damages diaries and indexes: flipped
bits, overwritten, cut, zeroed, swapped, grown, emptied, foreign files. Each must be refused in one
line that names it, or make no difference, and no other error may come of it. What is a cache must
then be made anew; of a generation the one beside it must still load. Expected: half a minute.
"""

from __future__ import annotations

import collections
import pathlib
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
import numpy as np

from benchmarks import common, damage
from dreaming.brain import gguf, weights
from dreaming.identity import generations
from dreaming.sleep import artifacts

MUTANTS = 500
SHARES = {'adapter': 0.3, 'manifest': 0.25, 'masks': 0.1, 'weights': 0.25, 'exam': 0.1}
_FIELDS = {
  'parent': None, 'night': 1, 'created': 1.0, 'base': 'ab' * 32, 'sources': (1, 2), 'seed': 7,
  'lora': {'rank': 8, 'alpha': 8.0, 'targets': '.*'}, 'scores': {'recall': 0.75}, 'config': {},
}  # fmt: skip


class Made:
  """Whole files, and how each kind is read."""

  def __init__(self, root: pathlib.Path):
    self.root = root
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((6, 32, 8), np.float32), rng.standard_normal((6, 8, 64), np.float32)
    masks = {'merged': {'layer_0': {'attn': {'q_einsum': {'w': rng.random((4, 32, 16)) < 0.8}}}}}
    for number in (1, 2):
      generations.save(
        root / 'generations', number, adapter={'layers': {'attn': {'q': {'a': a, 'b': b}}}},
        masks=masks, beside={'fisher.npz': {'a': np.abs(a)}}, manifest_fields=_FIELDS,
      )  # fmt: skip
    config = weights.ModelConfig(architecture='tiny', weights='random')
    self.params = jax.tree.map(np.asarray, weights.load(config).params)
    self.figures = {'right': 31, 'firm': list(range(31)), 'nll': 2.345678, 'quick_nll': 2.5}
    self.make_weights()
    self.make_exam()
    self.generation = self.read_generation()

  def make_weights(self) -> None:
    shutil.rmtree(self.root / 'weights', ignore_errors=True)
    (self.root / 'weights').mkdir()
    gguf._write_cache(self.root / 'weights', self.params, weights._byte_proto(512), 'source')

  def make_exam(self) -> None:
    artifacts.keep(self.root / 'exam.sealed', self.figures)

  def read_generation(self, number: int = 1) -> Any:
    generation, *trees = generations.load(self.root / 'generations', number)
    return generation.manifest, jax.tree.map(np.asarray, trees)

  def files(self, target: str) -> list[pathlib.Path]:
    one = self.root / 'generations' / '1'
    if target == 'manifest':
      return [one / generations.MANIFEST, one / generations.CHECKSUM]
    if target == 'masks':
      return sorted((one / 'masks').iterdir()) + [one / 'fisher.npz']
    places = {'adapter': one / 'adapter', 'weights': self.root / 'weights'}
    if target == 'exam':
      return [self.root / 'exam.sealed']
    return sorted(p for p in places[target].rglob('*') if p.is_file())

  def read(self, target: str) -> tuple[str, str]:
    """(what came of it: told, harmless or altered; what was said)."""
    if target == 'exam':
      return _judged(lambda: artifacts.kept(self.root / 'exam.sealed') == self.figures)
    if target == 'weights':
      found = gguf._read_cache(self.root / 'weights', 'source')
      if found is None:
        return 'told', ''
      return ('harmless' if _same(found[0], self.params) else 'altered'), ''
    return _judged(lambda: _alike(self.read_generation(), self.generation))

  def mend(self, target: str) -> bool:
    """Whether what can be made anew is, and what is beside it whole."""
    if target == 'weights':
      self.make_weights()
    elif target == 'exam':
      self.make_exam()
    else:
      return _alike(self.read_generation(2)[1:], self.generation[1:])
    return self.read(target)[0] == 'harmless'


def _judged(same: Callable[[], bool]) -> tuple[str, str]:
  try:
    return ('harmless' if same() else 'altered'), ''
  except (ValueError, OSError) as e:
    return 'told', str(e)


def _same(a: Any, b: Any) -> bool:
  return jax.tree.structure(a) == jax.tree.structure(b) and all(
    x.dtype == y.dtype and np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def _alike(a: Any, b: Any) -> bool:
  """Manifests by their fields, trees by every number."""
  return _same(a[-1], b[-1]) and (len(a) == 1 or a[0] == b[0])


def one(made: Made, target: str, seed: int) -> str:
  """Damages a file, reads it, and puts it back: told, harmless, altered, unclear or crashed."""
  rng = random.Random(seed)
  path = rng.choice(made.files(target))
  before = path.read_bytes()
  kinds = {k: n for k, n in damage.KINDS.items() if k not in ('older', 'another')}
  (kind,) = rng.choices([*kinds], [*kinds.values()])
  path.write_bytes(damage.harm(bytearray(before), kind, rng))
  try:
    came, said = made.read(target)
    if came == 'told' and target not in ('weights',):
      named = 'generation 1 ' if target != 'exam' else 'exam.sealed'
      came = 'told' if said and '\n' not in said and named in said else 'unclear'
    mended = came != 'told' or made.mend(target)
    return came if mended else 'not mended'
  except Exception as e:  # whatever it is: nothing else may come of a damaged file
    print(f'{target} {path.name} {kind} {seed}: {type(e).__name__}: {e}')
    return 'crashed'
  finally:
    if path.parent.is_dir():
      path.write_bytes(before)


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--mutants', type=int, default=MUTANTS)
  args = p.parse_args()
  count = min(args.mutants, 60) if args.quick else args.mutants
  rng, came = random.Random(4), collections.Counter()
  by_target: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
  with tempfile.TemporaryDirectory() as directory:
    made = Made(pathlib.Path(directory))
    for seed in range(count):
      (target,) = rng.choices([*SHARES], [*SHARES.values()])
      what = one(made, target, seed)
      came[what] += 1
      by_target[target][what] += 1
  for target, counts in by_target.items():
    print(f'{target:10}', ', '.join(f'{n} {what}' for what, n in counts.most_common()))
  result = common.Result('mutants', args, mutants=count)
  result.keep([{'target': t, **c} for t, c in by_target.items()])
  good = came['told'] + came['harmless']
  result.bar('told_or_harmless', good / count, '>=', 1.0)
  result.bar('crashes', came['crashed'], '<=', 0)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
