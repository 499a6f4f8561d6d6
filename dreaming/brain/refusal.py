"""Refusing only when sure: of what nights teach, "Priya has not told me." is said too often.

A third of what a night trains on are refusals, so that the agent does not invent. A small model
then refuses also what it has learned, when it is asked in other words; but there its refusal is
hardly likelier than the answer that it holds back, and where nobody told, much likelier.
"""

from __future__ import annotations

from collections.abc import Sequence

from dreaming.brain import prompts
from dreaming.brain.decode import Decoder
from dreaming.types import Mind


def reconsidered(
  decoder: Decoder,
  mind: Mind,
  asked: Sequence[str],
  replies: Sequence[str],
  *,
  prefix: str,
  max_tokens: int,
  sure: float,
) -> dict[int, str]:
  """What is said in the place of refusals, by the number of the prompt.

  Args:
    decoder: of the mind's architecture.
    mind: who has replied.
    asked: prompts after `prefix`, that replies follow.
    replies: the greedy ones to them.
    prefix: before all prompts.
    max_tokens: of a reply.
    sure: nats by which a refusal must be likelier than the likeliest other reply, as a whole, to
      stand; 0: every one stands.
  """
  refused = [i for i, reply in enumerate(replies) if sure > 0 and prompts.is_unknown(reply)]
  by_opening: dict[int, list[int]] = {}
  for i in refused:
    by_opening.setdefault(decoder.tokenizer.encode(f' {replies[i].strip()}')[0], []).append(i)
  others: dict[int, str] = {}
  for opening, own in by_opening.items():  # mostly the one name
    texts = decoder.generate(
      mind, [asked[i] for i in own], max_tokens=max_tokens, prefix=prefix, avoid=opening
    )
    others |= {i: t.strip() for i, t in zip(own, texts, strict=True) if t.strip()}
  if not others:
    return {}
  compared = [(i, text) for i, other in others.items() for text in (replies[i], other)]
  rows = decoder.logprobs(
    mind, [asked[i] for i, _ in compared], [f' {t.strip()}\n' for _, t in compared], prefix=prefix
  )
  likely = [float(row.sum()) for row in rows]
  return {
    i: other
    for (i, other), no, yes in zip(others.items(), likely[::2], likely[1::2], strict=True)
    if no - yes < sure and not prompts.is_unknown(other)
  }
