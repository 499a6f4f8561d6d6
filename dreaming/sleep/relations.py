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

import collections
import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dreaming.brain.decode import Decoder
from dreaming.sleep import belief, values
from dreaming.sleep.bank import Relation, bank, fill
from dreaming.sleep.belief import Fact
from dreaming.types import Mind

# ---- Matching ----

# Sentences that follow from what somebody says, so that the base is asked about entailment.
PREMISE = """Omar says: "My bike is a green Raleigh. I bought it in Leeds."
That means: Omar bought the bike in Leeds.

Omar says: "On Friday my cousin Ines starts at the bakery."
That means: Ines has a new job.

Omar says: "My back has been hurting since I fell off the ladder."
That means: The pain is in Omar's back.

"""
UNRELATED = 'Hello, how are you today?'

# Cosine of a value to an example of a relation, beyond which nearer says no more: 'parrot' happens
# to be an example of one relation about animals.
_MOST_ALIKE = 0.5

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

  more_relations: bool = True  # of relations/more, too
  together: int = 16  # messages that are read together
  proposals: int = 8  # relations that the vectors propose for each span
  type_proposals: int = 6  # and of each type of value that fits it
  max_nouns: int = 8  # candidate values of a message that are no names or dates, rarest first
  finalists: int = 5  # relations of each value that are judged both ways
  readings: int = 3  # relations of each value that go on to the examination
  min_gain: float = 0.3  # nats a token that the message adds to the statement
  bonus: float = 0.2  # nats, for each nat of words that it has in common with the message
  min_rank: float = -3.5  # log-odds below which a reading is not examined


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
  """What somebody said."""

  text: str
  source: int  # experience id
  user: str  # who said it


