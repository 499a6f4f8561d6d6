"""From a question to its reply: what the weights know, what the notes tell, and which counts."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import textwrap
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from dreaming.brain import chat, decode, prompts, refusal, smalltalk, vision
from dreaming.life import Life
from dreaming.memory import addressed, embed, reading, rerank, retell, unheard
from dreaming.memory import recall as recall_lib
from dreaming.memory.hearsay import Hearsay
from dreaming.memory.recall import Recalled
from dreaming.memory.senses import perception
from dreaming.thought import Thought, Weighed
from dreaming.types import Experience, Mind, Trust

_SPOKEN = 20  # latest experiences with a word that are looked at; of more some will tell
_NOT_AGAIN = 8  # replies after which one may be chosen again
# What is said of a picture itself.
_POINTS = re.compile(
  r"\b(?:look at|(?:what|who)(?:'s| is| are)? (?:this|that|these|those)|you see|picture|image|"
  r'photo(?:graph)?|screenshot|(?:it|this|that) say|written)\b',
  re.IGNORECASE,
)
_OF_SEEN = 1.0  # nats: what was shown just now is likelier to be meant than a note is
_BESIDE = math.log(1000)  # nats: so much likelier is a question whose answer others wrote
_PIECES = 16  # of what stands in a picture
_LOOKED_AT = 2  # of them, that a question is answered from
_FIRST_THOUGHT = 16  # tokens: enough to see whether the weights know an answer


class Recollection(Life):
  """An identity that answers from its weights, its diary, or both."""

  def think(
    self,
    text: str,
    user: str,
    now: float,
    mind: Mind,
    turns: Sequence[chat.Turn],
    retrieval: bool,
    earlier: Sequence[str] | None = None,
    shown: Sequence[Experience] = (),
  ) -> Thought:
    """All that comes before the first word of a reply: what is recalled, and who will speak.

    Args:
      mind: that replies; a pretrained model's base may read the notes for it.
      turns: earlier ones of this conversation.
      retrieval: whether memories come to mind.
      earlier: replies of this conversation, oldest first, of which none is chosen so soon again;
        None: the mind is to write, whatever may be chosen.
      shown: pictures that come with the message, and are in no diary yet. What is asked is first
        looked for in what stands in them.
    """
    asks, seen = chat.is_question(text), self._seen(shown)
    looks = bool(seen) and not self._model.instruct
    personal = prompts.third_person(text, user) != text  # then the diary is asked first
    if looks and not personal and (told := self._looked(text, user, seen)):
      prompt = self._prompt(text, user, told.notes, turns)
      return Thought(prompt, told.mind, told.notes, told.reply)
    reads = retrieval and (asks or self._model.instruct)
    recalled = self._notes([text], user, now)[0] if reads else []
    if seen and self._model.instruct:  # it reads the picture itself
      recalled = [*seen, *recalled]
      said = '' if earlier is None else self._looking(mind, text, user, shown, recalled, turns)
      return Thought(self._prompt(text, user, recalled, turns), mind, recalled, said, bool(said))
    retold, own = '', False
    # With `earlier` None what the weights say is streamed, and not looked at before.
    line = self._line(mind) if asks and earlier is not None else 0.0
    if asks and (recalled or line or looks):
      (found,) = self._weighed(mind, [text], user, [recalled], _FIRST_THOUGHT, line)
      if looks and prompts.is_unknown(found.reply):
        found = self._looked(text, user, seen) or found
      recalled, mind, own = found.notes, found.mind, found.own
      retold = found.reply if found.final else ''
    if earlier is not None and not asks and self.chooses:
      retold, mind = self._replies(text, {*earlier[-_NOT_AGAIN:]}), self.base_mind
    return Thought(self._prompt(text, user, recalled, turns), mind, recalled, retold, own)

  def _looked(self, text: str, user: str, seen: list[Recalled]) -> Weighed | None:
    """What is seen, as the reply to what is said of it; None where it tells nothing of that.

    A small base finds what is asked for, and misreads it: the words themselves are said.
    """
    points = _POINTS.search(text)
    if not points and not chat.is_question(text):
      return None
    asked = prompts.third_person(text, user)
    (best,) = rerank.by_question(self.decoder, self.base_mind, [asked], [seen])
    notes = best[:_LOOKED_AT]
    if not points:
      _, evidence = self._read(self.base_mind, [text], user, [notes], [0], _FIRST_THOUGHT)[0]
      if evidence < _OF_SEEN:
        return None
    words = [r.experience.content for r in seen if r in notes]  # as they stand there
    return Weighed(prompts.SEEN.format(words=' ... '.join(words)), notes, self.base_mind, True)

  def _looking(
    self, mind: Mind, text: str, user: str, shown: Sequence[Experience],
    recalled: Sequence[Recalled], turns: Sequence[chat.Turn],
  ) -> str:  # fmt: skip
    """The reply of a checkpoint that has eyes, with the pictures before it; '' without them."""
    eyes = self.__dict__.get('eyes')  # what was looked at has opened them
    if eyes is None or self._senses.captioner != perception.OWN_EYES:
      return ''
    room, each = self._decode.cache_length - self._decode.max_tokens, vision.TOKENS + vision.AROUND
    safe = (e for e in shown if not addressed.flagged(e, self.life.agent))
    digests = [m.digest for e in safe for m in e.media][: room // 2 // each]
    prompt = self._prompt(text, user, recalled, turns, len(digests) * each + vision.AFTER)
    if (prefix := eyes.before(prompt.prefix, digests)) is None:
      return ''
    how = {'max_tokens': self._decode.max_tokens, 'sampler': self.sampler, 'stop': prompt.stop}
    return self.decoder.generate(mind, [prompt.text], prefix=prefix, **how)[0].strip()

  @property
  def chooses(self) -> bool:
    """Whether a reply to what is no question is chosen, and not written."""
    return self._decode.choose_replies and not self._model.instruct

  @functools.cached_property
  def _replies(self) -> smalltalk.Replies:
    return smalltalk.Replies(self.decoder, self.base_mind)

  @property
  def _retells(self) -> bool:
    """Whether notes are retold: an -it model says what it reads well enough itself."""
    return self._memory.retell and not self._model.instruct

  def _weighed(
    self, mind: Mind, questions, user, recalled, max_tokens, line: float | None = None
  ) -> list[Weighed]:
    """Each question's reply, from the weights or from notes.

    Notes are believed where they tell the reply, and are newer than the weights, or these say that
    nobody told; or where they tell it beyond doubt. A pretrained model's base reads them: what
    nights taught would speak against them.
    """
    reader = mind if self._model.instruct else self.base_mind
    least, sure = self._memory.min_evidence, self._memory.sure_evidence
    last = self._lived(mind)
    untold = self._unheard(questions, user, [i for i, own in enumerate(recalled) if own])
    noted = [i for i, own in enumerate(recalled) if own and i not in untold]
    # Others' words are read where the user's own tell nothing: they correct and displace none.
    both = [reading.apart(own) for own in recalled]
    beside = self._beside(questions, user, both)
    recalled = [others if i in beside else own or others for i, (own, others) in enumerate(both)]
    newer = {i for i in noted if any(r.experience.id > last for r in recalled[i])}
    # What an -it model reads is never beyond doubt: older notes it reads where they are needed.
    first = [i for i in noted if i in newer or not self._model.instruct]
    read = self._read(reader, questions, user, recalled, first, max_tokens)
    told = [i for i in first if read[i][1] >= (least if i in newer else sure)]
    rest = sorted({*range(len(questions))} - {*told} - untold)  # the others cost no second pass
    closed = self._ask(mind, [questions[i] for i in rest], user, [[]] * len(rest), max_tokens)
    said = {i: Weighed(reply, [], mind) for i, reply in zip(rest, closed, strict=True)}
    unsaid = [i for i in rest if recalled[i] and prompts.is_unknown(said[i].reply)]
    late = [i for i in unsaid if i not in read]
    read |= self._read(reader, questions, user, recalled, late, max_tokens)
    told += [i for i in unsaid if read[i][1] >= least]
    others = [theirs for _, theirs in both]
    late = {i for i in rest if any(r.experience.id > last for r in others[i])} | {*unsaid}
    silent = [i for i in rest if i in late and i not in told and all(both[i])]
    foreign = self._read(reader, questions, user, others, silent, max_tokens)
    silent = [i for i in silent if foreign[i][1] >= least]
    recalled = [others[i] if i in silent else own for i, own in enumerate(recalled)]
    read |= {i: foreign[i] for i in silent}
    told += silent
    line = self._line(mind) if line is None else line
    if line:  # a doubtful refusal gives way where no note has told
      quiet = [i for i in rest if i not in told and prompts.is_unknown(said[i].reply)]
      self._redraw(said, quiet, line, mind, questions, user, max_tokens)
    replies = [read[i][0] for i in told]
    notes = [recalled[i] for i in told]
    if self._retells:
      replies = self._retold(replies, notes, user)
    elif not self._model.instruct:
      replies = [self._as_theirs(*x) for x in zip(replies, notes, strict=True)]
    for i, reply in zip(told, replies, strict=True):
      quoted = not self._model.instruct and _foreign(recalled[i])
      said[i] = Weighed(reply, recalled[i], reader, self._retells or quoted)
    said |= {i: Weighed(prompts.UNKNOWN.format(user=user), [], mind, True) for i in untold}
    return [said[i] for i in range(len(questions))]

  def _beside(self, questions, user: str, both) -> set[int]:
    """Those that the user's own words are not about at all, and others' are."""
    which = [i for i, sides in enumerate(both) if all(sides) and not self._model.instruct]
    asked = [prompts.third_person(questions[i], user) for i in which]
    own, others = (
      rerank.likelihood(self.decoder, self.base_mind, asked, [both[i][side] for i in which])
      for side in (0, 1)
    )
    pairs = zip(which, own, others, strict=True)
    return {i for i, of_own, of_others in pairs if of_others - of_own >= _BESIDE}

  def _unheard(self, questions, user: str, which: Sequence[int]) -> set[int]:
    """Those about what nobody spoke of: what is likest does not answer them."""
    if self._model.instruct:  # it sees for itself that its notes are of others
      return set()

    def told(words: Collection[str]) -> bool:
      some = self.diary.experiences(ids=self.diary.having(words, _SPOKEN))
      return len(some) == _SPOKEN or any(not chat.only_asks(e.content) for e in some)

    asked = {i: prompts.third_person(questions[i], user) for i in which}
    return {i for i, question in asked.items() if unheard.unheard(question, user, told)}

  def _read(
    self, reader: Mind, questions, user: str, recalled, which: Sequence[int], max_tokens
  ) -> dict[int, tuple[str, float]]:
    """Replies read out of notes, and how much speaks for each, nats."""
    asked, notes = [questions[i] for i in which], [recalled[i] for i in which]
    replies = self._ask(reader, asked, user, notes, max_tokens)
    if self._model.instruct:  # it has judged itself, and knows what nights taught
      evidence = [self._memory.min_evidence] * len(which)
    else:
      asked = [prompts.third_person(q, user) for q in asked]
      evidence = rerank.evidence(self.decoder, self.base_mind, asked, notes, replies)
    return dict(zip(which, zip(replies, evidence, strict=True), strict=True))

  def _retold(self, replies: Sequence[str], notes, user: str) -> list[str]:
    """Replies that were read, each as the sentence it was read from, told of who said it."""
    near = [
      # Of equals the memory itself, not what it leans on.
      retell.nearest(reply, [_whole(e) for e in (*(r.experience for r in own), *reading.told(own))])
      for reply, own in zip(replies, notes, strict=True)
    ]
    own = [n for n in near if n is not None and _is_own(*n, user)]
    told = [(s, e.speaker or user) for e, s in own]
    texts = iter(retell.of_user(self.decoder, self.base_mind, told))
    return [
      self._as_theirs(reply, some) if n is None else next(texts) if n in own else _quoted(*n)
      for reply, n, some in zip(replies, near, notes, strict=True)
    ]

  def _as_theirs(self, reply: str, notes: Sequence[Recalled]) -> str:
    """A reply from notes; where others wrote them, as what they say."""
    return prompts.QUOTED.format(words=reply) if _foreign(notes) else reply

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

  def _redraw(
    self, said: dict[int, Weighed], which: Sequence[int], line: float, mind: Mind, questions,
    user: str, max_tokens: int,
  ) -> None:  # fmt: skip
    """Lets the weights answer what they refused in doubt."""
    which = [i for i in which if chat.is_question(questions[i])]
    asked = [str(self._prompt(questions[i], user, (), ()).text) for i in which]
    replies = [said[i].reply for i in which]
    how = {'prefix': prompts.ANSWER_PREFIX, 'max_tokens': max_tokens}
    new = refusal.redrawn(self.decoder, mind, asked, replies, line, **how)
    for i, before, reply in zip(which, replies, new, strict=True):
      if reply != before:
        said[i] = Weighed(reply, [], mind, True, True)

  def _recall(
    self, query: str, now: float, *, wait: bool = False, most: int | None = None, **fields: Any
  ) -> list[Recalled]:
    """At most `most` memories, by default as many as `memory.recall_k` says."""
    if not self.diary.ids(limit=1):  # the first reply need not wait for the encoder
      return []
    memory = self.diary, self.memories_index, self.encoder
    self.adopt_vectors(wait)
    config = dataclasses.replace(self._memory, recall_k=most) if most else self._memory
    return recall_lib.recall(*memory, query, now, config, **fields)

  def _notes(
    self, questions: Sequence[str], user: str, now: float, *, wait: bool = False
  ) -> list[list[Recalled]]:
    """What each question is answered from: of what comes to mind what it is about.

    What only asks tells nothing, and would be likest to the same question asked again. What leans
    on the turn before is read with it, and what was said later of the same with or instead of it.
    """

    def tells(e: Experience) -> bool:
      shows = not e.media and e.content in perception.WORDS.values()
      return not shows and not chat.only_asks(e.content)

    agent = self.life.agent
    recalled = [self._recall(q, now, wait=wait, worth=tells) for q in questions]
    # What tells the agent what to do, and is none of the user's words, is not quoted at all.
    obeyed = [[r for r in own if not addressed.flagged(r.experience, agent)] for own in recalled]
    recalled = [self._led(own) for own in obeyed]
    if not self._model.instruct:  # a small base is easily distracted, and knows what is asked
      asked = [prompts.third_person(q, user) for q in questions]
      recalled = rerank.by_question(self.decoder, self.base_mind, asked, recalled)
    config, index = self._memory, self.memories_index
    k, near = config.read_k, (config.correction, config.near_duplicate)
    notes = [
      [n for some in reading.apart(own) for n in reading.newest(some[:k], some, index, *near)]
      for own in recalled
    ]
    encode = self.base.tokenizer.encode
    return [reading.within(n, config.read_tokens, lambda t: len(encode(t))) for n in notes]

  def _seen(self, shown: Sequence[Experience]) -> list[Recalled]:
    """What stands in pictures, in pieces that notes have room for."""
    agent, out = self.life.agent, []
    for e in (e for e in shown if not addressed.flagged(e, agent)):
      text = ' '.join(m.description for m in e.media)
      for piece in textwrap.wrap(text, chat.NOTE_CHARS - 10)[:_PIECES]:
        part = dataclasses.replace(e, id=-1 - len(out), content=piece, media=())
        out.append(Recalled(experience=part, score=1.0, recency=1.0, importance=1.0, relevance=1.0))
    return out

  def _led(self, recalled: list[Recalled]) -> list[Recalled]:
    """Each with what it leans on, of the turn right before it."""
    table = self.diary.columns()
    rows = table.rows([r.experience.id for r in recalled])
    last = np.where(rows >= 0, table.before(rows)[0], -1)
    ids = dict(zip((r.experience.id for r in recalled), table.ids[last].tolist(), strict=True))
    ids = {i: before for (i, before), row in zip(ids.items(), last, strict=True) if row >= 0}
    turns = {e.id: e for e in self.diary.experiences(ids={*ids.values()})}
    agent = self.life.agent
    return [
      dataclasses.replace(r, lead=reading.lead(r, turns[ids[r.experience.id]], agent))
      if ids.get(r.experience.id) in turns
      and self._leads(turns[ids[r.experience.id]], r.experience)
      else r
      for r in recalled
    ]

  def _leads(self, before: Experience, e: Experience) -> bool:
    """Whether a turn may be read before another: one that is trusted less would speak with it."""
    return before.trust >= e.trust and not addressed.flagged(before, self.life.agent)

  def _line(self, mind: Mind) -> float:
    """Where a mind's refusals stand, nats, as the exam of its night chose; see refusal.py."""
    most = 0.0 if self._model.instruct else self._decode.refusal_line
    made = [g.manifest for g in self.diary.generations() if g.number == mind.generation]
    return min(made[0].scores.get('refusal_line') or 0.0, most) if made and most else 0.0

  def _lived(self, mind: Mind) -> int:
    """The last experience that a mind's weights were made of."""
    sources = {g.number: g.manifest.sources for g in self.diary.generations()}
    return max(sources.get(mind.generation, ()), default=0)

  def _prompt(
    self, text: str, user: str, recalled: Sequence[Recalled], turns: Sequence[chat.Turn],
    beside: int = 0,
  ) -> chat.ReplyPrompt:  # fmt: skip
    """With room for `beside` tokens more."""
    return chat.reply_prompt(
      text,
      user=user,
      agent=self.life.agent,
      tokenizer=self.base.tokenizer,
      limit=self._decode.cache_length - self._decode.max_tokens - beside,
      instruct=self._model.instruct,
      memories=reading.told(recalled),
      turns=turns,
    )


def _is_own(e: Experience, sentence: str, user: str) -> bool:
  """Whether a sentence is retold as a fact: the user's, or what another one says of themselves."""
  of_self = prompts.third_person(sentence, e.speaker or user) != sentence
  theirs = of_self and not Hearsay((), user).names(sentence, e.speaker)
  return e.trust >= Trust.USER and (e.speaker in ('', user) or theirs)


def _quoted(e: Experience, sentence: str) -> str:
  """A sentence as what somebody else said."""
  if e.trust < Trust.USER:
    return prompts.QUOTED.format(words=sentence)
  return prompts.SAID.format(speaker=e.speaker, words=sentence)


def _foreign(notes: Sequence[Recalled]) -> bool:
  return any(r.experience.trust < Trust.USER for r in notes)


def _whole(e: Experience) -> Experience:
  """What others wrote with what a picture shows: nobody says it of themselves."""
  return e if e.trust >= Trust.USER else dataclasses.replace(e, content=embed.experience_text(e))
