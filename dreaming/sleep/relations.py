"""Who-relation-what: which facts a message tells, as (relation, value) pairs.

A small base model cannot write good questions freely (docs/experiments.md has the figures), but it
knows which of two sentences follows better from a message. So the relations that people's lives
consist of are laid out in a bank (relations/*.json: statements and questions in many wordings, with
slots), and a message is matched against it: spans of the message are candidate values, static word
vectors propose relations for each span, and the base's likelihood of the filled-in statement after
the message decides.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import re
from collections.abc import Callable, Sequence

import numpy as np

from dreaming.brain.decode import Decoder
from dreaming.types import QA, Mind

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
_WORD = re.compile(r"[a-zà-ÿ][a-zà-ÿ'’-]+")

_DATES = frozenset({'date', 'month', 'weekday', 'any'})
_NAMES = frozenset(
  {'person', 'place', 'organisation', 'title', 'animal_name', 'language', 'thing', 'subject', 'any'}
)
_NOUNS = frozenset(
  {'animal', 'food', 'job', 'subject', 'thing', 'activity', 'feeling', 'colour', 'any', 'place',
   'organisation', 'person'}
)  # fmt: skip

# Words that are never a value by themselves.
_COMMON = frozenset(
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relation:
  """One kind of fact, in many wordings, with slots {user}, {person} and {value}."""

  name: str
  about: str  # 'user' or 'person'
  type: str  # of the value
  examples: tuple[tuple[str, str], ...]  # (message, value)
  questions: tuple[str, ...]
  statements: tuple[str, ...]
  reversed: tuple[QA, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
  """What a message tells."""

  relation: Relation
  user: str
  person: str  # '' when it is about the user
  value: str
  source: int  # experience id
  score: float  # mean log-likelihood of its statements after the message, nats a token
  gain: float  # the same minus that without the message
  rank: float = 0.0  # what these and the relation's own words make of it

  @property
  def key(self) -> tuple[str, str]:
    """Facts with one key exclude each other: the newer one wins."""
    return self.relation.name, self.person

  def fill(self, text: str) -> str:
    return fill(text, user=self.user, person=self.person, value=self.value)


def fill(text: str, *, user: str, person: str, value: str) -> str:
  """A template with its slots filled, a/an and doubled articles put right."""
  bare = re.sub(r'^(the|a|an) ', '', value, flags=re.I)
  text = re.sub(r'\b(an?|the) \{value\}', lambda m: f'{m[1]} {bare}', text)
  text = text.replace('{user}', user).replace('{person}', person).replace('{value}', value)
  text = re.sub(r'\b([Aa]) (?=[aeiouAEIOU])', r'\1n ', text)
  text = re.sub(r'\b([Aa])n (?=[^aeiouAEIOUhH\W])', r'\1 ', text)
  text = re.sub(r'\bs\b(?<=\w)\'s\'s', "s's", text)
  return text[:1].upper() + text[1:]


@functools.cache
def bank() -> tuple[Relation, ...]:
  """All relations that the package ships."""
  out = []
  folder = importlib.resources.files('dreaming.sleep') / 'relations'
  for file in sorted(folder.iterdir(), key=lambda f: f.name):
    if not file.name.endswith('.json'):
      continue
    for r in json.loads(file.read_text(encoding='utf-8')):
      examples = tuple(tuple(p.strip() for p in e.split('=>', 1)) for e in r['examples'])
      out.append(
        Relation(
          name=r['name'],
          about=r['about'],
          type=r['type'],
          examples=examples,
          questions=tuple(r['questions']),
          statements=tuple(r['statements']),
          reversed=tuple(QA(question=q['question'], answer=q['answer']) for q in r['reversed']),
        )
      )
  return tuple(out)


# ---- Candidate values ----


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
    if m.start() in starts and name.lower() in _COMMON | {'my', 'the', 'our', 'his', 'her'}:
      continue
    if m.start() in starts and ' ' in name:  # 'Big Ben' may be one, 'My Leela' is not
      first, _, tail = name.partition(' ')
      name = tail if first.lower() in _COMMON else name
    if name != user and name.lower() not in _COMMON:
      out.setdefault(name, _NAMES)
  for m in _WORD.finditer(rest):
    if m[0] not in _COMMON and not m[0].endswith('ly') and "'" not in m[0] and '’' not in m[0]:
      if m.start() == 0 or not rest[m.start() - 1].isalnum():
        out.setdefault(m[0], _NOUNS)
        before = rest[: m.start()].split()
        if before and before[-1].isalpha() and before[-1].islower() and before[-1] not in _COMMON:
          out.setdefault(f'{before[-1]} {m[0]}', _NOUNS)
  return list(out.items())


# ---- Matching ----

# Sentences that follow from what somebody says, so that the base is asked about entailment.
_PREMISE = """Omar says: "My bike is a green Raleigh. I bought it in Leeds."
That means: Omar bought the bike in Leeds.

