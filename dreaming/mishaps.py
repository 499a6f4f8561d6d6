"""What nobody does wrong: no memory, no room on a disk, a disk that fails. Each in one line."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK = (errno.EIO, errno.EROFS)
_DEVICE = ('JaxRuntimeError', 'XlaRuntimeError')  # by name: jax is not imported to look at an error


@contextlib.contextmanager
def clearly(what: str, then: str = 'try again') -> Iterator[None]:
  """While it is entered, or as a decorator: a mishap says what stopped, why, and the way out.

  Args:
    what: stopped.
    then: what to do when the cause is gone.

  Raises:
    OSError: in place of a disk's bare one, of MemoryError and of the device's errors. What has its
      own line already, and what a mistyped name is answered with, comes as it is.
  """
  try:
    yield
  except MemoryError as e:
    raise OSError(f'{what}: no memory is left: end other programs, then {then}') from e
  except RuntimeError as e:
    if not of_device(e):
      raise
    way_out = 'end what else uses the device' if 'RESOURCE_EXHAUSTED' in str(e) else 'look at it'
    raise OSError(f'{what}: the device failed ({line(e)}): {way_out}, then {then}') from e
  except OSError as e:
    if e.errno not in (*_ROOM, *_DISK):
      raise
    way_out = 'make room there' if e.errno in _ROOM else 'check that disk'
    where = f' ({e.filename})' if e.filename else ''
    raise OSError(f'{what}: {e.strerror or line(e)}{where}: {way_out}, then {then}') from e


def of_device(e: RuntimeError) -> bool:
  """Whether it is an accelerator's, or XLA's."""
  return type(e).__name__ in _DEVICE


def line(error: BaseException, limit: int = 300) -> str:
  """The beginning of what an error says, in one line."""
  return ' '.join(str(error).split())[:limit] or type(error).__name__
