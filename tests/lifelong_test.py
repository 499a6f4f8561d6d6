"""A life of many days: the matrix, its summary, and going on where it was cut off."""

from __future__ import annotations

import dataclasses
import json
import types

import pytest
from rich.console import Console

from dreaming import lifelong, live
from dreaming.arms import Arm, Examination
from dreaming.brain.transformer import ARCHITECTURES
from dreaming.days import Day
from dreaming.types import Mind

ARCH = dataclasses.replace(ARCHITECTURES['tiny'], num_layers=0)


class FakeAgent:
  """Forgets half of what it knew of each earlier day, every night."""

  def __init__(self, workdir):
    self.workdir = self.cache = workdir
    self.nights: list[str] = []
    self.talked: list[str] = []
    self.base = types.SimpleNamespace(params={}, arch=ARCH)
    self.reject = ()

  @property
  def identity(self):
    return types.SimpleNamespace(blue=Mind(params={}, generation=len(self.nights)))

  def status(self):
    return types.SimpleNamespace(nights=list(enumerate(self.nights)))

  def examine(self, day, names=('base', 'retrieval', 'weights', 'both')):
    age = len(self.nights) - int(day.path.stem)
    right = tuple(i < 4 >> age for i in range(4))
    arm = Arm(replies=('',) * 4, right=right, unknown_replies=(), invented=())
    arms = dict.fromkeys(names, arm)
    probe = types.SimpleNamespace(question='', answers=('x',))
    asked = types.SimpleNamespace(path=day.path, probes=[probe] * 4, never_mentioned=[])
    return Examination(day=asked, generation=1, arms=arms)


@pytest.fixture
def agent(tmp_path, monkeypatch):
  agent = FakeAgent(tmp_path)

  def sleep(agent, day, console):
    agent.nights.append('rejected' if len(agent.nights) + 1 in agent.reject else 'promoted')
    return types.SimpleNamespace(promoted=agent.nights[-1] == 'promoted')

  measures = {
    'measures': {'nll': 3.03, 'general': 0.55}, 'base': {'nll': 3.0, 'general': 0.58},
    'reason': '', 'losses': [{'values': {'loss_tokens': 300.0}}, {'values': {'loss_tokens': None}}],
  }  # fmt: skip
  monkeypatch.setenv('MPLCONFIGDIR', str(tmp_path))  # plotting would set it, for later tests too
  monkeypatch.setattr(live, 'talk', lambda agent, day, console: agent.talked.append(day.path.stem))
  monkeypatch.setattr(live, 'sleep_after', sleep)
  monkeypatch.setattr(lifelong.report, 'night', lambda outcome, workdir: measures)
  return agent


@pytest.fixture
def lived(tmp_path):
  return [
    Day(path=tmp_path / f'{i}.json', user='P', interactions=(), probes=(), never_mentioned=())
    for i in (1, 2, 3)
  ]


def _rows(agent):
  return [json.loads(x) for x in (agent.workdir / lifelong.ROWS).read_text().splitlines()]


def test_the_matrix_and_what_it_comes_to(agent, lived):
  console = Console(record=True, width=120)
  assert lifelong.run(agent, lived, console) == 0
  assert [r['weights'] for r in _rows(agent)] == [[1.0], [0.5, 1.0], [0.25, 0.5, 1.0]]
  result = json.loads((agent.workdir / lifelong.RESULT).read_text())
  assert result['learned'] == 1.0 and result['nights'] == 3
  assert result['retention'] == pytest.approx(0.75 / 2)  # of days one and two
  assert result['backward_transfer'] == pytest.approx((-0.75 - 0.5) / 2)
  assert result['nll_increase'] == pytest.approx(0.01)
  assert result['general_drop'] == pytest.approx(0.03)
  assert result['rows'][0]['loss_tokens'] == 300
  assert (agent.workdir / lifelong.PLOT).read_bytes().startswith(b'\x89PNG')
  assert 'day 3' in console.export_text()


def test_it_goes_on_after_its_last_row(agent, lived):
  lifelong.run(agent, lived[:2], Console(quiet=True))
  with open(agent.workdir / lifelong.ROWS, 'a') as file:
    file.write('{"days": ["half a ro')  # killed while it was written
  agent.talked.clear()
  lifelong.run(agent, lived, Console(quiet=True))
  assert agent.talked == ['3'] and len(agent.nights) == 3
  assert len(_rows(agent)) == 3


def test_killed_between_a_night_and_its_row_it_does_not_sleep_twice(agent, lived):
  agent.nights = ['rejected']
  assert lifelong.run(agent, lived[:1], Console(quiet=True)) == 1
  assert agent.nights == ['rejected']
  assert _rows(agent)[0]['promoted'] is False and _rows(agent)[0]['measures'] == {}


def test_a_rejected_night_is_told_and_fails(agent, lived):
  agent.reject = (2,)
  console = Console(record=True, width=120)
  assert lifelong.run(agent, lived, console) == 1
  assert '2, rejected' in console.export_text()


@pytest.mark.parametrize('which', ['other order', 'twice', 'standard input', 'fewer'])
def test_days_that_do_not_fit_are_refused(agent, lived, which):
  given = {
    'other order': lived[::-1], 'twice': [lived[0], lived[0]], 'standard input': [lived[0], None],
    'fewer': lived[:1],
  }[which]  # fmt: skip
  lifelong.run(agent, lived[:2], Console(quiet=True))
  before = len(agent.nights)
  with pytest.raises(ValueError, match='days'):
    lifelong.run(agent, given, Console(quiet=True))
  assert len(agent.nights) == before
