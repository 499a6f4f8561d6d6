"""What a passage that was read leaves in the weights: closed-book questions, in five arms.

  python benchmarks/knowledge_incorporation.py [--file=FILE] [--passages=N] [--together=N]
      [--seeds=1] [--json=FILE] [--quick]

FILE is of SQuAD's layout as SEAL takes it: [{"title", "context", "questions": [{"question",
"answers"}]}]. Passages are read in groups of `--together` (all of them by default; 1 is SEAL's
single-passage setting), each group by an identity of its own:

  base       the frozen weights
  passage    an adapter trained on the passages' text alone, as many steps as a night
  dreams     what our night made of them, diary closed
  retrieval  the frozen weights with the diary
  both       the night's weights with the diary

An answer counts when its words, normalised as SQuAD does it, stand in the reply's first line.
Each group and seed takes a night and the training of one more adapter. No run of it on the 270M was
measured yet.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import string
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common, one_night

_NAME = 'knowledge_incorporation'
BAR = 0.15  # of dreams above passages alone
ARMS = ('base', 'passage', 'dreams', 'retrieval', 'both')
_LIMIT = 64 << 20  # bytes of FILE
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, ' '))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passage:
  title: str
  context: str
  questions: tuple[tuple[str, tuple[str, ...]], ...]  # (question, accepted answers)


def load(path: pathlib.Path) -> list[Passage]:
  """Passages of a file. Raises ValueError that names what is wrong with it, and where."""
  if (size := path.stat().st_size) > _LIMIT:
    raise ValueError(f'{path} has {size:,} bytes, the limit is {_LIMIT:,}')
  try:
    rows = json.loads(path.read_text(encoding='utf-8'))
    found = []
    for i, row in enumerate(rows):
      where = f'{path}: passage {i}'
      questions = []
      for q in row['questions']:
        answers = tuple(a['text'] if isinstance(a, dict) else a for a in q['answers'])
        if not answers or not all(normalised(a) for a in answers):
          raise ValueError(f'{where}: {q["question"]!r} has an empty answer, or none')
        questions.append((str(q['question']), answers))
      found.append(
        Passage(title=str(row['title']), context=str(row['context']), questions=tuple(questions))
      )
  except (KeyError, TypeError, AttributeError, UnicodeDecodeError, json.JSONDecodeError) as e:
    raise ValueError(
      f'{path} is not of the layout [{{"title", "context", "questions": [{{"question", "answers"}}]'
      f'}}] ({type(e).__name__}: {e})'
    ) from e
  if not found:
    raise ValueError(f'{path} holds no passage')
  return found


def normalised(text: str) -> str:
  """As SQuAD's evaluation: lower case, no punctuation, no articles."""
  words = text.casefold().translate(_PUNCTUATION).split()
  return ' '.join(w for w in words if w not in ('a', 'an', 'the'))


def right(reply: str, answers: Sequence[str]) -> bool:
  said = f' {normalised(reply.strip().split(chr(10))[0])} '
  return any(f' {normalised(a)} ' in said for a in answers)


# ---- One group ----


def read(passages: Sequence[Passage], config: Any) -> dict[str, list[bool]]:
  """Arm -> whether each question was answered rightly."""
  from dreaming.agent import Agent

  asked = [q for p in passages for q, _ in p.questions]
  accepted = [a for p in passages for _, a in p.questions]
  with Agent(config) as agent:
    for i, p in enumerate(passages):
      agent.observe(p.context, user=_reader(p), now=1_700_000_000.0 + 60 * i)
    said = {
      'base': agent.answer(asked, generation=0),
      'retrieval': agent.answer(asked, generation=0, retrieval=True),
    }
    said['passage'] = _passages_alone(agent, passages, asked)
    outcome = agent.sleep()
    if not outcome.promoted:
      print(f'a night changed nothing: {outcome.reason}', flush=True)
    said['dreams'] = agent.answer(asked)
    said['both'] = agent.answer(asked, retrieval=True)
  return {arm: [right(r, a) for r, a in zip(said[arm], accepted, strict=True)] for arm in ARMS}


