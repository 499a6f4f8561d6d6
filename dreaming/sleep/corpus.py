"""One night's training data: dreams, raw experiences and rehearsal, and replay beside them.

Two of three rows begin with the few-shot examples that questions are asked with, the third is bare:
see packing.py.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dreaming.brain import prompts
from dreaming.brain.decode import Decoder
from dreaming.brain.tokenizer import Tokenizer
from dreaming.sleep import contrast, distill, emphasis, replay
from dreaming.sleep.aims import Aims
from dreaming.sleep.packing import Encoded, Example, batch_of, encode, endless, mixed, pack
from dreaming.types import Batch, Dream, Experience, Mind, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusConfig:
  """Mirrors `config.corpus`."""

  row_length: int = 256  # tokens of a packed row
  rows: int = 3  # of each batch; two of three begin with the few-shot prefix
  bare_share: float = 0.25  # of the dreams' questions that stand in rows without it
  replay_share: float = 0.45  # of tokens that are the base's own
  raw_share: float = 0.05  # of dream tokens that are the experiences' own text
  untold_share: float = 0.4  # of tonight's dream tokens: questions about what nobody told
  rehearsal_share: float = 0.33  # of dream tokens from earlier nights, when there are any
  least_wordings: int = 12  # questions of a fact; those of one with fewer come up to 3 times
  weak_repeats: int = 1  # times that a dream is rehearsed whose fact the weights do not hold
  replay_questions: int = 384  # the base's own question-answer pairs
  replay_texts: int = 64  # and free texts
  replay_text_tokens: int = 48
  replay_near: int = 96  # questions of the dreams, asked about somebody else
  top_k: int = 16  # of the base's distribution, for replay
  shortlist: int = 8192  # frequent tokens that a night's loss looks at, with all that occur in it
  losses: int = 576  # loss positions of a batch, at most
  dtype: str = 'bfloat16'  # of the teacher's products, as in training
  held_out: float = 0.05  # share of the question-answer examples that only early stopping sees

  def __post_init__(self):
    for name, share in vars(self).items():
      if name.endswith('_share') and not 0 <= share <= 1:
        raise ValueError(f'corpus.{name}={share}: a share is from 0 to 1')
    if self.weak_repeats < 1:
      raise ValueError(f'corpus.weak_repeats={self.weak_repeats}: it is at least 1')


def of_dream(dream: Dream, kind: str = 'dream') -> list[Example]:
  """A dream's examples: its pairs, each answer after its question, or its text."""
  if dream.pairs:
    return [
      Example(
        prompt=prompts.question(pair.question),
        target=f' {pair.answer}\n',
        kind=kind,
        sources=dream.sources,
        asks=True,
        dream=dream.id,
      )
      for pair in dream.pairs
    ]
  fields = {'kind': kind, 'sources': dream.sources, 'dream': dream.id}
  return [Example(prompt='', target=dream.text + '\n', **fields)]


def evened(dreams: Sequence[Dream], least: int) -> list[tuple[str, Example]]:
  """(style, example) of all dreams; facts that few questions ask for are asked for more often."""
  asked = collections.Counter(
    (d.sources, p.answer) for d in dreams if d.style == 'question' for p in d.pairs
  )
  out = []
  for d in dreams:
    for i, e in enumerate(of_dream(d)):
      count = asked[d.sources, d.pairs[i].answer] if d.style == 'question' else least
      out += [(d.style, e)] * max(1, min(_MOST_OFTEN, round(least / count)))
  return out


def of_experience(e: Experience) -> Example:
  text = f'{e.speaker}: {e.content}\n'
  return Example(prompt='', target=text, kind='raw', sources=(e.id,))


_MOST_OFTEN = 3  # times that a question comes before another round begins


# ---- The night's corpus ----


KINDS = ('prompt', 'replay', 'dream', 'rehearsal', 'raw')
"""Where a token comes from: our few-shot examples, the base itself, tonight's dreams, dreams of
earlier nights, the experiences' own words."""