Omar says: "On Friday my cousin Ines starts at the bakery."
That means: Ines has a new job.

Omar says: "My back has been hurting since I fell off the ladder."
That means: The pain is in Omar's back.

"""
_UNRELATED = 'Hello, how are you today?'


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchConfig:
  """Mirrors the `match_*` fields of `config.dream`."""

  proposals: int = 8  # relations that the vectors propose for each span
  type_proposals: int = 2  # and of each type of value that fits it
  statements: int = 2  # of each that the base judges
  min_gain: float = 0.7  # nats a token that the message adds to the statement
  min_score: float = -2.1  # score + gain / 2, nats a token
  margin: float = 0.4  # below the best relation of the same value
  rivals: int = 3  # relations of one kind that go on to the examination for the same value
  shared_word: float = 0.6  # bonus of relations that name a word of the message ("my sister")
  vague: float = 1.0  # penalty of relations whose value may be anything: their wording is generic
  max_nouns: int = 5  # candidate values of a message that are no names or dates, rarest first
  type_margin: float = 2.0  # nats by which a name may be less likely a place than a person


class Matcher:
  """Finds the facts of messages.

  Args:
    decoder: of the base.
    mind: the base; bf16 weights will do, only comparisons matter here.
    embedder: texts to unit vectors [N, D].
  """

  def __init__(
    self,
    decoder: Decoder,
    mind: Mind,
    embedder: Callable[[list[str]], np.ndarray],
    config: MatchConfig,
  ):
    self.decoder, self.mind, self.embedder, self.config = decoder, mind, embedder, config
    self.relations = bank()

  @functools.cached_property
  def _vectors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per relation, padded: vectors of example messages, of questions, of example values."""

    def grid(lists: list[list[str]]) -> np.ndarray:
      flat = self.embedder([t for texts in lists for t in texts])
      width = max(len(texts) for texts in lists)
      out = np.zeros((len(lists), width, flat.shape[1]), np.float32)
      at = 0
      for i, texts in enumerate(lists):
        out[i, : len(texts)] = flat[at : at + len(texts)]
        at += len(texts)
      return out

    rs = self.relations
    messages = grid([[m for m, _ in r.examples] for r in rs])
    plain = {'user': 'I', 'person': 'they', 'value': 'it'}
    questions = grid([[q.format_map(plain) for q in r.questions] for r in rs])
    values = grid([[v.split('|')[-1].strip() for _, v in r.examples] for r in rs])
    return messages, questions, values

  def similar(self, names: set[str], cosine: float) -> set[str]:
    """The relations named and those whose questions mean much the same."""
    _, questions, _ = self._vectors
    centre = questions.sum(axis=1)
    centre /= np.linalg.norm(centre, axis=1, keepdims=True)
    own = np.asarray([r.name in names for r in self.relations])
    if not own.any():
      return set(names)
    near = (centre @ centre[own].T).max(axis=1) >= cosine
    return {r.name for r, n in zip(self.relations, near, strict=True) if n} | names

  def facts(self, texts: Sequence[str], sources: Sequence[int], user: str, progress=None):
    """The facts of messages, best first in each; a message may tell none."""
    out: list[Fact] = []
    for text, source in zip(texts, sources, strict=True):
      out += self._of_message(text, source, user)
      if progress:
        progress()
    return out

  def _of_message(self, text: str, source: int, user: str) -> list[Fact]:
    candidates = self._propose(text, user)
    if not candidates:
      return []
    told = f'{user} says: "{text}"\nThat means'
    score = self._judge(told, candidates, user)
    # What the message adds is asked only where the statement follows at all.
    best: list[int] = []
    for value in dict.fromkeys(v for _, _, v in candidates):
      own = [i for i, c in enumerate(candidates) if c[2] == value]
      best += sorted(own, key=lambda i: -score[i])[:5]
    candidates, score = [candidates[i] for i in best], score[best]
    gain = score - self._judge(f'{user} says: "{_UNRELATED}"\nThat means', candidates, user)
    facts = [
      Fact(relation=r, user=user, person=p, value=v, source=source, score=float(s), gain=float(g))
      for (r, p, v), s, g in zip(candidates, score, gain, strict=True)
    ]
    return _best(facts, text, self.config)

  def _judge(self, told: str, candidates, user: str) -> np.ndarray:
    """Mean log-likelihood of each candidate's statements after what was told, nats a token."""
    rows = [
      ' ' + fill(s, user=user, person=person, value=value)
      for r, person, value in candidates
      for s in r.statements[: self.config.statements]
    ]
    logps = self.decoder.logprobs(
      self.mind, [':'] * len(rows), rows, prefix=_PREMISE + told, shortlist=self._shortlist(rows)
    )
    return np.asarray([x.mean() for x in logps]).reshape(-1, self.config.statements).mean(axis=1)

  def _shortlist(self, rows: Sequence[str]) -> np.ndarray:
    """The rows' tokens and frequent ones: a fixed size, so that nothing compiles again."""
    used = {t for row in rows for t in self.decoder.tokenizer.encode(row)}
    size = 6144
    fill_up = (i for i in range(size + len(used)) if i not in used)
    chosen = sorted(used)[:size]
    while len(chosen) < min(size, self.decoder.arch.vocab_size):
      chosen.append(next(fill_up))
    return np.asarray(sorted(chosen), np.int32)

  def _propose(self, text: str, user: str) -> list[tuple[Relation, str, str]]:
    """(relation, person, value) triples worth asking the base about."""
    found = spans(text, user)
    nouns = sorted((s for s, k in found if k is _NOUNS), key=lambda s: -self._rarity(s))
    rare = set(nouns[: self.config.max_nouns])
    types = self._name_types(text, user, [s for s, k in found if k is _NAMES])
    found = [(s, types.get(s, k)) for s, k in found if k is not _NOUNS or s in rare]
    people = [s for s, k in types.items() if k & {'person', 'animal_name'}]
    if not found:
      return []
    messages, questions, values = self._vectors
    sentences = self.embedder(re.split(r'(?<=[.!?])\s+', text))
    of_text = (messages @ sentences.T).max(axis=(1, 2))
    of_text += 0.5 * (questions @ sentences.T).max(axis=(1, 2))
    out = []
    for (span, kinds), v in zip(found, self.embedder([s for s, _ in found]), strict=True):
      near = of_text + 0.5 * (values @ v).max(axis=1) + 0.5 * (questions @ v).max(axis=1)
      fitting = [i for i in np.argsort(-near) if self.relations[i].type in kinds]
      chosen = fitting[: self.config.proposals]
      for kind in kinds:
        of_kind = [i for i in fitting if self.relations[i].type == kind]
        chosen += of_kind[: self.config.type_proposals]
      for i in dict.fromkeys(chosen):
        r = self.relations[i]
        if r.about == 'user':
          out.append((r, '', span))
        else:
          out.extend((r, p, span) for p in people if p != span and span not in p)
    return out

  def _name_types(self, text: str, user: str, names: list[str]) -> dict[str, frozenset[str]]:
    """What each name is the name of, as the base understands the message."""
    if not names:
      return {}
    options = list(_NAME_TYPES)
    prompts = [f'. In this message {name} is the name of' for name in names for _ in options]
    logps = self.decoder.logprobs(
      self.mind, prompts, [f' {o}' for _ in names for o in options],
      prefix=f'{user} says: "{text}"\nThat is all {user} said', shortlist=None,
    )  # fmt: skip
    table = np.asarray([x.sum() for x in logps]).reshape(len(names), -1)
    out = {}
    for name, row in zip(names, table, strict=True):
      floor = row.max() - self.config.type_margin
      likely = [o for o, x in zip(options, row, strict=True) if x > floor]
      out[name] = frozenset().union(*(_NAME_TYPES[o] for o in likely)) | {'any'}
    return out

  def _rarity(self, span: str) -> float:
    """Later pieces of a BPE vocabulary are rarer; words of several pieces are rarer still."""
    ids = self.decoder.tokenizer.encode(' ' + span.split()[-1])
    return max(ids) + 50_000 * (len(ids) - 1) - 40_000 * (' ' in span)


