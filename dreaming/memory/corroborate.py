"""What others wrote and the user has said, too: then a night may dream of it, as of their words.

Strictly: each sentence of the text stands, word by word and in its order but for small words, in
what the user told in another session. So nothing can come in that the user has not said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dreaming.brain import chat, sentences
from dreaming.memory import addressed
from dreaming.memory.embed import experience_text
from dreaming.types import Experience, Trust

_LONGEST = 600  # characters of a text
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_SMALL = frozenset(
  'a an the is are was were be been am has have had do does did and or of to in on at for with by '
  "it its it's that this there here so very also just now then my mine our your his her their i we "
  "you he she they me us him them i'm i've".split()
)
_NO = frozenset(
  'not no never none nobody nothing neither nor without hardly longer cannot stopped if'.split()
)


def witnesses(experiences: Iterable[Experience], agent: str = '') -> dict[int, int]:
  """Ids of what others wrote -> ids of the user's own words that say the same.

  Args:
    experiences: of the diary. Own words are those with Trust.USER that were not others' before.
    agent: its name; what speaks to it is not corroborated.
  """
  foreign, own = [], []
  for e in experiences:
    if e.trust < Trust.USER:
      foreign.append(e)
    elif e.trust == Trust.USER and not chat.only_asks(e.content):
      own.append((e, [_words(s) for s in sentences.split(e.content) if not s.endswith('?')]))
  found: dict[int, int] = {}
  for e in foreign:
    text = experience_text(e)
    if len(text) > _LONGEST or addressed.flagged(e, agent):
      continue
    wanted = [w for s in sentences.split(text) if (w := _words(s))]
    for said, stated in own if wanted else ():
      apart = said.session != e.session and said.speaker == e.speaker
      if apart and all(any(_within(w, s) for s in stated) for w in wanted):
        found[e.id] = said.id
        break
  return found


def _words(sentence: str) -> list[str]:
  folded = sentence.casefold().replace('\u2019', "'")
  return [w for w in _WORD.findall(folded) if w not in _SMALL]


def _within(wanted: list[str], said: list[str]) -> bool:
  """Whether words come in this order among others, and both deny alike."""
  if len(wanted) < 2 or _denials(wanted) != _denials(said):
    return False
  rest = iter(said)
  return all(w in rest for w in wanted)


def _denials(words: list[str]) -> int:
  return sum(w in _NO or w.endswith("n't") for w in words)
