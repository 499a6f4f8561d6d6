"""From a question to its reply: what the weights know, what the notes tell, and which counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dreaming.brain import chat, decode, prompts
from dreaming.life import Life
from dreaming.memory import recall as recall_lib
from dreaming.memory import rerank
from dreaming.memory.recall import Recalled
from dreaming.types import Mind


class Recollection(Life):
  """An identity that answers from its weights, its diary, or both."""

  def _weighed(
    self, mind, questions, user, recalled, max_tokens
  ) -> list[tuple[str, list[Recalled]]]:
    """Each question's reply and the notes that it is from: none where the weights know better.

    Notes are believed where they tell the reply, and either are newer than the weights, or these
    say that nobody told.
    """
    said: dict[int, tuple[str, list[Recalled]]] = {}

    def read(some: Sequence[int]) -> None:
      if not some:
        return
      asked, notes = [questions[i] for i in some], [recalled[i] for i in some]
      replies = self._ask(mind, asked, user, notes, max_tokens)
      told = self._told(asked, user, notes, replies)
      said.update({i: (r, recalled[i]) for i, r, ok in zip(some, replies, told, strict=True) if ok})

    last = self._lived(mind)
    new = [i for i, own in enumerate(recalled) if any(r.experience.id > last for r in own)]
    read(new)
    rest = [i for i in range(len(questions)) if i not in said]  # the others cost no second pass
    closed = self._ask(mind, [questions[i] for i in rest], user, [[]] * len(rest), max_tokens)
    said.update({i: (reply, []) for i, reply in zip(rest, closed, strict=True)})
    read([i for i in rest if i not in new and recalled[i] and prompts.is_unknown(said[i][0])])
    return [said[i] for i in range(len(questions))]

  def _ask(self, mind, questions, user, recalled, max_tokens) -> list[str]:
    """One greedy pass over questions with their notes."""
    said = [''] * len(questions)
    asked: dict[tuple[Any, tuple[str, ...]], list[tuple[int, decode.Prompt]]] = {}
    for i, (question, notes) in enumerate(zip(questions, recalled, strict=True)):
      prompt = self._prompt(question, user, notes, ())
      asked.setdefault((prompt.prefix, prompt.stop), []).append((i, prompt.text))
    for (prefix, stop), rows in asked.items():
      texts = self.decoder.generate(
        mind, [text for _, text in rows], max_tokens=max_tokens, prefix=prefix, stop=stop
      )
      for (i, _), text in zip(rows, texts, strict=True):
        said[i] = text.strip()
    return said

  def _recall(self, query: str, now: float) -> list[Recalled]:
    return recall_lib.recall(self.diary, self.index, self.embedder, query, now, self._memory)

  def _notes(self, questions: Sequence[str], user: str, now: float) -> list[list[Recalled]]:
    """What each question is answered from: of what comes to mind what it is about."""
    recalled = [self._recall(q, now) for q in questions]
    if not self._model.instruct:  # a small base is easily distracted, and knows what is asked
      asked = [prompts.third_person(q, user) for q in questions]
      recalled = rerank.by_question(self.decoder, self.base_mind, asked, recalled)
    return [rerank.with_corrections(own, self._memory.read_k) for own in recalled]

  def _told(self, questions, user: str, recalled, replies: Sequence[str]) -> list[bool]:
    """Whether each reply is what its notes tell, and not what would be said without them."""
    if self._model.instruct:
      return [True] * len(questions)
    asked = [prompts.third_person(q, user) for q in questions]
    added = rerank.evidence(self.decoder, self.base_mind, asked, recalled, replies)
    return [bool(x >= self._memory.min_evidence) for x in added]

  def _lived(self, mind: Mind) -> int:
    """The last experience that a mind's weights were made of."""
    sources = {g.number: g.manifest.sources for g in self.diary.generations()}
    return max(sources.get(mind.generation, ()), default=0)

  def _prompt(
    self, text: str, user: str, recalled: Sequence[Recalled], turns: Sequence[chat.Turn]
  ) -> chat.ReplyPrompt:
    return chat.reply_prompt(
      text,
      user=user,
      agent=self.life.agent,
      tokenizer=self.base.tokenizer,
      limit=self._decode.cache_length - self._decode.max_tokens,
      instruct=self._model.instruct,
      memories=[r.experience for r in recalled],
      turns=turns,
    )
