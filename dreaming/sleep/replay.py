"""Replay: what the base says by itself, in the formats that dreams use, to keep it where it is.

The target is the base's own distribution, its top K at every position: held by a KL, the student
may not leave it. Replay depends on the base alone, so it is made once and kept in the cache: texts
and the base's last hidden states, of which a night makes probabilities among the tokens that its
loss looks at. (Probabilities among all tokens would not do: the student's are among those of the
shortlist, and would be pushed away from the base by the difference.)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
import zipfile
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from dreaming.brain import prompts, transformer
from dreaming.brain.decode import Decoder, Sampler
from dreaming.brain.transformer import Transformer
from dreaming.sleep import artifacts
from dreaming.sleep.packing import Encoded, Example, batch_of, encode
from dreaming.types import Mind

_ANSWER_TOKENS = 16
_NEAR_TOKENS = 8
_OTHERS = ('Omar', 'Kim', 'Ana', 'Joe', 'Mei', 'Ivan', 'Ruth', 'Samuel')
_QUESTION_TOKENS = 20


@dataclasses.dataclass(frozen=True)
class Replay:
  """The base's examples, bare and after the few-shot ones, and what it thinks at each position."""

  examples: list[Encoded]  # their targets are set by `taught`
  hidden: np.ndarray  # BFloat16['N D'], the base's last states at all loss positions, in order

  def taught(self, base: Mind, shortlist: np.ndarray, top_k: int) -> list[Encoded]:
    """The examples with the base's top K among a shortlist (sorted ids), as ids."""
    table = base.params['embedder']['input_embedding'][shortlist].astype(self.hidden.dtype)
    k = min(top_k, len(shortlist))

    @jax.jit
    def top(table, hidden):
      logits = jnp.einsum('nd,wd->nw', hidden, table, preferred_element_type=jnp.float32)
      values, index = jax.lax.top_k(logits, k)
      return jnp.exp(values - jax.nn.logsumexp(logits, axis=-1, keepdims=True)), index

    n, chunk = len(self.hidden), 512
    padded = np.pad(self.hidden, ((0, -n % chunk), (0, 0))).reshape(-1, chunk, table.shape[1])
    parts = [top(table, h) for h in padded]
    probs, index = (np.concatenate([np.asarray(x[i]) for x in parts])[:n] for i in (0, 1))
    ends = np.cumsum([int(e.loss.sum()) for e in self.examples]).tolist()
    starts = [0, *ends[:-1]]
    return [
      e.taught(probs[i:j], shortlist[index[i:j]])
      for e, i, j in zip(self.examples, starts, ends, strict=True)
    ]


def make(
  decoder: Decoder,
  base: Mind,
  base_digest: str,
  *,
  questions: int,
  texts: int,
  text_tokens: int,
  top_k: int,
  prefix: Sequence[int],
  rows: int,
  length: int,
  dtype: str,
  cache: pathlib.Path,
) -> Replay:
  """What the base asks and answers itself, and its free texts.

  Args:
    decoder: of the base's architecture.
    base: speaks, then teaches.
    base_digest: names it in the cache.
    questions: how many it asks and answers itself.
    texts: how many it writes, of `text_tokens` each.
    top_k: of its distribution.
    prefix: the few-shot examples as ids; empty where rows have no room for them.
    rows: of a batch that it teaches in.
    length: of a row.
    dtype: of the teacher's products.
    cache: directory.
  """
  parts = [base_digest, prompts.ANSWER_PREFIX, list(prefix), _WONDERS, _STARTS]
  parts += [questions, texts, text_tokens, top_k, rows, length, dtype]
  key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
  path = cache / 'replay' / f'{key}.npz'
  try:
    with path.open('rb') as file, np.load(file, allow_pickle=False) as kept:
      said = json.loads(str(kept['said']))
      hidden = kept['hidden'].view(ml_dtypes.bfloat16)
  except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):  # none, or a damaged one
    # In the teacher's dtype: what is said is a sample anyway, and batches are read faster.
    voice = base.replace(params=transformer.cast(base.params, dtype))
    said = _questions(decoder, voice, questions) + _texts(decoder, voice, texts, text_tokens)
    decoder.forget(voice)
    hidden = None
  out = _encoded(decoder, said, prefix, length, top_k)
  if hidden is None:
    hidden = _think(decoder, base, out, prefix, rows=rows, length=length, dtype=dtype)
    with artifacts.spared(path), artifacts.replacing(path) as temporary:
      np.savez(temporary, said=json.dumps(said), hidden=hidden.view(np.uint16))
  return Replay(out, hidden)


def near(
  decoder: Decoder,
  base: Mind,
  questions: Sequence[str],
  *,
  top_k: int,
  prefix: Sequence[int],
  rows: int,
  length: int,
  dtype: str,
) -> Replay:
  """Questions that must stay as they are since they are like those of a night: see `of_others`."""
  said = _answered(decoder, base, [prompts.question(q) for q in questions], _NEAR_TOKENS)
  out = _encoded(decoder, said, prefix, length, top_k)
  return Replay(out, _think(decoder, base, out, prefix, rows=rows, length=length, dtype=dtype))


