"""What an endpoint is, and what guards all of them: access, the size of bodies, errors in one form.

Errors have OpenAI's form, {"error": {"message", "type", "param", "code"}}, on every path.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dreaming.brain import programs
from dreaming.serve import fair, schemas
from dreaming.serve.access import Access, Client, Refused
from dreaming.serve.metrics import Metrics

_log = logging.getLogger('dreaming.serve')
_TYPES = {401: 'authentication_error', 403: 'permission_error', 404: 'not_found_error',
          429: 'rate_limit_error', 500: 'server_error', 503: 'server_error'}  # fmt: skip

_LINGER_BYTES, _LINGER_SECONDS = 16 << 20, 2.0  # of what is too large, read and thrown away
_LARGE, _LARGE_SECONDS = 2, 60.0  # bodies with pictures at a time; what one may take to come

Handler = Callable[['Call'], Awaitable[Response]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Endpoint:
  """One method of one path: its code, who may call it, and what its document says."""

  method: str
  path: str
  handler: Handler
  scope: str | None  # None: anyone, without a token
  summary: str
  body: schemas.Schema | None = None
  query: Mapping[str, schemas.Schema] = dataclasses.field(default_factory=dict)
  answer: str = 'application/json'
  upload: str = ''  # the type of a body that the handler itself reads
  # Of a body, the size of its pictures and sounds: it may be larger than others by these.
  media: Callable[[Mapping[str, Any]], int] | None = None


@dataclasses.dataclass(frozen=True)
class Call:
  """A request whose access, body and query were checked."""

  request: Request
  client: Client
  body: Mapping[str, Any]
  query: Mapping[str, Any]

  def number(self, name: str) -> int:
    """A number in the path. Raises Refused."""
    text = self.request.path_params[name]
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
      raise Refused(404, f'{text[:40]!r} is no number', 'not_found')
    return int(text)


def error(status: int, message: str, code: str, headers: Mapping[str, str] | None = None):
  """An error as OpenAI's clients read it."""
  kind = _TYPES.get(status, 'invalid_request_error')
  body = {'error': {'message': message, 'type': kind, 'param': None, 'code': code}}
  return JSONResponse(body, status, headers=dict(headers or {}))


def of_exception(e: Exception) -> Response:
  """What went wrong, in one line."""
  if isinstance(e, Refused):
    return error(e.status, str(e), e.code, e.headers)
  if isinstance(e, fair.Full):
    return error(429, str(e), 'queue_full', {'Retry-After': '1'})
  if isinstance(e, HTTPException):
    return error(e.status_code, str(e.detail), 'not_found' if e.status_code == 404 else 'http')
  if isinstance(e, ValueError):
    return error(422, str(e), 'invalid_value')
  if isinstance(e, OSError):
    return error(503, str(e), 'unavailable')
  _log.exception('a request failed')
  return error(500, f'an error of the server: {type(e).__name__}', 'internal')


def route(endpoint: Endpoint, max_body: int, large: Large | None = None) -> Route:
  """The endpoint as Starlette takes it.

  Args:
    max_body: bytes that a body may have.
    large: for those whose bodies may be larger.
  """

  async def handle(request: Request) -> Response:
    client: Client = request.scope.get('dreaming.client') or Client('', frozenset())
    if large and endpoint.media and large.is_large(request, max_body):
      response = await answer(request, client)
      # Blocks of that size are kept by the allocator otherwise.
      response.background = response.background or BackgroundTask(programs.trim)
      return response
    return await answer(request, client)

  async def answer(request: Request, client: Client) -> Response:
    try:
      if endpoint.scope is not None and not client.may(endpoint.scope):
        raise Refused(403, f'this needs a token with {endpoint.scope!r}', 'insufficient_scope')
      body: Mapping[str, Any] = {}
      if endpoint.body is not None:
        take = large.read if large and endpoint.media else read
        body = _parsed(await take(request, max_body), endpoint, max_body)
      query = _query(request, endpoint.query)
      return await endpoint.handler(Call(request, client, body, query))
    except ClientDisconnect:
      return Response(status_code=499)
    except Exception as e:
      return of_exception(e)

  return Route(endpoint.path, handle, methods=[endpoint.method])


def _parsed(raw: bytes, endpoint: Endpoint, max_body: int) -> dict[str, Any]:
  body = schemas.parse(raw, endpoint.body)
  if len(raw) > max_body and len(raw) - endpoint.media(body) > max_body:
    raise _too_large(max_body)  # what is shown makes no room for anything else
  return body


async def read(request: Request, limit: int) -> bytes:
  """A body of at most `limit` bytes. Raises Refused; no more than that is ever held."""
  chunks: list[bytes] = []

  async def keep(chunk: bytes) -> None:
    chunks.append(chunk)

  await receive(request, limit, keep, _too_large(limit))
  return b''.join(chunks)


def _too_large(limit: int) -> Refused:
  line = f'the body is larger than {limit:,} bytes (serve.max_body_bytes)'
  return Refused(413, line, 'body_too_large', {'Connection': 'close'})


