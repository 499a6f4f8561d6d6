"""The one API of command line, server and notebook: an agent that talks, sleeps and answers for it.

  with Agent(get_config()) as agent:
    agent.reply('I have adopted a parrot, his name is Biscuit.')
    agent.sleep()
    agent.reply('What is my pet called?', retrieval=False)  # from the weights

Opening an agent takes the identity's lock and its diary; the weights are loaded by the first call
that needs them. The configuration's ConfigDict ends in life.py.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from dreaming import arms, mishaps
from dreaming.brain import chat
from dreaming.days import Day
from dreaming.forgetting import Forgetting
from dreaming.memory import addressed, corroborate, rating, score
from dreaming.memory.recall import Recalled
from dreaming.thought import Thought
from dreaming.types import Dream, Experience, Generation, Media

if TYPE_CHECKING:  # a second of imports that only a night needs
  from dreaming.identity.bluegreen import IdentityLock
  from dreaming.memory.imports import run
  from dreaming.sleep import night

_FOUND = 0.1  # cosine from which a search finds; what a question is about is judged otherwise
_LOOKED_AT = 1_000  # latest texts of others, that `orders` looks at
_TURNS = 2  # of this conversation that a prompt repeats
_MOST = 100  # memories that one search brings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Why:
  """What stood behind the last reply."""

  question: str
  generation: int
  prompt: str  # all that the model read, control tokens left out
  recalled: tuple[Recalled, ...]  # best first


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
  """What `status` tells."""

  workdir: pathlib.Path
  active: int
  generations: int
  experiences: int
  archived: int  # that are neither recalled nor searched
  unconsumed: int
  dreams: int
  nights: tuple[tuple[int, str], ...]  # (number, state)
  open_night: int | None
  waiting: int = 0  # of others, that nobody approved: recalled as theirs, not dreamt of


class Agent(Forgetting):
  """One identity, for as long as it is open: see Life for what may go wrong then.

  Args:
    config: of configs/default.py.
    lock: of its directory, where it is held already.
  """

  def __init__(self, config: ConfigDict, *, lock: IdentityLock | None = None):
    super().__init__(config, lock=lock)
    self._why: Why | None = None
    self._session = f'{time.time():.3f}'

  # ---- Waking ----

  def reply(
    self,
    text: str,
    *,
    user: str | None = None,
    now: float | None = None,
    retrieval: bool = True,
    stream: bool = False,
    media: Sequence[Media] = (),
    metadata: Mapping[str, Any] | None = None,
  ) -> str | Iterator[str]:
    """Answers a message and logs both in the diary.

    Args:
      text: what was said.
      user: who said it, by default `life.user`.
      now: Unix seconds, by default this moment.
      retrieval: whether memories come to mind.
      stream: return an iterator over pieces of the reply. It logs when it ends, also when it is
        left early: then as much as was said.
      media: what came with it, as `perceive` has it; kept, and searched with the text.
      metadata: kept with it.

    Raises:
      ValueError: the message is empty or too long. Nothing is logged then.
    """
    self.check(text)
    now = time.time() if now is None else now
    fields = {'media': tuple(media), 'metadata': dict(metadata or {})}
    pieces = self._speak(text, user or self.life.user, now, retrieval, fields)
    return pieces if stream else ''.join(pieces)

  def observe(
    self,
    text: str,
    response: str = '',
    *,
    user: str | None = None,
    now: float | None = None,
    **fields: Any,
  ) -> Experience:
    """Logs what was said without answering; `fields` are further ones of `Diary.append`."""
    self.check(text)
    # Before the append: they may be about to embed what the diary has.
    pairs = (self.embedder, self.index), (self.encoder, self.memories_index)
    indexes = {e.name: (e, i) for e, i in pairs}.values()
    with self.diary.transaction():
      experience = self.diary.append(
        time=time.time() if now is None else now,
        speaker=user or self.life.user,
        content=text,
        response=response,
        **{'session': self._session} | fields,
      )
      vectors = self._embedded(experience, [embedder for embedder, _ in indexes])
    if not vectors:  # not before: it waits for a thread that may wait for the diary
      self.renew_indexes()
    for (_, known), vector in zip(indexes, vectors, strict=False):
      known.add(experience.id, vector)
    return experience

  def answer(
    self,
    questions: Sequence[str],
    *,
    user: str | None = None,
    now: float | None = None,
    generation: int | None = None,
    retrieval: bool = False,
    max_tokens: int = 16,
  ) -> list[str]:
    """Replies to questions as `reply` would, greedily and together; the diary does not change.

    Args:
      generation: which one answers; None is Blue, 0 the base.
      max_tokens: of each reply; one runaway holds up all others.
    """
    now = time.time() if now is None else now
    mind = self.identity.blue
    if generation is not None and generation != mind.generation:
      mind = self.identity.mind(generation)
    speaker = user or self.life.user
    recalled: list[list[Recalled]] = [[] for _ in questions]
    if retrieval:  # unlike a conversation, an exam can wait for vectors
      recalled = self._notes(questions, speaker, now, wait=True)
    weighed = self._weighed(mind, questions, speaker, recalled, max_tokens)
    return [said.reply for said in weighed]

  def rate(
    self,
    progress: Callable[[int, int], None] | None = None,
    paced: Callable[[score.Rater], score.Rater] = lambda decoder: decoder,
  ) -> int:
    """Scores the experiences that this rater has not scored yet, and returns how many they were.

    The base rates throughout a life, so that all its scores compare; see rating.py. What nobody has
    approved is not rated: nights do not dream of it, and an import may be long. Never part of a
    reply: nights call it, and so may whoever has time. What `paced` makes of the decoder may end it
    by an error: it goes on where it was when it is called again.
    """
    if not self.diary.ids(limit=1):
      return 0
    decoder, how = paced(self.decoder), self.rated_by(self.night_config)
    return rating.rate(self.diary, self.index, decoder, self.base_mind, **how, progress=progress)

  def feedback(self, value: float, id: int | None = None) -> Experience:
    """Notes what the user thinks of an experience, by default the latest: see rating.give."""
    if id is None and not (latest := self.memories(limit=1)):
      raise ValueError('nothing was said yet: talk first')
    return rating.give(self.diary, latest[0].id if id is None else id, value)

  # ---- Sleeping ----

  @mishaps.clearly('preparing stopped', 'prepare again: it goes on there')
  def prepare(self, progress: Callable[[int, int], None] | None = None) -> None:
    """Makes what depends on the base alone, once: weights, its own exams, words for replay, school.

    A first night would do it, and take longer. `progress` is told of school: (done, of how many).
    """
    from dreaming.sleep import corpus, examine, safety, school

    of_base = self.decoder, self.base_mind, self.base.digest
    examine.known(*of_base, self.cache)
    safety.figures(*of_base, self.cache)
    corpus.own_words(*of_base, self.night_config.corpus, self.cache)
    school.teach(self.base, self.night_config.school, self.cache, progress)

  @mishaps.clearly('the night stopped, and Blue serves as before', 'sleep again: it goes on there')
  def sleep(
    self,
    *,
    user: str | None = None,
    now: float | None = None,
    progress: night.Progress | None = None,
  ) -> night.Outcome:
    """One night: goes on with one that was interrupted, or begins one.

    Args:
      user: whom the dreams are about, by default `life.user`.
      now: Unix seconds, when the day ended; by default this moment.
      progress: told what happens, as night.run has it.

    Raises:
      ValueError: the configuration is wrong, or does not go with the generation that serves.
    """
    from dreaming.sleep import night

    self.check_replay()
    config = dataclasses.replace(self.night_config, user=user or self.life.user)
    before = self.identity.blue
    if config.select.corroborated:
      self.corroborate()
    self.rate(progress and (lambda done, total: progress('rate', done, total, {})))
    outcome = night.run(
      base=self.base, decoder=self.decoder, diary=self.diary, identity=self.identity,
      workdir=self.workdir, cache=self.cache, config=config, embedder=self.embedder, now=now,
      progress=progress,
    )  # fmt: skip
    self._turns.clear()
    if self.identity.blue is not before and before.generation:
      self.decoder.forget(before)
    return outcome

  # ---- Carrying in and out ----

  def import_file(self, path: str | pathlib.Path, **options: Any) -> run.Report:
    """Brings a foreign log into the diary, untrusted; `options` are those of imports.run."""
    from dreaming.memory.imports import run

    try:
      return run.import_file(self.diary, path, **{'user': self.life.user} | options)
    finally:
      self.renew_indexes()  # what is new is embedded when something is recalled next

  def export(
    self, to: str | pathlib.Path, progress: Callable[[int, int], None] | None = None
  ) -> int:
    """Writes all experiences to a .jsonl file, or a TFDS data set to a directory of that name."""
    from dreaming.memory import export

    write = export.jsonl if str(to).endswith('.jsonl') else export.array_record
    return write(self.diary, to, progress)

  def approve(self, ids: Iterable[int], who: str = 'operator') -> int:
    """Lets nights dream of imported experiences; returns how many were not approved yet."""
    return self.diary.approve(ids, who)

  def corroborate(self) -> int:
    """Lets nights dream of what others wrote and the user has said, too: corroborate.py."""
    lived = self.diary.experiences()
    return self.diary.corroborate(corroborate.witnesses(lived, self.life.agent))

  # ---- Looking inside ----

  def memories(
    self, query: str | None = None, *, limit: int = 20, **filters: Any
  ) -> list[Experience]:
    """What comes to mind for a query, best first, or the latest experiences, newest first.

    Args:
      limit: at most so many; for a query no more than 100.
      filters: only these, as `Diary.ids` has them: speaker, kind, session, since, until.
    """
    ids = self.diary.ids(limit=limit, **filters)
    if not query or not ids:
      return self.diary.experiences(ids=ids, newest_first=True)
    most = min(max(limit, self._memory.recall_k), _MOST)  # the first ones may be of nothing alike
    found = self._recall(query, time.time(), most=most, among=filters or None)
    return [r.experience for r in found if r.relevance >= _FOUND][:limit]

  def dreams(self, night: int | None = None) -> list[Dream]:
    """The dreams of a night, by default the last one's."""
    nights = self.diary.nights()
    if night is None and not nights:
      return []
    return self.diary.dreams(night=nights[-1].number if night is None else night)

  def generations(self) -> list[Generation]:
    """All that were promoted, oldest first. The base, generation 0, is none of them."""
    return self.diary.generations()

  def why(self) -> Why | None:
    """What stood behind the last reply; None before the first."""
    return self._why

  def reason(self, text: str, thought: Thought) -> Why:
    """What stands behind a reply to a message, whoever speaks it."""
    read = [
      p if isinstance(p, str) else self.base.tokenizer.decode(p)
      for p in (thought.prompt.prefix, thought.prompt.text)
    ]
    recalled, reader = tuple(thought.recalled), thought.mind.generation
    return Why(question=text, generation=reader, prompt=''.join(read), recalled=recalled)

  def status(self) -> State:
    """Who serves and what there is. Needs no weights."""
    diary = self.diary
    return State(
      workdir=self.workdir,
      active=diary.active(),
      generations=len(diary.generations()),
      experiences=diary.count(),
      archived=len(diary.archived()),
      unconsumed=diary.count(unconsumed=True),
      dreams=diary.dream_count(),
      nights=tuple(diary.night_states()),
      open_night=diary.open_night(),
      waiting=len(diary.unapproved()),
    )

  def orders(self) -> list[tuple[int, str]]:
    """(id, what it tells the agent to do) of the latest texts that wait for approval."""
    latest = self.diary.experiences(ids=self.diary.unapproved()[-_LOOKED_AT:])
    flags = ((e.id, addressed.flagged(e, self.life.agent)) for e in latest)
    return [f for f in flags if f[1]]

  def examine(self, day: Day, names: Iterable[str] = tuple(arms.ARMS)) -> arms.Examination:
    """A day's questions in the four arms, or in some: base, retrieval, weights, both."""
    return arms.examine(self, day, generation=self.diary.active(), names=names)

  def rollback(self, number: int | None = None) -> int:
    """Lets an earlier generation serve again, by default the parent; returns its number."""
    self.check_replay()
    before = len(self.diary.archived())
    mind = self.identity.rollback(number)
    if len(self.diary.archived()) != before:  # what is no longer in the weights came back
      self.renew_indexes()
    self._turns.clear()
    return mind.generation

  # ---- Parts ----

  def check(self, text: str) -> None:
    """Refuses a message before anything is done with it: then it costs nothing."""
    limit = self._decode.max_message_bytes
    if not text.strip():
      raise ValueError('the message is empty: say something')
    try:
      size = len(text.encode())
    except UnicodeEncodeError as e:
      raise ValueError(f'the message is not valid Unicode ({e.reason} at {e.start})') from None
    if size > limit:
      raise ValueError(
        f'the message has {size:,} bytes, the limit is {limit:,}: shorten or split it, or raise '
        'decode.max_message_bytes'
      )

  def _speak(
    self, text: str, user: str, now: float, retrieval: bool, fields: dict[str, Any]
  ) -> Iterator[str]:
    turns = self._turns.setdefault(user, [])
    # Blue is taken once: a swap in between does not change this reply.
    blue, earlier = self.identity.blue, [t.response for t in turns]
    thought = self.think(text, user, now, blue, turns[-_TURNS:], retrieval, earlier)
    prompt, mind = thought.prompt, thought.mind
    self._why = self.reason(text, thought)
    said, whole = '', False
    try:
      live = self.decoder.stream(
        mind, prompt.text, max_tokens=self._decode.max_tokens, prefix=prompt.prefix,
        sampler=dataclasses.replace(self.sampler, seed=self.sampler.seed + len(turns)),
        stop=prompt.stop,
      )  # fmt: skip
      for piece in [thought.said] if thought.said else live:
        piece = piece if said else piece.lstrip()
        said += piece
        if piece:
          yield piece
      whole = True
    finally:  # whatever happened: what the user said is not lost
      fields['metadata'] |= {'generation': mind.generation}
      fields['metadata'] |= {} if whole else {'interrupted': True}
      self.observe(text, said.strip(), user=user, now=now, **fields)
      turns.append(chat.Turn(text=text, response=said.strip()))
