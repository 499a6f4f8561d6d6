"""What is read with a memory that answers: the turn it leans on, what corrects it, and no more.

"He is called Basil." tells nothing without the turn before it, and "the dentist moved to Thursday"
makes what was said of Tuesday history: the diary keeps it, and it is read no more.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence

from dreaming import types
from dreaming.brain import chat
from dreaming.memory.index import Index
from dreaming.memory.recall import Recalled

_SHORT = 6  # words, that an answer to a question may have
_BEGINNING = 5  # words, in which one says of whom one speaks
_CLOSE = 0.3  # cosine of the turn before and the question, from which it is meant
_WORD = re.compile(r"\w+(?:'\w+)?")
_ASKED = re.compile(r'[^.!?]*\?\s*$')
# Who or what these are was said before. 'It' and 'that' too often stand for nothing.
_PRONOUNS = frozenset('he she they him her them his hers their theirs these those'.split())
_OWN = frozenset('i me my mine we us our ours you your yours'.split())
_CHANGES = re.compile(
  r'\b(?:mov(?:e|ed|es|ing)|instead|after all|chang(?:e|ed|es|ing)|postpon\w+|reschedul\w+|'
  r'cancel\w+|called off|call off|brought forward|put (?:off|back)|delay\w*|no longer|'
  r'any ?more|any longer|fell through|second thoughts|chang\w+|forget|scrap\w*|scratch that|'
  r'so much for|correction|i meant|i was wrong|was mistaken|not true|actually|turns out|rather|'
  r'switch\w*|swapp\w*|now|but not|not the)\b',
  re.IGNORECASE,
)


def leans(content: str) -> bool:
  """Whether a message speaks of somebody or something that it does not name: 'He is called...'"""
  for i, match in enumerate(itertools.islice(_WORD.finditer(content), _BEGINNING)):
    word = match[0].split("'")[0]
    if word.casefold() in _PRONOUNS:
      return True
    # A name: a capital within a sentence.
    if word[0].isupper() and word != 'I' and i and content[match.start() - 2] not in '.!?:':
      return False
  return False


def changes(content: str) -> bool:
  """Whether a message says that something is no longer as it was."""
  return _CHANGES.search(content) is not None


def lead(r: Recalled, before: types.Experience, agent: str) -> tuple[types.Experience, ...]:
  """What is read before a memory, so that it can be understood: nothing, mostly.

  Args:
    before: the turn right before it.
    agent: how the agent is called, whose question a short answer is to.
  """
  content, parts = r.experience.content, r.parts
  asked = _ASKED.search(before.response)
  answers = asked and len(content.split()) <= _SHORT and not chat.is_question(content)
  if answers:
    question = dataclasses.replace(before, speaker=agent, content=asked[0].strip(), media=())
    return before, question
  if chat.only_asks(before.content):
    return ()
  leaning, words = leans(content), {w.casefold() for w in re.findall(r'\w+', content)}
  # Who is asked about, only the turns before say, and it is not of the speaker's own affairs.
  named = parts.names_near > parts.names and (leaning or not words & _OWN)
  return (before,) if named or (leaning and parts.before >= _CLOSE) else ()


def apart(recalled: Sequence[Recalled]) -> tuple[list[Recalled], list[Recalled]]:
  """(what the user said, what others wrote), each in its order."""
  own = [r for r in recalled if r.experience.trust >= types.Trust.USER]
  return own, [r for r in recalled if r.experience.trust < types.Trust.USER]


def told(recalled: Sequence[Recalled]) -> list[types.Experience]:
  """The memories, each after what it leans on, and nothing twice."""
  found = (e for r in recalled for e in (*r.lead, r.experience))
  return list({(e.id, e.content): e for e in found}.values())


def newest(
  notes: Sequence[Recalled], among: Sequence[Recalled], index: Index, near: float, same: float
) -> list[Recalled]:
  """Notes with what was said later of the same, which takes their place where it corrects them.

  Args:
    notes: most important first.
    among: what else came to mind.
    near: cosine from which a later memory is of the same; it is read, too.
    same: and from which it says the same; what is at least `near` corrects if its words say that
      something changed. What is of a time that was asked about stays.
  """
  out: dict[int, Recalled] = {}
  for r in notes:
    e = r.experience
    later = [n for n in among if (n.experience.time, n.experience.id) > (e.time, e.id)]
    vector, others = (index.vectors([x.experience.id for x in some]) for some in ([r], later))
    cosines = (others @ vector[0]).tolist()
    close = [(n, c) for n, c in zip(later, cosines, strict=True) if c >= near]
    close.sort(key=lambda x: (x[0].experience.time, x[0].experience.id))
    better = [n for n, c in close if c >= same or changes(n.experience.content)]
    if better and r.parts.when <= (n := better[-1]).parts.when:
      out.setdefault(n.experience.id, dataclasses.replace(n, corrects=e.id))
      continue
    out.setdefault(e.id, r)
    for n, _ in close[-1:]:
      out.setdefault(n.experience.id, n)
  return list(out.values())


def within(notes: Sequence[Recalled], budget: int, count: Callable[[str], int]) -> list[Recalled]:
  """As many notes, most important first, as have room in a budget of tokens.

  A note gives up what it leans on before it is left out.

  Args:
    count: how many tokens a text has.
  """
  kept: list[Recalled] = []
  for r in notes:
    for shorter in (r, dataclasses.replace(r, lead=())):
      if count(chat.notes(told([*kept, shorter]))) <= budget:
        kept.append(shorter)
        break
  return kept
