"""What somebody says of another who talks with the agent, too: remembered as theirs, never learned.

A stranger need not forge a page: they talk, and say that the owner was born elsewhere. Said by
them it trains as what they tell, and a small model does not keep apart of whom it is. So nights
leave out a message of somebody else that names the owner, or another speaker; it is recalled by
day with its speaker's name. Whoever it is about may say it themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dreaming.memory import addressed
from dreaming.memory.embed import experience_text
from dreaming.types import Experience, Trust

_WORD = re.compile(r'[^\W_]+')


class Hearsay:
  """Tells it of messages.

  Args:
    speakers: names of all who talk with the agent.
    owner: the name of whose agent it is: what they say of others is theirs to teach.
  """

  def __init__(self, speakers: Iterable[str], owner: str):
    self._owner = owner
    self._of_owner = {w.casefold() for w in _words(owner)}
    # As they are written: "Will" and "May" are names, "will" and "may" are none.
    self._others = {w: s for s in speakers if s != owner for w in _words(s)}

  def __call__(self, e: Experience) -> bool:
    """Whether an experience tells of somebody else who speaks for themselves."""
    if e.speaker in ('', self._owner) or e.trust == Trust.APPROVED:
      return False
    return self.names(experience_text(e), e.speaker)

  def names(self, text: str, speaker: str) -> bool:
    """Whether a text names the owner, or a speaker who is not its own."""
    words = {*_words(text)}
    if self._of_owner & {w.casefold() for w in words}:  # also of one who calls themselves like that
      return True
    return any(self._others.get(w, speaker) != speaker for w in words - {*_words(speaker)})


def _words(text: str) -> list[str]:
  """Of at least two letters."""
  return [w for w in _WORD.findall(addressed.plain(text)) if len(w) > 1]
