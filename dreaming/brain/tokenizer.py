"""Gemma's SentencePiece tokenizer, from a `tokenizer.model` file or rebuilt from a GGUF."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

# GGUF token types -> SentencePiece's: normal, unknown, control, user defined, unused, byte.
_TYPES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6}


class Tokenizer:
  """Text to ids and back. Control tokens never come from text: they are put in by id.

  Example:
    tokenizer.encode('The sky is', bos=True)  # [2, 818, 7217, 563]
  """

  def __init__(self, model_proto: bytes):
    import sentencepiece  # here: 50 ms that `--help` does not need

    if not model_proto:
      raise ValueError('it is empty')
    self._sp = sentencepiece.SentencePieceProcessor(model_proto=model_proto)
    self.model_proto = model_proto

  @classmethod
  def from_file(cls, path: str | pathlib.Path) -> Tokenizer:
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
      raise FileNotFoundError(
        f'no tokenizer at {path}: set model.tokenizer to the tokenizer.model of the official '
        "Gemma 3 release, or to 'embedded'"
      )
    try:
      return cls(path.read_bytes())
    except (RuntimeError, ValueError) as e:
      raise ValueError(f'{path} is not a SentencePiece model ({e}); take tokenizer.model') from e

  def encode(self, text: str, *, bos: bool = False) -> list[int]:
    ids = self._sp.encode(text)
    return [self.bos, *ids] if bos else ids

  def decode(self, ids: Iterable[int]) -> str:
    """Text of ids; control tokens vanish, and so do ids of a table that is longer than needed."""
    size = self.vocab_size
    return self._sp.decode([i for i in map(int, ids) if i < size])

  def piece(self, token: int) -> str:
    return self._sp.id_to_piece(int(token))

  @property
  def vocab_size(self) -> int:
    return self._sp.get_piece_size()

  @property
  def pad(self) -> int:
    return 0

  @property
  def eos(self) -> int:
    return self._sp.eos_id()

  @property
  def bos(self) -> int:
    return self._sp.bos_id()

  @functools.cached_property
  def start_of_turn(self) -> int:
    return self._sp.piece_to_id('<start_of_turn>')

  @functools.cached_property
  def end_of_turn(self) -> int:
    return self._sp.piece_to_id('<end_of_turn>')

  @functools.cached_property
  def newlines(self) -> tuple[int, ...]:
    """Every token whose text begins with a line break: where a one-line answer ends."""
    ids = range(min(self.vocab_size, 2048))  # Gemma keeps them among its first tokens
    return tuple(i for i in ids if self.piece(i).startswith('\n')) or tuple(self.encode('\n')[-1:])


def model_proto(pieces: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> bytes:
  """A SentencePiece ModelProto of Gemma's kind: BPE, byte fallback, no normalization, no prefix."""
  from sentencepiece import sentencepiece_model_pb2 as pb

  proto = pb.ModelProto()
  for piece, score, kind in zip(pieces, scores, types, strict=True):
    if kind not in _TYPES:
      raise ValueError(f'GGUF token type {kind} of {piece!r} is not one of {sorted(_TYPES)}')
    proto.pieces.add(piece=piece, score=score, type=_TYPES[kind])
  spec: Any = proto.trainer_spec
  spec.model_type = spec.BPE
  spec.vocab_size = len(pieces)
  spec.byte_fallback = True
  spec.pad_id, spec.eos_id, spec.bos_id, spec.unk_id = 0, 1, 2, 3
  spec.pad_piece, spec.eos_piece = pieces[0], pieces[1]
  spec.bos_piece, spec.unk_piece = pieces[2], pieces[3]
  norm = proto.normalizer_spec
  norm.name = 'identity'
  norm.add_dummy_prefix = norm.remove_extra_whitespaces = False
  norm.escape_whitespaces = True
  return proto.SerializeToString()