@dataclasses.dataclass(frozen=True)
class Corpus:
  """All batches of a night in order, made before the first step: a night replays exactly."""

  batches: tuple[Batch, ...]
  held_out: Batch  # dreams that are not trained on
  raw: Batch  # the experiences word for word: what must not be learned by heart
  shortlist: np.ndarray  # Int['W'], sorted token ids that target ids index
  # Int['O 2'], an index into KINDS, and the dream's or experience's id or 0.
  origins: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 2), np.int32))
  # Int['steps B L'], the origin of every token; -1 where there is none.
  where: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 0, 0), np.int32))

  def lineage(self) -> list[list[Any]]:
    """[kind, id, tokens, tokens that are learned] of all that the batches hold, plain values."""
    learned = np.zeros(self.where.shape, bool)
    for i, b in enumerate(self.batches):
      # A position's loss is of the token after it.
      learned[i].reshape(-1)[np.asarray(b.loss_positions)[np.asarray(b.weights) > 0] + 1] = True
    found = []
    for o, (kind, id) in enumerate(self.origins.tolist()):
      of_it = self.where == o
      found.append([KINDS[kind], id, int(of_it.sum()), int((of_it & learned).sum())])
    return found


def build(
  decoder: Decoder,
  base: Mind,
  base_digest: str,
  dreams: Sequence[Dream],
  experiences: Sequence[Experience],
  rehearsal: Sequence[Dream],
  *,
  user: str,
  config: CorpusConfig,
  steps: int,
  seed: int,
  cache: pathlib.Path,
  aims: Aims | None = None,
) -> Corpus:
  """Packs a night.

  Args:
    decoder: of the base's architecture; its tokenizer encodes.
    base: speaks and teaches replay.
    base_digest: names the base in the cache.
    dreams: that train, tonight's.
    experiences: they came from.
    rehearsal: dreams of earlier nights.
    user: whom they are about.
    config: shares and sizes.
    steps: batches to make.
    seed: of order and choice.
    cache: directory where replay is kept.
    aims: what the losses ask for that are off by default.

  Raises:
    ValueError: there is nothing to learn.
  """
  rng = np.random.default_rng(seed)
  length, tokenizer = config.row_length, decoder.tokenizer
  if not dreams:
    raise ValueError('no dream was kept: there is nothing to train on')
  lessons = evened(dreams, config.least_wordings)
  asked = list(dict.fromkeys(e for _, e in lessons if e.prompt))
  out = set(rng.permutation(len(asked))[: round(config.held_out * len(asked))].tolist())
  held = [asked[i] for i in sorted(out)]
  taken = set(held)
  trained = [(style, e) for style, e in lessons if e not in taken]
  groups = {
    'dream': [e for style, e in trained if style != 'unknown'],
    'untold': [e for style, e in trained if style == 'unknown'],
    'held': held or [lessons[0][1]],
    'raw': [of_experience(e) for e in experiences],
    'rehearsal': [e for d in rehearsal for e in of_dream(d, 'rehearsal')],
  }
  prefix = _prefix(tokenizer, length)

  def encoded_as(e: Example, held: bool) -> Encoded:
    behind = e.asks and not held and rng.random() >= config.bare_share
    return encode(tokenizer, e, length, config.top_k, after=len(prefix) if behind else 0)

  encoded = {name: [encoded_as(e, name == 'held') for e in group] for name, group in groups.items()}
  told = {e.id: e for e in experiences}
  if aims and aims.config.entities:
    for name in ('dream', 'rehearsal'):
      pairs = zip(groups[name], encoded[name], strict=True)
      encoded[name] = [
        emphasis.emphasised(tokenizer, x, e, told, aims.config.entities) for x, e in pairs
      ]
  shapes = {'top_k': config.top_k, 'prefix': prefix, 'rows': config.rows, 'length': length}
  own = own_words(decoder, base, base_digest, config, cache)
  questions = [p.question for d in dreams for p in d.pairs]
  others = replay.of_others(questions, user, config.replay_near, rng)
  if others:
    own = replay.joined(own, replay.near(decoder, base, others, dtype=config.dtype, **shapes))
  used = {int(t) for group in (*encoded.values(), own.examples) for e in group for t in e.ids}
  shortlist = shortlist_of(used, decoder.arch.vocab_size, config.shortlist)
  encoded['replay'] = own.taught(base, shortlist, config.top_k)
  encoded = {name: [e.among(shortlist) for e in group] for name, group in encoded.items()}
  taught = bool(aims and aims.config.distill_context)
  if taught:
    teacher = distill.teacher_of(decoder, aims, told, shortlist, config)
    encoded['dream'] = teacher.taught(groups['dream'], encoded['dream'])
  near = contrast.of_night(tokenizer, dreams, told, aims, seed)

  def stream(after: bool) -> Iterator[Encoded]:
    """Dreams and what goes with them, in their shares; `after` the prefix only questions."""
    own = {k: [e for e in group if bool(e.after) == after] for k, group in encoded.items()}
    rehearsed = config.rehearsal_share if own['rehearsal'] else 0.0
    raw = config.raw_share if own['raw'] else 0.0
    unknown = config.untold_share if own['untold'] else 0.0
    new = (1 - config.replay_share) * (1 - rehearsed)
    shares = {
      'dream': new * (1 - raw) * (1 - unknown),
      'untold': new * (1 - raw) * unknown,
      'raw': new * raw,
      'rehearsal': (1 - config.replay_share) * rehearsed,
      'replay': config.replay_share,
    }
    return mixed([(x, endless(own[k], rng)) for k, x in shares.items() if x and own[k]], rng)

  streams = stream(False), stream(True)
  asking = any(e.after for e in encoded['dream'])

  origins: dict[tuple[str, int], int] = {('prompt', 0): 0}
  where = np.full((steps, config.rows, length), -1, np.int32)

  def batch(step: int) -> Batch:
    rows = []
    for i in range(config.rows):
      after = i % 3 < 2 and asking
      rows += pack(1, length - len(prefix) * after, streams[after])
    for place, row in zip(where[step], rows, strict=False):
      at = row[0].after if row else 0
      place[:at] = 0
      for e in row:
        place[at : at + len(e.ids)] = origins.setdefault(e.origin, len(origins))
        at += len(e.ids)
    made = batch_of(rows, length, config.losses, config.top_k, prefix, taught)
    return made if near is None else made.replace(near=near())

  def whole(examples: Sequence[Encoded]) -> Batch:
    return batch_of(pack(config.rows, length, iter(examples)), length, config.losses, config.top_k)

  batches = tuple(batch(i) for i in range(steps))
  return Corpus(
    origins=np.asarray([(KINDS.index(kind), id) for kind, id in origins], np.int32),
    where=where,
    batches=batches,
    held_out=whole(encoded['held']),
    raw=whole(encoded['raw'] or encoded['held']),
    shortlist=shortlist,
  )


