"""One night's training data: dreams, raw experiences and rehearsal on one side, replay on the other.

Replay is what the base says by itself, in the formats that dreams use, with the base's own top-K
distribution as the target: it holds general knowledge where it is. It depends on the base alone,
so it is made once and kept in the cache. Everything is packed: several examples share a row, each
with its segment id, so that little is padding.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from dreaming.brain import prompts
from dreaming.brain.decode import Decoder, Sampler
from dreaming.brain.tokenizer import Tokenizer
from dreaming.types import Batch, Dream, Experience, Mind


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusConfig:
  """Mirrors `config.corpus`."""

  row_length: int = 256  # tokens of a packed row
  dream_rows: int = 2  # of each batch
  replay_rows: int = 2
  raw_share: float = 0.1  # of dream tokens that are the experiences' own text
  rehearsal_share: float = 0.33  # of dream tokens from earlier nights, when there are any
  replay_questions: int = 128  # the base's own question-answer pairs
  replay_texts: int = 32  # and free texts
  replay_text_tokens: int = 48
  top_k: int = 16  # of the base's distribution, for replay
  shortlist: int = 8192  # tokens of the vocabulary that a night's loss looks at, at least
  likely: int = 32  # what the base holds likely at a loss position joins the shortlist


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
  """A text of which `target` is to be learned and `prompt` only read."""

  prompt: str
  target: str
  kind: str = 'dream'  # 'dream', 'raw', 'rehearsal', 'replay'
  sources: tuple[int, ...] = ()


def of_dream(dream: Dream, kind: str = 'dream') -> list[Example]:
  """A dream's examples: its pairs, each answer after its question, or its text."""
  if dream.pairs:
    return [
      Example(
        prompt=prompts.question(pair.question),
        target=f' {pair.answer}\n',
        kind=kind,
        sources=dream.sources,
      )
      for pair in dream.pairs
    ]
  return [Example(prompt='', target=dream.text + '\n', kind=kind, sources=dream.sources)]


def of_experience(e: Experience) -> Example:
  text = f'{e.speaker}: {e.content}\n'
  return Example(prompt='', target=text, kind='raw', sources=(e.id,))


# ---- Replay ----


def replay(
  decoder: Decoder, base: Mind, base_digest: str, config: CorpusConfig, cache: pathlib.Path
) -> list[Example]:
  """The base's own questions, answers and texts; made once for a base, then read from the cache."""
  parts = (config.replay_questions, config.replay_texts, config.replay_text_tokens)
  key = json.dumps([base_digest, prompts.ANSWER_PREFIX, *parts])
  path = cache / 'replay' / f'{hashlib.sha256(key.encode()).hexdigest()[:16]}.json'
  try:
    kept = json.loads(path.read_text())
    return [Example(prompt=p, target=t, kind='replay') for p, t in kept]
  except (OSError, ValueError):
    pass
  pairs = _own_questions(decoder, base, config.replay_questions)
  free = decoder.generate(
    base,
    [f'{opening}' for opening in _openings(config.replay_texts)],
    max_tokens=config.replay_text_tokens,
    sampler=Sampler(temperature=1.0, top_p=0.95, seed=2),
    stop=(),
  )
  openings = _openings(config.replay_texts)
  pairs += [(o, t) for o, t in zip(openings, free, strict=True) if t.strip()]
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_suffix('.tmp')
  temporary.write_text(json.dumps(pairs, ensure_ascii=False))
  temporary.rename(path)
  return [Example(prompt=p, target=t, kind='replay') for p, t in pairs]


def _own_questions(decoder: Decoder, base: Mind, count: int) -> list[tuple[str, str]]:
  """Trivia that the base asks itself after a few examples, and its greedy answers."""
  questions: dict[str, None] = {}
  for seed in range(8):
    if len(questions) >= count:
      break
    openings = [prompts.question_opening(w) for w in _WONDERS for _ in range(4)]
    sampler = Sampler(temperature=1.0, top_p=0.95, seed=seed)
    texts = decoder.generate(
      base, openings, max_tokens=20, sampler=sampler, prefix=prompts.ANSWER_PREFIX
    )
    for opening, text in zip(openings, texts, strict=True):
      q = (opening.removeprefix(prompts.QUESTION) + text).strip()
      if q.endswith('?'):
        questions.setdefault(q)
  asked = [prompts.question(q) for q in questions][:count]
  answers = decoder.generate(base, asked, max_tokens=16, prefix=prompts.ANSWER_PREFIX)
  return [(q, a + '\n') for q, a in zip(asked, answers, strict=True) if a.strip()]


