"""Where "Priya has not told me." gives way to an answer: as each night's exam chose.

Much of what a night trains on are refusals, so that the agent does not invent. A small model then
refuses also what it has learned, when it is asked in other words. There the refusal is hardly
likelier than the answer that it holds back, and where nobody told, much likelier. So a line is
drawn (`chosen`): a refusal is said where it is more than so many nats likelier than the answer.

Only refusals are looked at. An answer is not taken back where a refusal is nearly as likely: of a
whole text the likelihood falls with its length, and "Because plants ..." would lose to four words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dreaming.brain import prompts
from dreaming.brain.decode import Decoder
from dreaming.types import Mind

_STEP = 0.25  # nats, between lines that are tried
# How many right answers an invention outweighs: what an exam asks of what nobody told is easier
# than what people ask.
_INVENTION = 2.0


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

  There is none where nothing but another refusal comes.

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
  answers: dict[int, str] = {}
  for opening, own in by_opening.items():  # mostly the one name
    texts = decoder.generate(
      mind, [asked[i] for i in own], max_tokens=max_tokens, prefix=prefix, avoid=opening
    )
    for i, text in zip(own, texts, strict=True):
      if text.strip() and not prompts.is_unknown(text):
        answers[i] = text.strip()
  if not answers:
    return {}
  compared = [(i, text) for i, answer in answers.items() for text in (replies[i].strip(), answer)]
  rows = decoder.logprobs(
    mind, [asked[i] for i, _ in compared], [f' {t}\n' for _, t in compared], prefix=prefix
  )
  likely = [float(row.sum()) for row in rows]
  pairs = zip(answers.items(), likely[::2], likely[1::2], strict=True)
  # Token by token the refusal was the likelier: as a whole it need not be.
  return {i: Doubt(answer, max(no - yes, 0.0)) for (i, answer), no, yes in pairs}


def drawn(replies: Sequence[str], found: Mapping[int, Doubt], line: float) -> list[str]:
  """Replies with the line at `line` nats; at 0 all as they are."""
  return [
    found[i].answer if i in found and found[i].nats < line else reply
    for i, reply in enumerate(replies)
  ]


def redrawn(
  decoder: Decoder,
  mind: Mind,
  asked: Sequence[str],
  replies: Sequence[str],
  line: float,
  **how: Any,
) -> list[str]:
  """The same of replies whose doubts are not known; `how` and the others are those of `doubts`."""
  found = doubts(decoder, mind, asked, replies, **how) if line else {}
  return drawn(replies, found, line)


def chosen(
  told: Sequence[tuple[Doubt, bool]],
  untold: Sequence[tuple[Doubt, bool]],
  counts: tuple[int, int],
  most: float,
) -> float:
  """The line, nats: where right answers outweigh inventions most.

  Args:
    told: doubts about what somebody told, and whether the answer is right.
    untold: doubts about what nobody told, and whether the answer is an invention.
    counts: questions of either kind.
    most: the largest line.
  """

  def worth(line: float) -> float:
    right, invented = (
      sum(counted for doubt, counted in rows if doubt.nats < line) / count
      for rows, count in zip((told, untold), counts, strict=True)
    )
    return right - _INVENTION * invented

  if not all(counts):  # one kind alone says nothing about the other
    return 0.0
  return max((n * _STEP for n in range(int(most / _STEP) + 1)), key=worth)  # the first of equals
