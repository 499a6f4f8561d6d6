"""Grounding: whether a dream says what its source says, and nothing else.

Two rules first: it names nobody and no number that its sources do not have, and denies nothing that
they do not deny. What is left is weighed: how likely it is after its sources, and how much likelier
than after something else; how many of its words are in no source; how many stand behind another
person than there. Who was at school (reader.py) says how likely; where nobody was, the base, and
then by how much it beats itself with a name or number put in another's place, too. The weights are
fitted on the development half of benchmarks/grounding.json (benchmarks/grounding.py --fit).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dreaming.brain import prompts
from dreaming.brain.decode import Decoder
from dreaming.sleep import values
from dreaming.sleep.relations import PREMISE, UNRELATED
from dreaming.types import QA, Dream, Experience, Mind, Quality, Status

if TYPE_CHECKING:  # it trains, and what trains knows this file
  from dreaming.sleep.reader import Reader

# Reading comprehension in the words of people, for checking a question against its source.
READING = """Omar says: "My bike is a green Raleigh. I bought it in Leeds."
Q: Where did Omar buy his bike?
A: Leeds

Omar says: "On Friday my cousin Ines starts at the bakery."
Q: Who will bake bread?
A: Ines

Omar says: "I have got a toothache since Tuesday."
Q: When did Omar's pain begin?
A: Tuesday

