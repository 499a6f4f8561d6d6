"""Belief: which readings of a message are true, by all that is known of them.

No single likelihood of a small model tells a true reading from a false one: statements differ in
how easy they are to say, questions in how easy they are to answer. A logistic regression weighs
them, fitted on labelled messages: of invented people, and of the first shipped day, on which
recipes are chosen too; never of the second (docs/experiments.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from dreaming.sleep.bank import Relation, fill


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
  """What a message tells."""

  relation: Relation
  user: str
  person: str  # '' when it is about the user
  value: str
  source: int  # experience id
  score: float  # mean log-likelihood of its statements after the message, nats a token
  gain: float  # the same minus that without the message
  channel: float = 0.0  # log-likelihood of the message after it, over that after its value, nats
  kind: float = 0.0  # log-probability that the value is of the relation's type, nats
  near: float = 0.0  # of the message and its value to the relation's, by static vectors
  shared: float = 0.0  # how rare the words are that the relation and the message share, nats
  apposed: bool = False  # the message puts a cue of the relation beside the value: "my sister Ana"

  @property
  def key(self) -> tuple[str, str]:
    """Facts with one key exclude each other: the newer one wins."""
    return self.relation.name, self.person

  def fill(self, text: str) -> str:
    return fill(text, user=self.user, person=self.person, value=self.value)


@dataclasses.dataclass(frozen=True)
class Checked:
  """What the reading examination says of a fact."""

  passed: list[str]  # its questions, without those whose answer the source does not make likely
  failed: list[str]
  gain: float  # what the source adds to the answers, mean of those that were asked, nats a token
  answer: float = 0.0  # log-likelihood of the answers with the source, the same mean
  seen: Mapping[str, float] = dataclasses.field(default_factory=dict)  # Reader.evidence


# Log-odds for each unit of a feature: benchmarks/reading.py --fit makes them, of labelled messages.
WEIGHTS: Mapping[str, float] = {
  'bias': -3.5, 'score': 0.93, 'gain': 0.51, 'channel': 0.18, 'near': 2.5, 'shared': 0.25,
  'apposed': 4.5, 'kind': 0.35, 'any': -0.8, 'job': 1.0, 'animal': 1.4, 'reading': 0.14,
  'answer': 0.17,
}  # fmt: skip


# The same with what the reader thinks (reader.py), 'odds' being the log-odds without it:
# benchmarks/coverage.py --weigh.
TAUGHT: Mapping[str, float] = {
  'bias': 1.74, 'odds': 0.4, 'read': 0.12, 'unread': -0.19, 'asked': 1.47, 'said': 0.57,
}  # fmt: skip


def features(fact: Fact, checked: Checked | None = None) -> dict[str, float]:
  """What is known of a reading; what goes beyond the usual says no more. See Fact for units."""
  kind = fact.relation.type.split('|')[0]  # a job is told of somebody, anything of anything
  out = {
    'bias': 1.0,
    'score': fact.score,
    'gain': fact.gain,
    'channel': _within(fact.channel, -8, 8),
    'near': fact.near,
    'shared': _within(fact.shared, 0, 12),
    'apposed': float(fact.apposed),
    'kind': _within(fact.kind, -4, 0),
    **{name: float(kind == name) for name in ('any', 'job', 'animal')},
  }
  if checked is not None:
    out['reading'] = _within(checked.gain, -3, 8)
    out['answer'] = _within(checked.answer, -8, 0)
  return out


def _within(x: float, low: float, high: float) -> float:
  return max(low, min(x, high))


def rank(fact: Fact) -> float:
  """Log-odds that a fact is told, before its questions are asked."""
  return sum(WEIGHTS[name] * x for name, x in features(fact).items())


def of(fact: Fact, checked: Checked) -> float:
  """Log-odds that a fact is told, by all that is known of it."""
  found = sum(WEIGHTS[name] * x for name, x in features(fact, checked).items())
  if not checked.seen:
    return found
  known = {'bias': 1.0, 'odds': found} | checked.seen
  return sum(TAUGHT[name] * x for name, x in known.items())


def settle(
  checked: Sequence[tuple[Fact, Checked]], threshold: float
) -> tuple[list[tuple[Fact, Checked]], list[tuple[Fact, str]]]:
  """(facts that are believed, with their questions; facts that are not, with the reason).

  A value of a message has one reading, and a relation one value in a message: the likeliest.
  """
  believed: list[tuple[Fact, Checked]] = []
  misread: list[tuple[Fact, str]] = []
  for fact, result in sorted(checked, key=lambda x: -of(*x)):
    odds = of(fact, result)
    same = [f for f, _ in believed if f.source == fact.source]
    readings = [f for f in same if f.value.casefold() == fact.value.casefold()]
    rivals = [f for f in same if f.key == fact.key]  # "the 12th" beside "the 19th of March"
    if odds < threshold or not result.passed:
      misread.append((fact, f'log-odds {odds:.1f} that it is told'))
    elif rivals:
      misread.append((fact, f'{rivals[0].value} fits {fact.relation.name} better'))
    elif readings:
      misread.append((fact, f'{readings[0].relation.name} fits {fact.value} better'))
    else:
      believed.append((fact, result))
  return believed, misread
