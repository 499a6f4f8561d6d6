"""A message on its way: thought about with the diary, spoken by the engine, logged.

What an agent does with a message is Agent's; here it happens for many at once. Thinking (recall,
and judging what notes tell) takes turns on one thread, since it uses the agent's own decoder.
Speaking is the engine's, many at a time.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import functools
import secrets
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dreaming import configuration
from dreaming.agent import Agent, Why
from dreaming.brain import chat
from dreaming.brain.decode import Prompt
from dreaming.serve import fair
from dreaming.serve import shown as shown_lib
from dreaming.serve.access import Refused
from dreaming.serve.baking import Baking
from dreaming.serve.config import ServeConfig
from dreaming.serve.doze import ASLEEP, Doze
from dreaming.serve.engine import Engine
from dreaming.serve.message import Message
from dreaming.serve.shown import Shown
from dreaming.serve.stream import Ask, Piece, Stream, Token, sink_of
from dreaming.serve.voices import Voice, Voices

T = TypeVar('T')
_WHYS = 512  # replies whose reasons are remembered
_FULL_SECONDS = 0.2  # between tries while the queue is full
_TURNS = 2  # of a conversation that a prompt repeats: a small model reads no more


class Reply:
  """A reply that is being spoken.

  Iterate over it for (choice, Piece); `close` when nobody listens any more.
  """

  def __init__(self, id: str, voice: Voice, why: Why | None, engine: Engine):
    self.id, self.why = id, why
    self.generation = voice.generation
    self.reader = why.generation if why else voice.generation
    self.created = int(time.time())
    self.experience: int | None = None
    self.shown: tuple[Shown, ...] = ()
    self.streams: list[Stream] = []
    self.weighed = False  # words of the weights that are known already
    self.prompt_tokens = self.completion_tokens = 0
    self.texts: list[str] = []  # of each choice so far
    self.tokens: list[list[Token]] = []
    self.finishes: list[str | None] = []
    self._engine = engine
    self._queue: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()
    self._open = 0

  def tell(self, pieces: Sequence[Piece], tokens: int) -> None:
    """A reply that is known already."""
    for i, piece in enumerate(pieces):
      self._queue.put_nowait((i, piece))
    self._begin(len(pieces))
    self.completion_tokens = tokens

  def speak(self, asks: list[Ask], voice: Voice) -> None:
    """Raises ValueError and fair.Full as Engine.submit does."""
    loop = asyncio.get_running_loop()
    sinks = [sink_of(loop, _Numbered(self._queue, i)) for i in range(len(asks))]
    self.streams = self._engine.submit(asks, voice, sinks)
    self._begin(len(asks))
    self.prompt_tokens = self.streams[0].prompt_tokens

  def _begin(self, count: int) -> None:
    self._open = count
    self.texts, self.tokens = [''] * count, [[] for _ in range(count)]
    self.finishes = [None] * count

  async def __aiter__(self) -> AsyncIterator[tuple[int, Piece]]:
    while self._open:
      index, piece = await self._queue.get()
      self.texts[index] += piece.text
      self.tokens[index] += piece.tokens
      if piece.finish:
        self.finishes[index] = piece.finish
        self._open -= 1
      if self.streams:
        self.completion_tokens = sum(s.completion_tokens for s in self.streams)
      yield index, piece

  async def hear(self) -> None:
    """Waits for its end. Raises RuntimeError where it fails."""
    async for _, piece in self:
      if piece.finish == 'error':
        raise RuntimeError(piece.error)

  @property
  def whole(self) -> bool:
    return not self._open and self.finishes[0] in ('stop', 'length')

  @property
  def own(self) -> bool:
    """Whether its generation's weights said it, and no note or reader."""
    return (bool(self.streams) or self.weighed) and self.reader == self.generation

  def close(self) -> None:
    if self._open and self.streams:
      self._engine.cancel(self.streams)


class _Numbered:
  """A queue whose items say of which choice they are."""

  def __init__(self, queue: asyncio.Queue, index: int):
    self._queue, self._index = queue, index

  def put_nowait(self, piece: Piece) -> None:
    self._queue.put_nowait((self._index, piece))


