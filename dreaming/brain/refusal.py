"""Where "Priya has not told me." is said in the place of an answer: as each night's exam chose.

Much of what a night trains on are refusals, so that the agent does not invent. Where its weights
then put the line between both differs from night to night: mostly they refuse also what they have
learned, when it is asked in other words. There the refusal is hardly likelier than the answer that
it holds back, and where nobody told, much likelier. So the line is drawn anew (`chosen`): a refusal
is said where it is more than so many nats likelier than the answer.
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
_LEAST = 1e-6  # nats, by which what was said is at least the likelier


class Doubt(NamedTuple):
  """A question's answer, and its refusal."""

  answer: str
  refusal: str
  nats: float  # by which the refusal is likelier, as a whole; not below 0 where it was said


def doubts(
  decoder: Decoder,
  mind: Mind,
  asked: Sequence[str],
  replies: Sequence[str],
  *,
  user: str,
  prefix: str,
  max_tokens: int,
) -> dict[int, Doubt]:
  """For each reply, by its number, an answer and a refusal, of which one was said.

  There is none where nothing but a refusal comes, and of an answer that was cut off: its end is
  unlikely, whatever it says.

  Args:
    decoder: of the mind's architecture.
    mind: who has replied.
    asked: prompts after `prefix`, that replies follow.
    replies: the greedy ones to them.
    user: who has not told.
    prefix: before all prompts.
    max_tokens: of a reply.
  """
  pairs: dict[int, tuple[str, str]] = {}
  by_opening: dict[int, list[int]] = {}
  for i, reply in enumerate(replies):
    if prompts.is_unknown(reply):
      by_opening.setdefault(decoder.tokenizer.encode(f' {reply.strip()}')[0], []).append(i)
    elif 0 < len(decoder.tokenizer.encode(reply)) < max_tokens:
      pairs[i] = reply.strip(), prompts.UNKNOWN.format(user=user)
  for opening, own in by_opening.items():  # mostly the one name
    texts = decoder.generate(
      mind, [asked[i] for i in own], max_tokens=max_tokens, prefix=prefix, avoid=opening
    )
    for i, text in zip(own, texts, strict=True):
      if text.strip() and not prompts.is_unknown(text):
        pairs[i] = text.strip(), replies[i].strip()
  if not pairs:
    return {}
  compared = [(i, text) for i, pair in pairs.items() for text in pair]
  rows = decoder.logprobs(
    mind, [asked[i] for i, _ in compared], [f' {t}\n' for _, t in compared], prefix=prefix
  )
  likely = [float(row.sum()) for row in rows]
  found = {}
  for (i, pair), yes, no in zip(pairs.items(), likely[::2], likely[1::2], strict=True):
    # Token by token the likelier was said: as a whole it need not be.
    said_no = prompts.is_unknown(replies[i])
    found[i] = Doubt(*pair, max(no - yes, 0.0) if said_no else min(no - yes, -_LEAST))
  return found


def drawn(replies: Sequence[str], found: Mapping[int, Doubt], line: float) -> list[str]:
  """Replies with the line at `line` nats; those without a doubt as they are."""
  return [
    reply if i not in found else found[i].answer if found[i].nats < line else found[i].refusal
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
  """The same of replies whose doubts are not known; `how` and the others are those of `doubts`.

  Only what the line can change is looked at: at 0 nothing.
  """
  which = [i for i, reply in enumerate(replies) if line and prompts.is_unknown(reply) == (line > 0)]
  some = [replies[i] for i in which]
  found = doubts(decoder, mind, [asked[i] for i in which], some, **how) if which else {}
  new = dict(zip(which, drawn(some, found, line), strict=True))
  return [new.get(i, reply) for i, reply in enumerate(replies)]


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
    most: nats that the line may be away from 0, where all is said as it comes.
  """

  def worth(line: float) -> float:
    right, invented = (
      sum(counted for doubt, counted in rows if doubt.nats < line) / count
      for rows, count in zip((told, untold), counts, strict=True)
    )
    return right - _INVENTION * invented

  if not all(counts):  # one kind alone says nothing about the other
    return 0.0
  steps = int(most / _STEP)
  lines = [n * _STEP for n in range(-steps, steps + 1)]
  return max(sorted(lines, key=abs), key=worth)  # of equals the nearest to 0
