"""Pictures and sounds as files, kept by the SHA-256 of their content.

  store = MediaStore('lives/default/media')
  digest = store.put(data)      # media/ab/abcdef...
  assert store.read(digest) == data

What `put` returns is on the disk, whole, under its digest; putting it twice keeps it once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import re
import stat
import tempfile
import time
from collections.abc import Iterator

_DIGEST = re.compile(r'[0-9a-f]{64}')
_INCOMING = '.incoming'
_STALE = 3600.0  # seconds after which a file that never got its name was left by a killed process

# What the content begins with says what it is; the name is not asked.
_IMAGES = {
  'JPEG': (b'\xff\xd8\xff',),
  'PNG': (b'\x89PNG\r\n\x1a\n',),
  'GIF': (b'GIF87a', b'GIF89a'),
  'BMP': (b'BM',),
}
# Matroska's is WebM's too: what browsers record.
_SOUNDS = {'flac': (b'fLaC',), 'ogg': (b'OggS',), 'mp3': (b'ID3',), 'matroska': (b'\x1aE\xdf\xa3',)}
KNOWN = 'JPEG, PNG, WebP, GIF and BMP pictures, WAV, MP3, OGG, FLAC, M4A and WebM sounds'
TYPES = {
  **{format: f'image/{format.lower()}' for format in (*_IMAGES, 'WEBP')},
  **{'wav': 'audio/wav', 'flac': 'audio/flac', 'ogg': 'audio/ogg', 'mp3': 'audio/mpeg'},
  **{'mp4': 'audio/mp4', 'matroska': 'audio/webm'},
}
"""Of each format that `kind` tells, its media type."""


class MediaStore:
  """The files of one identity.

  Args:
    directory: made when something is put there.
  """

  def __init__(self, directory: str | pathlib.Path):
    self.directory = pathlib.Path(directory)

  def path(self, digest: str) -> pathlib.Path:
    """Where a file is, or would be. Raises ValueError when that is no digest."""
    if not _DIGEST.fullmatch(digest):
      raise ValueError(f'{digest[:80]!r} is no SHA-256 in hexadecimal')
    return self.directory / digest[:2] / digest

  def put(self, data: bytes) -> str:
    """Keeps a file; returns its digest. Raises OSError when it cannot be written."""
    digest = digest_of(data)
    with contextlib.suppress(OSError, ValueError):  # none, or a damaged one: written anew
      self.read(digest)
      return digest
    path, incoming = self.path(digest), self.directory / _INCOMING
    incoming.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(exist_ok=True)
    self._sweep(incoming)
    handle, temporary = tempfile.mkstemp(dir=incoming)
    try:
      with open(handle, 'wb') as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
      os.replace(temporary, path)
    except BaseException:
      pathlib.Path(temporary).unlink(missing_ok=True)
      raise
    for directory in (path.parent, self.directory, self.directory.parent):
      _sync(directory)
    return digest

  def read(self, digest: str) -> bytes:
    """The content of a file.

    Raises:
      FileNotFoundError: there is none with this digest.
      ValueError: it is no longer what was put there.
    """
    path = self.path(digest)
    try:
      data = path.read_bytes()
    except FileNotFoundError:
      raise FileNotFoundError(f'no picture or sound {digest} is kept in {self.directory}') from None
    if digest_of(data) != digest:
      raise ValueError(f'{path} is damaged: its content has another SHA-256; put the file again')
    return data

  def remove(self, digest: str) -> bool:
    """Deletes a file, for forgetting; whether there was one."""
    path = self.path(digest)
    try:
      path.unlink()
    except FileNotFoundError:
      return False
    _sync(path.parent)
    return True

  def digests(self) -> Iterator[str]:
    """Of all files, in order."""
    for path in sorted(self.directory.glob('??/*')):
      if _DIGEST.fullmatch(path.name):
        yield path.name

  def _sweep(self, incoming: pathlib.Path) -> None:
    for left in incoming.iterdir():
      with contextlib.suppress(FileNotFoundError):  # another process was faster
        if time.time() - left.stat().st_mtime > _STALE:
          left.unlink()


def digest_of(data: bytes) -> str:
  """By which a file is kept: its SHA-256 in hexadecimal."""
  return hashlib.sha256(data).hexdigest()


def load(path: str | pathlib.Path, max_bytes: int) -> bytes:
  """The content of a file that a user names, no more of it than allowed.

  Raises:
    ValueError: it is no plain file, is empty, or is longer than `max_bytes`.
    OSError: it cannot be read.
  """
  path = pathlib.Path(path).expanduser()
  # A pipe would wait for its writer: with O_NONBLOCK it does not, and is refused.
  with open(os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0)), 'rb') as f:
    status = os.fstat(f.fileno())
    if not stat.S_ISREG(status.st_mode):
      raise ValueError(f'{path} is no plain file: give a picture or a sound')
    data = f.read(max_bytes + 1) if status.st_size <= max_bytes else b''
  size = max(status.st_size, len(data))
  if size > max_bytes:
    raise ValueError(
      f'{path} has {size:,} bytes, the limit is {max_bytes:,}: shrink it, or raise senses.max_bytes'
    )
  if not data:
    raise ValueError(f'{path} is empty: give a picture or a sound')
  return data


def kind(data: bytes) -> tuple[str, str]:
  """('image' or 'audio', its format), by the content alone.

  The formats are Pillow's names for pictures and FFmpeg's for sounds. Raises ValueError when it is
  none that is known.
  """
  if data[:4] == b'RIFF' and data[8:12] == b'WEBP':
    return 'image', 'WEBP'
  if data[:4] == b'RIFF' and data[8:12] == b'WAVE':
    return 'audio', 'wav'
  if data[4:8] == b'ftyp' and data[8:11] in (b'M4A', b'mp4', b'iso', b'M4B'):
    return 'audio', 'mp4'
  for found, formats in (('image', _IMAGES), ('audio', _SOUNDS)):
    for name, beginnings in formats.items():
      if data.startswith(beginnings):
        return found, name
  # An MP3 without tags: a frame's sync word, MPEG 1 or 2, layer III.
  if data[:1] == b'\xff' and len(data) > 1 and data[1] & 0xE6 == 0xE2:
    return 'audio', 'mp3'
  raise ValueError(f'it begins with {data[:8]!r}, which is none of {KNOWN}: convert it')


def _sync(directory: pathlib.Path) -> None:
  """Makes a new or a removed name durable."""
  if os.name == 'nt':
    return  # directories cannot be opened there; NTFS keeps a journal of names
  handle = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)
