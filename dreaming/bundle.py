"""A whole agent as one file: its diary, generations and media, each with its digest.

  ana.agent             a ZIP archive
    agent.json          whose it is, which base its generations are of
    diary.sqlite        a copy as of one moment
    generations/3/...   every promoted one
    media/ab/abcd...
    files.json          the SHA-256 of each of the others, in the order in which they stand

The base is not in it: where it is unpacked, the same one has to be there. What belongs to a machine
or can be made again (index, metrics, a night's unfinished work) stays behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any

from dreaming.agent import Agent
from dreaming.identity.forget import sync

ENDING = '.agent'
FORMAT = 1
MAX_FILES, MAX_BYTES = 200_000, 256 << 30
_ABOUT, _FILES, _DIARY = 'agent.json', 'files.json', 'diary.sqlite'
_MAX_LISTING = 64 << 20
_CHUNK = 1 << 20
_NAME = re.compile(
  r'agent\.json|diary\.sqlite|media/([0-9a-f]{2})/\1[0-9a-f]{62}'
  r'|generations/[1-9]\d{0,8}(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}){1,8}'
)

Progress = Callable[[int, int], None]
"""Called as (bytes done, of how many)."""


def pack(agent: Agent, to: str | pathlib.Path, progress: Progress | None = None) -> int:
  """Writes the agent to a file, whole or not at all; returns its size in bytes.

  Raises:
    ValueError: the file is there already, or is not called *.agent.
    OSError: it could not be written, or a generation is gone. Media that are gone are told by
      `lost`, and in the file.
  """
  to = pathlib.Path(to)
  if to.suffix != ENDING:
    raise ValueError(f'{to}: the file of a whole agent is called *{ENDING}')
  if to.exists():
    raise ValueError(f'{to} is there already: choose another name, or move it away')
  with tempfile.TemporaryDirectory(dir=to.parent, prefix='.packing-') as tmp:
    diary = pathlib.Path(tmp) / _DIARY
    agent.diary.copy(diary)
    found = agent.generations()
    about = {
      'format': FORMAT, 'agent': agent.life.agent, 'user': agent.life.user, 'created': time.time(),
      'active': agent.diary.active(), 'experiences': len(agent.diary.ids()),
      'bases': sorted({g.manifest.base for g in found}), 'lost': lost(agent),
    }  # fmt: skip
    files = {_DIARY: diary, **_kept(agent, [g.number for g in found])}
    total, done = sum(p.stat().st_size for p in files.values()), 0
    unfinished = pathlib.Path(tmp) / 'packed'
    # Stored: weights and pictures hardly shrink.
    with zipfile.ZipFile(unfinished, 'w', zipfile.ZIP_STORED, allowZip64=True) as archive:
      text = json.dumps(about, indent=1)
      archive.writestr(_ABOUT, text)
      digests = {_ABOUT: hashlib.sha256(text.encode()).hexdigest()}
      for name, path in files.items():
        digest = hashlib.sha256()
        entry = zipfile.ZipInfo.from_file(path, name)
        with path.open('rb') as source, archive.open(entry, 'w') as target:
          for chunk in _chunks(source):
            digest.update(chunk)
            target.write(chunk)
            done += len(chunk)
            if progress:
              progress(done, total)
        digests[name] = digest.hexdigest()
      archive.writestr(_FILES, json.dumps(digests))
    with unfinished.open('rb') as f:
      os.fsync(f.fileno())
    os.link(unfinished, to)  # unlike a rename, never in the place of another file
    return to.stat().st_size


def unpack(
  path: str | pathlib.Path, workdir: str | pathlib.Path, progress: Progress | None = None
) -> dict[str, Any]:
  """Makes an identity of a file in a directory that has none; returns what agent.json says.

  Everything is checked before anything of it is in its place.

  Raises:
    ValueError: there is an agent already, or the file is damaged or no agent's.
    OSError: it cannot be read or written.
  """
  path, workdir = pathlib.Path(path), pathlib.Path(workdir)
  if (workdir / _DIARY).exists():
    raise ValueError(f'{workdir} has an agent already: choose another --config.workdir')
  if left := [n for n in ('media', 'generations') if (workdir / n).exists()]:
    raise ValueError(
      f'{workdir} has {" and ".join(left)} of an agent without a diary: move them away first'
    )
  workdir.mkdir(parents=True, exist_ok=True)
  sweep(workdir)
  temporary = pathlib.Path(tempfile.mkdtemp(dir=workdir, prefix='.unpacking-'))
  try:
    with zipfile.ZipFile(path) as archive:
      digests, about = _listing(archive, path)
      total, done = sum(archive.getinfo(n).file_size for n in digests), 0
      for name, digest in digests.items():
        target = temporary / name
        target.parent.mkdir(parents=True, exist_ok=True)
        found = hashlib.sha256()
        with archive.open(name) as source, target.open('xb') as out:
          for chunk in _chunks(source, archive.getinfo(name).file_size):
            found.update(chunk)
            out.write(chunk)
            done += len(chunk)
            if progress:
              progress(done, total)
          out.flush()
          os.fsync(out.fileno())
        if found.hexdigest() != digest:
          raise ValueError(f'{path} is damaged: {name} is not what was packed')
    for name in ('media', 'generations', _DIARY):  # the diary last: it makes an agent of them
      if (temporary / name).exists():
        os.rename(temporary / name, workdir / name)
    sync(workdir)
    return about
  except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as e:
    raise ValueError(f'{path} is damaged, or no file of an agent: {e}') from None
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def sweep(directory: pathlib.Path) -> None:
  """Removes what a killed process had not finished to pack, send or unpack."""
  for name in ('packing', 'sending', 'unpacking'):
    for left in directory.glob(f'.{name}-*'):
      shutil.rmtree(left, ignore_errors=True)


def lost(agent: Agent) -> list[str]:
  """Digests of pictures and sounds that the diary names and no file has any more."""
  kept = agent.media.directory
  return sorted(d for d in agent.diary.digests() if not (kept / d[:2] / d).is_file())


def _kept(agent: Agent, numbers: list[int]) -> dict[str, pathlib.Path]:
  """Name in the archive -> file, in a fixed order."""
  found = {}
  roots = [agent.workdir / 'generations' / str(n) for n in numbers]
  if gone := [str(p) for p in roots if not p.is_dir()]:
    raise FileNotFoundError(f'{gone[0]} is not there: put it back from a backup, then pack again')
  roots += [agent.media.directory / d[:2] / d for d in sorted(agent.diary.digests())]
  for root in roots:
    for path in sorted(root.rglob('*')) if root.is_dir() else [root]:
      if path.is_file() and not path.is_symlink():
        found[path.relative_to(agent.workdir).as_posix()] = path
  return found


def _listing(archive: zipfile.ZipFile, path: pathlib.Path) -> tuple[dict[str, str], dict[str, Any]]:
  """({name: digest}, agent.json) of an archive whose names and sizes may be unpacked."""
  entries = {e.filename: e for e in archive.infolist()}
  if len(entries) != len(archive.infolist()) or len(entries) > MAX_FILES:
    raise ValueError(f'{path}: a name stands in it twice, or more than {MAX_FILES:,} files do')
  if {_ABOUT, _FILES, _DIARY} - set(entries):
    raise ValueError(f'{path} is no file of an agent: it has no {_DIARY}, {_ABOUT} or {_FILES}')
  strange = [n for n in entries if n != _FILES and not _NAME.fullmatch(n)]
  if strange:
    raise ValueError(f'{path}: {strange[0][:80]!r} is no name that an agent has')
  if any(e.compress_type != zipfile.ZIP_STORED for e in entries.values()):
    raise ValueError(f'{path}: something is compressed in it, which pack does not do')
  size = sum(e.file_size for e in entries.values())
  if size > min(MAX_BYTES, path.stat().st_size):
    raise ValueError(
      f'{path} claims {size:,} bytes, and holds fewer, or the limit is {MAX_BYTES:,}'
    )
  if max(entries[_FILES].file_size, entries[_ABOUT].file_size) > _MAX_LISTING:
    raise ValueError(f'{path}: its listing has more than {_MAX_LISTING:,} bytes')
  try:
    digests, about = json.loads(archive.read(_FILES)), json.loads(archive.read(_ABOUT))
  except (ValueError, RecursionError):
    raise ValueError(f'{path} is damaged: its listing is no JSON') from None
  if not isinstance(digests, dict) or set(digests) != set(entries) - {_FILES}:
    raise ValueError(f'{path} is damaged: it does not hold what its listing names')
  found = about.get('format') if isinstance(about, dict) else None
  if found != FORMAT:
    raise ValueError(f'{path} has format {found!r:.80}: this version reads {FORMAT}')
  return digests, about


def _chunks(source: IO[bytes], limit: int = MAX_BYTES) -> Iterator[bytes]:
  while chunk := source.read(_CHUNK):
    limit -= len(chunk)
    if limit < 0:
      raise ValueError('a file is longer than its entry says')
    yield chunk
