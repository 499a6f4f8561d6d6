"""Who-relation-what: which facts a message tells, as (relation, value) pairs.

A small base model cannot write good questions freely (docs/experiments.md has the figures), but it
knows which of two sentences follows better from a message. So the relations that people's lives
consist of are laid out in a bank (relations/*.json: statements and questions in many wordings, with
slots), and a message is matched against it: spans of the message are candidate values, static word
vectors propose relations for each span, and the base's likelihoods decide: that of the filled-in
statement after the message, and, for the best, that of the message after the statement. The second
(a noisy channel, Min et al. 2021, arXiv 2108.04106) compares the same words under every reading, so
that no statement wins by being easy to say.
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
from dreaming.sleep import values
from dreaming.types import QA, Mind


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
  channel: float = 0.0  # log-likelihood of the message after it, over that after its value, nats
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
  text = re.sub(rf'\bon (?=(?:{values.MONTHS})\b(?! \d))', 'in ', text)
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

# The other way round: what somebody says of a fact.
_FACTS = """Fact: Omar bought the bike in Leeds.
Omar says: "My bike is a green Raleigh. I bought it in Leeds."

Fact: Omar's cousin is called Ines.
Omar says: "On Friday my cousin Ines starts at the bakery."

Fact: The pain is in Omar's back.
Omar says: "My back has been hurting since I fell off the ladder."

"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchConfig:
  """Mirrors the `match_*` fields of `config.dream`."""

  proposals: int = 8  # relations that the vectors propose for each span
  type_proposals: int = 6  # and of each type of value that fits it
  finalists: int = 4  # relations of each value that are judged both ways
  channel: float = 0.2  # weight of what a statement adds to the message's words, nats
  min_channel: float = -1.5  # of the same
  min_gain: float = 0.7  # nats a token that the message adds to the statement
  min_score: float = -2.1  # score + gain / 2, nats a token
  margin: float = 0.4  # below the best relation of the same value
  rivals: int = 3  # relations of one kind that go on to the examination for the same value
  shared_word: float = 0.6  # bonus of relations that name a word of the message ("my sister")
  vague: float = 1.0  # penalty of relations whose value may be anything: their wording is generic
  max_nouns: int = 5  # candidate values of a message that are no names or dates, rarest first


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
    examples = grid([[v.split('|')[-1].strip() for _, v in r.examples] for r in rs])
    return messages, questions, examples

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
    # From many to few: one statement of each, then what the message adds to the likely ones, then
    # both statements of the finalists and the message after them.
    told, untold = (f'{user} says: "{words}"\nThat means' for words in (text, _UNRELATED))
    first = self._judge(told, candidates, user, 0)
    words = self.config.shared_word * np.asarray([_shared(*c[::2], text) for c in candidates])
    kept = _likeliest(candidates, first + words, self.config.finalists + 2)
    candidates, first, words = [candidates[i] for i in kept], first[kept], words[kept]
    gain = first - self._judge(untold, candidates, user, 0)
    kept = _likeliest(candidates, first + 0.5 * gain + words, self.config.finalists)
    kept = [i for i in kept if gain[i] >= self.config.min_gain]
    if not kept:
      return []
    candidates, first, gain = [candidates[i] for i in kept], first[kept], gain[kept]
    score = (first + self._judge(told, candidates, user, 1)) / 2
    channel = self._channel(candidates, text, user)
    facts = [
      Fact(
        relation=r, user=user, person=p, value=v, source=source, score=float(s), gain=float(g),
        channel=float(c),
      )
      for (r, p, v), s, g, c in zip(candidates, score, gain, channel, strict=True)
    ]  # fmt: skip
    return _best(facts, text, self.config)

  def _judge(self, told: str, candidates, user: str, which: int) -> np.ndarray:
    """Mean log-likelihood of one statement of each after what was told, nats a token."""
    rows = [' ' + _statement(c, user, which) for c in candidates]
    logps = self.decoder.logprobs(
      self.mind, [':'] * len(rows), rows, prefix=_PREMISE + told, shortlist=self._shortlist(rows)
    )
    return np.asarray([x.mean() for x in logps])

  def _channel(self, candidates, text: str, user: str) -> np.ndarray:
    """Log-likelihood of the message after each fact, over that after its value alone, nats."""
    facts = [_statement(c, user, which) for which in (0, 1) for c in candidates]
    named = list(dict.fromkeys(c[1:] for c in candidates))
    facts += [f'{user} talks about {" and ".join(filter(None, pair))}.' for pair in named]
    prompts = [f'Fact: {fact}\n{user} says: "' for fact in facts]
    shortlist = self._shortlist([text])
    logps = self.decoder.logprobs(
      self.mind, prompts, [text] * len(prompts), prefix=_FACTS, shortlist=shortlist
    )
    total = np.asarray([x.sum() for x in logps])
    n = len(candidates)
    alone = dict(zip(named, total[2 * n :], strict=True))
    return (total[:n] + total[n : 2 * n]) / 2 - np.asarray([alone[c[1:]] for c in candidates])

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
    found = values.spans(text, user)
    words = [s for s, k in found if k is values.NOUNS]
    nouns = values.noun_types(self.decoder, self.mind, words)
    nouns = dict(sorted(nouns.items(), key=lambda x: -self._rarity(x[0]))[: self.config.max_nouns])
    names = [s for s, k in found if k is values.NAMES]
    types = values.name_types(self.decoder, self.mind, text, user, names)
    found = [(s, nouns.get(s) or types.get(s, k)) for s, k in found if s in nouns or s not in words]
    people = [s for s, k in types.items() if k & {'person', 'animal_name'}]
    if not found:
      return []
    messages, questions, examples = self._vectors
    sentences = self.embedder(re.split(r'(?<=[.!?])\s+', text))
    of_text = (messages @ sentences.T).max(axis=(1, 2))
    of_text += 0.5 * (questions @ sentences.T).max(axis=(1, 2))
    out = []
    for (span, kinds), v in zip(found, self.embedder([s for s, _ in found]), strict=True):
      near = of_text + 0.5 * (examples @ v).max(axis=1) + 0.5 * (questions @ v).max(axis=1)
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

  def _rarity(self, span: str) -> float:
    """Later pieces of a BPE vocabulary are rarer; words of several pieces are rarer still."""
    ids = self.decoder.tokenizer.encode(' ' + span.split()[-1])
    return max(ids) + 50_000 * (len(ids) - 1) - 40_000 * (' ' in span)


