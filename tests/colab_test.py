"""The notebooks run from top to bottom, on the tiny config."""

from __future__ import annotations

import pathlib

import nbclient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
COLABS = sorted((ROOT / 'colabs').glob('*.ipynb'))


@pytest.mark.parametrize('path', COLABS, ids=lambda p: p.stem)
def test_a_notebook_runs_and_its_night_changes_something(path, tmp_path, monkeypatch):
  monkeypatch.setenv('DREAMING_CONFIG', 'tiny')
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  monkeypatch.setenv('TMPDIR', str(tmp_path))  # lives go there
  monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
  monkeypatch.delenv('XLA_FLAGS')  # one device, as a reader has it
  notebook = nbformat.read(path, as_version=4)
  nbclient.NotebookClient(
    notebook, timeout=300, resources={'metadata': {'path': tmp_path}}
  ).execute()
  said = [o.get('text', '') for c in notebook.cells for o in c.get('outputs', ())]
  assert any('generation 1 serves now' in text for text in said), said


def test_there_are_notebooks():
  assert COLABS
