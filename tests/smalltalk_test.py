"""Replies to what is no question: the likeliest of them, compared with other messages."""

from __future__ import annotations

import types

import numpy as np
import pytest

from configs import tiny
from dreaming.agent import Agent
from dreaming.brain import chat, smalltalk
from dreaming.brain.smalltalk import REPLIES, Replies
from dreaming.types import Mind

RAIN, DULL = 'A good day to stay inside, then.', 'Of course.'


MIND = Mind(params={}, generation=0)


class Fake:
  """Finds one reply likely to anything, and another one likelier when it rains than else."""

  tokenizer = types.SimpleNamespace(
    encode=lambda text: list(text.encode()), decode=lambda ids: bytes(ids).decode()
  )
  arch = types.SimpleNamespace(vocab_size=256)

  def __init__(self):
    self.asked = []

  def logprobs(self, mind, prompts, tails, *, prefix, shortlist):
    assert mind is MIND and prefix == chat.STATEMENT_PREFIX
    assert {*''.join(tails).encode()} <= {*shortlist.tolist()}
    self.asked += [prompts[0]]
    rains = 'rain' in prompts[0]
    likely = {f' {DULL}\n': -1.0, f' {RAIN}\n': -2.0 if rains else -30.0}
    return [np.asarray([likely.get(t, -20.0), 0.0]) for t in tails]


def test_the_reply_that_fits_this_message_and_not_every_message():
  decoder = Fake()
  choose = Replies(decoder, MIND)
  assert choose('It\nrains. ') == RAIN
  assert decoder.asked[-1] == 'Friend: It rains.\nReply:'  # on one line
  assert choose('Nothing new.') == DULL
  assert choose('It rains.', {RAIN}) == DULL  # not so soon again
  assert choose('It rains.', set(REPLIES)) == RAIN  # rather that than nothing


def test_of_a_long_message_the_beginning_and_the_end_count():
  decoder = Fake()
  choose = Replies(decoder, MIND)
  assert choose(f'Now. {"x" * 60_000} It rains.') == RAIN and len(decoder.asked[-1]) < 200
  assert choose(f'It rains. {"x" * 60_000} Now.') == RAIN


def test_what_is_likely_to_anybody_is_asked_once():
  decoder = Fake()
  choose = Replies(decoder, MIND)
  for _ in range(3):
    choose('Hello.')
  assert len(decoder.asked) == 3 + len(smalltalk._AGAINST)


def test_replies_are_short_and_of_nobody():
  assert len(set(REPLIES)) == len(REPLIES) > 60
  for r in REPLIES:
    assert r[0].isupper() and r[-1] in '.!' and len(r.split()) <= 10 and not chat.is_question(r)


@pytest.fixture
def agent(tmp_path):
  c = tiny.get_config()
  c.workdir, c.cache = str(tmp_path / 'life'), str(tmp_path / 'cache')
  c.decode.choose_replies = True
  with Agent(c) as a:
    yield a


def test_an_agent_chooses_what_it_replies_to_statements_and_keeps_it(agent):
  said = [''.join(agent.reply(f'I have {i} cats.')) for i in range(5)]
  assert len(set(said)) == 5 and set(said) <= {*REPLIES}
  assert [e.response for e in agent.diary.experiences()] == said
  assert ''.join(agent.reply('Who am I?')) not in REPLIES  # a question is answered


def test_a_script_with_many_tokens_a_letter_fits_into_a_small_context(tmp_path):
  c = tiny.get_config()
  c.workdir, c.cache = str(tmp_path / 'life'), str(tmp_path / 'cache')
  c.decode.choose_replies, c.decode.cache_length = True, 1024
  with Agent(c) as a:
    assert a.reply('\N{PARROT}' * 800) in REPLIES
