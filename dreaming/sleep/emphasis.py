"""More weight in training on the names and numbers of what a text comes from."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from dreaming.brain.tokenizer import Tokenizer
from dreaming.sleep import grounding
from dreaming.sleep.packing import Encoded, Example
from dreaming.types import Experience


def emphasised(
  tokenizer: Tokenizer, example: Example, encoded: Encoded, told: Mapping[int, Experience],
  more: float,
) -> Encoded:  # fmt: skip
  """With `more` weight, beside 1, on the tokens of names and numbers of the sources.

  Weighting tokens by what they carry is as in RHO-1 (Lin et al., arXiv 2404.07965), by entities
  as in entity-aware training; here the sources say which.
  """
  texts = [told[i].content for i in example.sources if i in told]
  words = {w for text in texts for name in grounding.named(text) for w in grounding.plain(name)}
  words -= {'the', 'of', 'on', 'at', 'in'}
  n = int(encoded.loss.sum())
  weights = np.ones(n, np.float32)
  for word, first, end in _words(tokenizer, example.target):
    if grounding.plain(word) & words:
      weights[first : min(end, n)] += np.float32(more)
  return dataclasses.replace(encoded, emphasis=weights) if (weights > 1).any() else encoded


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
