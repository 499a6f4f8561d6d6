"""A message on its way: thought about with the diary, spoken by the engine, logged.

What an agent does with a message is Agent's; here it happens for many at once. Thinking (recall,
and judging what notes tell) takes turns on one thread, since it uses the agent's own decoder.
Speaking is the engine's, many at a time.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dreaming.agent import Agent, Why
from dreaming.brain import chat
from dreaming.brain.decode import Prompt
from dreaming.brain.sampler import Sampler
from dreaming.serve.baking import Baking
from dreaming.serve.engine import Engine
from dreaming.serve.stream import Ask, Piece, Stream, Token, sink_of
from dreaming.serve.voices import Voice, Voices

T = TypeVar('T')
_WHYS = 512  # replies whose reasons are remembered
_TURNS = 2  # of a conversation that a prompt repeats: a small model reads no more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
  """What is said to the agent, and how it is to reply."""

  text: str
  user: str
  turns: tuple[chat.Turn, ...] = ()
  system: str = ''  # read by -it models alone: a pretrained one would take it for the message
  generation: int | None = None  # None: whoever serves
  retrieval: bool = True
  store: bool = True
  n: int = 1
  max_tokens: int
  sampler: Sampler
  stop: tuple[str, ...] = ()
  logprobs: bool = False
  client: str = ''
  metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def conversation(self) -> str:
    """What all messages of one have in common: its session where a client names one (in OpenAI's
    `metadata`), or what was said first."""
    session = self.metadata.get('client', {}).get('session')
    first = self.turns[0].text if self.turns else self.text
    return '\n'.join((self.client, self.user, session or first))


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

  engine: Engine  # set before a voice serves

  def __init__(self, agent: Agent, voices: Voices, baking: Baking):
    self.agent, self.voices, self.baking = agent, voices, baking
    self._mind = ThreadPoolExecutor(1, thread_name_prefix='mind')
    self._whys: collections.OrderedDict[str, Why] = collections.OrderedDict()
    self._logging: set[asyncio.Future] = set()

  async def with_mind(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Runs what uses the agent's own decoder or its indexes, one at a time."""
    call = functools.partial(work, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(self._mind, call)

  async def voice(self, generation: int | None) -> Voice:
    """Whoever serves, or a generation of this number. Raises ValueError when there is none."""
    blue = self.voices.blue
    if generation is None or generation == blue.generation:
      return blue
    return await asyncio.to_thread(self.voices.get, generation)

  async def reply(self, message: Message) -> Reply:
    """Begins to reply. Raises ValueError (nothing is logged then) and fair.Full."""
    self.agent.check(message.text)
    voice = await self.voice(message.generation)
    if message.generation is None:
      voice = self.baking.choose(voice, message.conversation)
    turns = message.turns[-_TURNS:]
    if message.system and self.agent.instruct:  # Gemma's template has no role for it
      turns = chat.Turn(text=message.system, response='Understood.'), *turns
    say = (message.text, message.user, time.time(), voice.mind, turns)
    reads = message.retrieval and (chat.is_question(message.text) or self.agent.instruct)
    reads = reads and bool(self.agent.diary.ids(limit=1))
    # Of what is chosen there are no probabilities, and no second one: then it is written.
    chooses = self.agent.chooses and not message.logprobs and message.n == 1
    earlier = [t.response for t in message.turns] if chooses else None
    if reads or (chooses and not chat.is_question(message.text)):
      thought = await self.with_mind(self.agent.think, *say, retrieval=reads, earlier=earlier)
    else:  # nothing but words: needs no turn
      thought = await asyncio.to_thread(self.agent.think, *say, retrieval=False)
    why = self.agent.reason(message.text, thought)
    reply = Reply(f'chatcmpl-{secrets.token_hex(12)}', voice, why, self.engine)
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
    failed = 'error' in reply.finishes
    first = next((s.first_at - s.asked_at for s in reply.streams if s.first_at), None)
    if reply.own and message.generation is None and (reply.whole or failed):
      said = reply.texts[0] if reply.texts else ''
      self.baking.said(reply.generation, said, failed=failed, first=first)
    if message.store:
      task = asyncio.ensure_future(self._log(message, reply))
      self._logging.add(task)
      task.add_done_callback(self._logging.discard)
      await asyncio.shield(task)

  async def _log(self, message: Message, reply: Reply) -> None:
    metadata = {**message.metadata, 'generation': reply.generation, 'response_id': reply.id}
    if not reply.whole:
      metadata['interrupted'] = True
    if not reply.own:
      metadata['read'] = True
    said = reply.texts[0].strip() if reply.texts else ''
    logged = await self.with_mind(
      self.agent.observe, message.text, said, user=message.user, metadata=metadata
    )
    reply.experience = logged.id

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
    self._mind.shutdown(wait=True, cancel_futures=True)

  def _ids(self, prompt: Prompt) -> tuple[int, ...]:
    return tuple(self.agent.base.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
