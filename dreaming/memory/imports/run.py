"""One import: which format, what is new, in transactions of bounded size, told line by line.

  report = import_file(diary, 'export.zip', user='Priya', told=print)

A file is read twice. The first time nothing is written: a wrong encoding or an archive that is not
whole is refused before anything of it is in the diary. The second time items come in, marked as
imported: nights do not dream of them before `Diary.approve`. A second import of the same file, or
of a later one that contains it, adds what is new; so does one that goes on after a kill.

Each has in its metadata the `source` it came from, {'format', 'file'} and of an archive {'entry'},
and the `language` of its words where that can be told. What a file itself calls the source is
somebody's claim, and kept as {'said'} in it; a language that it gives is left as it is.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import time as time_lib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dreaming import types
from dreaming.memory import language
from dreaming.memory.diary import Diary
from dreaming.memory.imports import archive, bounded, cards, chatgpt, item, jsonl, png, sillytavern
from dreaming.memory.imports.item import Item, Limits, Reader, Reading, Refused, Skipped, Source

BATCH = 256  # items in a transaction
LINES = 1000  # that a report keeps; `told` hears all
LIMITS = Limits()

FORMATS: dict[str, Reader] = {
  chatgpt.FORMAT: chatgpt.read,
  sillytavern.FORMAT: sillytavern.read,
  cards.FORMAT: cards.read,
  jsonl.FORMAT: jsonl.read,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """What became of a file."""

  path: pathlib.Path
  formats: tuple[str, ...]  # of its sources
  added: int
  known: int  # that the diary had already
  skipped: int  # on purpose: hidden, empty, not said by anyone
  damaged: int  # that should have been experiences
  other: int  # files of an archive that are none of these formats
  lines: tuple[Skipped, ...]  # the first ones; what was known is not among them
  reasons: dict[str, int]  # why -> how many, the most frequent ones


def import_file(
  diary: Diary,
  path: str | pathlib.Path,
  *,
  user: str,
  format: str | None = None,
  now: float | None = None,
  limits: Limits = LIMITS,
  progress: Callable[[int, int], None] | None = None,
  told: Callable[[Skipped], None] | None = None,
) -> Report:
  """Brings a file's experiences into the diary, with Trust.IMPORTED.

  Args:
    path: a file of one of FORMATS, or a zip of such.
    user: whose words a user's messages are where the file does not say.
    format: one of FORMATS; by default the content tells.
    now: Unix seconds, for what has no time of its own, by default this moment.
    progress: told (bytes read, bytes to read); an archive's are those it inflates to.
    told: hears of everything that is left out, as it comes.

  Raises:
    Refused: nothing of the file was imported; the message says why.
    OSError: it cannot be read, or the diary not be written.
  """
  path = pathlib.Path(path)
  if format is not None and format not in FORMATS:
    raise Refused(f'format {format!r} is unknown: take one of {", ".join(FORMATS)}')
  reading = Reading(user=user, now=time_lib.time() if now is None else now, limits=limits)
  done, total = 0, 1

  def counted(size: int) -> None:
    nonlocal done
    done += size
    if progress:
      progress(min(done, total), total)

  with archive.opened(path, limits, counted) as (sources, other):
    total = max(2 * sum(s.size for s in sources), 1)
    readers = []
    for source in sources:
      try:
        readers.append((source, *_reader(source, format, limits)))
      except _Unknown:
        if len(sources) == 1:
          raise
        other += 1
    if not readers:
      raise Refused(f'{path.name} holds nothing of a known format: force one with --format')
    for source, name, _ in readers:
      for _ in source.chunks() if name == 'png' else bounded.utf8(source):
        pass
    found = (
      x
      for source, name, reader in readers
      for x in _read(source, reader, reading, _origin(path, source, name))
    )
    tally = _Tally(told)
    _bring(diary, found, tally)
  if tally.damaged and not tally.added + tally.known + tally.skipped:
    first = tally.lines[0]
    where = '' if first.place in first.why else f'{first.place} '
    more = f', and {tally.damaged - 1:,} more such places' if tally.damaged > 1 else ''
    raise Refused(f'{path.name}: nothing of it can be read: {where}{first.why}{more}')
  return Report(
    path=path,
    formats=tuple(sorted({name for _, name, _ in readers})),
    added=tally.added,
    known=tally.known,
    skipped=tally.skipped,
    damaged=tally.damaged,
    other=other,
    lines=tuple(tally.lines),
    reasons=dict(tally.reasons.most_common(20)),
  )


# ---- Which format ----


class _Unknown(Refused):
  pass


def _reader(source: Source, format: str | None, limits: Limits) -> tuple[str, Reader]:
  first = next(source.chunks(), b'')
  if first.startswith(png.SIGNATURE):
    return 'png', cards.read_png
  if format is not None:
    return format, FORMATS[format]
  try:
    value = next((v for _, v in bounded.values(source, limits)), None)
  except bounded.NoText:
    raise
  except Refused as e:
    raise _Unknown(f'{e} (in search of its format)') from None
  if isinstance(value, Skipped):
    raise _Unknown(f'{source.name}: its first value {value.why}; force a format with --format')
  for module in (chatgpt, cards, sillytavern, jsonl):
    if module.fits(value):
      return module.FORMAT, module.read
  raise _Unknown(f'{source.name} is of no known format: {", ".join(FORMATS)}; force with --format')


# ---- Reading and writing ----


def _origin(path: pathlib.Path, source: Source, format: str) -> dict[str, str]:
  """Where the items of a source came from, as their metadata tells."""
  origin = {'format': cards.FORMAT if format == 'png' else format, 'file': item.file_name(path)}
  return origin | ({'entry': item.name(source.name)} if isinstance(source, archive.Entry) else {})


def _read(
  source: Source, reader: Reader, reading: Reading, origin: Mapping[str, str]
) -> Iterator[Item | Skipped]:
  try:
    for x in reader(source, reading):
      yield x if isinstance(x, Skipped) else dataclasses.replace(x, metadata=_about(x, origin))
  except Refused as e:  # what came before is whole, and stays
    yield Skipped(place=source.name, why=str(e), damaged=True)


def _about(x: Item, origin: Mapping[str, str]) -> dict[str, Any]:
  said = {'said': x.metadata['source']} if 'source' in x.metadata else {}
  return {**x.metadata, 'source': {**origin, **said}}


class _Tally:
  def __init__(self, told: Callable[[Skipped], None] | None):
    self._told = told
    self.added = self.known = self.skipped = self.damaged = 0
    self.lines: list[Skipped] = []
    self.reasons: collections.Counter[str] = collections.Counter()

  def leave(self, skipped: Skipped) -> None:
    self.damaged += skipped.damaged
    self.skipped += not skipped.damaged
    if len(self.reasons) < LINES or skipped.why in self.reasons:
      self.reasons[skipped.why] += 1
    if len(self.lines) < LINES:
      self.lines.append(skipped)
    if self._told:
      self._told(skipped)


def _bring(diary: Diary, found: Iterator[Item | Skipped], tally: _Tally) -> None:
  batch: dict[str, Item] = {}
  for x in found:
    if isinstance(x, Skipped):
      tally.leave(x)
    elif x.key in batch:
      tally.known += 1
    else:
      batch[x.key] = x
    if len(batch) >= BATCH:
      _write(diary, batch, tally)
      batch = {}
  _write(diary, batch, tally)


def _write(diary: Diary, batch: dict[str, Item], tally: _Tally) -> None:
  added, known, refused = {}, 0, []
  with diary.transaction():
    had = diary.known(batch)
    for key, x in batch.items():
      if key in had:
        known += 1
        continue
      try:
        _check(x)
        if x.exact and diary.lived(x.time, x.speaker, x.content, x.response):
          known += 1
          continue
        added[key] = diary.append(
          time=x.time,
          speaker=x.speaker,
          content=x.content,
          kind=x.kind,
          response=x.response,
          media=x.media,
          scores=x.scores,
          trust=types.Trust.IMPORTED,
          session=x.session,
          metadata=_with_language(x),
        ).id
      except ValueError as e:  # before anything of it is written
        refused.append(Skipped(place=x.place, why=str(e), damaged=True))
    diary.remember(added)
  tally.added += len(added)
  tally.known += known
  for skipped in refused:
    tally.leave(skipped)


def _with_language(x: Item) -> Mapping[str, Any]:
  if 'language' in x.metadata or not (code := language.of(x.content)):
    return x.metadata
  return {**x.metadata, 'language': code}


def _check(x: Item) -> None:
  """Raises ValueError when a text is no Unicode: SQLite would notice in the middle of writing."""
  media = (t for m in x.media for t in (m.kind, m.digest, m.description))
  for text in (x.speaker, x.content, x.response, x.session, *media):
    try:
      text.encode()
    except UnicodeEncodeError as e:
      raise ValueError(f'a text of it is not valid Unicode ({e.reason} at {e.start})') from None