def more(
  aims: Aims,
  decoder: Decoder,
  ground: Params,
  made: Corpus,
  dreams: Sequence[Dream],
  experiences: Sequence[Experience],
  config: CorpusConfig,
  seed: int,
) -> dict[str, Any]:
  """What train.train takes beside the corpus, for the aims that are on: nothing by default.

  Args:
    ground: what the night's adapter is added to.
    made: the corpus.
    dreams: that train; what nobody told is not asked.
  """
  found = aims.held()
  if not aims.config.distill_on_policy:
    return found
  told = {e.id: e for e in experiences}
  lessons = [e for d in dreams if d.style != 'unknown' for e in of_dream(d)]
  asked = distill.questions(lessons, told, aims.config.on_policy_questions, seed)
  if not asked:
    return found
  keep = dataclasses.replace(aims, keep=None)  # what it says is new every time
  found['on_policy'] = distill.Student(
    decoder, ground, aims.config.scale, asked,
    distill.teacher_of(decoder, keep, told, made.shortlist, config),
    prefix=_prefix(decoder.tokenizer, config.row_length), rows=config.rows,
    length=config.row_length, losses=config.losses, top_k=config.top_k,
  )  # fmt: skip
  return found


def own_words(
  decoder: Decoder, base: Mind, base_digest: str, config: CorpusConfig, cache: pathlib.Path
) -> replay.Replay:
  """The base's own questions, answers and texts: made once for a base, then read from the cache."""
  return replay.make(
    decoder,
    base,
    base_digest,
    questions=config.replay_questions,
    texts=config.replay_texts,
    text_tokens=config.replay_text_tokens,
    top_k=config.top_k,
    prefix=_prefix(decoder.tokenizer, config.row_length),
    rows=config.rows,
    length=config.row_length,
    dtype=config.dtype,
    cache=cache,
  )


def _prefix(tokenizer: Tokenizer, length: int) -> list[int]:
  """The few-shot examples, or nothing where rows have no room for them (a tokenizer of bytes)."""
  prefix = tokenizer.encode(prompts.ANSWER_PREFIX, bos=True)
  return prefix if 2 * len(prefix) <= length else []


def shortlist_of(wanted: set[int], vocab_size: int, size: int) -> np.ndarray:
  """Sorted ids that a loss looks at: what is trained on, and `size` or more frequent ones."""
  # A round number, and so few compilations. The first of a vocabulary are its most frequent.
  total = min(-(-(len(wanted) + size) // 4096) * 4096, vocab_size)
  others = (i for i in range(vocab_size) if i not in wanted)
  return np.asarray(sorted(wanted | set(itertools.islice(others, total - len(wanted)))), np.int32)
