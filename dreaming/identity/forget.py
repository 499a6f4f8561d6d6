"""Forgetting: what was removed, and what still holds it. relive.py makes the weights anew."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dreaming.memory.diary import Diary
from dreaming.types import Experience

TWIN, PLAN = 'replay', 'replay.json'
"""The directory of a life that is lived again, and what it is lived again for; see relive.py."""

CACHES = ('exam', 'replay', 'school')
"""Of the cache, what may hold text. It should all be the base's own, and is looked through. Weights
are those of the checkpoint, digest and all, and programs are compiled for shapes: no text comes
into either (forgetting_test.py lives a night and looks)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Receipt:
  """What was removed, and what still holds it. No word of it is in here.

  Attributes:
    ids: of the experiences that were forgotten.
    removed: what -> how many, as rows, files or entries.
    clean: of the cache, what was looked through and has no word of them -> how many files.
    generations: that have learned of them, themselves or in an ancestor: until a replay.
    files: in the identity's directory, copies that hold their words still; there and in the cache,
      what should have gone and could not be removed. Removing is the owner's.
    replayed: nights that were lived again without them.
    time: Unix seconds.
  """

  ids: tuple[int, ...]
  removed: Mapping[str, int]
  generations: tuple[int, ...]
  files: tuple[str, ...]
  replayed: tuple[int, ...] = ()
  clean: Mapping[str, int] = dataclasses.field(default_factory=dict)
  time: float

  @property
  def complete(self) -> bool:
    """Whether nothing of it is left that this program knows of."""
    return not self.generations and not self.files

  def plain(self) -> dict[str, Any]:
    return dataclasses.asdict(self) | {'complete': self.complete}

  def lines(self) -> list[str]:
    """For people."""
    out = [f'{count:>7,}  {what} removed' for what, count in self.removed.items() if count]
    if self.replayed:
      out.append(f'nights lived again without it: {", ".join(map(str, self.replayed))}')
    if self.generations:
      numbers = ', '.join(map(str, self.generations))
      out.append(f'generations that have learned of it: {numbers}; --do=replay makes them anew')
    out += [f'still in {path}: remove it yourself' for path in self.files]
    if self.clean:
      looked = ', '.join(f'{what} ({n:,})' for what, n in self.clean.items())
      out.append(f'files of the cache that were looked through and have no word of it: {looked}')
    return out + ['nothing else is known to hold it: exports and backups elsewhere are yours']


def write(workdir: pathlib.Path, receipt: Receipt) -> pathlib.Path:
  """Keeps a receipt as forgotten/NNNN.json, durably; returns the file."""
  directory = workdir / 'forgotten'
  directory.mkdir(exist_ok=True)
  number = max((int(p.stem) for p in directory.glob('[0-9]*.json')), default=0) + 1
  path = directory / f'{number:04d}.json'
  write_json(path, receipt.plain())
  return path


def replaying(workdir: pathlib.Path) -> bool:
  """Whether a replay was begun that is not over."""
  return (workdir / PLAN).exists()


# ---- What holds something ----


def learned(diary: Diary, ids: Collection[int]) -> tuple[int, ...]:
  """Generations that trained on any of these experiences, or grew from one that did."""
  found: set[int] = set()
  for g in diary.generations():  # a parent comes before its children
    if set(g.manifest.sources) & set(ids) or g.parent in found:
      found.add(g.number)
  return tuple(sorted(found))


def copies(
  workdir: pathlib.Path, gone: Sequence[Experience], values: Collection[str] = ()
) -> tuple[str, ...]:
  """Files of an identity that hold words of experiences, beside the diary itself.

  Diaries of before an update, what a rescue kept, logs and results. Words that are shorter than a
  dozen characters could be anybody's, and are not looked for; `values` of five on are, too.
  """
  words = _words(gone, values)
  found = []
  for path in sorted(workdir.rglob('*')):
    part = path.relative_to(workdir).parts
    if part[0] in ('generations', 'media', 'index', TWIN, PLAN) or not path.is_file():
      continue
    if path.name.removesuffix('-wal') == 'diary.sqlite' or path.is_symlink():
      continue
    if _holds(path, words):
      found.append(str(pathlib.Path(*part)))
  return tuple(found)


