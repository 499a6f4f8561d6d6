"""Where the packages of the extra `senses` are, and what to do when they are not there."""

from __future__ import annotations

import functools
import importlib.util
import os
import pathlib

EMBEDDED = 'embedded'
"""The Whisper that a package carries, as `senses.whisper` names it."""


def home(module: str, package: str) -> pathlib.Path:
  """The directory of an installed module, found without importing it.

  Args:
    module: to import.
    package: that brings it, as pip calls it.

  Raises:
    FileNotFoundError: it is not installed; the message says how to get it.
  """
  found = importlib.util.find_spec(module)
  if found is None or not found.submodule_search_locations:
    raise FileNotFoundError(
      f'pictures and sounds need the package {package}, which is not installed: '
      "bash launch/setup.sh senses, or pip install 'dreaming-machines[senses]'"
    )
  return pathlib.Path(next(iter(found.submodule_search_locations)))


@functools.cache
def has(*modules: str) -> bool:
  """Whether all of these are installed."""
  return all(importlib.util.find_spec(module) is not None for module in modules)


def cores() -> int:
  """That this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
