"""A life without something: its nights are lived again, from the same seeds, and take their place.

Weights cannot unlearn a word. So a twin of the identity, which never had the experience, sleeps the
nights since again: at the same times, with the same configurations, under the same numbers. On one
CPU stack its adapters have the bytes that they would have had in a life without it; its
generations and dreams then take the place of the old ones, in one transaction. A killed replay goes
on where it was, and until it is over the old weights serve. Not as it was: feedback that was given
by hand counts from the experience's first night on, and what was archived is at hand.

  replay/                  the twin: diary, generations and nights of its own
  replay.json              what is to be forgotten, and the nights as they were
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dreaming.identity import generations
from dreaming.identity.bluegreen import Base, BlueGreen
from dreaming.identity.forget import PLAN, TWIN, write_json
from dreaming.memory import feedback, rating
from dreaming.memory.diary import Diary
from dreaming.types import Experience, Scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class Past:
  """One night as it was."""

  number: int
  lived: bool  # whether it is lived again: what failed or was rolled back only has its number
  now: float
  last: int  # id of the latest experience that it could see
  started: float
  config: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What is forgotten, and the life that is lived again."""

  ids: tuple[int, ...]
  nights: tuple[Past, ...]
  wishes: tuple[tuple[int, float], ...]  # (experience, feedback) that were given by hand
  unasked: tuple[int, ...]  # experiences whose feedback came of what is forgotten
  receipt: Mapping[str, Any]  # of the forgetting itself

  @property
  def first(self) -> int:
    """The first night that can have known of it; those before stay as they are."""
    seen = [n.number for n in self.nights if n.last >= min(self.ids, default=0)]
    return min(seen, default=1 + max((n.number for n in self.nights), default=0))


def plan(diary: Diary, ids: Iterable[int]) -> Plan:
  """Reads what the diary knows of its nights, before anything is forgotten. Nothing is changed."""
  of_night = {g.manifest.night: g.manifest for g in diary.generations()}
  chain = _chain(diary)
  experiences = diary.experiences(archived=None)
  nights = []
  for n in diary.nights():
    select = n.payloads.get('select') or {}
    created = of_night[n.number].created if n.number in of_night else n.started
    now = select.get('now', created)
    sources = of_night[n.number].sources if n.number in of_night else ()
    told = [e.id for e in experiences if e.time <= now]
    lived = n.state == 'rejected' or (n.state == 'promoted' and n.number in chain)
    nights.append(
      Past(
        number=n.number, lived=lived, now=now, started=n.started, config=n.config,
        last=select.get('last', max([*told, *sources], default=0)),
      )
    )  # fmt: skip
  asked = {x for e in experiences if (x := feedback.about(e, experiences)) is not None}
  wishes = [(i, v) for i, v in diary.given() if (i, v) not in asked]
  ids = tuple(sorted({int(i) for i in ids}))
  gone = (feedback.about(e, experiences) for e in experiences if e.id in ids)
  return Plan(
    ids=ids,
    nights=tuple(nights),
    wishes=tuple(wishes),
    unasked=tuple(sorted({x[0] for x in gone if x is not None})),
    receipt={},
  )


def _chain(diary: Diary) -> set[int | None]:
  known = {g.number: g for g in diary.generations()}
  found, number = set(), diary.active()
  while number in known:
    found.add(known[number].manifest.night)
    number = known[number].parent or 0
  return found


def keep(workdir: pathlib.Path, plan: Plan) -> None:
  """Makes a plan durable: from now on it is carried out, also by a later process."""
  write_json(workdir / PLAN, dataclasses.asdict(plan))


