"""Scoring what was lived, in batch and never within a reply: all parts of the scores, once.

What this rater has not scored is pending: new experiences, and all earlier ones when the weights,
a prompt or the parts that count were changed. Earlier scores stay in the diary as history.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from dreaming.memory import emotion, feedback, private, score
from dreaming.memory.diary import Diary
from dreaming.memory.index import Index
from dreaming.types import Experience, Mind, Scores, Trust

AT_ONCE = 8  # experiences; each is ten rows
_UNRATED = Scores(importance=score.NEUTRAL)


def rater_name(model: str, *, emotional: bool = False, instruct: bool = False) -> str:
  """The name that the base's scores carry.

  Args:
    model: architecture and digest of the weights.
    emotional: whether emotion is rated, too.
    instruct: whether the model is asked in its chat template.
  """
  name = score.rater_name(model, instruct=instruct)
  return name + (f'/{emotion.rater_name(instruct=instruct)}' if emotional else '')


def pending(
  experiences: Sequence[Experience], name: str, least: Trust = Trust.USER
) -> list[Experience]:
  """Those that the rater of this name has not scored, of what nights may dream of."""
  trusted = (e for e in experiences if e.trust >= least)
  return [e for e in trusted if e.scores is None or e.scores.rater != name]


def rate(
  diary: Diary,
  index: Index,
  decoder: score.Rater,
  mind: Mind,
  *,
  model: str,
  emotional: bool = False,
  instruct: bool = False,
  contacts: bool = False,
  least: Trust = Trust.USER,
  progress: Callable[[int, int], None] | None = None,
) -> int:
  """Scores what is pending, eight at a time, and returns how many they were.

  What the user's words ask to remember or to forget is noted with the scores of the message that
  asks, in one transaction: a rating that was interrupted goes on where it was.

  Args:
    index: of all experiences.
    mind: the base, throughout a life.
    model: as for `rater_name`.
    emotional: whether emotion is rated, too; it takes as long again.
    instruct: whether the mind takes the chat template.
    contacts: whether addresses and telephone numbers are struck out, as secrets always are.
    least: trust that nights dream of.
    progress: told (done, total) after each batch.

  Raises:
    ModuleNotFoundError: emotion is to be rated and its package is not installed.
  """
  lived = diary.experiences()
  name = rater_name(model, emotional=emotional, instruct=instruct)
  if not (todo := pending(lived, name, least)):
    return 0
  scale = score.scale(decoder, mind, instruct=instruct)
  felt = emotion.scale(decoder, mind, instruct=instruct) if emotional else None
  secrets = private.Secrets.of(diary.experiences(archived=None), contacts)
  by_hand = {e.id for e in lived if e.scores and e.scores.feedback}
  unknown = {e.id for e in todo if not (e.scores and e.scores.novelty)}
  earlier = _without(index, unknown)
  for start in range(0, len(todo), AT_ONCE):
    some = todo[start : start + AT_ONCE]
    read = [secrets.without(e) for e in some]
    rated = score.importance(decoder, mind, read, on=scale, instruct=instruct)
    moved = [0.0] * len(some)
    if emotional:
      moved = emotion.rate(decoder, mind, [e.content for e in read], on=felt, instruct=instruct)
    with diary.transaction():
      for e, new, strength in zip(some, rated, moved, strict=True):
        # Read anew: an earlier batch may have noted feedback on it.
        old = diary.experience(e.id).scores or _UNRATED
        novelty = old.novelty
        if e.id in unknown:
          novelty = score.novelty(index.vector(e.id), earlier)
          earlier.add(e.id, index.vector(e.id))
        parts = {'novelty': novelty, 'emotion': strength, 'feedback': old.feedback}
        diary.set_scores(e.id, dataclasses.replace(new, rater=name, **parts))
      for e in some:
        if not (e.scores and e.scores.rater):  # the first time only
          _heed(diary, e, lived, by_hand)
    if progress:
      progress(start + len(some), len(todo))
  return len(todo)


def give(diary: Diary, id: int, value: float) -> Experience:
  """Notes the user's feedback on an experience; the other parts of its scores stay.

  Args:
    value: 1 (no night shall dream of it) to 10 (the next one shall), 0 to take it back.

  Raises:
    ValueError: no such value or experience.
  """
  if not (value == 0 or 1 <= value <= 10):
    raise ValueError(f'feedback is {value}: take 1 to 10, or 0 to take it back')
  scores = diary.experience(id).scores or _UNRATED
  diary.set_scores(id, dataclasses.replace(scores, feedback=float(value)))
  return diary.experience(id)


def _heed(diary: Diary, e: Experience, lived: Sequence[Experience], by_hand: set[int]) -> None:
  """Notes what an experience's words ask for; only a wish to forget outdoes what was given."""
  if (asked := feedback.about(e, lived)) is None:
    return
  id, value = asked
  if value == score.UNWANTED or id not in by_hand:
    give(diary, id, value)


def _without(index: Index, ids: set[int]) -> Index:
  """To measure novelty against."""
  keep = np.array([i for i in index.ids.tolist() if i not in ids], np.int64)
  vectors_NxD = np.zeros((len(keep), index.dim), np.float32)
  for row, i in enumerate(keep.tolist()):
    vectors_NxD[row] = index.vector(i)
  return Index(keep, vectors_NxD)
