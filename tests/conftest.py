"""What every test runs under: eight fake CPU devices, and a silent rank promotion is an error."""

from __future__ import annotations

import os

DEVICES = 8

# Before the first import of jax, which reads them once.
os.environ['XLA_FLAGS'] = (
  os.environ.get('XLA_FLAGS', '') + f' --xla_force_host_platform_device_count={DEVICES}'
).strip()
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

import jax  # noqa: E402

jax.config.update('jax_numpy_rank_promotion', 'raise')


def pytest_sessionstart(session) -> None:
  del session
  if jax.default_backend() == 'cpu' and jax.device_count() != DEVICES:
    raise RuntimeError(
      f'{jax.device_count()} CPU devices, expected {DEVICES}: jax came up too early'
    )