def _statement(candidate: tuple[Relation, str, str], user: str, which: int) -> str:
  relation, person, value = candidate
  return fill(relation.statements[which], user=user, person=person, value=value)


def _likeliest(candidates, score: np.ndarray, count: int) -> list[int]:
  """Indices of the `count` best relations of each value."""
  out: list[int] = []
  for value in dict.fromkeys(v for _, _, v in candidates):
    own = [i for i, c in enumerate(candidates) if c[2] == value]
    out += sorted(own, key=lambda i: -score[i])[:count]
  return out


def _shared(relation: Relation, value: str, text: str) -> bool:
  """Whether a relation names a word of the message, other than the value ('my sister')."""
  words = set(values.WORD.findall(text.lower())) - values.COMMON - {value.lower()}
  named = ' '.join((relation.name.replace('_', ' '), *relation.statements)).lower()
  return not words.isdisjoint(values.WORD.findall(named))


def _best(facts: list[Fact], text: str, config: MatchConfig) -> list[Fact]:
  """For each value what the base finds likeliest, and what comes close to it."""

  def rank(f: Fact) -> float:
    r = f.relation
    vague = r.type == 'any' or (r.name.startswith('pet_') and bool(f.person))
    both = f.score + 0.5 * f.gain + config.channel * f.channel
    return both + config.shared_word * _shared(r, f.value, text) - config.vague * vague

  out: list[Fact] = []
  for value in dict.fromkeys(f.value for f in facts):
    own = [f for f in facts if f.value == value and f.channel >= config.min_channel]
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
