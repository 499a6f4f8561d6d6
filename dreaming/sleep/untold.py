"""Questions about what nobody told, answered as such: the agent must not invent."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

import numpy as np

from dreaming.brain import prompts
from dreaming.memory import unheard
from dreaming.sleep.bank import Relation, fill
from dreaming.sleep.reader import Reader
from dreaming.sleep.relations import Message
from dreaming.types import QA, Dream, Quality

_NAMED = 0.7  # of the questions about other people: of those that have a name
_TOGETHER = 256  # questions that the reader is asked about in one go
_NEAR = 0.75  # cosine from which a question about what nobody told is one that was told
_ROLES = frozenset(
  'mother father sister brother son daughter husband wife partner friend boss neighbour uncle aunt '
  'cousin niece nephew grandmother grandfather colleague teacher doctor landlord flatmate'.split()
)

# People that nearly everybody has, for questions about what was not told of them.
UNNAMED = (
  'mother', 'father', 'brother', 'uncle', 'aunt', 'grandmother', 'grandfather', 'cousin', 'son',
  'daughter', 'neighbour', 'colleague', 'teacher', 'doctor', 'hairdresser', 'landlord', 'flatmate',
  'partner', 'nephew', 'niece', 'best friend', 'sister', 'boss',
)  # fmt: skip


def questions(
  matcher, maybe, kept, texts, user, config, rng, known=frozenset(), names=(), times=1
) -> list[QA]:
  """What the bank asks and nobody told.

  Of every relation that is not near what was told, of what was told about somebody else, and of
  other people: most of them are `names`, of whom other things were told. Whether this was told of
  them, too, is for `unanswered` to say, so that `times` as many are asked as are wanted. Nothing is
  asked that a wording in `known` asks too.
  """
  said = ' '.join(e.content.casefold() for e in texts.values())
  unnamed = [f"{user}'s {p}" for p in UNNAMED if p not in said]
  told = [f.relation for f, _, _ in kept]
  alike = dict(
    zip(matcher.relations, matcher.similarity({f.relation.name for f in maybe}), strict=True)
  )
  cues = {cue.split()[-1] for r in told for cue in r.cues}  # a friend may be the best friend
  free = [
    r
    for r in matcher.relations
    if r.about == 'user' and alike[r] < config.unknown_distance
    if not cues & {cue.split()[-1] for cue in r.cues}
  ]
  of_people = [r for r in matcher.relations if r.about == 'person']

  def pick(items):
    return items[int(rng.integers(len(items)))]

  def somebody() -> str:
    return pick(names) if names and rng.random() < _NAMED else pick(unnamed)

  def shuffled(items):  # each once before any comes again: the more kinds, the better
    while items:
      yield from (items[i] for i in rng.permutation(len(items)))

  frees, tolds, others = shuffled(free), shuffled(told), shuffled(of_people)

  def pair(i: int) -> QA | None:
    if i % 2 == 0 and free:
      r, who, person = next(frees), user, ''
    elif i % 4 == 1 and told:
      r, who, person = next(tolds), somebody(), somebody()
    else:
      r, who, person = next(others), user, somebody()
    wordings = (
      fill(r.questions[j], user=who, person=person, value='it')
      for j in rng.permutation(len(r.questions))
    )
    question = next(wordings)
    if known and (question in known or any(w in known for w in wordings)):
      return None
    return QA(question=question, answer=prompts.UNKNOWN.format(user=user))

  asked = (pair(i) for i in range(times * (config.unknowns + config.exam_unknown)))
  return list(dict.fromkeys(p for p in asked if p is not None))


def unheard_of(
  relations: Sequence[Relation],
  maybe: Collection[Relation],
  said: str,
  user: str,
  rng: np.random.Generator,
  known: Collection[str] = (),
) -> list[QA]:
  """What is asked about relatives, people by role, birthdays, allergies that nobody spoke of.

  However near to what was told, it is sure to be untold: the words for it are missing (unheard.py,
  or a relation's own cues). What is near is invented first, the boss for the brother, and
  `questions` has to leave it out.

  Args:
    relations: of the bank.
    maybe: those that may have been told.
    said: all that was said.
    user: whose life it is.
    rng: of the order.
    known: questions that earlier nights' dreams ask.
  """
  words = set(re.findall(r'\w+', said.casefold()))

  def told(of: Collection[str]) -> bool:
    last = {x.split()[-1] for x in of}  # 'best friend': of a friend something was said
    return not words.isdisjoint(last | {f'{w}s' for w in last})

  found: list[str] = []
  for r in relations:
    if r.about != 'user' or r in maybe:
      continue
    asked = [fill(q, user=user, person='', value='it') for q in r.questions]
    if any(unheard.unheard(q, user, lambda _: False) for q in asked):
      open_ = any(unheard.unheard(q, user, told) for q in asked)
    else:
      open_ = bool(r.cues) and not told(r.cues)
    if open_ and not any(q in known for q in asked):
      found += asked
  answer = prompts.UNKNOWN.format(user=user)
  return [QA(question=found[i], answer=answer) for i in rng.permutation(len(found))]


def apart(
  pairs: Sequence[QA], told: Sequence[str], embedder: Callable[[list[str]], np.ndarray]
) -> list[QA]:
  """Those that are not like a question which was told, of the same people.

  Of somebody else the same may well be untold.
  """
  if not told or not pairs:
    return list(pairs)
  alike = embedder([p.question for p in pairs]) @ embedder(list(told)).T
  whose = [_people(q) for q in told]
  of = {people: np.asarray([w == people for w in whose]) for people in set(whose)}
  none = np.zeros(len(told), bool)
  return [
    p
    for p, row in zip(pairs, alike, strict=True)
    if row[of.get(_people(p.question), none)].max(initial=-1.0) < _NEAR
  ]


def unanswered(
  reader: Reader, messages: Sequence[Message], pairs: Sequence[QA], most: int
) -> list[QA]:
  """The first `most` that no message which names the same people answers, as the reader has it."""
  out: list[QA] = []
  for i in range(0, len(pairs), _TOGETHER):
    out += _unanswered(reader, messages, pairs[i : i + _TOGETHER])
    if len(out) >= most:
      break
  return out[:most]


def _unanswered(reader: Reader, messages: Sequence[Message], pairs: Sequence[QA]) -> list[QA]:
  rows = [
    (i, m)
    for i, p in enumerate(pairs)
    for m in messages
    if any(re.search(rf'\b{re.escape(n)}\b', m.text) for n in _people(p.question) - {m.user})
  ]
  unread = reader.unread([m for _, m in rows], [pairs[i].question for i, _ in rows])
  told = {i for (i, _), x in zip(rows, unread, strict=True) if x < reader.config.min_unread}
  return [p for i, p in enumerate(pairs) if i not in told]


def _people(question: str) -> frozenset[str]:
  """Words with a capital but the first, and who is asked about by a role: 'mother'."""
  words = re.findall(r'[\w-]+', question.replace("'s", ''))
  return frozenset(w for w in words[1:] if w[0].isupper() or w in _ROLES)


def dreams(pairs: Sequence[QA], exam: int, source: int, night: int) -> list[Dream]:
  """The first `exam` of them for the night's examination, the others to learn."""
  parts = ('exam_unknown', pairs[:exam]), ('unknown', pairs[exam:])
  return [
    Dream(
      id=0, night=night, style=style, text='', pairs=tuple(own), sources=(source,),
      quality=Quality(grounded=1.0),
    )
    for style, own in parts
    if own
  ]  # fmt: skip
