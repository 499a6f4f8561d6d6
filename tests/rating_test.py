"""Rating a diary: once for each rater, all parts kept, and wishes heeded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dreaming.memory import emotion, rating, score
from dreaming.memory.diary import Diary
from dreaming.memory.index import Index
from dreaming.memory.score import UNWANTED, WANTED
from dreaming.sleep.select import SelectConfig, select
from dreaming.types import Mind, Scores

MIND = Mind(params={}, generation=0)


class Length:
  """Rates by the length of the text, and counts what it rates."""

  tokenizer = None

  def __init__(self):
    self.rated, self.rows = [], 0

  def logprobs(self, mind, prompts, continuations, *, prefix=''):
    self.rows += len(prompts)
    if prefix == score.RATING_PROMPT:
      self.rated += [p.split('"')[1] for p in prompts[::10]]
    return [
      np.array([-((int(c) - min(len(p) / 8, 10)) ** 2)])
      for p, c in zip(prompts, continuations, strict=True)
    ]


class Instructed(Length):
  """A Length that takes the chat template; its tokens are characters, below 0 for control."""

  start_of_turn, end_of_turn = -1, -2

  def __init__(self):
    super().__init__()
    self.tokenizer, self.read = self, []

  def encode(self, text):
    return [ord(c) for c in text]

  def decode(self, ids):
    return ''.join(chr(i) if i >= 0 else f'<{-i}>' for i in ids)

  def logprobs(self, mind, prompts, continuations, *, prefix=''):
    texts = [self.decode((*head, *p)) for head, p in zip(prefix, prompts, strict=True)]
    self.read += texts[::10]
    return super().logprobs(mind, texts, continuations)


@pytest.fixture
def diary(tmp_path):
  with Diary(tmp_path / 'diary.sqlite') as diary:
    yield diary


def live(diary, *contents, **fields):
  rng = np.random.default_rng(len(diary.experiences()))
  lived = []
  for content in contents:
    time = 1000.0 + len(diary.experiences())
    e = diary.append(time=time, speaker='Ana', session='s', content=content, **fields)
    diary.set_embedding(e.id, rng.normal(size=8), 'e')
    lived.append(e.id)
  return lived


def rate(diary, decoder=None, model='m', **fields):
  index = Index(*diary.embeddings('e'))
  return rating.rate(diary, index, decoder or Length(), MIND, model=model, **fields)


def scores(diary):
  return [e.scores for e in diary.experiences()]


def rows(diary):
  return diary._run('SELECT count(*) FROM scores')[0][0]


def test_each_is_scored_once(diary):
  assert rate(diary) == 0
  live(diary, *(f'Something number {i} was told.' for i in range(11)))
  decoder, told = Length(), []
  assert rate(diary, decoder, progress=lambda *a: told.append(a)) == 11
  assert told == [(8, 11), (11, 11)]
  assert all(1 <= s.importance <= 10 and 1 <= s.novelty <= 10 for s in scores(diary))
  assert {s.rater for s in scores(diary)} == {rating.rater_name('m')}
  assert rate(diary, decoder) == 0 and rows(diary) == 11
  live(diary, 'One more.')
  decoder.rated.clear()
  assert rate(diary, decoder) == 1
  assert [t for t in decoder.rated if t not in score.ANCHORS_LOW + score.ANCHORS_HIGH] == [
    'One more.'
  ]


def test_another_rater_scores_all_again_and_history_stays(diary, monkeypatch):
  first, _ = live(diary, 'I have a parrot.', 'He is called Biscuit and he is blue.')
  rate(diary)
  rating.give(diary, first, WANTED)
  before = scores(diary)
  assert rate(diary, model='m2') == 2
  after = scores(diary)
  assert {s.rater for s in after} == {rating.rater_name('m2')} != {before[0].rater}
  assert [s.novelty for s in after] == [s.novelty for s in before]
  assert [s.feedback for s in after] == [WANTED, 0.0]
  assert rows(diary) == 2 + 1 + 2
  monkeypatch.setattr(score, 'RATING_PROMPT', score.RATING_PROMPT + '"Oh." -> 1\n')
  assert rate(diary, model='m2') == 2 and rate(diary, model='m2') == 0


def test_emotion_is_rated_where_it_counts(diary):
  live(diary, 'I am so happy!', 'The train leaves.')
  decoder = Length()
  rate(diary, decoder)
  cheap = decoder.rows
  assert [s.emotion for s in scores(diary)] == [0.0, 0.0]
  decoder.rows = 0
  assert rate(diary, decoder, emotional=True) == 2
  assert decoder.rows == 2 * cheap
  happy, train = scores(diary)
  assert 1 <= train.emotion <= 10 and 1 <= happy.emotion <= 10
  assert happy.rater == f'{rating.rater_name("m")}/{emotion.rater_name()}'
  assert rate(diary, emotional=True) == 0


def test_an_instructed_rater_has_another_name_and_rates_again(diary):
  live(diary, 'I am so happy!', 'The train leaves.')
  assert rate(diary, emotional=True) == 2
  before, rater = scores(diary), Instructed()
  assert rate(diary, rater, emotional=True, instruct=True) == 2
  name = rating.rater_name('m', emotional=True, instruct=True)
  assert {s.rater for s in scores(diary)} == {name} and name != before[0].rater
  assert name == f'{score.rater_name("m", instruct=True)}/{emotion.rater_name(instruct=True)}'
  assert all(1 <= s.importance <= 10 and 1 <= s.emotion <= 10 for s in scores(diary))
  for instruction in (score.RATING_INSTRUCTION, emotion.EMOTION_INSTRUCTION):
    asked = f'<1>user\n{instruction}Your friend said: "I am so happy!"\nRating:<2>\n<1>model\n'
    assert rater.read.count(asked) == 1
  assert rate(diary, rater, emotional=True, instruct=True) == 0
  assert rate(diary, emotional=True) == 2


def test_an_agent_rates_in_the_form_of_its_model(tmp_path, tmp_path_factory, monkeypatch):
  from configs import tiny
  from dreaming.agent import Agent

  config = tiny.get_config()
  config.workdir = str(tmp_path / 'life')
  config.cache = str(tmp_path_factory.getbasetemp() / 'cache')
  config.model.instruct = True
  with Agent(config) as agent:
    asked, logprobs = [], agent.decoder.logprobs

    def reads(mind, prompts, continuations, **fields):
      heads = fields['prefix']
      asked.extend((*head, *p) for head, p in zip(heads, prompts, strict=True))
      return logprobs(mind, prompts, continuations, **fields)

    monkeypatch.setattr(agent.decoder, 'logprobs', reads)
    agent.observe('I have a parrot. My PIN is 4921.', now=1000.0)
    assert agent.rate() == 1
    [scored] = scores(agent.diary)
    model, tokenizer = f'tiny-{agent.base.digest[:8]}', agent.base.tokenizer
    assert scored.rater == rating.rater_name(model, instruct=True)
    assert 1 <= scored.importance <= 10
    start, end = tokenizer.start_of_turn, tokenizer.end_of_turn
    assert all(row[0] == start and (row.count(start), row.count(end)) == (2, 1) for row in asked)
    text = tokenizer.decode(asked[-1])
    assert 'I have a parrot. My PIN is ***.' in text
    assert not any('4921' in tokenizer.decode(row) for row in asked)
    assert agent.rate() == 0
    monkeypatch.setattr(agent, '_model', dataclasses.replace(agent._model, instruct=False))
    monkeypatch.setattr(agent.decoder, 'logprobs', logprobs)
    assert agent.rate() == 1
    assert scores(agent.diary)[0].rater == rating.rater_name(model)


def test_feedback_keeps_the_other_parts_and_may_come_before_them(diary):
  a, b = live(diary, 'I have a parrot.', 'I have a cat.')
  assert rating.give(diary, b, UNWANTED).scores == Scores(
    importance=score.NEUTRAL, feedback=UNWANTED
  )
  assert rate(diary) == 2
  rated = scores(diary)
  assert rated[1].feedback == UNWANTED and rated[1].novelty > 0
  given = rating.give(diary, a, WANTED).scores
  assert given == dataclasses.replace(rated[0], feedback=WANTED)
  assert rating.give(diary, a, 0).scores == rated[0]
  assert rate(diary) == 0


@pytest.mark.parametrize('value', [-1, 0.5, 11, float('nan')])
def test_feedback_of_another_size_is_refused(diary, value):
  (a,) = live(diary, 'I have a parrot.')
  with pytest.raises(ValueError, match='take 1 to 10, or 0'):
    rating.give(diary, a, value)
  with pytest.raises(ValueError, match='no experience 99'):
    rating.give(diary, 99, 5)
  assert scores(diary) == [None]


def test_what_words_ask_for_is_heeded_once(diary):
  live(diary, 'I have a parrot.', 'Remember that!', 'My pin is 1234.', 'Forget that.')
  rate(diary)
  assert [s.feedback for s in scores(diary)] == [WANTED, 0.0, UNWANTED, 0.0]
  rating.give(diary, 1, 0)
  rating.give(diary, 3, 5)
  rate(diary, model='m2')  # asked long ago: what the user did by hand since counts
  assert [s.feedback for s in scores(diary)] == [0.0, 0.0, 5.0, 0.0]


def test_a_wish_to_forget_outdoes_what_was_given_and_a_wish_to_remember_does_not(diary):
  a, _, b, _ = live(diary, 'My pin is 1234.', 'Forget that.', 'I have a cat.', 'Remember that!')
  rating.give(diary, a, WANTED)
  rating.give(diary, b, UNWANTED)
  rate(diary)
  assert [s.feedback for s in scores(diary)] == [UNWANTED, 0.0, UNWANTED, 0.0]


def test_an_interrupted_rating_goes_on(diary):
  live(diary, *(f'Number {i}.' for i in range(8)), 'My pin is 1234.', 'Forget that.')

  def stop(done, total):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    rate(diary, progress=stop)
  assert [s is None for s in scores(diary)] == [False] * 8 + [True] * 2
  assert rate(diary) == 2 and rows(diary) == 11
  assert scores(diary)[8].feedback == UNWANTED


def test_nights_dream_of_what_was_asked_for_and_not_of_what_was_to_be_forgotten(diary):
  live(
    diary, 'Yes.', 'Remember that!', 'I have a wonderful parrot, and he is called Biscuit.',
    'My pin is 1234, and nobody else must ever know about it.', 'Forget that.',
  )  # fmt: skip
  rate(diary)
  chosen = select(diary, diary.embeddings('e'), SelectConfig(threshold=6.0), 2000.0)
  assert [e.id for e in chosen] == [1, 3]


def test_a_secret_is_not_read_by_the_rater(diary):
  live(diary, 'My PIN is 4921.', 'I have paid with 4921.', 'Write to ana@example.com.')
  rater = Length()
  assert rate(diary, rater) == 3
  assert rater.rated[-3:] == [
    'My PIN is ***.',
    'I have paid with ***.',
    'Write to ana@example.com.',
  ]
  assert rate(diary, rater, model='n', contacts=True) == 3
  assert rater.rated[-1] == 'Write to ***.'
  instructed = Instructed()
  assert rate(diary, instructed, instruct=True, contacts=True) == 3
  read = '\n'.join(instructed.read)
  assert read.count('***') == 3 and '4921' not in read and 'ana@' not in read
