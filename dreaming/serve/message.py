"""What is said to the agent, and how it is to reply."""

from __future__ import annotations

import dataclasses
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
    session = self.metadata.get('client', {}).get('session')
    first = self.turns[0].text if self.turns else self.text
    return '\n'.join((self.client, self.user, session or first))