def of_others(questions: Sequence[str], user: str, count: int, rng: np.random.Generator):
  """Questions about the user, asked about somebody else: what is learned is about the user alone.

  The same idea as the neighbourhood of an edit in ROME (arXiv 2202.05262, section 3.4).
  """
  own = [q for q in dict.fromkeys(questions) if re.search(rf'\b{re.escape(user)}\b', q)]
  others = [n for n in _OTHERS if n != user]
  chosen = [own[i] for i in rng.permutation(len(own))[:count]]
  return [
    re.sub(rf'\b{re.escape(user)}\b', others[int(rng.integers(len(others)))], q) for q in chosen
  ]


def joined(*parts: Replay) -> Replay:
  return Replay([e for p in parts for e in p.examples], np.concatenate([p.hidden for p in parts]))


def _encoded(decoder, said, prefix, length: int, top_k: int) -> list[Encoded]:
  out = []
  for prompt, text in said:
    asks = prompt.startswith(prompts.QUESTION)
    # All of it is a target: what the base asks is as much its own as what it answers.
    example = Example(prompt='', target=prompt + text, kind='replay', asks=asks)
    for after in (0, len(prefix)) if asks and prefix else (0,):
      out.append(encode(decoder.tokenizer, example, length, top_k, after=after))
  return out


# ---- Speaking ----


def _questions(decoder: Decoder, base: Mind, count: int) -> list[tuple[str, str]]:
  """Trivia that the base asks itself after a few examples, and its greedy answers."""
  questions: dict[str, None] = {}
  for seed in range(16):
    if len(questions) >= count:
      break
    openings = [prompts.question_opening(w) for w in _WONDERS for _ in range(4)]
    texts = decoder.generate(
      base,
      openings,
      max_tokens=_QUESTION_TOKENS,
      sampler=Sampler(temperature=1.0, top_p=0.95, seed=seed),
      prefix=prompts.ANSWER_PREFIX,
    )
    for opening, text in zip(openings, texts, strict=True):
      q = (opening.removeprefix(prompts.QUESTION) + text).strip()
      if q.endswith('?'):
        questions.setdefault(q)
  asked = [prompts.question(q) for q in questions][:count]
  return _answered(decoder, base, asked, _ANSWER_TOKENS)


def _answered(decoder: Decoder, base: Mind, asked: list[str], tokens: int) -> list[tuple[str, str]]:
  if not asked:
    return []
  answers = decoder.generate(base, asked, max_tokens=tokens, prefix=prompts.ANSWER_PREFIX)
  return [(q, a + '\n') for q, a in zip(asked, answers, strict=True) if a.strip()]


def _texts(decoder: Decoder, base: Mind, count: int, tokens: int) -> list[tuple[str, str]]:
  openings = [_STARTS[i % len(_STARTS)] for i in range(count)]
  said = decoder.generate(
    base,
    openings,
    max_tokens=tokens,
    sampler=Sampler(temperature=1.0, top_p=0.95, seed=2),
    stop=(),
  )
  return [(o, t) for o, t in zip(openings, said, strict=True) if t.strip()]


_WONDERS = (
  'What is the', 'Who', 'Which', 'Where', 'When', 'How many', 'What', 'What do', 'In which',
  'Who was the', 'What does', 'What is a', 'What kind of', 'Who is', 'What are', 'How',
)  # fmt: skip
_STARTS = (
  'The', 'In', 'A', 'It', 'When', 'He said', 'There are', 'This', 'One of', 'To make', 'After',
  'Many people', 'She', 'For', 'I', 'We',
)  # fmt: skip


# ---- Teaching ----


def _think(
  decoder: Decoder,
  base: Mind,
  encoded: Sequence[Encoded],
  prefix: Sequence[int],
  *,
  rows: int,
  length: int,
  dtype: str,
) -> np.ndarray:
  """BFloat16['N D']: the base's last states at all loss positions, in order."""
  model = Transformer(decoder.arch, scanned=True)
  params = transformer.stack(transformer.cast(base.params, dtype), decoder.arch.num_layers)

  @jax.jit
  def states(params, tokens, positions, segment_ids):
    out, _ = model.apply({'params': params}, tokens, positions, segment_ids)
    return out.reshape(-1, out.shape[-1])

  hidden: list = [None] * len(encoded)
  for packed in _whole(encoded, rows, length, len(prefix)):
    members = [[encoded[i] for i in row] for row in packed]
    count = sum(int(e.loss.sum()) for row in members for e in row)
    batch = batch_of(members, length, count, encoded[0].target_ids.shape[1], prefix)
    h = np.asarray(states(params, batch.tokens, batch.positions, batch.segment_ids))
    h = h[batch.loss_positions].astype(ml_dtypes.bfloat16)
    at = 0
    for i in (i for row in packed for i in row):
      n = int(encoded[i].loss.sum())
      hidden[i] = h[at : at + n]
      at += n
  return np.concatenate(hidden)


def _whole(
  encoded: Sequence[Encoded], rows: int, length: int, prefix: int
) -> list[list[list[int]]]:
  """Indices in batches of rows, one kind a row: first fit into the newest batch."""
  batches: list[list[list[int]]] = []
  order = sorted(range(len(encoded)), key=lambda i: (encoded[i].after, i))
  room: list[int] = []
  for i in order:
    n, after = len(encoded[i].ids), encoded[i].after
    fits = [r for r, free in enumerate(room) if free >= n]
    fits = [r for r in fits if not batches[-1][r] or encoded[batches[-1][r][0]].after == after]
    if not fits:
      batches.append([[] for _ in range(rows)])
      room = [length - prefix] * rows
      fits = [0]
    batches[-1][fits[0]].append(i)
    room[fits[0]] -= n
  return batches
