"""Which generation serves: Blue speaks, Green takes over whole or not at all.

The diary's row of the active generation decides, nothing else does. A swap is: read the new
generation from the disk and check it, materialize it, commit to the diary in one transaction, then
flip one reference. Whoever began to speak with the old Mind holds it until the end; it goes when
the last one lets go.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from dreaming import types
from dreaming.brain import lora
from dreaming.identity import generations
from dreaming.memory.diary import Diary
from dreaming.sleep import prune
from dreaming.types import Generation, Mind, Params


class IdentityLock:
  """Holds an identity for one process: `with IdentityLock(workdir): ...`.

  The kernel lets go of it when the process ends, however it ends; the file stays. A process that
  this one starts may share it: it is given `fileno()` and passes it as `shared`.

  Args:
    shared: the descriptor of a lock that the parent process holds.

  Raises:
    ValueError: `shared` is no lock of this directory.
    BlockingIOError: another process has it.
    OSError: the directory cannot be made or written.
  """

  def __init__(self, workdir: str | pathlib.Path, *, shared: int | None = None):
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    # NOFOLLOW: a link in this place must not make us write elsewhere.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    number = os.open(workdir / 'lock', flags, 0o644) if shared is None else shared
    if shared is not None and not os.path.samestat(os.fstat(shared), os.stat(workdir / 'lock')):
      raise ValueError(f'descriptor {shared} is not the lock of {workdir}')
    self._file = os.fdopen(number, 'r+')
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      pid = self._file.read(32).strip()
      self._file.close()
      holder = f'process {pid}' if pid.isdigit() else 'another process'
      raise BlockingIOError(
        f'{workdir} is in use by {holder}: end it first, or choose another --config.workdir'
      ) from None
    if shared is not None:  # what it says is the parent's
      return
    self._file.truncate(0)
    self._file.write(f'{os.getpid()}\n')
    self._file.flush()

  def fileno(self) -> int:
    return self._file.fileno()

  def close(self) -> None:
    self._file.close()

  def __enter__(self) -> IdentityLock:
    return self

  def __exit__(self, *_) -> None:
    self.close()


class Base(Protocol):
  """What weights.load returns, as far as it is needed here."""

  params: Params
  arch: Any
  digest: str


def wake(
  base: Base,
  adapter: types.Lora | None,
  masks: generations.Masks | None = None,
  *,
  scale: float,
  number: int,
  ground: Params | None = None,
) -> Mind:
  """The base with an adapter and its masks, materialized: what speaks, and what is examined.

  The same inputs give the same bits, and the arrays have the base's dtypes and shardings, so no
  program compiles again for it.

  Args:
    adapter: None is the bare base.
    masks: 'delta' returns weights to the base's, then 'merged' holds weights at zero.
    scale: alpha / rank.
    number: of the generation.
    ground: what the adapter is added to, where that is not the base itself; see BlueGreen.ground.
  """
  params = _merged(base.params if ground is None else ground, adapter, masks, base.arch, scale)
  return Mind(params=jax.tree.map(_place, params, base.params), generation=number)


def _merged(ground: Params, adapter, masks: generations.Masks | None, arch, scale) -> Params:
  masks = masks or {}
  params = lora.materialize(ground, adapter, arch, scale=scale)
  if 'delta' in masks:
    params = prune.revert(params, ground, masks['delta'])
  if 'merged' in masks:
    params = prune.apply(params, masks['merged'])
  return params


def _place(new: Any, old: Any) -> Any:
  """Where the base's array is. (Not when it is there: device_put would pin it to its device.)"""
  if new is not old and new.dtype != old.dtype:
    new = new.astype(old.dtype)
  if new is old or not isinstance(old, jax.Array) or new.sharding == old.sharding:
    return new
  return jax.device_put(new, old.sharding)


