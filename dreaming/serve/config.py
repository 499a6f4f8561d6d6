"""What is configured of serving: addresses, limits, and what is kept warm."""

from __future__ import annotations

import dataclasses
import ipaddress
import re

NAME = '[a-z0-9][a-z0-9_-]{0,39}'
"""Of an identity, as a regular expression."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeConfig:
  """Mirrors `config.serve`; what the fields mean stands in configs/default.py."""

  host: str = '127.0.0.1'
  port: int = 8377
  tokens: str = ''
  hosts: tuple[str, ...] = ()
  origins: tuple[str, ...] = ()
  identities: tuple[str, ...] = ()
  slots: int = 8
  queue: int = 64
  rate: int = 600
  rate_after: float = 10.0
  max_body_bytes: int = 1_048_576
  max_media_bytes: int = 6_291_456
  max_agent_bytes: int = 4_294_967_296
  max_tokens: int = 512
  max_n: int = 8
  warm: int = 3
  prefixes: int = 12
  pause: bool = False
  drain_seconds: float = 30.0
  kernels: bool = True

  def __post_init__(self):
    least = {'slots': 1, 'queue': 1, 'rate': 0, 'max_body_bytes': 1024, 'max_tokens': 1}
    least |= {'max_n': 1, 'warm': 1, 'prefixes': 0, 'port': 0, 'drain_seconds': 0}
    least |= {'max_media_bytes': 0, 'max_agent_bytes': 0, 'rate_after': 0}
    for name, low in least.items():
      if not vars(self)[name] >= low:
        raise ValueError(f'serve.{name} is {vars(self)[name]}: take at least {low}')
    for name in self.identities:
      if not re.fullmatch(NAME, name):
        raise ValueError(f'serve.identities: {name!r} is no name: take a to z, 0 to 9, _ and -')
    if self.pause and self.identities:
      raise ValueError(
        'serve.pause goes with one identity: while it sleeps nobody speaks; leave serve.identities '
        'empty, or serve each by a process of its own'
      )
    if len(set(self.identities)) < len(self.identities):
      raise ValueError(f'serve.identities={self.identities}: a name stands there twice')
    if self.port > 65_535:
      raise ValueError(f'serve.port is {self.port}: ports end at 65535')
    if not self.tokens and not self.is_loopback:
      raise ValueError(
        f'serve.host={self.host!r} can be reached by others, and serve.tokens names no file of '
        'tokens: give one (see dreaming/serve/access.py), or serve on 127.0.0.1'
      )

  @property
  def is_loopback(self) -> bool:
    """Whether this machine alone can reach the address."""
    if self.host == 'localhost':
      return True
    try:
      return ipaddress.ip_address(self.host).is_loopback
    except ValueError:
      return False
