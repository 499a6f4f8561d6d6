"""Text in pictures: detection and recognition by RapidOCR, with the models in its own wheel.

RapidOCR (https://github.com/RapidAI/RapidOCR, Apache 2.0) runs PaddleOCR's networks in ONNX
Runtime. Given the paths of its models it opens no connection; without them it may.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from dreaming.memory.senses import extra

if TYPE_CHECKING:
  from PIL.Image import Image

_SIDE = 960  # pixels of the longer side at which lines are looked for; they are read at full size
_LEAST_SIDE = 16  # pixels; nothing can be read in less


@dataclasses.dataclass(frozen=True)
class Line:
  """What was read."""

  text: str
  score: float  # 0 to 1


class Reader:
  """Reads lines, from top to bottom and left to right."""

  def __init__(self, engine: Any):
    self._engine = engine

  def __call__(self, picture: Image, *, least: float) -> list[Line]:
    """The lines of a picture in RGB that were read with a score of at least `least`."""
    if min(picture.size) < _LEAST_SIDE:
      return []
    found = self._engine(np.asarray(picture)[:, :, ::-1])  # OpenCV's order of colours
    lines = zip(found.txts or (), found.scores or (), strict=True)
    return likely([Line(' '.join(t.split()), float(s)) for t, s in lines], least)


def likely(lines: list[Line], least: float) -> list[Line]:
  """Without what was read in things that are no text, a ring as 0 for one.

  A line counts with a good score; one of a single letter or digit only beside another that counts.
  """
  good = [x for x in lines if x.score >= least and any(map(str.isalnum, x.text))]
  return good if any(sum(map(str.isalnum, x.text)) > 1 for x in good) else []


@functools.cache
def reader() -> Reader:
  """The reader with the models that are installed; some seconds.

  Raises:
    FileNotFoundError: the extra `senses` is not installed.
  """
  home = extra.home('rapidocr', 'rapidocr')
  extra.home('onnxruntime', 'onnxruntime')
  from rapidocr import RapidOCR

  runtime = 'EngineConfig.onnxruntime'
  params = {
    'Global.log_level': 'critical',  # what it finds nothing in, it warns of
    'Global.use_cls': False,  # lines that stand on their head
    f'{runtime}.intra_op_num_threads': extra.cores(),
    # A line at a time, from memory that is kept: of a page the fastest, and the smallest.
    f'{runtime}.enable_cpu_mem_arena': True,
    'Rec.rec_batch_num': 1,
    'Det.limit_type': 'max',
    'Det.limit_side_len': _SIDE,
    **{f'{part}.model_path': _model(home, part) for part in ('Det', 'Rec', 'Cls')},
  }
  return Reader(RapidOCR(params=params))


def _model(home: pathlib.Path, part: str) -> str:
  found = sorted((home / 'models').glob(f'*_{part.lower()}_*.onnx'))
  if len(found) != 1:
    raise FileNotFoundError(
      f'{home / "models"} has {len(found)} models for {part.lower()}, not one: install rapidocr '
      'with the version in requirements.txt'
    )
  return os.fspath(found[0])
