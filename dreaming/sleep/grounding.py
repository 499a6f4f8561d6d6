"""Grounding: whether a dream says what its source says, and nothing else.

Any text or question with its answer is judged by the base's own likelihoods, with the source and
without it: what follows from the source it makes likelier, word by word; a name, number or date of
it in another's place would be less likely; a word that it adds is not. Names and numbers must be in
the source, and a denial may not come from nowhere. A logistic regression weighs these, fitted on
the development half of benchmarks/grounding.json (benchmarks/grounding.py --fit).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from dreaming.brain.decode import Decoder
from dreaming.brain.tokenizer import Tokenizer
from dreaming.sleep import values
from dreaming.sleep.packing import Encoded, Example
from dreaming.sleep.relations import PREMISE, UNRELATED
from dreaming.types import QA, Dream, Experience, Mind, Quality, Status

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
  'bias': -0.5, 'pair': 0.0, 'score': 0.3, 'gain': 1.0, 'worst': 0.5, 'low': 0.1, 'swap': 0.5,
  'missing': -3.0, 'denial': -2.0, 'new': -1.5, 'answer': 0.3,
}  # fmt: skip


THRESHOLD = 0.0  # log-odds from which a dream is grounded


def odds(features: Mapping[str, float]) -> float:
  """Log-odds that a dream is grounded."""
  return sum(WEIGHTS[name] * x for name, x in features.items())


def probabilities(decoder: Decoder, base: Mind, claims: Sequence[Claim]) -> list[float]:
  """Of each claim, how likely it is grounded, 0 to 1."""
  return [1 / (1 + np.exp(-odds(f))) for f in features(decoder, base, claims)]


# ---- Names and numbers ----


def named(text: str, user: str = '') -> list[str]:
  """Names, dates and numbers of a text, in its own words."""
  return [s for s, kinds in values.spans(text, user) if kinds is not values.NOUNS]


def missing(claim: Claim) -> list[str]:
  """Names and numbers of a dream that no source has: it invented them."""
  there = _plain(' '.join((claim.user, *claim.sources)))
  return [
    n
    for n in named(claim.said, claim.user)
    if not all(w in there for w in _plain(n) - {'the', 'of', 'on', 'at', 'in'})
  ]


def _plain(text: str) -> set[str]:
  words = re.findall(r'[\w:]+', text.casefold().replace("'s", ' ').replace('’s', ' '))
  words = [re.sub(r'^(\d+)(?:st|nd|rd|th)$', r'\1', w) for w in words]
  return {_DIGITS.get(w, w) for w in words}


# ---- Likelihoods ----


def features(decoder: Decoder, base: Mind, claims: Sequence[Claim]) -> list[dict[str, float]]:
  """What is known of each claim, by name, as WEIGHTS has them.

  pair     1 where it is a question
  score    its mean log-likelihood after its sources, nats a token
  gain     the same minus that after an unrelated message
  worst    the gain of the word that gains least, names and longer words only
  low      the likelihood of the least likely of these words
  swap     by how much it beats its likeliest variant with a name or number exchanged, nats
  missing  names and numbers that the sources do not have
  denial   1 where one of both denies and the other does not
  new      the share of its words that the sources do not have
  answer   of a question, what the sources add to the answer, nats a token
  """
  variants = [_swapped(c) for c in claims]
  rows: list[tuple[int, str, str]] = []  # number of the claim, prompt, text
  for i, (c, own) in enumerate(zip(claims, variants, strict=True)):
    for told in ('\n'.join(c.sources), UNRELATED):
      rows.append((i, _prompt(c, told), _tail(c)))
    rows += [(i, _prompt(c, '\n'.join(c.sources)), _tail(v)) for v in own]
  logps = _logprobs(decoder, base, claims, rows)
  out, at = [], 0
  for c, own in zip(claims, variants, strict=True):
    told, untold, *others = logps[at : at + 2 + len(own)]
    at += 2 + len(own)
    words = _words(decoder.tokenizer, _tail(c))
    gains = told - untold
    content = [(gains[a:b].mean(), told[a:b].mean()) for w, a, b in words if _counts(w, c.user)]
    content = content or [(gains.mean(), told.mean())]
    margin = min((told.sum() - o.sum() for o in others), default=_SURE)
    answer = 0.0
    if c.pair is not None:
      first = len(decoder.tokenizer.encode(_tail(c).rsplit('\n', 1)[0])) + 1
      answer = _within(float(gains[first:].mean()), -3, 6) if first < len(gains) else 0.0
    out.append(
      {
        'bias': 1.0,
        'pair': float(c.pair is not None),
        'score': _within(float(told.mean()), -6, 0),
        'gain': _within(float(gains.mean()), -1, 3),
        'worst': _within(float(min(g for g, _ in content)), -3, 3),
        'low': _within(float(min(t for _, t in content)), -12, 0),
        'swap': _within(float(margin), -_SURE, _SURE),
        'missing': float(min(len(missing(c)), 2)),
        'denial': float(_denies(c)),
        'new': _new(c),
        'answer': answer,
      }
    )
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
  more = (i for i in range(decoder.arch.vocab_size) if i not in set(used))
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
      if _shape(new) != _shape(old) or _plain(new) & _plain(old):
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
  return bool(_DENIALS.search(c.said)) != bool(_DENIALS.search(' '.join(c.sources)))


def _new(c: Claim) -> float:
  """A QA's question word and the user's name are in no source, and say nothing."""
  there = {_stem(w) for w in _plain(' '.join((c.user, *c.sources)))}
  own = {_stem(w) for w in _plain(c.said) if len(w) > 3 and w not in values.COMMON}
  return len(own - there) / len(own) if own else 0.0


def _stem(word: str) -> str:
  for end in ('ing', 'ied', 'ies', 'ed', 'es', 's', 'e', 'y'):
    if word.endswith(end) and len(word) - len(end) >= 3:
      return word[: -len(end)]
  return word


def _counts(word: str, user: str) -> bool:
  plain = word.strip('.,;:!?"\'').removesuffix("'s")
  if not plain or plain == user or plain.casefold() in values.COMMON:
    return False
  return plain[0].isupper() or plain[0].isdigit() or len(plain) > 3


def _words(tokenizer: Tokenizer, text: str) -> list[tuple[str, int, int]]:
  """(word, first token, end) of a text's words as its tokens have them."""
  ids = tokenizer.encode(text)
  ends = [len(tokenizer.decode(ids[: i + 1])) for i in range(len(ids))]
  starts = [0, *ends[:-1]]
  out = []
  for m in re.finditer(r'\S+', text):
    inside = [i for i in range(len(ids)) if starts[i] < m.end() and ends[i] > m.start()]
    if inside:
      out.append((m[0], inside[0], inside[-1] + 1))
  return out


