"""What a night takes over from those before it: Blue's adapter, their dreams, their exams."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from dreaming.identity import generations
from dreaming.memory import private
from dreaming.memory.diary import Diary
from dreaming.sleep import examine
from dreaming.sleep.train import TrainConfig
from dreaming.types import QA, Dream, Lora, Status, Trust

_Fact = tuple[tuple[int, ...], str]  # sources and folded answer
_ENOUGH = 0.25  # of a fact's questions, from which it is corrected
EXAM_STYLES = ('exam', 'exam_unknown')
"""Dreams that a night is examined with: they never train, in no night."""


def nights(diary: Diary) -> list[int]:
  """The nights of the generation that serves and of its ancestors, oldest first."""
  known = {g.number: g for g in diary.generations()}
  found, number = [], diary.active()
  while number in known:
    generation = known[number]
    if generation.manifest.night is not None:
      found.append(generation.manifest.night)
    number = generation.parent or 0
  return found[::-1]


def heard(diary: Diary, last: int) -> list[str]:
  """All that was said, however long ago, up to the experience `last`."""
  return [e.content for e in diary.experiences(archived=None) if e.id <= last]


def rehearsal(
  diary: Diary,
  newer: Sequence[Dream] = (),
  secrets: private.Secrets | None = None,
  least: Trust = Trust.IMPORTED,
) -> list[Dream]:
  """What those nights dreamt that was told: rehearsed, or the new dreams would displace it.

  Of what still stands that which holds no secret, by all that is known of them by now.

  Args:
    newer: tonight's dreams.
    secrets: of the diary, where they are known already.
    least: trust that tonight asks for, beside what those nights asked for.
  """
  secrets = secrets or private.Secrets.of(diary.experiences(archived=None))
  return [d for d in standing(diary, newer, least) if secrets.clean(d)]


def standing(
  diary: Diary, newer: Sequence[Dream] = (), least: Trust = Trust.IMPORTED
) -> list[Dream]:
  """What those nights dreamt that was told, and that holds.

  Not what had not been told then: it may have been since. Nor what is trusted less by now than its
  night asked for: an approval may have been taken back. Nor what a later night, or tonight,
  answers otherwise: the newer experience wins, and the older one stays in the diary. Of a fact that
  is corrected nothing stands, no statement, no page and no question the other way round; of one
  that a single vague question asks otherwise, all but this question.

  Args:
    newer: tonight's dreams.
    least: as `rehearsal` has it.
  """
  return _standing(diary, newer, least)[0]


def _standing(
  diary: Diary, newer: Sequence[Dream], least: Trust = Trust.IMPORTED
) -> tuple[list[Dream], set[_Fact]]:
  """(what holds, what was corrected)"""
  kept: list[Dream] = []
  gone: set[_Fact] = set()
  answers = _answers(newer)
  for n in reversed(nights(diary)):
    dreams = _trusted(diary, n, least)
    outdated = _outdated(dreams, answers)
    kept += [d for d in (_without(d, outdated, answers) for d in dreams) if d is not None][::-1]
    gone |= outdated
    answers = _answers(dreams) | answers
  return kept[::-1], gone


def lessons(dreams: Sequence[Dream], least: Trust) -> list[Dream]:
  """Those of a night that train: kept, of sources that are trusted that far, and not the exam's."""
  kept = (d for d in dreams if d.status == Status.KEPT and d.style not in EXAM_STYLES)
  return [d for d in kept if d.trust >= least]


def told(diary: Diary, night: int) -> list[Dream]:
  """What a night dreamt of what it was told, and trained on."""
  dreams = diary.dreams(night, status=Status.KEPT)
  return [d for d in dreams if d.style not in (*EXAM_STYLES, 'unknown')]


def _trusted(diary: Diary, night: int, least: Trust) -> list[Dream]:
  """What `told` has, where it is trusted by now as far as that night asked for, and as `least`."""
  of_then = diary.night(night).config.get('select', {}).get('trust', Trust.USER.name)
  limit = max(least, Trust[of_then.upper()])
  return [d for d in told(diary, night) if d.trust >= limit]


def _answers(dreams: Sequence[Dream]) -> dict[str, set[str]]:
  """Question -> its answers, both folded, of what was told and kept."""
  found: dict[str, set[str]] = {}
  for d in dreams:
    if d.status != Status.KEPT or d.style in (*EXAM_STYLES, 'unknown'):
      continue
    for p in d.pairs:
      found.setdefault(_folded(p.question), set()).add(_folded(p.answer))
  return found


def _contradicted(pair: QA, answers: Mapping[str, set[str]]) -> bool:
  answer = _folded(pair.answer)
  return answer not in answers.get(_folded(pair.question), (answer,))


