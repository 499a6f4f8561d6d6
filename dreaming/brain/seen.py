"""A prompt's beginning that has pictures in it: tokens, and what stands in the place of some."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
  """Token ids, without the beginning of sequence, and the pictures among them.

  Two are equal that have the same tokens and show the same pictures.
  """

  ids: tuple[int, ...]
  at: tuple[int, ...]  # where each picture's soft tokens begin
  digests: tuple[str, ...]  # of the pictures
  soft: tuple[np.ndarray, ...] = dataclasses.field(compare=False, repr=False)  # Float['T D'] each

  def __len__(self) -> int:
    return len(self.ids)

  def __iter__(self) -> Iterator[int]:
    return iter(self.ids)

  def laid(self, length: int, before: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings Float['1 L D'], and of each place the number of its picture, Int['1 L'], or 0.

    Args:
      length: L, of the padded tokens.
      before: tokens in front of these.
    """
    embeddings = np.zeros((1, length, self.soft[0].shape[-1]), np.float32)
    pictures = np.zeros((1, length), np.int32)
    for number, (at, soft) in enumerate(zip(self.at, self.soft, strict=True), 1):
      place = slice(before + at, before + at + len(soft))
      embeddings[0, place], pictures[0, place] = soft, number
    return embeddings, pictures
