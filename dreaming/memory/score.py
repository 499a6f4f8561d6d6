"""How much an experience matters: importance by the model itself, novelty by the index.

The rating is not parsed from text: the importance is the mean of the model's distribution over the
ratings 1 to 10, so that it is a real number. A pretrained model reads a few rated examples before
the experience, so that it can rate too; an instructed one is asked for a rating in its chat
template, as in Park et al., "Generative Agents" (arXiv 2304.03442, section 4.1). Fixed anchor
sentences then set the scale.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dreaming import types
from dreaming.memory.index import Index

if TYPE_CHECKING:
  from dreaming.brain.decode import Prompt
  from dreaming.brain.tokenizer import Tokenizer

NEUTRAL = 5.5
"""What an experience counts as before it was rated: the middle of 1 to 10."""

WANTED, UNWANTED = 10.0, 1.0
"""Feedback that decides alone, whatever the weights: 'remember this', and 'forget that'."""

RATINGS = tuple(range(1, 11))

RATING_PROMPT = """\
Each sentence gets a number from 1 to 10: small talk is 1, what one must remember is 7, a turning \
point of a life is 10.
"She said yes, we are engaged!" -> 10
"The bus was a bit late this morning, as it always is." -> 1
"My brother Omar teaches maths in Leeds." -> 7
"Ha, good one." -> 1
"My father had a heart attack. He is in intensive care, and we do not know whether he will live." \
-> 10
"I wonder why cats are afraid of cucumbers. Do you know?" -> 2
"I have signed the contract. In October we are moving to Toronto, all four of us!" -> 8
"I might watch a film tonight, or just read a little." -> 2
"By the way, I cannot eat gluten. It makes me ill, so no bread for me." -> 7
"Hello!" -> 1
"My driving test is on the 14th at nine." -> 7
"I just had a sandwich at my desk. Half of it is on the keyboard now." -> 1
"I feel so alone since the divorce. The evenings are the worst." -> 8
"It is getting dark early these days, and so cold." -> 2
"We have a dog now. He is called Rufus, and he sleeps on my feet." -> 7
"What a noise next door, I could not hear the radio." -> 1
"I have played the violin since I was nine." -> 7
"Thank you, talk to you tomorrow." -> 1
"""
"""What is said, an arrow, its rating. On Gemma 3 270M this told facts from small talk best of some
thirty layouts; a speaker's name, or 'Importance:' for the arrow, made it worse."""

RATING_LINE = '"{content}" ->'
RATING_CONTENT_CHARS = 600
"""Of a longer message the beginning is rated; people say early what a message is about."""

RATING_INSTRUCTION = """\
You read what a friend has just said. On a scale of 1 to 10, how much is it likely to matter in \
their life? 1 is purely mundane, such as a greeting, a sandwich or a late bus; 7 is what a good \
friend keeps in mind, such as the name of a sister, an allergy or the day of an exam; 10 is \
extremely poignant, such as a wedding, a birth or a death. Do not reply to your friend: answer \
with the number alone.

"""
"""For -it checkpoints. Unlike Park's it counts facts, too: they are what nights dream of."""
INSTRUCTED_LINE = 'Your friend said: "{content}"\nRating:'
"""After the instruction, and before the model's turn."""

ANCHORS_LOW = ('Nice day, is it not?', 'Ok, bye for now.', 'I am having a coffee.')
ANCHORS_HIGH = (
  'My husband died on Sunday.',
  'I have found a new job.',
  'My daughter is called Mia, she is seven.',
)
ANCHOR_RATINGS = (2.0, 8.0)
"""What the mean of the low and of the high anchors counts as: a small model knows the order better
than the scale. Its raw ratings of all these lie between 3 and 5."""


