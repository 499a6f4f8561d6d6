"""The C++ products are XLA's but for rounding, and are left out where they cannot be had."""

from __future__ import annotations

import ctypes
import hashlib
import pathlib
import shutil

import jax
import numpy as np
import pytest

from dreaming.brain import kernels

needs_compiler = pytest.mark.skipif(
  not any(map(shutil.which, ('c++', 'g++', 'clang++'))), reason='there is no C++ compiler'
)


@pytest.fixture
def loaded(tmp_path_factory, monkeypatch):
  monkeypatch.setattr(kernels, '_library', kernels._library)
  assert kernels.load(tmp_path_factory.getbasetemp() / 'cache')
  (made,) = (tmp_path_factory.getbasetemp() / 'cache' / 'kernels').iterdir()
  return made


@needs_compiler
@pytest.mark.parametrize('rows, out, size', [(2, 1, 8), (8, 777, 64), (5, 300, 640), (16, 90, 32)])
def test_products_are_those_of_numpy(loaded, rows, out, size):
  rng = np.random.default_rng(rows)
  w = rng.normal(size=(out, size)).astype(np.float32)
  x = rng.normal(size=(rows, size)).astype(np.float32)
  assert kernels.fits(w, rows)
  np.testing.assert_allclose(jax.jit(kernels.weight)(w, x), x @ w.T, atol=1e-4)
  scale = rng.random(out).astype(np.float32)
  q = rng.integers(-127, 128, (out, size)).astype(np.int8)
  expected = x @ (scale[:, None] * q).T
  np.testing.assert_allclose(jax.jit(kernels.quantized)(q, scale, x), expected, atol=2e-2)


@needs_compiler
def test_a_row_does_not_depend_on_the_others(loaded):
  rng = np.random.default_rng(0)
  w = rng.normal(size=(500, 64)).astype(np.float32)
  x = rng.normal(size=(8, 64)).astype(np.float32)
  other = np.where(np.arange(8)[:, None] == 3, x, rng.normal(size=x.shape)).astype(np.float32)
  product = jax.jit(kernels.weight)
  assert np.array_equal(product(w, x)[3], product(w, other)[3])


@needs_compiler
def test_what_does_not_fit_is_left_to_xla(loaded):
  w = np.zeros((4, 12), np.float32)
  assert not kernels.fits(w, 8)  # no multiple of 8
  assert not kernels.fits(np.zeros((4, 8), np.float16), 8)
  assert not kernels.fits(np.zeros((4, 8), np.float32), 1)
  assert not kernels.fits(np.zeros((4, 8), np.float32), kernels.MAX_ROWS + 1)


def test_without_a_compiler_there_are_none(tmp_path, monkeypatch):
  monkeypatch.setattr(kernels, '_library', None)
  monkeypatch.setenv('PATH', '')
  assert not kernels.load(tmp_path)
  assert not kernels.fits(np.zeros((4, 8), np.float32), 8)


def test_a_source_that_does_not_compile_is_no_harm(tmp_path, monkeypatch):
  monkeypatch.setattr(kernels, '_library', None)
  source = tmp_path / 'rows.cc'
  source.write_text('nonsense')
  monkeypatch.setattr(kernels, '_SOURCE', source)
  assert not kernels.load(tmp_path)


# ---- What is in the cache ----


@pytest.fixture
def cache(loaded, tmp_path, monkeypatch):
  """A cache of its own with a library in it, and a process that has none loaded yet."""
  shutil.copytree(loaded.parent, tmp_path / 'kernels')
  monkeypatch.setattr(kernels, '_library', None)
  monkeypatch.setattr(jax.ffi, 'register_ffi_target', lambda *_, **__: None)  # it has them
  return tmp_path


@pytest.fixture
def opened(monkeypatch):
  """SHA-256 of each library that is loaded, as it is then."""
  real, found = ctypes.CDLL, []

  def load(path, *args, **kwargs):
    if path is not None:
      found.append(hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest())
    return real(path, *args, **kwargs)

  monkeypatch.setattr(ctypes, 'CDLL', load)
  return found


def flip(path):
  """One bit in the middle, in place; the size and the name stay."""
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)
  return hashlib.sha256(data).hexdigest()


def libraries(cache):
  return sorted((cache / 'kernels').iterdir())


@needs_compiler
def test_a_whole_library_is_loaded_and_not_compiled_again(cache, opened, loaded, monkeypatch):
  monkeypatch.setenv('PATH', '')
  assert kernels.load(cache)
  assert opened == [hashlib.sha256(loaded.read_bytes()).hexdigest()]
  assert libraries(cache)[0].stem.endswith(opened[0])


@needs_compiler
@pytest.mark.parametrize('compiler', [True, False])
def test_a_library_that_was_changed_is_compiled_anew_and_never_loaded(
  cache, opened, loaded, compiler, monkeypatch, caplog
):
  [path] = libraries(cache)
  changed = flip(path)
  if not compiler:
    monkeypatch.setenv('PATH', '')
  assert kernels.load(cache) == compiler
  assert changed not in opened and len(opened) == compiler
  for made in libraries(cache):
    assert made.stem.endswith(hashlib.sha256(made.read_bytes()).hexdigest())
  assert len(libraries(cache)) == compiler
  assert 'is not as it was compiled' in caplog.text


@needs_compiler
def test_a_library_of_no_digest_or_another_ones_is_not_loaded(cache, opened):
  [path] = libraries(cache)
  whole, name = path.read_bytes(), path.name.rsplit('-', 1)[0]
  path.unlink()
  foreign = hashlib.sha256(whole + b'x').hexdigest()
  (path.parent / f'{name}.so').write_bytes(whole + b'x')  # as it was called without digests
  (path.parent / f'{name}-.so').write_bytes(whole + b'x')
  (path.parent / f'{name}-{"0" * 64}.so').write_bytes(whole + b'x')
  (path.parent / f'{name}-{"1" * 64}.so').mkdir()
  assert kernels.load(cache)
  assert len(opened) == 1 and opened != [foreign]


@needs_compiler
def test_what_is_half_written_is_never_under_its_name(cache, monkeypatch):
  [path] = libraries(cache)
  flip(path)

  def killed(made, to):
    assert not any(kernels._whole(p) for p in libraries(cache))
    raise KeyboardInterrupt

  monkeypatch.setattr(kernels.os, 'replace', killed)
  with pytest.raises(KeyboardInterrupt):
    kernels.load(cache)
  assert libraries(cache) == []


@pytest.mark.parametrize(
  'flags, expected',
  [
    ('flags\t\t: fpu avx avx2 fma', 'float32'),
    ('flags\t\t: fpu avx512f avx512_bf16', 'bfloat16'),
    ('flags\t\t: fpu amx_bf16 amx_tile', 'bfloat16'),
    ('Features\t: fp asimd bf16', 'bfloat16'),
    ('', 'float32'),
  ],
)
def test_products_are_bf16_only_where_the_processor_has_them(monkeypatch, flags, expected):
  monkeypatch.setattr(kernels, 'cpu', lambda: flags)
  assert kernels.product_dtype() == expected
  monkeypatch.setattr(jax, 'default_backend', lambda: 'tpu')
  assert kernels.product_dtype() == 'bfloat16'
