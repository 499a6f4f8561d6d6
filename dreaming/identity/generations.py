"""Generations on disk: immutable, numbered, and either whole or not there.

  root/3/adapter/...        the adapter, an Orbax checkpoint, f32
        masks/merged.npy    one bit a weight (prune.pack), beside merged.json with the shapes
        fisher.npz          of nights that were trained with it (consolidate.py)
        manifest.json       what it is, and the SHA-256 of every other file
        manifest.sha256     of manifest.json, as sha256sum writes and checks it

`save` writes to a temporary directory beside it, makes every byte durable, and renames: the rename
is the only moment at which a generation appears. `load` believes nothing that does not hash.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
import uuid
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dreaming import mishaps, types
from dreaming.sleep import artifacts, prune
from dreaming.types import Generation, Lora, Manifest

MANIFEST = 'manifest.json'
CHECKSUM = 'manifest.sha256'
_TEMPORARY = '.tmp-'  # a number never begins like this, so nobody reads what is half written

Masks = Mapping[str, prune.Mask]
"""By what they mask: 'merged' (prune.merged_mask) and 'delta' (prune.delta_mask), or neither."""

# ---- Write ----


def save(
  root: str | pathlib.Path,
  number: int,
  *,
  adapter: Lora,
  masks: Masks | None = None,
  beside: Mapping[str, Mapping[str, Any]] | None = None,
  manifest_fields: Mapping[str, Any],
) -> Generation:
  """Writes a generation; when this returns, it survives a power cut.

  Args:
    root: the identity's directory of generations; made when there is none.
    number: 1 or more, not yet taken (`next_number`).
    adapter: the LoRA pytree.
    masks: by name.
    beside: further trees of arrays, by the name of their file.
    manifest_fields: all of types.Manifest but `number` and `files`, plain values.

  Raises:
    ValueError: the number is taken, or a field is not a plain, finite value.
    OSError: it could not be written. Nothing is left behind then.
  """
  root = pathlib.Path(root).absolute()
  path = root / str(number)
  if number < 1:
    raise ValueError(f'generation {number}: numbers begin at 1, 0 is the base')
  if os.path.lexists(path):
    raise ValueError(f'generation {number} is in {root} already: it is never written twice')
  fields = {'number': number, 'files': {}, **manifest_fields}
  manifest = _parse(_dump(fields))  # before anything is written: what is wrong with it shows here
  _make_root(root)
  temporary = root / f'{_TEMPORARY}{number}-{uuid.uuid4().hex}'
  try:
    temporary.mkdir()
    _write_adapter(temporary / 'adapter', adapter)
    _write_masks(temporary / 'masks', masks or {})
    for name, tree in (beside or {}).items():
      artifacts.write(temporary / name, tree)
    files = {str(p.relative_to(temporary)): _sync(p) for p in _walk(temporary)}
    manifest = dataclasses.replace(manifest, files=files)
    _write_manifest(temporary, manifest)
    for directory in [p for p in temporary.rglob('*') if p.is_dir()] + [temporary]:
      _sync_directory(directory)
    os.rename(temporary, path)
    _sync_directory(root)
  except OSError as e:
    shutil.rmtree(temporary, ignore_errors=True)
    raise OSError(
      f'generation {number} could not be written to {root} ({mishaps.line(e)}): check the space '
      'and the permissions there; nothing was changed'
    ) from e
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    raise
  return Generation(number=number, parent=manifest.parent, path=path, manifest=manifest)


def discard(root: str | pathlib.Path, number: int) -> None:
  """Removes a generation that was never promoted; at any moment it is whole or not there."""
  root = pathlib.Path(root).absolute()
  temporary = root / f'{_TEMPORARY}{number}-{uuid.uuid4().hex}'
  os.rename(root / str(number), temporary)
  _sync_directory(root)
  shutil.rmtree(temporary)


def sweep(root: str | pathlib.Path) -> list[str]:
  """Removes what killed writers left in root, and returns the names. For the lock's holder only."""
  root = pathlib.Path(root)
  stale = sorted(p for p in root.glob(f'{_TEMPORARY}*')) if root.is_dir() else []
  for path in stale:
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path)
    else:
      path.unlink()
  return [path.name for path in stale]