class Rater(Protocol):
  """The part of `brain.decode.Decoder` that rates."""

  tokenizer: Tokenizer

  def logprobs(
    self,
    mind: types.Mind,
    prompts: Sequence[Prompt],
    continuations: Sequence[str],
    *,
    prefix: str | Sequence[Prompt] = '',
  ) -> list[np.ndarray]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfoundnessWeights:
  """As `config.score`: how much each part counts; parts that are absent (0) do not count."""

  importance: float = 1.0
  novelty: float = 0.0
  emotion: float = 0.0
  feedback: float = 0.0
  recency: float = 0.0
  half_life_hours: float = 72.0  # in which recency halves

  def __post_init__(self):
    parts = self.importance, self.novelty, self.emotion, self.feedback
    if min(*parts, self.recency) < 0 or not any(parts):
      raise ValueError(
        f'score: weights are >= 0, and one beside that of recency is more, not {self}'
      )
    if not self.half_life_hours > 0:
      raise ValueError(f'score.half_life_hours is {self.half_life_hours}: take more than 0')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
  """Where a mind's raw ratings put the anchors."""

  low: float
  high: float

  def __call__(self, raw: float) -> float:
    """Raw expected rating to importance, 1 to 10."""
    if self.high - self.low < 0.05:  # this mind cannot tell them apart: its ratings say nothing
      return NEUTRAL
    low, high = ANCHOR_RATINGS
    return min(max(low + (high - low) * (raw - self.low) / (self.high - self.low), 1.0), 10.0)


def scale(
  decoder: Rater,
  mind: types.Mind,
  *,
  prompt: str | None = None,
  low: Sequence[str] = ANCHORS_LOW,
  high: Sequence[str] = ANCHORS_HIGH,
  instruct: bool = False,
) -> Scale:
  """Rates the anchors; keep it where a mind rates one message at a time.

  Args:
    prompt: as for `raw_ratings`.
    low: anchors that count as ANCHOR_RATINGS[0] on the mean; `high` as ANCHOR_RATINGS[1].
    instruct: whether the mind takes the chat template.
  """
  raw = raw_ratings(decoder, mind, (*low, *high), prompt=prompt, instruct=instruct)
  n = len(low)
  return Scale(low=float(np.mean(raw[:n])), high=float(np.mean(raw[n:])))


def rater_name(model: str, generation: int = 0, *, instruct: bool = False) -> str:
  """Model, generation and the prompt's digest: of another name, scores do not compare."""
  form = (RATING_INSTRUCTION, INSTRUCTED_LINE) if instruct else (RATING_PROMPT, RATING_LINE)
  return f'{model}/g{generation}/{digest((*form, ANCHORS_LOW, ANCHORS_HIGH, ANCHOR_RATINGS))}'


def digest(prompt: tuple) -> str:
  """Eight hex digits that change with a prompt."""
  return hashlib.sha256(repr(prompt).encode()).hexdigest()[:8]


def importance(
  decoder: Rater,
  mind: types.Mind,
  experiences: Sequence[types.Experience],
  *,
  on: Scale | None = None,
  rater: str = 'self',
  instruct: bool = False,
) -> list[types.Scores]:
  """Expected rating of each experience by the model, on the anchors' scale, between 1 and 10.

  Rate with the base (generation 0) throughout a life: ratings by different minds do not compare.
  The rater's name is kept with the scores, with the generation and the prompt's digest.

  Args:
    on: the mind's scale; rated anew when it is None.
    rater: the name of the model.
    instruct: whether the mind takes the chat template.
  """
  if not experiences:
    return []
  on = on or scale(decoder, mind, instruct=instruct)
  name = rater_name(rater, mind.generation, instruct=instruct)
  raw = raw_ratings(decoder, mind, [e.content for e in experiences], instruct=instruct)
  return [types.Scores(importance=on(r), rater=name) for r in raw]


def raw_ratings(
  decoder: Rater,
  mind: types.Mind,
  contents: Sequence[str],
  *,
  prompt: str | None = None,
  instruct: bool = False,
) -> list[float]:
  """Expected rating of each text, 1 to 10, on no scale yet.

  Args:
    prompt: examples in lines as RATING_LINE has them, by default RATING_PROMPT; for an instructed
      mind the instruction, by default RATING_INSTRUCTION.
    instruct: whether the mind takes the chat template.
  """
  if prompt is None:
    prompt = RATING_INSTRUCTION if instruct else RATING_PROMPT
  prefix: str | list[Prompt] = prompt
  asked: list[Prompt]
  if instruct:
    tails = [str(n) for n in RATINGS]
    turns = [_turn(decoder.tokenizer, prompt, c) for c in contents]
    asked = [question for _, question in turns for _ in tails]
    prefix = [instruction for instruction, _ in turns for _ in tails]
  else:
    # The line end belongs to the rating: without it the probability of '1' would contain '10's.
    tails = [f' {n}\n' for n in RATINGS]
    lines = [rating_prompt(c, decoder.tokenizer) for c in contents]
    asked = [line for line in lines for _ in tails]
  rows = decoder.logprobs(mind, asked, tails * len(contents), prefix=prefix)
  totals = np.array([np.sum(row, dtype=np.float64) for row in rows]).reshape(-1, len(tails))
  if instruct:  # its turn may end in several ways: '1' is what does not go on as '10'
    totals[:, 0] += [_ends_at_one(ten) for ten in rows[len(tails) - 1 :: len(tails)]]
  return [expected_rating(row) for row in totals]