async def receive(
  request: Request, limit: int, keep: Callable[[bytes], Awaitable[None]], refused: Refused
) -> None:
  """Gives a body of at most `limit` bytes to `keep`, piece by piece. Raises `refused`.

  What comes beyond it is thrown away for a while: a connection that is closed while its client
  still sends is reset, and the client never reads why.
  """
  size = request.headers.get('content-length', '0')
  if not size.isdecimal():
    raise refused
  total, over = 0, int(size) > limit
  try:
    async with asyncio.timeout(_LINGER_SECONDS if over else None) as waiting:
      async for chunk in request.stream():
        total += len(chunk)
        if total > limit and not over:
          over = True
          waiting.reschedule(asyncio.get_running_loop().time() + _LINGER_SECONDS)
        if not over:
          await keep(chunk)
        elif total > limit + _LINGER_BYTES:
          break
  except TimeoutError:
    pass
  if over:
    raise refused


class Large:
  """Reads bodies with pictures and sounds in them, few at a time.

  Args:
    more: bytes that they may have beyond the limit of all others.
  """

  def __init__(self, more: int):
    self._more = more
    self._gate = asyncio.Semaphore(_LARGE)

  def is_large(self, request: Request, limit: int) -> bool:
    """Whether a body is larger than `limit`, and says so, and may be."""
    size = request.headers.get('content-length', '0')
    return size.isdecimal() and limit < int(size) <= limit + self._more

  async def read(self, request: Request, limit: int) -> bytes:
    """As `read`. Only what says its size before may be larger than `limit`."""
    if not self.is_large(request, limit):
      return await read(request, limit)
    try:
      async with asyncio.timeout(_LARGE_SECONDS), self._gate:
        return await read(request, int(request.headers['content-length']))
    except TimeoutError:
      line = (
        f'the body did not come within {_LARGE_SECONDS:.0f} s, or others send theirs: try again'
      )
      raise Refused(429, line, 'rate_limit_exceeded', {'Retry-After': '10'}) from None


def _query(request: Request, schema: Mapping[str, schemas.Schema]) -> dict[str, Any]:
  values: dict[str, Any] = {}
  for name, text in request.query_params.items():
    if name not in schema:
      raise Refused(422, f'{name[:40]!r} is no parameter here', 'unknown_parameter')
    kind = schema[name].get('type')
    try:
      values[name] = {'integer': int, 'number': float, 'boolean': _boolean}.get(kind, str)(text)
    except ValueError:
      raise Refused(422, f'{name}={text[:40]!r} is no {kind}', 'invalid_value') from None
  body = json.dumps(values).encode() if all(v == v for v in values.values()) else b'NaN'
  return schemas.parse(body, {'type': 'object', 'properties': dict(schema)})


def _boolean(text: str) -> bool:
  if text not in ('true', 'false'):
    raise ValueError(text)
  return text == 'true'


class Guard:
  """Before any route: who asks, and from where. After it: metrics, and a line in the log.

  Args:
    free: paths that may be read without a token; whoever asks more of them needs one, too.
  """

  def __init__(self, app: ASGIApp, access: Access, metrics: Metrics, free: frozenset[str]):
    self._app, self._access, self._metrics, self._free = app, access, metrics, free

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    start, status = time.monotonic(), 500
    headers = {k.decode('latin-1').lower(): v.decode('latin-1') for k, v in scope['headers']}
    origin = headers.get('origin', '')
    shared = {'access-control-allow-origin': origin} if self._access.is_named(origin) else {}

    async def answer(message: Message) -> None:
      nonlocal status
      if message['type'] == 'http.response.start':
        status = message['status']
        more = {'x-content-type-options': 'nosniff', 'cache-control': 'no-store', **shared}
        known = {k.lower() for k, _ in message['headers']}
        message['headers'] = [*message['headers'], *(
          (k.encode(), v.encode('latin-1')) for k, v in more.items() if k.encode() not in known
        )]  # fmt: skip
      await send(message)

    client = None
    try:
      if scope['path'] in self._free and scope['method'] in ('GET', 'HEAD'):
        await self._app(scope, receive, answer)
        return
      if scope['method'] == 'OPTIONS' and shared:
        allow = {'access-control-allow-headers': 'authorization, content-type',
                 'access-control-allow-methods': 'GET, POST, DELETE'}  # fmt: skip
        await Response(status_code=204, headers=allow)(scope, receive, answer)
        return
      peer = scope['client'][0] if scope.get('client') else ''
      try:
        client = scope['dreaming.client'] = self._access.admit(headers, peer)
      except Refused as e:
        await of_exception(e)(scope, receive, answer)
        return
      await self._app(scope, receive, answer)
    finally:
      path = getattr(scope.get('route'), 'path', None) or 'unknown'
      seconds = time.monotonic() - start
      self._metrics.requests.labels(scope['method'], path, str(status)).inc()
      self._metrics.seconds.labels(path).observe(seconds)
      fields = {'method': scope['method'], 'path': path, 'status': status,
                'client': client.name if client else '', 'ms': round(1e3 * seconds, 1)}  # fmt: skip
      _log.info('request', extra={'fields': fields})
