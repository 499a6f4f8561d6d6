"""A layer of faults under a program, from outside: nothing of the product knows of it.

  env = faulty.environment(folder)          # LD_PRELOAD, of a new process
  disk = faulty.Disk(home)                  # there: what is done below `home` is counted
  disk.fail(7, errno.ENOSPC, stays=True)    # the 7th operation fails, and all after it
  disk.end()

It lies where all meet, Python, SQLite's own C and TensorStore under Orbax: at the C library
(faulty.c). A hook in the product would see Python's part alone, and would be one more thing that
can be wrong on the night that counts; off, this one costs nothing, because it is not there.
`Calls` does the same to Python's functions: to model calls and device allocations. What was
recorded is read back by `read_log`, and `Platter` loses of it what a power cut may lose.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

SOURCE = pathlib.Path(__file__).with_name('faulty.c')
MAKE, WRITE, SYNC, RENAME, REMOVE, MKDIR, RESIZE, READ, NOTE, LINK, UNSEEN = (
  1 << i for i in range(11)
)
CHANGES = MAKE | WRITE | SYNC | RENAME | REMOVE | MKDIR | RESIZE | LINK
GROWS = MAKE | WRITE | MKDIR | LINK  # what a full disk refuses
_HEAD = struct.Struct('<IqIII')


def missing() -> str:
  """Why there can be no such layer here, or ''."""
  if sys.platform != 'linux':
    return 'hardware: faults are put under a program on Linux alone'
  return '' if shutil.which('cc') else 'system: there is no C compiler (cc)'


def environment(folder: pathlib.Path) -> dict[str, str]:
  """Of a process that has the layer under it; compiles it into a folder when it is not there."""
  made = folder / 'faulty.so'
  if not made.exists():
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f'faulty-{os.getpid()}.so'
    command = ['cc', '-O1', '-shared', '-fPIC', '-o', str(new), str(SOURCE), '-ldl']
    subprocess.run(command, check=True, timeout=300)
    new.replace(made)
  return {**os.environ, 'LD_PRELOAD': str(made)}


# ---- In the process ----


class Disk:
  """The layer of this process, from now on over one folder.

  Args:
    home: a folder; operations below it count.
    kinds: which, of MAKE, WRITE and so on.
  """

  def __init__(self, home: pathlib.Path, kinds: int = CHANGES):
    self._c = ctypes.CDLL(None)
    self._c.faulty_seen.restype = ctypes.c_long
    self._c.faulty_fail.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int]
    self._c.faulty_kill.argtypes = [ctypes.c_long, ctypes.c_int]
    self._c.faulty_watch(str(home.resolve()).encode(), kinds)

  def fail(self, n: int, error: int, stays: bool = False) -> None:
    """The nth operation fails with an errno; with `stays` all after it do, too."""
    self._c.faulty_fail(n, error, stays)

  def kill(self, n: int, half: bool = False) -> None:
    """Kills this process at the nth operation, which is not done, or by half if it writes."""
    self._c.faulty_kill(n, half)

  def record(self, path: pathlib.Path | None) -> None:
    """Writes down, in a file elsewhere, what is done from now on."""
    self._c.faulty_record(None if path is None else str(path).encode())

  def note(self, text: str) -> None:
    """A line of the record: what was acknowledged by now."""
    self._c.faulty_note(text.encode())

  @property
  def seen(self) -> int:
    """Operations so far."""
    return self._c.faulty_seen()

  @property
  def fired(self) -> bool:
    return bool(self._c.faulty_fired())

  def end(self) -> None:
    self._c.faulty_end()


class Calls:
  """Counts calls of functions, and does something at one of them.

  Args:
    points: (name, owner, attribute) of each.
  """

  def __init__(self, points: Sequence[tuple[str, Any, str]]):
    self._points = points
    self.counts: collections.Counter[str] = collections.Counter()
    self.seen, self.fired = 0, False

  @contextlib.contextmanager
  def at(
    self, strike: Callable[[], Any] | None, n: int = 0, name: str | None = None, after: bool = False
  ) -> Iterator[Calls]:
    """While it is entered: `strike` comes before, or after, the nth call (of a name, or of all)."""
    before = [(o, a, getattr(o, a), a in vars(o)) for _, o, a in self._points]
    self.counts.clear()
    self.seen, self.fired = 0, False

    def wrapped(point: str, real: Callable) -> Callable:
      def call(*args: Any, **kwargs: Any) -> Any:
        self.seen += 1
        self.counts[point] += 1
        now = strike and n == (self.seen if name is None else self.counts[point] * (name == point))
        if now and not after:
          self.fired = True
          strike()
        out = real(*args, **kwargs)
        if now and after:
          self.fired = True
          strike()
        return out

      return call

    try:
      for (point, owner, attribute), (_, _, real, _) in zip(self._points, before, strict=True):
        setattr(owner, attribute, wrapped(point, real))
      yield self
    finally:
      for owner, attribute, real, own in before:
        if own:
          setattr(owner, attribute, real)
        else:  # it was inherited
          delattr(owner, attribute)


# ---- Power cuts ----


@dataclasses.dataclass(frozen=True)
class Op:
  """One operation on the disk. Paths are relative to the folder, with a slash before them."""

  kind: int
  path: str
  other: str  # of a rename and a link: the new name; of what is unseen: the call
  at: int  # of a write: where; of a resize: the new size
  data: bytes


def read_log(path: pathlib.Path) -> list[Op]:
  data, out, at = path.read_bytes(), [], 0
  while at < len(data):
    kind, where, a, b, size = _HEAD.unpack_from(data, at)
    at += _HEAD.size
    parts = [data[at : at + a], data[at + a : at + a + b], data[at + a + b : at + a + b + size]]
    out.append(Op(kind, parts[0].decode(), parts[1].decode(), where, parts[2]))
    at += a + b + size
  return out


class _Node:
  """A file or a folder: what is safe of it, and what came since."""

  def __init__(self, data: bytes | None = b''):
    self.data = data  # None: a folder
    self.since: list[Op] = []  # writes and resizes that no fsync has followed

  @property
  def now(self) -> bytes | None:
    """As the program sees it."""
    return None if self.data is None else _written(self.data, self.since)


@dataclasses.dataclass
class _Naming:
  """One change of a folder's names, safe once a folder that it is in was synced."""

  out: tuple[_Node, str] | None  # folder (it may be renamed itself), name: that goes
  into: tuple[_Node, str] | None  # that comes
  node: _Node | None
  safe: bool = False


