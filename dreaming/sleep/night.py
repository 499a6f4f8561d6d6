"""One night: select, dream, corpus, train, prune, examine, and then promote or reject.

  outcome = night.run(base=base, diary=diary, ...)

A state machine that may be killed at any moment. What a step leaves is in the diary (chosen
experiences, dreams, measures, digests) and in nights/NNNN/work/ (adapters, checkpoints); the next
call goes on after the last step that was finished, and ends with the same bytes as if nothing had
happened. Until the one transaction that promotes Green, nothing is consumed and Blue serves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from dreaming.brain import programs
from dreaming.brain.decode import Decoder
from dreaming.identity import bluegreen, generations
from dreaming.identity.bluegreen import BlueGreen
from dreaming.memory.diary import Diary
from dreaming.memory.embed import Embedder
from dreaming.sleep import (
  aims,
  artifacts,
  backoff,
  candidate,
  corpus,
  dream,
  examine,
  gate,
  ledger,
  lineage,
  metrics,
  prune,
  reader,
  review,
  select,
  supervise,
  train,
)
from dreaming.sleep.outcome import Outcome, plain
from dreaming.sleep.settings import NightConfig
from dreaming.types import Dream, Experience, Lora, Mind, Status

_EARLIER = 60  # questions about earlier nights
_RECOVERY_RATE = 0.3  # of the learning rate: the adapter has arrived and must not leave again

Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""Called as (step, done, total, values) while a step is under way; total is 0 where unknown."""


def run(
  *,
  base: bluegreen.Base,
  decoder: Decoder,
  diary: Diary,
  identity: BlueGreen,
  workdir: pathlib.Path,
  cache: pathlib.Path,
  config: NightConfig,
  embedder: Embedder,
  now: float | None = None,
  progress: Progress | None = None,
) -> Outcome:
  """Sleeps: goes on with a night that was killed, or begins one.

  For the holder of the IdentityLock. Experiences should have their scores and vectors by now.

  Args:
    base: as weights.load gives it.
    identity: over workdir/generations.
    embedder: its vectors in the diary tell selection what is alike; dreaming asks it for more.
    now: Unix seconds, by default this moment.
    progress: told what happens.

  Raises:
    ValueError: the configuration does not go with the generation that serves.
  """
  settings = plain(dataclasses.asdict(config))
  number = diary.open_night()
  if number is not None and (reason := lineage.stale(diary, number, settings)):
    abandon(diary, reason)
    number = None
  if number is None:
    number = diary.begin_night(settings)
  metrics.close_over(workdir / 'nights', diary)
  directory = workdir / 'nights' / f'{number:04d}'
  with metrics.NightLog(directory, number=number, config=settings) as log:
    life = (base, decoder, diary, identity, embedder, workdir, cache, config, number, log, progress)
    outcome = _Night(*life).run(now)
  with contextlib.suppress(OSError):  # the night is over: what is left to tidy, the next one does
    metrics.close_over(workdir / 'nights', diary)
  return outcome


def abandon(diary: Diary, reason: str) -> None:
  """Ends the night that is not over, if there is one, as failed; nothing of it is consumed."""
  if (number := diary.open_night()) is not None:
    diary.end_night(number, 'failed', {'outcome': 'failed', 'reason': reason})


