"""Which of the memories that came to mind a question is about: the model's own judgement.

Vectors of words find the right memory among a few, seldom as the first. The model knows better: the
one that makes the question itself likeliest (query likelihood, Ponte and Croft 1998; by a language
model, Sachan et al. 2022, arXiv 2204.07496). And whether a reply comes from a memory or would have
been given anyway shows in what the memory adds to its likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dreaming.brain import chat, prompts
from dreaming.brain.decode import Decoder
from dreaming.memory.recall import Recalled
from dreaming.types import Mind

_LEAST = 24  # tokens of a memory and of a question: with room for less there is no judging


def by_question(
  decoder: Decoder, mind: Mind, questions: Sequence[str], recalled: Sequence[Sequence[Recalled]]
) -> list[list[Recalled]]:
  """Each question's memories anew, the one that makes it likeliest first.

  Args:
    decoder: of the mind's architecture.
    mind: a pretrained one; the base, whose likelihoods no night has moved.
    questions: in the third person; of long ones the beginning is looked at.
    recalled: of each question; what alone came to mind needs no judgement.
  """
  rows = [(i, r) for i, own in enumerate(recalled) if len(own) > 1 for r in own]
  cut = _cutter(decoder)
  if not rows or cut is None:
    return [list(own) for own in recalled]
  ask = f'\n{prompts.QUESTION}'.rstrip()
  notes = [cut(chat.notes([r.experience]).rstrip()) + ask for _, r in rows]
  asked = [f' {cut(questions[i])}\n' for i, _ in rows]
  found = decoder.logprobs(mind, notes, asked, prefix=chat.NOTES_PREFIX)
  likely = {
    (i, r.experience.id): float(np.sum(logp)) for (i, r), logp in zip(rows, found, strict=True)
  }
  return [
    sorted(own, key=lambda r, i=i: -likely.get((i, r.experience.id), 0.0))
    for i, own in enumerate(recalled)
  ]


def evidence(
  decoder: Decoder,
  mind: Mind,
  questions: Sequence[str],
  recalled: Sequence[Sequence[Recalled]],
  replies: Sequence[str],
) -> np.ndarray:
  """What notes add to the log-likelihood of replies, nats a token, Float['Q']; inf if untold.

  Args:
    decoder: of the mind's architecture.
    mind: a pretrained one, the base.
    questions: in the third person; of long ones the beginning is looked at.
    recalled: the notes of each.
    replies: given with them.
  """
  cut = _cutter(decoder)
  if not questions or cut is None:
    return np.full(len(questions), np.inf)
  asked = [prompts.question(cut(q)) for q in questions]
  said = [f' {r}\n' for r in replies]
  notes = [cut(chat.notes([r.experience for r in own]).rstrip()) + '\n' for own in recalled]
  noted = [n + q for n, q in zip(notes, asked, strict=True)]
  read = decoder.logprobs(mind, noted, said, prefix=chat.NOTES_PREFIX)
  closed = decoder.logprobs(mind, asked, said, prefix=prompts.ANSWER_PREFIX)
  return np.array([np.mean(a) - np.mean(b) for a, b in zip(read, closed, strict=True)])


def _cutter(decoder: Decoder) -> Callable[[str], str] | None:
  """Cuts a text so that memory, question and reply have room; None where there is none."""
  encode, decode = decoder.tokenizer.encode, decoder.tokenizer.decode
  room = (decoder.cache_length - len(encode(chat.NOTES_PREFIX))) // 2 - _LEAST

  def cut(text: str) -> str:
    ids = encode(text)
    return text if len(ids) <= room else decode(ids[:room])

  return cut if room >= _LEAST else None
