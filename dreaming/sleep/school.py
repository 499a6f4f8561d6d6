"""School: the base learns to read what people say, once, before its first night.

A small base cannot write questions freely, and a bank of relations has not all that people tell
(docs/experiments.md). But it can be taught: lessons/*.jsonl are 1,200 messages of invented people,
each with what it tells, in questions and sentences of other words, and with questions that it does
not answer. From them an adapter of its own learns four things to do after a message:

  It tells:       say something that it tells, in its words, and ask for that
  Q: ... A:       answer what is asked, or say that nobody told
  That means:     say it of the user, in other words
  Not told:       ask what one would like to know, and it does not tell

Who was at school reads for nights (reader.py) and never speaks; nights train the base, not it. The
adapter depends on the base and the lessons alone, and is kept in the cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import importlib.resources
import json
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dreaming.brain import lora, prompts
from dreaming.brain.tokenizer import Tokenizer
from dreaming.sleep import artifacts, train
from dreaming.sleep.bank import bank, fill
from dreaming.sleep.corpus import Corpus, shortlist_of
from dreaming.sleep.packing import Encoded, Example, batch_of, encode
from dreaming.types import Lora, Mind

NOTHING = 'none'  # what a message is asked about that tells nothing
QUESTION, SENTENCE, UNTOLD, TELLS = 'Q:', 'That means:', 'Not told:', 'It tells:'
_NAMES = (
  'Leila', 'Jorge', 'Wanda', 'Ibrahim', 'Sofie', 'Pavel', 'Mei', 'Anders', 'Chidi', 'Ruth',
  'Yusuf', 'Ingrid', 'Luca', 'Hana', 'Oskar', 'Nadia', 'Tariq', 'Elise', 'Bruno', 'Keiko',
)  # fmt: skip
_ROUNDS = 12  # questions of a fact, at most
_PLAIN = 3  # of them, the first ones, that it learns to ask; the others it learns to answer
_FREQUENT = 8192  # tokens that the loss looks at, with all that occur
_LOSSES = 192  # loss positions of a row, at most
_LOOKED_AT = 6  # rows kept from training, of which the loss is shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class SchoolConfig:
  """Mirrors `config.school`."""

  steps: int = 490  # 0: nobody goes to school, and nights read by the bank alone
  rows: int = 3  # messages of each
  row_length: int = 256  # tokens of a message with what is asked about it
  bank_share: float = 0.2  # of the messages: examples of the bank's
  learning_rate: float = 5e-4
  rank: int = 16
  dtype: str = 'bfloat16'  # see train.dtype
  remat: bool = False

  def __post_init__(self):
    if self.steps < 0 or not 0 <= self.bank_share < 1:
      raise ValueError(
        f'school.steps={self.steps}, school.bank_share={self.bank_share}: steps are 0 or more, '
        'a share is from 0 to less than 1'
      )
    if min(self.rows, self.row_length, self.rank) < 1 or self.learning_rate <= 0:
      raise ValueError(
        f'school: rows={self.rows}, row_length={self.row_length}, rank={self.rank}, '
        f'learning_rate={self.learning_rate}: each must be positive'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Taught:
  """What a message tells: an answer in its words, asked and said in others."""

  answer: str
  questions: tuple[str, ...]
  says: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lesson:
  """A message, what it tells, and what it does not tell."""

  user: str
  text: str
  facts: tuple[Taught, ...]
  untold: tuple[str, ...]


# ---- Lessons ----


@functools.cache
def lessons() -> tuple[Lesson, ...]:
  """Those that the package ships."""
  folder = importlib.resources.files('dreaming.sleep') / 'lessons'
  out = []
  for file in sorted(folder.iterdir(), key=lambda f: f.name):
    if file.name.endswith('.jsonl'):
      out += [_lesson(json.loads(line)) for line in file.read_text('utf-8').splitlines()]
  return tuple(out)


def _lesson(found: Mapping[str, Any]) -> Lesson:
  facts = (
    Taught(answer=f['answer'], questions=tuple(f['questions']), says=tuple(f['says']))
    for f in found['facts']
  )
  return Lesson(
    user=found['user'], text=found['text'], facts=tuple(facts), untold=tuple(found['untold'])
  )


def of_bank(rng: np.random.Generator) -> list[Lesson]:
  """The examples of the bank: one fact each, in its wordings."""
  relations, out = bank(True), []

  def pick(items):
    return items[int(rng.integers(len(items)))]

  for r in relations:
    for text, told in r.examples:
      person, _, value = (part.strip() for part in told.rpartition('|'))
      if r.about == 'person' and not person:
        continue
      user = pick(_NAMES)
      slots = {'user': user, 'person': person or user, 'value': value}
      asked = [fill(q, **slots) for q in r.questions]
      fact = Taught(
        answer=value,
        questions=tuple(q for q in asked if value.lower() not in q.lower()),
        says=tuple(fill(s, **slots) for s in r.statements),
      )
      others = [fill(pick(pick(relations).questions), **slots | {'value': 'it'}) for _ in range(3)]
      out.append(Lesson(user=user, text=text, facts=(fact,), untold=tuple(others)))
  return out


def words(tokenizer: Tokenizer) -> frozenset[int]:
  """Tokens of all that is learned to be said at school."""
  said = [QUESTION, SENTENCE, UNTOLD, TELLS, NOTHING]
  for lesson in lessons():
    said += lesson.untold
    said += [text for f in lesson.facts for text in (f.answer, *f.questions, *f.says)]
  said += [text for r in bank(True) for text in (*r.questions, *r.statements)]
  return frozenset(t for text in said for t in tokenizer.encode(f' {text}\n'))


# ---- What is learned of a lesson ----


def told(user: str, text: str) -> str:
  """What everything else stands after."""
  return f'{user} says: "{text}"\n'


def read(question: str, answer: str) -> Example:
  return Example(prompt=prompts.question(question), target=f' {answer}\n')


def asked_for(question: str, answer: str) -> Example:
  """The answer first: what is asked for something is right more often."""
  return Example(prompt=TELLS, target=f' {answer}\n{QUESTION} {question}\n\n')


def examples(lesson: Lesson, other: Lesson, rng: np.random.Generator) -> list[Example]:
  """Everything to do after a message, the most telling first: a row has room for a dozen.

  Args:
    lesson: it.
    other: a lesson of somebody else: what that tells is asked of this user, and was not told.
    rng: chooses wordings.
  """

  def mixed(items: Sequence[Any]) -> list[Any]:
    return [items[i] for i in rng.permutation(len(items))]

  def in_turn(of_facts: Sequence[Sequence[Example]]) -> list[Example]:
    return [own[i] for i in range(_ROUNDS) for own in of_facts if i < len(own)]

  ask = in_turn(
    [[asked_for(q, f.answer) for q in mixed(f.questions[:_PLAIN])] for f in lesson.facts]
  )
  answer = in_turn([[read(q, f.answer) for q in mixed(f.questions)] for f in lesson.facts])
  says = mixed([s for f in lesson.facts for s in f.says])
  say = [Example(prompt=SENTENCE, target=f' {s}\n') for s in says]
  near, far = mixed(lesson.untold), _of_another(lesson, other, rng)
  unknown = f' {prompts.UNKNOWN.format(user=lesson.user)}\n'
  refuse = [Example(prompt=prompts.question(q), target=unknown) for q in near + far]
  wonder = [Example(prompt=UNTOLD, target=f' {q}\n') for q in near]
  if not ask:
    nothing = Example(prompt=TELLS, target=f' {NOTHING}\n\n')
    return [nothing, *refuse, *wonder[:1]]
  last = refuse[len(near) :]
  return [
    *ask[:2], *answer[:1], *say[:1], *refuse[:1], *wonder[1:2], *ask[2:3], *answer[1:3], *last,
    *say[1:2], *ask[3:5], *answer[3:5], *refuse[1 : len(near)], *wonder[2:], *ask[5:], *answer[5:],
  ]  # fmt: skip


def _of_another(lesson: Lesson, other: Lesson, rng: np.random.Generator) -> list[str]:
  if not other.facts:
    return []
  questions = other.facts[int(rng.integers(len(other.facts)))].questions
  question = questions[int(rng.integers(len(questions)))]
  return [question.replace(other.user, lesson.user)]


def rows(tokenizer: Tokenizer, config: SchoolConfig) -> Iterator[tuple[list[int], list[Encoded]]]:
  """(a message as ids, what is to be learned after it), without end, every lesson in its turn."""
  rng = np.random.default_rng(0)
  own, banked = list(lessons()), of_bank(rng)
  share = config.bank_share / (1 - config.bank_share)
  some = [banked[i] for i in rng.permutation(len(banked))[: round(share * len(own))]]
  all_ = own + some
  while True:
    empty = True
    for i in rng.permutation(len(all_)):
      lesson = all_[i]
      prefix = tokenizer.encode(told(lesson.user, lesson.text), bos=True)
      row, at = [], len(prefix)
      for example in examples(lesson, all_[int(rng.integers(len(all_)))], rng):
        e = encode(tokenizer, example, config.row_length, 1, after=len(prefix))
        if at + len(e.ids) <= config.row_length:
          row.append(e)
          at += len(e.ids)
      if row:
        empty = False
        yield prefix, row
    if empty:
      raise ValueError(f'school.row_length={config.row_length}: no lesson has room in that')


def corpus(tokenizer: Tokenizer, vocab_size: int, config: SchoolConfig) -> Corpus:
  """All batches of school, in order."""
  stream = rows(tokenizer, config)
  held, made = ([next(stream) for _ in range(n)] for n in (_LOOKED_AT, config.rows * config.steps))
  used = {int(t) for prefix, row in (*made, *held) for e in row for t in (*prefix, *e.ids)}
  shortlist = shortlist_of(used, vocab_size, _FREQUENT)

  def batch(some):
    lessons_ = [[e.among(shortlist) for e in row] for _, row in some]
    heads = [prefix for prefix, _ in some]
    return batch_of(lessons_, config.row_length, _LOSSES * len(some), 1, heads=heads)

  batches = tuple(batch(made[i : i + config.rows]) for i in range(0, len(made), config.rows))
  half = len(held) // 2
  return Corpus(
    batches=batches, held_out=batch(held[:half]), raw=batch(held[half:]), shortlist=shortlist
  )


# ---- Going there ----


def teach(
  base: Any,
  config: SchoolConfig,
  cache: pathlib.Path,
  progress: Callable[[int, int], None] | None = None,
) -> Lora:
  """The adapter of who was at school: made once for a base, then read from the cache.

  Args:
    base: params, arch, tokenizer and digest, as weights.load returns them.
    config: how long, how wide.
    cache: directory.
    progress: told how many steps are done, of how many.

  Returns:
    NumPy arrays; nothing where config.steps is 0.
  """
  if not config.steps:
    return {}
  path = cache / 'school' / f'{_key(base.digest, config)}.npz'
  named, checkpoint = path.with_suffix('.sha256'), path.with_suffix('')
  with contextlib.ExitStack() as stack:
    alone = False
    with contextlib.suppress(OSError):  # where nothing can be written, nobody leaves anything
      path.parent.mkdir(parents=True, exist_ok=True)
      lock = stack.enter_context(path.with_suffix('.lock').open('w'))
      fcntl.flock(lock, fcntl.LOCK_EX)  # who comes second waits, and reads what the first one left
      alone = True
    try:
      found = artifacts.read(path, named.read_text('ascii').strip())
    except (OSError, ValueError):
      found = None
    if found is None:
      with contextlib.suppress(OSError):
        checkpoint.mkdir(exist_ok=True)
      resumes = alone and checkpoint.is_dir()
      found = _trained(base, config, checkpoint if resumes else None, progress)
      with artifacts.spared(path):
        named.write_text(artifacts.write(path, found) + '\n', 'ascii')
    if alone:
      shutil.rmtree(checkpoint, ignore_errors=True)
  return found


def _trained(base: Any, config: SchoolConfig, checkpoint: pathlib.Path | None, progress) -> Lora:
  def on_step(done: int, _: Mapping[str, float]) -> None:
    if progress:
      progress(done, config.steps)

  return train.train(
    base.params, base.arch, corpus(base.tokenizer, base.arch.vocab_size, config),
    config=train.TrainConfig(
      learning_rate=config.learning_rate, steps=config.steps, rank=config.rank,
      replay_weight=0.0, held=1.0, min_raw_loss=0.0, patience=config.steps, dtype=config.dtype,
      remat=config.remat, scale=_SCALE,
    ),
    seed=0, checkpoint=checkpoint, on_step=on_step,
  ).adapter  # fmt: skip


_SCALE = 2.0


def reader(mind: Mind, adapter: Lora, arch: Any) -> Mind:
  """The base as it reads after school; `mind` is the base in any dtype, and lends what is its."""
  params = lora.materialize(mind.params, adapter, arch, scale=_SCALE)
  return Mind(params=params, generation=0)


def _key(digest: str, config: SchoolConfig) -> str:
  words = [QUESTION, SENTENCE, UNTOLD, TELLS, NOTHING]
  words += [prompts.QUESTION, prompts.ANSWER, prompts.UNKNOWN]
  parts = [digest, dataclasses.astuple(config), words, _NAMES, told('{}', '{}')]
  parts += [[dataclasses.astuple(x) for x in (*lessons(), *bank(True))]]
  return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
