"""What a night takes over from those before it: Blue's adapter, their dreams, their exams."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dreaming.identity import generations
from dreaming.memory.diary import Diary
from dreaming.sleep import examine
from dreaming.sleep.train import TrainConfig
from dreaming.types import Dream, Lora, Status

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


def rehearsal(diary: Diary) -> list[Dream]:
  """What those nights dreamt that was told: rehearsed, or the new dreams would displace it.

  Not what had not been told then: it may have been since.
  """
  dreams = [d for n in nights(diary) for d in diary.dreams(n, status=Status.KEPT)]
  return [d for d in dreams if d.style not in (*EXAM_STYLES, 'unknown')]


def questions(diary: Diary, *, limit: int) -> tuple[examine.Question, ...]:
  """What those nights were examined with: at most `limit` questions, evenly from all of them."""
  found = [q for n in nights(diary) for q in examine.held_out(diary.dreams(n))[0]]
  if len(found) > limit:
    found = [found[i] for i in np.linspace(0, len(found) - 1, limit).astype(int)]
  return tuple(found)


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
