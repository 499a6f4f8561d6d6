"""Measures what a mind knows. What else a Green is measured for: safety.py; who decides: gate.py.

Four measures, all without retrieval:

  recall           the night's facts, asked in words that no dream trained on
  never_mentioned  questions that nobody answered: the share answered with one of the night's facts
  general          general knowledge: all questions, whatever the base makes of them
  nll              of generic text, nats a token

Questions are answered as Green will answer them: the first two choose its `refusal_line`, see
brain/refusal.py.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from dreaming import days
from dreaming.brain import prompts, refusal
from dreaming.brain.decode import Decoder
from dreaming.brain.tokenizer import Tokenizer
from dreaming.sleep import artifacts
from dreaming.types import Dream, Mind, Status

FILES = pathlib.Path(__file__).parent / 'exam'
ANSWER_TOKENS = 16
_WINDOW = 250  # tokens of generic text at a time: one shape, one compilation
_ROWS = 8  # windows at a time

# ---- The exam ----


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  text: str
  answers: tuple[str, ...]  # what is right; of a never-mentioned question, what is an invention
  sources: tuple[int, ...] = ()  # experiences that tell the answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exam:
  """What a night's Green is asked. `earlier` are facts of earlier nights: incumbent.py."""

  recall: tuple[Question, ...]
  never_mentioned: tuple[Question, ...]
  general: tuple[Question, ...]
  earlier: tuple[Question, ...] = ()
  firm: tuple[int, ...] = ()  # of `general`, what the base is sure of: measured, not gated
  most_line: float = 0.0  # nats, see refusal.chosen; 0: refusals are said as they come
  line: float = 0.0  # or where it was chosen already


def held_out(dreams: Iterable[Dream]) -> tuple[tuple[Question, ...], tuple[Question, ...]]:
  """(recall, never-mentioned) questions of a night's own dreams, in styles that never train."""
  kept = [d for d in dreams if d.status == Status.KEPT]
  recall = tuple(
    Question(text=p.question, answers=(p.answer,), sources=d.sources)
    for d in kept
    if d.style == 'exam'
    for p in d.pairs
  )
  values = tuple(dict.fromkeys(q.answers[0] for q in recall))
  unknown = tuple(
    Question(text=p.question, answers=values)
    for d in kept
    if d.style == 'exam_unknown'
    for p in d.pairs
  )
  return recall, unknown


# ---- Asking ----


def ask(
  decoder: Decoder,
  mind: Mind,
  questions: Sequence[str],
  *,
  form: Callable[[str], str] = prompts.question,
  prefix: str = prompts.ANSWER_PREFIX,
  max_tokens: int = ANSWER_TOKENS,
) -> list[str]:
  """Greedy replies; `form` makes a prompt of a question, `prefix` comes before all of them."""
  asked = [form(q) for q in questions]
  replies = decoder.generate(mind, asked, max_tokens=max_tokens, prefix=prefix) if asked else []
  return [r.strip() for r in replies]


def replies(decoder: Decoder, mind: Mind, questions: Sequence[Question], line: float) -> list[str]:
  """As `ask`, with its refusals drawn at `line`."""
  said = ask(decoder, mind, [q.text for q in questions])
  if not line:
    return said
  forms = [prompts.question(q.text) for q in questions]
  how = {'prefix': prompts.ANSWER_PREFIX, 'max_tokens': ANSWER_TOKENS}
  return refusal.redrawn(decoder, mind, forms, said, line, **how)


def judge(questions: Sequence[Question], replies: Sequence[str]) -> list[bool]:
  """Whether each reply gives one of its question's answers.

  A refusal does not: it has the user's name in it, which may be an answer.
  """
  pairs = zip(questions, replies, strict=True)
  return [not prompts.is_unknown(r) and days.is_right(r, q.answers) for q, r in pairs]


def answer_losses(decoder: Decoder, mind: Mind, questions: Sequence[Question]) -> np.ndarray:
  """Nats a token of each right answer, Float['Q']. Their median follows recall, the mean less."""
  asked = [prompts.question(q.text) for q in questions]
  answers = [f' {q.answers[0]}\n' for q in questions]
  rows = decoder.logprobs(mind, asked, answers, prefix=prompts.ANSWER_PREFIX) if asked else []
  return np.array([-float(np.mean(row)) for row in rows])


