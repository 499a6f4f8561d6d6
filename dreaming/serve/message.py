"""What is said to the agent, and how it is to reply."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

from dreaming.brain.chat import Turn
from dreaming.brain.sampler import Sampler
from dreaming.serve.shown import Shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
  """One message of a conversation."""

  text: str
  user: str
  turns: tuple[Turn, ...] = ()
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
  shown: tuple[Shown, ...] = ()
  at: float | None = None  # Unix seconds when it was said; None: now

  @property
  def conversation(self) -> str:
    """What all messages of one have in common: its session where a client names one (in OpenAI's
    `metadata`), or what was said first."""
    first = self.turns[0].text if self.turns else self.text
    return '\n'.join((self.client, self.user, self._named or first))

  @property
  def session(self) -> str:
    """What the diary calls its conversation."""
    return session_of(self.client, self.user, self._named, self.at)

  @property
  def _named(self) -> str:
    return self.metadata.get('client', {}).get('session', '')


def session_of(client: str, user: str, named: str = '', at: float | None = None) -> str:
  """What the diary calls a conversation, never the same for two users.

  All that a user says on one day in conversations without a name is of one session: many clients
  send no history to tell them apart by, and what is an hour apart is never taken for one talk.

  Args:
    client: the name of the token that it is had with.
    named: its session, where the client names one.
    at: Unix seconds, by default this moment.
  """
  day = '' if named else int((time.time() if at is None else at) // 86_400)
  said = json.dumps([client, user, named, day]).encode()
  name = ' '.join(named.split())[:80] or 'chat'
  return f'{name}/{hashlib.blake2b(said, digest_size=8).hexdigest()}'