def _outdated(dreams: Sequence[Dream], answers: Mapping[str, set[str]]) -> set[_Fact]:
  """Facts of one night of whose questions at least a quarter is answered otherwise by now."""
  asked: collections.Counter[_Fact] = collections.Counter()
  otherwise: collections.Counter[_Fact] = collections.Counter()
  for d in dreams:
    for p in d.pairs if d.style != 'reversed' else ():  # their answer is whom the fact is about
      fact = d.sources, _folded(p.answer)
      asked[fact] += 1
      otherwise[fact] += _contradicted(p, answers)
  return {fact for fact, count in otherwise.items() if count and count >= _ENOUGH * asked[fact]}


def _without(
  dream: Dream, outdated: Collection[_Fact], answers: Mapping[str, set[str]]
) -> Dream | None:
  """A dream without what no longer holds; None where nothing is left."""
  old = [a for sources, a in outdated if {*sources} & {*dream.sources}]

  def tells(*texts: str) -> bool:
    said = ' '.join(map(_folded, texts))
    return any(re.search(rf'(?<!\w){re.escape(a)}(?!\w)', said) for a in old)

  if not dream.pairs:
    return None if tells(dream.text) else dream
  left = [p for p in dream.pairs if not _contradicted(p, answers)]
  left = [p for p in left if not tells(p.question, p.answer)]
  return dataclasses.replace(dream, pairs=tuple(left)) if left else None


def _folded(text: str) -> str:
  return ' '.join(text.casefold().split())


def questions(
  diary: Diary, *, limit: int, newer: Sequence[Dream] = ()
) -> tuple[examine.Question, ...]:
  """What those nights were examined with: at most `limit` questions, evenly from all of them.

  Args:
    newer: tonight's dreams: facts that they answer otherwise are asked no more.
  """
  secrets = private.Secrets.of(diary.experiences(archived=None))
  stands, gone = _standing(diary, newer)
  there = {d.sources for d in stands if secrets.clean(d)}
  asked = [[d for d in diary.dreams(n) if secrets.clean(d)] for n in nights(diary)]
  found = [
    q
    for dreams in asked
    for q in examine.held_out(dreams)[0]
    if q.sources in there and (q.sources, _folded(q.answers[0])) not in gone
  ]
  if len(found) > limit:
    found = [found[i] for i in np.linspace(0, len(found) - 1, limit).astype(int)]
  return tuple(found)


def scores(diary: Diary, number: int) -> Mapping[str, float]:
  """What a promoted generation was measured with at its own gate; {} of the base."""
  return next((g.manifest.scores for g in diary.generations() if g.number == number), {})


def answered(diary: Diary, number: int) -> Mapping[str, bool]:
  """Question -> whether a generation answered it rightly at its own gate; {} of the base."""
  night = next((g.manifest.night for g in diary.generations() if g.number == number), None)
  exam = diary.night(night).payloads.get('examine') if night is not None else None
  replies = (exam or {}).get('replies', {})
  asked = (*replies.get('recall', ()), *replies.get('earlier', ()))
  return {text: bool(right) for text, _, right in asked}


def stale(diary: Diary, number: int, settings: Mapping[str, Any]) -> str:
  """Why an interrupted night cannot go on with these settings, or ''."""
  night = diary.night(number)
  if night.config != settings:
    return 'its configuration was changed while it was interrupted'
  parent = (night.payloads.get('select') or {}).get('parent', diary.active())
  if parent != diary.active():
    return f'it grew from generation {parent}, and {diary.active()} serves by now'
  return ''


def lora_fields(config: TrainConfig) -> dict[str, Any]:
  """How an adapter of this configuration is described in its manifest."""
  fields = {'rank': config.rank, 'alpha': config.rank * config.scale, 'targets': config.targets}
  if config.consolidation != 'continual':  # manifests without the field are of the usual kind
    fields['consolidation'] = config.consolidation
  return fields


def adapter(root: pathlib.Path, parent: int, config: TrainConfig) -> Lora | None:
  """The one adapter that is carried on from night to night; None where a new one begins.

  Raises:
    ValueError: `config` asks for an adapter of another kind, or the generation is damaged.
  """
  if parent == 0 or config.consolidation != 'continual':
    return None
  generation, found, _ = generations.load(root, parent)
  for name, value in ({'consolidation': None} | lora_fields(config)).items():
    if generation.manifest.lora.get(name) != value:
      raise ValueError(
        f'generation {parent} has lora {dict(generation.manifest.lora)}, and config.train asks for '
        f'{name}={value!r}: set it back, or begin another life (workdir)'
      )
  return found


def discard_orphans(root: pathlib.Path, diary: Diary, night: int) -> None:
  """Removes what a night had saved when it was killed before the commit; it is written anew."""
  promoted = {g.number for g in diary.generations()}
  for generation in generations.list_generations(root):
    if generation.number not in promoted and generation.manifest.night == night:
      generations.discard(root, generation.number)
