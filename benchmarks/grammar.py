"""The texts in benchmarks/lives/, and the small grammar that they are written in.

`[one|another]` is a choice and may hold others; `{slot}` is a value that is given, or one drawn
from the pool of that name in pools.json ('town2' and 'town3' draw from 'town').
"""

from __future__ import annotations

import functools
import json
import pathlib
import random
import re
from collections.abc import Mapping
from typing import Any

TEXTS = pathlib.Path(__file__).parent / 'lives'


@functools.cache
def texts(name: str) -> Any:
  return json.loads((TEXTS / f'{name}.json').read_text(encoding='utf-8'))


@functools.cache
def parse(text: str) -> tuple[Any, ...]:
  """'a [b|c {d}]' -> ('a ', [('b',), ('c ', ('d',))]): texts, choices, slots.

  Raises ValueError for brackets that do not match.
  """
  stack: list[list[list[Any]]] = [[[]]]
  for token in re.findall(r'[\[|\]]|\{\w+\}|[^\[|\]{}]+', text):
    if token == '[':
      stack.append([[]])
    elif token == '|' and len(stack) > 1:
      stack[-1].append([])
    elif token == ']' and len(stack) > 1:
      choice = [tuple(x) for x in stack.pop()]
      stack[-1][-1].append(choice)
    elif token in '[|]':
      raise ValueError(f'{text!r} has a {token!r} that fits nowhere')
    else:
      stack[-1][-1].append((token[1:-1],) if token[0] == '{' else token)
  if len(stack) > 1:
    raise ValueError(f'{text!r} has a [ that is not closed')
  return tuple(stack[0][0])


class Voice:
  """Renders texts of the grammar; a choice goes round, so that a life repeats itself little."""

  def __init__(self, rng: random.Random):
    self._rng = rng
    self._turn: dict[int, int] = {}  # id of a choice, which parse keeps -> what was last taken

  def __call__(self, text: str, slots: Mapping[str, str]) -> str:
    """One sentence or more. Raises KeyError for a slot that is no pool either."""
    out: list[str] = []
    self._walk(parse(text), slots, out)
    return _tidy(''.join(out))

  def _walk(self, parts: tuple[Any, ...], slots: Mapping[str, str], out: list[str]) -> None:
    for part in parts:
      if isinstance(part, str):
        out.append(part)
      elif isinstance(part, list):
        last = self._turn.get(id(part), int(self._rng.random() * len(part)))
        # One step mostly, sometimes two: two choices of one text do not go round in step.
        taken = (last + 1 + (self._rng.random() < 0.3)) % len(part)
        self._turn[id(part)] = taken
        self._walk(part[taken], slots, out)
      elif part[0] in slots:
        out.append(slots[part[0]])
      else:
        pool = texts('pools')[part[0].rstrip('23')]
        out.append(pool[int(self._rng.random() * len(pool))])


def _tidy(text: str) -> str:
  text = re.sub(r'\s+([.,!?])', r'\1', re.sub(r' {2,}', ' ', text)).strip()
  text = re.sub(r'\b([Aa]) (?=[aeio])', r'\1n ', text)
  text = re.sub(r'((?:^|[.!?] )[\'"]?)([a-z])', lambda m: m[1] + m[2].upper(), text)
  return re.sub(r'([.!?])\.(?!\.)', r'\1', text)
