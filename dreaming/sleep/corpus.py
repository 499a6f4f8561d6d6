"""One night's training data: dreams, raw experiences and rehearsal on one side, replay beside it.

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

import jax
import jax.numpy as jnp
import numpy as np

from dreaming.brain import prompts, transformer
from dreaming.brain.decode import Decoder, Sampler, top_candidates
from dreaming.brain.tokenizer import Tokenizer
from dreaming.brain.transformer import Transformer
from dreaming.types import Batch, Dream, Experience, Mind


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusConfig:
  """Mirrors `config.corpus`."""

  row_length: int = 256  # tokens of a packed row
  dream_rows: int = 2  # of each batch
  replay_rows: int = 2
  raw_share: float = 0.05  # of dream tokens that are the experiences' own text
  rehearsal_share: float = 0.33  # of dream tokens from earlier nights, when there are any
  replay_questions: int = 192  # the base's own question-answer pairs
  replay_texts: int = 64  # and free texts
  replay_text_tokens: int = 48
  top_k: int = 16  # of the base's distribution, for replay
  shortlist: int = 8192  # tokens of the vocabulary that a night's loss looks at, at least
  likely: int = 32  # what the base holds likely at a loss position joins the shortlist
  losses: int = 512  # loss positions of a batch, at most
  dtype: str = 'bfloat16'  # of the teacher's products, as in training
  held_out: float = 0.05  # share of the question-answer examples that only early stopping sees


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
  openings = _openings(config.replay_texts)
  free = decoder.generate(
    base,
    openings,
    max_tokens=config.replay_text_tokens,
    sampler=Sampler(temperature=1.0, top_p=0.95, seed=2),
    stop=(),
  )
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


# ---- The night's corpus ----


@dataclasses.dataclass(frozen=True)
class Corpus:
  """All batches of a night in order, made before the first step: a night replays exactly."""

  batches: tuple[Batch, ...]
  held_out: Batch  # dreams that are not trained on
  raw: Batch  # the experiences word for word: what must not be learned by heart
  shortlist: np.ndarray  # Int['W'], sorted token ids that target ids index


def build(
  decoder: Decoder,
  base: Mind,
  base_digest: str,
  dreams: Sequence[Dream],
  experiences: Sequence[Experience],
  rehearsal: Sequence[Dream],
  *,
  config: CorpusConfig,
  steps: int,
  seed: int,
  cache: pathlib.Path,
) -> Corpus:
  """Packs a night.

  Args:
    decoder: of the base's architecture; its tokenizer encodes.
    base: teaches replay, and says what is likely at each loss position.
    base_digest: names the base in the cache.
    dreams: that train, tonight's.
    experiences: they came from.
    rehearsal: dreams of earlier nights.
    config: shares and sizes.
    steps: batches to make.
    seed: of order and choice.
    cache: directory where replay is kept.

  Raises:
    ValueError: there is nothing to learn.
  """
  rng = np.random.default_rng(seed)
  length, tokenizer = config.row_length, decoder.tokenizer
  if not dreams:
    raise ValueError('no dream was kept: there is nothing to train on')
  examples = [e for d in dreams for e in of_dream(d)]
  asked = [i for i, e in enumerate(examples) if e.prompt]
  out = set(rng.permutation(asked)[: round(config.held_out * len(asked))].tolist())
  groups = {
    'dream': [e for i, e in enumerate(examples) if i not in out],
    'held': [examples[i] for i in sorted(out)] or examples[:1],
    'raw': [of_experience(e) for e in experiences],
    'rehearsal': [e for d in rehearsal for e in of_dream(d, 'rehearsal')],
    'replay': replay(decoder, base, base_digest, config, cache),
  }
  encoded = {
    k: [encode(tokenizer, e, length, config.top_k) for e in group] for k, group in groups.items()
  }
  everything = [e for group in encoded.values() for e in group]
  top = teacher(decoder, base, everything, config)
  size = min(config.shortlist, decoder.arch.vocab_size)
  wanted = set(range(size))
  for e, (_, ids) in zip(everything, top, strict=True):
    wanted |= set(e.ids.tolist()) | set(ids.ravel().tolist())
  shortlist = np.asarray(sorted(wanted), np.int32)
  # The fewer different lengths, the fewer compilations: the last token is repeated, never a target.
  shortlist = np.pad(shortlist, (0, -len(shortlist) % 1024), mode='edge')
  top = iter(top)
  for group in encoded.values():
    for i, e in enumerate(group):
      group[i] = e.among(shortlist, *next(top))

  own = [(1 - config.raw_share, endless(encoded['dream'], rng))]
  if encoded['raw'] and config.raw_share:
    own.append((config.raw_share, endless(encoded['raw'], rng)))
  if encoded['rehearsal'] and config.rehearsal_share:
    own = [(share * (1 - config.rehearsal_share), stream) for share, stream in own]
    own.append((config.rehearsal_share, endless(encoded['rehearsal'], rng)))
  lessons, general = mixed(own, rng), endless(encoded['replay'], rng)

  def batch(*parts: tuple[int, Iterator[Encoded]]) -> Batch:
    rows = [row for n, stream in parts for row in pack(n, length, stream)]
    return batch_of(rows, length, config.losses, config.top_k)

  total = config.dream_rows + config.replay_rows
  return Corpus(
    batches=tuple(
      batch((config.dream_rows, lessons), (config.replay_rows, general)) for _ in range(steps)
    ),
    held_out=batch((total, iter(encoded['held']))),
    raw=batch((total, iter(encoded['raw'] or encoded['held']))),
    shortlist=shortlist,
  )


def teacher(decoder: Decoder, base: Mind, encoded: Sequence[Encoded], config: CorpusConfig):
  """(probs, ids), each [losses, likely], of what the base holds likely at loss positions."""
  model, k = Transformer(decoder.arch), min(config.likely, decoder.arch.vocab_size)
  params = transformer.cast(base.params, config.dtype)
  length, chunk = config.row_length, 64

  @jax.jit
  def likely(params, batch):
    hidden, _ = model.apply({'params': params}, batch.tokens, batch.positions, batch.segment_ids)
    hidden = hidden.reshape(-1, hidden.shape[-1])[batch.loss_positions]

    def of_chunk(h):
      logits = transformer.unembed(params, h)
      values, ids = top_candidates(logits, k)
      return jnp.exp(values - jax.nn.logsumexp(logits, axis=-1, keepdims=True)), ids

    chunks = hidden.reshape(-1, chunk, hidden.shape[-1])
    return jax.tree.map(lambda x: x.reshape(-1, k), jax.lax.map(of_chunk, chunks))

  # Whole rows: what does not fit goes into the next batch, nothing is thinned.
  groups: list[list[list[int]]] = []
  room, losses = [], 0
  for i, e in enumerate(encoded):
    n, m = len(e.ids), int(e.loss.sum())
    row = next((r for r, free in enumerate(room) if free >= n), None)
    if row is None or losses + m > config.losses:
      groups.append([[] for _ in range(4)])
      room, losses, row = [length] * 4, 0, 0
    groups[-1][row].append(i)
    room[row] -= n
    losses += m
  out: list = [None] * len(encoded)
  for rows in groups:
    batch = batch_of(
      [[encoded[i] for i in row] for row in rows], length, config.losses, config.top_k
    )
    probs, ids = (np.asarray(x) for x in likely(params, batch))
    at = 0
    for i in (i for row in rows for i in row):
      n = int(encoded[i].loss.sum())
      out[i] = probs[at : at + n], ids[at : at + n]
      at += n
  return out


# ---- Packing ----


@dataclasses.dataclass(frozen=True)
class Encoded:
  """An example as ids; `loss` marks positions whose next token is to be learned."""

  ids: np.ndarray  # Int['T']
  loss: np.ndarray  # Bool['T']
  target_ids: np.ndarray  # Int['losses K']
  target_probs: np.ndarray  # Float['losses K']
  replay: bool

  def among(self, shortlist: np.ndarray, probs: np.ndarray, ids: np.ndarray) -> Encoded:
    """With targets as indices into a shortlist; replay takes the base's distribution."""
    target_ids, target_probs = self.target_ids, self.target_probs
    if self.replay:
      k = target_ids.shape[1]
      target_ids, target_probs = ids[:, :k], probs[:, :k].astype(np.float32)
    index = np.searchsorted(shortlist, target_ids).astype(np.int32)
    return dataclasses.replace(self, target_ids=index, target_probs=target_probs)


