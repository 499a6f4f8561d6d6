"""Texts that are decoded together: what the next step needs of each, and which are still open.

Most replies end after a few tokens, and a batch goes on for its longest. So those that are left
over wait for those of other batches, and go on with them. A smaller batch would be faster, too, but
needs a program of its own, which takes longer to load than is gained.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from dreaming.brain.kv_cache import LayerCache
from dreaming.brain.tokenizer import Tokenizer

SIZES = (1, 2, 4, 8, 16, 32)  # rows


def bucket(n: int, sizes: Sequence[int]) -> int:
  """The smallest of `sizes` that holds n; beyond them a multiple of the last."""
  return next((s for s in sizes if n <= s), -(-n // sizes[-1]) * sizes[-1])


@dataclasses.dataclass(kw_only=True)
class DecodeBatch:
  """Some of its rows are texts, the first ones; the rest is padding.

  Each text's number decides its noise, so that none depends on what shares its batch.
  """

  cache: tuple[LayerCache, ...]
  token: Int[Array, 'B']  # the latest
  start: Int[np.ndarray, 'B']  # position of the first new token
  step: Int[np.ndarray, 'B']  # new tokens that were drawn
  number: Int[np.ndarray, 'B']
  ids: list[list[int]]  # new tokens that were heard
  most: list[int]  # tokens that it may have
  open: set[int]  # rows whose texts have not ended
  heard: bool = False  # whether the latest token was

  @property
  def size(self) -> int:
    return len(self.start)

  @property
  def slots(self) -> int:
    return max(layer.k.shape[1] for layer in self.cache)

  @property
  def ends_now(self) -> bool:
    """Whether no text has room for more than the latest token."""
    return all(self.step[row] >= self.most[row] for row in self.open)

  def advance(self, cache: tuple[LayerCache, ...], token: Int[Array, 'B']) -> None:
    self.cache, self.token, self.step, self.heard = cache, token, self.step + 1, False

  def hear(
    self, row: int, token: int, ends: Collection[int], stop: Sequence[str], tokenizer: Tokenizer
  ) -> str:
    """A row's text with its latest token; where that ends it, it is not open any more."""
    ids = self.ids[row]
    if token not in ends:
      ids.append(token)
    text = tokenizer.decode(ids)
    cut = min((at for s in stop if (at := text.find(s)) >= 0), default=None)
    if cut is not None or token in ends or len(ids) == self.most[row]:
      self.open.remove(row)
    return text[:cut]

  def unended(self) -> list[DecodeBatch]:
    """Its open texts in a batch without padding; nothing where none is open."""
    return [DecodeBatch.join([self])] if self.open else []

  @classmethod
  def join(cls, batches: Sequence[DecodeBatch], size: int = 0) -> DecodeBatch:
    """The open texts of all, whose caches have as many slots, padded to `size` rows."""
    chosen = [sorted(b.open) for b in batches]
    count = sum(map(len, chosen))
    ids, most = (
      [getattr(b, name)[row] for b, rows in zip(batches, chosen, strict=True) for row in rows]
      for name in ('ids', 'most')
    )
    if last := next((rows for rows in reversed(chosen) if rows), None):
      last += last[-1:] * (size - count)  # what it says is not listened to

    def taken(*values: Any) -> np.ndarray:
      parts = zip(values, chosen, strict=True)
      return np.concatenate([np.asarray(value)[np.asarray(rows, int)] for value, rows in parts])

    rows = {
      name: jax.tree.map(taken, *(getattr(b, name) for b in batches))
      for name in ('cache', 'token', 'start', 'step', 'number')
    }
    return cls(ids=ids, most=most, open=set(range(count)), heard=True, **rows)


def hold_back(text: str, stop: Sequence[str]) -> str:
  """Without a tail that may still become a stop, or half a character."""
  text = text.rstrip('\ufffd')
  longest = max((len(s) for s in stop), default=1) - 1
  for n in range(min(longest, len(text)), 0, -1):
    if any(s.startswith(text[-n:]) for s in stop):
      return text[:-n]
  return text