def made_again(workdir: pathlib.Path, remove: bool = False) -> dict[str, list[pathlib.Path]]:
  """What -> files of an identity that are made anew when they are needed: forgetting removes all.

  They have what was said as numbers: the graph of the search index its vectors, and what a killed
  night has worked with, where nobody has tidied up since, its tokens.

  Args:
    remove: which of them cannot be removed is asked.
  """
  places = {
    'files of the search index': [workdir / 'index'],
    'working files of nights': sorted(workdir.glob('nights/[0-9]*/work')),
  }
  there = {
    what: [p for place in some for p in sorted(place.rglob('*')) if not p.is_dir()]
    for what, some in places.items()
  }
  for path in [p for some in there.values() for p in some] if remove else ():
    with contextlib.suppress(OSError):
      path.unlink()
  return {w: [p for p in some if p.is_symlink() or p.exists()] for w, some in there.items()}


def clear_cache(
  cache: pathlib.Path, gone: Sequence[Experience], values: Collection[str] = ()
) -> tuple[int, dict[str, int], tuple[str, ...]]:
  """Removes files of CACHES that hold words of experiences: whoever needs them makes them anew.

  Returns:
    How many were removed; what -> how many hold none; those that could not be read or removed.
  """
  words, removed, clean, left = _words(gone, values), 0, {}, []
  for what in CACHES:
    for path in sorted(p for p in (cache / what).rglob('*') if p.is_file()):
      try:
        if _holds(path, words):
          path.unlink()
          removed += 1
        else:
          clean[what] = clean.get(what, 0) + 1
      except FileNotFoundError:  # the night of another identity is at work there
        continue
      except OSError:
        left.append(str(path))
  return removed, clean, tuple(left)


def _words(gone: Sequence[Experience], values: Collection[str]) -> set[bytes]:
  """What is looked for, as it is and as JSON has it."""
  words = {t.encode() for e in gone for t in (e.content, e.response) if len(t.strip()) >= 12}
  words |= {v.encode() for v in values if len(v) >= 5}
  return words | {json.dumps(w.decode())[1:-1].encode() for w in words}


def _holds(path: pathlib.Path, words: Collection[bytes], size: int = 1 << 20) -> bool:
  if path.suffix == '.npz':
    with contextlib.suppress(ValueError, KeyError, EOFError, zipfile.BadZipFile):
      return any(w in text for text in _texts(path) for w in words)
    words = {*words, *(w.decode().encode('utf-32-le') for w in words)}  # damaged: as NumPy has them
  longest = max(map(len, words), default=0)
  with path.open('rb') as file:
    before = b''
    while piece := file.read(max(size, longest)):
      both = before + piece
      if any(w in both for w in words):
        return True
      before = piece[-longest:] if longest else b''
  return False


def _texts(path: pathlib.Path) -> Iterator[bytes]:
  """Of arrays those that are text."""
  with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
    for name in arrays.files:
      if (found := arrays[name]).dtype.kind in 'US':
        yield '\n'.join(found.ravel().astype(str).tolist()).encode()


def strike_history(path: pathlib.Path, gone: Sequence[Experience]) -> int:
  """Removes what was typed from the terminal's history; returns how many entries went.

  Its lines are a comment, then the entry with a plus before each of its lines.
  """
  if not path.is_file():
    return 0
  texts = {' '.join(e.content.split()) for e in gone if e.content.strip()}
  kept, count = [], 0
  for block in path.read_text(encoding='utf-8', errors='replace').split('\n# '):
    lines = [line[1:] for line in block.split('\n') if line.startswith('+')]
    said = re.sub(r'^/\w+\s+', '', ' '.join(' '.join(lines).split()))  # '/remember TEXT'
    if said in texts:
      count += 1
    else:
      kept.append(block)
  if count:
    temporary = path.with_name(f'.{path.name}.tmp')
    temporary.write_text('\n# '.join(kept), encoding='utf-8')
    sync(temporary)
    os.replace(temporary, path)
  return count


# ---- Files ----


def write_json(path: pathlib.Path, fields: Mapping[str, Any]) -> None:
  """Whole and durable, or as it was."""
  temporary = path.with_name(f'.{path.name}.tmp')
  temporary.write_text(json.dumps(fields, indent=1) + '\n', encoding='utf-8')
  sync(temporary)
  os.replace(temporary, path)
  sync(path.parent)


def sync(path: pathlib.Path) -> None:
  """Makes a file durable, or the names in a directory."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
