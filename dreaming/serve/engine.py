"""Continuous batching: one thread that reads prompts, steps all streams together, and tells them.

  engine = Engine(base.arch, base.tokenizer, length=1024, slots=8)
  stream = engine.submit(ask, voice, sink)

Between two steps at most one chunk of one prompt is read, so that a long prompt holds nobody up for
long. While the device takes a step, the host looks at the text of the one before. Streams of
several generations share the slots; their steps take turns, each with the weights its streams
began with. Nobody's text depends on who else is there, but for the rounding of f32 products:
a stream that is alone takes the step of one slot, which is faster.
"""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dreaming.brain import serving
from dreaming.brain.sampler import GREEDY, Sampler
from dreaming.brain.tokenizer import Tokenizer
from dreaming.brain.transformer import Architecture
from dreaming.serve import slots as slots_lib
from dreaming.serve.fair import FairQueue
from dreaming.serve.stream import Ask, Piece, Stream
from dreaming.serve.voices import Voice

_log = logging.getLogger(__name__)
_MODES = ('greedy', 'filtered', 'free')
_CALM = 16  # steps that a stream must have been alone before it moves to the single slot


class _Prefix(NamedTuple):
  voice: Voice
  row: slots_lib.Row


class _Joining(NamedTuple):
  stream: Stream
  row: slots_lib.Row
  left: tuple[int, ...]  # ids of the prompt that are still to be read
  prefix: tuple[int, ...]  # of them, that are to be kept when they are read; () when they are


class _Step(NamedTuple):
  streams: dict[int, Stream]  # by row of what was said
  said: slots_lib.Said
  first: bool