_NAME_TYPES = {
  'a person': frozenset({'person'}),
  'a place': frozenset({'place'}),
  'a pet': frozenset({'animal_name'}),
  'a company': frozenset({'organisation'}),
  'a book': frozenset({'title'}),
  'a brand': frozenset({'thing'}),
  'a language': frozenset({'language', 'subject'}),
}


def _best(facts: list[Fact], text: str, config: MatchConfig) -> list[Fact]:
  """For each value what the base finds likeliest, and what comes close to it."""
  words = set(_WORD.findall(text.lower())) - _COMMON

  def rank(f: Fact) -> float:
    r = f.relation
    own = set(_WORD.findall(' '.join((r.name.replace('_', ' '), *r.statements)).lower()))
    vague = r.type == 'any' or (r.name.startswith('pet_') and bool(f.person))
    shared = bool(own & (words - {f.value.lower()}))
    return f.score + 0.5 * f.gain + config.shared_word * shared - config.vague * vague

  out: list[Fact] = []
  for value in dict.fromkeys(f.value for f in facts):
    own = [f for f in facts if f.value == value and f.gain >= config.min_gain]
    own = sorted((dataclasses.replace(f, rank=rank(f)) for f in own), key=lambda f: -f.rank)
    if not own or own[0].rank < config.min_score:
      continue
    seen: dict[tuple[str, str], int] = {}
    for f in own:
      kind = f.relation.type, f.person
      if f.rank >= own[0].rank - config.margin and seen.get(kind, 0) < config.rivals:
        seen[kind] = seen.get(kind, 0) + 1
        out.append(f)
  return sorted(out, key=lambda f: -f.rank)
