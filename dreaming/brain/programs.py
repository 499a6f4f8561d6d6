"""Compiled programs: kept on the disk for the next process, dropped from memory between phases.

A compiled program of the 270M takes tens of megabytes, and a day, its dreams, its training and its
exam need other ones. Where they are needed again they are read from the disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import mmap
import os
import pathlib
import sys
import time
import weakref
import zlib
from collections.abc import Callable

import jax
import numpy as np


def keep(cache: pathlib.Path) -> None:
  """Keeps compiled programs in `cache`, for all of this process.

  Where that cannot be read or written they are compiled again, and JAX says so.
  """
  with contextlib.suppress(OSError):
    _sweep(cache / 'xla')
  jax.config.update('jax_compilation_cache_dir', str(cache / 'xla'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.2)


def _sweep(folder: pathlib.Path) -> None:
  """Removes programs that a full disk or a power cut left in part.

  JAX would read them in vain in every process to come, and never write them anew. Each is looked at
  once: it is not written to again.
  """
  mark, begin = folder / 'checked', time.time()
  before = mark.stat().st_mtime - 1.0 if mark.exists() else 0.0  # a file's clock may be behind
  new = [p for p in folder.glob('*-cache') if p.stat().st_mtime >= before]
  for path in new:
    if not _whole(path.read_bytes()):
      path.unlink(missing_ok=True)
  if new:
    mark.touch()
    os.utime(mark, (begin, begin))


def _whole(program: bytes) -> bool:
  """Whether its end is there; of one that is not compressed by zlib, whether anything is."""
  if program[:1] != b'\x78':
    return bool(program)
  reader = zlib.decompressobj()
  try:
    reader.decompress(program)
  except zlib.error:
    return False
  return reader.eof


_mapped = weakref.WeakValueDictionary[int, np.memmap]()  # by id: arrays have no hash


class Counting:
  """What compiles programs, and says how often it did."""

  compilations = 0

  def counted[**P, R](self, fn: Callable[P, R]) -> Callable[P, R]:
    """A function to jit. Traces are counted, which is what compilations come from."""

    @functools.wraps(fn)
    def traced(*args: P.args, **kwargs: P.kwargs) -> R:
      self.compilations += 1
      return fn(*args, **kwargs)

    return traced


def drop() -> None:
  """Drops all programs from memory, and gives what is free back to the system.

  Measured on the 270M after replies in a few lengths: the programs and what they left in the
  allocator's arenas were 0.5 GB. So do pages of mapped weights go, 1 GiB of them: they are read
  from their files again where they are needed, 0.6 GiB to speak, and less to train.
  """
  jax.clear_caches()
  gc.collect()
  trim()
  if sys.platform == 'linux':
    for array in list(_mapped.values()):
      array.base.madvise(mmap.MADV_DONTNEED)  # of a file, for reading: nothing is lost


def mapped(array: np.memmap) -> None:
  """Says that these weights lie in a file, mapped for reading."""
  if array.mode != 'r':
    raise ValueError(f'the map is opened as {array.mode!r}: only one for reading can rest')
  _mapped[id(array)] = array


def trim() -> None:
  """Gives back to the system what is free in the allocator's arenas.

  Measured on the 270M: twelve batches of 32 sampled texts left 1.2 GB there; trimming after each
  takes 0.6 GB off the peak and no time that could be measured. Larger blocks by mmap
  (M_MMAP_THRESHOLD) take off twice that, and cost a sixth to a third more time.
  """
  if sys.platform == 'linux':
    try:
      ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:
      pass  # not glibc: its allocator gives back by itself
