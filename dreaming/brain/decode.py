"""Prefill and decode: prompts in, text or log-probabilities out.

Shapes come from a fixed set of buckets, so after one pass over them nothing compiles again. A
prompt is `prefix + prompt`; the KV cache of a prefix (instructions, few-shot examples) is computed
once for each set of weights and kept. Caches belong to the very params they were computed with:
another generation never sees them.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreaming.brain import kv_cache, programs, serving, transformer
from dreaming.brain.batch import SIZES, DecodeBatch, bucket, hold_back
from dreaming.brain.programs import Counting
from dreaming.brain.sampler import CANDIDATES, GREEDY, Sampler
from dreaming.brain.scoring import Asked, Scorer
from dreaming.brain.seen import Seen
from dreaming.brain.serving import top_candidates
from dreaming.brain.tokenizer import Tokenizer
from dreaming.brain.transformer import Architecture, Transformer
from dreaming.types import Mind

Prompt = str | tuple[int, ...]
"""Text, or token ids where control tokens are needed; without the beginning of sequence."""
Prefix = Prompt | Seen
"""What prompts may begin with: also pictures."""

_PREFIXES = 4  # kept KV caches: 37 MB each on the 270M
_MINDS = 1  # kept layouts for decoding: as large as the layers in f32, and made in a second
_LENGTHS = (8, 16, 32, 64, 128, 192, 256, 512, 1024, 2048, 4096, 8192)
_READ = (4, 8)  # rows, as which the prompts of a larger batch are read, where most are equal
_LARGE = 16  # rows, from which a batch leaves much memory behind
_TOKENS = 4096  # of all rows of a batch: their KV cache is 150 MB on the 270M


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Prefix:
  params: Any
  cache: tuple[kv_cache.LayerCache, ...]  # batch of one
  length: int


class Decoder(Counting):
  """Speaks with any Mind of one architecture.

  Example:
    decoder = Decoder(base.arch, base.tokenizer)
    decoder.generate(mind, ['The sky is'], max_tokens=8)
  """

  def __init__(self, arch: Architecture, tokenizer: Tokenizer, *, cache_length: int = 1024):
    self.arch, self.tokenizer, self.cache_length = arch, tokenizer, cache_length
    self._prefixes = collections.OrderedDict[tuple[int, Prefix, int], _Prefix]()
    self._model = Transformer(arch)
    # What decoding reads, by the params that it was made of: held, so that ids stay theirs.
    self._layers: collections.OrderedDict[int, tuple[Any, Any]] = collections.OrderedDict()
    self._embedding: tuple[Any, Any] = (None, None)
    self._prefill = jax.jit(self.counted(self._prefill_fn), static_argnames=('batch',))
    self._step = jax.jit(self.counted(self._step_fn), static_argnames='mode', donate_argnums=(2,))
    self._first = jax.jit(self.counted(self._sample_fn), static_argnames='mode')
    self._spread = jax.jit(self.counted(self._spread_fn))
    self._score = Scorer(arch, self.counted)

  # ---- Public ----

  def generate(
    self,
    mind: Mind,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    sampler: Sampler = GREEDY,
    stop: Sequence[str] = ('\n',),
    prefix: Prefix = '',
    avoid: int | None = None,
  ) -> list[str]:
    """Continues each prompt, to `stop` (not included), end of turn, or `max_tokens`.

    None begins with the token `avoid`.
    """
    texts = [''] * len(prompts)
    before = len(self.tokenizer.encode(prefix)) if isinstance(prefix, str) else len(prefix)
    groups = self._groups(prompts, before + max_tokens)
    left = collections.defaultdict[tuple[int, int], list[DecodeBatch]](list)  # by size and slots

    def go_on(batch: DecodeBatch, most_open: int = 0) -> None:
      for number, text in self._continue(mind, batch, sampler, stop, most_open=most_open):
        texts[number] = text

    for group in groups:
      rows = [prompts[i] for i in group]
      batch = self._begin(mind, rows, group, max_tokens, sampler, prefix, avoid)
      size = batch.size
      go_on(batch, size // 2 if len(groups) > 1 else 0)
      alike = left[size, batch.slots]
      alike += batch.unended()
      if sum(len(b.open) for b in alike) > size // 2:
        whole = DecodeBatch.join(alike, size)
        go_on(whole, size // 2)  # so that what the next group leaves fits beside it
        alike[:] = whole.unended()
      if len(group) >= _LARGE:
        programs.trim()
    for (size, _), alike in left.items():
      if alike:
        go_on(DecodeBatch.join(alike, size))
    return texts

  def stream(
    self,
    mind: Mind,
    prompt: Prompt,
    *,
    max_tokens: int,
    sampler: Sampler = GREEDY,
    stop: Sequence[str] = ('\n',),
    prefix: Prefix = '',
  ) -> Iterator[str]:
    """`generate` for one prompt, in pieces as they come; what may begin a stop is held back."""
    said = ''
    batch = self._begin(mind, [prompt], [0], max_tokens, sampler, prefix)
    for _, text in self._continue(mind, batch, sampler, stop, partial=True):
      if len(text) > len(said):
        yield text[len(said) :]
        said = text

  def logprobs(
    self,
    mind: Mind,
    prompts: Sequence[Prompt],
    continuations: Sequence[str],
    *,
    prefix: str | Sequence[Prompt] = '',
    shortlist: np.ndarray | None = None,
  ) -> list[np.ndarray]:
    """Log-probability of each token of each continuation after its prompt, in nats.

    Prompts may have a prefix each; equal prefixes, and equal prompts after them, are read once.
    With `shortlist` (sorted ids, all tokens of the continuations among them) the probabilities are
    among those tokens only: good for comparing texts, at a fraction of the cost.
    """
    contexts = [prefix] * len(prompts) if isinstance(prefix, str) else prefix
    encode = functools.cache(self._ids)  # what is shared comes once for each prompt
    asked = [
      self._asked(c, p, encode(tail), encode)
      for c, p, tail in zip(contexts, prompts, continuations, strict=True)
    ]
    return self._score(mind.params, asked, shortlist)

  def choose(
    self, mind: Mind, prompts: Sequence[str], options: Sequence[str], *, prefix: str = ''
  ) -> np.ndarray:
    """Log-probabilities of the first token of each option after each prompt, Float['P O'], nats.

    One pass for a prompt, however many options: good for labels whose first tokens differ.
    """
    encode = functools.cache(self._ids)
    asked = [self._asked(prefix, p, encode(o)[:1], encode) for p in prompts for o in options]
    return np.reshape(self._score(mind.params, asked), (len(prompts), len(options)))

  # ---- Host side ----

  def _groups(self, prompts: Sequence[Prompt], more: int) -> list[list[int]]:
    """Indices in batches of similar length, so that little is padding, and no batch is too large.

    Args:
      prompts: what is read.
      more: tokens that every row has beside its prompt.
    """
    sizes = [len(self.tokenizer.encode(p)) if isinstance(p, str) else len(p) for p in prompts]
    order = sorted(range(len(prompts)), key=lambda i: sizes[i])
    groups: list[list[int]] = []
    while order:
      fit = next((n for n in SIZES[::-1] if n * (sizes[order[:n][-1]] + more) <= _TOKENS), SIZES[0])
      groups.append(order[:fit])
      order = order[fit:]
    return groups

  def _asked(self, prefix: Prompt, prompt: Prompt, tail: Sequence[int], encode) -> Asked:
    context = tuple(encode(prefix, bos=True)) if prefix else ()
    asked = Asked(context, tuple(encode(prompt, bos=not prefix)), tuple(tail))
    if not asked.prompt:
      raise ValueError('an empty prompt after a prefix: there is nothing to continue')
    self._check_room(len(asked))
    return asked

  def _check_room(self, tokens: int) -> None:
    if tokens > self.cache_length:
      raise ValueError(
        f'{tokens} tokens of prompt exceed decode.cache_length={self.cache_length}: '
        'shorten the message or raise it'
      )

  def _ids(self, prompt: Prefix, bos: bool = False) -> list[int]:
    ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    return [self.tokenizer.bos, *ids] if bos else ids

  def _prefix(self, mind: Mind, prefix: Prefix) -> _Prefix:
    empty = kv_cache.init_cache(self.arch, 1, self.cache_length)
    if not prefix:
      return _Prefix(params=mind.params, cache=empty, length=0)
    key = (id(mind.params), prefix, self.cache_length)
    found = self._prefixes.get(key)
    if found is None or found.params is not mind.params:  # ids are used again: hold on to it
      ids = self._ids(prefix, bos=True)
      tokens, positions = self._pad([ids], 0, 1)
      seen = prefix.laid(tokens.shape[1], 1) if isinstance(prefix, Seen) else None
      laid = self._laid(mind)
      cache, _ = self._prefill(mind.params, laid, empty, tokens, positions, seen, batch=1)
      found = _Prefix(params=mind.params, cache=cache, length=len(ids))
      if isinstance(prefix, Seen):  # nobody else asks with these pictures
        return found
      self._prefixes[key] = found
      while len(self._prefixes) > _PREFIXES:
        self._prefixes.popitem(last=False)
    self._prefixes.move_to_end(key)
    return found

  def _room(self, state: _Prefix, length: int) -> tuple[kv_cache.LayerCache, ...]:
    """A prefix's cache with room for `length` tokens and little more.

    Every row of a batch gets a copy: 32 rows of a full cache of 1,024 are 700 MB on the 270M.
    """
    return kv_cache.trim(state.cache, bucket(length, _LENGTHS))

  def rest(self) -> None:
    """Drops all that is kept to be fast: it is made again where it is needed, in seconds."""
    self._prefixes.clear()
    self._layers.clear()
    self._embedding = (None, None)
    self._score.rest()

  def forget(self, mind: Mind) -> None:
    """Drops the kept caches of a mind that will not speak again."""
    for key in [k for k, v in self._prefixes.items() if v.params is mind.params]:
      del self._prefixes[key]
    self._layers.pop(id(mind.params), None)
    self._score.forget(mind.params)

  def _laid(self, mind: Mind) -> dict[str, Any]:
    """What is laid out for decoding: nothing where weights lie on several devices."""
    if len(mind.params['embedder']['input_embedding'].devices()) > 1:
      return {}
    key = id(mind.params)
    if key not in self._layers or self._layers[key][0] is not mind.params:
      self._layers[key] = mind.params, serving.layers(mind.params)
      while len(self._layers) > _MINDS:
        self._layers.popitem(last=False)
    self._layers.move_to_end(key)
    return {'layers': self._layers[key][1]}

  def _serving(self, mind: Mind, batch: int, sampler: Sampler) -> dict[str, Any]:
    """What a step takes beside the params."""
    table = (embedder := mind.params['embedder'])['input_embedding']
    out = self._laid(mind)
    # Of several rows, and on accelerators, the full product is no slower.
    alone = batch == 1 and sampler.mode != 'free' and 'said' not in embedder
    if out and alone and next(iter(table.devices())).platform == 'cpu':
      if self._embedding[0] is not table:  # the same for all minds of a base
        self._embedding = table, serving.quantize(table)
      out['embedding'] = self._embedding[1]
    return out

  def _pad(self, rows, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, positions) of `size` rows in bucketed shapes; padding has position -1."""
    length = max(len(r) for r in rows)
    self._check_room(start + length)
    tokens = np.zeros((size, bucket(length, _LENGTHS)), np.int32)
    positions = np.full(tokens.shape, -1, np.int32)
    for i, row in enumerate(rows):
      tokens[i, : len(row)] = row
      positions[i, : len(row)] = np.arange(start, start + len(row))
    return tokens, positions

  def _begin(self, mind, prompts, numbers, max_tokens, sampler, prefix, avoid=None) -> DecodeBatch:
    """Reads the prompts and draws a token for each; a text's number is one of `numbers`."""
    state = self._prefix(mind, prefix)
    rows = [self._ids(p, bos=not state.length) for p in prompts]
    if not all(rows):
      raise ValueError('an empty prompt: there is nothing to continue')
    size, heads = bucket(len(rows), SIZES), list(dict.fromkeys(map(tuple, rows)))
    few = next((n for n in _READ if len(heads) <= n < size), None)
    tokens, positions = self._pad(heads if few else rows, state.length, few or size)
    room = self.cache_length - state.length - max(len(r) for r in rows)
    max_tokens = min(max_tokens, room + 1)  # the last token is not read, so it needs no room
    numbers = np.pad(np.asarray(numbers, np.int32), (0, size - len(prompts)))
    # The last row's end: no slot is needed beyond it.
    kept = self._room(state, int(positions.max()) + 1 + max_tokens)
    given = self._laid(mind), kept, tokens, positions, None
    cache, logits = self._prefill(mind.params, *given, batch=len(tokens))
    start = positions.max(axis=1) + 1
    if few:  # equal prompts were read once
      index = np.pad([heads.index(tuple(r)) for r in rows], (0, size - len(rows)))
      cache, logits, start = self._spread((cache, logits, start), index)
    if avoid is not None:
      logits = logits.at[:, avoid].set(-np.inf)
    step = np.zeros(size, np.int32)
    noise = jax.random.key(sampler.seed), numbers, step, sampler.knobs
    token = transformer.said(mind.params, self._first(logits, *noise, mode=sampler.mode))
    return DecodeBatch(
      cache=cache, token=token, number=numbers, start=np.asarray(start), step=step + 1,
      ids=[[] for _ in prompts], most=[max_tokens] * len(prompts),
      open=set(range(len(prompts) if max_tokens > 0 else 0)),
    )  # fmt: skip

  def _continue(
    self, mind, batch: DecodeBatch, sampler, stop, *, partial=False, most_open=0
  ) -> Iterator[tuple[int, str]]:
    """Yields (number, text): each text once when it ends, or after every token with `partial`.

    Until at most `most_open` texts are left, which others may join.
    """
    ends = {self.tokenizer.eos, self.tokenizer.end_of_turn}
    key, knobs = jax.random.key(sampler.seed), sampler.knobs
    served = None

    def advance():
      nonlocal served
      served = self._serving(mind, batch.size, sampler) if served is None else served
      given = served, batch.cache, batch.token, batch.start + (batch.step - 1)
      noise = key, batch.number, batch.step, knobs
      batch.advance(*self._step(mind.params, *given, *noise, mode=sampler.mode))

    while len(batch.open) > most_open:
      if batch.heard:
        advance()
      # The next step is under way while this one's text is looked at. Not at the beginning: the
      # first text does not wait for what only a second one needs. Nor with several rows: once half
      # of them have ended, the others wait, and a step ahead is in vain.
      now, batch.heard = batch.token, True
      if batch.size == 1 and batch.step[0] > 1 and not batch.ends_now:
        advance()
      for row, new in enumerate(np.asarray(now)[: len(batch.ids)].tolist()):
        if row not in batch.open:
          continue
        text = batch.hear(row, new, ends, stop, self.tokenizer)
        if row not in batch.open:
          yield int(batch.number[row]), text
        elif partial:
          yield int(batch.number[row]), hold_back(text, stop)

  # ---- Device side ----

  def _prefill_fn(self, params, served, cache, tokens, positions, seen, batch):
    """tokens Int['B L'] -> (cache of B rows, logits after each row's last token Float['B V'])."""
    cache = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape[1:])), cache)
    given = tokens, positions, None, cache, seen
    hidden, cache = self._model.apply(serving.variables(params, served), *given)
    last = jnp.argmax(positions, axis=1)
    return cache, transformer.unembed(params, hidden[jnp.arange(batch), last])

  def _spread_fn(self, rows, index):
    return jax.tree.map(lambda x: x[index], rows)

  def _step_fn(self, params, served, cache, token, position, *noise, mode):
    given = token[:, None], position[:, None], None, cache
    hidden, cache = self._model.apply(serving.variables(params, served), *given)
    if 'embedding' not in served:
      token = self._sample_fn(transformer.unembed(params, hidden[:, 0]), *noise, mode)
      return cache, transformer.said(params, token)
    k = 1 if mode == 'greedy' else CANDIDATES
    table = params['embedder']['input_embedding']
    values, ids, logits = serving.propose(served['embedding'], table, hidden[0, 0], k)
    if mode == 'greedy':
      return cache, ids[:, 0].astype(jnp.int32)
    return cache, self._draw(values, ids, logits, *noise)

  def _sample_fn(self, logits, key, numbers, step, knobs, mode):
    if mode == 'greedy':
      return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if mode == 'free':
      return self._drawer(key)(numbers, step, logits / knobs[0]).astype(jnp.int32)
    values, ids = top_candidates(logits, min(CANDIDATES, logits.shape[-1]))
    return self._draw(values, ids, logits, key, numbers, step, knobs)

  def _draw(self, values, ids, logits, key, numbers, step, knobs):
    """One of the likeliest tokens, by top-k and top-p; the mass of all is that of `logits`."""
    temperature, top_k, top_p = knobs
    values = values / temperature
    rank = jnp.arange(values.shape[-1], dtype=jnp.float32)[None]
    total = jax.nn.logsumexp(logits / temperature, axis=-1, keepdims=True)
    probs = jnp.exp(values - total)
    before = jnp.cumsum(probs, axis=-1) - probs  # mass of likelier tokens
    keep = (before < top_p) & ((top_k == 0) | (rank < top_k))
    pick = self._drawer(key)(numbers, step, jnp.where(keep, values, -jnp.inf))
    return jnp.take_along_axis(ids, pick[:, None], axis=1)[:, 0].astype(jnp.int32)

  def _drawer(self, key):
    def draw(number, step, row):
      return jax.random.categorical(jax.random.fold_in(jax.random.fold_in(key, step), number), row)

    return jax.vmap(draw)
