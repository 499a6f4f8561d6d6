"""An answer of the weights comes from the dreams that taught it."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from dreaming.brain import lora, weights
from dreaming.brain.transformer import ARCHITECTURES, Transformer
from dreaming.memory import embed
from dreaming.sleep import origins
from dreaming.sleep.train import TrainConfig
from dreaming.types import QA, Dream

ARCH = dataclasses.replace(ARCHITECTURES['tiny'], num_layers=2)
CONFIG = TrainConfig(rank=4, dtype='float32')


class Alike:
  """An embedder to whom all texts are alike: the gradients alone decide."""

  name = 'alike'

  def __call__(self, texts):
    return np.ones((len(texts), 1), np.float32)


def _dream(id, *pairs):
  qas = tuple(QA(question=q, answer=a) for q, a in pairs)
  return Dream(id=id, night=1, style='relation', text='', pairs=qas, sources=(id,))


DREAMS = [
  _dream(1, ('What pet has Ana?', 'a goat')),
  _dream(2, ('Where does Paul live?', 'Porto')),
  _dream(3, ('Which day is the exam?', 'Friday')),
  Dream(id=4, night=1, style='letter', text='Dear diary', sources=(4,)),
]


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
  config = weights.ModelConfig(architecture='tiny', weights='random')
  base = weights.load(config, tmp_path_factory.mktemp('cache'))
  params = Transformer(ARCH).init(jax.random.key(1), np.zeros((1, 4), np.int32))['params']
  adapter = lora.init(jax.random.key(0), ARCH, rank=4, targets='.*')
  return {
    'params': params, 'arch': ARCH, 'adapter': adapter, 'tokenizer': base.tokenizer,
    'config': CONFIG,
  }  # fmt: skip


@pytest.mark.parametrize('which', [0, 1, 2])
def test_the_dream_with_the_same_question_and_answer_is_first(parts, which):
  (asked,) = DREAMS[which].pairs
  found = origins.origins(asked, DREAMS, embedder=Alike(), candidates=4, **parts)
  assert found[0].dream is DREAMS[which]
  assert found[0].similarity == pytest.approx(1, abs=1e-4)
  assert [o.similarity for o in found] == sorted((o.similarity for o in found), reverse=True)
  assert {o.dream.id for o in found} == {1, 2, 3}  # what has no question cannot be asked
  assert all(-1.001 <= o.similarity < 0.999 for o in found[1:])


def test_the_nearest_in_meaning_are_the_candidates(parts):
  dreams = [_dream(i, (f'What is number {i}?', str(i))) for i in range(1, 9)] + DREAMS
  chosen = origins._likeliest(DREAMS[0].pairs[0], dreams, embed.make('wordllama'), 3)
  assert chosen[0] == (DREAMS[0], DREAMS[0].pairs[0]) and len(chosen) == 3


def test_without_dreams_there_is_no_origin(parts):
  asked = QA(question='What?', answer='That')
  assert origins.origins(asked, [], embedder=Alike(), **parts) == []
  assert origins.origins(asked, DREAMS[3:], embedder=Alike(), **parts) == []
