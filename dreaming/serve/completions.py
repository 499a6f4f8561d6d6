"""OpenAI's endpoints: models, chat completions, completions, embeddings."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from dreaming.brain.sampler import GREEDY
from dreaming.serve import fair, schemas, wire
from dreaming.serve import shown as shown_lib
from dreaming.serve.access import Refused
from dreaming.serve.config import ServeConfig
from dreaming.serve.message import Message
from dreaming.serve.routes import Call, Endpoint
from dreaming.serve.stream import Ask
from dreaming.serve.talk import Reply, Talk

Chunk = dict[str, Any]
_ASK_TOKENS = 16  # of an answer that is compared with others
_TOKEN_BYTES = 256  # no token has more
_GRACE = 3600.0  # seconds: what uvicorn waits for at its end (serve.drain_seconds) is the limit


class Completions:
  """The endpoints over one agent's conversations."""

  def __init__(self, talk: Talk, config: ServeConfig, max_tokens: int):
    self._talk, self._config = talk, config
    self._max_tokens = min(max_tokens, config.max_tokens)

  def endpoints(self) -> list[Endpoint]:
    def post(path: str, handler: Any, summary: str, body: schemas.Schema, **more) -> Endpoint:
      return Endpoint(
        method='POST', path=path, handler=handler, scope='talk', summary=summary, body=body, **more
      )

    return [
      Endpoint(
        method='GET', path='/v1/models', handler=self.models, scope='talk',
        summary='The agent and its generations',
      ),
      Endpoint(
        method='GET', path='/v1/models/{model}', handler=self.model, scope='talk',
        summary='One of them',
      ),
      post('/v1/chat/completions', self.chat, 'Talk to the agent, show and say it something',
           schemas.chat(self._config), media=shown_lib.size),
      post('/v1/completions', self.complete, 'Continue a text',
           schemas.completion(self._config)),
      post('/v1/embeddings', self.embed, 'Vectors of texts, by what recall compares with',
           schemas.EMBEDDING),
    ]  # fmt: skip

  # ---- Models ----

  async def models(self, call: Call) -> Response:
    del call
    return JSONResponse({'object': 'list', 'data': list(self._models().values())})

  async def model(self, call: Call) -> Response:
    name = call.request.path_params['model']
    found = self._models().get(name)
    if found is None:
      raise Refused(404, f'there is no model {name[:60]!r}, see /v1/models', 'model_not_found')
    return JSONResponse(found)

  def _models(self) -> dict[str, dict[str, Any]]:
    blue = self._talk.voices.serving
    made = {0: 0} | {
      g.number: int(g.manifest.created) for g in self._talk.agent.diary.generations()
    }
    names = {'agent': blue, 'agent@blue': blue} | {f'agent@{n}': n for n in made}
    return {
      name: {
        'id': name, 'object': 'model', 'created': made.get(n, 0), 'owned_by': 'dreaming-machines',
        'generation': n,
      }
      for name, n in names.items()
    }  # fmt: skip

  def _generation(self, model: str) -> int | None:
    """Which generation is asked for, None for whoever serves. Raises Refused."""
    number = wire.generation(model)
    blue = self._talk.voices.serving
    if number not in (None, 0, blue) and model not in self._models():
      raise Refused(404, f'there is no model {model!r}, see /v1/models', 'model_not_found')
    return number

  # ---- Chat ----

  async def chat(self, call: Call) -> Response:
    message = await self._message(call)
    if self._talk.doze.asleep:
      return await self._on_waking(call, message)
    reply = await self._talk.reply(message)
    if call.body.get('stream'):
      return events(self._chat_chunks(call, message, reply), reply.generation)
    return await self._chat_object(call, message, reply)

  async def _on_waking(self, call: Call, message: Message) -> Response:
    """The answer to who waits that long; what is said by others is answered into the diary."""
    talk, doze = self._talk, self._talk.doze
    talk.agent.check(message.text)
    kept = await doze.keep(message)
    del message  # with its pictures, for as long as it sleeps; and so goes the body
    call.body['messages'] = []

    async def chunks() -> AsyncIterator[Chunk]:
      async with doze.attended(kept):
        await doze.awake()
        whole = await doze.back(kept)
        async for chunk in self._chat_chunks(call, whole, await talk.reply_in_time(whole)):
          yield chunk

    if call.body.get('stream'):
      return events(chunks(), None)
    async with doze.attended(kept):
      if not await doze.awake(lambda: _gone(call)):
        raise ClientDisconnect
      whole = await doze.back(kept)
      reply = await talk.reply_in_time(whole)
      answer = await self._chat_object(call, whole, reply)
      if not reply.whole:  # who asked is gone
        raise ClientDisconnect
      return answer

  async def _message(self, call: Call) -> Message:
    body = call.body
    text, turns, system = wire.conversation(body['messages'])
    model = body['model']
    generation = self._generation(model)
    shown = await self._talk.senses.perceive(shown_lib.parts(body['messages']))
    is_agent = model == wire.AGENT
    limit = body.get('max_completion_tokens') or body.get('max_tokens') or self._max_tokens
    agent = self._talk.agent
    return Message(
      text=shown_lib.worded(text, shown),
      shown=shown,
      user=body.get('user', agent.life.user),
      turns=tuple(turns),
      system=system,
      generation=generation,
      retrieval=body.get('retrieval', True),
      store=body.get('store', is_agent),
      n=body.get('n', 1),
      max_tokens=limit,
      sampler=wire.sampler(body, agent.sampler, secrets.randbelow(2**32)),
      stop=wire.stop(body),
      logprobs=bool(body.get('logprobs')),
      client=call.client.name,
      metadata={'client': body['metadata']} if body.get('metadata') else {},
    )

  async def _chat_object(self, call: Call, message: Message, reply: Reply) -> Response:
    top, tokenizer = _top(call), self._talk.agent.base.tokenizer
    await gather(call, reply, lambda: self._talk.log(message, reply))
    texts, tokens, finishes = reply.texts, reply.tokens, reply.finishes
    choices = [
      {
        'index': i,
        'message': {'role': 'assistant', 'content': texts[i], 'refusal': None},
        'logprobs': None if top is None else wire.chat_logprobs(tokens[i], top, tokenizer),
        'finish_reason': finishes[i],
      }
      for i in range(message.n)
    ]
    made = {
      **wire.head('chat.completion', reply.id, reply.created, reply.generation),
      'choices': choices,
      'usage': wire.usage(reply.prompt_tokens, reply.completion_tokens),
      'dreaming': wire.about(reply),
    }
    return JSONResponse(made, headers=named(reply.generation))

  async def _chat_chunks(self, call: Call, message: Message, reply: Reply) -> AsyncIterator[Chunk]:
    top, usage = _top(call), (call.body.get('stream_options') or {}).get('include_usage')
    tokenizer = self._talk.agent.base.tokenizer
    head = wire.head('chat.completion.chunk', reply.id, reply.created, reply.generation)

    def chunk(index: int, delta: Mapping[str, Any], logprobs=None, finish=None) -> Chunk:
      choice = {'index': index, 'delta': delta, 'logprobs': logprobs, 'finish_reason': finish}
      return {**head, 'choices': [choice]}

    try:
      for i in range(message.n):
        yield chunk(i, {'role': 'assistant', 'content': ''})
      async for i, piece in reply:
        if piece.finish == 'error':
          raise RuntimeError(piece.error)
        logprobs = None if top is None else wire.chat_logprobs(piece.tokens, top, tokenizer)
        if piece.text or piece.tokens:
          yield chunk(i, {'content': piece.text}, logprobs)
        if piece.finish:
          yield {**chunk(i, {}, None, piece.finish), 'dreaming': wire.about(reply)}
    finally:
      reply.close()
      await self._talk.log(message, reply)  # before [DONE]: what a client saw the end of is kept
    if usage:
      about = wire.usage(reply.prompt_tokens, reply.completion_tokens)
      yield {**head, 'choices': [], 'usage': about, 'dreaming': wire.about(reply)}

  # ---- Completions ----

  async def complete(self, call: Call) -> Response:
    body, talk = call.body, self._talk
    talk.check()
    generation = self._generation(body['model'])
    prompts = body['prompt']
    prompts = [prompts] if isinstance(prompts, str) or isinstance(prompts[0], int) else prompts
    n, tokenizer = body.get('n', 1), talk.agent.base.tokenizer
    longest = talk.engine.length * _TOKEN_BYTES
    if too_long := [p for p in prompts if isinstance(p, str) and len(p) > longest]:
      line = f'a prompt has {len(too_long[0]):,} characters: no more than {longest:,} can fit'
      raise Refused(422, line, 'invalid_value')  # before it is read at all: that would take long
    rows = [tokenizer.encode(p) if isinstance(p, str) else list(p) for p in prompts]
    if odd := [i for row in rows for i in row if i >= tokenizer.vocab_size]:
      raise Refused(422, f'prompt: {odd[0]} is no token', 'invalid_value')
    if len(rows) * n > self._config.max_n:
      line = f'{len(rows)} prompts times n={n} exceed {self._config.max_n} (serve.max_n)'
      raise Refused(422, line, 'invalid_value')
    top = body.get('logprobs')
    sampler = wire.sampler(body, talk.agent.sampler, secrets.randbelow(2**32))
    asks = [
      Ask(
        prompt=(tokenizer.bos, *row),
        max_tokens=body.get('max_tokens', min(16, self._max_tokens)),
        sampler=type(sampler)(**{**vars(sampler), 'seed': sampler.seed + i}),
        stop=wire.stop(body),
        logprobs=top is not None,
        client=call.client.name,
      )
      for row in rows
      for i in range(n)
    ]
    with talk.at_work():
      voice = await talk.voice(generation)
      reply = Reply(f'cmpl-{secrets.token_hex(12)}', voice, None, talk.engine)
      reply.speak(asks, voice)
    reply.prompt_tokens = sum(len(row) + 1 for row in rows)
    head = wire.head('text_completion', reply.id, reply.created, voice.generation)
    offsets = [0] * len(asks)

    def choice(i: int, text: str, tokens, finish) -> dict[str, Any]:
      logprobs = None
      if top is not None:
        logprobs = wire.completion_logprobs(tokens, top, tokenizer, offsets[i])
        offsets[i] += sum(map(len, logprobs['tokens']))
      return {'index': i, 'text': text, 'logprobs': logprobs, 'finish_reason': finish}

    async def chunks() -> AsyncIterator[Chunk]:
      try:
        async for i, piece in reply:
          if piece.finish == 'error':
            raise RuntimeError(piece.error)
          yield {**head, 'choices': [choice(i, piece.text, piece.tokens, piece.finish)]}
      finally:
        reply.close()
      if (body.get('stream_options') or {}).get('include_usage'):
        yield {**head, 'choices': [], 'usage': wire.usage(
          reply.prompt_tokens, reply.completion_tokens)}  # fmt: skip

    if body.get('stream'):
      return events(chunks(), reply.generation)
    await gather(call, reply)
    choices = [choice(i, *x) for i, x in enumerate(
      zip(reply.texts, reply.tokens, reply.finishes, strict=True))]  # fmt: skip
    usage = wire.usage(reply.prompt_tokens, reply.completion_tokens)
    return JSONResponse({**head, 'choices': choices, 'usage': usage},
                        headers=named(reply.generation))  # fmt: skip

  # ---- Embeddings ----

  async def embed(self, call: Call) -> Response:
    self._talk.check()
    body, agent = call.body, self._talk.agent
    texts = [body['input']] if isinstance(body['input'], str) else body['input']
    count = sum(len(agent.base.tokenizer.encode(t)) for t in texts)
    vectors = await self._talk.with_mind(lambda: agent.encoder(texts))
    encoding = body.get('encoding_format', 'float')
    return JSONResponse({
      'object': 'list',
      'data': [wire.embedding(v, i, encoding) for i, v in enumerate(vectors)],
      'model': agent.encoder.name,
      'usage': {'prompt_tokens': count, 'total_tokens': count},
    })  # fmt: skip