def _reader(passage: Passage) -> str:
  """Who tells it: a title that is safe as a name."""
  return re.sub(r'[^\w ]', ' ', passage.title).strip()[:40] or 'Reader'


def _passages_alone(agent: Any, passages: Sequence[Passage], asked: Sequence[str]) -> list[str]:
  """Replies after next-token training on the very text, with the same replay and steps."""
  from dreaming.identity import bluegreen
  from dreaming.sleep import corpus, examine, train
  from dreaming.types import Dream

  night = agent.night_config
  texts = [Dream(id=i, night=0, style='passage', text=p.context) for i, p in enumerate(passages, 1)]
  base, decoder = agent.base, agent.decoder
  material = corpus.build(
    decoder, agent.base_mind, base.digest, texts, [], [], user=night.user, config=night.corpus,
    steps=night.train.steps, seed=night.seed, cache=agent.cache,
  )  # fmt: skip
  decoder.forget(agent.base_mind)
  config = dataclasses.replace(night.train, min_raw_loss=0.0)  # it is to be known by heart
  trained = train.train(base.params, base.arch, material, config=config, seed=night.seed)
  mind = bluegreen.wake(base, trained.adapter, scale=config.scale, number=0)
  try:
    return examine.ask(decoder, mind, asked)
  finally:
    decoder.forget(mind)


def config_of(args: Any, seed: int, workdir: pathlib.Path, count: int) -> Any:
  args.day = pathlib.Path('none')
  c = one_night.config_of(args, seed, workdir)
  c.select.threshold, c.select.top_k = 0.0, count  # all of it is to be learned
  common.ungate(c)
  return c


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--file', type=pathlib.Path, default=common.ROOT / 'benchmarks' / 'passages.json')
  p.add_argument('--config', type=pathlib.Path, default=common.ROOT / 'configs' / 'gemma3_270m.py')
  p.add_argument('--passages', type=int, help='how many of the file, by default all')
  p.add_argument('--together', type=int, help='read by one identity, by default all')
  p.add_argument('--seeds', type=int, default=1)
  args = p.parse_args()
  passages = load(args.file)[: 2 if args.quick else args.passages]
  together = min(args.together or len(passages), len(passages))
  if together < 1 or args.seeds < 1:
    p.error('--passages, --together and --seeds are at least 1')
  seeds = 1 if args.quick else args.seeds
  result = common.Result(
    _NAME, args, file=args.file.name, passages=len(passages), together=together
  )
  answers: dict[str, list[list[bool]]] = {arm: [] for arm in ARMS}  # by group
  for seed in range(seeds):
    for first in range(0, len(passages), together):
      some = passages[first : first + together]
      with tempfile.TemporaryDirectory() as tmp:
        found = read(some, config_of(args, seed, pathlib.Path(tmp), len(some)))
      at = 0
      for passage in some:  # intervals are over passages: their questions stand together
        for arm in ARMS:
          answers[arm].append(found[arm][at : at + len(passage.questions)])
        at += len(passage.questions)
      shares = ', '.join(f'{arm} {_share(found[arm]):.1%}' for arm in ARMS)
      print(f'seed {seed}, passages {first + 1} to {first + len(some)}: {shares}', flush=True)
      result.keep([{'arm': arm, 'right': rows} for arm, rows in answers.items()])
  for arm in ARMS:
    result.add(arm, _share([x for group in answers[arm] for x in group]))
    one_night.show(arm, one_night.over_groups(answers[arm]), 'passages', _NAME)
  gains = [
    [int(a) - int(b) for a, b in zip(x, y, strict=True)]
    for x, y in zip(answers['dreams'], answers['passage'], strict=True)
  ]
  one_night.show('dreams_over_passage', one_night.over_groups(gains), 'passages', _NAME)
  result.bar('dreams_over_passage', _share([x for g in gains for x in g]), '>=', BAR)
  return result.finish()


def _share(values: Sequence[int | bool]) -> float:
  return sum(values) / len(values) if values else float('nan')


if __name__ == '__main__':
  try:
    sys.exit(main())
  except (ValueError, OSError) as e:
    sys.exit(f'knowledge_incorporation: {e}')