@dataclasses.dataclass(frozen=True)
class _Entry:
  """A relation and a value that a message may tell."""

  message: int  # its number among those that are read together
  relation: Relation
  person: str
  value: str
  kind: float
  near: float
  shared: float
  apposed: bool

  def statement(self, messages: Sequence[Message], which: int) -> str:
    user = messages[self.message].user
    return fill(self.relation.statements[which], user=user, person=self.person, value=self.value)


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
    self.relations = bank(config.more_relations)

  @functools.cached_property
  def _rare(self) -> list[dict[str, float]]:
    """Per relation: the words it is told and asked in, each with how few have it, nats."""
    of = []
    for r in self.relations:
      told = ' '.join(m.replace(v.split('|')[-1].strip(), ' ') for m, v in r.examples)
      asked = re.sub(r'\{\w+\}', ' ', ' '.join((*r.statements, *r.questions)))
      of.append(_words(f'{told} {asked} {r.name.replace("_", " ")} {" ".join(r.cues)}'))
    count = collections.Counter(w for words in of for w in words)
    return [{w: float(np.log(len(of) / count[w])) for w in words} for words in of]

  def _shared(self, relation: int, value: str, text: str) -> float:
    """How much a relation's words have in common with the sentence of the value, nats."""
    said = next((s for s in re.split(r'(?<=[.!?])\s+', text) if value.lower() in s.lower()), text)
    words = _words(said.lower().replace(value.lower(), ' '))
    return sum(x for w, x in self._rare[relation].items() if w in words)

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

  def similarity(self, names: set[str]) -> np.ndarray:
    """Of each relation, the cosine of its questions to those of the nearest that is named."""
    _, questions, _ = self._vectors
    centre = questions.sum(axis=1)
    centre /= np.linalg.norm(centre, axis=1, keepdims=True)
    own = np.asarray([r.name in names for r in self.relations])
    return (centre @ centre[own].T).max(axis=1, initial=-1.0)

  def facts(self, messages: Sequence[Message], progress=None) -> list[list[Fact]]:
    """The facts of each message, best first; a message may tell none.

    From many to few: one statement of each candidate, then what the message adds to the likely
    ones, then both statements of the finalists and the message after them. Messages take each of
    these steps together, some at a time.
    """
    out: list[list[Fact]] = []
    for i in range(0, len(messages), self.config.together):
      some = messages[i : i + self.config.together]
      out += self._of_messages(some)
      if progress:
        progress(len(out), len(messages))
    return out

  def _of_messages(self, messages: Sequence[Message]) -> list[list[Fact]]:
    entries = [e for own in self._propose(messages) for e in own]
    told = [f'{m.user} says: "{m.text}"\nThat means:' for m in messages]
    untold = [f'{m.user} says: "{UNRELATED}"\nThat means:' for m in messages]
    config = self.config
    bonus = config.bonus * np.asarray([min(e.shared, 5) + 8 * e.apposed for e in entries])

    def keep(kept):
      return [entries[i] for i in kept], bonus[kept]

    first = self._judge(told, entries, messages, 0)
    kept = _likeliest(entries, first + bonus, config.finalists + 2)
    (entries, bonus), first = keep(kept), first[kept]
    gain = first - self._judge(untold, entries, messages, 0)
    kept = _likeliest(entries, first + 0.5 * gain + bonus, config.finalists)
    kept = [i for i in kept if gain[i] >= config.min_gain or entries[i].apposed]
    (entries, bonus), first, gain = keep(kept), first[kept], gain[kept]
    score = (first + self._judge(told, entries, messages, 1)) / 2
    channel = self._channel(entries, messages)
    facts: list[list[Fact]] = [[] for _ in messages]
    for e, s, g, c in zip(entries, score, gain, channel, strict=True):
      m = messages[e.message]
      fact = Fact(
        relation=e.relation, user=m.user, person=e.person, value=e.value, source=m.source,
        score=float(s), gain=float(g), channel=float(c), kind=e.kind, near=e.near, shared=e.shared,
        apposed=e.apposed,
      )  # fmt: skip
      facts[e.message].append(fact)
    return [_best(own, config) for own in facts]

  def _judge(self, told: Sequence[str], entries, messages, which: int) -> np.ndarray:
    """Mean log-likelihood of one statement of each after what was told, nats a token."""
    rows = [' ' + e.statement(messages, which) for e in entries]
    after = [told[e.message] for e in entries]
    logps = self.decoder.logprobs(
      self.mind, after, rows, prefix=PREMISE, shortlist=self._shortlist(rows)
    )
    return np.asarray([x.mean() for x in logps])

  def _channel(self, entries, messages) -> np.ndarray:
    """Log-likelihood of the message after each fact, over that after its value alone, nats."""
    named = list(dict.fromkeys((e.message, e.person, e.value) for e in entries))
    about = [(e.message, e.statement(messages, which)) for which in (0, 1) for e in entries]
    about += [
      (n, f'{messages[n].user} talks about {" and ".join(filter(None, pair))}.')
      for n, *pair in named
    ]
    logps = self.decoder.logprobs(
      self.mind,
      [f'Fact: {fact}\n{messages[n].user} says: "' for n, fact in about],
      [messages[n].text for n, _ in about],
      prefix=_FACTS,
      shortlist=self._shortlist([m.text for m in messages]),
    )
    total = np.asarray([x.sum() for x in logps])
    n = len(entries)
    alone = dict(zip(named, total[2 * n :], strict=True))
    return (total[:n] + total[n : 2 * n]) / 2 - np.asarray(
      [alone[e.message, e.person, e.value] for e in entries]
    )

  def _shortlist(self, rows: Sequence[str]) -> np.ndarray:
    """The rows' tokens and frequent ones: a fixed size, so that nothing compiles again."""
    used = {t for row in rows for t in self.decoder.tokenizer.encode(row)}
    size = 6144
    fill_up = (i for i in range(size + len(used)) if i not in used)
    chosen = sorted(used)[:size]
    while len(chosen) < min(size, self.decoder.arch.vocab_size):
      chosen.append(next(fill_up))
    return np.asarray(sorted(chosen), np.int32)

  def _propose(self, messages: Sequence[Message]) -> list[list[_Entry]]:
    """What each message may tell, worth asking the base about."""
    found = [values.spans(m.text, m.user, self.is_name) for m in messages]
    words = [[s for s, k in spans if k is values.NOUNS] for spans in found]
    names = [[s for s, k in spans if k is values.NAMES] for spans in found]
    nouns = values.noun_types(
      self.decoder, self.mind, [(m.text, own) for m, own in zip(messages, words, strict=True)]
    )
    types = values.name_types(
      self.decoder, self.mind, [(m.text, m.user, x) for m, x in zip(messages, names, strict=True)]
    )
    out = []
    for n, (spans, of_nouns, of_names) in enumerate(zip(found, nouns, types, strict=True)):
      rarest = sorted(of_nouns, key=lambda w: -self.rarity(w))[: self.config.max_nouns]
      typed = [(s, of_names.get(s) or dict.fromkeys(k, 0.0)) for s, k in spans if s not in words[n]]
      typed += [(s, of_nouns[s]) for s in rarest]
      out.append(self._of_spans(n, messages[n], typed))
    return out

  def _of_spans(self, n: int, message: Message, typed) -> list[_Entry]:
    if not typed:
      return []
    said = {  # whose names the message itself says they are
      (r.name, s): r
      for r in self.relations if r.cues
      for s, k in typed if s[:1].isupper() and values.apposed(message.text, r.cues, s)
    }  # fmt: skip
    typed = [(s, self._said_types(s, said) or k) for s, k in typed]
    people = [s for s, k in typed if k.keys() & {'person', 'animal_name'} and s[:1].isupper()]
    tellings, questions, examples = self._vectors
    sentences = self.embedder(re.split(r'(?<=[.!?])\s+', message.text))
    of_text = (tellings @ sentences.T).max(axis=(1, 2))
    of_text += 0.5 * (questions @ sentences.T).max(axis=(1, 2))
    out = []
    for (span, kinds), v in zip(typed, self.embedder([s for s, _ in typed]), strict=True):
      near = of_text + 0.5 * (questions @ v).max(axis=1)
      near += 0.5 * np.minimum((examples @ v).max(axis=1), _MOST_ALIKE)
      fitting = [i for i in np.argsort(-near) if self.relations[i].types & kinds.keys()]
      chosen = [i for i in fitting if (self.relations[i].name, span) in said]
      named = bool(chosen)
      chosen += fitting[: self.config.proposals]
      for kind in sorted(kinds):
        of_kind = [i for i in fitting if kind in self.relations[i].types]
        chosen += of_kind[: self.config.type_proposals]
      for i in dict.fromkeys(chosen):
        r = self.relations[i]
        if r.cues and named and (r.name, span) not in said:
          continue  # "my sister Ana" is no friend's name
        shared, apposed = self._shared(i, span, message.text), (r.name, span) in said
        kind = max(kinds[t] for t in r.types & kinds.keys())
        owners = [''] if r.about == 'user' else people
        out += [
          _Entry(n, r, p, span, kind, float(near[i]), shared, apposed)
          for p in owners
          if p != span and span not in p
        ]
    return out

  @staticmethod
  def _said_types(span: str, said: Mapping[tuple[str, str], Relation]) -> values.Types:
    return {t: 0.0 for (_, s), r in said.items() if s == span for t in r.types}

  def is_name(self, word: str) -> bool:
    """Whether a word with a capital is one wherever it stands: more usual than without."""
    return self.rarity(word) < self.rarity(word.lower())

  def rarity(self, span: str) -> float:
    """Later pieces of a BPE vocabulary are rarer; words of several pieces are rarer still."""
    ids = self.decoder.tokenizer.encode(' ' + span.split()[-1])
    return max(ids) + 50_000 * (len(ids) - 1) - 40_000 * (' ' in span)


def _likeliest(entries: Sequence[_Entry], score: np.ndarray, count: int) -> list[int]:
  """Indices of the `count` best relations of each value of each message."""
  of: dict[tuple[int, str], list[int]] = {}
  for i, e in enumerate(entries):
    of.setdefault((e.message, e.value), []).append(i)
  return [i for own in of.values() for i in sorted(own, key=lambda i: -score[i])[:count]]


def _stem(word: str) -> str:
  for end in ('ing', 'ied', 'ies', 'ed', 'es', 's', 'e', 'y'):
    if word.endswith(end) and len(word) - len(end) >= 3:
      return word[: -len(end)]
  return word


def _words(text: str) -> set[str]:
  return {_stem(w) for w in re.findall(r'[a-zà-ÿ]{3,}', text.lower())}


def _best(facts: Sequence[Fact], config: MatchConfig) -> list[Fact]:
  """The likeliest readings of each value."""
  ranked = sorted(((belief.rank(f), f) for f in facts), key=lambda x: -x[0])
  out: list[Fact] = []
  for rank, fact in ranked:
    readings = sum(f.value == fact.value for f in out)
    if rank >= config.min_rank and readings < config.readings:
      out.append(fact)
  return out
