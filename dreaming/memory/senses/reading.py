"""Text in pictures: detection and recognition by RapidOCR, with the models in its own wheel.

RapidOCR (https://github.com/RapidAI/RapidOCR, Apache 2.0) runs PaddleOCR's networks in ONNX
Runtime. Given the paths of its models it opens no connection; without them it may.
"""

from __future__ import annotations

import concurrent.futures
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
_MARGIN = 16  # pixels around the picture
_MOST = 300  # lines: a picture made of nothing else must not take minutes
_LEAST_SIDE = 8  # pixels; nothing can be read in less


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
    """The first 300 lines of a picture in RGB, those with a score of at least `least`."""
    from rapidocr.ch_ppocr_rec import TextRecInput
    from rapidocr.utils.process_img import get_rotate_crop_image

    if min(picture.size) < _LEAST_SIDE:
      return []
    whole = _framed(picture)
    small = whole.copy()
    small.thumbnail((_SIDE, _SIDE), reducing_gap=2.0)
    boxes = self._engine.text_det(_bgr(small)).boxes  # Float['N 4 2'], or None
    if boxes is None:
      return []
    boxes = np.asarray(boxes, np.float32) * (np.asarray(whole.size) / np.asarray(small.size))
    pixels = _bgr(whole)

    def read(box: np.ndarray) -> list[Line]:
      line = get_rotate_crop_image(pixels, box.astype(np.float32))
      found = self._engine.text_rec(TextRecInput(img=[line], return_word_box=False))
      both = zip(found.txts or (), found.scores or (), strict=True)
      return [Line(' '.join(t.split()), float(s)) for t, s in both]

    with concurrent.futures.ThreadPoolExecutor(extra.cores()) as pool:
      lines = [line for found in pool.map(read, boxes[:_MOST]) for line in found]
    return likely(lines, least)


def _framed(picture: Image) -> Image:
  """With a margin: letters that touch the edge are not found."""
  from PIL import ImageOps

  return ImageOps.expand(picture, _MARGIN, picture.getpixel((0, 0)))


def _bgr(picture: Image) -> np.ndarray:
  return np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])  # OpenCV's order of colours


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
    # A core for each line: two that share a line wait for each other, for half as long again.
    f'{runtime}.intra_op_num_threads': 1,
    f'{runtime}.enable_cpu_mem_arena': True,  # memory is kept from line to line
    'Det.limit_side_len': 32,  # pictures come in the size that they are looked at
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
