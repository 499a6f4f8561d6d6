"""A product that XLA's CPU backend is slow at, in C++: a weight with a few rows (rows.cc).

It is compiled once, by whatever C++ compiler is there, into the cache, under a name that has its
digest: a library that something else has changed is compiled anew, and never loaded. Where there is
no compiler, or on an accelerator, XLA's own product is taken: the same numbers but for rounding.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

MAX_ROWS = 16
"""Of more, XLA's product is faster."""

_TURNED = 32  # rows, up to which XLA's CPU backend is faster with the weight on the left
_SOURCE = pathlib.Path(__file__).with_name('rows.cc')
_FLAGS = ('-O3', '-march=native', '-ffast-math', '-std=c++17', '-shared', '-fPIC', '-pthread')
_SECONDS = 120.0  # that a compiler may take
_log = logging.getLogger(__name__)
_library: ctypes.CDLL | None = None  # held: its code is called from compiled programs


def load(cache: pathlib.Path) -> bool:
  """Makes the kernels ready for programs that are traced from now on; whether they are.

  Args:
    cache: where compiled ones are kept.
  """
  global _library
  if _library is None and jax.default_backend() == 'cpu':
    try:
      library = ctypes.CDLL(str(_compiled(cache)))
      for name, symbol in (('weight', 'DreamingWeight'), ('quantized', 'DreamingQuantized')):
        capsule = jax.ffi.pycapsule(getattr(library, symbol))
        jax.ffi.register_ffi_target(f'dreaming_{name}', capsule, platform='cpu')
      _library = library
    except (OSError, subprocess.SubprocessError, AttributeError) as e:
      _log.warning('no C++ kernels, XLA does it all: %s', ' '.join(str(e).split())[:300])
  return _library is not None


def loaded() -> bool:
  """Whether programs that are traced now may take them."""
  return _library is not None


def fits(w: Array, rows: int) -> bool:
  """Whether the kernels take this weight [out, in] with so many rows."""
  return (
    loaded() and 1 < rows <= MAX_ROWS and w.shape[1] % 8 == 0 and w.dtype in (jnp.float32, jnp.int8)
  )


def product_dtype() -> str:
  """What products of many rows are fastest in here: bf16 only where the processor has its own."""
  own = {'avx512_bf16', 'amx_bf16', 'bf16', 'svebf16'} & set(cpu().split())
  return 'bfloat16' if own or jax.default_backend() != 'cpu' else 'float32'


def weight(w: Float[Array, 'O D'], x: Float[Array, 'B D']) -> Float[Array, 'B O']:
  """`x @ w.T`."""
  out = jax.ShapeDtypeStruct((x.shape[0], w.shape[0]), jnp.float32)
  return jax.ffi.ffi_call('dreaming_weight', out)(w, x.astype(jnp.float32))


def turned(w: Float[Array, 'O D'], x: Float[Array, 'N D'], most: int = _TURNED) -> Array:
  """`x @ w.T`, [N, O], by XLA; of up to `most` rows on CPUs with the weight on the left.

  There it takes half the time (8 rows, the layers of the 270M in f32: 19 ms against 42). Without
  the barrier XLA turns the product back.
  """
  if len(x) > most or jax.default_backend() != 'cpu':
    return jnp.einsum('nd,od->no', x, w)
  return jax.lax.optimization_barrier(jnp.einsum('od,nd->on', w, x)).T


def quantized(
  w: Int[Array, 'O D'], scale: Float[Array, 'O'], x: Float[Array, 'B D']
) -> Float[Array, 'B O']:
  """`x @ (scale[:, None] * w).T` of int8 weights."""
  out = jax.ShapeDtypeStruct((x.shape[0], w.shape[0]), jnp.float32)
  return jax.ffi.ffi_call('dreaming_quantized', out)(w, scale, x.astype(jnp.float32))


def _compiled(cache: pathlib.Path) -> pathlib.Path:
  """The library, compiled when the cache has none of this source for this machine that is whole."""
  include = jax.ffi.include_dir()
  key = hashlib.sha256(_SOURCE.read_bytes())
  key.update(repr((_FLAGS, jax.__version__, platform.machine(), cpu())).encode())
  directory, name = cache / 'kernels', f'rows-{key.hexdigest()[:16]}'
  for path in sorted(directory.glob(f'{name}-*.so')):
    if _whole(path):
      return path
    _log.warning('%s is not as it was compiled: it is compiled anew', path)
    with contextlib.suppress(OSError):
      path.unlink()
  compiler = next(filter(None, map(shutil.which, ('c++', 'g++', 'clang++'))), None)
  if compiler is None:
    raise FileNotFoundError('there is no C++ compiler: install g++')
  directory.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=directory) as tmp:
    made = pathlib.Path(tmp) / 'rows.so'
    command = [compiler, *_FLAGS, '-I', include, '-o', str(made), str(_SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
      raise OSError(f'{compiler} failed: {done.stderr[:300]}')
    path = directory / f'{name}-{_digest(made)}.so'
    os.replace(made, path)
  return path


def _whole(path: pathlib.Path) -> bool:
  """Whether a library has the digest that its name ends with."""
  try:
    return path.stem.endswith(f'-{_digest(path)}')
  except OSError:
    return False


def _digest(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def cpu() -> str:
  """What -march=native looks at: a cache may be shared by machines that differ."""
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    return next((line for line in lines if line.startswith(('flags', 'Features'))), '')
  except OSError:
    return platform.processor()
