"""Who may ask what: tokens and their scopes, Host and Origin, rates.

A file of tokens has one a line: a name, its scopes, the token. It belongs to one user alone.

  # chmod 600; python -c 'import secrets; print(secrets.token_urlsafe(32))'
  laptop  talk,read  Q0h...
  me      admin      x8f...

`read` sees diary, dreams and nights, `talk` converses and tells, `admin` may do everything. Without
one /health answers, and the files of the page (page.OPEN), which know nobody. On a loopback address
no tokens are needed: whoever may log in to the machine may do everything, and Host and Origin keep
web pages out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import os
import pathlib
import re
import stat
import time
from collections.abc import Mapping

from dreaming.serve.config import ServeConfig

SCOPES = ('read', 'talk', 'admin')
MIN_TOKEN = 20  # characters
_MAX_FILE = 65_536  # bytes
_MAX_CLIENTS = 4096  # whose rates are remembered
_LOOPBACK = frozenset({'localhost', '127.0.0.1', '[::1]'})


class Refused(Exception):
  """A request that may not be: status, line, and OpenAI's code for it."""

  def __init__(
    self, status: int, message: str, code: str, headers: Mapping[str, str] | None = None
  ):
    super().__init__(message)
    self.status, self.code, self.headers = status, code, dict(headers or {})


@dataclasses.dataclass(frozen=True)
class Client:
  """Who asks."""

  name: str
  scopes: frozenset[str]

  def may(self, scope: str) -> bool:
    return scope in self.scopes or 'admin' in self.scopes


@dataclasses.dataclass(frozen=True)
class _Token:
  name: str
  scopes: frozenset[str]
  digest: bytes


def read_tokens(path: str) -> tuple[_Token, ...]:
  """Reads a file of tokens; only their digests are kept.

  Raises:
    ValueError: a line is wrong, or others may read the file. The line never shows a token.
    OSError: it cannot be read.
  """
  file = pathlib.Path(path).expanduser()
  with file.open('rb') as f:
    mode = os.fstat(f.fileno()).st_mode
    if not stat.S_ISREG(mode):
      raise ValueError(f'serve.tokens={path!r} is no file')
    if mode & 0o077:
      raise ValueError(f'serve.tokens={path!r} can be read by others: chmod 600 it')
    text = f.read(_MAX_FILE + 1)
  if len(text) > _MAX_FILE:
    raise ValueError(f'serve.tokens={path!r} is longer than {_MAX_FILE:,} bytes')
  found = []
  for number, line in enumerate(text.decode(errors='replace').splitlines(), 1):
    words = line.split()
    if not words or words[0].startswith('#'):
      continue
    where = f'{path}, line {number}'
    if len(words) != 3:
      raise ValueError(f'{where}: write NAME SCOPES TOKEN, for example: laptop talk,read TOKEN')
    name, scopes, token = words[0], frozenset(words[1].split(',')), words[2]
    if odd := sorted(scopes - set(SCOPES)):
      raise ValueError(f'{where}: {odd[0]!r} is no scope; there are {", ".join(SCOPES)}')
    if len(token) < MIN_TOKEN:
      raise ValueError(f'{where}: the token has {len(token)} characters, take {MIN_TOKEN} or more')
    found.append(_Token(name, scopes, _digest(token)))
  if not found:
    raise ValueError(f'serve.tokens={path!r} has no token in it: add a line NAME SCOPES TOKEN')
  return tuple(found)


class Access:
  """Decides about requests by their headers.

  Args:
    config: which addresses and origins there are.
    now: a clock, seconds.
  """

  def __init__(self, config: ServeConfig, now=time.monotonic):
    self._tokens = read_tokens(config.tokens) if config.tokens else ()
    self._hosts = {h.lower() for h in config.hosts}
    if config.host in ('0.0.0.0', '::', '') and not self._hosts:
      raise ValueError(
        f'serve.host={config.host!r} listens on every address: say in serve.hosts by which names '
        'it is called'
      )
    self._hosts |= {_bracketed(config.host)} | (_LOOPBACK if config.is_loopback else set())
    self._origins = frozenset(o.lower().rstrip('/') for o in config.origins)
    self._rate, self._now = config.rate, now
    self._buckets: dict[str, tuple[float, float]] = {}  # name -> requests left, when

  def admit(self, headers: Mapping[str, str], peer: str) -> Client:
    """The client of a request, by lower case headers. Raises Refused."""
    host = headers.get('host', '').lower()
    if _name(host) not in self._hosts:
      raise Refused(403, f'host {host[:100]!r} is not served here (serve.hosts)', 'foreign_host')
    origin = headers.get('origin')
    if origin is not None and not self.is_own(origin, host):
      raise Refused(403, f'origin {origin[:100]!r} may not ask (serve.origins)', 'foreign_origin')
    client = self._client(headers.get('authorization', ''), peer)
    self._count(client.name)
    return client

  def is_own(self, origin: str, host: str) -> bool:
    """Whether a page of this origin may ask: one that this very server gave, or a named one."""
    origin = origin.lower().rstrip('/')
    return origin in self._origins or origin in (f'http://{host}', f'https://{host}')

  def is_named(self, origin: str) -> bool:
    """Whether a page of another server may read the answers (CORS)."""
    return origin.lower().rstrip('/') in self._origins

  def _client(self, authorization: str, peer: str) -> Client:
    if not self._tokens:
      return Client(f'local:{peer}', frozenset(SCOPES))
    kind, _, given = authorization.partition(' ')
    digest = _digest(given.strip() if kind.lower() == 'bearer' else '')
    found = None
    for token in self._tokens:  # all of them, in constant time: which one it is does not show
      if hmac.compare_digest(token.digest, digest):
        found = token
    if found is None:
      why = 'a token is needed: Authorization: Bearer TOKEN' if not given else 'the token is wrong'
      raise Refused(401, why, 'invalid_api_key', {'WWW-Authenticate': 'Bearer'})
    return Client(found.name, found.scopes)

  def _count(self, name: str) -> None:
    """A bucket for each client: `rate` a minute, and a sixth of it at once."""
    if not self._rate:
      return
    now, burst = self._now(), max(1.0, self._rate / 6)
    if len(self._buckets) > _MAX_CLIENTS:
      self._buckets.clear()
    left, when = self._buckets.get(name, (burst, now))
    left = min(burst, left + (now - when) * self._rate / 60)
    if left < 1:
      wait = (1 - left) * 60 / self._rate
      self._buckets[name] = left, now
      line = f'more than {self._rate} requests a minute (serve.rate): wait {wait:.1f} s'
      raise Refused(429, line, 'rate_limit_exceeded', {'Retry-After': str(int(wait) + 1)})
    self._buckets[name] = left - 1, now


def _digest(token: str) -> bytes:
  return hashlib.sha256(token.encode()).digest()


def _name(host: str) -> str:
  """A Host header without its port."""
  return re.sub(r':\d{1,5}$', '', host)


def _bracketed(host: str) -> str:
  host = host.lower()
  return f'[{host}]' if ':' in host else host
