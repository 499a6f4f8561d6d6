"""A diary as files for others: JSON Lines, or a data set that TFDS and ArrayRecord readers open.

Both hold every experience in order of time, the archived ones too, whatever its trust, which is
among the fields; summaries are left out, since what they stand for is there. Both are written
beside their place and renamed when whole; neither replaces what is there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from dreaming import types
from dreaming.memory.archive import SUMMARY
from dreaming.memory.diary import Diary

Progress = Callable[[int, int], None]
_AT_ONCE = 256  # experiences in memory


def jsonl(diary: Diary, path: str | pathlib.Path, progress: Progress | None = None) -> int:
  """Writes one experience a line, which an import reads back; returns how many they were.

  Raises:
    ValueError: the file exists.
    OSError: it cannot be written.
  """
  path = _free(path)
  with tempfile.NamedTemporaryFile(
    'w', dir=path.parent, prefix=f'.{path.name}.', encoding='utf-8', delete=False
  ) as file:
    try:
      count = 0
      for e in _experiences(diary, progress):
        file.write(json.dumps(plain(e), ensure_ascii=False) + '\n')
        count += 1
      file.flush()
      os.fsync(file.fileno())
      os.link(file.name, path)  # unlike a rename, it fails where a file has come in between
    finally:
      os.unlink(file.name)
  return count


def array_record(
  diary: Diary, directory: str | pathlib.Path, progress: Progress | None = None
) -> int:
  """Writes a TFDS data set of ArrayRecord files; returns how many experiences it has.

  Read it with `tfds.builder_from_directory(directory).as_data_source('train')`. Metadata is JSON
  text, scores are 0 where there are none, and the time is whole microseconds: TFDS keeps real
  numbers in 32 bits, in which a moment of today is uncertain by a minute.

  Raises:
    ValueError: the directory exists, the diary is empty, or tensorflow-datasets is not installed.
    OSError: it cannot be written.
  """
  directory = _free(directory)
  ids = _ids(diary)
  if not ids:
    raise ValueError('the diary is empty: there is nothing to export')
  try:
    import tensorflow_datasets as tfds
  except ImportError as e:
    raise ValueError(
      f"a data set needs tensorflow-datasets ({e}): pip install -e '.[official]', or export to a "
      'file that ends in .jsonl'
    ) from e
  builder_class = _builder(tfds)
  tfds.disable_progress_bar()
  with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f'.{directory.name}.') as tmp:
    builder = builder_class(data_dir=tmp, file_format='array_record')
    builder.examples = ((i, _row(e)) for i, e in enumerate(_experiences(diary, progress)))
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of a download that is none
      builder.download_and_prepare()
    os.rename(builder.data_dir, directory)
  return len(ids)


def plain(e: types.Experience) -> dict[str, Any]:
  """An experience as the plain values of a line."""
  s = e.scores
  return {
    'id': e.id,
    'time': e.time,
    'kind': e.kind,
    'speaker': e.speaker,
    'content': e.content,
    'response': e.response,
    'session': e.session,
    'trust': e.trust.name.lower(),
    'scores': None if s is None else dict(vars(s)),
    'media': [dict(vars(m)) for m in e.media],
    'metadata': dict(e.metadata),
    'night': e.night,
  }


def _row(e: types.Experience) -> dict[str, Any]:
  s = e.scores or types.Scores(importance=0.0)
  row = plain(e) | {
    'time_us': round(e.time * 1e6),
    'trust': int(e.trust),
    'scores': dict(vars(s)),
    'metadata': json.dumps(e.metadata, ensure_ascii=False),
    'night': e.night or 0,
  }
  del row['time']
  return row


def _builder(tfds: Any) -> type:
  """A class of its own for each export: TFDS would register one that is defined in a module."""
  import numpy as np

  features = tfds.features
  text, number = features.Text(), np.float32

  class Diary(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = 'diary'
    VERSION = tfds.core.Version('1.0.0')
    url_infos = None  # nothing is downloaded: so that TFDS does not look for checksums beside us
    examples: Iterator = iter(())

    def _info(self):
      parts = {k: number for k in ('importance', 'novelty', 'emotion', 'feedback')}
      fields = ('kind', 'speaker', 'content', 'response', 'session', 'metadata')
      rows = {k: text for k in fields} | {k: np.int64 for k in ('id', 'time_us', 'trust', 'night')}
      media = features.Sequence({k: text for k in ('kind', 'digest', 'description')})
      nested = {'scores': parts | {'rater': text}, 'media': media}
      return tfds.core.DatasetInfo(
        builder=self,
        description='The experiences of a Dreaming Machine, in order of time.',
        features=features.FeaturesDict(rows | nested),
        disable_shuffling=True,
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      yield from self.examples

  return Diary


def _experiences(diary: Diary, progress: Progress | None) -> Iterator[types.Experience]:
  ids = _ids(diary)
  for start in range(0, len(ids), _AT_ONCE):
    some = diary.experiences(ids=ids[start : start + _AT_ONCE])
    yield from some
    if progress:
      progress(min(start + _AT_ONCE, len(ids)), len(ids))


def _ids(diary: Diary) -> list[int]:
  """The oldest first."""
  summaries = {*diary.ids(kind=SUMMARY)}
  return [i for i in diary.ids(archived=None)[::-1] if i not in summaries]


def _free(path: str | pathlib.Path) -> pathlib.Path:
  path = pathlib.Path(path).expanduser().absolute()
  if os.path.lexists(path):
    raise ValueError(f'{path} exists: choose another name, or move it away')
  path.parent.mkdir(parents=True, exist_ok=True)
  return path
