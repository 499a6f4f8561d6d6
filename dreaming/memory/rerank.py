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
from dreaming.memory import reading
from dreaming.memory.recall import Recalled
from dreaming.types import Mind

_OF_QUESTION = 0.1  # of the question's gain; of 0 to 0.2 it tells told from untold as well as any
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
  found = likelihood(decoder, mind, [questions[i] for i, _ in rows], [[r] for _, r in rows])
  likely = {(i, r.experience.id): x for (i, r), x in zip(rows, found, strict=True)}
  return [
    sorted(own, key=lambda r, i=i: -likely.get((i, r.experience.id), 0.0))
    for i, own in enumerate(recalled)
  ]


def likelihood(
  decoder: Decoder, mind: Mind, questions: Sequence[str], recalled: Sequence[Sequence[Recalled]]
) -> list[float]:
  """Of each question after its memories, in nats; 0 where there is no room to judge.

  Args: as of `by_question`.
  """
  cut = _cutter(decoder)
  if not questions or cut is None:
    return [0.0] * len(questions)
  ask = f'\n{prompts.QUESTION}'.rstrip()
  notes = [cut(chat.notes(reading.told(own)).rstrip()) + ask for own in recalled]
  asked = [f' {cut(q)}\n' for q in questions]
  found = decoder.logprobs(mind, notes, asked, prefix=chat.NOTES_PREFIX)
  return [float(np.sum(logp)) for logp in found]


def evidence(
  decoder: Decoder,
  mind: Mind,
  questions: Sequence[str],
  recalled: Sequence[Sequence[Recalled]],
  replies: Sequence[str],
) -> np.ndarray:
  """How much speaks for replies that were read out of notes, Float['Q'], nats; inf if untold.

  What the notes add to the log-likelihood of the reply, for each of its tokens, and a tenth of what
  they add to that of the question: who is asked about what was told is asked in its sense.

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
  ask = prompts.QUESTION.rstrip()
  asked = [prompts.question(cut(q)).removeprefix(ask) for q in questions]
  said = [f'{q} {r}\n' for q, r in zip(asked, replies, strict=True)]
  notes = [cut(chat.notes(reading.told(own)).rstrip()) + f'\n{ask}' for own in recalled]
  read = decoder.logprobs(mind, notes, said, prefix=chat.NOTES_PREFIX)
  closed = decoder.logprobs(mind, [ask] * len(said), said, prefix=prompts.ANSWER_PREFIX)
  out = []
  for question, with_notes, without in zip(asked, read, closed, strict=True):
    gains, n = with_notes - without, len(decoder.tokenizer.encode(question))
    out.append(np.mean(gains[n:]) + _OF_QUESTION * np.sum(gains[:n]))
  return np.array(out)


def _cutter(decoder: Decoder) -> Callable[[str], str] | None:
  """Cuts a text so that memory, question and reply have room; None where there is none."""
  encode, decode = decoder.tokenizer.encode, decoder.tokenizer.decode
  room = (decoder.cache_length - len(encode(chat.NOTES_PREFIX))) // 2 - _LEAST

  def cut(text: str) -> str:
    ids = encode(text)
    return text if len(ids) <= room else decode(ids[:room])

  return cut if room >= _LEAST else None
