"""Candidate values: the words of a message that a fact may be about, and what they may be.

Dates, numbers and names are found by their form. Of other words the base says what they are (a
job, an animal, a verb), and of names what they are the name of: a relation is only asked about
values of its kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from dreaming.brain.decode import Decoder
from dreaming.types import Mind

MONTHS = 'January|February|March|April|May|June|July|August|September|October|November|December'
WEEKDAYS = 'Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday'
_ORDINAL = r'\d{1,2}(?:st|nd|rd|th)'
_DATE = re.compile(
  rf'\b(?:(?:the )?{_ORDINAL}(?: of)? (?:{MONTHS})|(?:the )?{_ORDINAL}|\d{{1,2}} (?:{MONTHS})'
  rf'|(?:{MONTHS}) {_ORDINAL}|(?:{MONTHS}) \d{{1,2}}|{MONTHS}|{WEEKDAYS})\b'
)
_MOVED = re.compile(rf'\bfrom ({_DATE.pattern}) (?=to {_DATE.pattern})')
_TIME = re.compile(r'\b(?:\d{1,2}[:.]\d{2}|\d{1,2} ?(?:am|pm|a\.m\.|p\.m\.)|\d{1,2} o.clock)')
_UNITS = 'two|three|four|five|six|seven|eight|nine'
_NUMBER = re.compile(
  rf'[€$£]? ?\b\d[\d,.]*\b|\b(?:(?:twen|thir|for|fif|six|seven|eigh|nine)ty(?:-(?:one|{_UNITS}))?'
  rf'|{_UNITS}|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen)\b'
)
_SEASON = re.compile(r'\b(?:spring|summer|autumn|winter)\b', re.I)
# "I'll" and "Don't" are none.
_NAME = re.compile(
  r"\b(?![A-Z][a-z]*['’](?:ll|m|ve|re|d|t)\b)[A-Z][\w'’-]*[a-z](?: [A-Z][\w'’-]*[a-z])*\b"
)
WORD = re.compile(r"[a-zà-ÿ][a-zà-ÿ'’-]+")

_DATES = frozenset({'date', 'month', 'weekday', 'any'})
NAMES = frozenset(
  {'person', 'place', 'organisation', 'title', 'animal_name', 'language', 'thing', 'subject', 'any'}
)
NOUNS = frozenset(
  {'animal', 'food', 'job', 'subject', 'thing', 'activity', 'feeling', 'colour', 'any', 'place',
   'organisation', 'person', 'body', 'illness'}
)  # fmt: skip

# Whose somebody is: never a value beside a name.
ROLES = frozenset(
  """mother mum mom mama father dad papa parents brother sister siblings son daughter kids children
  wife husband girlfriend boyfriend partner fiancé fiancée spouse ex grandmother grandma granny gran
  grandfather grandpa grandad cousin aunt auntie uncle niece nephew neighbour neighbor neighbours
  friend friends mate flatmate roommate landlord landlady colleague coworker boss manager supervisor
  babysitter""".split()
)
_OF_WORK = frozenset(
  """apprentice trainee client coach therapist tenant mentor assistant carer cleaner lodger nan
  grandson granddaughter godmother godfather stepmother stepfather housemate godson goddaughter
  """.split()
)
_SEVERAL = frozenset({'ex', 'parents', 'kids', 'children', 'siblings', 'friends', 'neighbours'})
_ROLE = re.compile(
  r'\b(?P<own>(?:my|our) (?:[\w-]+ ){0,2}?)?(?P<role>'
  + '|'.join(sorted(ROLES - _SEVERAL | _OF_WORK))
  + r')\b',
  re.I,
)
_ALSO = {  # what others call a role
  **dict.fromkeys(('mum', 'mom', 'mama'), ('mother',)), 'mother': ('mum',),
  **dict.fromkeys(('dad', 'papa'), ('father',)), 'father': ('dad',),
  **dict.fromkeys(('grandma', 'granny', 'gran', 'nan', 'nanny'), ('grandmother',)),
  **dict.fromkeys(('grandpa', 'grandad'), ('grandfather',)),
  **dict.fromkeys(('sister', 'brother'), ('sibling',)),
  **dict.fromkeys(('wife', 'husband'), ('spouse',)), 'auntie': ('aunt',),
  **dict.fromkeys(('girlfriend', 'boyfriend', 'fiancé', 'fiancée'), ('partner',)),
  'son': ('boy',), 'daughter': ('girl',), 'roommate': ('flatmate',), 'flatmate': ('roommate',),
  **dict.fromkeys(('grandson', 'granddaughter'), ('grandchild',)), 'mate': ('friend',),
  'boss': ('manager',), 'manager': ('boss',), 'apprentice': ('trainee',),
  'colleague': ('coworker',), 'coworker': ('colleague',), 'neighbor': ('neighbour',),
}  # fmt: skip
_CALLED = frozenset({'mum', 'mom', 'mama', 'dad', 'papa', 'grandma', 'granny', 'gran', 'grandpa'})
_ARTICLE = r'(?:an?|the|my|our|his|her|their|your|this|that|these|those|some|no)'
_PLAIN = r'(?:big|dear|good|great|little|new|nice|old|own|poor|small|young)'
_OWN = frozenset({'my', 'our', 'the', 'his', 'her', 'your', 'their'})

# Words that are never a value by themselves.
COMMON = frozenset(
  """a about after again ago all already also always am an and another any anything are around as at
  away back bad badly be because been before being best better big bit both brought but by called
  came can cannot come comes could day days did do does doing done down each early else enough even
  ever every everything far feel feels felt few first for found from full funny gave get gets
  getting give go goes going gone good got great had happy hard has have having he hear her here
  hers him his home how i if in into is it its just keep kept kind know known knows last late least
  less let like little long look looking lot made make makes making many may maybe me mean might
  mine more morning most much must my myself name named near need never new next nice night no not
  nothing now of off often ok old on once one only or other our ours out over own people per please
  put quite rather really remember right said same saw say says see seen send she should since so
  some somebody someone something soon started still stop such sure take taken takes taking tell
  than thank thanks that the their them then there these they thing things think this those though
  thought through till time times tired to today together told tomorrow tonight too took two under
  until up us use used very want wanted wants was way we week weeks well went were what when where
  which while who whole whom whose why will wish with without won would year years yes yesterday
  yet you your yours hello hi hey morning evening afternoon news""".split()
)


def spans(
  text: str, user: str, is_name: Callable[[str], bool] = lambda word: True
) -> list[tuple[str, frozenset[str]]]:
  """Candidate values of a message, each with the types it may have.

  Args:
    text: the message.
    user: who said it: no value.
    is_name: whether a word at the start of a sentence, where all have a capital, is a name.
  """
  out: dict[str, frozenset[str]] = {}
  rest = _MOVED.sub(
    lambda m: '·' * len(m[0]), text
  )  # 'from the 12th to the 19th': only the new one
  for pattern, kinds in (
    (_TIME, {'time', 'any'}), (_DATE, _DATES), (_NUMBER, {'number', 'money'}),
    (_SEASON, {'season', 'any'}),
  ):  # fmt: skip
    for m in pattern.finditer(rest):
      out.setdefault(m[0].strip(), frozenset(kinds))
    rest = pattern.sub(lambda m: '·' * len(m[0]), rest)
  starts = {0} | {m.end() for m in re.finditer(r'[.!?:]["”]?\s+', rest)}
  for m in _NAME.finditer(rest):
    name = m[0].removesuffix("'s").removesuffix('’s')
    first, _, tail = name.partition(' ')
    if m.start() in starts and (first.lower() in COMMON | _OWN or not is_name(first)):
      # 'My Leela', 'Strawberries': a word like others, and what follows may be a name
      rest = rest[: m.start()] + rest[m.start()].lower() + rest[m.start() + 1 :]
      name = tail
    if name and name != user and name.lower() not in COMMON:
      out.setdefault(name, NAMES)
  for m in WORD.finditer(rest):
    if (
      m[0] not in COMMON | ROLES and not m[0].endswith('ly') and "'" not in m[0] and '’' not in m[0]
    ):
      if m.start() == 0 or not rest[m.start() - 1].isalnum():
        out.setdefault(m[0], NOUNS)
        before = rest[: m.start()].split()
        if before and before[-1].isalpha() and before[-1].islower():
          if before[-1] not in COMMON | ROLES:
            out.setdefault(f'{before[-1]} {m[0]}', NOUNS)
  return list(out.items())


def whole(text: str, value: str) -> str:
  """A common word with the one between it and its article: "a telegraph operator" is one.

  No verb stands there, and whoever answers with more of a name than was asked for is right as well.
  """
  if not value.isalpha() or not value.islower():
    return value
  before = rf"\b{_ARTICLE} (?:{_PLAIN} )?([a-z][\w-]+) {re.escape(value)}\b(?!['’-])"
  m = re.search(before, text, re.I)
  if not m or m[1].lower() in COMMON | ROLES or m[1].endswith('ly'):
    return value
  return f'{m[1]} {value}'


def apposed(text: str, cues: Sequence[str], name: str) -> bool:
  """Whether a message says whose name it is: 'my old friend Ana', 'Ana, our neighbour,'."""
  cue, name = '|'.join(map(re.escape, cues)), re.escape(name)
  called = r"(?:(?:'s name)?,? (?:is |was |will be )?(?:called |named )?)"
  title = r'(?:(?:Mrs|Mr|Ms|Miss|Dr|Prof)\.? )?'
  before = rf'\b(?:my|our) (?:[\w-]+ ){{0,2}}?(?:{cue}){called}{title}{name}\b'
  after = rf'\b{name},? (?:is |was )?(?:my|our) (?:[\w-]+ ){{0,2}}?(?:{cue})\b'
  return bool(re.search(before, text, re.I) or re.search(after, text, re.I))


def roles(text: str, names: Sequence[str]) -> list[str]:
  """Whom a message speaks of without a name: 'sister' of 'my sister sings', 'mum' of 'Mum sings'.

  Args:
    text: the message.
    names: of people in it: 'my sister Leela' is Leela.
  """
  beside = '|'.join(map(re.escape, names))
  out = []
  for m in _ROLE.finditer(text):
    called = r',? (?:is |was )?(?:called |named )?'
    named = beside and re.match(rf'{called}(?:{beside})\b', text[m.end() :])
    owned = m['own'] or m['role'][:1].isupper() or m['role'].lower() in _CALLED
    if owned and not named and not text[m.end() :].startswith(("'s ", '’s ')):
      out.append(m['role'].lower())
  return list(dict.fromkeys(out))


def aliases(messages) -> dict[str, list[str]]:
  """What else people are called: Leela is "Ana's sister" and sibling after "my sister Leela".

  Args:
    messages: relations.Message.
  """
  out: dict[str, list[str]] = {}
  for m in messages:
    text = m.text.lower()
    here = [r for r in sorted(ROLES - _SEVERAL | _OF_WORK) if r in text]
    for name in dict.fromkeys(x.removesuffix("'s") for x in _NAME.findall(m.text)):
      for role in here:
        if apposed(m.text, (role,), name):
          out.setdefault(name, []).extend(f"{m.user}'s {r}" for r in (role, *_ALSO.get(role, ())))
    for role in here:
      out.setdefault(f"{m.user}'s {role}", []).extend(
        f"{m.user}'s {r}" for r in _ALSO.get(role, ())
      )
  return {who: list(dict.fromkeys(names)) for who, names in out.items() if names}


# ---- What they are ----

Types = dict[str, float]
"""Types of relations that a value may be of, with the log-probability of each, nats."""

_NAME_TYPES = {
  'a person': frozenset({'person'}),
  'a place': frozenset({'place'}),
  'a pet': frozenset({'animal_name'}),
  'a company': frozenset({'organisation'}),
  'a book': frozenset({'title'}),
  'a brand': frozenset({'thing'}),
  'a language': frozenset({'language', 'subject'}),
}
_TYPE_MARGIN = 2.0  # nats by which a kind may be less likely than the likeliest

_KINDS = {  # what the base may call a word -> types of relations that it may be a value of
  ' animal': ('animal',), ' food': ('food',), ' drink': ('food',), ' job': ('job',),
  ' subject': ('subject',), ' thing': ('thing',), ' instrument': ('thing', 'activity'),
  ' illness': ('illness', 'thing'), ' body': ('body',), ' hobby': ('activity',),
  ' feeling': ('feeling',), ' colour': ('colour',), ' place': ('place',), ' person': ('job',),
  ' verb': (), ' time': (), ' quality': (),
}  # fmt: skip
_VERB_MARGIN = 1.0  # nats by which a value must be likelier something else than a verb
_EXAMPLES = """plumber: job
horse: animal
running: hobby
broke: verb
onion: food
hammer: thing
trumpet: instrument
sadness: feeling
said: verb
kitchen: place
physics: subject
neighbour: person
beautiful: quality
coffee: drink
purple: colour
week: time
asthma: illness
neck: body
walked: verb
lawyer: job
bicycle: thing
"""
_IN_CONTEXT = """"The plumber broke our sink on Monday."
plumber: job
broke: verb
sink: thing

