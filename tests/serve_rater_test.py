"""Scores are given when it is quiet: not while anybody talks, nor while a night runs."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import threading
import time
import types

import numpy as np
import pytest

from benchmarks.serve_live import Live, plant, serve_config
from dreaming.agent import Agent
from dreaming.memory import score
from dreaming.serve import rater as rater_lib
from dreaming.serve.config import ServeConfig
from dreaming.serve.rater import Paced, Rater, Wanted
from dreaming.types import Mind
from tests.serve_night_test import follow, quick

MIND = Mind(params={}, generation=0)


def until(true, seconds: float = 60) -> None:
  end = time.monotonic() + seconds
  while not true():
    assert time.monotonic() < end
    time.sleep(0.02)


# ---- A decoder that gives way ----


class Lengths:
  """Scores rows by their lengths, and keeps what it was asked."""

  tokenizer = None

  def __init__(self):
    self.calls = []

  def logprobs(self, mind, prompts, continuations, *, prefix=''):
    prefixes = [prefix] * len(prompts) if isinstance(prefix, str) else prefix
    rows = list(zip(prefixes, prompts, continuations, strict=True))
    self.calls.append(rows)
    return [np.array([-float(len(a) + 2 * len(b) + 3 * len(c))]) for a, b, c in rows]


TEXTS = [f'I have {i * i * i} cats.' for i in range(7)]


def test_few_rows_at_a_time_come_to_the_same():
  decoder, known = Lengths(), collections.OrderedDict()
  paced = Paced(decoder, lambda: False, known)
  expected = score.raw_ratings(Lengths(), MIND, TEXTS)
  assert score.raw_ratings(paced, MIND, TEXTS) == expected
  assert [len(c) for c in decoder.calls] == [10] * 7
  assert score.raw_ratings(paced, MIND, TEXTS) == expected and len(decoder.calls) == 7
  assert not any(text in str(known) for text in TEXTS)  # it is no second diary


def test_prefixes_may_be_of_each_row():
  decoder = Lengths()
  paced = Paced(decoder, lambda: False, collections.OrderedDict())
  rows = ['a', 'b'] * 15, ['c'] * 30, [str(i) for i in range(30)]
  got = paced.logprobs(MIND, rows[1], rows[2], prefix=rows[0])
  assert got == Lengths().logprobs(MIND, rows[1], rows[2], prefix=rows[0])
  assert [r for call in decoder.calls for r in call] == list(zip(*rows, strict=True))


def test_it_ends_when_somebody_waits_and_goes_on_there():
  decoder, known = Lengths(), collections.OrderedDict()
  with pytest.raises(Wanted):
    score.raw_ratings(Paced(decoder, lambda: len(decoder.calls) == 2, known), MIND, TEXTS)
  assert len(decoder.calls) == 2
  score.raw_ratings(Paced(decoder, lambda: False, known), MIND, TEXTS)
  asked = [row for call in decoder.calls for row in call]
  assert len(asked) == len(set(asked)) == 70  # nothing twice


def test_only_so_much_is_kept(monkeypatch):
  monkeypatch.setattr(rater_lib, '_KEPT', 25)
  known = collections.OrderedDict()
  score.raw_ratings(Paced(Lengths(), lambda: False, known), MIND, TEXTS)
  assert len(known) == 25


# ---- When it is quiet ----


class Parts:
  """A conversation and nights of nobody, whose ratings are only counted."""

  def __init__(self, rate=lambda: 0):
    self.thinking = self.asked = self.rated = 0
    self.heard, self.unrated, self.engine = time.monotonic(), True, types.SimpleNamespace(
      active=0, waiting=0)  # fmt: skip
    self.doze = types.SimpleNamespace(asleep=False)
    self.running, self.starting = False, asyncio.Lock()
    self._rate = rate
    self.agent = types.SimpleNamespace(rate=self.rate, diary=types.SimpleNamespace(count=lambda: 3))

  def rate(self, paced):
    self.rated += 1
    return self._rate()

  async def with_mind(self, work, *args):
    return await asyncio.to_thread(work, *args)


def watch(parts, after=0.01, seconds=0.3):
  async def main():
    task = asyncio.ensure_future(Rater([(parts, parts)], after).watch())
    await asyncio.sleep(seconds)
    over = task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
      await task
    return over

  return asyncio.run(main())


def test_when_it_is_quiet_it_rates_once():
  parts = Parts()
  watch(parts)
  assert parts.rated == 1 and not parts.unrated


@pytest.mark.parametrize('busy', [
  lambda p: setattr(p, 'thinking', 1), lambda p: setattr(p, 'asked', 1),
  lambda p: setattr(p, 'running', True), lambda p: setattr(p.doze, 'asleep', True),
  lambda p: setattr(p.engine, 'active', 1), lambda p: setattr(p.engine, 'waiting', 1),
  lambda p: setattr(p, 'engine', None), lambda p: setattr(p, 'unrated', False),
  lambda p: setattr(p, 'heard', time.monotonic() + 60),
])  # fmt: skip
def test_it_waits_while_there_is_anything_else_to_do(busy):
  parts = Parts()
  busy(parts)
  watch(parts)
  assert parts.rated == 0


def test_it_waits_while_a_night_begins():
  parts = Parts()

  async def main():
    async with parts.starting:
      task = asyncio.ensure_future(Rater([(parts, parts)], 0.01).watch())
      await asyncio.sleep(0.2)
      task.cancel()

  asyncio.run(main())
  assert parts.rated == 0


def test_without_its_field_it_never_does():
  parts = Parts()
  assert watch(parts, after=0, seconds=0.1) and parts.rated == 0
  with pytest.raises(ValueError, match=r'serve\.rate_after is -1'):
    ServeConfig(rate_after=-1.0)
  with pytest.raises(ValueError, match=r'serve\.rate_after is nan'):
    ServeConfig(rate_after=float('nan'))


def test_an_error_is_a_line_and_it_tries_again(monkeypatch, caplog):
  outcomes = [OSError('disk\nfull'), Wanted(), ValueError(), 3]

  def rate():
    outcome = outcomes.pop(0)
    if isinstance(outcome, Exception):
      raise outcome
    return outcome

  parts = Parts(rate)
  monkeypatch.setattr(rater_lib, '_AGAIN_SECONDS', 0.02)
  logging.getLogger('dreaming.serve').propagate = True
  with caplog.at_level(logging.INFO, 'dreaming.serve'):
    watch(parts, seconds=1.0)
  told = [(r.getMessage(), r.fields) for r in caplog.records]
  assert parts.rated == 4 and not parts.unrated
  assert [(what, f.get('why', f.get('experiences'))) for what, f in told] == [
    ('what was said could not be rated', 'disk full'),
    ('what was said could not be rated', 'ValueError'),
    ('rated', 3),
  ]
  assert [f['again_seconds'] for _, f in told[:2]] == [0.02, 0.04]


# ---- In a server ----


def config_of(factory, name, after):
  config = serve_config(factory, name)
  config.serve.slots, config.serve.rate_after = 1, after
  config.decode.cache_length = 2048  # its tokens are bytes, and rating reads examples
  return config


@pytest.fixture(scope='module')
def live(tmp_path_factory):
  with Agent(config_of(tmp_path_factory, 'rater', 0.3)) as agent, Live(agent) as live:
    yield live


def say(live, text: str) -> str:
  return live.client.chat.completions.create(
    model='agent', messages=[{'role': 'user', 'content': text}], max_tokens=4
  ).model


def unrated(live) -> int:
  return sum(e.scores is None for e in live.agent.diary.experiences())


def test_what_was_said_has_scores_when_it_was_quiet(live):
  say(live, 'I have a parrot.')
  live.http.post('/api/experiences', json={'content': 'And a cat.'})
  until(lambda: not unrated(live))
  for e in live.agent.diary.experiences():
    assert 1 <= e.scores.importance <= 10 and 1 <= e.scores.novelty <= 10
  table = live.agent.diary.columns()
  assert np.isfinite(table.importance[: table.count]).all()  # recall weighs it
  until(lambda: not live.server.talk.unrated)
  assert live.agent.rate() == 0  # nothing is left to a night


def test_what_is_approved_is_rated(live):
  body = {'content': 'The ferry leaves at nine.', 'trust': 'third_party'}
  id = live.http.post('/api/experiences', json=body).json()['id']
  until(lambda: not live.server.talk.unrated)
  assert live.agent.diary.experience(id).scores is None
  live.http.post('/api/approve', json={'ids': [id]})
  until(lambda: live.agent.diary.experience(id).scores is not None)


def test_who_says_something_waits_for_no_more_than_one_message(live, monkeypatch):
  """And what was rated by then is not rated again."""
  decoder, think = live.agent.decoder, live.agent.think
  logprobs, order, asked = decoder.logprobs, [], []
  begun, go = threading.Event(), threading.Event()

  def slow(mind, prompts, continuations, *, prefix='', **how):
    if prefix == score.RATING_PROMPT:
      order.append('rows')
      asked.extend(zip(prompts, continuations, strict=True))
      assert len(prompts) <= 10
      begun.set()
      assert go.wait(30)
    return logprobs(mind, prompts, continuations, prefix=prefix, **how)

  def thinks(*args, **kwargs):
    order.append('reply')
    return think(*args, **kwargs)

  monkeypatch.setattr(decoder, 'logprobs', slow)
  monkeypatch.setattr(live.agent, 'think', thinks)
  for i in range(9):
    live.http.post('/api/experiences', json={'content': f'I know {i} songs by heart.'})
  assert begun.wait(30)
  replied = threading.Thread(target=say, args=(live, 'How many songs do I know?'))
  replied.start()
  until(lambda: live.server.talk.thinking)
  assert order == ['rows']
  go.set()
  replied.join(30)
  assert order[:2] == ['rows', 'reply'] and unrated(live) == 10
  until(lambda: not unrated(live))
  assert len(asked) == len(set(asked)) >= 100


def test_a_server_that_ends_does_not_wait_for_it(tmp_path_factory, monkeypatch):
  with Agent(config_of(tmp_path_factory, 'ends', 0.05)) as agent:
    with Live(agent) as live:
      begun, logprobs = threading.Event(), agent.decoder.logprobs

      def slow(*args, **kwargs):
        begun.set()
        time.sleep(0.5)
        return logprobs(*args, **kwargs)

      monkeypatch.setattr(agent.decoder, 'logprobs', slow)
      for i in range(40):
        live.http.post('/api/experiences', json={'content': f'I know {i} songs by heart.'})
      assert begun.wait(30)
      start = time.monotonic()
    assert time.monotonic() - start < 10  # of 40 such calls, and the anchors
    assert agent.diary.experiences()[-1].scores is None


def test_importance_begins_a_night(tmp_path_factory):
  config = config_of(tmp_path_factory, 'due', 0.05)
  config.trigger.importance = 1.5  # less than two messages have, whatever they are worth
  with Agent(config) as agent:
    plant(agent, 1, promote=False)
    live = Live(agent)
    live.server.nights.poll_seconds = 0.05
    quick(live)
    with live:
      say(live, 'I have a parrot.')
      say(live, 'And a cat.')
      until(lambda: any('outcome' in event for event in follow(live)))
      assert [*follow(live)][-1]['outcome'] == 'promoted' and live.server.nights.run == 1
      assert say(live, 'Good morning.') == 'agent@1'


def test_without_rating_no_importance_begins_one(tmp_path_factory):
  config = config_of(tmp_path_factory, 'off', 0.0)
  config.trigger.importance = 1.0
  with Agent(config) as agent:
    live = Live(agent)
    live.server.nights.poll_seconds = 0.05
    with live:
      say(live, 'I have a parrot.')
      time.sleep(1.5)
      assert unrated(live) == 1 and live.server.nights.run == 0
