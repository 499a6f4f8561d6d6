"""Someone looks at a night before it counts: at its dreams, or at the generation that it made.

With `review` configured a night stops there as 'waiting'. It stays open, nothing of it is consumed
and Blue serves on. Who reviews decides on single dreams, and then lets the night go on, or ends it.
The answer is a step of the night in the diary: a night that was let on stays so when it is killed.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

from dreaming.memory.diary import Diary
from dreaming.sleep import styles
from dreaming.types import QA, Dream, Status

DREAMS, GENERATIONS = 'dreams', 'generations'
_PAGES = ('diary', 'list')  # styles that bring several facts together
# Of several facts, or of none: each of these dreams stands for itself.
_OF_MANY = (*_PAGES, 'unknown', 'exam_unknown', 'thing', *styles.OPENINGS)
_WAITS = 'waiting'  # the step of a night that stopped
REVIEWED = 'rejected in review'


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReviewConfig:
  """Mirrors `config.review`; what the fields mean stands in configs/default.py."""

  dreams: bool = False
  generations: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waiting:
  """A night that stopped for its review."""

  night: int
  point: str  # DREAMS or GENERATIONS
  of: str = ''  # what is reviewed

  @property
  def reason(self) -> str:
    what = 'its dreams wait' if self.point == DREAMS else 'what it learned waits'
    return f'{what} for a review: --mode=review lists, changes and lets go on'


def held(
  diary: Diary, number: int, config: ReviewConfig, point: str, of: str = ''
) -> Waiting | None:
  """Whether a night has to stop at a point: it is configured, and nobody has let it on.

  Args:
    of: what is reviewed, where a night may come to this point with another: an adapter's digest.
  """
  if not vars(config)[point]:
    return None
  said = diary.night(number).payloads.get(_step(point))
  return None if said and said['of'] == of else stop(diary, number, point, of)


def stop(diary: Diary, number: int, point: str, of: str = '') -> Waiting:
  """Notes that a night waits."""
  diary.set_night_step(number, _WAITS, {'point': point, 'of': of})
  return Waiting(night=number, point=point, of=of)


def waiting(diary: Diary) -> Waiting | None:
  """What waits for a review now."""
  if (number := diary.open_night()) is None:
    return None
  night = diary.night(number)
  if night.step != _WAITS:  # nothing has come since it stopped
    return None
  return Waiting(night=number, **night.payloads[_WAITS])


def decide(
  diary: Diary,
  ids: Iterable[int],
  *,
  keep: bool = True,
  text: str | None = None,
  pairs: Iterable[QA] | None = None,
) -> list[Dream]:
  """Keeps, rejects or rewrites dreams of the night that waits; all or none.

  Args:
    keep: whether the night trains on them.
    text: in the place of theirs.
    pairs: in the place of theirs.

  Returns:
    The dreams as they are now.

  Raises:
    ValueError: no dreams wait, or an id is none of theirs.
  """
  now = waiting(diary)
  if now is None or now.point != DREAMS:
    raise ValueError('no dreams wait for a review: set review.dreams, and begin a night')
  ids = list(dict.fromkeys(ids))
  there = {d.id: d for d in diary.dreams(now.night)}
  if strange := [i for i in ids if i not in there]:
    raise ValueError(f'night {now.night} has no dreams {strange}: it has {_range(there)}')
  changed = []
  for i in ids:
    d, fields = there[i], {}
    if text is not None:
      fields['text'] = text
    if pairs is not None:
      fields['pairs'] = tuple(pairs)
    status = Status.KEPT if keep else Status.REJECTED
    reason = '' if keep else d.quality.reason or REVIEWED
    quality = dataclasses.replace(d.quality, reason=reason)
    changed.append(dataclasses.replace(d, status=status, quality=quality, **fields))
    if keep and not (changed[-1].text.strip() or changed[-1].pairs):
      raise ValueError(f'dream {i} would be empty: give it a text or pairs, or reject it')
  diary.set_dreams(changed)
  return changed


def alike(diary: Diary, id: int) -> list[int]:
  """The dreams of the same fact: its other wordings, and the pages that one of them stands on.

  What `dream` lays out of one fact has the same sources and the gain that this fact had.

  Raises:
    ValueError: no night that is not over has this dream.
  """
  now = _require(diary)
  dreams = {d.id: d for d in diary.dreams(now.night)}
  if id not in dreams:
    raise ValueError(f'night {now.night} has no dream {id}: it has {_range(dreams)}')
  return sorted(x.id for x in of_fact(list(dreams.values()), dreams[id]))


def of_fact(dreams: Sequence[Dream], d: Dream) -> list[Dream]:
  """Of a night's dreams those of the same fact as one of them, and the pages with its sentences."""
  same = [x for x in dreams if key(x) == key(d)]
  told = [x.text for x in same if x.text and x.style not in _OF_MANY]
  pages = [x for x in dreams if x.style in _PAGES and any(t in x.text for t in told)]
  return [*same, *(p for p in pages if p not in same)]


def correct(diary: Diary, id: int, answer: str) -> list[Dream]:
  """Puts another answer in the place of the one that a fact's dreams give, in all its wordings.

  Raises:
    ValueError: as `decide`, or the dream is of no single fact.
  """
  if not answer.strip() or '\n' in answer:
    raise ValueError(f'{answer!r} is no answer: give a few words')
  ids = alike(diary, id)
  dreams = [d for d in diary.dreams(_require(diary).night) if d.id in ids]
  old = next((d.pairs[0].answer for d in dreams if d.style == 'question' and d.pairs), None)
  if old is None:
    raise ValueError(f'dream {id} is of no single fact with an answer: change its text or pairs')

  def put(text: str) -> str:
    return re.sub(rf'(?<!\w){re.escape(old)}(?!\w)', lambda _: answer.strip(), text)

  changed = []
  with diary.transaction():
    for d in dreams:
      pairs = [QA(question=put(p.question), answer=put(p.answer)) for p in d.pairs]
      kept = d.status == Status.KEPT
      changed += decide(diary, [d.id], keep=kept, text=put(d.text), pairs=pairs)
  return changed


def go_on(diary: Diary, by: str) -> Waiting:
  """Lets the night that waits go on: the next `sleep` does.

  Args:
    by: who did, for the record.

  Raises:
    ValueError: nothing waits.
  """
  now = _require(diary)
  payload: dict[str, Any] = {'by': by, 'time': time.time(), 'of': now.of}
  diary.set_night_step(now.night, _step(now.point), payload)
  return now


def refuse(diary: Diary, by: str) -> Waiting:
  """Ends the night that waits; Blue serves on, and its experiences stay new.

  Raises:
    ValueError: nothing waits.
  """
  now = _require(diary)
  reason = f'refused in review by {by}'
  diary.end_night(now.night, 'rejected', {'outcome': 'rejected', 'reason': reason})
  return now


def _require(diary: Diary) -> Waiting:
  if (now := waiting(diary)) is None:
    raise ValueError('nothing waits for a review: config.review says what a night stops for')
  return now


def _step(point: str) -> str:
  return f'review {point}'


def key(d: Dream) -> tuple[object, ...]:
  """What the dreams of one fact share; of those that bring several together, its own."""
  return d.sources, d.quality.gain, d.id if d.style in _OF_MANY else 0


def _range(ids: Iterable[int]) -> str:
  return f'{min(ids)} to {max(ids)}' if ids else 'none'
