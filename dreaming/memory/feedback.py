"""'Remember this', 'forget that': what a user's own words ask to keep or to leave out of dreams.

Few patterns, and such that hardly ever err: a wish that is missed can be said again, or with
/remember; one that nobody had takes a memory away. English only. Each sentence is read by itself,
from its beginning, so that 'I forgot that at home' or 'remember when we met?' ask for nothing.
Forgetting here deletes nothing: it is feedback, by which nights leave an experience out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from dreaming import types
from dreaming.memory.score import UNWANTED, WANTED

CHARS = 2_000
"""Of a longer message the beginning is read; pasted pages ask for nothing."""


class Request(NamedTuple):
  """What is asked for, and about which message."""

  value: float  # score.WANTED or score.UNWANTED
  previous: bool  # of the message before this one


_THUMBS = {'\U0001f44d': WANTED, '\U0001f44e': UNWANTED}
_SKIN = re.compile('[\U0001f3fb-\U0001f3ff\ufe0f\\s]')

_POLITE = (
  r'(?:(?:please|so|and|but|oh|ok|okay|hey|now|also|just|actually|by the way|no|yes|wait|well'
  r"|try to|you (?:should|must|can)|i(?: want| need| would like|'d like) you to"
  r'|(?:can|could|will|would) you|make sure (?:to|you))[,\s]+)*'
)
_THIS = r'(?:this|that|it|these|those|what i (?:just )?(?:said|told you|wrote|mentioned))'
_DO = r"(?:remember|(?:do not|don't|never) forget|keep in mind|memori[sz]e|bear in mind)"
_CLAUSE = (
  r"(?:i(?:'m|'ve|'ll|'d)?|my|we|our|he|she|they|it|it's|the|his|her|their|there|on|at|in)\b"
)
_END = r'\s*(?:,?\s*(?:please|ok|okay|for me|will you|would you|about me|now))*\s*[.!]*$'

_KEEP = (
  re.compile(rf'{_POLITE}{_DO}\s+{_THIS}{_END}'),  # remember this
  re.compile(rf'{_POLITE}{_DO}\s*(?:this|that|the following)?\s*[:,]\s*\S'),  # remember this: I ..
  re.compile(rf'{_POLITE}{_DO}\s+that\s+{_CLAUSE}'),  # remember that my ..
  re.compile(
    r'(?:please[,\s]+)?(?:make|take) a note(?: of (?:this|that|it))?\s*(?:[:,.!]|that\b|$)'
  ),
)
_ASKS = re.compile(  # can you remember this for me?
  rf'(?:please[,\s]+)?(?:can|could|will|would) you (?:please )?{_DO}\s+{_THIS}\s*'
  r'(?:,?\s*(?:please|for me))*\s*\?+$'
)
_DROP = (
  re.compile(rf'{_POLITE}forget (?:about )?{_THIS}{_END}'),
  re.compile(rf'{_POLITE}forget (?:that )?i (?:ever |just )?(?:said|told|mentioned|wrote)\b'),
  re.compile(rf'{_POLITE}forget what i (?:just )?(?:said|told you|wrote|mentioned)\b'),
  re.compile(rf'{_POLITE}forget (?:about )?my (?:last|previous) (?:message|sentence|words)\b'),
  re.compile(rf"{_POLITE}(?:do not|don't) (?:remember|keep|store|save) {_THIS}{_END}"),
  re.compile(r"(?:please[,\s]+)?(?:do not|don't) remember (?:this|that)\s*:\s*\S"),
)
_IDIOM = re.compile(rf'{_POLITE}forget (?:about )?it\b')  # never mind

_SENTENCE = re.compile(r'[^.!?\n]+[.!?]*')


def find(text: str) -> Request | None:
  """The last wish of a message, or None.

  A wish alone ('remember that!') is about the message before; one with something to remember in
  the same message is about this one. 'Forget that' is about what was said before it.
  """
  bare = _SKIN.sub('', text)
  if bare and set(bare) <= set(_THUMBS) and len(set(bare)) == 1:
    return Request(_THUMBS[bare[0]], previous=True)
  text = text[:CHARS].replace('\u2019', "'")
  sentences = [s for m in _SENTENCE.finditer(text) if (s := m.group().strip())]
  found = None
  for i, sentence in enumerate(sentences):
    said = ' '.join(sentence.casefold().split())
    said = re.sub(r'^.*[,;:] (?=so (?:please )?|(?:and )?please )', '', said)
    value = _value(said)
    if value is None:
      continue
    before, after = i > 0 or said != ' '.join(sentence.casefold().split()), i + 1 < len(sentences)
    told = _tells(said)
    if value == WANTED:
      found = Request(value, previous=not (before or after or told))
    else:
      found = Request(value, previous=not (before or told))
  return found


def _value(said: str) -> float | None:
  """What one sentence asks for."""
  if _ASKS.match(said):
    return WANTED
  if said.endswith('?') or _IDIOM.match(said):
    return None
  if any(p.match(said) for p in _DROP):
    return UNWANTED
  return WANTED if any(p.match(said) for p in _KEEP) else None


def _tells(said: str) -> bool:
  """Whether the sentence that asks also says what it is about."""
  return not any(p.match(said) for p in (_KEEP[0], _ASKS, *_DROP[:5]))


def about(
  experience: types.Experience, earlier: Sequence[types.Experience]
) -> tuple[int, float] | None:
  """Id and feedback that an experience's words give; None where they give none.

  Words of other people, imported ones and what only happened ask for nothing.

  Args:
    earlier: experiences in order of time; the last of the same speaker and session before this one
      is what 'that' means, but for those that only ask themselves.
  """
  if experience.kind != 'chat' or experience.trust < types.Trust.USER:
    return None
  if (request := find(experience.content)) is None:
    return None
  if not request.previous:
    return experience.id, request.value
  key = experience.speaker, experience.session
  for e in reversed(earlier):
    if (e.speaker, e.session) == key and (e.time, e.id) < (experience.time, experience.id):
      asks = find(e.content)
      if asks is None or not asks.previous:
        return e.id, request.value
  return None
