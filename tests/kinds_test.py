"""What words are, and how well that fits a relation."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming.sleep import kinds

ALONE = {'tuba': 'instrument', 'asthma': 'illness', 'cake': 'food'}
N = len(kinds.LABELS)


class Reader:
  """Knows what a word is by itself, and takes all words of a message for verbs."""

  def choose(self, mind, prompts, options, *, prefix):
    del mind, prefix
    table = np.full((len(prompts), len(options)), -9.0, np.float32)
    for row, prompt in zip(table, prompts, strict=True):
      label = 'verb' if prompt.startswith('"') else ALONE[prompt.removesuffix(':')]
      row[options.index(f' {label}')] = 0.0
    return table


def at(label):
  return kinds.LABELS.index(label)


def test_a_word_is_asked_about_alone_and_in_its_message():
  found = kinds.of_words(Reader(), None, [('I play the tuba.', ['tuba']), ('...', [])])
  assert found[1] == {}
  row = found[0]['tuba']
  assert row.shape == (N,) and np.exp(row).sum() == pytest.approx(1)
  assert row[at('instrument')] == pytest.approx(row[at('verb')])  # both have their say
  assert row[at('instrument')] > row[at('food')] + 4
  assert kinds.of_words(Reader(), None, [('x', [])]) == [{}]


def test_a_kind_fits_relations_that_have_such_values():
  shares, prior = kinds.profiles(Reader(), None, [['tuba'], ['carrot cake', 'asthma'], []])
  assert shares.shape == (3, N) and np.allclose(shares.sum(axis=1), 1)
  assert prior.sum() == pytest.approx(1)
  tuba = kinds.of_values(Reader(), None, ['tuba'])[0]
  plays, eats, unknown = (kinds.fits(tuba, own, prior) for own in shares)
  assert plays > 0.3 > unknown > eats  # of what has no examples nothing is known
  assert unknown == pytest.approx(0, abs=0.01)


def test_what_fits_is_bounded():
  prior = np.full(N, 1 / N)
  never = np.full(N, 1e-9)
  row = np.full(N, -30.0)
  row[at('food')] = 0.0
  assert kinds.fits(row, never, prior) == -3
  surely = never.copy()
  surely[at('food')] = 1.0
  assert kinds.fits(row, surely, prior) == 3


def test_labels_differ_in_their_first_word_and_have_known_types():
  assert len(set(kinds.LABELS)) == N and all(' ' not in k for k in kinds.LABELS)
  assert {'verb', 'time', 'quality'} == {k for k, types in kinds.KINDS.items() if not types}
