"""The bank: which facts people's lives consist of, and in how many words they are said and asked.

A small base model cannot write good questions freely (docs/experiments.md has the figures). So
relations are laid out in files (relations/*.json) as statements, questions and reversed questions
in many wordings, with slots.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import re

from dreaming.sleep.values import MONTHS
from dreaming.types import QA


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relation:
  """One kind of fact, in many wordings, with slots {user}, {person} and {value}."""

  name: str
  about: str  # 'user' or 'person'
  type: str  # of the value; several are joined by '|'
  examples: tuple[tuple[str, str], ...]  # (message, value)
  questions: tuple[str, ...]
  statements: tuple[str, ...]
  reversed: tuple[QA, ...]
  cues: tuple[str, ...] = ()  # words that a name stands beside when it is the value: "my sister"

  @functools.cached_property
  def types(self) -> frozenset[str]:
    return frozenset(self.type.split('|'))


def fill(text: str, *, user: str, person: str, value: str) -> str:
  """A template with its slots filled, a/an and doubled articles put right."""
  bare = re.sub(r'^(the|a|an) ', '', value, flags=re.I)
  text = re.sub(r'\b(an?|the) \{value\}', lambda m: f'{m[1]} {bare}', text)
  text = text.replace('{user}', user).replace('{person}', person).replace('{value}', value)
  text = re.sub(rf'\bon (?=(?:{MONTHS})\b(?! \d))', 'in ', text)
  text = re.sub(r'\b([Aa]) (?=[aeiouAEIOU])', r'\1n ', text)
  text = re.sub(r'\b([Aa])n (?=[^aeiouAEIOUhH\W])', r'\1 ', text)
  text = re.sub(r'\bs\b(?<=\w)\'s\'s', "s's", text)
  return text[:1].upper() + text[1:]


@functools.cache
def bank(more: bool = False) -> tuple[Relation, ...]:
  """The relations that the package ships; with `more` those of relations/more, too."""
  out = []
  folder = importlib.resources.files('dreaming.sleep') / 'relations'
  files = [*folder.iterdir(), *((folder / 'more').iterdir() if more else ())]
  for file in sorted(files, key=lambda f: f.name):
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
          cues=tuple(r.get('cues', ())),
        )
      )
  return tuple(out)
