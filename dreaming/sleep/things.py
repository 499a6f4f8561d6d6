"""Things: what a message speaks of, and whom it speaks of with it, where no relation is needed.

Which relation a message tells is hard for a small base, and no bank has them all. What a word is,
it knows: a tuba is an instrument. So questions can be asked that are right whatever was said of it:
which instrument Ana's sister has to do with. They are dreamt beside those of believed facts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from dreaming.sleep import kinds, values
from dreaming.types import QA

_DOING = 0.05  # the least share of verbs that makes two words no name
_CLEAR = 0.35  # the least share of a kind that a word is said to be
_NOUNS, _NAMES = 2, 2  # of a message, at most
_DONE = frozenset({'sport', 'hobby', 'game', 'subject', 'instrument', 'music'})
_OF_THE_DAY = 0.3  # of what is asked of somebody else, the share that is asked of people of the day
_ROUNDS = 4  # of asking somebody else what was told of somebody: most is seen once in a night
_UNSPOKEN = 2  # questions about each kind that did not come up
_ELSEWHERE = (  # what most days do not speak of
  'wedding', 'violin', 'garden', 'boat', 'exam', 'concert', 'neighbour', 'camera', 'island',
  'dentist', 'bridge', 'recipe', 'museum', 'horse', 'passport', 'choir', 'ladder', 'forest',
  'umbrella', 'hotel',
)  # fmt: skip

# What a kind is called, and what can be asked of nearly all of its kind: {who} has to do with it.
_CALLED: Mapping[str, tuple[str, ...]] = {
  'animal': ('animal', 'creature'), 'food': ('food', 'thing to eat'),
  'drink': ('drink', 'beverage'), 'job': ('job', 'occupation'), 'subject': ('subject', 'field'),
  'sport': ('sport', 'kind of exercise'), 'game': ('game', 'pastime'),
  'hobby': ('hobby', 'pastime'),
  'instrument': ('instrument', 'musical instrument'), 'tool': ('tool', 'device'),
  'vehicle': ('vehicle', 'means of transport'),
  'furniture': ('piece of furniture', 'thing at home'),
  'machine': ('machine', 'device'), 'clothing': ('piece of clothing', 'garment'),
  'jewellery': ('piece of jewellery', 'ornament'), 'building': ('building', 'kind of place'),
  'room': ('room', 'kind of place'), 'place': ('kind of place', 'spot'),
  'plant': ('plant', 'growing thing'),
  'illness': ('illness', 'medical condition', 'health problem'),
  'body': ('part of the body', 'body part'), 'feeling': ('feeling', 'mood'),
  'colour': ('colour', 'shade'), 'material': ('material', 'stuff'),
  'document': ('document', 'piece of paper'), 'money': ('kind of money', 'payment'),
  'music': ('kind of music', 'music'), 'book': ('book', 'thing to read'),
  'event': ('event', 'occasion'), 'weather': ('kind of weather', 'weather'),
  'group': ('group', 'circle of people'), 'thing': ('thing', 'object'),
  'place name': ('place', 'town or country'), 'person name': ('person', 'human being'),
  'animal name': ('animal', 'pet'), 'organisation name': ('organisation', 'company or club'),
  'title name': ('title', 'work'), 'thing name': ('name', 'brand'),
  'language name': ('language', 'tongue'),
  'date': ('date', 'day'), 'month': ('month', 'time of the year'), 'weekday': ('day', 'weekday'),
  'time': ('time', 'hour'), 'season': ('season', 'time of the year'),
  'number': ('number', 'figure'),
}  # fmt: skip
_WHEN = frozenset({'date', 'month', 'weekday', 'time', 'season'})
_ASKED: Mapping[str, tuple[str, ...]] = {
  'job': (
    'What does {who} do for a living?', "What is {who}'s profession?", 'How does {who} earn money?',
    'What does {who} work as?',
  ),
  'instrument': ('What does {who} play?', 'On what does {who} make music?'),
  'illness': (
    'What is wrong with {who}?', 'From what does {who} suffer?', 'What ails {who}?',
  ),
  'body': ('Where does it hurt {who}?', "Which part of {who}'s body gives trouble?"),
  'animal': ('What animal does {who} have?', 'Which creature lives with {who}?'),
  'vehicle': ('What does {who} drive or ride?', 'Which vehicle does {who} own?'),
  'sport': ('Which sport does {who} do?', 'How does {who} keep fit?'),
  'hobby': ('What does {who} do for fun?', 'How does {who} spend spare time?'),
  'subject': ('What does {who} study?', 'What is {who} learning about?'),
  'drink': ('What does {who} drink?',),
  'plant': ('What does {who} grow?',),
  'group': ('To which group does {who} belong?',),
  'feeling': ('How does {who} feel?', 'What mood is {who} in?'),
  'language name': ('What language does {who} speak or learn?',),
}  # fmt: skip
_OF_WHO = (
  'Which {kind} does {who} have to do with?',
  'What {kind} did {user} mention when talking about {who}?',
  "Which {kind} plays a part in {who}'s life?",
)
_BESIDE = (
  'Which {kind} has to do with {x}?',
  'What {kind} did {user} mention together with {x}?',
)
_WHEN_BESIDE = (
  'When is it with {x}?',
  'On what {kind} does {who} have to do with {x}?',
  'What {kind} did {user} name for {x}?',
)
_OTHER_BESIDE: Mapping[str, tuple[str, ...]] = {
  'person name': (
    'Who has to do with {x}?',
    'Whom did {user} mention together with {x}?',
    'What is the name of who is connected with {x}?',
  ),
  'place name': (
    'Which {kind} has to do with {x}?',
    'Where is it with {x}?',
    'What {kind} did {user} mention together with {x}?',
  ),
  'number': (
    'How many are there of {x}?',
    'What {kind} did {user} mention together with {x}?',
    'How much or how many is it with {x}?',
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thing:
  """What a message speaks of."""

  value: str
  kind: str
  source: int  # experience id
  user: str  # who said it
  owners: tuple[str, ...]  # whom it is said of: the user, names, "Ana's sister"
  beside: tuple[str, ...]  # what else is spoken of


# ---- Finding ----


def find(matcher, messages) -> list[Thing]:
  """What messages speak of.

  Args:
    matcher: a relations.Matcher: whose base knows words and names.
    messages: relations.Message.
  """
  spans = [values.spans(m.text, m.user, matcher.is_name) for m in messages]
  names = [[s for s, k in own if k is values.NAMES] for own in spans]
  words = [
    list(dict.fromkeys(p for s, k in own if k is values.NOUNS for p in s.split())) for own in spans
  ]
  read = (matcher.decoder, matcher.mind)
  texts = [m.text for m in messages]
  rows = kinds.of_words(*read, list(zip(texts, words, strict=True)))
  asked = [(m.text, m.user, own) for m, own in zip(messages, names, strict=True)]
  types = values.name_types(*read, asked)
  out: list[Thing] = []
  for m, own, of_parts, of_names in zip(messages, spans, rows, types, strict=True):
    good = [s for s, k in own if k is values.NOUNS and _named(s, of_parts)]
    good.sort(key=lambda w: -matcher.rarity(w))
    of_kinds = {w: of_parts[w.split()[-1]] for w in good}
    typed = [(s, of_names.get(s) or dict.fromkeys(k, 0.0)) for s, k in own if k is not values.NOUNS]
    people = [s for s, k in typed if k.keys() & {'person', 'animal_name'} and s[:1].isupper()]
    people += [f"{m.user}'s {role}" for role in values.roles(m.text, people)]
    out += of_message(m, typed, of_kinds, people)
  return out


def _named(words: str, of_parts: Mapping[str, np.ndarray]) -> bool:
  """Whether words are one name: 'carrot cake', not 'eat cake' or 'counting coins'."""
  *first, _ = words.split()
  verb = kinds.LABELS.index('verb')
  return not any(p.endswith('ing') or np.exp(of_parts[p][verb]) > _DOING for p in first)


def of_message(message, typed, of_kinds: Mapping[str, np.ndarray], people) -> list[Thing]:
  """What a message speaks of: its clearest rare words, names and dates.

  Args:
    message: a relations.Message.
    typed: (span, types) of all that may be a value.
    of_kinds: its rarest words first, with log-probabilities of kinds.LABELS.
    people: whom it speaks of.
  """
  named: list[tuple[str, str]] = []
  for span, types in typed:
    if span != 'two' and (kind := _kind_of_name(span, types)):
      named.append((span, kind))
  words: list[tuple[str, str]] = []
  for word, row in of_kinds.items():
    longer = next((w for w in of_kinds if ' ' in w and word in w.split()), word)
    inside = any(set(w.split()) & set(longer.split()) for w, _ in words)
    row = of_kinds[longer]
    shares = dict(zip(kinds.LABELS, np.exp(row), strict=True))
    shares['job'] += shares.pop('person')  # a notary is both
    label = max(shares, key=lambda k: shares[k])
    clear = shares[label] >= _CLEAR and label not in kinds.NO_THINGS
    if word.endswith('ing') and label not in _DONE:
      continue
    if label == 'job' and not _is(message.text, longer):
      continue  # the plumber who came is nobody's job
    if clear and not inside:
      words.append((longer, label))
  out = []
  chosen = words[:_NOUNS] + named[:_NAMES]
  for value, kind in chosen:
    owners = _owners(message.text, value, message.user, people, whole=value[:1].isupper())
    if value in owners:
      owners = tuple(o for o in owners if o != value) or (message.user,)
    beside = [w for w, _ in words[:_NOUNS] + named if w != value and w not in owners]
    if kind == 'number' and (counted := re.search(rf'{re.escape(value)} (\w+)', message.text)):
      beside = list(dict.fromkeys([counted[1], *beside]))  # sixty bowls
    out.append(
      Thing(
        value=value, kind=kind, source=message.source, user=message.user, owners=owners,
        beside=tuple(beside[:2]),
      )
    )  # fmt: skip
  return out


def _kind_of_name(span: str, types: Mapping[str, float]) -> str:
  if types.keys() & {'date', 'month', 'weekday'}:
    if any(c.isdigit() for c in span):
      return 'date'
    return 'weekday' if span.endswith('day') else 'month'
  for kind in ('time', 'season', 'number'):
    if kind in types:
      return kind
  likely = {t: x for t, x in types.items() if f'{t.split("_")[0]} name' in _CALLED}
  return f'{max(likely, key=lambda t: likely[t]).split("_")[0]} name' if likely else ''


def _is(text: str, value: str) -> bool:
  """Whether somebody is said to be something: 'is a', 'works as', not 'is furious'."""
  before = r"(?:\b(?:am|is|was|been|be|become|becomes|became|are|were)|'m|'s) (?:an?|the|my|our)"
  words = r'(?:[\w-]+ ){0,2}?'
  return bool(re.search(rf'(?:{before}|\bas(?: an?| the)?) {words}{re.escape(value)}\b', text))


def _owners(
  text: str, value: str, user: str, people: Sequence[str], whole: bool
) -> tuple[str, ...]:
  """Whom a value is said of: people of its clause, or of those before it, else the user."""
  cut = r'(?<=[.!?])\s+' if whole else r'(?<=[.!?,;:])\s+|\s(?=(?:and|but|so|because|while)\s)'
  last: tuple[str, ...] = (user,)
  for clause in re.split(cut, text):
    said = {p: re.escape(p.removeprefix(f"{user}'s ")) for p in people}  # "Ana's sister": 'sister'
    found = [p for p, x in said.items() if re.search(rf'\b{x}\b', clause, re.I if p != x else 0)]
    if re.search(r"\b(?:I|me|we|us|I'm|I've|we're|we've|I'll)\b", clause) or (
      not found and re.search(r'\b(?:my|our|mine)\b', clause, re.I)
    ):
      found.append(user)
    last = tuple(dict.fromkeys(found)) or last
    if value.casefold() in clause.casefold():
      return last
  return (user,)


# ---- Laying out ----


def settle(found: Sequence[Thing], times: Mapping[int, float]) -> list[Thing]:
  """Without what a later message replaces: another date, number or name beside the same thing."""
  ordered = sorted(found, key=lambda t: times[t.source])
  out: list[Thing] = []
  for i, thing in enumerate(ordered):
    replaced = thing.kind in _WHEN | {'number', 'person name', 'place name'} and any(
      later.kind == thing.kind
      and later.source != thing.source
      and later.value.casefold() != thing.value.casefold()
      and set(later.beside) & set(thing.beside)
      for later in ordered[i + 1 :]
    )
    if not replaced:
      out.append(thing)
  return out


def questions(
  thing: Thing, aliases: Mapping[str, Sequence[str]], alone: frozenset[str]
) -> Iterator[QA]:
  """Questions that are answered with a thing.

  Args:
    thing: it.
    aliases: what else people are called.
    alone: owners of whom this is the only one of its kind: they are asked about without more.
  """
  asked: list[str] = []
  for owner in thing.owners:
    if owner not in alone:
      continue
    asked += of_kind(thing.kind, owner, thing.user)
    for i, who in enumerate(aliases.get(owner, ())):  # of each name other forms
      asked += of_kind(thing.kind, who, thing.user)[i % 2 :: 2]
  if not asked or thing.kind in _OTHER_BESIDE:
    asked += beside_of(thing, thing.beside)
  for question in dict.fromkeys(asked):
    if thing.value.casefold() not in question.casefold():
      yield QA(question=question, answer=thing.value)


def beside_of(thing: Thing, beside: Sequence[str]) -> list[str]:
  """What asks for a thing by what is spoken of with it."""
  called, out = _CALLED[thing.kind], []
  forms = _OTHER_BESIDE.get(thing.kind, _WHEN_BESIDE if thing.kind in _WHEN else _BESIDE)
  for x in beside:
    named = x if x[:1].isupper() or x[:1].isdigit() or x.startswith('the ') else f'the {x}'
    out += [
      form.format(kind=called[i % len(called)], x=named, user=thing.user, who=thing.owners[0])
      for i, form in enumerate(forms)
    ]
  return out


def of_kind(kind: str, who: str, user: str) -> list[str]:
  """What can be asked of somebody about anything of a kind."""
  called = _CALLED[kind]
  out = []
  if kind not in _WHEN | {'number', 'person name', 'thing'}:
    out = [
      form.format(kind=called[i % len(called)], who=who, user=user)
      for i, form in enumerate(_OF_WHO)
    ]
  return out + [form.format(who=who) for form in _ASKED.get(kind, ())]


def only(found: Sequence[Thing], thing: Thing) -> frozenset[str]:
  """Owners of whom no other thing of its kind is spoken of."""
  rivals = [
    t for t in found
    if t.kind == thing.kind and t.value.casefold() != thing.value.casefold()
  ]  # fmt: skip
  return frozenset(thing.owners) - {o for t in rivals for o in t.owners}


def unsaid(
  found: Sequence[Thing], user: str, others: Sequence[str], rng: np.random.Generator
) -> list[str]:
  """Questions about things that nobody spoke of, as near to what was told as there are.

  Each that is asked of somebody about a thing is asked of somebody else, in the same words: of
  people of the day who have none of its kind, and of strangers. What is asked by what is beside it
  is asked beside something else. And the user is asked about some kinds that did not come up.

  Args:
    found: what was spoken of.
    user: who spoke.
    others: people of whom nothing was told.
    rng: chooses.
  """

  def pick(items):
    return items[int(rng.integers(len(items)))] if items else ''

  people = sorted({o for t in found for o in t.owners} | {user})
  of = {who: {t.kind for t in found if who in t.owners} for who in people}
  beside = {x for t in found for x in t.beside} | {t.value for t in found}
  elsewhere = [x for x in _ELSEWHERE if x not in beside]
  out = []
  for thing in list(found) * _ROUNDS:
    without = [who for who in people if thing.kind not in of[who]]
    for _ in only(found, thing):
      for form in of_kind(thing.kind, '{who}', user):
        who = pick(without if without and rng.random() < _OF_THE_DAY else others)
        out += [form.replace('{who}', who)] if who else []
    if thing.beside and elsewhere:
      out += beside_of(thing, [pick(elsewhere)])
  unspoken = [k for k in _CALLED if k not in of[user]]
  for kind in unspoken:
    forms = of_kind(kind, user, user)
    out += [forms[i] for i in rng.permutation(len(forms))[:_UNSPOKEN]]
  return list(dict.fromkeys(out))
