"""Every config loads from anywhere, and overrides only what default.py knows."""

from __future__ import annotations

import importlib
import os
import pathlib
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from configs import default
from dreaming import configuration
from dreaming.brain import kernels

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted(p.stem for p in (ROOT / 'configs').glob('*.py') if p.stem != '__init__')

SHOW = """
from absl import app
from ml_collections import config_flags
CONFIG = config_flags.DEFINE_config_file('config', lock_config=True)
app.run(lambda _: print(CONFIG.value.model.architecture, CONFIG.value.train.learning_rate))
"""


def load(name: str) -> ConfigDict:
  return importlib.import_module(f'configs.{name}').get_config()


def leaves(config: ConfigDict, prefix: str = '') -> dict[str, type]:
  """The type of each field, by its path."""
  found = {}
  for key, value in config.items():
    if isinstance(value, ConfigDict):
      found |= leaves(value, f'{prefix}{key}.')
    else:
      found[prefix + key] = config.get_type(key)
  return found


def show(cwd: pathlib.Path, *flags: str) -> subprocess.CompletedProcess[str]:
  """Parses flags as main does, in a process of its own."""
  return subprocess.run(
    [sys.executable, '-c', SHOW, *flags],
    cwd=cwd,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_promised_configs_exist():
  sizes = {f'gemma3_{size}' for size in ('270m', '1b', '4b', '12b', '27b')}
  assert set(NAMES) >= sizes | {'default', 'gemma7b', 'tiny'}


@pytest.mark.parametrize('name', NAMES)
def test_overrides_only_known_fields_and_keeps_their_types(name):
  assert leaves(load(name)) == leaves(default.get_config())


@pytest.mark.parametrize('name', NAMES)
def test_says_how_to_run_it(name):
  doc = importlib.import_module(f'configs.{name}').__doc__
  config = 'gemma3_270m' if name == 'default' else name
  assert f'python -m dreaming.main --config=configs/{config}.py' in doc
  assert name == 'default' or 'eights' in doc


@pytest.mark.parametrize('name', [n for n in NAMES if n != 'default'])
def test_an_unknown_override_is_refused(name):
  with pytest.raises((AttributeError, KeyError), match='lerning_rate'):
    load(name).train.lerning_rate = 1.0


def test_each_has_an_identity_of_its_own():
  workdirs = [load(name).workdir for name in NAMES if name != 'gemma7b']
  assert len(set(workdirs)) == len(workdirs)


def test_architectures_are_known():
  from dreaming.brain.transformer import ARCHITECTURES

  assert {load(name).model.architecture for name in NAMES} == set(ARCHITECTURES)


def test_7b_is_the_4b():
  assert load('gemma7b').to_json() == load('gemma3_4b').to_json()


def test_loads_by_absolute_path_from_elsewhere_and_takes_flags(tmp_path):
  path = ROOT / 'configs' / 'gemma3_4b.py'
  done = show(tmp_path, f'--config={path}', '--config.train.learning_rate=0.25')
  assert done.stdout.split() == ['gemma3_4b', '0.25'], done.stderr


def test_loads_by_relative_path():
  assert show(ROOT, '--config=configs/tiny.py').stdout.split()[0] == 'tiny'


def test_an_unknown_flag_is_refused(tmp_path):
  done = show(tmp_path, f'--config={ROOT}/configs/tiny.py', '--config.train.lerning_rate=1')
  assert done.returncode != 0
  assert 'lerning_rate' in done.stderr


def test_auto_is_what_the_machine_multiplies_fastest(monkeypatch):
  monkeypatch.setattr(kernels, 'product_dtype', lambda: 'float16')
  night = configuration.night(default.get_config())
  groups = (night.school, night.dream, night.corpus, night.train)
  assert [group.dtype for group in groups] == ['float16'] * 4
  config = default.get_config()
  config.train.dtype = 'bfloat16'
  assert configuration.night(config).train.dtype == 'bfloat16'
