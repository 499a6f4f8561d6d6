"""Texts laid out as trees are read as if each stood alone, and what they share is read once."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreaming.brain import masks, scoring, weights
from dreaming.brain.scoring import Asked, Scorer
from dreaming.brain.transformer import ARCHITECTURES, Transformer, unembed

ARCH = dataclasses.replace(
  ARCHITECTURES['tiny'], num_layers=2, global_every=2, sliding_window=12, embed_dim=24,
  vocab_size=256,
)  # fmt: skip
PARAMS = weights._random(ARCH, 0)


@jax.jit
def _forward(tokens, positions):
  hidden, _ = Transformer(ARCH).apply({'params': PARAMS}, tokens, positions)
  return unembed(PARAMS, hidden)[0]


@functools.cache
def logits_of(ids):
  """Logits after each token, by a forward of this text, padded so that it compiles once."""
  room = 48 - len(ids)
  positions = np.pad(np.arange(len(ids)), (0, room), constant_values=-1)
  return np.asarray(_forward(np.pad(ids, (0, room))[None], positions[None]))[: len(ids)]


def alone(asked, among=None):
  """log p of the tail's tokens as if the text stood alone."""
  ids = (*asked.context, *asked.prompt, *asked.tail)
  logits = logits_of(ids)[len(ids) - len(asked.tail) - 1 : -1]
  if among is not None:
    logits = np.where(np.isin(np.arange(logits.shape[1]), among), logits, -np.inf)
  logp = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
  return logp[np.arange(len(asked.tail)), asked.tail]


def texts(count, seed=0):
  """Few contexts and prompts, many tails: of no token, one, and several."""
  rng = np.random.default_rng(seed)

  def ids(n):
    return tuple(rng.integers(1, 256, n).tolist())

  contexts, prompts = [(), ids(9), ids(20)], [ids(1), ids(5), ids(7), ids(16)]
  return [
    Asked(contexts[rng.integers(3)], prompts[rng.integers(4)], ids(int(rng.integers(0, 5))))
    for _ in range(count)
  ]


def test_each_is_read_as_if_it_stood_alone():
  asked = texts(40)
  for got, text in zip(Scorer(ARCH)(PARAMS, asked), asked, strict=True):
    assert np.allclose(got, alone(text), atol=1e-4)


def test_so_it_is_layer_by_layer_on_accelerators(monkeypatch):
  asked, scorer = texts(20), Scorer(ARCH)
  scanned = scorer(PARAMS, asked)
  monkeypatch.setattr(scorer, '_scanned', None)
  monkeypatch.setattr(scoring, '_SCANNED_ON', ())
  for got, want in zip(scorer(PARAMS, asked), scanned, strict=True):
    assert np.allclose(got, want, atol=1e-4)


@pytest.mark.parametrize('apart', [False, True])
def test_a_kept_context_changes_nothing_but_what_is_read(monkeypatch, apart):
  """However many contexts there are, and whether their keys and values are kept or not."""
  monkeypatch.setattr(scoring, '_CONTEXTS', 2 if apart else 4)
  reads, scorer, asked = [], Scorer(ARCH), texts(40)
  read = scorer._read
  monkeypatch.setattr(scorer, '_read', lambda *a: reads.append(a[1].shape) or read(*a))
  for _ in range(2):
    for got, text in zip(scorer(PARAMS, asked), asked, strict=True):
      assert np.allclose(got, alone(text), atol=1e-4)
  assert reads == ([] if apart else [(1, 64), (1, 64)])  # of () there is nothing to keep
  scorer(weights._random(ARCH, 1), asked)
  assert len(reads) == (0 if apart else 4)  # another mind reads for itself


def test_few_contexts_are_kept(monkeypatch):
  monkeypatch.setattr(scoring, '_KEPT', 2)
  scorer = Scorer(ARCH)
  for i in range(1, 4):
    scorer(PARAMS, [Asked((i, i), (4,), (5, 6))])
  assert list(scorer._kept) == [(2, 2), (3, 3)]


