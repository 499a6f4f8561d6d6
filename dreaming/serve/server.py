"""One process that serves one identity: what it consists of, in the order in which it comes up.

`/health` answers at once; the weights are read and the programs compiled behind it, and `/ready`
says when a token can be had.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import sys
import time
from collections.abc import AsyncIterator, Mapping

from ml_collections import ConfigDict
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response

from dreaming import bundle, configuration
from dreaming.agent import Agent
from dreaming.brain import kernels
from dreaming.serve import openapi, page, routes
from dreaming.serve import voices as voices_lib
from dreaming.serve.access import Access, Refused
from dreaming.serve.baking import BakeConfig, Baking
from dreaming.serve.browse import Browse
from dreaming.serve.completions import Completions
from dreaming.serve.config import ServeConfig
from dreaming.serve.engine import Engine
from dreaming.serve.metrics import CONTENT_TYPE, JsonLines, Metrics
from dreaming.serve.nights import Nights
from dreaming.serve.own import Own
from dreaming.serve.parcel import Parcel
from dreaming.serve.probes import Probes
from dreaming.serve.rater import Rater
from dreaming.serve.routes import Call, Endpoint
from dreaming.serve.stream import Ask, Piece, sink_of
from dreaming.serve.swaps import Swaps
from dreaming.serve.talk import Talk
from dreaming.serve.voices import Voice, Voices
from dreaming.sleep.trigger import TriggerConfig
from dreaming.types import Mind

_log = logging.getLogger('dreaming.serve')
_READY_SECONDS = 20.0  # for one token, among others
_QUIET_LOOKS = 3
_LOOK_SECONDS = 0.05  # between looks at whether streams have ended
_AROUND = 4096  # bytes of JSON around what is shown
_CONNECTIONS = 512  # at a time; more are refused


class Server:
  """The parts of a server, and its Starlette app.

  Args:
    agent: open; closed by whoever opened it.
    others: further identities over the same base by name, open as well. They share its buffers, the
      engine, the tokens and the metrics, and are asked under /agents/NAME.
  """

  def __init__(self, agent: Agent, others: Mapping[str, Agent] | None = None):
    self._init(agent, '', None)
    self.others = [Server._beside(a, name, self) for name, a in (others or {}).items()]
    for server in (self, *self.others):
      server.nights.starting = self.nights.starting
      server.nights.beside = [s.nights for s in (self, *self.others) if s is not server]
    self.endpoints = [e for s in (self, *self.others) for e in s.endpoints]
    self.app = self._app()

  @classmethod
  def _beside(cls, agent: Agent, name: str, first: Server) -> Server:
    server = cls.__new__(cls)
    server._init(agent, name, first)
    return server

  def _init(self, agent: Agent, name: str, first: Server | None) -> None:
    self.agent, self.name, self.first, self.others = agent, name, first, []
    self.config: ServeConfig = configuration.group(agent.config, 'serve', ServeConfig)
    self.trigger = configuration.group(agent.config, 'trigger', TriggerConfig)
    self.decode = configuration.group(agent.config, 'decode', configuration.DecodeConfig)
    self.access = Access(self.config) if first is None else first.access
    self.metrics = Metrics() if first is None else first.metrics
    self.started = time.time()
    self.failed = ''  # why it will never be ready
    self.bake_seconds = 2.0  # between looks at what bakes
    self.engine: Engine | None = None
    self.voices = Voices(
      self._read, warm=self.config.warm, forget=self._forget, lay_out=self._lay_out
    )
    self.baking = Baking(configuration.group(agent.config, 'bake', BakeConfig))
    self.swaps = Swaps(agent, self.voices, self.metrics, self.baking)
    self.nights = Nights(agent, self.metrics, self._cut_over)
    self.talk = Talk(agent, self.voices, self.baking)
    if self.config.pause:
      self.nights.fall = self._fall
    self.endpoints = self._endpoints()

  # ---- Coming up and going down ----

  def load(self, number: int | None = None) -> None:
    """Reads the weights, compiles, and lets a generation speak. Takes seconds.

    Args:
      number: which; by default the active one.
    """
    if number is None:  # not on waking: what is being sent then is no leftover
      bundle.sweep(self.agent.workdir)
    if self.first is not None:
      self.agent.share(self.first.agent)
    active = number in (None, self.agent.diary.active())
    blue = self.agent.identity.blue if active else self.agent.identity.mind(number)
    voice = self.voices.get(blue.generation, blue)
    self.engine = self._engine(voice) if self.first is None else self.first.engine
    self.talk.engine = self.swaps.engine = self.engine
    self.voices.flip(voice)
    fields = {'generation': blue.generation, 'seconds': round(time.time() - self.started, 1)}
    fields |= {'identity': self.name} if self.name else {}
    _log.info('ready', extra={'fields': fields})

  def _engine(self, voice: Voice) -> Engine:
    base, config = self.agent.base, self.config
    if config.kernels:
      kernels.load(self.agent.cache)
    engine = Engine(
      base.arch, base.tokenizer, length=self.decode.cache_length, slots=config.slots,
      queue=config.queue, prefixes=config.prefixes,
    )  # fmt: skip
    engine.warm_up(voice)
    engine.start()
    self.metrics.watch(engine, self.voices)
    return engine

  # ---- Sleeping offline ----

  async def _fall(self) -> None:
    """Lets go of the weights when all that was said is answered.

    Raises Refused while they are not there.
    """
    if self.engine is None:
      raise Refused(503, 'no generation serves yet: wait until /ready says so', 'not_ready')
    self.talk.doze.fall()
    try:
      quiet = 0
      while quiet < _QUIET_LOOKS and self.engine.alive:  # a stream is in neither place for a moment
        busy = self.talk.thinking or self.engine.active or self.engine.waiting
        quiet = 0 if busy else quiet + 1
        await asyncio.sleep(_LOOK_SECONDS)
      end = time.monotonic() + self.config.drain_seconds
      while self.talk.unheard and time.monotonic() < end:  # spoken, and not taken yet
        await asyncio.sleep(_LOOK_SECONDS)
      await self.talk.settle()
      await self.talk.with_mind(self._unload)
    except BaseException:
      if self.engine is None:
        await self._rise()
      self.talk.doze.rise()
      raise
    _log.info('asleep', extra={'fields': {'generation': self.voices.serving}})

  def _unload(self) -> None:
    with self.swaps.lock:  # a swap under way comes to its end
      self.voices.rest(self.voices.blue.generation)  # from now on none is read
      self.engine.close()
      self.engine = self.talk.engine = self.swaps.engine = None
      self.metrics.rest()
      self.agent.unload()

  async def _cut_over(self) -> None:
    """What a night promoted serves."""
    if self.config.pause:
      await self._rise()
    else:
      await asyncio.to_thread(self.swaps.follow)

  async def _rise(self) -> None:
    """Reads the weights again, follows what the night promoted, and answers what was said."""
    try:
      await asyncio.to_thread(self._reload)
    except Exception as e:  # what is said stays on the disk, for a server that can
      self.failed = ' '.join(str(e).split()) or type(e).__name__
      raise
    finally:
      self.talk.doze.rise()

  def _reload(self) -> None:
    self.load(self.voices.serving)
    try:
      self.swaps.follow()
    except Exception:  # Blue serves
      _log.exception('the generation that was promoted cannot serve')

  async def _answer_left(self) -> None:
    while not self._awake():
      await asyncio.sleep(self.bake_seconds)
    await self.talk.doze.answer_left(self.talk.answer, self.talk.give_up)

  @contextlib.asynccontextmanager
  async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
    del app
    servers = [self, *self.others]
    loading = asyncio.ensure_future(asyncio.to_thread(lambda: [s._load() for s in servers]))
    waiting = asyncio.gather(
      *(s.nights.fall_asleep(s.trigger, s._awake) for s in servers),
      *(wait for s in servers for wait in (s._bake(), s._answer_left())),
      Rater([(s.talk, s.nights) for s in servers], self.config.rate_after).watch(),
    )
    try:
      yield
    finally:
      waiting.cancel()
      with contextlib.suppress(asyncio.CancelledError):
        await waiting
      await loading
      for server in servers:
        await server.nights.close()
        await server.talk.settle()
      if self.engine is not None:
        self.engine.close()
      for server in servers:
        server.talk.close()

  async def _bake(self) -> None:
    """Looks at what bakes, for as long as it is not cancelled."""
    while self.baking.config.on:
      await asyncio.sleep(self.bake_seconds)
      if self.baking.green is not None:
        try:
          await asyncio.to_thread(self.swaps.judge)
        except Exception:  # Blue serves; the next look may find it well again
          _log.exception('what bakes could not be judged')

  def _awake(self) -> bool:
    return self.engine is not None and self.baking.green is None

  def _load(self) -> None:
    try:
      if self.first is not None and self.first.failed:
        raise ValueError(self.first.failed)
      self.load()
    except Exception as e:
      self.failed = ' '.join(str(e).split()) or type(e).__name__
      _log.exception('the agent could not be loaded')

  def _read(self, number: int):
    """A generation as it is on the disk."""
    known = {0, *(g.number for g in self.agent.diary.generations())}
    if number not in known:
      there = ', '.join(map(str, sorted(known)))
      raise ValueError(f'there is no generation {number}; there are: {there}')
    return self.agent.identity.mind(number)

  def _lay_out(self, mind: Mind) -> Voice:
    """A voice; of the base itself all identities have one layout."""
    if self.first is not None and mind.params is self.first.agent.base.params:
      return Voice(mind, self.first.voices.get(0).served)
    return voices_lib.make(mind)

  def _forget(self, voice) -> None:
    if self.engine is not None:
      self.engine.forget(voice)

  # ---- Its endpoints ----

  def _endpoints(self) -> list[Endpoint]:
    completions = Completions(self.talk, self.config, self.decode.max_tokens)
    own = Own(self.talk, self.nights, self.swaps)
    of_each = [
      Endpoint(method='GET', path='/ready', handler=self.ready, scope='read',
               summary='Whether it speaks: generates a token'),
      *completions.endpoints(),
      *own.endpoints(),
      *Browse(self.talk).endpoints(),
      *Probes(self.talk).endpoints(),
      *Parcel(self.talk, self.config).endpoints(),
    ]  # fmt: skip
    if self.first is not None:
      return [dataclasses.replace(e, path=f'/agents/{self.name}{e.path}') for e in of_each]
    return [
      Endpoint(method='GET', path='/health', handler=self.health, scope=None,
               summary='Whether the process lives'),
      Endpoint(method='GET', path='/metrics', handler=self.scrape, scope='read',
               summary='For Prometheus', answer='text/plain'),
      Endpoint(method='GET', path='/openapi.json', handler=self.document, scope='read',
               summary='This document'),
      Endpoint(method='GET', path='/agents', handler=self.identities, scope='read',
               summary='Further identities, each with all of this under /agents/NAME'),
      *of_each,
    ]  # fmt: skip

  def _app(self) -> Starlette:
    free = frozenset([*(e.path for e in self.endpoints if e.scope is None), *page.OPEN])
    large = routes.Large(-(-self.config.max_media_bytes // 3) * 4 + _AROUND)
    limits = self.config.max_body_bytes, large
    app = Starlette(
      routes=[*(routes.route(e, *limits) for e in self.endpoints), *page.routes()],
      lifespan=self.lifespan,
      exception_handlers={404: _failed, 405: _failed},
    )
    app.add_middleware(routes.Guard, access=self.access, metrics=self.metrics, free=free)
    return app

  async def health(self, call: Call) -> Response:
    del call
    status = 'failed' if self.failed else 'asleep' if self.talk.doze.asleep else 'ok'
    return JSONResponse({'status': status}, 503 if self.failed else 200)

  async def ready(self, call: Call) -> Response:
    if self.failed:
      return routes.error(503, f'it cannot be loaded: {self.failed}', 'not_ready')
    self.talk.doze.check()
    voice = self.voices.blue
    queue: asyncio.Queue[Piece] = asyncio.Queue()
    sink = sink_of(asyncio.get_running_loop(), queue)
    start = time.monotonic()
    ask = Ask(prompt=(self.agent.base.tokenizer.bos,), max_tokens=1, client=call.client.name)
    streams = self.engine.submit([ask], voice, [sink])
    try:
      piece = await asyncio.wait_for(queue.get(), _READY_SECONDS)
    except TimeoutError:
      self.engine.cancel(streams)
      return routes.error(503, f'no token within {_READY_SECONDS:.0f} s', 'not_ready')
    if piece.finish == 'error':
      return routes.error(503, piece.error, 'not_ready')
    ms = round(1e3 * (time.monotonic() - start), 1)
    return JSONResponse({'status': 'ready', 'generation': voice.generation, 'token_ms': ms})

  async def identities(self, call: Call) -> Response:
    del call
    return JSONResponse({'identities': [
      {'name': s.name, 'agent': s.agent.life.agent, 'failed': s.failed or None,
       'serving': s.agent.diary.active()}
      for s in self.others
    ]})  # fmt: skip

  async def scrape(self, call: Call) -> Response:
    del call
    return Response(self.metrics.text(), media_type=CONTENT_TYPE)

  async def document(self, call: Call) -> Response:
    del call
    return JSONResponse(openapi.document(self.endpoints))


async def _failed(request, e: Exception) -> Response:
  del request
  return routes.of_exception(e)


def run(agent: Agent) -> int:
  """Serves until it is told to end (SIGTERM, or an interrupt); returns the exit code."""
  try:
    import uvicorn  # noqa: F401 (before anything is opened)
  except ImportError:
    raise ValueError(
      "serving needs the extra 'serve': bash launch/setup.sh embedded serve"
    ) from None

  with contextlib.ExitStack() as stack:
    others = {n: stack.enter_context(Agent(_config_of(agent, n))) for n in _names(agent)}
    return _serve(Server(agent, others))


def _names(agent: Agent) -> tuple[str, ...]:
  names = configuration.group(agent.config, 'serve', ServeConfig).identities
  if agent.workdir.name in names:
    raise ValueError(f'serve.identities names {agent.workdir.name!r}, which is workdir itself')
  return names


def _config_of(agent: Agent, name: str) -> ConfigDict:
  """The configuration of an identity beside this one: another directory, another name."""
  config = agent.config.copy_and_resolve_references()
  config.workdir, config.life.agent = str(agent.workdir.parent / name), name.capitalize()
  return config


def _serve(server: Server) -> int:
  import uvicorn

  handler = logging.StreamHandler(sys.stderr)
  handler.setFormatter(JsonLines())
  for name in ('dreaming.serve', 'uvicorn.error'):
    logger = logging.getLogger(name)
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
  config = server.config
  uvicorn.Server(uvicorn.Config(
    server.app, host=config.host, port=config.port, log_config=None, access_log=False,
    server_header=False, proxy_headers=False, lifespan='on', timeout_keep_alive=15,
    loop='asyncio',  # uvloop forks through Python's hooks, and JAX warns of every fork
    timeout_graceful_shutdown=max(1, round(config.drain_seconds)),
    h11_max_incomplete_event_size=65_536, limit_concurrency=_CONNECTIONS,
  )).run()  # fmt: skip
  return 2 if server.failed else 0