def _within(x: float, low: float, high: float) -> float:
  return max(low, min(x, high))


# ---- In the night ----


def sifted(
  decoder: Decoder,
  base: Mind,
  dreams: Sequence[Dream],
  told: Mapping[int, Experience],
  least: float,
) -> list[Dream]:
  """The dreams, in order; what of those that were kept is not grounded is rejected.

  Args:
    dreams: a night's; what nobody told is not looked at.
    told: experiences by id.
    least: probability that a claim is grounded, from which it is kept.
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
  chances = probabilities(decoder, base, claims) if claims else []
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


# ---- In training ----


def emphasised(
  tokenizer: Tokenizer, example: Example, encoded: Encoded, told: Mapping[int, Experience],
  more: float,
) -> Encoded:  # fmt: skip
  """With `more` weight, beside 1, on the tokens of names and numbers of the sources.

  Weighting tokens by what they carry is as in RHO-1 (Lin et al., arXiv 2404.07965), by entities
  as in entity-aware training; here the sources say which.
  """
  texts = [told[i].content for i in example.sources if i in told]
  words = {w for text in texts for name in named(text) for w in _plain(name)}
  words -= {'the', 'of', 'on', 'at', 'in'}
  n = int(encoded.loss.sum())
  weights = np.ones(n, np.float32)
  for word, first, end in _words(tokenizer, example.target):
    if _plain(word) & words:
      weights[first : min(end, n)] += np.float32(more)
  return dataclasses.replace(encoded, emphasis=weights) if (weights > 1).any() else encoded