def test_among_a_shortlist():
  among = np.arange(0, 256, 2)
  asked = [dataclasses.replace(t, tail=tuple(x // 2 * 2 for x in t.tail)) for t in texts(9)]
  for got, text in zip(Scorer(ARCH)(PARAMS, asked, among), asked, strict=True):
    assert np.allclose(got, alone(text, among), atol=1e-4)


def test_what_is_shared_is_read_once():
  asked = [Asked((5,) * 30, (6,) * 10, (7, i)) for i in range(1, 41)]
  rows = [r for some in scoring.lay_out(asked, rows=2) for r in some]
  assert len(rows) == 1
  assert rows[0].at == 30 + 10 + 40  # the last token of a tail is not read
  assert sorted(rows[0].before) == list(range(40))


def test_all_is_laid_out_once_in_few_shapes():
  asked = texts(300, seed=1)
  batches = list(scoring.lay_out(asked, rows=2))
  assert sorted(n for b in batches for r in b for n in r.before) == list(range(300))
  assert {(len(b), len(b[0].tokens)) for b in batches} <= {(2, 512), (1, 512)}
  assert list(scoring.lay_out([], rows=2)) == []


def test_a_long_text_gets_a_row_that_holds_it():
  (row,) = next(scoring.lay_out([Asked((), (1,) * 700, (2,))], rows=2))
  assert len(row.tokens) == 1024


def test_a_row_of_logits_is_made_once_for_all_its_tokens(monkeypatch):
  made = []
  chunk = scoring._chunk
  monkeypatch.setattr(scoring, '_chunk', lambda *a: made.append(len(a[2])) or chunk(*a))
  asked = [Asked((), (1, 2, 3), (i,)) for i in range(1, 200)]
  got = Scorer(ARCH)(PARAMS, asked)
  assert made == [scoring._CHUNKS[0]]
  assert np.exp(np.concatenate(got)).sum() < 1


def test_another_mind_is_not_scored_with_the_last_ones_weights():
  other, scorer, asked = weights._random(ARCH, 1), Scorer(ARCH), texts(5)
  first, second = scorer(PARAMS, asked), scorer(other, asked)
  assert not np.allclose(np.concatenate(first), np.concatenate(second))
  assert np.array_equal(np.concatenate(first), np.concatenate(scorer(PARAMS, asked)))
  scorer.forget(PARAMS)
  assert (scorer._stacked, len(scorer._kept)) == ((None, None), 0)


# ---- The tree ----


def test_a_token_sees_the_path_to_it():
  paths = [(1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 1, 2), (1, 2, 0), (2, 0, 0), (2, 1, 0), (0, 0, 0)]
  ids = jnp.asarray([[masks.segment(*p) for p in paths]])
  arch = dataclasses.replace(ARCH, sliding_window=100)
  at = jnp.zeros_like(ids)
  mask, _ = masks.attention(arch, at, at, ids)
  seen = {paths[q]: [paths[k] for k in np.flatnonzero(mask[0, q])] for q in range(len(paths))}
  assert seen == {
    (1, 0, 0): [(1, 0, 0)],
    (1, 1, 0): [(1, 0, 0), (1, 1, 0)],
    (1, 1, 1): [(1, 0, 0), (1, 1, 0), (1, 1, 1)],
    (1, 1, 2): [(1, 0, 0), (1, 1, 0), (1, 1, 2)],
    (1, 2, 0): [(1, 0, 0), (1, 2, 0)],
    (2, 0, 0): [(2, 0, 0)],
    (2, 1, 0): [(2, 0, 0), (2, 1, 0)],
    (0, 0, 0): [],
  }  # fmt: skip


def test_a_place_beyond_the_tree_is_refused():
  with pytest.raises(ValueError, match='1024'):
    masks.segment(1, 1024)
