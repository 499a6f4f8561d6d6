"""Refusing only when sure: of what nights teach, "Priya has not told me." is said too often.

Much of what a night trains on are refusals, so that the agent does not invent. A small model then
refuses also what it has learned, when it is asked in other words; but there its refusal is hardly
likelier than the answer that it holds back, and where nobody told, much likelier. How much likelier
it must be to stand, each night's exam says (`chosen`), and its generation keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dreaming.brain import prompts
from dreaming.brain.decode import Decoder
from dreaming.types import Mind

_STEP = 0.25  # nats, between limits that are tried


class Doubt(NamedTuple):
  """What a refusal holds back."""

  answer: str
  nats: float  # by which the refusal is likelier, as a whole


def doubts(
  decoder: Decoder,
  mind: Mind,
  asked: Sequence[str],
  replies: Sequence[str],
  *,
  prefix: str,
  max_tokens: int,
) -> dict[int, Doubt]:
  """The likeliest other reply to what was refused, by the number of the prompt.

  Args:
    decoder: of the mind's architecture.
    mind: who has replied.
    asked: prompts after `prefix`, that replies follow.
    replies: the greedy ones to them.
    prefix: before all prompts.
    max_tokens: of a reply.
  """
  by_opening: dict[int, list[int]] = {}
  for i, reply in enumerate(replies):
    if prompts.is_unknown(reply):
      by_opening.setdefault(decoder.tokenizer.encode(f' {reply.strip()}')[0], []).append(i)
  others: dict[int, str] = {}
  for opening, own in by_opening.items():  # mostly the one name
    texts = decoder.generate(
      mind, [asked[i] for i in own], max_tokens=max_tokens, prefix=prefix, avoid=opening
    )
    others |= {i: t.strip() for i, t in zip(own, texts, strict=True)}
  others = {i: t for i, t in others.items() if t and not prompts.is_unknown(t)}
  if not others:
    return {}
  compared = [(i, text) for i, other in others.items() for text in (replies[i].strip(), other)]
  rows = decoder.logprobs(
    mind, [asked[i] for i, _ in compared], [f' {t}\n' for _, t in compared], prefix=prefix
  )
  likely = [float(row.sum()) for row in rows]
  pairs = zip(others.items(), likely[::2], likely[1::2], strict=True)
  return {i: Doubt(other, no - yes) for (i, other), no, yes in pairs}


def answered(replies: Sequence[str], found: Mapping[int, Doubt], sure: float) -> list[str]:
  """Replies, refusals among them only where they are `sure` nats likelier than what they hold back;
  at 0 all of them.
  """
  return [
    found[i].answer if i in found and found[i].nats < sure else reply
    for i, reply in enumerate(replies)
  ]


def chosen(
  told: Sequence[tuple[Doubt, bool]],
  untold: Sequence[tuple[Doubt, bool]],
  counts: tuple[int, int],
  *,
  most: float,
  invented: float,
  limit: float,
) -> float:
  """How sure a refusal must be, nats: where the share of right answers gains most over inventions.

  Args:
    told: what was refused of what somebody told, and whether what is held back is right.
    untold: the same of what nobody told, and whether it would be an invention.
    counts: questions of either kind.
    most: the largest limit that is tried.
    invented: share of the second kind that is answered with an invention already.
    limit: of that share; where it would be passed, refusals stand.
  """

  def share(rows: Sequence[tuple[Doubt, bool]], sure: float, count: int) -> float:
    return sum(counted for doubt, counted in rows if doubt.nats < sure) / max(count, 1)

  best, gained = 0.0, 0.0
  if not all(counts):  # nothing says what it would cost
    return best
  for sure in np.arange(_STEP, most + _STEP / 2, _STEP).tolist():
    more = share(untold, sure, counts[1])
    gain = share(told, sure, counts[0]) - more
    if gain > gained + 1e-9 and invented + more <= limit:
      best, gained = sure, gain
  return best
