"""A server falls asleep by itself when a night is due."""

from __future__ import annotations

import asyncio
import types

import pytest

from dreaming.memory.diary import Diary
from dreaming.serve import nights as nights_lib
from dreaming.serve.nights import Nights
from dreaming.sleep.trigger import TriggerConfig


@pytest.fixture
def nights(tmp_path):
  """Nights that are only counted."""
  with Diary(tmp_path / 'diary.sqlite') as diary:
    diary.append(time=1.0, speaker='P', content='something')
    nights = Nights(types.SimpleNamespace(diary=diary), None, lambda: None)
    nights.poll_seconds, nights.begun = 0.01, 0

    async def start(user=None):
      nights.begun += 1
      diary.end_night(diary.begin_night({}), 'rejected', {})

    nights.start = start
    yield nights


def _wait(nights, config, awake=lambda: True, seconds=0.3):
  async def main():
    task = asyncio.ensure_future(nights.fall_asleep(config, awake))
    await asyncio.sleep(seconds)
    task.cancel()
    return task.done()

  return asyncio.run(main())


def test_a_night_begins_when_it_is_due_and_once(nights):
  _wait(nights, TriggerConfig(interactions=1))
  assert nights.begun == 1


def test_it_waits_until_it_is_due_and_the_server_speaks(nights):
  _wait(nights, TriggerConfig(interactions=2))
  _wait(nights, TriggerConfig(interactions=1), awake=lambda: False)
  assert nights.begun == 0


def test_where_nothing_is_armed_nothing_is_watched(nights):
  assert _wait(nights, TriggerConfig(), seconds=0.05)


def test_a_failing_look_is_not_the_last(nights, monkeypatch):
  looks = []

  def due(*_):
    looks.append(1)
    if len(looks) == 1:
      raise OSError('disk')
    return 'now'

  monkeypatch.setattr(nights_lib.trigger, 'due', due)
  _wait(nights, TriggerConfig(interactions=1))
  assert nights.begun >= 1
