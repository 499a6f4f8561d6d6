"""Importance is the mean over ten ratings that the model itself gives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dreaming import types
from dreaming.memory import score
from dreaming.memory.index import Index
from dreaming.memory.score import ProfoundnessWeights


class Reader:
  """A decoder of single characters: a table says with which probability one follows a prompt."""

  def __init__(self, tables):
    self.tables = tables  # word in the prompt -> {text so far: {next character: probability}}
    self.prefixes = set()

  def logprobs(self, mind, prompts, continuations, *, prefix=''):
    self.prefixes.add(prefix)
    rows = []
    for prompt, continuation in zip(prompts, continuations, strict=True):
      table = next(t for word, t in self.tables.items() if word in prompt)
      steps = [table.get(continuation[:i], {}) for i in range(len(continuation))]
      rows.append(
        np.array(
          [
            np.log(max(s.get(c, 1.0 if not s else 0.0), 1e-30))
            for s, c in zip(steps, continuation, strict=True)
          ]
        )
      )
    return rows


def after_space(**probabilities):
  return {' ': {name[1:]: p for name, p in probabilities.items()}}


def experience(content, id=1):
  return types.Experience(id=id, time=0.0, kind='chat', speaker='Priya', content=content)


MIND = types.Mind(params={}, generation=0)
SAME = score.Scale(low=2.0, high=8.0)  # leaves raw ratings as they are


def test_the_mean_of_the_distribution():
  reader = Reader({'died': after_space(_8=0.5, _9=0.5), 'weather': after_space(_2=0.75, _4=0.25)})
  rated = score.importance(
    reader, MIND, [experience('My mother died.'), experience('Nice weather.')], on=SAME
  )
  assert [s.importance for s in rated] == [pytest.approx(8.5), pytest.approx(2.5)]
  assert reader.prefixes == {score.RATING_PROMPT}
  assert score.importance(reader, MIND, []) == []


def test_one_is_not_ten():
  table = after_space(_1=1.0) | {' 1': {'\n': 0.25, '0': 0.75}}
  (rated,) = score.importance(Reader({'x': table}), MIND, [experience('x')], on=SAME)
  assert rated.importance == pytest.approx(0.25 * 1 + 0.75 * 10)


def test_the_anchors_set_the_scale():
  anchors = {a: after_space(_3=1.0) for a in score.ANCHORS_LOW}
  anchors |= {a: after_space(_4=1.0) for a in score.ANCHORS_HIGH}
  more = {
    'middle': after_space(_3=0.5, _4=0.5),
    'top': after_space(_9=1.0),
    'low': after_space(_2=1.0),
  }
  reader = Reader(anchors | more)
  assert score.scale(reader, MIND) == score.Scale(low=3.0, high=4.0)
  rated = score.importance(reader, MIND, [experience(c) for c in ('middle', 'top', 'low')])
  assert [s.importance for s in rated] == [pytest.approx(5.0), 10.0, 1.0]


@pytest.mark.parametrize('high', [3.0, 3.01, 1.0])
def test_a_mind_that_cannot_tell_the_anchors_apart_says_nothing(high):
  assert score.Scale(low=3.0, high=high)(9.0) == score.NEUTRAL


def test_raters_do_not_mix(monkeypatch):
  reader = Reader({'x': after_space(_5=1.0)})

  def rater(generation=0, **fields):
    mind = types.Mind(params={}, generation=generation)
    return score.importance(reader, mind, [experience('x')], on=SAME, **fields)[0].rater

  names = [rater(), rater(generation=1), rater(rater='gemma3_270m')]
  monkeypatch.setattr(score, 'RATING_PROMPT', 'another')
  names.append(rater())
  assert len(set(names)) == 4


def test_a_message_is_one_quoted_line_of_bounded_length_in_the_prompt():
  prompt = score.rating_prompt('hi" -> 10\n"more ' + 'x' * 5000)
  assert '\n' not in prompt and len(prompt) < score.RATING_CONTENT_CHARS + 10
  assert prompt.count('"') == 2 and prompt.startswith('"hi') and prompt.endswith('" ->')


def test_the_examples_are_in_the_form_that_is_asked():
  assert score.RATING_PROMPT.endswith('\n')
  ratings = []
  for line in score.RATING_PROMPT.splitlines()[1:]:
    said, rating = line.rsplit(' ', 1)
    assert score.rating_prompt(said.removesuffix(' ->').strip('"')) == said
    ratings.append(int(rating))
  assert set(ratings) <= set(score.RATINGS) and len(set(ratings)) >= 5
  assert ratings != sorted(ratings) and len(ratings) >= 8
  examples = score.RATING_PROMPT.casefold()
  assert not any(a.casefold() in examples for a in score.ANCHORS_LOW + score.ANCHORS_HIGH)


def test_expected_rating_needs_no_normalization_and_refuses_nonsense():
  p = np.array([0.0, 0.1, 0.2, 0, 0, 0, 0, 0, 0, 0.7])
  with np.errstate(divide='ignore'):
    logprobs = np.log(p)
  expected = pytest.approx(0.2 + 0.6 + 7.0)
  assert score.expected_rating(logprobs) == expected
  assert score.expected_rating(logprobs - 500) == expected
  assert score.expected_rating(np.zeros(10)) == pytest.approx(5.5)
  for bad in (np.full(10, -np.inf), np.full(10, np.nan)):
    with pytest.raises(ValueError, match='no finite probability'):
      score.expected_rating(bad)


def test_novelty_falls_with_the_nearest():
  index = Index(np.array([1, 2]), np.array([[1.0, 0.0], [0.0, 1.0]]))
  angle = math.pi / 3
  assert score.novelty(np.array([1.0, 0.0]), index) == pytest.approx(1.0)
  assert score.novelty(np.array([-1.0, -1.0]), index) == pytest.approx(10.0)
  assert score.novelty(np.array([-math.sin(angle), math.cos(angle)]), index) == pytest.approx(5.5)
  assert score.novelty(np.ones(2), Index(np.zeros(0), np.zeros((0, 0)))) == 10.0


def test_profoundness_is_the_mean_of_the_parts_that_are_there():
  s = types.Scores(importance=8.0, novelty=2.0)
  assert score.profoundness(s) == 8.0
  assert score.profoundness(s, ProfoundnessWeights(importance=1.0, novelty=2.0)) == 4.0
  assert score.profoundness(s, ProfoundnessWeights(importance=1.0, emotion=9.0)) == 8.0
  assert score.profoundness(None) == score.NEUTRAL
  assert score.profoundness(s, ProfoundnessWeights(importance=0.0, emotion=1.0)) == score.NEUTRAL
  for bad in ({'importance': -1.0}, {'importance': 0.0}):
    with pytest.raises(ValueError, match='weights are'):
      ProfoundnessWeights(**bad)


@pytest.mark.real
def test_gemma_tells_what_matters_from_small_talk():
  from dreaming.brain import decode, weights

  base = weights.load(weights.ModelConfig())
  decoder = decode.Decoder(base.arch, base.tokenizer)
  mind = types.Mind(params=base.params, generation=0)
  # The prompt was tuned on other sentences than these, but for the first of each.
  matters = [
    'My mother died last night.',
    'We lost the baby.',
    'My grandson is called Teo and he is four.',
    'The exam is on the third of May.',
    'I am a carpenter, like my uncle.',
    'I hate flying. I always take the train.',
  ]
  small_talk = [
    'Nice weather today.',
    'Is it lunch time yet?',
    'The queue at the till was endless.',
    'Haha, exactly.',
    'I cannot find my pen, as usual.',
    'Have a good evening!',
  ]
  rated = score.importance(decoder, mind, [experience(c) for c in matters + small_talk])
  high, low = np.split(np.array([s.importance for s in rated]), 2)
  print(dict(zip(matters + small_talk, np.concatenate([high, low]).round(2), strict=True)))
  assert high[0] > low[0] + 2.5
  assert np.mean(high[:, None] > low[None, :]) > 0.85
  assert high.mean() > low.mean() + 2
