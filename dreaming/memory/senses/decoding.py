"""From files that anyone may have made to pixels and samples, within limits.

Only the decoder that the content asks for is tried, on bytes in memory: no file is opened by a
name that another file holds. What a file claims is checked before it is decoded, and what comes out
is counted while it comes, so that a small file cannot become a large one.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from typing import TYPE_CHECKING

import numpy as np

from dreaming.memory.senses import extra

if TYPE_CHECKING:
  from PIL.Image import Image

RATE = 16_000  # samples a second that speech is heard at
SIDE = 2_000  # pixels of the longer side that are looked at
_RATES = (4_000, 384_000)  # of sounds: a rate of 1 would make hours out of a second
_FRAME_SECONDS = 60.0  # of one decoded piece; usual are hundredths
# What Pillow raises on bytes that are not what they should be.
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, IndexError,
               KeyError, TypeError, OverflowError, MemoryError, AttributeError)  # fmt: skip


def picture(data: bytes, format: str, max_pixels: int) -> tuple[Image, tuple[int, int]]:
  """A picture in RGB, upright, its longer side at most SIDE, and how large it was.

  Of several frames the first; what is transparent becomes white.

  Args:
    data: the file.
    format: as `media.kind` tells it.
    max_pixels: width times height that the file may claim.

  Raises:
    ValueError: it is damaged, or too large.
  """
  from PIL import Image, ImageOps

  try:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # of odd tags and of size, which is judged here
      with Image.open(io.BytesIO(data), formats=[format]) as opened:
        _check_size(opened.size, max_pixels)
        upright = opened.getexif().get(0x0112) in (5, 6, 7, 8)  # turned by a quarter
        size = opened.size[::-1] if upright else opened.size
        opened.draft('RGB', (SIDE * 3 // 4,) * 2)  # a JPEG's smaller scales are decoded at once
        opened.load()
        turned = ImageOps.exif_transpose(opened)
        turned.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
        return _rgb(turned), size
  except Image.DecompressionBombError as e:  # at 179 million pixels Pillow does not even look
    raise ValueError(f'the picture is too large ({e}): shrink it') from e
  except _TooLarge:
    raise
  except _UNREADABLE as e:
    why = ' '.join(str(e).split())[:120] or type(e).__name__
    raise ValueError(f'the {format} picture cannot be read ({why}): save it again') from e


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
  width, height = size
  if width * height > max_pixels:
    raise _TooLarge(
      f'the picture has {width:,} by {height:,} pixels, the limit is {max_pixels:,} in all: '
      'shrink it, or raise senses.max_pixels'
    )


class _TooLarge(ValueError):
  """A limit of ours, as opposed to a damaged file."""


def _rgb(image: Image) -> Image:
  from PIL import Image

  if image.mode.startswith('I'):  # 16 bits, which `convert` would cut at 255
    return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert('RGB')
  if image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info:
    over = image.convert('RGBA')
    return Image.alpha_composite(Image.new('RGBA', over.size, 'white'), over).convert('RGB')
  return image.convert('RGB')


def samples(data: bytes, format: str, max_seconds: float) -> np.ndarray:
  """The first audio stream of a file, Float['N'] at RATE, mono, in -1 to 1.

  Args:
    data: the file.
    format: as `media.kind` tells it.
    max_seconds: that it may last.

  Raises:
    ValueError: it is damaged, holds no sound, or lasts too long.
    FileNotFoundError: the extra `senses` is not installed.
  """
  extra.home('av', 'faster-whisper')
  import av
  import av.logging

  av.logging.set_level(av.logging.PANIC)  # what is wrong is told by the errors
  pieces: list[np.ndarray] = []
  seconds = 0.0
  try:
    with av.open(io.BytesIO(data), format=format) as container:
      if not container.streams.audio:
        raise ValueError('it holds no sound')
      resampler = av.AudioResampler(format='flt', layout='mono', rate=RATE)
      for frame in container.decode(audio=0):
        if not _RATES[0] <= frame.sample_rate <= _RATES[1]:
          raise ValueError(f'its rate is {frame.sample_rate} a second, not {_RATES}')
        length = frame.samples / frame.sample_rate
        seconds += length
        if seconds > max_seconds or length > _FRAME_SECONDS:
          raise _TooLarge(
            f'the sound lasts more than {max_seconds:g} s: cut it, or raise senses.max_seconds'
          )
        frame.pts = None  # gaps and jumps of the clock would become silence, or an error
        pieces += [f.to_ndarray()[0] for f in resampler.resample(frame)]
      pieces += [f.to_ndarray()[0] for f in resampler.resample(None)]
  except _TooLarge:
    raise
  except (av.FFmpegError, *_UNREADABLE) as e:
    why = ' '.join(str(e).split())[:120] or type(e).__name__
    raise ValueError(f'the {format} sound cannot be read ({why}): save it again') from e
  out = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
  if not out.size:
    raise ValueError(f'the {format} sound is empty: record it again')
  return np.nan_to_num(out, posinf=1.0, neginf=-1.0).clip(-1.0, 1.0)
