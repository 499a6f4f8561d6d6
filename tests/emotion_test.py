"""Emotion: what a lexicon knows, what the model says, and their mean."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dreaming import types
from dreaming.memory import emotion, score

MIND = types.Mind(params={}, generation=0)
SAME = score.Scale(low=2.0, high=8.0)  # leaves raw ratings as they are


class Sure:
  """Rates a text with the number that stands for it; anchors with 2 and 8."""

  def __init__(self, **numbers):
    self.numbers = dict.fromkeys(emotion.ANCHORS_CALM, 3) | dict.fromkeys(emotion.ANCHORS_MOVED, 5)
    self.numbers |= {k.replace('_', ' '): n for k, n in numbers.items()}
    self.prefixes, self.tokenizer = set(), None

  def logprobs(self, mind, prompts, continuations, *, prefix=''):
    self.prefixes.add(prefix)
    return [
      np.array([0.0 if int(c) == self.numbers[p.split('"')[1]] else -99.0])
      for p, c in zip(prompts, continuations, strict=True)
    ]


class Instructed(Sure):
  """Takes token ids: those of characters, below 0 for control."""

  start_of_turn, end_of_turn = -1, -2

  def __init__(self, **numbers):
    super().__init__(**numbers)
    self.tokenizer, self.heads = self, set()

  def encode(self, text):
    return [ord(c) for c in text]

  def logprobs(self, mind, prompts, continuations, *, prefix=''):
    self.heads |= {''.join(chr(i) for i in head if i >= 0) for head in prefix}
    texts = [''.join(chr(i) for i in p if i >= 0) for p in prompts]
    return super().logprobs(mind, texts, continuations)


def test_the_lexicon_knows_strength_and_not_direction():
  calm, glad, sad = map(emotion.words, ('The shop opens at ten.', 'I am happy.', 'I am sad.'))
  assert calm == 1.0 and 4 < glad < 10 and 4 < sad < 10
  assert emotion.words('I am so VERY happy!!!') > glad
  assert emotion.words('wonderful ' * 500) <= 10
  assert emotion.words('') == 1.0


def test_of_a_long_message_the_beginning_counts():
  long = 'a ' * score.RATING_CONTENT_CHARS
  assert emotion.words(long + 'I am happy.') == 1.0
  assert emotion.words('I am happy. ' + long) > 1.0


def test_a_silent_lexicon_says_nothing():
  reader = Sure(The_phones_are_off=9, I_am_happy=9)
  silent, known = emotion.rate(reader, MIND, ['The phones are off', 'I am happy'], on=SAME)
  assert silent == pytest.approx(9.0)
  assert known == pytest.approx((9 + emotion.words('I am happy')) / 2)
  assert reader.prefixes == {emotion.EMOTION_PROMPT}
  assert emotion.rate(reader, MIND, [], on=SAME) == []


@pytest.mark.parametrize('instruct', [False, True])
def test_its_own_anchors_set_the_scale(instruct):
  reader = (Instructed if instruct else Sure)(middle=4)
  assert emotion.scale(reader, MIND, instruct=instruct) == score.Scale(low=3.0, high=5.0)
  assert emotion.model(reader, MIND, ['middle'], instruct=instruct) == [pytest.approx(5.0)]


def test_an_instructed_model_is_asked_for_the_feeling():
  reader = Instructed(The_phones_are_off=9)
  rated = emotion.rate(reader, MIND, ['The phones are off'], on=SAME, instruct=True)
  assert rated == [pytest.approx(9.0)]
  assert reader.heads == {f'user\n{emotion.EMOTION_INSTRUCTION}'}
  assert emotion.rater_name() == 'emotion-5e6488bb'  # else every diary with it is rated again
  assert emotion.rater_name(instruct=True) != emotion.rater_name()


def test_the_examples_are_in_the_form_that_is_asked():
  ratings = []
  for line in emotion.EMOTION_PROMPT.splitlines()[1:]:
    said, rating = line.rsplit(' ', 1)
    assert score.rating_prompt(said.removesuffix(' ->').strip('"'), None) == said
    ratings.append(int(rating))
  assert set(ratings) <= set(score.RATINGS) and len(set(ratings)) >= 5
  assert not any(a in emotion.EMOTION_PROMPT for a in emotion.ANCHORS_CALM + emotion.ANCHORS_MOVED)


def test_a_missing_package_says_how_to_get_it(monkeypatch):
  monkeypatch.setitem(sys.modules, 'vaderSentiment.vaderSentiment', None)
  emotion._analyzer.cache_clear()
  try:
    with pytest.raises(ModuleNotFoundError, match=r'dreaming-machines\[emotion\].*score.emotion'):
      emotion.rate(Sure(), MIND, ['I am happy'], on=SAME)
  finally:
    emotion._analyzer.cache_clear()


@pytest.mark.real
def test_gemma_tells_feelings_from_facts():
  from dreaming.brain import decode, weights

  base = weights.load(weights.ModelConfig())
  decoder = decode.Decoder(base.arch, base.tokenizer)
  mind = types.Mind(params=base.params, generation=0)
  felt = ['I adore her, my heart is racing.', 'We buried my son today.', 'How dare they do that!']
  plain = ['The lid is green.', 'It starts at six.', 'I turned left at the bank.']
  rated = np.array(emotion.model(decoder, mind, felt + plain))
  print(dict(zip(felt + plain, rated.round(2), strict=True)))
  assert rated[:3].min() > rated[3:].max()
