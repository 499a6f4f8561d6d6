"""The four arms of an examination: what is known from the weights, from the diary, from both.

  base       generation 0, diary closed       retrieval  generation 0 with recall
  weights    Blue, diary closed               both       Blue with recall

All arms ask through the prompts of `Agent.reply`. A day that someone brings is asked about here and
nowhere else: its probes never reach a night.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from dreaming import days
from dreaming.days import Day

ARMS: Mapping[str, tuple[bool, bool]] = {  # (Blue rather than the base, recall)
  'base': (False, False),
  'retrieval': (False, True),
  'weights': (True, False),
  'both': (True, True),
}


class Answerer(Protocol):
  """The part of an Agent that is examined."""

  def answer(
    self,
    questions: Sequence[str],
    *,
    user: str,
    now: float,
    generation: int | None,
    retrieval: bool,
  ) -> list[str]: ...

  def rest(self) -> None: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
  """One arm's answers to a day's questions, in the day's order."""

  replies: tuple[str, ...]  # to the probes
  right: tuple[bool, ...]
  unknown_replies: tuple[str, ...]  # to the never-mentioned questions
  invented: tuple[bool, ...]  # answered with one of the user's facts

  @property
  def recall(self) -> float | None:
    """Share of probes answered rightly, 0 to 1; None when there are none."""
    return sum(self.right) / len(self.right) if self.right else None

  @property
  def never_mentioned(self) -> float | None:
    """Share of never-mentioned questions answered with a fact of the day; None without any."""
    return sum(self.invented) / len(self.invented) if self.invented else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examination:
  """A day's four arms."""

  day: Day
  generation: int  # that serves
  arms: Mapping[str, Arm]

  def taken(self) -> list[tuple[tuple[int, ...], float]]:
    """(about, share of its probes that the weights answer) of every fact, in the day's order."""
    facts: dict[tuple[int, ...], list[bool]] = {}
    for probe, right in zip(self.day.probes, self.arms['weights'].right, strict=True):
      facts.setdefault(probe.about, []).append(right)
    return [(about, sum(right) / len(right)) for about, right in facts.items()]

  def plain(self) -> dict[str, Any]:
    """Plain values for result.json: shares by arm, then every answer."""
    arms = self.arms
    answers = [
      {
        'question': probe.question,
        'accepted': list(probe.answers),
        **{name: {'reply': a.replies[i], 'right': a.right[i]} for name, a in arms.items()},
      }
      for i, probe in enumerate(self.day.probes)
    ]
    never = [
      {
        'question': q.question,
        **{n: {'reply': a.unknown_replies[i], 'invented': a.invented[i]} for n, a in arms.items()},
      }
      for i, q in enumerate(self.day.never_mentioned)
    ]
    return {
      'day': str(self.day.path),
      'generation': self.generation,
      'probes': len(self.day.probes),
      'never_mentioned_questions': len(self.day.never_mentioned),
      'recall': {name: arm.recall for name, arm in arms.items()},
      'never_mentioned': {name: arm.never_mentioned for name, arm in arms.items()},
      'answers': answers,
      'never_mentioned_answers': never,
    }


def examine(
  agent: Answerer, day: Day, *, generation: int, names: Iterable[str] = tuple(ARMS)
) -> Examination:
  """Asks a day's questions in the four arms, a moment after its last interaction.

  Args:
    generation: the one that serves; where it is 0, Blue is the base and is not asked again.
    names: of the arms that are asked.
  """
  asked = [p.question for p in day.probes] + [q.question for q in day.never_mentioned]
  now = day.interactions[-1].time + 1
  arms: dict[str, Arm] = {}
  said: dict[tuple[int, bool], list[str]] = {}
  for name in names:
    blue, retrieval = ARMS[name]
    key = (generation if blue else 0, retrieval)
    if key not in said:
      if said:
        agent.rest()  # what is laid out for one arm is room for the next
      said[key] = agent.answer(
        asked, user=day.user, now=now, generation=key[0], retrieval=retrieval
      )
    replies = said[key]
    known, unknown = replies[: len(day.probes)], replies[len(day.probes) :]
    arms[name] = Arm(
      replies=tuple(known),
      right=tuple(days.is_right(r, p.answers) for r, p in zip(known, day.probes, strict=True)),
      unknown_replies=tuple(unknown),
      invented=tuple(
        days.is_right(r, q.wrong) for r, q in zip(unknown, day.never_mentioned, strict=True)
      ),
    )
  return Examination(day=day, generation=generation, arms=arms)