def kept(workdir: pathlib.Path) -> Plan | None:
  """The plan of a replay that was not finished.

  Raises:
    ValueError: the file is damaged.
  """
  path = workdir / PLAN
  if not path.exists():
    return None
  try:
    fields = json.loads(path.read_text(encoding='utf-8'))
    return Plan(
      ids=tuple(fields['ids']),
      nights=tuple(Past(**n) for n in fields['nights']),
      wishes=tuple((i, v) for i, v in fields['wishes']),
      unasked=tuple(fields['unasked']),
      receipt=fields['receipt'],
    )
  except (ValueError, TypeError, KeyError) as e:
    raise ValueError(
      f'{path} is damaged ({e}): remove it and forget again with --do=replay; the diary is whole'
    ) from e


def finish(workdir: pathlib.Path) -> None:
  """Removes the twin and its plan."""
  shutil.rmtree(workdir / TWIN, ignore_errors=True)
  (workdir / PLAN).unlink(missing_ok=True)


# ---- Living again ----


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sleeper:
  """What nights need of an agent."""

  base: Base
  embedder: str  # whose vectors nights choose by
  ready: Callable[[Diary, Any], None]  # corroborates and rates, as it does before every night
  sleep: Callable[[Diary, BlueGreen, pathlib.Path, Any, float], Any]  # one night
  config: Callable[[Mapping[str, Any]], Any]  # plain values to a NightConfig


def relive(
  workdir: pathlib.Path,
  diary: Diary,
  plan: Plan,
  sleeper: Sleeper,
  progress: Callable[[int, int], None] | None = None,
) -> Twin:
  """Lives the nights since again, in replay/, without what the diary has forgotten.

  Args:
    workdir: of the identity.
    diary: its, from which the experiences are gone.
    plan: as `keep` has kept it.
    progress: told (nights done, of how many).

  Raises:
    ValueError: a night was made with a configuration that this version does not know.
  """
  configs = {n.number: sleeper.config(n.config) for n in plan.nights if n.number >= plan.first}
  twin = Twin(workdir / TWIN, diary, plan)
  try:
    twin.begin(workdir / 'generations')
    identity = BlueGreen(sleeper.base, twin.diary, twin.root)
    todo = [n for n in plan.nights if n.number >= plan.first]
    for i, past in enumerate(todo):
      if progress:
        progress(i, len(todo))
      if past.number <= twin.over():
        continue
      twin.grow(past, sleeper.embedder)
      if not past.lived:
        twin.skip()
        continue
      if twin.diary.open_night() is None:
        sleeper.ready(twin.diary, configs[past.number])
      sleeper.sleep(twin.diary, identity, twin.path, configs[past.number], past.now)
  except BaseException:
    twin.close()
    raise
  return twin


