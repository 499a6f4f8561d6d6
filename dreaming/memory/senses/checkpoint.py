"""Reads the tensors of an old PyTorch file without unpickling it: nothing in the file can run.

Such a file is five pickles and then the raw numbers: a magic number, a version, what machine wrote
it, the state dict, and the order of the storages. `pickletools.genops` splits a pickle into its
opcodes and executes none. The few that a state dict is made of are interpreted here; every other
one, and every name but the four below, is refused.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickletools
from collections.abc import Mapping
from typing import Any

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_DTYPES = {'torch FloatStorage': '<f4', 'torch LongStorage': '<i8'}
_DICT, _TENSOR = 'collections OrderedDict', 'torch._utils _rebuild_tensor_v2'
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_VALUES = ('BINUNICODE', 'BININT', 'BININT1', 'BININT2', 'LONG1')
_MARK = object()
_MAX_OPCODES = 1_000_000
_MAX_ELEMENTS = 1 << 28  # of all storages


@dataclasses.dataclass(frozen=True)
class _Name:
  """Something that a pickle would import."""

  name: str


@dataclasses.dataclass(frozen=True)
class _Storage:
  key: str
  dtype: str
  size: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  stride: tuple[int, ...]


def tensors(data: bytes) -> dict[str, np.ndarray]:
  """The state dict of a file that torch.save wrote before its version 1.6.

  Args:
    data: all of the file.

  Raises:
    ValueError: it is no such file, holds anything but tensors, or is damaged.
  """
  stream = io.BytesIO(data)
  try:
    if (magic := _read(stream)) != _MAGIC:
      raise ValueError(f'it begins with {str(magic)[:40]}')
    if (version := _read(stream)) != _VERSION:
      raise ValueError(f'its version is {str(version)[:40]}, not {_VERSION}')
    if not _read(stream)['little_endian']:
      raise ValueError('it was written on a big-endian machine')
    state, keys = _read(stream), _read(stream)
    if not isinstance(state, dict) or not all(isinstance(t, _Tensor) for t in state.values()):
      raise ValueError('it holds something other than tensors')
    storages = _storages(stream, state, keys)
    return {str(name): _view(t, storages) for name, t in state.items()}
  except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError) as e:
    why = ' '.join(str(e).split())[:200]
    raise ValueError(f'this is no PyTorch file of the old kind with plain tensors: {why}') from e


def _storages(
  stream: io.BytesIO, state: Mapping[str, _Tensor], keys: list[str]
) -> dict[str, np.ndarray]:
  known = {t.storage.key: t.storage for t in state.values()}
  if sum(s.size for s in known.values()) > _MAX_ELEMENTS:
    raise ValueError('it claims to hold more numbers than any file of this kind')
  storages = {}
  for key in keys:
    storage = known[key]
    size = int.from_bytes(stream.read(8), 'little', signed=True)
    dtype = np.dtype(storage.dtype)
    raw = stream.read(max(storage.size, 0) * dtype.itemsize)
    if size != storage.size or len(raw) != size * dtype.itemsize:
      raise ValueError(f'storage {key} should have {storage.size} numbers and has {size}')
    storages[key] = np.frombuffer(raw, dtype)
  return storages


def _view(t: _Tensor, storages: Mapping[str, np.ndarray]) -> np.ndarray:
  flat = storages[t.storage.key]
  if len(t.shape) != len(t.stride) or min((*t.shape, *t.stride, t.offset, 1)) < 0:
    raise ValueError(f'a tensor {t.shape} has the strides {t.stride} and begins at {t.offset}')
  if math.prod(t.shape) > len(flat):  # steps of 0 would make much out of little
    raise ValueError(f'a tensor {t.shape} is larger than its storage of {len(flat)}')
  last = t.offset + sum((n - 1) * step for n, step in zip(t.shape, t.stride, strict=True))
  if last >= len(flat):
    raise ValueError(f'a tensor {t.shape} ends at {last}, outside its storage of {len(flat)}')
  steps = [step * flat.itemsize for step in t.stride]
  # A copy: what as_strided gives shares memory with itself where steps overlap.
  return np.lib.stride_tricks.as_strided(flat[t.offset :], t.shape, steps).copy()


# ---- Pickles, read and not run ----


def _read(stream: io.BytesIO) -> Any:
  """The value of the next pickle in a stream."""
  stack: list[Any] = []
  memo: dict[int, Any] = {}
  for i, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
    name = opcode.name
    if i > _MAX_OPCODES:
      raise ValueError(f'a pickle of more than {_MAX_OPCODES:,} steps')
    if name == 'STOP':
      return stack.pop()
    if name in _VALUES:
      stack.append(arg)
    elif name in _CONSTANTS:
      stack.append(_CONSTANTS[name])
    elif name in ('BINPUT', 'LONG_BINPUT'):
      memo[arg] = stack[-1]
    elif name in ('BINGET', 'LONG_BINGET'):
      stack.append(memo[arg])
    elif name == 'GLOBAL':
      if arg not in (_DICT, _TENSOR, *_DTYPES):
        raise ValueError(f'it would import {arg!r}')
      stack.append(_Name(arg))
    elif name != 'PROTO':
      _build(name, stack)
  raise ValueError('it ends in the middle')


def _build(name: str, stack: list[Any]) -> None:
  """The opcodes that make one value out of others."""
  if name == 'MARK':
    stack.append(_MARK)
  elif name == 'EMPTY_DICT':
    stack.append({})
  elif name == 'EMPTY_LIST':
    stack.append([])
  elif name == 'EMPTY_TUPLE':
    stack.append(())
  elif name in ('TUPLE1', 'TUPLE2'):
    n = int(name[-1])
    stack[-n:] = [tuple(stack[-n:])]
  elif name == 'TUPLE':
    stack.append(tuple(_since_mark(stack)))
  elif name == 'APPENDS':
    values = _since_mark(stack)
    stack[-1].extend(values)
  elif name == 'SETITEMS':
    values = _since_mark(stack)
    stack[-1].update(zip(values[::2], values[1::2], strict=True))
  elif name == 'SETITEM':
    key, value = stack[-2:]
    del stack[-2:]
    stack[-1][key] = value
  elif name == 'BUILD':
    stack.pop()  # attributes of the dict: versions of layers, which are no weights
  elif name == 'BINPERSID':
    stack.append(_storage(stack.pop()))
  elif name == 'REDUCE':
    args = stack.pop()
    stack.append(_reduce(stack.pop(), args))
  else:
    raise ValueError(f'its opcode {name} is not one of a state dict')


def _since_mark(stack: list[Any]) -> list[Any]:
  place = len(stack) - 1 - stack[::-1].index(_MARK)
  values = stack[place + 1 :]
  del stack[place:]
  return values


def _storage(value: Any) -> _Storage:
  what, kind, key, _, size, view = value
  if what != 'storage' or view is not None or not isinstance(key, str):
    raise ValueError('a storage is not a plain one')
  return _Storage(key, _DTYPES[kind.name], int(size))


def _reduce(function: Any, args: Any) -> Any:
  if function == _Name(_DICT) and args == ():
    return {}
  if function == _Name(_TENSOR):
    storage, offset, shape, stride = args[:4]
    if isinstance(storage, _Storage):
      return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))
  raise ValueError(f'it would call {str(function)[:60]}')
