"""From the command line to a mode: a program that has what has to be there from its first moment.

Each step and each batch asks for hundreds of MiB and gives them back, and in pages of 4 KiB the
kernel clears some 80,000 of them a second: a seventh of a training step on a CPU. glibc asks for
large pages when it is told to, and listens to that only as a program begins.
"""

from __future__ import annotations

import os
import pathlib
import platform
import sys
from typing import Any

_SETTING = 'GLIBC_TUNABLES'
_LARGE = 'glibc.malloc.hugetlb=1'  # madvise(MADV_HUGEPAGE) of what malloc maps
_SINCE = (2, 35)  # of glibc
_OFFERED = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')


def run(*mode: Any) -> int:
  """What live.run does, in large pages where they can be had. Arguments, errors: as there."""
  begin_anew()
  from dreaming import live  # imports jax, which --help and a mistyped flag need not wait for

  return live.run(*mode)


def begin_anew() -> None:
  """Starts this program again, as it was called, where asking gives it large pages.

  For a program's first lines: what it did so far is lost. GLIBC_TUNABLES that somebody has set is
  left as it is. Measured: docs/decisions.md.
  """
  if _SETTING in os.environ or not sys.executable or not _to_be_asked():
    return
  os.environ[_SETTING] = _LARGE
  sys.stdout.flush()
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _to_be_asked() -> bool:
  library, version = platform.libc_ver()
  if library != 'glibc' or tuple(int(x) for x in version.split('.')[:2]) < _SINCE:
    return False
  try:
    return '[madvise]' in _OFFERED.read_text('ascii')
  except (OSError, ValueError):
    return False
