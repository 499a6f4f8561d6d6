"""Which texts attract each other in the states of the weights: dreams, their sources, anchors.

Each batch has a few dreams of different episodes, and beside them those episodes in their own
words: the loss (losses.attraction) lets a dream be like its source and unlike the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dreaming.brain.tokenizer import Tokenizer
from dreaming.sleep.aims import Aims
from dreaming.types import Dream, Experience, Texts

_LENGTH = 64  # tokens of a text, at most


def text_of(dream: Dream, rng: np.random.Generator) -> str:
  """A dream's text, or one of its questions with its answer."""
  if not dream.pairs:
    return dream.text
  pair = dream.pairs[int(rng.integers(len(dream.pairs)))]
  return f'{pair.question} {pair.answer}'


def drawer(
  tokenizer: Tokenizer,
  dreams: Sequence[Dream],
  told: Mapping[int, Experience],
  *,
  pairs: int,
  anchors: Sequence[str],
  seed: int,
) -> Callable[[], Texts] | None:
  """Draws the texts of one batch after the other; None where dreams are of fewer than two episodes.

  Args:
    dreams: that train.
    told: experiences by id.
    pairs: episodes of a batch, or as many as there are.
    anchors: texts that every dream draws near.
    seed: of what is drawn.
  """
  # What nobody told is of no episode, and a page is of several.
  usable = [d for d in dreams if d.style != 'unknown' and len(d.sources) == 1]
  of: dict[int, list[Dream]] = {}
  for d in usable:
    if d.sources[0] in told and (d.text or d.pairs):
      of.setdefault(d.sources[0], []).append(d)
  if len(of) < 2:
    return None
  rng = np.random.default_rng([seed, 17])
  episodes, count = sorted(of), min(pairs, len(of))
  positives = np.concatenate([np.eye(count), np.ones((count, len(anchors)))], 1).astype(np.float32)

  def draw() -> Texts:
    chosen = [episodes[i] for i in rng.permutation(len(episodes))[:count]]
    texts = [text_of(of[e][int(rng.integers(len(of[e])))], rng) for e in chosen]
    texts += [f'{told[e].speaker}: {told[e].content}' for e in chosen]
    tokens = np.zeros((2 * count + len(anchors), _LENGTH), np.int32)
    segments = np.zeros_like(tokens)
    for row, text in enumerate((*texts, *anchors)):
      ids = tokenizer.encode(text, bos=True)[:_LENGTH]
      tokens[row, : len(ids)], segments[row, : len(ids)] = ids, 1
    return Texts(tokens=tokens, segment_ids=segments, positives=positives)

  return draw


def of_night(
  tokenizer: Tokenizer,
  dreams: Sequence[Dream],
  told: Mapping[int, Experience],
  aims: Aims | None,
  seed: int,
) -> Callable[[], Texts] | None:
  """`drawer` as a night's configuration has it; None where it does without."""
  if aims is None or not aims.config.contrast:
    return None
  config = aims.config
  anchors = config.contrast_anchors
  return drawer(tokenizer, dreams, told, pairs=config.contrast_pairs, anchors=anchors, seed=seed)