class Platter:
  """A folder as a power cut leaves it: POSIX at its strictest.

  Written bytes are safe after an fsync of their file, names after an fsync of their folder, and
  nothing else is; what is not may be there or not, in part, and in any order.

  Args:
    before: the folder when the record began; all of it is safe.

  Raises:
    ValueError: the record has an operation that cannot be done again, or lacks one.
  """

  def __init__(self, before: pathlib.Path):
    self._names: dict[str, _Node] = {'': _Node(None)}  # as the program sees them
    self._names |= {name: _Node(data) for name, data in _contents(before).items()}
    self._start = dict(self._names)
    self._namings: list[_Naming] = []

  def do(self, op: Op) -> None:
    names = self._names
    if op.kind == UNSEEN:
      raise ValueError(f'{op.path}: the record cannot do {op.other} again')
    known = {MAKE: _split(op.path)[0], MKDIR: _split(op.path)[0], NOTE: '', SYNC: ''}
    if (missing := known.get(op.kind, op.path)) not in names:
      raise ValueError(f'{op.path}: the record lacks what made {missing}')
    if op.kind in (MAKE, MKDIR):
      names[op.path] = _Node(None if op.kind == MKDIR else b'')
      self._namings.append(_Naming(None, self._at(op.path), names[op.path]))
    elif op.kind == REMOVE:
      self._namings.append(_Naming(self._at(op.path), None, names.pop(op.path)))
    elif op.kind == LINK:
      names[op.other] = names[op.path]
      self._namings.append(_Naming(None, self._at(op.other), names[op.path]))
    elif op.kind == RENAME:
      moved = [n for n in names if n == op.path or n.startswith(f'{op.path}/')]
      node, ends = names[op.path], (self._at(op.path), self._at(op.other))
      for name in moved:
        names[op.other + name[len(op.path) :]] = names.pop(name)
      self._namings.append(_Naming(*ends, node))
    elif op.kind in (WRITE, RESIZE):
      names[op.path].since.append(op)
    elif op.kind == SYNC and (node := names.get(op.path)) is not None:
      if node.data is not None:
        node.data, node.since = node.now, []
      else:
        for n in self._namings:
          n.safe |= any(at is not None and at[0] is node for at in (n.out, n.into))

  def differs(self, folder: pathlib.Path) -> list[str]:
    """Names of what is otherwise in the folder itself: some call did it that nothing here sees."""
    mine = {n: x.now for n, x in self._names.items() if n}
    there = _contents(folder)
    wrong = [n for n in mine.keys() | there.keys() if mine.get(n, ...) != there.get(n, ...)]
    return sorted(n for n in wrong if not n.endswith('-shm'))

  def _at(self, path: str) -> tuple[_Node, str]:
    folder, name = _split(path)
    return self._names[folder], name

  def cut(self, to: pathlib.Path, how: str, rng: random.Random) -> None:
    """Writes what is left: of what is not safe 'none', 'all' or 'some'."""
    unsafe = [n for n in self._namings if not n.safe]
    count = {'none': 0, 'all': len(unsafe), 'some': rng.randint(0, len(unsafe))}[how]
    there = {id(n) for n in unsafe[:count]}
    inside: dict[int, dict[str, _Node]] = collections.defaultdict(dict)
    for path, node in self._start.items():
      if path:
        folder, name = _split(path)
        inside[id(self._start[folder])][name] = node
    for n in self._namings:
      if n.safe or id(n) in there:
        if n.out is not None:
          inside[id(n.out[0])].pop(n.out[1], None)
        if n.into is not None and n.node is not None:
          inside[id(n.into[0])][n.into[1]] = n.node
    self._write(to, self._start[''], inside, how, rng)

  def _write(self, to, folder: _Node, inside, how: str, rng: random.Random) -> None:
    to.mkdir(exist_ok=True)
    for name, node in inside[id(folder)].items():
      if node.data is None:
        self._write(to / name, node, inside, how, rng)
      elif not name.endswith('-shm'):  # of processes that run
        since = [op for op in node.since if how == 'all' or (how == 'some' and rng.random() < 0.5)]
        if how == 'some' and since and rng.random() < 0.3:
          torn = since.pop()
          since.append(dataclasses.replace(torn, data=torn.data[: len(torn.data) // 2]))
        (to / name).write_bytes(_written(node.data, since))


def _contents(folder: pathlib.Path) -> dict[str, bytes | None]:
  """Path -> bytes, or None of a folder; all that is below one."""
  below = sorted(folder.rglob('*'))
  return {f'/{p.relative_to(folder)}': None if p.is_dir() else p.read_bytes() for p in below}


def _split(path: str) -> tuple[str, str]:
  folder, _, name = path.rpartition('/')
  return folder, name


def _written(data: bytes, ops: Sequence[Op]) -> bytes:
  out = bytearray(data)
  for op in ops:
    if op.kind == RESIZE:
      del out[op.at :]
      out.extend(bytes(op.at - len(out)))
    else:
      out.extend(bytes(max(0, op.at - len(out))))
      out[op.at : op.at + len(op.data)] = op.data
  return bytes(out)
