"""What words are, alone and in their message."""

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


def test_every_label_is_one_word_of_its_own():
  assert len(set(kinds.LABELS)) == N and all(' ' not in k for k in kinds.LABELS)
  assert set(kinds.LABELS) > kinds.NO_THINGS