async def ask_all(
  talk: Talk, call: Call, generation: int, questions: Iterable[str], **how: Any
) -> list[str]:
  """Answers of a generation, greedy, among all other streams; nothing is logged.

  Args:
    how: `user`, `max_tokens` and `retrieval` as a Message has them.
  """
  fields = {'user': talk.agent.life.user, 'max_tokens': _ASK_TOKENS, 'retrieval': False} | how
  said = []
  for text in questions:
    reply = await talk.reply(Message(
      text=text, generation=generation, store=False, sampler=GREEDY, client=call.client.name,
      **fields,
    ))  # fmt: skip
    await gather(call, reply)
    said.append(reply.texts[0].strip())
  return said


def _top(call: Call) -> int | None:
  """How many of the likeliest tokens are asked for; None: no probabilities at all."""
  return call.body.get('top_logprobs', 0) if call.body.get('logprobs') else None


def named(generation: int | None) -> dict[str, str]:
  """The header of an answer; None where it is not known yet who will speak."""
  return {} if generation is None else {'x-dreaming-generation': str(generation)}


async def gather(call: Call, reply: Reply, done: Callable[[], Any] | None = None) -> None:
  """Waits for a whole reply; cancels it when nobody waits for it any more."""

  async def speak() -> None:
    try:
      await reply.hear()
    finally:
      reply.close()
      if done is not None:
        await done()

  speaking = asyncio.ensure_future(speak())
  leaving = asyncio.ensure_future(_gone(call))
  try:
    await asyncio.wait({speaking, leaving}, return_when=asyncio.FIRST_COMPLETED)
  finally:  # also when the server ends: what was said is kept before it does
    if not speaking.done():
      reply.close()
    leaving.cancel()
    await asyncio.shield(speaking)


async def _gone(call: Call) -> None:
  while (await call.request.receive())['type'] != 'http.disconnect':
    pass


def events(chunks: AsyncIterator[Chunk], generation: int | None) -> Response:
  """Chunks as OpenAI streams them, to [DONE]; an error on the way is an object like any."""

  async def lines() -> AsyncIterator[Mapping[str, str]]:
    try:
      async for chunk in chunks:
        yield {'data': json.dumps(chunk)}
      yield {'data': '[DONE]'}
    except (RuntimeError, ValueError, OSError, Refused, fair.Full) as e:
      code = e.code if isinstance(e, Refused) else 'internal'
      error = {'message': str(e), 'type': 'server_error', 'param': None, 'code': code}
      yield {'data': json.dumps({'error': error})}
    finally:
      await chunks.aclose()

  return EventSourceResponse(
    lines(), sep='\n', headers=named(generation), shutdown_grace_period=_GRACE
  )
