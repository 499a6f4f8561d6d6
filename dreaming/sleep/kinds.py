"""Kinds: what the words of a message are (an instrument, a job, an illness), as the base knows it.

A small base reads relations badly and words well: of the values of invented days it names the kind
of about four in five. `values.noun_types` asks the same in fewer words, for what relations need.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dreaming.brain.decode import Decoder
from dreaming.types import Mind

# What the base may call a word, and what of that is never spoken of as a thing.
LABELS = (
  'animal', 'food', 'drink', 'job', 'subject', 'sport', 'game', 'hobby', 'instrument', 'tool',
  'vehicle', 'furniture', 'machine', 'clothing', 'jewellery', 'building', 'room', 'place', 'plant',
  'illness', 'body', 'feeling', 'colour', 'material', 'document', 'money', 'music', 'book', 'event',
  'group', 'person', 'weather', 'thing', 'time', 'quality', 'verb',
)  # fmt: skip
NO_THINGS = frozenset({'time', 'quality', 'verb'})

_ALONE = """plumber: job
horse: animal
tennis: sport
broke: verb
onion: food
hammer: tool
trumpet: instrument
sadness: feeling
said: verb
kitchen: room
physics: subject
neighbour: person
beautiful: quality
coffee: drink
purple: colour
week: time
asthma: illness
neck: body
walked: verb
lawyer: job
bicycle: vehicle
chess: game
bakery: building
meadow: place
oak: plant
laptop: machine
novel: book
wedding: event
jacket: clothing
passport: document
jazz: music
wool: material
storm: weather
loan: money
orchestra: group
necklace: jewellery
sofa: furniture
knitting: hobby
mistake: thing
"""
_WITHIN = """"The plumber broke our sink on Monday."
plumber: job
broke: verb
sink: furniture

"My horse loves running in the snow."
horse: animal
loves: verb
running: sport
snow: weather

"I said that his beautiful kitchen smells of onion."
said: verb
beautiful: quality
kitchen: room
onion: food

"She plays the trumpet in an orchestra and teaches physics."
plays: verb
trumpet: instrument
orchestra: group
teaches: verb
physics: subject

"The lawyer has asthma and a sore neck since last week."
lawyer: job
asthma: illness
sore: quality
neck: body
week: time

"Our neighbour drinks coffee on his wool sofa and felt sadness after the wedding."
neighbour: person
drinks: verb
coffee: drink
wool: material
sofa: furniture
sadness: feeling
wedding: event

"He fixed the purple bicycle with a hammer in the garage and lost a novel and his passport."
fixed: verb
purple: colour
bicycle: vehicle
hammer: tool
garage: building
novel: book
passport: document

"""


def of_words(
  decoder: Decoder, mind: Mind, messages: Sequence[tuple[str, Sequence[str]]]
) -> list[dict[str, np.ndarray]]:
  """Log-probabilities of LABELS for each word of each message, Float['K'], nats.

  The base is asked about the word alone, which tells best what a thing is, and about the word in
  its message, which tells best what is a verb; both are averaged.

  Args:
    decoder: of the mind.
    mind: the base.
    messages: (text, words).
  """
  asked = list(dict.fromkeys((t, w) for t, words in messages for w in words))
  if not asked:
    return [{} for _ in messages]
  single = {w: i for i, w in enumerate(dict.fromkeys(w for _, w in asked))}
  alone = of_values(decoder, mind, list(single))
  options = [f' {k}' for k in LABELS]
  within = decoder.choose(mind, [f'"{t}"\n{w}:' for t, w in asked], options, prefix=_WITHIN)
  rows = {}
  for (text, word), row in zip(asked, within, strict=True):
    row = (_log_share(row) + alone[single[word]]) / 2
    rows[text, word] = _log_share(row)
  return [{w: rows[t, w] for w in words} for t, words in messages]


def of_values(decoder: Decoder, mind: Mind, words: Sequence[str]) -> np.ndarray:
  """Log-probabilities of LABELS for words by themselves, Float['N K'], nats."""
  options = [f' {k}' for k in LABELS]
  return _log_share(decoder.choose(mind, [f'{w}:' for w in words], options, prefix=_ALONE))


def _log_share(rows: np.ndarray) -> np.ndarray:
  return rows - np.logaddexp.reduce(rows, axis=-1, keepdims=True)