"""
_SHORTLIST = 8192  # tokens that likelihoods are among
_MAX_SWAPS = 6  # of a dream
_DENIALS = re.compile(r"\b(?:not|never|no|nobody|nothing|none|without|no longer)\b|n't\b", re.I)
_FUNCTION = frozenset(
  """a an the and or but if that this these those than as at by for from in into of off on onto out
  over to up with until till since while when where who whom whose which what why how it its he she
  they them their his her him i me my mine we us our you your am is are was were be been being do
  does did done has have had having will would can could may might shall should must there here now
  then also too so very still no not never none yes all any some one ones called name named s t re
  ll ve about after before during because himself herself themselves""".split()
)
_ROLES = values.ROLES | {'godson', 'grandson', 'granddaughter', 'doctor'}
_IRREGULAR = {
  'stole': 'steal', 'stolen': 'steal', 'broke': 'break', 'broken': 'break', 'taught': 'teach',
  'ran': 'run', 'sold': 'sell', 'bought': 'buy', 'went': 'go', 'gone': 'go', 'gave': 'give',
  'given': 'give', 'got': 'get', 'fell': 'fall', 'fallen': 'fall', 'won': 'win', 'wrote': 'write',
  'written': 'write', 'slept': 'sleep', 'left': 'leave', 'lost': 'lose', 'lent': 'lend',
  'began': 'begin', 'begun': 'begin', 'kept': 'keep', 'met': 'meet', 'made': 'make',
  'took': 'take', 'taken': 'take', 'told': 'tell', 'found': 'find', 'came': 'come', 'paid': 'pay',
  'children': 'child', 'driving': 'drive', 'married': 'marry', 'spoke': 'speak', 'grew': 'grow',
}  # fmt: skip
_DIGITS = {
  word: str(i)
  for i, word in enumerate(
    'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen '
    'sixteen seventeen eighteen nineteen twenty'.split()
  )
} | {'thirty': '30', 'forty': '40', 'fifty': '50', 'sixty': '60', 'seventy': '70', 'eighty': '80'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
  """A dream that is to be judged, and what it is said to come from."""

  user: str  # whose words the sources are
  sources: tuple[str, ...]
  text: str = ''
  pair: QA | None = None

  @property
  def said(self) -> str:
    return self.text if self.pair is None else f'{self.pair.question} {self.pair.answer}'


# Log-odds for each unit of a feature: benchmarks/grounding.py --fit makes them.
WEIGHTS: Mapping[str, float] = {
  'bias': 0.88, 'score': 0.42, 'gain': 0.36, 'swap': 0.06, 'new': -1.01, 'astray': -0.87,
}  # fmt: skip
THRESHOLD = 0.48  # log-odds from which a dream is grounded: a probability of 0.62
# The same with a reader.
READER_WEIGHTS: Mapping[str, float] = {
  'bias': 0.6, 'score': 0.51, 'gain': 0.54, 'new': -0.7, 'astray': -0.67,
}  # fmt: skip
READER_THRESHOLD = 1.03  # a probability of 0.74


def odds(features: Mapping[str, float]) -> float:
  """Log-odds that a dream is grounded; minus infinity where a rule forbids it."""
  if features['missing'] or features['denial']:
    return -np.inf
  weights = WEIGHTS if 'swap' in features else READER_WEIGHTS
  return sum(weight * features[name] for name, weight in weights.items())


def probabilities(
  decoder: Decoder, base: Mind, claims: Sequence[Claim], reader: Reader | None = None
) -> list[float]:
  """Of each claim, how likely it is grounded, 0 to 1."""
  found = np.asarray([odds(f) for f in features(decoder, base, claims, reader)])
  return (0.5 + 0.5 * np.tanh(found / 2)).tolist()


# ---- Names and numbers ----


def named(text: str, user: str = '') -> list[str]:
  """Names, dates and numbers of a text, in its own words."""
  return [s for s, kinds in values.spans(text, user) if kinds is not values.NOUNS]


def missing(claim: Claim) -> list[str]:
  """Names and numbers of a dream that no source has: it invented them."""
  there = plain(' '.join((claim.user, *claim.sources)))
  return [
    n
    for n in named(claim.said, claim.user)
    if not all(w in there for w in plain(n) - {'the', 'of', 'on', 'at', 'in'})
  ]


def plain(text: str) -> set[str]:
  words = re.findall(r'[\w:]+', text.casefold().replace("'s", ' ').replace('’s', ' '))
  words = [re.sub(r'^(\d+)(?:st|nd|rd|th)$', r'\1', w) for w in words]
  return {_DIGITS.get(w, w) for w in words}


# ---- Likelihoods ----


def features(
  decoder: Decoder, base: Mind, claims: Sequence[Claim], reader: Reader | None = None
) -> list[dict[str, float]]:
  """What is known of each claim, by name.

  score    its mean log-likelihood after its sources, nats a token; by the reader an answer's alone
  gain     the same minus that after an unrelated message
  swap     by how much it beats its likeliest variant with a name or number exchanged, nats: by
           the base
  new      words that the sources do not have, of a question its answer's
  astray   the share of its words that stand behind another person than in the sources
  missing  names and numbers that the sources do not have
  denial   1 where it denies and they do not
  """
  likely = _by_reader(reader, claims) if reader else _by_base(decoder, base, claims)
  return [
    {
      'bias': 1.0,
      **found,
      'new': float(_unsaid(c.text if c.pair is None else c.pair.answer, c)),
      'astray': _astray(c),
      'missing': float(len(missing(c))),
      'denial': float(_denies(c)),
    }
    for c, found in zip(claims, likely, strict=True)
  ]


def _by_reader(reader: Reader, claims: Sequence[Claim]) -> list[dict[str, float]]:
  said = [c.text if c.pair is None else c.pair.answer for c in claims]
  asked = [None if c.pair is None else c.pair.question for c in claims]
  told, untold = (
    reader.believed([c.user for c in claims], texts, asked, said)
    for texts in ([' '.join(c.sources) for c in claims], [UNRELATED] * len(claims))
  )
  return [_likely(a, b) for a, b in zip(told, untold, strict=True)]


def _likely(told: float, untold: float) -> dict[str, float]:
  return {'score': _within(told, -6, 0), 'gain': _within(told - untold, -1, 3)}


def _by_base(decoder, base, claims: Sequence[Claim]) -> list[dict[str, float]]:
  variants = [_swapped(c) for c in claims]
  rows: list[tuple[int, str, str]] = []  # number of the claim, prompt, text
  for i, (c, own) in enumerate(zip(claims, variants, strict=True)):
    for told in ('\n'.join(c.sources), UNRELATED):
      rows.append((i, _prompt(c, told), _tail(c)))
    rows += [(i, _prompt(c, '\n'.join(c.sources)), _tail(v)) for v in own]
  logps = _logprobs(decoder, base, claims, rows)
  out, at = [], 0
  for own in variants:
    told, untold, *others = logps[at : at + 2 + len(own)]
    at += 2 + len(own)
    margin = min((told.sum() - o.sum() for o in others), default=_SURE)
    found = _likely(float(told.mean()), float(untold.mean()))
    out.append(found | {'swap': _within(float(margin), -_SURE, _SURE)})
  return out


_SURE = 3.0  # nats


def _prompt(c: Claim, told: str) -> str:
  return f'{c.user} says: "{told}"\n' + ('Q:' if c.pair else 'That means:')


def _tail(c: Claim) -> str:
  return f' {c.pair.question}\nA: {c.pair.answer}' if c.pair else f' {c.text}'


def _logprobs(decoder, base, claims, rows) -> list[np.ndarray]:
  """Statements and questions each after their own examples, which are read once."""
  used = sorted({t for _, _, tail in rows for t in decoder.tokenizer.encode(tail)})
  size = min(-(-(len(used) + _SHORTLIST) // 4096) * 4096, decoder.arch.vocab_size)
  there = set(used)
  more = (i for i in range(decoder.arch.vocab_size) if i not in there)
  shortlist = np.asarray(
    sorted([*used, *(i for i, _ in zip(more, range(size - len(used)), strict=False))]), np.int32
  )
  out: list[np.ndarray] = [np.zeros(0)] * len(rows)
  for examples, asks in ((PREMISE, False), (READING, True)):
    which = [n for n, (i, _, _) in enumerate(rows) if (claims[i].pair is not None) == asks]
    if which:
      logps = decoder.logprobs(
        base, [rows[n][1] for n in which], [rows[n][2] for n in which], prefix=examples,
        shortlist=shortlist,
      )  # fmt: skip
      for n, logp in zip(which, logps, strict=True):
        out[n] = np.asarray(logp, np.float64)
  return out


def _swapped(c: Claim) -> list[Claim]:
  """The dream with a name or number of its sources in the place of another: who is who?"""
  told = ' '.join(c.sources)
  known = dict.fromkeys([c.user, *named(told, c.user)])
  people = [f"{c.user}'s {r}" for r in values.roles(told, list(known))]
  out = []
  for old in dict.fromkeys([*named(c.said, c.user), *([c.user] if c.user in c.said else [])]):
    for new in [*known, *people]:
      if _shape(new) != _shape(old) or plain(new) & plain(old):
        continue
      out.append(_replaced(c, old, new))
  return [v for v in out if v.said != c.said][:_MAX_SWAPS]


def _replaced(c: Claim, old: str, new: str) -> Claim:
  def put(text: str) -> str:
    return re.sub(rf'(?<!\w){re.escape(old)}(?!\w)', lambda _: new, text)

  pair = None if c.pair is None else QA(question=put(c.pair.question), answer=put(c.pair.answer))
  return dataclasses.replace(c, text=put(c.text), pair=pair)


def _shape(value: str) -> tuple[bool, bool]:
  dated = re.search(rf'{values.MONTHS}|{values.WEEKDAYS}', value) is not None
  return any(ch.isdigit() for ch in value) or value.casefold() in _DIGITS, dated


def _denies(c: Claim) -> bool:
  return bool(_DENIALS.search(c.said)) and not _DENIALS.search(' '.join(c.sources))


def _unsaid(text: str, c: Claim) -> int:
  """How many words with a meaning of their own no source has, 3 at most."""
  there = {_stem(w) for w in plain(' '.join((c.user, *c.sources)))}
  own = {_stem(w) for w in plain(text) if w not in _FUNCTION}
  return min(len(own - there), 3)


def _astray(c: Claim) -> float:
  """The share of its words that stand behind another person than in the sources.

  "My sister Ana" are two persons to it: what "Kim's sister" does is astray where Ana did it.
  """
  told = _owners(prompts.third_person(' '.join(c.sources), c.user), c)
  said = c.text if c.pair is None else _answered(c.pair)
  own = {w: who for w, who in _owners(said, c).items() if w in told}
  return sum(not (told[w] & who) for w, who in own.items()) / len(own) if own else 0.0


def _answered(pair: QA) -> str:
  """As a statement: the answer in the place of "who", or else behind the question."""
  if re.match(r'who\b', pair.question, re.I):
    return pair.answer + pair.question[3:]
  return f'{pair.question} {pair.answer}'


def _owners(text: str, c: Claim) -> dict[str, set[str]]:
  """Each word with a meaning of its own -> the persons that stand before it, the nearest one."""
  out: dict[str, set[str]] = {}
  known = ' '.join(c.sources)
  person = ''
  for word in re.findall(r"[\w'’:-]+", text):
    bare = re.sub(r"['’]s$", '', word)
    low = bare.casefold()
    if bare == c.user or low in ('we', 'us', 'our'):
      person = c.user
    elif low in _ROLES or (bare[:1].isupper() and _is_person(bare, known)):
      person = low
    elif low in ('they', 'somebody', 'someone'):
      person = 'they'
    elif low not in _FUNCTION:
      out.setdefault(_stem(low), set()).add(person)
  return out


def _is_person(word: str, known: str) -> bool:
  """A name that somebody is called by, and no place: nothing leads to it."""
  return word in known and not re.search(
    rf'\b(?:in|to|at|near|from|of|on|for|until|since) {re.escape(word)}\b', known
  )


def _stem(word: str) -> str:
  word = _IRREGULAR.get(word, word)
  for end in ('ing', 'ied', 'ies', 'ed', 'es', 's', 'e', 'y'):
    if word.endswith(end) and len(word) - len(end) >= 3:
      return word[: -len(end)]
  return word


def _within(x: float, low: float, high: float) -> float:
  return max(low, min(x, high))


# ---- In the night ----


def sifted(
  decoder: Decoder,
  base: Mind,
  dreams: Sequence[Dream],
  told: Mapping[int, Experience],
  least: float,
  reader: Reader | None = None,
) -> list[Dream]:
  """The dreams, in order; what of those that were kept is not grounded is rejected.

  Args:
    dreams: a night's; what nobody told is not looked at.
    told: experiences by id.
    least: probability that a claim is grounded, from which it is kept.
    reader: judges in the place of the base.
  """
  parts: list[tuple[int, QA | None]] = []
  for i, d in enumerate(dreams):
    if d.status == Status.KEPT and 'unknown' not in d.style:
      parts += [(i, p) for p in d.pairs] if d.pairs else [(i, None)]
  claims = [
    Claim(
      user=told[dreams[i].sources[0]].speaker,
      sources=tuple(told[s].content for s in dreams[i].sources),
      text='' if pair else dreams[i].text,
      pair=pair,
    )
    for i, pair in parts
  ]
  chances = probabilities(decoder, base, claims, reader) if claims else []
  lost: dict[int, list[tuple[QA | None, float]]] = {}
  for (i, pair), p in zip(parts, chances, strict=True):
    if p < least:
      lost.setdefault(i, []).append((pair, p))
  out: list[Dream] = []
  for i, d in enumerate(dreams):
    gone = {pair for pair, _ in lost.get(i, ())}
    kept = tuple(p for p in d.pairs if p not in gone)
    if i not in lost or kept:
      out.append(dataclasses.replace(d, pairs=kept) if i in lost else d)
    if i in lost:
      p = min(p for _, p in lost[i])
      quality = Quality(gain=d.quality.gain, grounded=p, reason=f'grounded with {p:.2f} alone')
      pairs = tuple(p for p in d.pairs if p in gone)
      out.append(dataclasses.replace(d, pairs=pairs, quality=quality, status=Status.REJECTED))
  return out
