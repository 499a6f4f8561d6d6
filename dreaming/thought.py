"""What a reply will be made of: from a question to who speaks, and what was read for it."""

from __future__ import annotations

from typing import NamedTuple

from dreaming.brain import chat
from dreaming.memory.recall import Recalled
from dreaming.types import Mind


class Weighed(NamedTuple):
  reply: str
  notes: list[Recalled]  # that it is from; none where the weights know better
  mind: Mind  # that read them, or whose words it is
  final: bool = False  # nothing is left to be said by a mind
  own: bool = False  # final words of the mind's own


class Thought(NamedTuple):
  """What a reply will be made of."""

  prompt: chat.ReplyPrompt
  mind: Mind  # whose words it will be
  recalled: list[Recalled]  # best first
  said: str  # the whole reply, where it is known; '' where the mind is still to speak
  own: bool = False  # `said` are the mind's own words, and no note's
