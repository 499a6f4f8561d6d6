"""Context distillation: the weights alone learn to say what they say with the episode to read.

The teacher is the base (or Blue) with a dream's experiences in its context, in the form of the
reading examination; what it thinks at each token of the dream, its top K among the night's
shortlist, is computed once and kept beside the night. On policy the student answers first, greedily
and by itself, and the teacher judges that very answer.

Sources: Askell et al., arXiv 2112.00861, section 2; Snell et al., arXiv 2209.15189; on policy:
Self-Distillation Fine-Tuning, arXiv 2601.19897.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import jax
import ml_dtypes
import numpy as np

from dreaming.brain import lora, prompts, transformer
from dreaming.brain.decode import Decoder
from dreaming.brain.transformer import Transformer
from dreaming.sleep import artifacts
from dreaming.sleep.aims import Aims
from dreaming.sleep.grounding import READING
from dreaming.sleep.packing import Encoded, Example, batch_of, encode
from dreaming.sleep.replay import Replay
from dreaming.types import Batch, Experience, Lora, Mind, Params

if TYPE_CHECKING:
  from dreaming.sleep.corpus import CorpusConfig

_LENGTHS = (256, 384, 512, 768, 1024, 1536, 2048, 4096)  # of a teacher's rows
_ANSWER_TOKENS = 12


def context(sources: Sequence[int], told: Mapping[int, Experience]) -> str | None:
  """What the teacher reads before a dream; None where not all of its experiences are there."""
  if not sources or not {*sources} <= told.keys():
    return None
  said = (f'{told[i].speaker} says: "{told[i].content}"\n' for i in sources)
  return READING + ''.join(said)


class Teacher:
  """Thinks about dreams with their episodes in its context.

  Args:
    decoder: of the teacher's architecture.
    mind: the base, or Blue.
    name: of the mind, for what is kept.
    told: experiences by id.
    shortlist: sorted ids that its probabilities are among.
    top_k: of its distribution.
    rows: of a batch.
    dtype: of its products.
    keep: a directory for what it said, or None.
  """

  def __init__(
    self,
    decoder: Decoder,
    mind: Mind,
    name: str,
    told: Mapping[int, Experience],
    shortlist: np.ndarray,
    *,
    top_k: int,
    rows: int,
    dtype: str,
    keep: pathlib.Path | None = None,
  ):
    self._decoder, self._mind, self._name, self._told = decoder, mind, name, told
    self._shortlist, self._top_k, self._rows, self._dtype = shortlist, top_k, rows, dtype
    self._keep = keep
    self._stacked: Params | None = None
    model = Transformer(decoder.arch, scanned=True)

    @jax.jit
    def states(params, tokens, positions, segment_ids):
      out, _ = model.apply({'params': params}, tokens, positions, segment_ids)
      return out.reshape(-1, out.shape[-1])

    self._states = states

  def taught(self, examples: Sequence[Example], encoded: Sequence[Encoded]) -> list[Encoded]:
    """The encoded examples with what the teacher thinks, where all of their sources are known."""
    contexts = [context(e.sources, self._told) for e in examples]
    known = [i for i, c in enumerate(contexts) if c is not None]
    if not known:
      return list(encoded)
    probs, ids = self._thoughts([encoded[i] for i in known], [contexts[i] or '' for i in known])
    out, at = list(encoded), 0
    for i in known:
      n = int(encoded[i].loss.sum())
      index = np.searchsorted(self._shortlist, ids[at : at + n]).astype(np.int32)
      out[i] = dataclasses.replace(out[i], taught_ids=index, taught_probs=probs[at : at + n])
      at += n
    return out

  def _thoughts(
    self, encoded: Sequence[Encoded], contexts: Sequence[str]
  ) -> tuple[np.ndarray, np.ndarray]:
    """(probs, ids) at all loss positions in order, [N, K] each; kept where a directory is."""
    parts = [self._name, self._dtype, self._top_k, self._rows, self._shortlist.tolist()]
    parts += [[c, e.ids.tolist(), e.after > 0] for c, e in zip(contexts, encoded, strict=True)]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    path = self._keep / f'teacher-{key}.npz' if self._keep else None
    if path is not None and path.exists():
      try:
        with path.open('rb') as file, np.load(file, allow_pickle=False) as kept:
          return kept['probs'], kept['ids']
      except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # damaged: made anew
    hidden = self._think([_after(e) for e in encoded], contexts)
    found = Replay(list(encoded), hidden).taught(self._mind, self._shortlist, self._top_k)
    probs = np.concatenate([e.target_probs for e in found])
    ids = np.concatenate([e.target_ids for e in found])
    wide = (0, 0), (0, encoded[0].target_ids.shape[1] - probs.shape[1])  # a short shortlist
    probs, ids = np.pad(probs, wide), np.pad(ids, wide, constant_values=self._shortlist[0])
    if path is not None:
      with artifacts.replacing(path) as temporary:
        np.savez(temporary, probs=probs, ids=ids)
    return probs, ids

  def _think(self, encoded: Sequence[Encoded], contexts: Sequence[str]) -> np.ndarray:
    """BFloat16['N D']: its last states at all loss positions, in order."""
    groups: dict[str, list[int]] = {}
    for i, c in enumerate(contexts):
      groups.setdefault(c, []).append(i)
    heads = {c: self._decoder.tokenizer.encode(c, bos=True) for c in groups}
    need = max(len(heads[c]) + len(encoded[i].ids) for c, own in groups.items() for i in own)
    length = next((n for n in _LENGTHS if n >= need), need)
    laid: list[tuple[list[int], list[int]]] = []  # (a context's ids, who stands behind it)
    for c, own in groups.items():
      free = 0
      for i in own:
        if len(encoded[i].ids) > free:
          laid.append((heads[c], []))
          free = length - len(heads[c]) + 1
        laid[-1][1].append(i)
        free -= len(encoded[i].ids)
    hidden: list = [None] * len(encoded)
    for first in range(0, len(laid), self._rows):
      some = laid[first : first + self._rows]
      batches = [self._row(head, [encoded[i] for i in own], length) for head, own in some]
      batches += batches[-1:] * (self._rows - len(some))
      read = (
        np.concatenate([b.tokens for b in batches]),
        np.concatenate([b.positions for b in batches]),
        np.concatenate([b.segment_ids for b in batches]),
      )
      states = np.asarray(self._states(self._params(), *read))
      for r, (_, own) in enumerate(some):
        h = states[r * length + batches[r].loss_positions].astype(ml_dtypes.bfloat16)
        at = 0
        for i in own:
          n = int(encoded[i].loss.sum())
          hidden[i] = h[at : at + n]
          at += n
    return np.concatenate(hidden)

  def _row(self, head: Sequence[int], own: Sequence[Encoded], length: int) -> Batch:
    """One row: a context, and each example behind it as if it stood there alone."""
    *head, last = head  # it stands before each example: it predicts the first token
    own = [
      dataclasses.replace(e, ids=np.concatenate([[last], e.ids[1:]]), after=len(head)) for e in own
    ]
    count = sum(int(e.loss.sum()) for e in own)
    return batch_of([own], length, count, own[0].target_ids.shape[1], head)

  def _params(self) -> Params:
    if self._stacked is None:
      cast = transformer.cast(self._mind.params, self._dtype)
      self._stacked = transformer.stack(cast, self._decoder.arch.num_layers)
    return self._stacked


def teacher_of(
  decoder: Decoder,
  aims: Aims,
  told: Mapping[int, Experience],
  shortlist: np.ndarray,
  config: CorpusConfig,
) -> Teacher:
  """The teacher of a night."""
  assert aims.teacher is not None
  shape = {'top_k': config.top_k, 'rows': config.rows, 'dtype': config.dtype}
  return Teacher(decoder, aims.teacher, aims.teacher_name, told, shortlist, keep=aims.keep, **shape)


def _after(e: Encoded) -> Encoded:
  """With one token before its text, in the place of the beginning of sequence.

  The context's last token stands there: it is what predicts the text's first one.
  """
  if not e.after:
    return e
  return dataclasses.replace(
    e, ids=np.concatenate([[0], e.ids]), loss=np.concatenate([[False], e.loss])
  )


# ---- On policy ----


class Student:
  """Answers questions by itself, and has its answers judged: what train.train calls on_policy.

  Args:
    decoder: of the student's architecture.
    ground: what its adapter is added to.
    scale: alpha / rank.
    questions: examples that ask, with their sources.
    teacher: judges.
    prefix: few-shot examples as ids, before its questions; may be empty.
    rows, length, losses, top_k: of the batches.
  """

  def __init__(
    self,
    decoder: Decoder,
    ground: Params,
    scale: float,
    questions: Sequence[Example],
    teacher: Teacher,
    *,
    prefix: Sequence[int],
    rows: int,
    length: int,
    losses: int,
    top_k: int,
  ):
    self._decoder, self._ground, self._scale = decoder, ground, scale
    self._questions, self._teacher, self._prefix = questions, teacher, prefix
    self._rows, self._length, self._losses, self._top_k = rows, length, losses, top_k

  def __call__(self, adapter: Lora) -> list[Batch]:
    """What it says, in batches with `taught_ids` and `taught_probs`: reverse_kl's targets."""
    params = lora.materialize(self._ground, adapter, self._decoder.arch, scale=self._scale)
    mind = Mind(params=params, generation=-1)
    asked = [e.prompt for e in self._questions]
    said = self._decoder.generate(
      mind, asked, max_tokens=_ANSWER_TOKENS, prefix=prompts.ANSWER_PREFIX
    )
    self._decoder.forget(mind)
    examples = [
      dataclasses.replace(e, target=f'{answer}\n')
      for e, answer in zip(self._questions, said, strict=True)
    ]
    tokenizer, after = self._decoder.tokenizer, len(self._prefix)
    encoded = [encode(tokenizer, e, self._length, self._top_k, after=after) for e in examples]
    encoded = self._teacher.taught(examples, encoded)
    packed: list[list[Encoded]] = []
    free = 0
    for e in encoded:
      if len(e.ids) > free:
        packed.append([])
        free = self._length - after
      packed[-1].append(e)
      free -= len(e.ids)
    out = []
    for first in range(0, len(packed), self._rows):
      rows = packed[first : first + self._rows]
      rows += [[]] * (self._rows - len(rows))
      shape = self._length, self._losses, self._top_k, self._prefix
      out.append(batch_of(rows, *shape, taught=True))
    return out


def questions(
  examples: Sequence[Example], told: Mapping[int, Experience], count: int, seed: int
) -> list[Example]:
  """Examples that ask about what is told, `count` at most."""
  asking = [e for e in examples if e.asks and context(e.sources, told) is not None]
  order = np.random.default_rng(seed).permutation(len(asking))
  return [asking[i] for i in order[:count]]
