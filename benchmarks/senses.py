"""Eyes and ears: how fast and how well a photograph, a page and speech are perceived.

  python benchmarks/senses.py [--quick] [--json=FILE] [--rounds=5] [--file=FILE ...]

On two cores, once warm, from the file on the disk to its description, the file kept by digest.
The photographs are those that installed packages bring, and one of them enlarged to the 12
megapixels of a phone; the pages are drawn here, one of them turned, blurred and noisy; the speech
is espeak-ng's. Beside the seconds: whether what a photograph shows is among five tags, the share of
characters (pages) and of words (speech) that are wrong, and what is made out of noise. With --file
your own files are perceived, and nothing is judged. Expected: 3 minutes.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

from benchmarks import common

CORES = 2
PHOTO_BAR, PAGE_BAR, SPEECH_BAR = 1.0, 6.0, 2.0  # seconds
SPEECH_SECONDS, RATE = 10, 22_050  # of espeak-ng

# What is to be seen, in words of which one must stand among the five likeliest tags.
PHOTOS = {
  ('skimage', 'data/chelsea.png'): ('tabby', 'cat'),
  ('skimage', 'data/coffee.png'): ('espresso', 'cup'),
  ('skimage', 'data/camera.png'): ('tripod', 'camera'),
  ('skimage', 'data/rocket.jpg'): ('missile', 'shuttle'),
  ('skimage', 'data/motorcycle_left.png'): ('moped', 'scooter', 'motorcycle'),
  ('skimage', 'data/astronaut.png'): ('space', 'astronaut'),
  ('matplotlib', 'mpl-data/sample_data/grace_hopper.jpg'): ('military uniform',),
  ('sklearn', 'datasets/images/china.jpg'): ('palace', 'temple', 'bell tower'),
  ('sklearn', 'datasets/images/flower.jpg'): ('daisy', 'flower', 'dahlia'),
}
SENTENCES = (
  'My sister lives in Lisbon, and she plays the cello in a small orchestra.',
  'Tomorrow I will take the train to visit her for the weekend.',
  'The harbour was quiet when we came back from the island last night.',
  'Our old neighbour has sold his blue boat and bought a piano instead.',
  'On Friday the dentist asked me to come again in three weeks.',
  'She told us that the bakery on the corner closes at seven.',
  'I have lost my keys twice this month, and both times the dog had them.',
  'He is learning to bake bread, but the first four loaves were like stones.',
  'We planted tomatoes behind the house, and the rain has been kind to them.',
  'The meeting about the new library begins at half past nine.',
  'Please remind me to call my mother before the holidays.',
  'After the concert we walked along the river and talked until midnight.',
)
VOICES = ('en-us', 'en-gb', 'en-gb-scotland')


def two_cores() -> None:
  """Before anything counts the cores."""
  if hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])


def distance(a: Sequence[str], b: Sequence[str]) -> int:
  """Of Levenshtein: insertions, deletions and replacements."""
  row = list(range(len(b) + 1))
  for i, x in enumerate(a, 1):
    last, row[0] = row[0], i
    for j, y in enumerate(b, 1):
      last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
  return row[-1]


def words(text: str) -> list[str]:
  kept = ''.join(c if c.isalnum() or c == "'" else ' ' for c in text.casefold())
  return kept.split()


# ---- What is perceived ----


def photographs(directory: pathlib.Path) -> dict[str, tuple[pathlib.Path, tuple[str, ...]]]:
  """name -> (file, words): those that are installed, and one as large as a phone makes them."""
  from PIL import Image

  found = {}
  for (package, path), shows in PHOTOS.items():
    spec = importlib.util.find_spec(package)
    if spec and spec.submodule_search_locations:
      file = pathlib.Path(next(iter(spec.submodule_search_locations))) / path
      if file.is_file():
        found[file.stem] = file, shows
  if found:
    file, shows = found.get('china') or next(iter(found.values()))
    with Image.open(file) as image:
      image.convert('RGB').resize((4000, 3000)).save(directory / 'phone.jpg', quality=92)
    found['12_megapixels'] = directory / 'phone.jpg', shows
  return found


def lines_of(rng: np.random.Generator, count: int, width: int) -> list[str]:
  """Lines of about `width` characters, in sentences."""
  text: list[str] = []
  while sum(len(w) + 1 for w in text) < count * (width + 12):
    text += SENTENCES[rng.integers(len(SENTENCES))].split()
  lines = []
  for _ in range(count):
    line = ''
    while text and len(line) + len(text[0]) < width:
      line = f'{line} {text.pop(0)}'.strip()
    lines.append(line)
  return lines


def page(lines: Sequence[str], font: str, size: int, step: int, worn: bool) -> Any:
  """A sheet of A4 at 150 dots an inch; worn: turned by a degree, blurred and noisy."""
  import matplotlib
  from PIL import Image, ImageDraw, ImageFilter, ImageFont

  path = pathlib.Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / font
  sheet = Image.new('RGB', (1240, 1754), 'white')
  draw, letters = ImageDraw.Draw(sheet), ImageFont.truetype(str(path), size)
  for i, line in enumerate(lines):
    draw.text((110, 110 + i * step), line, font=letters, fill=(20, 20, 20))
  if not worn:
    return sheet
  sheet = sheet.rotate(1.0, fillcolor='white').filter(ImageFilter.GaussianBlur(0.8))
  noise = np.random.default_rng(0).normal(0, 12, (1754, 1240, 1))
  return Image.fromarray((np.asarray(sheet) * 0.85 + noise).clip(0, 255).astype(np.uint8))


def pages(directory: pathlib.Path) -> dict[str, tuple[pathlib.Path, str]]:
  """name -> (file, what stands there). The first is the usual page: 30 lines of 60 characters."""
  rng = np.random.default_rng(0)
  kinds = {
    'page': (30, 60, 'DejaVuSerif.ttf', 26, 48, False),
    'page_sans': (30, 60, 'DejaVuSans.ttf', 26, 48, False),
    'page_worn': (30, 60, 'DejaVuSerif.ttf', 26, 48, True),
    'page_dense': (41, 80, 'DejaVuSerif.ttf', 22, 38, False),
  }
  out = {}
  for name, (count, width, font, size, step, worn) in kinds.items():
    lines = lines_of(rng, count, width)
    page(lines, font, size, step, worn).save(directory / f'{name}.jpg', quality=90)
    out[name] = directory / f'{name}.jpg', ' '.join(lines)
  return out


def speech(directory: pathlib.Path, quick: bool) -> dict[str, tuple[pathlib.Path, str]]:
  """name -> (file, what is said); empty without espeak-ng."""
  if shutil.which('espeak-ng') is None:
    print('espeak-ng is not installed (apt install espeak-ng): no speech is heard')
    return {}
  out = {}
  for voice in VOICES[: 1 if quick else None]:
    for i in range(0, len(SENTENCES), 3):
      said = ' '.join(SENTENCES[i : i + 3])
      file = directory / f'{voice}_{i}.wav'
      command = ['espeak-ng', '-v', voice, '-s', '140', '-w', str(file), said]
      subprocess.run(command, check=True)
      out[file.stem] = file, said
  return out


def ten_seconds(file: pathlib.Path, directory: pathlib.Path) -> pathlib.Path:
  """The first ten seconds of a longer one."""
  with wave.open(str(file)) as f:
    assert f.getframerate() == RATE and f.getnframes() > SPEECH_SECONDS * RATE, f.getparams()
    frames = f.readframes(SPEECH_SECONDS * RATE)
    parameters = f.getparams()
  with wave.open(str(directory / 'ten.wav'), 'wb') as f:
    f.setparams(parameters)
    f.writeframes(frames)
  return directory / 'ten.wav'


def noise(directory: pathlib.Path) -> list[pathlib.Path]:
  """Pictures and sounds that show and say nothing."""
  from PIL import Image

  rng, out = np.random.default_rng(1), []
  for i in range(6):
    size = (480, 640, 3) if i % 2 else (6, 8, 3)
    pixels = Image.fromarray(rng.integers(0, 256, size, np.uint8)).resize((640, 480))
    out.append(directory / f'noise_{i}.png')
    pixels.save(out[-1])
  n = 10 * RATE
  tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(n) / RATE)
  for i, sound in enumerate([np.zeros(n), 0.1 * rng.standard_normal(n), tone]):
    out.append(directory / f'noise_{i}.wav')
    with wave.open(str(out[-1]), 'wb') as f:
      f.setnchannels(1)
      f.setsampwidth(2)
      f.setframerate(RATE)
      f.writeframes((sound.clip(-1, 1) * 32767).astype('<i2').tobytes())
  return out


# ---- Measuring ----


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--rounds', type=int, default=5)
  p.add_argument('--file', type=pathlib.Path, action='append', help='a picture or sound of yours')
  args = p.parse_args()
  rounds = 1 if args.quick else args.rounds
  two_cores()
  from dreaming.memory.senses import perception
  from dreaming.memory.senses.media import MediaStore

  result = common.Result('senses', args, cores=CORES, rounds=rounds)
  with tempfile.TemporaryDirectory() as tmp:
    directory, config = pathlib.Path(tmp), perception.SensesConfig()

    def perceive(file: pathlib.Path) -> tuple[str, dict[str, Any]]:
      media, metadata = perception.perceive(file, MediaStore(directory / 'media'), config)
      return media.description, metadata

    def seconds(file: pathlib.Path) -> list[float]:
      return common.in_turn({'': lambda: common.timed(lambda: perceive(file))}, rounds)['']

    if args.file:
      for file in args.file:
        took = common.timed(lambda file=file: perceive(file))
        print(f'{file}: {perceive(file)[0]} ({took:.2f} s the first time)')
        result.add(f'{file.name}_s', seconds(file), 's')
    else:
      look(result, directory, perceive, seconds)
      read(result, directory, perceive, seconds, args.quick)
      hear(result, directory, perceive, seconds, args.quick)
      empty = [perceive(f)[0] for f in noise(directory)]
      nothing = (perception.NOTHING_SEEN, perception.NOTHING_HEARD)
      result.bar('noise_described', float(sum(d not in nothing for d in empty)), '<=', 0.0)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  result.add('peak_gib', peak, 'GiB')
  return result.finish()


Perceive = Callable[[pathlib.Path], tuple[str, dict[str, Any]]]
Seconds = Callable[[pathlib.Path], list[float]]


def look(
  result: common.Result, directory: pathlib.Path, perceive: Perceive, seconds: Seconds
) -> None:
  from dreaming.memory.senses import decoding, media, pictures

  found = photographs(directory)
  hits, slowest = [], 0.0
  for name, (file, shows) in found.items():
    description, _ = perceive(file)
    data = file.read_bytes()
    picture, _ = decoding.picture(data, media.kind(data)[1], 50_000_000)
    five = [tag for tag, _ in pictures.tagger()(picture, least=0.0)]
    if name != '12_megapixels':
      hits.append(any(word in tag for tag in five for word in shows))
    slowest = max(slowest, result.add(f'photo_{name}_s', seconds(file), 's'))
    print(f'  {description}')
  result.add('photo_top5', float(np.mean(hits)) if hits else float('nan'))
  result.bar('photo_s', slowest or float('nan'), '<=', PHOTO_BAR)  # the slowest of them


def read(
  result: common.Result,
  directory: pathlib.Path,
  perceive: Perceive,
  seconds: Seconds,
  quick: bool,
) -> None:
  took = {}
  for name, (file, wanted) in list(pages(directory).items())[: 1 if quick else None]:
    text = perceive(file)[0].partition('text in the picture: ')[2]
    result.add(f'{name}_cer', distance(text, wanted) / len(wanted))
    took[name] = result.add(f'{name}_s', seconds(file), 's')
    print(f'  {len(wanted)} characters: {text[:100]}...')
  result.bar('page_s', took['page'], '<=', PAGE_BAR)


def hear(
  result: common.Result,
  directory: pathlib.Path,
  perceive: Perceive,
  seconds: Seconds,
  quick: bool,
) -> None:
  spoken = speech(directory, quick)
  wrong: dict[str, list[int]] = {}
  for name, (file, said) in spoken.items():
    heard = words(perceive(file)[0].removeprefix('someone says: '))
    count = wrong.setdefault(name.rpartition('_')[0], [0, 0])
    count[0] += distance(heard, words(said))
    count[1] += len(words(said))
  for voice, (errors, of) in wrong.items():
    result.add(f'speech_wer_{voice}', errors / of)
  if wrong:
    result.add('speech_wer', sum(w for w, _ in wrong.values()) / sum(n for _, n in wrong.values()))
  took = float('nan')
  if spoken:
    clip = ten_seconds(next(iter(spoken.values()))[0], directory)
    took = statistics.median(seconds(clip))
    result.add('speech_10s_s', took, 's')
  result.bar('speech_s', took, '<=', SPEECH_BAR)


if __name__ == '__main__':
  sys.exit(main())