class Talk:
  """Conversations of one agent.

  Args:
    agent: open; its diary and its parts.
    voices: of the agent's generations. Until one serves, nothing is answered.
  """

  engine: Engine | None = None  # set before a voice serves

  def __init__(self, agent: Agent, voices: Voices, baking: Baking):
    self.agent, self.voices, self.baking = agent, voices, baking
    config = configuration.group(agent.config, 'serve', ServeConfig)
    self.doze = Doze(agent.workdir / 'held', agent.media, config.queue)
    self.senses = shown_lib.Senses(agent, config.max_media_bytes, lambda: self.doze.asleep)
    self.thinking = 0  # replies that are not spoken yet
    self.asked = 0  # of the mind, that is not done yet
    self.heard = time.monotonic()  # when something was said last
    self.unrated = True  # whether there may be something without scores: see rater.py
    self.unheard: weakref.WeakSet[Reply] = weakref.WeakSet()  # that are not logged, nor dropped
    self._mind = ThreadPoolExecutor(1, thread_name_prefix='mind')
    self._whys: collections.OrderedDict[str, Why] = collections.OrderedDict()
    self._logging: set[asyncio.Future] = set()
    self._shadows: set[asyncio.Future] = set()

  async def with_mind(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Runs what uses the agent's own decoder or its indexes, one at a time."""
    call = functools.partial(work, *args, **kwargs)
    self.asked += 1
    try:
      return await asyncio.get_running_loop().run_in_executor(self._mind, call)
    finally:
      self.asked -= 1

  async def voice(self, generation: int | None) -> Voice:
    """Whoever serves, or a generation of this number. Raises ValueError when there is none."""
    blue = self.voices.blue
    if generation is None or generation == blue.generation:
      return blue
    return await asyncio.to_thread(self.voices.get, generation)

  def news(self) -> None:
    """Notes that there is something to rate, when it has been quiet for a while."""
    self.heard, self.unrated = time.monotonic(), True

  def check(self) -> None:
    """Raises Refused while it sleeps, NotReady before it can speak: then nothing reads weights."""
    self.doze.check()
    _ = self.voices.blue

  @contextlib.contextmanager
  def at_work(self) -> Iterator[None]:
    """Until it is over, it does not fall asleep. Raises Refused when it sleeps already."""
    self.doze.check()
    self.thinking += 1
    try:
      yield
    finally:
      self.thinking -= 1
      self.heard = time.monotonic()

  async def reply(self, message: Message) -> Reply:
    """Begins to reply. Raises ValueError (nothing is logged then), Refused and fair.Full."""
    self.agent.check(message.text)
    with self.at_work():
      reply = await self._reply(message)
    if message.store:
      self.unheard.add(reply)
    return reply

  async def reply_in_time(self, message: Message) -> Reply:
    """As `reply`, to who has waited already: while it sleeps, or the queue is full, it waits on."""
    while True:
      await self.doze.awake()
      try:
        return await self.reply(message)
      except fair.Full:
        await asyncio.sleep(_FULL_SECONDS)
      except Refused as e:
        if e.code != ASLEEP:  # else it has fallen asleep again
          raise

  async def _reply(self, message: Message) -> Reply:
    voice = await self.voice(message.generation)
    if message.generation is None:
      voice = self.baking.choose(voice, message.conversation)
    turns = message.turns[-_TURNS:]
    if message.system and self.agent.instruct:  # Gemma's template has no role for it
      turns = chat.Turn(text=message.system, response='Understood.'), *turns
    say = (message.text, message.user, message.at or time.time(), voice.mind, turns)
    asks, seen = chat.is_question(message.text), shown_lib.seen(message.shown, message.user)
    reads = message.retrieval and (asks or self.agent.instruct)
    reads = bool(seen) or (reads and bool(self.agent.diary.ids(limit=1)))
    # Of what is chosen there are no probabilities, and no second one: then it is written.
    whole = self.agent.chooses or (bool(seen) and self.agent.instruct)  # and not written by steps
    chooses = whole and not message.logprobs and message.n == 1
    earlier = [t.response for t in message.turns] if chooses else None
    if reads or (chooses and not asks):
      how = {'retrieval': message.retrieval, 'earlier': earlier, 'shown': seen}
      thought = await self.with_mind(self.agent.think, *say, **how)
    else:  # nothing but words: needs no turn
      thought = await asyncio.to_thread(self.agent.think, *say, retrieval=False)
    why = self.agent.reason(message.text, thought)
    reply = Reply(f'chatcmpl-{secrets.token_hex(12)}', voice, why, self.engine)
    reply.shown = message.shown
    prompt = thought.prompt
    prefix, text = self._ids(prompt.prefix), self._ids(prompt.text)
    prefix = (self.agent.base.tokenizer.bos, *prefix)
    if thought.said:
      reply.prompt_tokens, reply.weighed = len(prefix) + len(text), thought.own
      pieces = [Piece(text=thought.said, finish='stop')] * message.n
      reply.tell(pieces, len(self._ids(thought.said)) * message.n)
    else:
      speaker = voice
      if thought.mind.generation != voice.generation:
        speaker = await self.voice(thought.mind.generation)
      asks = [
        Ask(
          prefix=prefix,
          prompt=text,
          max_tokens=min(message.max_tokens, self.engine.room(len(prefix) + len(text))),
          sampler=dataclasses.replace(message.sampler, seed=message.sampler.seed + i),
          stop=(*prompt.stop, *message.stop),
          logprobs=message.logprobs,
          client=message.client,
          strip=True,
        )
        for i in range(message.n)
      ]
      reply.speak(asks, speaker)
    self._whys[reply.id] = why
    while len(self._whys) > _WHYS:
      self._whys.popitem(last=False)
    return reply

  async def log(self, message: Message, reply: Reply) -> None:
    """Keeps what was said in the diary, also when it was cut off, and its caller with it."""
    self.unheard.discard(reply)
    if message.generation is None and self._tallied(reply):
      busy = self.engine is None or self.engine.waiting
      if reply.generation == self.voices.serving and not busy:
        if (green := self.baking.shadow()) is not None:
          self._behind(self._shadow(message, green.generation))
    if message.store and (reply.whole or 'held' not in message.metadata):
      task = asyncio.ensure_future(self._log(message, reply))
      self._logging.add(task)
      task.add_done_callback(self._logging.discard)
      await asyncio.shield(task)

  def _behind(self, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    self._shadows.add(task)
    task.add_done_callback(self._shadows.discard)

  async def _shadow(self, message: Message, generation: int) -> None:
    """Has a generation answer what another has answered; nobody hears it, only its tally."""
    how = {'generation': generation, 'store': False, 'n': 1, 'logprobs': False}
    try:
      reply = await self.reply(dataclasses.replace(message, **how))
    except (ValueError, OSError, Refused, fair.Full):  # the machine's doing, and not its own
      return
    with contextlib.suppress(RuntimeError):  # which counts
      await reply.hear()
    self._tallied(reply)

  def _tallied(self, reply: Reply) -> bool:
    """Whether a reply is one to judge its generation by; then that is noted."""
    failed = 'error' in reply.finishes
    if not reply.own or not (reply.whole or failed):
      return False
    first = next((s.first_at - s.asked_at for s in reply.streams if s.first_at), None)
    said = reply.texts[0] if reply.texts else ''
    self.baking.said(reply.generation, said, failed=failed, first=first)
    return True

  async def _log(self, message: Message, reply: Reply) -> None:
    metadata = {**message.metadata, 'generation': reply.generation, 'response_id': reply.id}
    if not reply.whole:
      metadata['interrupted'] = True
    if not reply.own:
      metadata['read'] = True
    said = reply.texts[0].strip() if reply.texts else ''
    reply.experience = await self.with_mind(self._keep, message, said, metadata)

  def _keep(self, message: Message, said: str, metadata: Mapping[str, Any]) -> int:
    """Into the diary, once: what was said while it slept may be answered to several."""
    if (known := self._known(message, metadata)) is not None:
      return known
    what = message.text, said, message.shown
    how = {'user': message.user, 'session': message.session, 'now': message.at}
    self.news()
    return shown_lib.log(self.agent, *what, metadata=metadata, **how).id

  def _known(self, message: Message, metadata: Mapping[str, Any]) -> int | None:
    """The experience that a message is already, where it is known by its key."""
    if (key := metadata.get('held')) is None:
      return None
    lived = self.agent.diary.experiences(since=message.at)
    return next((e.id for e in lived if e.metadata.get('held') == key), None)

  async def give_up(self, message: Message) -> None:
    """Keeps a message without an answer, since there is none."""
    metadata = {**message.metadata, 'unanswered': True}
    await self.with_mind(self._keep, message, '', metadata)

  async def answer(self, message: Message) -> None:
    """Replies to a message that nobody waits for: into the diary, once."""
    await self.settle()  # who left may have been answered
    if (await self.with_mind(self._known, message, message.metadata)) is not None:
      return
    reply = await self.reply_in_time(message)
    await reply.hear()
    await self.log(message, reply)

  def why(self, id: str) -> Why | None:
    """What stood behind a reply of this process; None when it is forgotten or never was."""
    return self._whys.get(id)

  def forget_whys(self) -> None:
    """What was forgotten in the diary is not to be read here."""
    self._whys.clear()

  async def settle(self) -> None:
    """Waits until all that was said is in the diary."""
    while self._logging:
      await asyncio.wait(self._logging)

  def close(self) -> None:
    for task in self._shadows:
      task.cancel()
    self._mind.shutdown(wait=True, cancel_futures=True)
    self.senses.close()

  def _ids(self, prompt: Prompt) -> tuple[int, ...]:
    return tuple(self.agent.base.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