def generic_nll(decoder: Decoder, mind: Mind, *, quick: bool = False) -> tuple[float, int]:
  """(nats a token, tokens) of generic text that no night trains on; `quick` reads a third of it."""
  nats, count = window_losses(decoder, mind, quick=quick)
  return sum(nats) / count, count


def window_losses(decoder: Decoder, mind: Mind, *, quick: bool = False) -> tuple[list[float], int]:
  """(nats of each piece of that text, tokens of all of them)."""
  limit = min(_WINDOW, decoder.cache_length - 2)
  texts = _windows(decoder.tokenizer, _generic(), limit)[:: 3 if quick else 1]
  nats, count = [], 0
  for some in np.array_split(np.arange(len(texts)), -(-len(texts) // _ROWS)):
    rows = [texts[i] for i in some]
    for row in decoder.logprobs(mind, [''] * len(rows), rows):
      nats.append(-float(np.sum(row, dtype=np.float64)))
      count += len(row)
  return nats, count


def _windows(tokenizer: Tokenizer, text: str, limit: int) -> list[str]:
  """The text cut between words into pieces of at most about `limit` tokens."""
  out, room = [''], limit
  for word in re.findall(r'\s*\S+', text):
    size = len(tokenizer.encode(word))
    if size > room and out[-1]:
      out, room = [*out, ''], limit
    out[-1] += word
    room -= size
  return out


# ---- Measuring ----


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
  """What the base itself gets right: the measure of what a night may not lose."""

  general: tuple[Question, ...]  # all of them, or what is lost by luck would not be offset by luck
  general_right: float  # the base's share of those
  firm: tuple[int, ...]  # of which it gets these right in three orders of the examples
  nll: float
  quick_nll: float  # of the third of the text that a quick look reads


def known(decoder: Decoder, base: Mind, base_digest: str, cache: pathlib.Path) -> Known:
  """The base's own exam, taken once for a base, then read from the cache."""
  questions = _general()
  text = [base_digest, _generic(), [dataclasses.astuple(q) for q in questions]]
  examples = prompts.ANSWER_PREFIX.strip().split('\n\n')
  prefixes = [prompts.ANSWER_PREFIX]
  prefixes += ['\n\n'.join(o) + '\n\n' for o in (examples[::-1], examples[2:] + examples[:2])]
  text += [prefixes, prompts.question(''), ANSWER_TOKENS, decoder.cache_length]
  key = hashlib.sha256(json.dumps(text).encode()).hexdigest()[:16]
  path = cache / 'exam' / f'{key}.sealed'
  try:
    return _known(questions, **artifacts.kept(path))
  except (OSError, ValueError, KeyError, TypeError, IndexError):
    pass  # none yet, or damaged: taken anew
  asked = [q.text for q in questions]
  tries = [judge(questions, ask(decoder, base, asked, prefix=p)) for p in prefixes]
  firm = [i for i, by_prefix in enumerate(zip(*tries, strict=True)) if all(by_prefix)]
  nll, quick_nll = (generic_nll(decoder, base, quick=quick)[0] for quick in (False, True))
  found = {'right': sum(tries[0]), 'firm': firm, 'nll': nll, 'quick_nll': quick_nll}
  artifacts.keep(path, found)
  return _known(questions, **found)


def _known(
  questions: Sequence[Question], *, right: int, firm: list[int], nll: float, quick_nll: float
) -> Known:
  return Known(
    general=tuple(questions),
    general_right=right / len(questions),
    firm=tuple(firm),
    nll=float(nll),
    quick_nll=float(quick_nll),
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """`measures` by name: shares from 0 to 1, nats, and with `_count` of how many they are."""

  measures: Mapping[str, float]
  replies: Mapping[str, tuple[tuple[str, bool], ...]]  # measure -> (reply, counted) by question
  windows: tuple[float, ...] = ()  # nats of each piece of the generic text


def examine(
  decoder: Decoder, mind: Mind, exam: Exam, tick: Callable[[], None] = lambda: None
) -> Report:
  """All measures of one mind. What has no question has no measure.

  Args:
    decoder: asks.
    mind: who is asked.
    exam: the questions.
    tick: called before each part; raises when there is no time left.
  """
  measures: dict[str, float] = {}
  replies: dict[str, tuple[tuple[str, bool], ...]] = {}
  asked = {
    'recall': exam.recall,
    'never_mentioned': exam.never_mentioned,
    'general': exam.general,
    'earlier': exam.earlier,
  }
  how = {'prefix': prompts.ANSWER_PREFIX, 'max_tokens': ANSWER_TOKENS}
  said: dict[str, list[str]] = {}
  forms: dict[str, list[str]] = {}
  for name, questions in asked.items():
    tick()
    said[name] = ask(decoder, mind, [q.text for q in questions])
    forms[name] = [prompts.question(q.text) for q in questions]
    if name == 'never_mentioned' and exam.most_line and exam.recall and questions:
      both = {
        n: refusal.doubts(decoder, mind, forms[n], said[n], **how)
        for n in ('recall', 'never_mentioned')
      }
      measures['refusal_line'] = line = _line(exam, both)
      said |= {n: refusal.drawn(said[n], found, line) for n, found in both.items()}
    elif line := measures.get('refusal_line', exam.line):
      said[name] = refusal.redrawn(decoder, mind, forms[name], said[name], line, **how)
  for name, questions in asked.items():
    if questions:
      counted = judge(questions, said[name])
      replies[name] = tuple(zip(said[name], counted, strict=True))
      measures[name] = sum(counted) / len(counted)
      measures[f'{name}_count'] = len(counted)
  decoder.forget(mind)  # what it was laid out in to speak is room to read in
  if exam.firm:
    kept = [replies['general'][i][1] for i in exam.firm]
    measures['general_kept'] = sum(kept) / len(kept)
  tick()
  if exam.recall:
    measures['median_loss'] = float(np.median(answer_losses(decoder, mind, exam.recall)))
  windows, count = window_losses(decoder, mind)
  measures['nll'], measures['nll_count'] = sum(windows) / count, count
  return Report(measures=measures, replies=replies, windows=tuple(windows))


def _line(exam: Exam, found: Mapping[str, Mapping[int, refusal.Doubt]]) -> float:
  """Where Green is to refuse, by its own exam: all its answers there are judged so."""

  def judged(name: str, questions: Sequence[Question]) -> list[tuple[refusal.Doubt, bool]]:
    own = found[name]
    counted = judge([questions[i] for i in own], [d.answer for d in own.values()])
    return list(zip(own.values(), counted, strict=True))

  told, untold = exam.recall, exam.never_mentioned
  rows = judged('recall', told), judged('never_mentioned', untold)
  return refusal.chosen(*rows, (len(told), len(untold)), exam.most_line)


def missed(questions: Sequence[Question], report: Report) -> list[int]:
  """Experiences of whose questions less than half were answered rightly."""
  asked: dict[int, list[bool]] = {}
  for question, (_, right) in zip(questions, report.replies.get('recall', ()), strict=True):
    for source in question.sources:
      asked.setdefault(source, []).append(right)
  return sorted(i for i, right in asked.items() if 2 * sum(right) < len(right))


def examine_base(decoder: Decoder, base: Mind, exam: Exam, known: Known) -> dict[str, float]:
  """The base's measures; what does not depend on the night is taken from `known`."""
  measures = {'general': known.general_right, 'general_count': len(known.general)}
  measures['nll'] = known.nll
  if exam.recall:
    right = judge(exam.recall, ask(decoder, base, [q.text for q in exam.recall]))
    measures.update(recall=sum(right) / len(right), recall_count=len(right))
  return measures


# ---- Files ----


@functools.cache
def _general() -> tuple[Question, ...]:
  rows = json.loads((FILES / 'general.json').read_text(encoding='utf-8'))
  return tuple(Question(text=r['question'], answers=tuple(r['answers'])) for r in rows)


def generic_text() -> str:
  """What the nll is measured on."""
  return _generic()


@functools.cache
def _generic() -> str:
  return (FILES / 'generic.txt').read_text(encoding='utf-8').strip()