# ---- Read ----


def load(
  root: str | pathlib.Path, number: int, *, verify: bool = True
) -> tuple[Generation, Lora, Masks]:
  """Reads a generation back, adapter and masks as NumPy arrays.

  Args:
    verify: hash every file first. Without it, only the manifest is checked.

  Raises:
    FileNotFoundError: there is no such generation.
    ValueError: it is half written or not what was saved; the line names the file.
  """
  generation = _open(pathlib.Path(root).absolute(), number)
  if verify:
    _verify(generation)
  try:
    adapter = _read_adapter(generation.path / 'adapter')
    masks = _read_masks(generation.path / 'masks')
  except MemoryError:
    raise  # no damage
  except Exception as e:  # Orbax raises what it likes
    raise _damaged(generation.path, f'it cannot be read: {str(e).splitlines()[0]}') from e
  return generation, adapter, masks


def beside(generation: Generation) -> dict[str, Any]:
  """What was saved beside adapter and masks, by file name. Raises ValueError: it is damaged."""
  files = generation.manifest.files
  found = {n: artifacts.read(generation.path / n, files[n]) for n in files if n.endswith('.npz')}
  if lost := [name for name, tree in found.items() if tree is None]:
    raise _damaged(generation.path, f'{lost[0]} was altered, or is missing')
  return found


def list_generations(root: str | pathlib.Path) -> list[Generation]:
  """What is in root, by number. One whose manifest is damaged is left out; `load` says why."""
  found = []
  for number in _numbers(pathlib.Path(root).absolute()):
    try:
      found.append(_open(pathlib.Path(root).absolute(), number))
    except (ValueError, OSError):
      continue
  return found


def next_number(root: str | pathlib.Path) -> int:
  """The first number above all that root holds, damaged ones too."""
  return max(_numbers(pathlib.Path(root)), default=0) + 1


def _numbers(root: pathlib.Path) -> list[int]:
  names = [p.name for p in root.iterdir()] if root.is_dir() else []
  return sorted(int(name) for name in names if re.fullmatch('[1-9][0-9]*', name))


def _open(root: pathlib.Path, number: int) -> Generation:
  path = root / str(number)
  if number not in _numbers(root):
    there = ', '.join(str(n) for n in _numbers(root)) or 'none'
    raise FileNotFoundError(f'there is no generation {number} in {root}; there are: {there}')
  try:
    text = (path / MANIFEST).read_bytes()
    checksum = (path / CHECKSUM).read_bytes()
  except FileNotFoundError as e:
    raise _damaged(path, f'half written, {pathlib.Path(e.filename).name} is missing') from e
  except OSError as e:  # not its own fault: it may be whole
    raise OSError(
      f'generation {number} in {root} cannot be read ({e.strerror}): check that disk'
    ) from e
  if checksum != _checksum(text):
    raise _damaged(path, f'{MANIFEST} and {CHECKSUM} do not agree')
  try:
    manifest = _parse(text)
  except (ValueError, TypeError, KeyError) as e:
    raise _damaged(path, f'{MANIFEST} is of another version: {e}') from e
  if manifest.number != number:
    raise _damaged(path, f'{MANIFEST} says generation {manifest.number}')
  return Generation(number=number, parent=manifest.parent, path=path, manifest=manifest)


def _verify(generation: Generation) -> None:
  path, files = generation.path, generation.manifest.files
  there = {str(p.relative_to(path)): p for p in _walk(path)}
  if odd := sorted(set(there) - set(files) - {MANIFEST, CHECKSUM}):
    raise _damaged(path, f'{odd[0]} does not belong to it')
  for name, digest in files.items():
    if name not in there:
      raise _damaged(path, f'half written, {name} is missing')
    if _hash(there[name]) != digest:
      raise _damaged(path, f'{name} was altered')