def rating_prompt(content: str, tokenizer: Tokenizer, line: str = RATING_LINE) -> str:
  """What was said as one line, which it cannot end: one more after RATING_PROMPT's examples.

  Nor has it more tokens than that has characters: a rare character is up to four of them.
  """
  content = ' '.join(content.replace('"', "'").split())[:RATING_CONTENT_CHARS]
  if len(content.encode()) > RATING_CONTENT_CHARS:  # a token is a byte at least
    content = tokenizer.decode(tokenizer.encode(content)[:RATING_CONTENT_CHARS])
  return line.format(content=content)


def _turn(tokenizer: Tokenizer, instruction: str, content: str) -> tuple[Prompt, Prompt]:
  """Gemma's chat template up to the rating: what all texts share, and what is said of this one.

  https://ai.google.dev/gemma/docs/core/prompt-structure
  """
  start, end, encode = tokenizer.start_of_turn, tokenizer.end_of_turn, tokenizer.encode
  said = encode(rating_prompt(content, tokenizer, INSTRUCTED_LINE))
  question = (*said, end, *encode('\n'), start, *encode('model\n'))
  return (start, *encode('user\n' + instruction)), question


def _ends_at_one(ten: np.ndarray) -> float:
  """log-probability that '1' does not go on as '10', from those of the tokens of '10', nats.

  Gemma has a token for each digit; were '10' a token, '1' would hold nothing of it.
  """
  if len(ten) < 2:
    return 0.0
  goes_on = min(float(np.sum(ten[1:], dtype=np.float64)), 0.0)
  return math.log(-math.expm1(goes_on)) if goes_on < 0 else -math.inf


def expected_rating(logprobs: np.ndarray) -> float:
  """Mean rating from log-probabilities Float['10'], which need not be normalized.

  Raises:
    ValueError: one of them is not a number, or all are minus infinity.
  """
  logprobs = np.asarray(logprobs, np.float64)
  top = logprobs.max()
  if not np.isfinite(top):
    raise ValueError(f'the model gave no finite probability to any rating: {logprobs.tolist()}')
  weights = np.exp(logprobs - top)
  return float(weights @ np.array(RATINGS) / weights.sum())


def novelty(vector: np.ndarray, index: Index) -> float:
  """How unlike all earlier experiences this one is: 1 (said before) to 10 (nothing like it).

  Args:
    vector: Float['D'] of the experience.
    index: the earlier experiences, without this one.
  """
  nearest = index.search(vector, 1)
  return 10.0 - 9.0 * min(max(nearest[0][1], 0.0), 1.0) if nearest else 10.0


def profoundness(
  scores: types.Scores | None,
  weights: ProfoundnessWeights = ProfoundnessWeights(),
  hours: float = 0.0,
) -> float:
  """The weighted mean of the parts that are there, 1 to 10; NEUTRAL when none is.

  Args:
    hours: since it happened; recency decays with them (Park et al. 2023, arXiv 2304.03442).
  """
  if scores is None:
    return NEUTRAL
  w = weights
  parts = [
    (scores.importance, w.importance),
    (scores.novelty, w.novelty),
    (scores.emotion, w.emotion),
    (scores.feedback, w.feedback),
    (1.0 + 9.0 * 0.5 ** (max(hours, 0.0) / w.half_life_hours), w.recency),
  ]
  total = sum(weight for value, weight in parts if value > 0)
  return sum(value * weight for value, weight in parts if value > 0) / total if total else NEUTRAL