class Engine:
  """Answers many requests at once.

  Args:
    arch: of all minds.
    tokenizer: theirs.
    length: tokens that prompt and reply may have together.
    slots: streams at a time; more wait.
    queue: how many may wait.
    prefixes: how many read prefixes are kept, over all generations.
  """

  def __init__(
    self,
    arch: Architecture,
    tokenizer: Tokenizer,
    *,
    length: int,
    slots: int = 8,
    queue: int = 64,
    prefixes: int = 12,
  ):
    self.length, self.tokenizer = length, tokenizer
    self._batcher = slots_lib.Batcher(arch, length)
    self._sizes = sorted({1, slots})
    self._pools = {n: self._batcher.slots(n) for n in self._sizes}
    self._size = self._sizes[0]
    self._streams: dict[int, Stream] = {}  # by slot of the pool in use
    self._joining: _Joining | None = None
    self._queue = FairQueue(queue)
    self._prefixes: collections.OrderedDict[Any, _Prefix] = collections.OrderedDict()
    self._max_prefixes = prefixes
    self._turn: list[Voice] = []
    self._alone = 0
    self._embedding: tuple[Any, Any, Any] | None = None
    self._lock = threading.Condition()
    self._closing = False
    self._thread: threading.Thread | None = None
    self.on_end: Callable[[Stream], None] = lambda stream: None
    self.steps = self.tokens = 0
    self.beat = 0  # rises while the thread lives

  # ---- For other threads ----

  @property
  def compilations(self) -> int:
    return self._batcher.compilations

  @property
  def waiting(self) -> int:
    return len(self._queue)

  @property
  def active(self) -> int:
    return len(self._streams) + (self._joining is not None)

  def room(self, prompt_tokens: int) -> int:
    """Tokens that a reply to such a prompt can have; the last needs no room of its own."""
    return self.length - prompt_tokens + 1

  def submit(self, asks: list[Ask], voice: Voice, sinks: list[Callable[[Piece], None]]):
    """Queues requests, all or none.

    Raises:
      ValueError: a prompt is empty or leaves no room.
      OSError: the engine is closing.
      fair.Full: too many wait.
    """
    streams = []
    for ask, sink in zip(asks, sinks, strict=True):
      size = len(ask.prefix) + len(ask.prompt)
      if not ask.prompt:
        raise ValueError('the prompt is empty: there is nothing to continue')
      if ask.max_tokens < 1 or self.room(size) < ask.max_tokens:
        raise ValueError(
          f'{size} tokens of prompt and {ask.max_tokens} of reply exceed '
          f'decode.cache_length={self.length}: shorten the prompt or ask for less'
        )
      streams.append(Stream(ask, voice, self.tokenizer, sink))
    with self._lock:
      if self._closing:
        raise OSError('the server is closing')
      self._queue.put(asks[0].client, streams)
      self._lock.notify()
    return streams

  def cancel(self, streams: list[Stream]) -> None:
    """Their slots and places in the queue go to others."""
    with self._lock:
      for stream in streams:
        stream.cancel()
        if self._queue.remove(stream):
          stream.end('cancelled')
      self._lock.notify()

  def prefixes(self, voice: Voice) -> set[tuple[int, ...]]:
    """What is kept read with a voice."""
    with self._lock:
      return {prefix for (_, prefix), kept in self._prefixes.items() if kept.voice is voice}

  def forget(self, voice: Voice) -> None:
    """Drops what was read with a voice that will not speak again."""
    with self._lock:
      for key in [k for k, v in self._prefixes.items() if v.voice is voice]:
        del self._prefixes[key]

  def start(self) -> None:
    self._thread = threading.Thread(target=self._run, name='engine', daemon=True)
    self._thread.start()

  @property
  def alive(self) -> bool:
    return self._thread is not None and self._thread.is_alive()

  def close(self) -> None:
    """Ends the thread; who still waits is told so."""
    with self._lock:
      self._closing = True
      self._lock.notify()
    if self._thread is not None:
      self._thread.join()
    rest = [*self._streams.values(), *([self._joining.stream] if self._joining else [])]
    while (stream := self._queue.pop()) is not None:
      rest.append(stream)
    for stream in rest:
      stream.end('error', 'the server is closing')
    self._streams, self._joining = {}, None

  def warm_up(self, voice: Voice, modes: tuple[str, ...] = _MODES) -> None:
    """Compiles every program, or gets it from the disk; before `start`.

    Two at a time: Python traces one while XLA reads another.
    """
    params, row = voice.mind.params, self._batcher.row()
    table = params['embedder']['input_embedding']
    if voice.served:
      self._quantized(table, 1)  # begins now, beside the tracing
    read = row._replace(hidden=jnp.zeros((1, table.shape[1])), length=1)

    def step(size: int) -> None:
      pool = self._pools[size]
      for mode in modes:
        pool, _ = self._batcher.insert(params, pool, read, 0, GREEDY, mode)
        pool, _ = self._step(voice, pool, np.zeros(size, bool), mode)
      self._pools[size] = pool

    with futures.ThreadPoolExecutor(2) as threads:
      chunks = slots_lib.CHUNKS[::-1]
      done = [
        threads.submit(self._batcher.read, params, voice.served, row, [0] * n) for n in chunks
      ]
      done += [threads.submit(step, size) for size in self._sizes]
      for future in done:
        future.result()
    small, large = self._sizes[0], self._sizes[-1]
    if small != large:
      self._pools[large] = self._batcher.move(self._pools[large], 0, self._pools[small], 0)
      self._pools[small] = self._batcher.move(self._pools[small], 0, self._pools[large], 0)
    jax.block_until_ready(self._pools)

  # ---- The engine's thread ----

  def _run(self) -> None:
    before: _Step | None = None
    while True:
      with self._lock:
        while not (self._closing or self._streams or self._joining or before or len(self._queue)):
          self._lock.wait()
        if self._closing:
          return
      self.beat += 1
      try:
        joined = self._join()
        step = self._next_step()
        for done in (before, joined):
          if done is not None:
            self._tell(done)
        before = step
        self._resize()
      except Exception as e:  # one request's misfortune must not silence all others for good
        _log.exception('the engine failed; its streams end')
        self._fail(e)
        before = None

  def _join(self) -> _Step | None:
    """Reads a chunk of the next prompt, and gives it a slot when it was the last."""
    if self._joining is None:
      with self._lock:
        free = len(self._streams) < self._sizes[-1]
        stream = self._queue.pop() if free else None
      if stream is None:
        return None
      self._joining = self._begin(stream)
    stream, row, left, prefix = self._joining
    if stream.cancelled:
      self._joining = None
      self._end(stream, 'cancelled')
      return None
    size = slots_lib.chunk(len(prefix) or len(left))
    voice = stream.voice
    row = self._batcher.read(voice.mind.params, voice.served, row, left[:size])
    left, rest = left[size:], prefix[size:]
    if prefix and not rest:
      self._keep(stream, row)
    self._joining = _Joining(stream, row, left, rest)
    if left:
      return None
    self._joining = None
    return self._enter(stream, row)

  def _begin(self, stream: Stream) -> _Joining:
    ask = stream.ask
    if ask.prefix:
      with self._lock:
        key = id(stream.voice), ask.prefix
        found = self._prefixes.get(key)
        if found is not None and found.voice is stream.voice:
          self._prefixes.move_to_end(key)
          return _Joining(stream, found.row, ask.prompt, ())
    return _Joining(stream, self._batcher.row(), ask.prefix + ask.prompt, ask.prefix)

  def _keep(self, stream: Stream, row: slots_lib.Row) -> None:
    with self._lock:
      self._prefixes[id(stream.voice), stream.ask.prefix] = _Prefix(stream.voice, row)
      while len(self._prefixes) > self._max_prefixes:
        self._prefixes.popitem(last=False)

  def _enter(self, stream: Stream, row: slots_lib.Row) -> _Step:
    if len(self._streams) == self._size:
      self._grow()
    slot = next(i for i in range(self._size) if i not in self._streams)
    mode = _mode([stream])
    pool, said = self._batcher.insert(
      stream.voice.mind.params, self._pools[self._size], row, slot, stream.ask.sampler, mode
    )
    self._pools[self._size] = pool
    self._streams[slot] = stream
    return _Step({0: stream}, said, True)

  def _next_step(self) -> _Step | None:
    """One step of the generation whose turn it is."""
    for slot, stream in list(self._streams.items()):
      if stream.finish or stream.cancelled:
        del self._streams[slot]
        self._end(stream, 'cancelled')
    if not self._streams:
      return None
    voices = list(dict.fromkeys(s.voice for s in self._streams.values()))
    self._turn = [v for v in self._turn if v in voices] + [v for v in voices if v not in self._turn]
    voice = self._turn.pop(0)
    self._turn.append(voice)
    streams = {i: s for i, s in self._streams.items() if s.voice is voice}
    active = np.zeros(self._size, bool)
    active[list(streams)] = True
    pool = self._pools[self._size]
    pool, said = self._step(voice, pool, active, _mode(streams.values()))
    self._pools[self._size] = pool
    self.steps += 1
    return _Step(streams, said, False)

  def _step(self, voice: Voice, pool, active, mode):
    embedding = None
    if voice.served and mode != 'free':
      embedding = self._quantized(voice.mind.params['embedder']['input_embedding'], len(active))
    return self._batcher.step(voice.mind.params, voice.served, embedding, pool, active, mode)

  def _quantized(self, table: Any, slots: int) -> Any:
    """The embedding that proposes on CPUs: the same for all generations of a base."""
    if next(iter(table.devices())).platform != 'cpu':
      return None
    if self._embedding is None or self._embedding[0] is not table:
      one = serving.quantize(table)
      self._embedding = table, one, serving.in_blocks(one) if self._sizes[-1] > 1 else None
    return self._embedding[1] if slots == 1 else self._embedding[2]

  def _tell(self, step: _Step) -> None:
    """Waits for a step's tokens and gives them to their streams."""
    said = jax.device_get(step.said)
    for i, stream in step.streams.items():
      if stream.finish or stream.cancelled:
        continue
      self.tokens += 1
      more = ()
      if stream.ask.logprobs and said.logprob is not None:
        top = zip(said.top_ids[i].tolist(), said.top_logprobs[i].tolist(), strict=True)
        more = float(said.logprob[i]), tuple(top)
      stream.take(int(said.token[i]), *more)
      if stream.finish:
        self.on_end(stream)

  def _end(self, stream: Stream, finish: str) -> None:
    if not stream.finish:
      stream.end(finish)
      self.on_end(stream)

  def _fail(self, error: Exception) -> None:
    for stream in [*self._streams.values(), *([self._joining.stream] if self._joining else [])]:
      if not stream.finish:
        stream.end('error', f'{type(error).__name__}: {error}')
        self.on_end(stream)
    self._streams, self._joining, self._turn = {}, None, []
    # What a step was given is gone with it.
    self._pools = {n: self._batcher.slots(n) for n in self._sizes}

  # ---- How many slots a step has ----

  def _grow(self) -> None:
    self._transfer(self._sizes[self._sizes.index(self._size) + 1])

  def _resize(self) -> None:
    """Back to the single slot when a stream has been alone for a while."""
    self._alone = self._alone + 1 if len(self._streams) <= 1 else 0
    small = self._sizes[0]
    if self._size > small and not self._joining and not len(self._queue):
      if not self._streams or self._alone > _CALM:
        self._transfer(small)

  def _transfer(self, size: int) -> None:
    pool, moved = self._pools[size], {}
    for to, (slot, stream) in enumerate(self._streams.items()):
      pool = self._batcher.move(pool, to, self._pools[self._size], slot)
      moved[to] = stream
    self._pools[size], self._streams, self._size = pool, moved, size


def _mode(streams) -> str:
  """What the step must be able to do for these."""
  modes = {_need(s.ask.sampler, s.ask.logprobs) for s in streams}
  return max(modes, key=_MODES.index)


def _need(sampler: Sampler, logprobs: bool) -> str:
  return 'filtered' if sampler.mode == 'greedy' and logprobs else sampler.mode