class BlueGreen:
  """Serves the active generation of an identity, and changes which one that is.

  For the holder of the IdentityLock. Methods may be called from several threads.

  Args:
    base: the frozen weights, never written.
    diary: decides which generation is active.
    root: the directory of generations, in the diary's directory.
  """

  def __init__(self, base: Base, diary: Diary, root: str | pathlib.Path):
    self._base, self._diary, self._root = base, diary, pathlib.Path(root)
    self._blue: Mind | None = None
    self._swap = threading.RLock()
    generations.sweep(self._root)

  @property
  def blue(self) -> Mind:
    """The Mind that serves. Take it once per reply: a swap does not change one in use.

    Raises:
      ValueError: the active generation is damaged, or was made for another base. The line says
        which; `rollback` still works.
    """
    blue = self._blue
    if blue is None:
      with self._swap:
        if self._blue is None:
          self._blue = self.mind(self._diary.active())
        blue = self._blue
    return blue

  def mind(self, number: int) -> Mind:
    """Any generation, read from the disk, checked and materialized; 0 is the base itself."""
    if number == 0:
      return Mind(params=self._base.params, generation=0)
    return self._read(number)[1]

  def ground(self, number: int, consolidation: str) -> Params:
    """What the night after generation `number` adds its adapter to.

    'continual' is the base: one adapter is carried on. Otherwise it is that generation's weights:
    'fresh' in f32, as nothing had been rounded, 'fold' in the base's own dtype, which forgets what
    is smaller than its steps: the naive way, to compare with.

    Raises:
      ValueError: as `mind`.
    """
    params = self._base.params
    if consolidation == 'continual':
      return params
    if number:
      generation, adapter, masks = generations.load(self._root, number)
      self._check(generation)
      below = self.ground(generation.parent or 0, _consolidation(generation))
      params = _merged(below, adapter, masks, self._base.arch, _scale(generation))
    if consolidation == 'fold':
      return jax.tree.map(_place, params, self._base.params)
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.ndim > 1 else x, params)

  def promote(
    self,
    generation: Generation,
    *,
    consumed: Iterable[int] = (),
    night: int | None = None,
    result: Mapping[str, Any] | None = None,
  ) -> Mind:
    """Makes a saved generation that passed its gate the one that serves.

    Killed before the commit, the old one serves and nothing is consumed; after it, the new one.

    Args:
      consumed: ids of the experiences that are in its weights now.
      night: the running night that made it; the commit ends it.
      result: what the night came to, plain values.

    Raises:
      ValueError: it is damaged, or grew from another generation than the one that serves.
    """
    with self._swap:
      active = self._diary.active()
      if (generation.parent or 0) != active:
        raise ValueError(
          f'generation {generation.number} grew from {generation.parent or 0}, but {active} serves '
          'by now: roll back to its parent first, or sleep again'
        )
      saved, green = self._read(generation.number)
      try:
        self._diary.promote(saved.manifest, consumed, night, path=saved.path, result=result)
      finally:
        self._flip(green)
    return green

  def rollback(self, number: int | None = None, *, warm: Mind | None = None) -> Mind:
    """Lets an earlier generation serve again, bit for bit as it was.

    Args:
      number: which; by default the parent of the one that serves. 0 is the base.
      warm: that generation, where `mind` has read it before: then nothing is read.

    Raises:
      ValueError: there is no such generation, or it is damaged. Nothing has changed then.
    """
    with self._swap:
      parents = {g.number: g.parent or 0 for g in self._diary.generations()}
      active = self._diary.active()
      if number is None and active == 0:
        raise ValueError('the base serves: there is nothing earlier to roll back to')
      target = parents[active] if number is None else number
      if target not in parents and target != 0:
        there = ', '.join(str(n) for n in sorted({0, *parents}))
        raise ValueError(f'there is no generation {target} to roll back to; there are: {there}')
      mind = warm if warm is not None and warm.generation == target else self.mind(target)
      try:
        self._diary.activate(target)
      finally:
        self._flip(mind)
    return mind

  def adopt(self, mind: Mind) -> bool:
    """Serves what another process has promoted, as `mind` read it; whether it is the active one."""
    with self._swap:
      self._flip(mind)
      return self._blue is mind

  def _flip(self, mind: Mind) -> None:
    """In any case, also when interrupted right after a commit: the diary decides."""
    try:
      active = self._diary.active()
    except BaseException:
      self._blue = None  # whoever speaks next asks again
      raise
    if active == mind.generation:
      self._blue = mind

  def _read(self, number: int) -> tuple[Generation, Mind]:
    generation, adapter, masks = generations.load(self._root, number)
    self._check(generation)
    ground = self.ground(generation.parent or 0, _consolidation(generation))
    scale = _scale(generation)
    mind = wake(self._base, adapter, masks, scale=scale, number=number, ground=ground)
    return generation, mind

  def _check(self, generation: Generation) -> None:
    manifest = generation.manifest
    if manifest.base != self._base.digest:
      raise ValueError(
        f'generation {generation.number} was made for base {manifest.base[:12]}, this is '
        f'{self._base.digest[:12]}: choose the weights it was made for, or another workdir'
      )
    for promoted in self._diary.generations():
      if promoted.number == generation.number and promoted.manifest != manifest:
        raise ValueError(
          f'generation {generation.number} in {self._root} is not the one that was promoted: put '
          'that back from a backup, or roll back to an earlier generation'
        )


def _consolidation(generation: Generation) -> str:
  return generation.manifest.lora.get('consolidation', 'continual')


def _scale(generation: Generation) -> float:
  fields = generation.manifest.lora
  try:
    return fields['alpha'] / fields['rank']
  except (KeyError, TypeError, ZeroDivisionError) as e:
    raise ValueError(
      f"generation {generation.number}: its manifest lacks lora's alpha or rank: {dict(fields)}"
    ) from e
