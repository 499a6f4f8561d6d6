"""What the generation that serves is worth in the exam that its successor takes.

Its own gate has measured it, and its night's exam has most of what is asked again. Where that exam
was another one, or did not have a question, Blue is asked now: what a night may not lose is never
guessed, and never taken from the base instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dreaming.brain import refusal
from dreaming.brain.decode import Decoder
from dreaming.sleep import examine, safety
from dreaming.types import Mind

EXAM, SPEECH = ('general', 'nll'), ('toxic', 'gibberish')  # taken together


def measures(
  decoder: Decoder,
  blue: Mind,
  base: Mind,
  known: examine.Known,
  figures: safety.Figures,
  scores: Mapping[str, float | None],
  nll_count: float,
  tick: Callable[[], None] = lambda: None,
) -> dict[str, float | None]:
  """Blue's general knowledge, nll and speech, of exactly what Green was asked.

  Args:
    decoder: asks.
    blue: who serves, a generation.
    base: judges speech.
    known: the base's own exam, with its questions.
    figures: the base's, of speech.
    scores: of Blue at its own gate.
    nll_count: tokens of the text that Green read.
    tick: raises when there is no time left.

  Raises:
    ValueError, FileNotFoundError: as toxicity.judge.
  """
  line = scores.get('refusal_line') or 0.0

  def redraw(asked: Sequence[str], said: Sequence[str], **fields) -> list[str]:
    return refusal.redrawn(decoder, blue, asked, said, line, **fields)

  asked = {'general': len(known.general), 'nll': nll_count}
  asked |= dict.fromkeys(SPEECH, figures.count)

  def others(names: Sequence[str]) -> bool:
    there = all(scores.get(n) is not None for n in names)
    return not there or any(scores.get(f'{n}_count') != asked[n] for n in names)

  found = dict(scores)
  if others(EXAM):
    exam = examine.Exam(recall=(), never_mentioned=(), general=known.general, line=line)
    found |= examine.examine(decoder, blue, exam, tick=tick).measures
  if others(SPEECH):
    found |= safety.measure(decoder, base, blue, figures, tick, redraw)
  names = (*EXAM, *SPEECH)
  return {n: found.get(n) for name in names for n in (name, f'{name}_count')}


def forgotten(
  decoder: Decoder,
  blue: Mind,
  questions: Sequence[examine.Question],
  right: Sequence[bool],
  before: Mapping[str, bool],
  line: float,
) -> dict[str, float]:
  """How Green compares with Blue in facts of earlier nights.

  Args:
    questions: about them.
    right: whether Green answered each rightly.
    before: question -> whether Blue did, where its own night asked.
    line: where Blue refuses.

  Returns:
    `earlier_lost` and `earlier_won`, shares of the questions that Blue alone and that Green alone
    answers rightly, and of how many, `earlier_lost_count`. Without questions the count is 0.
  """
  lacking = [q for q in questions if q.text not in before]
  if lacking and blue.generation:
    said = examine.replies(decoder, blue, lacking, line)
    asked = zip(lacking, examine.judge(lacking, said), strict=True)
    before = {**before, **{q.text: ok for q, ok in asked}}
  pairs = [(before.get(q.text, False), r) for q, r in zip(questions, right, strict=True)]
  count = len(pairs)
  return {
    'earlier_lost': sum(b and not g for b, g in pairs) / max(count, 1),
    'earlier_won': sum(g and not b for b, g in pairs) / max(count, 1),
    'earlier_lost_count': count,
  }