class Twin:
  """The same identity, in a life without something.

  Args:
    path: of its directory; what an interrupted replay left there is gone on with.
    source: the diary that it takes its experiences from.
    plan: of the replay.
  """

  def __init__(self, path: pathlib.Path, source: Diary, plan: Plan):
    self.path, self.root = path, path / 'generations'
    self._source, self._plan = source, plan
    self.diary = Diary(path / 'diary.sqlite', max_message_bytes=1 << 30)
    self._left = {e.id: e for e in source.experiences(archived=None)}
    self._vectors: dict[int, np.ndarray] = {}

  def close(self) -> None:
    self.diary.close()

  def over(self) -> int:
    """The last night that is over."""
    return max((n.number for n in self.diary.nights() if n.state != 'running'), default=0)

  def begin(self, generations_of: pathlib.Path) -> None:
    """Takes the nights before `plan.first` over as they are: they knew nothing of it."""
    if self.diary.nights() or self._plan.first == 1:
      return
    rows = self._source.night_rows(until=self._plan.first)
    last = max((n.last for n in self._plan.nights if n.number < self._plan.first), default=0)
    for number in rows.generations:
      shutil.copytree(generations_of / str(number), self.root / str(number), dirs_exist_ok=True)
    with self.diary.transaction():
      self._append([e for i, e in sorted(self._left.items()) if i <= last], scores=True)
      self.diary.add_night_rows(rows)

  def grow(self, past: Past, embedder: str) -> None:
    """What came between the night before and this one: experiences, wishes, approvals."""
    there = set(self.diary.ids(archived=None))
    new = [e for i, e in sorted(self._left.items()) if i <= past.last and i not in there]
    if not self._vectors:
      ids, vectors = self._source.embeddings(embedder)
      self._vectors = dict(zip(ids.tolist(), vectors, strict=True))
    with self.diary.transaction():
      self._append(new)
      for id in self.diary.unembedded(embedder):
        if id in self._vectors:
          self.diary.set_embedding(id, self._vectors[id], embedder)
      came = {e.id for e in new}
      for id, value in self._plan.wishes:
        if id in came:
          rating.give(self.diary, id, value)
      approved = [
        a for a in self._source.approvals() if a.witness is None and a.time <= past.started
      ]
      for a in approved:
        if a.experience in there | came:
          self.diary.approve([a.experience], a.who)

  def _append(self, new: Sequence[Experience], scores: bool = False) -> None:
    was = {a.experience: a.was for a in self._source.approvals()}
    for e in new:
      self.diary.next_id(e.id)
      self.diary.append(
        time=e.time, speaker=e.speaker, content=e.content, kind=e.kind, response=e.response,
        media=e.media, trust=was.get(e.id, e.trust), session=e.session, metadata=e.metadata,
        scores=self._scores(e) if scores else None,
      )  # fmt: skip

  def _scores(self, e: Experience) -> Scores | None:
    if e.scores is None or e.id not in self._plan.unasked:
      return e.scores
    return dataclasses.replace(e.scores, feedback=dict(self._plan.wishes).get(e.id, 0.0))

  def skip(self) -> None:
    """A night that is not lived again has its number: the seeds of the others are theirs."""
    self.diary.begin_night({})
    self.diary.end_night(self.diary.open_night(), 'failed', {'outcome': 'failed', 'reason': 'gone'})


def adopt(workdir: pathlib.Path, diary: Diary, twin: Twin, plan: Plan) -> tuple[int, ...]:
  """Puts the twin's nights in the place of the old ones; returns the generations that went.

  The new generations get new numbers, and are safe on the disk before one transaction makes them
  the identity's; then the old ones are removed.
  """
  root, first = workdir / 'generations', plan.first
  promoted = {g.number for g in diary.generations()}
  for g in generations.list_generations(root):  # an interrupted call has left it
    if g.number not in promoted:
      generations.discard(root, g.number)
  rows = twin.diary.night_rows(since=first)
  renumbered = {}
  for number in sorted(rows.generations):
    saved, adapter, masks = generations.load(twin.root, number)
    fields = {k: v for k, v in vars(saved.manifest).items() if k not in ('number', 'files')}
    fields['parent'] = renumbered.get(saved.parent, saved.parent)
    renumbered[number] = generations.next_number(root)
    generations.save(
      root, renumbered[number], adapter=adapter, masks=masks,
      beside=generations.beside(saved), manifest_fields=fields,
    )  # fmt: skip
  saved = {g.number: g for g in generations.list_generations(root)}
  active = twin.diary.active()
  gone = diary.replace_nights(
    first,
    rows,
    {old: saved[new].manifest for old, new in renumbered.items()},
    active=renumbered.get(active, active),
    scores=twin.diary.score_rows(),
  )
  for number in gone:
    if (root / str(number)).exists():
      generations.discard(root, number)
  for past in plan.nights:
    name = f'{past.number:04d}'
    there = (twin.path / 'nights' / name).is_dir()
    if past.number >= first and (there or not past.lived):  # or an earlier call has moved it
      shutil.rmtree(workdir / 'nights' / name, ignore_errors=True)
      if (twin.path / 'nights' / name).is_dir():
        (workdir / 'nights').mkdir(exist_ok=True)
        shutil.move(twin.path / 'nights' / name, workdir / 'nights' / name)
  return gone
