"""Candidate values: the words of a message that a fact may be about, and what they may be.

Dates, numbers and names are found by their form. Of other words the base says what they are (a
job, an animal, a verb), and of names what they are the name of: a relation is only asked about
values of its kind.
"""

from __future__ import annotations

import re

from dreaming.brain.decode import Decoder
from dreaming.types import Mind

MONTHS = 'January|February|March|April|May|June|July|August|September|October|November|December'
WEEKDAYS = 'Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday'
_ORDINAL = r'\d{1,2}(?:st|nd|rd|th)'
_DATE = re.compile(
  rf'\b(?:(?:the )?{_ORDINAL}(?: of)? (?:{MONTHS})|(?:the )?{_ORDINAL}|\d{{1,2}} (?:{MONTHS})'
  rf'|(?:{MONTHS}) {_ORDINAL}|(?:{MONTHS}) \d{{1,2}}|{MONTHS}|{WEEKDAYS})\b'
)
_TIME = re.compile(r'\b(?:\d{1,2}[:.]\d{2}|\d{1,2} ?(?:am|pm|a\.m\.|p\.m\.)|\d{1,2} o.clock)')
_NUMBER = re.compile(r'[€$£]? ?\b\d[\d,.]*\b')
_NAME = re.compile(r"\b[A-Z][\w'’-]*[a-z](?: [A-Z][\w'’-]*[a-z])*\b")
WORD = re.compile(r"[a-zà-ÿ][a-zà-ÿ'’-]+")

_DATES = frozenset({'date', 'month', 'weekday', 'any'})
NAMES = frozenset(
  {'person', 'place', 'organisation', 'title', 'animal_name', 'language', 'thing', 'subject', 'any'}
)
NOUNS = frozenset(
  {'animal', 'food', 'job', 'subject', 'thing', 'activity', 'feeling', 'colour', 'any', 'place',
   'organisation', 'person'}
)  # fmt: skip

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


def spans(text: str, user: str) -> list[tuple[str, frozenset[str]]]:
  """Candidate values of a message, each with the types it may have."""
  out: dict[str, frozenset[str]] = {}
  rest = text
  for pattern, kinds in ((_TIME, {'time', 'any'}), (_DATE, _DATES), (_NUMBER, {'number', 'money'})):
    for m in pattern.finditer(rest):
      out.setdefault(m[0].strip(), frozenset(kinds))
    rest = pattern.sub(lambda m: '·' * len(m[0]), rest)
  starts = {0} | {m.end() for m in re.finditer(r'[.!?:]["”]?\s+', rest)}
  for m in _NAME.finditer(rest):
    name = m[0].removesuffix("'s").removesuffix('’s')
    if m.start() in starts and name.lower() in COMMON | {'my', 'the', 'our', 'his', 'her'}:
      continue
    if m.start() in starts and ' ' in name:  # 'Big Ben' may be one, 'My Leela' is not
      first, _, tail = name.partition(' ')
      name = tail if first.lower() in COMMON else name
    if name != user and name.lower() not in COMMON:
      out.setdefault(name, NAMES)
  for m in WORD.finditer(rest):
    if m[0] not in COMMON and not m[0].endswith('ly') and "'" not in m[0] and '’' not in m[0]:
      if m.start() == 0 or not rest[m.start() - 1].isalnum():
        out.setdefault(m[0], NOUNS)
        before = rest[: m.start()].split()
        if before and before[-1].isalpha() and before[-1].islower() and before[-1] not in COMMON:
          out.setdefault(f'{before[-1]} {m[0]}', NOUNS)
  return list(out.items())


# ---- What they are ----

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
  ' illness': ('thing',), ' hobby': ('activity',), ' feeling': ('feeling',),
  ' colour': ('colour',), ' place': ('place',), ' person': ('job',), ' verb': (), ' time': (),
  ' quality': (),
}  # fmt: skip
_VERB_MARGIN = 1.2  # nats by which a value must be likelier something else than a verb
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
walked: verb
lawyer: job
bicycle: thing
"""


def noun_types(decoder: Decoder, mind: Mind, words: list[str]) -> dict[str, frozenset[str]]:
  """What each common word may be the name of; what is no value (a verb, a time) is left out.

  Of the bank's own example values, 88% have their type among the 2 that this gives on average.
  """
  single = list(dict.fromkeys(part for w in words for part in w.split()))
  if not single:
    return {}
  table = decoder.choose(mind, [f'{w}:' for w in single], list(_KINDS), prefix=_EXAMPLES)
  verb = list(_KINDS).index(' verb')
  types = {}
  for word, row in zip(single, table, strict=True):
    doing = word.endswith('ing')
    near = [k for k, x in zip(_KINDS.values(), row, strict=True) if x > row.max() - _TYPE_MARGIN]
    kinds = {t for k in near for t in k} | ({'activity'} if doing else set())
    if kinds and (doing or row[verb] <= row.max() - _VERB_MARGIN):
      types[word] = frozenset(kinds | {'any'})
  # Of two words both have to be values, and the second says what they are: 'carrot cake'.
  out = {}
  for word in words:
    parts = word.split()
    if all(p in types for p in parts):
      out[word] = types[parts[-1]]
  return out


def name_types(
  decoder: Decoder, mind: Mind, text: str, user: str, names: list[str]
) -> dict[str, frozenset[str]]:
  """What each name is the name of, as the base understands the message."""
  if not names:
    return {}
  options = list(_NAME_TYPES)
  prompts = [f'. In this message {name} is the name of' for name in names for _ in options]
  logps = decoder.logprobs(
    mind, prompts, [f' {o}' for _ in names for o in options],
    prefix=f'{user} says: "{text}"\nThat is all {user} said', shortlist=None,
  )  # fmt: skip
  totals, n = [x.sum() for x in logps], len(options)
  table = [totals[i : i + n] for i in range(0, len(totals), n)]
  out = {}
  for name, row in zip(names, table, strict=True):
    likely = [o for o, x in zip(options, row, strict=True) if x > max(row) - _TYPE_MARGIN]
    out[name] = frozenset().union(*(_NAME_TYPES[o] for o in likely)) | {'any'}
  return out
