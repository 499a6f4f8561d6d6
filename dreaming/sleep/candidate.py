"""The whole examination of one candidate: what is measured of a Green, in which order, in time.

Cheap measures come first: weights that are no numbers are not asked anything. A measure that fails
or comes too late is a problem, which keeps the gate closed by name; it never ends the night with an
error, and never counts as passed.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apsw
import jax

from dreaming.brain import refusal
from dreaming.brain.decode import Decoder
from dreaming.identity import bluegreen, drift
from dreaming.sleep import artifacts, examine, gate, incumbent, safety
from dreaming.sleep.outcome import finite
from dreaming.types import Experience, Lora, Mind

_EXAM = ('recall', 'never_mentioned', 'general', 'nll')  # what examine.examine takes at once
_LOST = 'earlier_lost'


class Sitting:
  """Takes measures while there is time.

  Args:
    max_seconds: for all of them.
    clock: seconds.
  """

  def __init__(self, max_seconds: float, clock: Callable[[], float] = time.monotonic):
    self._limit, self._clock, self._start = max_seconds, clock, clock()
    self.measures: dict[str, float] = {}
    self.problems: dict[str, str] = {}

  def tick(self) -> None:
    """Raises TimeoutError when the time is over."""
    if (spent := self._clock() - self._start) > self._limit:
      raise TimeoutError(f'timed out after {spent:.0f} s, limit {self._limit:g} (gate.max_seconds)')

  def take(self, names: Sequence[str], measure: Callable[[], Mapping[str, float]]) -> None:
    """Notes what `measure` gives, or why `names` were not measured."""
    try:
      self.tick()
      found = dict(measure())
      self.tick()  # what came too late is not taken
    except TimeoutError as e:
      self._fail(names, str(e))
    except FileNotFoundError as e:  # a judge that is not installed
      self._fail(names, f'failed: {e}')
    except (MemoryError, OSError, apsw.Error, jax.errors.JaxRuntimeError):
      raise  # the machine's fault, not Green's: the night goes on here when it is called again
    except Exception as e:  # whatever a judge does wrong, its measure is missing
      self._fail(names, f'failed: {type(e).__name__}: {" ".join(str(e).split())}')
    else:
      self.measures |= found
      for name in names:
        if (value := found.get(name)) is not None and value - value:  # nan, or infinite
          self.problems[name] = f'is no number ({value})'

  def skip(self, names: Sequence[str], why: str) -> None:
    self._fail(names, why)

  def _fail(self, names: Sequence[str], why: str) -> None:
    self.problems |= dict.fromkeys(names, why)


def examine_green(
  *,
  decoder: Decoder,
  base: bluegreen.Base,
  base_mind: Mind,
  ground: bluegreen.Base,
  blue: Mind,
  adapter: Lora,
  masks: Any,
  scale: float,
  exam: examine.Exam,
  known: examine.Known,
  told: Callable[[], Sequence[safety.Secret]],
  scores: Mapping[str, float | None],
  before: Mapping[str, bool],
  cache: pathlib.Path,
  config: gate.GateConfig,
  whole: bool = False,
) -> dict[str, Any]:
  """What the diary keeps of an exam: measures, problems, replies; plain values.

  Args:
    decoder: asks.
    base: the frozen weights; `base_mind` speaks with them.
    ground: what the adapter is added to.
    blue: who serves.
    adapter: Green's, with its masks and scale.
    exam: the night's questions.
    known: the base's own exam.
    told: gives the secrets that must not come out.
    scores: of Blue at its own gate, {} where that is the base.
    before: question -> whether Blue answered it rightly, in its own night's exam.
    cache: where the base's figures are kept.
    config: of the gate.
    whole: measures everything, also where the gate will stay closed in any case.
  """
  sitting = Sitting(config.max_seconds)
  report = examine.Report(measures={}, replies={})
  figures: safety.Figures | None = None
  green = bluegreen.wake(ground, adapter, masks, scale=scale, number=blue.generation + 1)
  base_measures = examine.examine_base(decoder, base_mind, exam, known)
  blue_measures: dict[str, float | None] = {}
  decoder.forget(base_mind)  # what it was laid out in is room for Green

  def of_weights() -> dict[str, float]:
    beside = safety.nonfinite(green.params, base.params)
    return {'nonfinite': safety.nonfinite(adapter) + beside}

  def of_distance() -> dict[str, float]:
    return {
      'distance': drift.distance(green.params, base.params, base.arch),
      'change': drift.distance(green.params, blue.params, base.arch),
    }

  def of_exam() -> dict[str, float]:
    nonlocal report
    report = examine.examine(decoder, green, exam, tick=sitting.tick)
    # A logit that is no number makes every probability of its place none.
    broken = sum(w - w != 0 for w in report.windows)
    return report.measures | {'nonfinite': sitting.measures['nonfinite'] + broken}

  def of_base() -> dict[str, float]:
    nonlocal figures
    figures = safety.figures(decoder, base_mind, base.digest, cache)
    base_measures.update(figures.measures)
    ends = gate.relative(report.windows, figures.windows, config.confidence)
    return dict(zip(('nll_increase_low', 'nll_increase_high'), ends, strict=True))

  def of_blue() -> dict[str, float]:
    right = [ok for _, ok in report.replies.get('earlier', ())]
    line = scores.get('refusal_line') or 0.0
    found = incumbent.forgotten(decoder, blue, exam.earlier, right, before, line)
    if blue.generation and figures is not None:
      how = scores, sitting.measures['nll_count'], sitting.tick
      blue_measures.update(incumbent.measures(decoder, blue, base_mind, known, figures, *how))
    return found

  def redraw(asked: Sequence[str], said: Sequence[str], **how: Any) -> list[str]:
    line = sitting.measures.get('refusal_line', 0.0)
    return refusal.redrawn(decoder, green, asked, said, line, **how)

  def of_speech() -> dict[str, float]:
    return safety.measure(decoder, base_mind, green, figures, sitting.tick, redraw)

  def of_secrets() -> dict[str, float]:
    some = told()
    return {
      'leaked': safety.leaked(decoder, green, base_mind, some, redraw), 'leaked_count': len(some)
    }  # fmt: skip

  try:
    sitting.take(('nonfinite',), of_weights)
    if broken := sitting.measures.get('nonfinite', 'unknown'):
      why = f'was not asked for: {broken} values of its weights are no numbers'
      sitting.skip((*_EXAM, 'toxic', 'gibberish', 'leaked', 'distance', 'change', _LOST), why)
    else:
      sitting.take(('distance', 'change'), of_distance)
      sitting.take(_EXAM, of_exam)
      sitting.take(('nll', 'toxic', 'gibberish'), of_base)
      if 'nll_count' in sitting.measures:
        sitting.take((_LOST, 'blue'), of_blue)
      else:
        sitting.skip((_LOST, 'blue'), 'was not asked for: Green has no exam to compare')
      rival = blue_measures if blue.generation else base_measures
      seen = gate.Evidence(measures=sitting.measures, base=base_measures, blue=rival)
      if gate.beyond(seen, config) and not whole:  # it takes the longest, and changes nothing
        sitting.skip(('leaked', 'toxic', 'gibberish'), 'was not asked for any more')
      else:
        sitting.take(('leaked',), of_secrets)
        if figures is not None:
          sitting.take(('toxic', 'gibberish'), of_speech)
  finally:
    decoder.forget(green)
  asked = {
    'recall': exam.recall, 'never_mentioned': exam.never_mentioned, 'earlier': exam.earlier
  }  # fmt: skip
  return {
    'adapter': artifacts.digest(adapter),
    'measures': finite(sitting.measures),
    'problems': sitting.problems,
    'base': finite(base_measures),
    'blue': finite(blue_measures if blue.generation else base_measures),
    'missed': examine.missed(exam.recall, report) if 'recall' in report.replies else [],
    'replies': {  # measure -> [question, reply, whether it counted]
      name: [[q.text, *r] for q, r in zip(questions, report.replies[name], strict=True)]
      for name, questions in asked.items()
      if name in report.replies
    },
  }


def fits(exam: Mapping[str, Any], adapter: Lora) -> bool:
  """Whether an exam was that of this very adapter."""
  return 'blue' in exam and exam.get('adapter') == artifacts.digest(adapter)


def evidence(exam: Mapping[str, Any], adapter: Lora) -> gate.Evidence:
  """What the gate looks at: an exam as the diary has it, and the adapter that would be promoted."""
  return gate.Evidence(
    measures=exam.get('measures', {}), base=exam.get('base', {}), blue=exam.get('blue', {}),
    problems=exam.get('problems', {}), measured=exam.get('adapter', ''),
    adapter=artifacts.digest(adapter),
  )  # fmt: skip


def secrets_told(diary: Any, user: str, limit: int = 2000) -> list[safety.Secret]:
  """Of the latest experiences of a diary, archived ones among them."""
  latest: list[Experience] = diary.experiences(newest_first=True, limit=limit, archived=None)
  return safety.secrets(latest, user)
