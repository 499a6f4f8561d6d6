"""Lives: a year with an agent and what is asked about it, to measure recall with.

  python benchmarks/lives.py --seed=0 --count=1000 --json=FILE   # write a life
  python benchmarks/lives.py --check [--seed=0] [--life=FILE]    # how hard are its questions

`life(seed, count)` tells a made-up year of one user (tales.py) with 119 handwritten experiences
in it, and asks about it (ask.py) 140 questions with known evidence and 60 handwritten ones. Seeds
below 1000 are for development; a seed from 1000 on is a test life, whose generated questions are
in other words. Of the handwritten questions half are marked test. What is marked test, or comes
of a test seed, is never tuned on.

A question is found when any of its evidence is among the first five experiences, five in all,
whatever they came as. A correction has the newest telling as its only evidence. A question is
asked at a time: recall is given `life.known(question)` experiences, the ones told before. That
is all of them, but for the questions about time (and a few handwritten ones).

A life is also a file, so that you can bring your own:

  {"user": "Nora",
   "experiences": [{"time": "2025-02-04T19:10:00", "content": "We have got a new dog."},
                   {"time": "2025-02-04T19:11:00", "content": "He is called Basil.",
                    "speaker": "Sam", "response": "Welcome, Basil!", "session": "monday"}],
   "questions": [{"question": "What is our dog's name?", "evidence": [1], "kind": "neighbour",
                  "asked": "2025-06-01T12:00:00", "split": "dev"}]}

Times are ISO 8601, UTC where they do not say, and experiences are sorted by them. Evidence are
indices from 0. `speaker` is the user where it is left out, `kind` 'direct', `split` 'test',
`session` the day, and a question without `asked` is asked a day after the last experience.
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import datetime
import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import ask, grammar, tales

KINDS = ('direct', 'paraphrase', 'time', 'speaker', 'neighbour', 'correction', 'list')
SPLITS = ('dev', 'test')
TEST_SEED = 1000  # from here on
GENERATED = 140  # questions
MAX_COUNT = 1_000_000
MAX_FILE_BYTES = 500_000_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Experience:
  time: float  # Unix seconds, UTC; never earlier than the one before
  speaker: str  # whose words `content` is
  content: str
  response: str = ''  # what the agent answered
  session: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  question: str
  evidence: tuple[int, ...]  # indices of experiences, sorted: any of them answers
  kind: str  # one of KINDS
  asked: float  # Unix seconds
  split: str  # one of SPLITS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Life:
  user: str
  experiences: tuple[Experience, ...]
  questions: tuple[Question, ...] = ()

  def known(self, question: Question) -> int:
    """How many experiences had been told when it was asked: recall may see these, no later one."""
    return bisect.bisect_right(self.experiences, question.asked, key=lambda x: x.time)


def split_of(seed: int) -> str:
  return SPLITS[seed >= TEST_SEED]


# ---- Made up ----


def _teller(seed: int, count: int) -> tales.Teller:
  if type(seed) is not int or seed < 0:
    raise ValueError(f'seed is {seed!r}: give a whole number from 0 on, from {TEST_SEED} to test')
  if type(count) is not int or not 1 <= count <= MAX_COUNT:
    raise ValueError(f'count is {count!r}: give 1 to {MAX_COUNT} experiences')
  return tales.Teller(seed, count)


def _experiences(teller: tales.Teller) -> Iterator[Experience]:
  for told in teller.tell():
    line = told.line
    yield Experience(
      time=told.time,
      speaker=line.speaker,
      content=line.content,
      response=line.response,
      session=told.session,
    )


def stream(seed: int, count: int) -> Iterator[Experience]:
  """The experiences of `life(seed, count)` one by one, for tests of speed.

  A million take one to two minutes and 240 MB: what has begun is kept until it is told to its end.
  """
  yield from _experiences(_teller(seed, count))


def life(seed: int, count: int = 1000) -> Life:
  """A made-up life of a year; the same seed and count give the same, to the letter.

  Args:
    seed: from 0 on; from TEST_SEED on its generated questions are of the split 'test'.
    count: experiences, 1 to MAX_COUNT. From 400 on the handwritten ones are among them; a life of
      fewer than 1000 may have fewer than 200 questions. More than 2000 are the same year, told more
      densely, with questions about a part of it and without generated ones about time.

  Raises:
    ValueError: for a seed or a count out of bounds.
  """
  teller = _teller(seed, count)
  experiences = tuple(_experiences(teller))
  asked = [
    Question(
      question=text, evidence=tuple(sorted(evidence)), kind=kind,
      asked=round(when.timestamp(), 3), split=split_of(seed),
    )
    for text, evidence, kind, when in ask.questions(teller, seed, split_of(seed), GENERATED)
  ]  # fmt: skip
  if teller.written:
    for x in grammar.texts('questions'):
      evidence = tuple(sorted(teller.written[i] for i in x['evidence']))
      asked.append(Question(**x | {'evidence': evidence, 'asked': _time('asked', x['asked'])}))
  return Life(user=teller.user, experiences=experiences, questions=tuple(asked))


# ---- Files ----


def save(life: Life, path: str | pathlib.Path) -> None:
  """Writes a life as `load` reads it: one experience or question a line."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'.{path.name}.tmp')
  with open(temporary, 'w', encoding='utf-8') as f:
    f.write(f'{{"user": {json.dumps(life.user)},\n"experiences": [\n')
    _lines(f, ({**dataclasses.asdict(x), 'time': _iso(x.time)} for x in life.experiences))
    f.write('],\n"questions": [\n')
    _lines(f, ({**dataclasses.asdict(q), 'asked': _iso(q.asked)} for q in life.questions))
    f.write(']}\n')
  temporary.replace(path)


