"""The sleeping half of the diary: dreams, nights, generations and which of them is active."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time as time_lib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dreaming import types
from dreaming.memory.archive import Archive
from dreaming.memory.store import dump


@dataclasses.dataclass(frozen=True, kw_only=True)
class Night:
  """One row of the night's state machine."""

  number: int
  state: str  # 'running', 'promoted', 'rejected', 'failed'
  step: str  # the step that was finished last, '' at the beginning
  payloads: Mapping[str, Any]  # step -> what it left, plain values
  config: Mapping[str, Any]
  result: Mapping[str, Any]
  started: float
  ended: float | None = None


class Nights(Archive):
  """What nights do: they dream, leave steps behind, and promote a generation."""

  # Dreams.

  def add_dreams(self, dreams: Iterable[types.Dream]) -> list[types.Dream]:
    """Keeps dreams, all or none, and returns them with their ids (the ids they had are ignored).

    A dream's trust comes back as the minimum of its own and its sources'.
    """
    kept = []
    with self.transaction():
      for d in dreams:
        trusts = self._run(
          'SELECT trust FROM experiences WHERE id IN (SELECT value FROM json_each(?))',
          (dump(d.sources),),
        )
        if len(trusts) < len(set(d.sources)):
          raise ValueError(f'a dream names sources that the diary lacks, among {d.sources}')
        trust = min([d.trust, *(trust for (trust,) in trusts)])
        q = d.quality
        pairs = dump([[p.question, p.answer] for p in d.pairs])
        measures = (float(q.gain), float(q.grounded), q.reason)
        self._run(
          'INSERT INTO dreams (night, style, text, pairs, gain, grounded, reason, status, trust)'
          ' VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
          (d.night, d.style, d.text, pairs, *measures, str(d.status), int(trust)),
        )
        id = self._connection.last_insert_rowid()
        for place, source in enumerate(d.sources):
          self._run('INSERT INTO dream_sources VALUES (?, ?, ?)', (id, place, int(source)))
        kept.append(dataclasses.replace(d, id=id, trust=types.Trust(trust)))
    return kept

  def dreams(
    self,
    night: int | None = None,
    status: types.Status | None = None,
    styles: Sequence[str] = (),
  ) -> list[types.Dream]:
    """Dreams in the order in which they were added; of some styles where any are given.

    Their trust is the least of their own and of what their sources have by now: an approval may
    have been taken back. A correction names what is no longer so, too, which any experience may
    have told that its night has learned.
    """
    rows = self._run(
      """
      SELECT id, night, style, text, pairs, gain, grounded, reason, status,
        min(trust,
          ifnull((SELECT min(e.trust) FROM dream_sources s JOIN experiences e
            ON e.id = s.experience WHERE s.dream = dreams.id), trust),
          iif(style != 'correction', trust,
            ifnull((SELECT min(e.trust) FROM night_experiences n JOIN experiences e
              ON e.id = n.experience WHERE n.night = dreams.night), trust))),
        (SELECT json_group_array(experience ORDER BY place) FROM dream_sources WHERE dream = id)
      FROM dreams WHERE ifnull(night = ?1, ?1 IS NULL) AND ifnull(status = ?2, ?2 IS NULL)
        AND (?3 = '[]' OR style IN (SELECT value FROM json_each(?3)))
      ORDER BY id
      """,
      (night, None if status is None else str(status), dump(list(styles))),
    )
    return [_dream(row) for row in rows]

  def set_dreams(self, dreams: Iterable[types.Dream]) -> None:
    """Puts dreams as they are now in the place of those with their ids; all or none.

    Their night, style, sources and trust stay. Raises ValueError when an id is unknown.
    """
    with self.transaction():
      for d in dreams:
        self._require('dream', d.id)
        pairs = dump([[p.question, p.answer] for p in d.pairs])
        self._run(
          'UPDATE dreams SET text = ?, pairs = ?, reason = ?, status = ? WHERE id = ?',
          (d.text, pairs, d.quality.reason, str(d.status), d.id),
        )

  # Nights.

  def begin_night(self, config: Mapping[str, Any]) -> int:
    """Begins a night and returns its number. Raises ValueError when one is not over yet."""
    with self.transaction():
      if (number := self.open_night()) is not None:
        raise ValueError(f'night {number} is not over: resume it, or end it as failed')
      self._run(
        'INSERT INTO nights (state, step, config, result, started)'
        " VALUES ('running', '', ?, '{}', ?)",
        (dump(config), time_lib.time()),
      )
      return self._connection.last_insert_rowid()

  def open_night(self) -> int | None:
    """The night that was begun and has not ended, for example because it was killed."""
    rows = self._run("SELECT number FROM nights WHERE state = 'running'")
    return rows[0][0] if rows else None

  def night(self, number: int) -> Night:
    """One night with what its steps left. Raises ValueError when there is none."""
    columns = 'number, state, step, config, result, started, ended'
    rows = self._run(f'SELECT {columns} FROM nights WHERE number = ?', (number,))
    if not rows:
      raise ValueError(f'the diary has no night {number}')
    number, state, step, config, result, started, ended = rows[0]
    steps = self._run('SELECT step, payload FROM night_steps WHERE night = ?', (number,))
    return Night(
      number=number,
      state=state,
      step=step,
      payloads={name: json.loads(payload) for name, payload in steps},
      config=json.loads(config),
      result=json.loads(result),
      started=started,
      ended=ended,
    )

  def nights(self) -> list[Night]:
    """All nights, oldest first."""
    return [self.night(n) for (n,) in self._run('SELECT number FROM nights ORDER BY number')]

  def night_states(self) -> list[tuple[int, str]]:
    """(number, state) of all nights, oldest first."""
    return self._run('SELECT number, state FROM nights ORDER BY number')

  def dream_count(self) -> int:
    """How many dreams all nights had, kept and rejected."""
    return self._run('SELECT count(*) FROM dreams')[0][0]

  def set_night_step(self, number: int, step: str, payload: Any = None) -> None:
    """Marks a step of a running night as finished, with what the next ones need (plain values)."""
    with self.transaction():
      self._require_running(number)
      values = (number, step, dump(payload), time_lib.time())
      self._run('INSERT OR REPLACE INTO night_steps VALUES (?, ?, ?, ?)', values)
      self._run('UPDATE nights SET step = ? WHERE number = ?', (step, number))

  def end_night(self, number: int, state: str, result: Mapping[str, Any] | None = None) -> None:
    """Ends a running night as 'rejected' or 'failed'; only `promote` ends one as 'promoted'."""
    if state not in ('rejected', 'failed'):
      raise ValueError(f"a night ends as 'rejected', 'failed' or through promote, not {state!r}")
    with self.transaction():
      self._end_night(number, state, result)

  # Generations.

  def promote(
    self,
    manifest: types.Manifest,
    consumed: Iterable[int],
    night: int | None,
    *,
    path: str | pathlib.Path | None = None,
    result: Mapping[str, Any] | None = None,
  ) -> None:
    """Makes a generation the active one, in one transaction with all that depends on it.

    Lineage, consumed experiences and the night's end are written with it, or nothing is.

    Args:
      manifest: of the generation; its files must be safe on the disk already.
      consumed: ids of the experiences that are in its weights now.
      night: the running night that made it; None for a maintenance, which consumes nothing.
      path: where the generation lies, relative to the diary's directory or inside of it; by
        default 'generations/<number>'.
      result: what the night came to, plain values.
    """
    m = manifest
    path = pathlib.Path(path or f'generations/{m.number}')
    if path.is_absolute():
      home = self.path.parent.resolve()
      if not path.resolve().is_relative_to(home):
        raise ValueError(f'generation {m.number} lies at {path}: it must lie inside of {home}')
      path = path.resolve().relative_to(home)
    consumed = sorted({int(i) for i in consumed})
    if night is None and consumed:
      raise ValueError(f'only a night consumes experiences, here without one: {consumed}')
    with self.transaction():
      if m.number < 1 or self._run('SELECT 1 FROM generations WHERE number = ?', (m.number,)):
        raise ValueError(f'generation {m.number} exists already, or is the base: take another')
      if m.parent:
        self._require('generation', m.parent)
      self._run(
        'INSERT INTO generations VALUES (?, ?, ?, ?, ?, ?)',
        (m.number, m.parent, night, m.created, dump(vars(m)), path.as_posix()),
      )
      for id in consumed:
        self._require('experience', id)
        self._run('INSERT INTO night_experiences VALUES (?, ?)', (night, id))
      if night is not None:
        self._end_night(night, 'promoted', result)
      self._run('UPDATE state SET active = ?', (m.number,))

  def activate(self, number: int) -> None:
    """Makes an earlier (or again a later) generation the active one; 0 is the base.

    What was archived and is not in its weights comes back from the archive.
    """
    with self.transaction():
      if number != 0:
        self._require('generation', number)
      self._run('UPDATE state SET active = ?', (number,))
      self.restore_unlearned()

  def active(self) -> int:
    """The generation that serves; 0 is the base."""
    return self._run('SELECT active FROM state')[0][0]

  def generations(self) -> list[types.Generation]:
    """All promoted generations by number, without the base, which is no row."""
    rows = self._run('SELECT manifest, path FROM generations ORDER BY number')
    return [_generation(json.loads(manifest), self.path.parent / path) for manifest, path in rows]

  def _require_running(self, number: int) -> None:
    if (state := self.night(number).state) != 'running':
      raise ValueError(f'night {number} is over ({state}): begin a new one')

  def _end_night(self, number: int, state: str, result: Mapping[str, Any] | None) -> None:
    self._require_running(number)
    self._run(
      'UPDATE nights SET state = ?, result = ?, ended = ? WHERE number = ?',
      (state, dump(result or {}), time_lib.time(), number),
    )


def _dream(row: tuple) -> types.Dream:
  id, night, style, text, pairs, gain, grounded, reason, status, trust, sources = row
  return types.Dream(
    id=id,
    night=night,
    style=style,
    text=text,
    pairs=tuple(types.QA(question=q, answer=a) for q, a in json.loads(pairs)),
    sources=tuple(json.loads(sources)),
    quality=types.Quality(gain=gain, grounded=grounded, reason=reason),
    status=types.Status(status),
    trust=types.Trust(trust),
  )


def _generation(manifest: dict[str, Any], path: pathlib.Path) -> types.Generation:
  m = types.Manifest(**{**manifest, 'sources': tuple(manifest['sources'])})
  return types.Generation(number=m.number, parent=m.parent, path=path, manifest=m)