class _Night:
  def __init__(
    self, base, decoder, diary, identity, embedder, workdir, cache, config, number, log, progress
  ):
    self.base: bluegreen.Base = base
    self.decoder: Decoder = decoder
    self.diary: Diary = diary
    self.identity: BlueGreen = identity
    self.embedder: Embedder = embedder
    self.root: pathlib.Path = workdir / 'generations'
    self.work: pathlib.Path = log.directory / 'work'
    self.cache: pathlib.Path = cache
    self.config: NightConfig = config
    self.number: int = number
    self.log: metrics.NightLog = log
    self.progress: Progress = progress or (lambda *_: None)
    self.base_mind: Mind = identity.mind(0)
    self.seed = int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0] >> 1)
    self.seconds: dict[str, float] = {}
    self.work.mkdir(exist_ok=True)

  def run(self, now: float | None) -> Outcome:
    self.chosen = self._select(now)
    if not self.chosen['ids']:
      return self._end('empty', 'no experience is left to dream of: talk first')
    self.dreams = self._dream()
    self._supervise()
    if waiting := review.held(self.diary, self.number, self.config.review, review.DREAMS):
      return self._outcome('waiting', waiting.reason)
    if not self._lessons():
      return self._end('empty', f'of {len(self.dreams)} dreams none was kept: nothing to learn')
    trained = self._train()
    # Back off until the gate opens. Mostly the first amount that keeps the nll passes the exam.
    start, last = 0, len(self.config.prune.amounts) - 1
    while True:
      index, adapter = self._prune(trained, start)
      masks = self._masks(trained, adapter, index)
      exam = self._examine(adapter, masks, index)
      verdict = gate.judge(candidate.evidence(exam, adapter), self.config.gate)
      if verdict.passed or index == last:
        break
      start = index + 1
    if not verdict.passed:
      return self._end('rejected', f'the gate stayed closed: {verdict}', rows=verdict.rows)
    supervisor = self.config.supervisor, self.cache
    if why := supervise.generation(self.diary, self.number, exam, *supervisor):
      return self._end('rejected', why, rows=verdict.rows)
    held = self.diary, self.number, self.config.review, review.GENERATIONS
    if waiting := review.held(*held, exam['adapter']):
      return self._outcome('waiting', waiting.reason, rows=verdict.rows)
    return self._promote(adapter, masks, verdict)

  # ---- Steps: each is skipped when the diary has what it left; it logs before it leaves ----

  def _select(self, now: float | None) -> Mapping[str, Any]:
    if (left := self._left('select')) is not None:
      return left
    with self._timed('select'):
      now = time.time() if now is None else now
      vectors = self.diary.embeddings(self.embedder.name)
      how = self.config.select, now, self.embedder, self.config.user
      found = select.select(self.diary, vectors, *how)
      ids = [e.id for e in found]
    self.log.write('select', 0, {'chosen': len(ids)})
    seen = {'now': now, 'last': max(self.diary.ids(archived=None), default=0)}  # what it could see
    return self._leave('select', {'ids': ids, **seen, 'parent': self.diary.active()})

  def _dream(self) -> list[Dream]:
    if self._left('dream') is None:
      school = self.base, self.decoder, self.config, self.cache, self.seed, self.progress
      with self._timed('dream'):
        dreams = dream.dream(
          self.decoder, self.base_mind, self._told(), user=self.config.user, seed=self.seed,
          embedder=self.embedder, config=self.config.dream, night=self.number,
          earlier=lineage.rehearsal(self.diary),
          heard=lineage.heard(self.diary, self.chosen['last']),
          make_reader=reader.of_night(*school),
          progress=lambda read, total: self.progress('dream', read, total, {}),
        )  # fmt: skip
      kept = sum(d.status == Status.KEPT for d in dreams)
      counts = {'kept': kept, 'rejected': len(dreams) - kept}
      self.log.write('dream', 0, counts)
      with self.diary.transaction():
        self.diary.add_dreams(dreams)
        self._leave('dream', counts)
    return self.diary.dreams(night=self.number)

  def _supervise(self) -> None:
    config = self.config.supervisor, self.cache, lambda *at: self.progress('supervise', *at, {})
    supervise.dreams(self.diary, self.number, self._told, *config)
    self.dreams = self.diary.dreams(night=self.number)

  def _train(self) -> Lora:
    path, left = self.work / 'trained.npz', self._left('train')
    if left is None or (found := artifacts.read(path, left['digest'])) is None:
      parent = lineage.adapter(self.root, self.chosen['parent'], self.config.train)
      lessons = self._material
      of_night = self._lessons(), self._told(), self.config.corpus, self.seed
      more = corpus.more(self._aims, self.decoder, self.ground.params, lessons, *of_night)
      self.decoder.forget(self.base_mind)  # what it laid out to speak is room to train in
      with self._timed('train'):
        trained = train.train(
          self.ground.params, self.base.arch, lessons, config=self.config.train, seed=self.seed,
          adapter=parent, checkpoint=self.work / 'train',
          on_step=self._on_step('train', self.config.train.steps), **more,
        )  # fmt: skip
      digest = artifacts.write(path, trained.adapter)
      done = {'steps': trained.steps_done, 'stopped': trained.stopped, 'digest': digest}
      self._leave('train', done)
      found = artifacts.written(path, digest)
    return found

  def _prune(self, trained: Lora, start: int) -> tuple[int, Lora]:
    path, config, left = self.work / 'pruned.npz', self.config.prune, self._left('prune')
    if left is not None and left['index'] >= start:
      if (found := artifacts.read(path, left['digest'])) is not None:
        return left['index'], found

    def on_attempt(a: backoff.Attempt) -> None:
      index = config.amounts.index(a.amount)
      values = {'amount': a.amount, 'nll': math.nan if a.nll is None else a.nll, 'ok': a.ok}
      self.log.write('prune', index, values)
      self.progress('prune', index + 1, len(config.amounts), values)

    with self._timed('prune'):
      max_nll = self._known().quick_nll * (1 + self.config.gate.max_nll_increase)
      pruned = backoff.back_off(
        self.decoder, self.ground, trained, self._recover, config=config,
        scale=self.config.train.scale, max_nll=max_nll, start=start, on_attempt=on_attempt,
      )  # fmt: skip
    index, digest = pruned.index, artifacts.write(path, pruned.adapter)
    attempts = backoff.describe(pruned.attempts)
    self._leave('prune', {'index': index, 'digest': digest, 'attempts': attempts})
    return index, artifacts.written(path, digest)

  def _recover(self, adapter: Lora, mask: prune.Mask, amount: float) -> Lora:
    night_corpus = self._material
    batches = night_corpus.batches[-self.config.prune.recovery_steps :]
    steps = len(batches)
    rate = _RECOVERY_RATE * self.config.train.learning_rate
    return train.train(
      self.ground.params, self.base.arch, dataclasses.replace(night_corpus, batches=batches),
      config=dataclasses.replace(self.config.train, steps=steps, learning_rate=rate),
      seed=self.seed + 1, adapter=adapter, masks=mask,
      on_step=self._on_step(f'recover {amount:g}', steps), **self._aims.held(),
    ).adapter  # fmt: skip

  def _examine(self, adapter: Lora, masks: generations.Masks, index: int) -> Mapping[str, Any]:
    left = self._left('examine')
    # Measured of another adapter it is stale: the gate would see it, so that it is taken anew.
    if left is not None and left['index'] == index and candidate.fits(left, adapter):
      return left
    with self._timed('examine'):
      known = self._known()
      told, unknown = examine.held_out(self.dreams)
      then = lineage.questions(self.diary, limit=_EARLIER, newer=self.dreams)
      exam = examine.Exam(
        recall=told, never_mentioned=unknown, general=known.general, earlier=then, firm=known.firm,
        most_line=self.config.refusal_line,
      )  # fmt: skip
      found = candidate.examine_green(
        decoder=self.decoder, base=self.base, base_mind=self.base_mind, ground=self.ground,
        blue=self.identity.blue, adapter=adapter, masks=masks, scale=self.config.train.scale,
        exam=exam, known=known, cache=self.cache, config=self.config.gate,
        told=lambda: candidate.secrets_told(self.diary, self.config.user),
        scores=lineage.scores(self.diary, self.chosen['parent']),
        before=lineage.answered(self.diary, self.chosen['parent']),
      )  # fmt: skip
    measured = {k: v for k, v in found['measures'].items() if v is not None}
    self.log.write('examine', index, measured)
    self.progress('examine', 1, 1, measured)
    return self._leave('examine', {'index': index, **found})

  def _promote(self, adapter: Lora, masks: generations.Masks, verdict: gate.Verdict) -> Outcome:
    exam = self._left('examine')
    # What did not take stays new in the diary: recalled by day, dreamt of again.
    consumed = tuple(i for i in self.chosen['ids'] if i not in exam['missed'])
    with self._timed('promote'):
      lineage.discard_orphans(self.root, self.diary, self.number)
      generation = generations.save(
        self.root,
        generations.next_number(self.root),
        adapter=adapter,
        masks=masks,
        beside=self._aims.beside(self.ground, lambda: self._material, adapter),
        manifest_fields={
          'parent': self.chosen['parent'],
          'night': self.number,
          'created': self.chosen['now'],
          'base': self.base.digest,
          'sources': self.chosen['ids'],
          'seed': self.seed,
          'lora': lineage.lora_fields(self.config.train),
          'scores': {k: v for k, v in exam['measures'].items() if v is not None},
          'config': self.diary.night(self.number).config,
        },
      )
    fields = {'rows': verdict.rows, 'generation': generation, 'consumed': consumed}
    outcome = self._outcome('promoted', '', **fields)
    self.identity.promote(generation, consumed=consumed, night=self.number, result=outcome.plain())
    return outcome

  def _end(self, state: str, reason: str, **fields: Any) -> Outcome:
    outcome = self._outcome(state, reason, **fields)
    self.diary.end_night(self.number, 'rejected', outcome.plain())
    return outcome

  def _outcome(self, state: str, reason: str, **fields: Any) -> Outcome:
    exam, pruned, dreams = (self._left(s) or {} for s in ('examine', 'prune', 'dream'))
    return Outcome(
      number=self.number,
      state=state,
      reason=reason,
      selected=tuple(self.chosen['ids']),
      dreams_kept=dreams.get('kept', 0),
      dreams_rejected=dreams.get('rejected', 0),
      pruned=self.config.prune.amounts[pruned['index']] if pruned else 0.0,
      measures=exam.get('measures', {}),
      base_measures=exam.get('base', {}),
      seconds=dict(self.seconds),
      **fields,
    )

  # ---- What steps share ----

  @functools.cached_property
  def _aims(self) -> aims.Aims:
    of = self.config.train, self.identity, self.root, self.chosen['parent']
    return aims.of_night(*of, base_digest=self.base.digest, keep=self.work)

  def _lessons(self) -> list[Dream]:
    """The dreams that train."""
    return lineage.lessons(self.dreams, self.config.select.least)

  def _told(self) -> list[Experience]:
    return select.chosen(self.diary, self.chosen['ids'], self.config.select, self.decoder)

  @functools.cached_property
  def _material(self) -> corpus.Corpus:
    """Made when it is first needed: a night that resumes after training may do without."""
    with self._timed('corpus'):
      weak, asked = self.config.corpus.weak_repeats, self.config.train.steps
      made = corpus.build(
        self.decoder, self.base_mind, self.base.digest, self._lessons(), self._told(),
        ledger.rehearsal(self.diary, self.dreams, weak, self.config.select.least),
        user=self.config.user, config=self.config.corpus, steps=asked, seed=self.seed,
        cache=self.cache, aims=self._aims,
      )  # fmt: skip
    digest, left = artifacts.digest(vars(made)), self._left('corpus') or {}
    if left.get('digest') != digest:  # new, or the machine changed: not what was trained on
      shutil.rmtree(self.work / 'train', ignore_errors=True)
      self.log.write('corpus', 0, size := {'batches': len(made.batches)})
      self._leave('corpus', {'digest': digest, **size, 'lineage': made.lineage()})
    return made

  @functools.cached_property
  def ground(self) -> bluegreen.Base:
    """What tonight's adapter is added to, in the place of the base."""
    kind = self.config.train.consolidation
    return dataclasses.replace(self.base, params=self.identity.ground(self.chosen['parent'], kind))

  def _known(self) -> examine.Known:
    return examine.known(self.decoder, self.base_mind, self.base.digest, self.cache)

  def _masks(self, trained: Lora, adapter: Lora, index: int) -> generations.Masks:
    scale, config = self.config.train.scale, self.config.prune
    return backoff.masks(self.ground, trained, adapter, index=index, scale=scale, config=config)

  def _left(self, step: str) -> Any:
    return self.diary.night(self.number).payloads.get(step)

  def _leave(self, step: str, payload: Any) -> Any:
    self.diary.set_night_step(self.number, step, payload)
    return payload

  def _on_step(self, step: str, total: int) -> Callable[[int, Mapping[str, float]], None]:
    def on_step(done: int, values: Mapping[str, float]) -> None:
      self.log.write(step, done, values)
      self.progress(step, done, total, values)

    return on_step

  @contextlib.contextmanager
  def _timed(self, step: str) -> Iterator[None]:
    self.progress(step, 0, 0, {})
    if step in ('dream', 'corpus', 'train', 'prune', 'examine'):
      programs.drop()  # of the step before
    start = time.monotonic()
    yield
    self.seconds[step] = self.seconds.get(step, 0.0) + time.monotonic() - start
