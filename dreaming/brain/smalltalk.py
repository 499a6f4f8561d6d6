"""Examples of small talk: how a kind friend answers what is no question.

A pretrained model replies as the examples before it do, and after the same ones always much the
same ("I'm glad you like it."). So the examples are chosen for each message: those whose messages
are most like it. smalltalk.jsonl has some hundred, about nobody's life.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Callable

import numpy as np

from dreaming.brain.chat import Turn

EXAMPLES = 6  # before a message


@functools.cache
def examples() -> tuple[Turn, ...]:
  """All of them."""
  file = importlib.resources.files('dreaming.brain') / 'smalltalk.jsonl'
  rows = map(json.loads, file.read_text('utf-8').splitlines())
  return tuple(Turn(text=r['text'], response=r['reply']) for r in rows)


@functools.lru_cache(2)
def _vectors(embedder: Callable[[list[str]], np.ndarray]) -> np.ndarray:
  return embedder([t.text for t in examples()])


def like(
  message: str, embedder: Callable[[list[str]], np.ndarray], count: int = EXAMPLES
) -> tuple[Turn, ...]:
  """The `count` whose messages are most like a message, the likest last.

  Args:
    message: what is to be replied to.
    embedder: texts to unit vectors Float['N D'].
    count: how many.
  """
  near = _vectors(embedder) @ embedder([message])[0]
  return tuple(examples()[i] for i in np.argsort(near, kind='stable')[-count:])