def encode(tokenizer: Tokenizer, example: Example, limit: int, k: int) -> Encoded:
  """Ids and one-hot targets of width k, cut to `limit` tokens."""
  head = tokenizer.encode(example.prompt, bos=True)
  ids = np.asarray((head + tokenizer.encode(example.target))[:limit], np.int32)
  loss = np.zeros(len(ids), bool)
  loss[len(head) - 1 : len(ids) - 1] = True
  target_ids = np.zeros((int(loss.sum()), k), np.int32)
  target_ids[:, 0] = ids[1:][loss[:-1]]
  probs = np.zeros(target_ids.shape, np.float32)
  probs[:, 0] = 1.0
  return Encoded(ids, loss, target_ids, probs, example.kind == 'replay')


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
      target_ids.extend(e.target_ids)
      target_probs.extend(e.target_probs)
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
    target_ids=np.pad(np.reshape(target_ids, (-1, k)).astype(np.int32)[keep], ((0, pad), (0, 0))),
    target_probs=np.pad(
      np.reshape(target_probs, (-1, k)).astype(np.float32)[keep], ((0, pad), (0, 0))
    ),
    weights=np.pad(np.ones(len(keep), np.float32), (0, pad)),
    replay=np.pad(np.asarray(replay_flags, np.float32)[keep], (0, pad)),
  )


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
