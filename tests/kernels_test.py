"""The C++ products are XLA's but for rounding, and are left out where they cannot be had."""

from __future__ import annotations

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
