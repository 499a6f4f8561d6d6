"""What is struck out of the diary itself: secrets that were told, addresses, telephone numbers.

Nights never read secrets (private.py); the diary is its owner's and keeps them, until the owner
wants them out of it. Then each text that has one is written anew under its old id, with what was
made of it: its full text, its digest, its vectors, the dreams. What was one anywhere is struck
everywhere at once: a number that only one message calls a PIN would be found in no other one later.
"""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dreaming import types
from dreaming.memory import private, whole
from dreaming.memory.nights import Nights
from dreaming.memory.private import Secrets
from dreaming.memory.store import dump

_HEARD = ('media', 'lines', 'segments', 'caption')  # of metadata, what was read or heard


def found(experiences: Sequence[types.Experience], contacts: bool) -> dict[int, dict[str, int]]:
  """What `struck` would change: id -> kind ('password', 'key', 'card', 'mail', ...) -> how often.

  What stands somewhere only since it is a secret elsewhere is of the kind 'told elsewhere'.

  Args:
    contacts: of addresses and telephone numbers, too.
  """
  secrets, out = Secrets.of(experiences, contacts), {}
  for e in experiences:
    if struck(e, secrets) != e:
      texts = (e.content, e.response, *(m.description for m in e.media))
      kinds = collections.Counter(
        f.kind
        for text in texts
        for f in private.find(text, contacts)
        if text[f.start : f.end] != private.STRUCK
      )
      out[e.id] = dict(kinds) or {'told elsewhere': 1}
  return out


def struck(e: types.Experience, secrets: Secrets) -> types.Experience:
  """An experience without them; of its metadata what was read or heard: the rest are names of its
  own, which look like keys, and tell nothing. Who spoke, and the session's name, stay."""
  metadata = {k: _struck(v, secrets) if k in _HEARD else v for k, v in e.metadata.items()}
  return dataclasses.replace(secrets.without(e), metadata=metadata)


def _struck(value: Any, secrets: Secrets) -> Any:
  if isinstance(value, str):
    return secrets.strike(value)
  if isinstance(value, Mapping):
    return {k: _struck(v, secrets) for k, v in value.items()}
  return [_struck(v, secrets) for v in value] if isinstance(value, list | tuple) else value


class Rewriting(Nights):
  """The part of the diary that writes texts anew."""

  def rewrite(
    self, experiences: Iterable[types.Experience], secrets: Secrets | None = None
  ) -> tuple[int, int]:
    """Gives experiences other words under their old ids, all or none.

    Content, response, metadata and what is described of media count; all else stays as it is. Their
    vectors go: they are made anew when an index is.

    Args:
      secrets: struck out of dreams and of what nights were answered, too.

    Returns:
      How many experiences and how many dreams were changed.

    Raises:
      ValueError: a night is running, or there is no such experience.
    """
    count = 0
    with self.transaction():
      if (number := self.open_night()) is not None:
        raise ValueError(f'night {number} is not over: let it end before striking anything out')
      self._run('UPDATE state SET forgetting = 1')
      for e in experiences:
        self._require('experience', e.id)
        count += self._rewrite(e)
      self._run('UPDATE state SET forgetting = 0')
      dreams = self._rewrite_dreams(secrets) if secrets else 0
    self._run('PRAGMA wal_checkpoint(TRUNCATE)')  # or the text would stay in the log
    self.drop_columns()
    return count, dreams

  def _rewrite(self, e: types.Experience) -> int:
    seen = json.dumps([[m.kind, m.digest, m.description] for m in e.media])
    row = (e.time, e.kind, e.speaker, e.content, e.response, e.session, dump(e.metadata), seen)
    digest = whole.experience_digest(*row)
    ((before,),) = self._run('SELECT digest FROM experiences WHERE id = ?', (e.id,))
    if bytes(before) == digest:
      return 0
    entry = (
      'SELECT {what} id, text FROM texts WHERE id = ?'
      ' AND id NOT IN (SELECT experience FROM archived)'
    )
    gone = f'INSERT INTO words (words, rowid, text) {entry.format(what="'delete',")}'
    self._run(gone, (e.id,))
    for place, m in enumerate(e.media):
      values = (m.description, e.id, place)
      self._run('UPDATE media SET description = ? WHERE experience = ? AND place = ?', values)
    self._run(
      'UPDATE experiences SET content = ?, response = ?, metadata = ?, digest = ? WHERE id = ?',
      (e.content, e.response, dump(e.metadata), digest, e.id),
    )
    self._run(f'INSERT INTO words (rowid, text) {entry.format(what="")}', (e.id,))
    self._run('DELETE FROM embeddings WHERE experience = ?', (e.id,))
    return 1

  def _rewrite_dreams(self, secrets: Secrets) -> int:
    """Of all nights, also those dreams that were rejected for what they tell."""
    count = 0
    for id, text, pairs in self._run('SELECT id, text, pairs FROM dreams'):
      new, new_pairs = secrets.strike(text), _struck(json.loads(pairs), secrets)
      if (new, new_pairs) != (text, json.loads(pairs)):
        self._run('UPDATE dreams SET text = ?, pairs = ? WHERE id = ?', (new, dump(new_pairs), id))
        count += 1
    replies = "SELECT night, payload FROM night_steps WHERE step = 'examine'"
    for night, payload in self._run(replies):
      left = json.loads(payload) or {}
      new = left | {'replies': _struck(left.get('replies', {}), secrets)}
      if 'replies' in left and new != left:
        values = (dump(new), night)
        self._run("UPDATE night_steps SET payload = ? WHERE night = ? AND step = 'examine'", values)
    return count
