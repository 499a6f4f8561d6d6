"""Text to vectors: the embedder that recall, novelty and diversity measure with.

An embedder is any callable with a name and a dimension; the diary keeps vectors by that name, so
two embedders never mix. The default is WordLlama (https://github.com/dleemiller/WordLlama): static
token vectors distilled from a large model's embedding table, averaged; no network and no torch.
"""

from __future__ import annotations

import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from dreaming import types


class Embedder(Protocol):
  """Maps texts to unit rows Float['N dim'] in f32; a text without any token gives a zero row."""

  name: str
  dim: int

  def __call__(self, texts: Sequence[str]) -> np.ndarray: ...


def make(name: str, encoders: bool = False) -> Embedder:
  """The embedder of `config.memory.embedder`, or with `encoders` of `config.memory.encoder`.

  Raises:
    ValueError: for an unknown name.
    FileNotFoundError: what it is made of is not there.
  """
  if name == 'wordllama':
    return wordllama()
  if encoders:
    from dreaming.memory import encoder  # brings jax

    return encoder.load(name)
  raise ValueError(f"memory.embedder is {name!r}, known is 'wordllama'")


def experience_text(experience: types.Experience) -> str:
  """What stands for an experience in the index: what was said or shown, not the agent's answer."""
  seen = [m.description for m in experience.media if m.description]
  return '\n'.join([experience.content, *seen])


class WordLlama:
  """Mean of static token vectors, normalized.

  Args:
    tokenizer: a `tokenizers.Tokenizer`.
    table: Float['V D'], kept in the precision that it comes in.
  """

  name = 'wordllama-l2-supercat-256'

  def __init__(self, tokenizer, table: np.ndarray):
    tokenizer.no_padding()
    tokenizer.no_truncation()
    self._tokenizer = tokenizer
    self._table = table
    self.dim = table.shape[1]

  def __call__(self, texts: Sequence[str]) -> np.ndarray:
    rows = np.zeros((len(texts), self.dim), np.float32)
    for row, encoding in zip(
      rows, self._tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True
    ):
      if encoding.ids:
        # Counting first keeps a long message from gathering one row for each of its tokens.
        ids, counts = np.unique(encoding.ids, return_counts=True)
        total = counts.astype(np.float32) @ self._table[ids].astype(np.float32)
        row[:] = total / max(float(np.linalg.norm(total)), 1e-12)
    return rows


def wordllama() -> WordLlama:
  """WordLlama from the files in its wheel, in about 0.1 s.

  Its own loader looks for the tokenizer elsewhere and downloads it, and importing the package takes
  half a second and reconfigures logging; so its two files are read here, and it is never imported.

  Raises:
    FileNotFoundError: the package, or one of its files, is not installed.
    ValueError: one of the files is damaged.
  """
  import tokenizers
  from safetensors import SafetensorError
  from safetensors.numpy import load_file

  spec = importlib.util.find_spec('wordllama')
  if spec is None or spec.origin is None:
    raise FileNotFoundError('the embedder needs the package wordllama: pip install wordllama')
  root = pathlib.Path(spec.origin).parent
  weights = root / 'weights' / 'l2_supercat_256.safetensors'
  vocabulary = root / 'tokenizers' / 'l2_supercat_tokenizer_config.json'
  for path in (weights, vocabulary):
    if not path.is_file():
      raise FileNotFoundError(f'{path} is missing: pip install --force-reinstall wordllama')
  try:
    table = load_file(weights)['embedding.weight']
  except (SafetensorError, KeyError) as e:
    raise ValueError(f'{weights} is damaged ({e}): reinstall wordllama') from e
  try:
    tokenizer = tokenizers.Tokenizer.from_file(str(vocabulary))
  except Exception as e:  # the package raises bare Exceptions
    raise ValueError(f'{vocabulary} is damaged ({e}): reinstall wordllama') from e
  if tokenizer.get_vocab_size() > len(table):
    raise ValueError(f'{weights} has too few rows for {vocabulary}: reinstall wordllama')
  return WordLlama(tokenizer, table)