def _damaged(path: pathlib.Path, what: str) -> ValueError:
  return ValueError(
    f'generation {path.name} in {path.parent} is damaged ({what}): put it back from a backup, or '
    'roll back to an earlier generation'
  )


# ---- The parts of a generation ----


def _write_adapter(path: pathlib.Path, adapter: Lora) -> None:
  import orbax.checkpoint as ocp  # 0.6 s: only those who read or write a generation pay for it

  arrays = jax.tree.map(np.asarray, dict(adapter))
  log = logging.getLogger('absl')  # which shows every error in pages of its threads' stacks
  log.addFilter(_unsaid)
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      checkpointer.save(path, arrays)
  except Exception as e:  # Orbax raises what it likes
    raise OSError(mishaps.line(e)) from e
  finally:
    log.removeFilter(_unsaid)


def _unsaid(record: logging.LogRecord) -> bool:
  del record
  return False


def _read_adapter(path: pathlib.Path) -> Lora:
  import orbax.checkpoint as ocp

  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(path)


def _write_masks(path: pathlib.Path, masks: Masks) -> None:
  path.mkdir()
  for name, mask in masks.items():
    if not re.fullmatch(r'\w+', name):
      raise ValueError(f'a mask is named by one word, not {name!r}')
    bits, shapes = prune.pack(mask)
    np.save(path / f'{name}.npy', bits, allow_pickle=False)
    (path / f'{name}.json').write_text(json.dumps(shapes, indent=1))


def _read_masks(path: pathlib.Path) -> Masks:
  masks = {}
  for file in sorted(path.glob('*.npy')):
    shapes = json.loads(file.with_suffix('.json').read_text())
    bits = np.load(file, allow_pickle=False)
    masks[file.stem] = prune.unpack(bits, {name: tuple(shape) for name, shape in shapes.items()})
  return masks


def _write_manifest(path: pathlib.Path, manifest: Manifest) -> None:
  text = _dump(vars(manifest))
  for name, content in ((MANIFEST, text), (CHECKSUM, _checksum(text))):
    (path / name).write_bytes(content)
    _sync(path / name)


def _dump(fields: Mapping[str, Any]) -> bytes:
  try:
    text = json.dumps(fields, indent=1, sort_keys=True, allow_nan=False, default=_plain)
  except (TypeError, ValueError) as e:
    raise ValueError(f'a manifest holds plain, finite values: {e}') from e
  return (text + '\n').encode()


def _plain(value: Any) -> Any:
  if isinstance(value, np.generic):
    return value.item()
  raise TypeError(f'{type(value).__name__} {value!r} is none')


def _parse(text: bytes) -> Manifest:
  fields = json.loads(text)
  known = {field.name for field in dataclasses.fields(types.Manifest)}
  if odd := sorted(set(fields) - known):
    raise ValueError(f'unknown fields {odd}')
  return Manifest(**{**fields, 'sources': tuple(fields['sources'])})


def _checksum(text: bytes) -> bytes:
  return f'{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n'.encode()


# ---- Files ----


def _walk(path: pathlib.Path) -> list[pathlib.Path]:
  """All files below path, in order. What is neither a file nor a directory is a file to us."""
  return sorted(p for p in path.rglob('*') if p.is_symlink() or not p.is_dir())


def _hash(path: pathlib.Path) -> str:
  if path.is_symlink() or not path.is_file():
    return ''  # no digest equals this: a generation consists of its own files
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _sync(path: pathlib.Path) -> str:
  """Makes a file durable and returns its SHA-256."""
  with path.open('rb') as file:
    os.fsync(file.fileno())
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _sync_directory(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _make_root(root: pathlib.Path) -> None:
  missing = [p for p in (root, *root.parents) if not p.exists()]
  root.mkdir(parents=True, exist_ok=True)
  for path in missing:
    _sync_directory(path.parent)
