"""A user's own words, retold: what was told is repeated, and nothing is read into it.

A small model reads the right message and still names the wrong word of it. Its reading does well to
point at a sentence; the sentence itself, told of the user, is then the reply.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np

from dreaming.brain import prompts, sentences
from dreaming.brain.decode import Decoder
from dreaming.types import Experience, Mind

_MAX_FORMS = 32  # of one sentence; a word more with two doubles them
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")

# 'I ride' is 'Priya rides', 'I rode' stays: the model tells which. Of these no choice is left.
_OF_I = {'am': 'is', 'have': 'has', 'do': 'does', "haven't": "hasn't", "don't": "doesn't"} | {
  w: w for w in 'was had did will would can could shall should may might must'.split()
}
_ADVERBS = 'also always never still just really usually often only now once already almost'
_VERB = re.compile(
  rf"\b([Ii] (?:(?:{_ADVERBS.replace(' ', '|')}) )?)([a-z]+(?:'[a-z]+)?)(?![^\W_])"
)
# Whom else 'we' are is not known.
_TOGETHER = (
  (re.compile(r'\b[Oo]ur\b'), "{}'s"),
  (re.compile(r"\b(?:[Ww]e're|[Ww]e are)\b"), '{} and others are'),
  (re.compile(r"\b[Ww]e've\b"), '{} and others have'),
  (re.compile(r"\b[Ww]e'll\b"), '{} and others will'),
  (re.compile(r'\b[Ww]e\b'), '{} and others'),
  (re.compile(r'\bus\b'), 'them'),
)


def nearest(reply: str, notes: Sequence[Experience]) -> tuple[Experience, str] | None:
  """The note and its sentence with most of a reply's words; of equals the first.

  Args:
    reply: that was read out of the notes.
    notes: most important first.

  Returns:
    None where the notes only ask.
  """
  said = _words(reply)
  found = [(e, s) for e in notes for s in sentences.split(e.content) if not s.endswith('?')]
  return max(found, key=lambda x: len(said & _words(x[1])), default=None)


def of_user(decoder: Decoder, mind: Mind, told: Sequence[tuple[str, str]]) -> list[str]:
  """Sentences in the first person, each told of its user: 'I ride a moped' is 'Bo rides a moped.'

  Args:
    decoder: of the mind's architecture.
    mind: a pretrained one; it judges whether a verb is one of the present, and bends.
    told: single sentences, and who said each.
  """
  forms = [_forms(sentence, user) for sentence, user in told]
  rows = [(i, f) for i, own in enumerate(forms) if len(own) > 1 for f in own]
  likely = np.array(
    [np.sum(x) for x in decoder.logprobs(mind, [''] * len(rows), [f for _, f in rows])]
    if rows
    else []
  )
  best: dict[int, str] = {}
  for j in np.argsort(-likely, kind='stable'):
    best.setdefault(*rows[j])
  return [best.get(i, own[0]) for i, own in enumerate(forms)]


def _words(text: str) -> set[str]:
  return set(_WORD.findall(text.casefold().replace('’', "'")))


def _forms(sentence: str, user: str) -> list[str]:
  """All readings of its verbs, in the third person; the first one leaves them as they are."""
  parts = _VERB.split(sentence.replace('’', "'"))  # text, 'I ', verb, text, ...
  bent = [
    _bent(word) if i % 3 == 2 and not prompts.is_numeral(''.join(parts[: i - 1])) else (word,)
    for i, word in enumerate(parts)
  ]
  forms = itertools.islice(itertools.product(*bent), _MAX_FORMS)
  return list(dict.fromkeys(_of(''.join(words), user) for words in forms))


def _bent(verb: str) -> tuple[str, ...]:
  if verb in _OF_I or "'" in verb:
    return (_OF_I.get(verb, verb),)
  if re.search(r'(?:s|x|z|ch|sh|o)$', verb):
    return verb, verb + 'es'
  if re.search(r'[^aeiou]y$', verb):
    return verb, verb[:-1] + 'ies'
  return verb, verb + 's'


def _of(sentence: str, user: str) -> str:
  for pattern, said in _TOGETHER:
    sentence = pattern.sub(said.format(user), sentence)
  told = prompts.third_person(sentence, user)
  return told[:1].upper() + told[1:]