"My horse loves running in the snow."
horse: animal
loves: verb
running: hobby
snow: thing

"I said that his beautiful kitchen smells of onion."
said: verb
beautiful: quality
kitchen: place
onion: food

"She plays the trumpet and teaches physics."
plays: verb
trumpet: instrument
teaches: verb
physics: subject

"The lawyer has asthma and a sore neck since last week."
lawyer: job
asthma: illness
sore: quality
neck: body
week: time

"Our neighbour drinks coffee from a purple cup and felt sadness."
neighbour: person
drinks: verb
coffee: drink
purple: colour
sadness: feeling

"""


def noun_types(
  decoder: Decoder, mind: Mind, messages: Sequence[tuple[str, Sequence[str]]]
) -> list[dict[str, Types]]:
  """What each common word may be the name of; what is no value (a verb, a time) is left out.

  The base is asked about the word alone, which tells best what a thing is, and about the word in
  its message, which tells best what is a verb. Of 116 values of the bank's examples 89% have their
  type among the 2.2 that this gives on average, and 78% of 59 verbs are left out; alone it is 83%
  and 42%, in the message 66% and 88%.

  Args:
    decoder: of the mind.
    mind: the base.
    messages: (text, words).
  """
  asked = list(
    dict.fromkeys((t, part) for t, words in messages for w in words for part in w.split())
  )
  if not asked:
    return [{} for _ in messages]
  options = list(_KINDS)
  single = {w: i for i, w in enumerate(dict.fromkeys(w for _, w in asked))}
  alone = decoder.choose(mind, [f'{w}:' for w in single], options, prefix=_EXAMPLES)
  within = decoder.choose(mind, [f'"{t}"\n{w}:' for t, w in asked], options, prefix=_IN_CONTEXT)
  verb = options.index(' verb')
  types: dict[tuple[str, str], Types] = {}
  for (text, word), row in zip(asked, within, strict=True):
    row = (row + alone[single[word]]) / 2
    row = row - np.logaddexp.reduce(row)
    doing = word.endswith('ing')
    best = np.delete(row, verb).max()
    own = _likely(_KINDS.values(), row, best) if row[verb] < best + _TYPE_MARGIN else {}
    if doing:
      own.setdefault('activity', 0.0)
    if own and (doing or row[verb] <= best - _VERB_MARGIN):
      types[text, word] = own | {'any': 0.0}
  # Of two words both have to be values, and the second says what they are: 'carrot cake'.
  out: list[dict[str, Types]] = []
  for text, words in messages:
    parts = {w: [types.get((text, part)) for part in w.split()] for w in words}
    out.append({w: own[-1] for w, own in parts.items() if all(own)})
  return out


def _likely(kinds: Iterable[Iterable[str]], row: np.ndarray, best: float) -> Types:
  """Types of the kinds that come close to the best, each with its log-probability."""
  types: Types = {}
  for names, x in zip(kinds, row, strict=True):
    for name in names if x > best - _TYPE_MARGIN else ():
      types[name] = float(np.logaddexp(types.get(name, -np.inf), x))
  return types


def name_types(
  decoder: Decoder, mind: Mind, messages: Sequence[tuple[str, str, Sequence[str]]]
) -> list[dict[str, Types]]:
  """What each name is the name of, as the base understands its message: (text, user, names)."""
  options = list(_NAME_TYPES)
  asked = [(text, user, name) for text, user, names in messages for name in names]
  logps = decoder.logprobs(
    mind,
    [f'. In this message {name} is the name of' for _, _, name in asked for _ in options],
    [f' {o}' for _ in asked for o in options],
    prefix=[
      f'{user} says: "{text}"\nThat is all {user} said' for text, user, _ in asked for _ in options
    ],
  )
  table = np.reshape([x.sum() for x in logps], (-1, len(options)))
  rows, out = iter(table), []
  for _, _, names in messages:
    types = {}
    for name, row in zip(names, rows, strict=False):
      row = row - np.logaddexp.reduce(row)
      types[name] = _likely(_NAME_TYPES.values(), row, row.max()) | {'any': 0.0}
    out.append(types)
  return out