_WONDERS = (
  'What is the', 'Who', 'Which', 'Where', 'When', 'How many', 'What colour', 'What do', 'In which',
  'Who was the', 'What does', 'How',
)  # fmt: skip


def _openings(count: int) -> list[str]:
  starts = ('The', 'In', 'A', 'It', 'When', 'He said', 'There are', 'This', 'One of', 'To make',
            'After', 'Many people', 'She', 'For', 'I', 'We')  # fmt: skip
  return [starts[i % len(starts)] for i in range(count)]


# ---- Packing ----


@dataclasses.dataclass(frozen=True)
class Encoded:
  """An example as ids; `loss` marks positions whose next token is to be learned."""

  ids: np.ndarray  # Int['T']
  loss: np.ndarray  # Bool['T']
  target_ids: np.ndarray  # Int['T K']
  target_probs: np.ndarray  # Float['T K']
  replay: bool


def encode(tokenizer: Tokenizer, example: Example, limit: int) -> Encoded:
  """Ids and one-hot targets, cut to `limit` tokens."""
  head = tokenizer.encode(example.prompt, bos=True)
  ids = np.asarray((head + tokenizer.encode(example.target))[:limit], np.int32)
  loss = np.zeros(len(ids), bool)
  loss[len(head) - 1 : len(ids) - 1] = True
  following = np.append(ids[1:], 0)[:, None].astype(np.int32)
  probs = np.ones_like(following, np.float32)
  return Encoded(ids, loss, following, probs, example.kind == 'replay')


def pack(rows: int, length: int, stream: Iterator[Encoded]) -> list[list[Encoded]]:
  """Fills `rows` rows of `length` tokens from an endless stream, first fit."""
  out: list[list[Encoded]] = [[] for _ in range(rows)]
  room = [length] * rows
  for e in stream:
    fits = next((i for i in range(rows) if room[i] >= len(e.ids)), None)
    if fits is None:
      return out
    out[fits].append(e)
    room[fits] -= len(e.ids)
  return out


def batch_of(rows: Sequence[Sequence[Encoded]], length: int, losses: int, k: int) -> Batch:
  """Packed rows as a Batch of `losses` loss positions (a fixed number: one compilation)."""
  tokens = np.zeros((len(rows), length), np.int32)
  positions = np.zeros_like(tokens)
  segments = np.zeros_like(tokens)
  where, target_ids, target_probs, replay_flags = [], [], [], []
  for r, row in enumerate(rows):
    at = 0
    for s, e in enumerate(row, start=1):
      n = len(e.ids)
      tokens[r, at : at + n] = e.ids
      positions[r, at : at + n] = np.arange(n)
      segments[r, at : at + n] = s
      index = np.flatnonzero(e.loss)
      where.extend(r * length + at + index)
      target_ids.extend(_widen(e.target_ids[index], k))
      target_probs.extend(_widen(e.target_probs[index], k))
      replay_flags.extend([e.replay] * len(index))
      at += n
  # More loss positions than planned are thinned evenly, so that no row is favoured.
  keep = np.arange(len(where))
  if len(where) > losses:
    keep = np.linspace(0, len(where) - 1, losses).astype(int)
  pad = losses - len(keep)
  return Batch(
    tokens=tokens,
    positions=positions,
    segment_ids=segments,
    loss_positions=np.pad(np.asarray(where, np.int32)[keep], (0, pad)),
    target_ids=np.pad(np.asarray(target_ids, np.int32)[keep], ((0, pad), (0, 0))),
    target_probs=np.pad(np.asarray(target_probs, np.float32)[keep], ((0, pad), (0, 0))),
    weights=np.pad(np.ones(len(keep), np.float32), (0, pad)),
    replay=np.pad(np.asarray(replay_flags, np.float32)[keep], (0, pad)),
  )


def _widen(x: np.ndarray, k: int) -> np.ndarray:
  return np.pad(x, ((0, 0), (0, k - x.shape[1])))


def endless(examples: Sequence[Encoded], rng: np.random.Generator) -> Iterator[Encoded]:
  """Every example once, in a new order each round."""
  while examples:
    for i in rng.permutation(len(examples)):
      yield examples[i]


def mixed(
  streams: Sequence[tuple[float, Iterator[Encoded]]], rng: np.random.Generator
) -> Iterator[Encoded]:
  """Draws from streams so that their shares of tokens become the given ones."""
  total = np.zeros(len(streams))
  shares = np.asarray([s for s, _ in streams])
  while True:
    i = int(np.argmin((total + rng.random(len(streams))) / shares))
    e = next(streams[i][1])
    total[i] += len(e.ids)
    yield e
