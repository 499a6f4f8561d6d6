"""The page: static files of this package, under fixed names, with headers that let nothing else in.

No token is needed to have them: they hold no word of the diary, and every request that they make
does need one. Scripts come from this server alone, none stands in the page, and text cannot become
markup: the policy asks for trusted types and names none.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

ROOT = pathlib.Path(__file__).parent / 'page'
_SCRIPTS = ('app', 'api', 'dom', 'media', 'chart', 'chat', 'diary', 'nights', 'night', 'identity')
_TYPES = {'html': 'text/html', 'css': 'text/css', 'js': 'text/javascript', 'svg': 'image/svg+xml'}
FILES = ('index.html', 'style.css', 'icon.svg', *(f'{name}.js' for name in _SCRIPTS))
OPEN = {'/' if name == 'index.html' else f'/page/{name}': name for name in FILES}
"""Path -> file: with /health all that may be read without a token. A browser has none to send with
its first request; the page asks the user for it, and sends it with whatever it wants to know."""

POLICY = '; '.join((
  "default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self' blob:",
  'media-src blob:', "connect-src 'self'", "base-uri 'none'", "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'", "trusted-types 'none'",
))  # fmt: skip
_HEADERS = {
  'Content-Security-Policy': POLICY,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-cache',  # kept, and asked after each time
}


def routes() -> list[Route]:
  """A route for each file; `/` is the page itself."""
  return [Route(path, _handler(name), methods=['GET']) for path, name in OPEN.items()]


def _handler(name: str) -> Callable[[Request], Awaitable[Response]]:
  body = (ROOT / name).read_bytes()  # now: no request ever opens a file
  etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
  media_type = _TYPES[name.rpartition('.')[2]]

  async def handle(request: Request) -> Response:
    headers = _HEADERS | {'ETag': etag}
    if request.headers.get('if-none-match') == etag:
      return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)

  return handle
