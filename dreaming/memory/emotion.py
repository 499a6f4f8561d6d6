"""How strong a feeling a message carries: VADER's lexicon, and the model's own rating.

Strength alone, whether glad or sad: strong feelings make memories last. VADER (Hutto and Gilbert
2014) knows words, negations, boosters, capitals and exclamation marks, in English only; the model
reads what no word of a lexicon tells, as in 'their phones are off'. Emotion is their mean, and the
model's rating alone where the lexicon knows no word: its silence says nothing. Rated only where
`score.emotion` has a weight: it takes as long as importance does, and Gemma 3 270M is weak at it
(benchmarks/importance.py).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from dreaming import types
from dreaming.memory import score

EMOTION_PROMPT = """\
Each sentence gets a number from 1 to 10, by how strong the feeling in it is, good or bad: a plain \
fact is 1, a mood is 4, a joy or a worry is 7, despair or bliss is 10.
"The shop opens at ten." -> 1
"I miss him so much that it hurts to breathe." -> 10
"The bus is always late, it gets on my nerves." -> 4
"I have a meeting on Wednesday." -> 1
"I got the grant! I danced all through the lab!" -> 9
"My aunt works at a bank." -> 1
"I am worried about my mother, she sounds so weak." -> 7
"What a pleasant little walk that was." -> 4
"Where do I put the comma?" -> 1
"He hit me, and I am afraid that he will come back." -> 10
"We had soup." -> 1
"I was a bit disappointed by the play." -> 4
"My little girl sang on the stage, and I was so proud." -> 8
"All right, see you." -> 1
"""
EMOTION_INSTRUCTION = """\
You read what a friend has just said. On a scale of 1 to 10, how strong is the feeling in it, good \
or bad? 1 is a plain fact, 4 a mood, 7 a joy or a worry, 10 despair or bliss. Do not reply to your \
friend: answer with the number alone.

"""
"""For -it checkpoints, as score.RATING_INSTRUCTION."""
ANCHORS_CALM = ('The train leaves at noon.', 'I wear size 40.', 'Ok.')
ANCHORS_MOVED = (
  'I cannot stop crying since they told me.',
  'I hate him for what he did to us!',
  'This is the happiest day of my life!',
)


@functools.cache
def _analyzer():
  try:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
  except ImportError as e:
    raise ModuleNotFoundError(
      'score.emotion needs the package vaderSentiment: pip install "dreaming-machines[emotion]", '
      'or set score.emotion to 0'
    ) from e
  return SentimentIntensityAnalyzer()


def words(text: str) -> float:
  """What VADER says: 1 (it knows no word) to 10, from the size of its compound valence.

  Of a longer message the beginning counts, as much as the model reads of it.

  Raises:
    ModuleNotFoundError: its package is not installed.
  """
  return 1.0 + 9.0 * abs(
    _analyzer().polarity_scores(text[: score.RATING_CONTENT_CHARS])['compound']
  )


def scale(decoder: score.Rater, mind: types.Mind, *, instruct: bool = False) -> score.Scale:
  """The model's scale of feelings; keep it, as score.scale."""
  return score.scale(
    decoder, mind, prompt=_prompt(instruct), low=ANCHORS_CALM, high=ANCHORS_MOVED, instruct=instruct
  )


def model(
  decoder: score.Rater,
  mind: types.Mind,
  texts: Sequence[str],
  *,
  on: score.Scale | None = None,
  instruct: bool = False,
) -> list[float]:
  """What the model says: 1 to 10, as score.importance rates."""
  if not texts:
    return []
  on = on or scale(decoder, mind, instruct=instruct)
  raw = score.raw_ratings(decoder, mind, texts, prompt=_prompt(instruct), instruct=instruct)
  return [on(r) for r in raw]


def rate(
  decoder: score.Rater,
  mind: types.Mind,
  texts: Sequence[str],
  *,
  on: score.Scale | None = None,
  instruct: bool = False,
) -> list[float]:
  """The emotion of each text, 1 to 10; `instruct` as for score.importance."""
  by_words = [words(t) for t in texts]  # first: where its package is missing, nothing is rated
  by_model = model(decoder, mind, texts, on=on, instruct=instruct)
  return [(w + m) / 2 if w > 1 else m for w, m in zip(by_words, by_model, strict=True)]


def rater_name(*, instruct: bool = False) -> str:
  """What of a rater's name tells how emotion was rated."""
  line = score.INSTRUCTED_LINE if instruct else score.RATING_LINE
  prompt = (_prompt(instruct), line, ANCHORS_CALM, ANCHORS_MOVED, score.ANCHOR_RATINGS)
  return f'emotion-{score.digest(prompt)}'


def _prompt(instruct: bool) -> str:
  return EMOTION_INSTRUCTION if instruct else EMOTION_PROMPT