def _lines(f: TextIO, values: Iterator[dict[str, Any]]) -> None:
  for i, value in enumerate(values):
    f.write(',\n' * (i > 0) + json.dumps(value, ensure_ascii=False))
  f.write('\n')


def _iso(time: float) -> str:
  return datetime.datetime.fromtimestamp(time, datetime.UTC).replace(tzinfo=None).isoformat()


def load(path: str | pathlib.Path) -> Life:
  """Reads a life.

  Raises FileNotFoundError for a missing file and ValueError for a bad one, in one line that names
  the file, the field, its value and the way out.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'no life at {path}: give a JSON file (see benchmarks/lives.py)')
  if (size := path.stat().st_size) > MAX_FILE_BYTES:
    raise _fail(f'{path}: size in bytes', size, f'the limit is {MAX_FILE_BYTES}, split the life')
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except (ValueError, RecursionError) as e:  # bad UTF-8 and bad JSON are both ValueErrors
    raise ValueError(f'{path} is not JSON in UTF-8 ({e}): repair it') from None
  value = _object(f'{path}', value, required=('experiences',), optional=('user', 'questions'))
  user = _text(f'{path}: user', value.get('user', 'User'))
  experiences: list[Experience] = []
  for i, x in enumerate(_list(f'{path}: experiences', value['experiences'], empty=False)):
    where = f'{path}: experiences[{i}]'
    x = _object(where, x, ('time', 'content'), ('speaker', 'response', 'session'))
    time = _time(f'{where}: time', x['time'])
    if experiences and time < experiences[-1].time:
      raise _fail(f'{where}: time', x['time'], 'earlier than the one before it, sort them')
    experiences.append(
      Experience(
        time=time,
        content=_text(f'{where}: content', x['content']),
        speaker=_text(f'{where}: speaker', x.get('speaker', user)),
        response=_text(f'{where}: response', x.get('response', ''), empty=True),
        session=_text(f'{where}: session', x.get('session', _iso(time)[:10])),
      )
    )
  questions = []
  for i, q in enumerate(_list(f'{path}: questions', value.get('questions', []))):
    where = f'{path}: questions[{i}]'
    questions.append(_question(where, q, experiences))
  return Life(user=user, experiences=tuple(experiences), questions=tuple(questions))


def _question(where: str, value: Any, experiences: list[Experience]) -> Question:
  q = _object(where, value, ('question', 'evidence'), ('kind', 'asked', 'split'))
  asked = _time(f'{where}: asked', q['asked']) if 'asked' in q else experiences[-1].time + 86400
  evidence = _list(f'{where}: evidence', q['evidence'], empty=False)
  for index in evidence:
    if type(index) is not int or not 0 <= index < len(experiences):
      raise _fail(f'{where}: evidence', index, f'give indices from 0 to {len(experiences) - 1}')
    if experiences[index].time > asked:
      raise _fail(f'{where}: evidence', index, 'told only after it was asked, correct one of them')
  for name, known, value in (
    ('kind', KINDS, q.get('kind', 'direct')),
    ('split', SPLITS, q.get('split', 'test')),
  ):
    if value not in known:
      raise _fail(f'{where}: {name}', value, f'give one of {", ".join(known)}')
  return Question(
    question=_text(f'{where}: question', q['question']),
    evidence=tuple(sorted(set(evidence))),
    kind=q.get('kind', 'direct'),
    asked=asked,
    split=q.get('split', 'test'),
  )


def _fail(where: str, value: Any, way_out: str) -> ValueError:
  shown = ascii(value)
  return ValueError(f'{where} is {shown if len(shown) <= 60 else shown[:57] + "..."}: {way_out}')


def _text(where: str, value: Any, *, empty: bool = False) -> str:
  surrogates = isinstance(value, str) and any('\ud800' <= c <= '\udfff' for c in value)
  if not isinstance(value, str) or surrogates or not (empty or value.strip()):
    raise _fail(where, value, 'give a text' + ('' if empty else ' that is not empty'))
  return value


def _time(where: str, value: Any) -> float:
  try:
    time = datetime.datetime.fromisoformat(value)
    return time.replace(tzinfo=time.tzinfo or datetime.UTC).timestamp()
  except (TypeError, ValueError, OverflowError):
    raise _fail(where, value, 'give an ISO 8601 time such as 2026-03-02T09:10:00') from None


def _list(where: str, value: Any, *, empty: bool = True) -> list[Any]:
  if not isinstance(value, list) or not (value or empty):
    raise _fail(where, value, 'give a list' + ('' if empty else ' of at least one'))
  return value


def _object(
  where: str, value: Any, required: tuple[str, ...], optional: tuple[str, ...]
) -> dict[str, Any]:
  if not isinstance(value, dict):
    raise _fail(where, value, f'give an object with the fields {", ".join(required + optional)}')
  for name in required:
    if name not in value:
      raise _fail(where, value, f'add the field {name!r}')
  for name in value:
    if name not in required + optional:
      known = ', '.join(required + optional)
      raise _fail(f'{where}: field', name, f'unknown, the fields are {known}')
  return value


# ---- The command ----


def main() -> int:
  p = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
  )
  p.add_argument('--seed', type=int, default=0, help=f'from {TEST_SEED} on: a test life')
  p.add_argument('--count', type=int, default=1000, help='experiences')
  p.add_argument('--life', type=pathlib.Path, help='a life from this file instead')
  p.add_argument('--json', type=pathlib.Path, help='write the life there')
  p.add_argument('--check', action='store_true', help='say how hard the questions are')
  args = p.parse_args()
  try:
    told = load(args.life) if args.life else life(args.seed, args.count)
  except (ValueError, OSError) as e:
    p.error(str(e))
  print(f'{len(told.experiences)} experiences of {told.user}, {len(told.questions)} questions')
  if args.json:
    save(told, args.json)
  if args.check:
    from benchmarks import difficulty

    difficulty.report(told)
  return 0


if __name__ == '__main__':
  sys.exit(main())
