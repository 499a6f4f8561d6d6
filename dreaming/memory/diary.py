"""The diary: the one source of truth of a life, in one SQLite file.

  with Diary('lives/default/diary.sqlite') as diary:
    experience = diary.append(time=time.time(), speaker='Priya', content='My parrot is Kiwi.')

What `append` and every other writing method returns is durable (WAL, synchronous=FULL). Several
writes become one with `with diary.transaction():`. Methods may be called from several threads.
This file is the waking half: experiences, their scores and vectors; nights.py is the other, and
words.py searches.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dreaming import types
from dreaming.memory import whole
from dreaming.memory.archive import SUMMARY
from dreaming.memory.browse import Browse
from dreaming.memory.lived import Lived
from dreaming.memory.redact import Rewriting
from dreaming.memory.store import dump
from dreaming.memory.words import Words

_FIRST, _LAST = -62_135_596_800.0, 253_402_300_800.0  # Unix seconds of the years 1 and 10000
_IN_ARCHIVE = {
  False: 'NOT IN (SELECT experience FROM archived)',
  True: 'IN (SELECT experience FROM archived)',
}


class Diary(Words, Browse, Lived, Rewriting):
  """Experiences, scores, embeddings, dreams, nights and generations of one identity.

  Args:
    path: the file; made, with its directory, when there is none.
    max_message_bytes: the longest content or response, in UTF-8, that `append` takes.

  Raises:
    ValueError: the file is damaged, is no diary, or was written by a newer version.
    OSError: the file cannot be opened or written.
  """

  def __init__(self, path: str | pathlib.Path, *, max_message_bytes: int = 65_536):
    super().__init__(path)
    self._max_message_bytes = max_message_bytes

  def __enter__(self) -> Diary:
    return self

  def __exit__(self, *_) -> None:
    self.close()

  # Experiences.

  def append(
    self,
    *,
    time: float,
    speaker: str,
    content: str,
    kind: str = 'chat',
    response: str = '',
    media: Sequence[types.Media] = (),
    scores: types.Scores | None = None,
    trust: types.Trust = types.Trust.USER,
    session: str = '',
    metadata: Mapping[str, Any] | None = None,
  ) -> types.Experience:
    """Logs one experience and gives it its id. When this returns, it is on the disk.

    Raises:
      ValueError: empty, too long, not Unicode, or at no time that a calendar knows.
    """
    if not _FIRST <= time < _LAST:  # false for NaN, too
      raise ValueError(f'the time {time} is not in the years 1 to 9999: give Unix seconds')
    if not content.strip() and not media:
      raise ValueError('the message is empty: say something')
    texts = {'message': content, 'response': response, 'metadata': dump(metadata or {})}
    for what, text in texts.items():
      self._check_size(what, text)
    row = (float(time), kind, speaker, content, response, int(trust), session, texts['metadata'])
    return self._shared(lambda: self._append(row, tuple(media), scores))

  def _append(
    self, row: tuple, media: tuple[types.Media, ...], scores: types.Scores | None
  ) -> types.Experience:
    time, kind, speaker, content, response, trust, session, metadata = row
    seen = json.dumps([[m.kind, m.digest, m.description] for m in media])
    digest = whole.experience_digest(
      time, kind, speaker, content, response, session, metadata, seen
    )
    self._run(
      'INSERT INTO experiences'
      ' (time, kind, speaker, content, response, trust, session, metadata, digest)'
      ' VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)',
      (*row, digest),
    )
    id = self._connection.last_insert_rowid()
    for place, m in enumerate(media):
      values = (id, place, m.kind, m.digest, m.description)
      self._run('INSERT INTO media VALUES (?, ?, ?, ?, ?)', values)
    self._run('INSERT INTO words (rowid, text) SELECT id, text FROM texts WHERE id = ?', (id,))
    if scores is not None:
      self.set_scores(id, scores)
      return self.experience(id)
    # What reading it back would give, at a third of the cost.
    return _experience((id, *row, seen, None, None, None, None, None, None))

  def experience(self, id: int) -> types.Experience:
    """One experience. Raises ValueError when there is none with this id."""
    found = self.experiences(ids=(id,))
    if not found:
      raise ValueError(f'the diary has no experience {id}')
    return found[0]

  def experiences(
    self,
    since: float | None = None,
    until: float | None = None,
    unconsumed: bool = False,
    ids: Iterable[int] | None = None,
    limit: int | None = None,
    newest_first: bool = False,
    archived: bool | None = False,
  ) -> list[types.Experience]:
    """Experiences in order of time, those of since <= time < until.

    Args:
      unconsumed: only those that no night in the active generation's lineage has consumed.
      ids: only these, archived or not; ids that do not exist are left out.
      archived: only those in the archive, or (None) those, too.
    """
    where, values = ['1'], []
    if since is not None:
      where, values = where + ['e.time >= ?'], values + [since]
    if until is not None:
      where, values = where + ['e.time < ?'], values + [until]
    if unconsumed:
      where += [f"night IS NULL AND e.kind != '{SUMMARY}'"]
    if archived is not None and ids is None:
      where += [f'e.id {_IN_ARCHIVE[archived]}']
    if ids is not None:
      where += ['e.id IN (SELECT value FROM json_each(?))']
      values += [json.dumps([int(i) for i in ids])]
    order = 'DESC' if newest_first else 'ASC'
    rows = self._run(
      f"""
      SELECT e.id, e.time, e.kind, e.speaker, e.content, e.response, e.trust, e.session, e.metadata,
        (SELECT json_group_array(json_array(kind, digest, description) ORDER BY place)
         FROM media WHERE experience = e.id),
        s.importance, s.novelty, s.emotion, s.feedback, s.rater,
        (SELECT max(night) FROM night_experiences
         WHERE experience = e.id AND night IN (SELECT night FROM lineage)) AS night
      FROM experiences e
      LEFT JOIN scores s ON s.id = (SELECT max(id) FROM scores WHERE experience = e.id)
      WHERE {' AND '.join(where)} ORDER BY e.time {order}, e.id {order}
      {'LIMIT ?' * (limit is not None)}
      """,
      (*values, *([] if limit is None else [limit])),
    )
    return [_experience(row) for row in rows]

  def speakers(self) -> list[str]:
    """Names of all who have talked with the agent themselves, in order."""
    rows = self._run(
      "SELECT DISTINCT speaker FROM experiences WHERE trust = ? AND speaker != '' ORDER BY speaker",
      (types.Trust.USER,),
    )
    return [name for (name,) in rows]

  def ids(
    self,
    *,
    since: float | None = None,
    until: float | None = None,
    speaker: str | None = None,
    kind: str | None = None,
    session: str | None = None,
    limit: int | None = None,
    archived: bool | None = False,
  ) -> list[int]:
    """Ids of the latest experiences, of all or of one speaker, kind or session, newest first.

    Args:
      archived: only those in the archive, or (None) those, too.
    """
    asked = {'speaker =': speaker, 'kind =': kind, 'session =': session}
    asked |= {'time >=': since, 'time <': until}
    asked = {k: v for k, v in asked.items() if v is not None}
    where = ' AND '.join(f'{k} ?' for k in asked) or '1'
    where += '' if archived is None else f' AND id {_IN_ARCHIVE[archived]}'
    rows = self._run(
      f'SELECT id FROM experiences WHERE {where} ORDER BY time DESC, id DESC LIMIT ?',
      (*asked.values(), -1 if limit is None else limit),
    )
    return [i for (i,) in rows]

  def set_scores(self, id: int, scores: types.Scores) -> None:
    """Scores an experience; the latest scores count, the earlier ones stay as history."""
    s = scores
    with self.transaction():
      self._require('experience', id)
      self._run(
        'INSERT INTO scores (experience, rater, importance, novelty, emotion, feedback)'
        ' VALUES (?, ?, ?, ?, ?, ?)',
        (id, s.rater, *(float(v) for v in (s.importance, s.novelty, s.emotion, s.feedback))),
      )

  def forget(self, ids: Iterable[int]) -> int:
    """Deletes experiences and all that was derived from them here; returns how many they were.

    Dreams that have one of them as a source go, and of the nights that dreamt of them those that
    may speak of them beside; what these nights kept for their next step, but which others they
    chose; and what later exams asked of them. So does a summary that stands for one, and the others
    that it stands for come back from the archive. Weights are another matter: the manifests of the
    generations that learned from them still name their ids.

    Raises:
      ValueError: a night is running, or one of them is a summary.
    """
    chosen = {int(i) for i in ids}
    ids = json.dumps(sorted(chosen))
    with self.transaction():
      if (number := self.open_night()) is not None:
        raise ValueError(f'night {number} is not over: let it end before forgetting')
      self._no_summary(ids)
      self._withdraw(chosen)
      self.restore(chosen)  # with those that the same summaries stand for
      chosen = 'experience IN (SELECT value FROM json_each(?1))'
      self._run('UPDATE state SET forgetting = 1')
      nights = (
        f'SELECT night FROM night_experiences WHERE {chosen} UNION SELECT night'
        f' FROM dreams JOIN dream_sources ON dream = dreams.id WHERE {chosen}'
      )
      # Of several experiences, and named by one: what is no longer so, and what nobody told.
      of_all = "style IN ('correction', 'unknown', 'exam_unknown')"
      of_it = f'id IN (SELECT dream FROM dream_sources WHERE {chosen})'
      dreams = f'{of_it} OR (night IN ({nights}) AND {of_all})'
      self._unask(ids, dreams)
      for night, payload in self._run(
        f"SELECT night, payload FROM night_steps WHERE step = 'select' AND night IN ({nights})",
        (ids,),
      ):
        left = json.loads(payload)
        left['ids'] = [i for i in left.get('ids', ()) if i not in json.loads(ids)]
        self._run(
          "UPDATE night_steps SET payload = ? WHERE night = ? AND step = 'select'",
          (dump(left), night),
        )
      self._run(f"DELETE FROM night_steps WHERE step != 'select' AND night IN ({nights})", (ids,))
      self._run(f'DELETE FROM dreams WHERE {dreams}', (ids,))
      self._run('DELETE FROM experiences WHERE id IN (SELECT value FROM json_each(?))', (ids,))
      count = self._connection.changes()
      self._run('UPDATE state SET forgetting = 0')
    self._run('PRAGMA wal_checkpoint(TRUNCATE)')  # or the text would stay in the log
    self.drop_columns()
    return count

  def _unask(self, ids: str, dreams: str) -> None:
    """Takes the questions of dreams that go out of the exams of all nights."""
    found = self._run(f'SELECT pairs FROM dreams WHERE {dreams}', (ids,))
    asked = {question for (pairs,) in found for question, _ in json.loads(pairs)}
    for night, payload in self._run(
      "SELECT night, payload FROM night_steps WHERE step = 'examine'"
    ):
      left = json.loads(payload) or {}
      before = left.get('replies', {})
      replies = {k: [r for r in rows if r[0] not in asked] for k, rows in before.items()}
      if replies != before:
        values = (dump(left | {'replies': replies}), night)
        self._run("UPDATE night_steps SET payload = ? WHERE night = ? AND step = 'examine'", values)

  def _no_summary(self, ids: str) -> None:
    for (id,) in self._run(
      'SELECT id FROM experiences WHERE kind = ? AND id IN (SELECT value FROM json_each(?))',
      (SUMMARY, ids),
    ):
      others = ', '.join(map(str, self.summarised(id)[:20]))
      raise ValueError(f'experience {id} is a summary: forget those that it stands for ({others})')

  def digests(self) -> set[str]:
    """Of all media that any experience has."""
    return {digest for (digest,) in self._run('SELECT DISTINCT digest FROM media')}

  # Embeddings.

  def set_embedding(self, id: int, vector: np.ndarray, embedder: str) -> None:
    """Keeps the vector Float['D'] of an experience; one for each embedder."""
    vector = np.asarray(vector, '<f4')
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
      raise ValueError(f'an embedding is one row of finite numbers, not {vector.shape}')
    with self.transaction():
      self._require('experience', id)
      values = (id, embedder, vector.tobytes())
      self._run('INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)', values)

  def embeddings(self, embedder: str) -> tuple[np.ndarray, np.ndarray]:
    """All vectors of an embedder: ids Int['N'] (rising) and Float['N D']; D is 0 when N is."""
    rows = self._run(
      'SELECT experience, vector FROM embeddings WHERE embedder = ? ORDER BY experience',
      (embedder,),
    )
    if not rows:
      return np.zeros(0, np.int64), np.zeros((0, 0), np.float32)
    if len(sizes := {len(vector) for _, vector in rows}) > 1:
      raise ValueError(f'vectors of embedder {embedder!r} differ in length: {sorted(sizes)} bytes')
    vectors = np.frombuffer(b''.join(vector for _, vector in rows), '<f4')
    return np.array([i for i, _ in rows], np.int64), vectors.reshape(len(rows), -1)

  def unembedded(self, embedder: str) -> list[int]:
    """Ids of experiences that have no vector of this embedder yet, rising."""
    rows = self._run(
      'SELECT id FROM experiences WHERE id NOT IN (SELECT experience FROM embeddings'
      f' WHERE embedder = ?) AND id {_IN_ARCHIVE[False]} ORDER BY id',
      (embedder,),
    )
    return [i for (i,) in rows]

  def _check_size(self, what: str, text: str) -> None:
    try:
      size = len(text.encode())
    except UnicodeEncodeError as e:
      raise ValueError(f'the {what} is not valid Unicode ({e.reason} at {e.start})') from e
    if size > self._max_message_bytes:
      raise ValueError(
        f'the {what} has {size:,} bytes, the limit is {self._max_message_bytes:,}: shorten or '
        'split it, or raise decode.max_message_bytes'
      )


def _experience(row: tuple) -> types.Experience:
  id, time, kind, speaker, content, response, trust, session, metadata, media, *scores, night = row
  importance, novelty, emotion, feedback, rater = scores
  return types.Experience(
    id=id,
    time=time,
    kind=kind,
    speaker=speaker,
    content=content,
    response=response,
    media=_media(media) if media != '[]' else (),
    scores=None
    if rater is None
    else types.Scores(
      importance=importance, novelty=novelty, emotion=emotion, feedback=feedback, rater=rater
    ),
    trust=types.Trust(trust),
    session=session,
    metadata=json.loads(metadata) if metadata != '{}' else {},
    night=night,
  )


def _media(found: str) -> tuple[types.Media, ...]:
  return tuple(types.Media(kind=k, digest=d, description=t) for k, d, t in json.loads(found))
