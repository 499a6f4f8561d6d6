"""Identity: how far two lives on one base come apart, against two seeds of one life.

  python benchmarks/identity.py [--seeds=3] [--workdir=DIR] [--plot=PNG] [--json=FILE] [--quick]
  python benchmarks/identity.py --science=DIR --irony=DIR ...   # lives that are over

Two personas' lives of six days (days/personas), no persona in any prompt, the same base and seeds.
After the last night every agent is asked its opinions, diary closed, and

  gap           what its own answers lose in likelihood under another agent's weights, nats a token,
                both ways; users' names are exchanged. Between agents, between seeds of one agent,
                and for one agent with its examples in another order
  choice        of the options of a question, shown in three orders, the likeliest: the share that
                fits the life minus the share that fits the other one, night by night
  style         words, different words, refusals: differences in standard deviations (Cohen's d)
  reflections   cosine of its answers with its own dreams minus that with the other's
  consistency   mean cosine between answers to one question in five wordings, before and after

Expected: six nights a life, two lives a seed. --quick: two days of the tiny config.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common, lived, one_night

PERSONAS = ('science', 'irony')
RATIO = 3.0
_NAME = 'identity'
_FOLDER = common.ROOT / 'days' / 'personas'
_ORDERS = 3  # in which options are shown
_TOKENS = 24


@dataclasses.dataclass
class Person:
  """One life, and what was asked of it."""

  persona: str
  life: lived.Life
  user: str = ''
  answers: list[str] = dataclasses.field(default_factory=list)
  before: list[str] = dataclasses.field(default_factory=list)  # the base's
  dreams: list[str] = dataclasses.field(default_factory=list)
  choices: list[float] = dataclasses.field(default_factory=list)  # of each generation
  likely: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

  @property
  def name(self) -> str:
    return f'{self.persona} {self.life.seed}'


# ---- Asking ----


def ask(person: Person, questionnaire: Mapping[str, Any], count: int | None) -> None:
  """Opinions by the last generation and by the base; choices by every generation."""
  from dreaming.agent import Agent
  from dreaming.types import Status

  opinions = [w for words in questionnaire['consistency'] for w in words]
  with Agent(lived.config_of(person.life)) as agent:
    person.user = agent.diary.experiences(limit=1)[0].speaker
    minds = [0, *(g.number for g in agent.generations() if g.number)]
    how = {'user': person.user, 'max_tokens': _TOKENS}
    person.before = agent.answer(opinions, generation=0, **how)
    person.answers = agent.answer(opinions, generation=minds[-1], **how)
    kept = [d for d in agent.diary.dreams() if d.status == Status.KEPT and d.text]
    person.dreams = [d.text.replace(person.user, 'Somebody') for d in kept]
    asked = questionnaire['forced_choice'][:count]
    person.choices = [choice(agent, n, asked, person.persona) for n in minds]


def choice(agent: Any, number: int, asked: Sequence[Mapping[str, Any]], persona: str) -> float:
  """Share of questions whose likeliest option fits the persona, minus that of the other one."""
  from dreaming.brain import prompts

  rng, rows, said, fits = random.Random(0), [], [], []
  for q in asked:
    for _ in range(_ORDERS):
      options = rng.sample(q['options'], len(q['options']))
      listed = ', '.join(o['text'][:1].lower() + o['text'][1:] for o in options)
      rows += [prompts.question(f'{q["question"]} ({listed})')] * len(options)
      said += [' ' + o['text'] for o in options]
      fits.append([o['fits'] for o in options])
  mind = agent.identity.mind(number)
  found = iter(agent.decoder.logprobs(mind, rows, said, prefix=prompts.ANSWER_PREFIX))
  score = 0
  for own in fits:
    likely = [float(np.mean(next(found))) for _ in own]
    best = own[int(np.argmax(likely))]
    score += (best == persona) - (best not in (persona, 'neither'))
  return score / len(fits)


def score(person: Person, people: Sequence[Person], opinions: Sequence[str]) -> None:
  """Nats a token of everybody's answers by this one's weights, with this one's user in them."""
  from dreaming.agent import Agent
  from dreaming.brain import prompts

  examples = prompts.ANSWER_PREFIX.strip().split('\n\n')
  with Agent(lived.config_of(person.life)) as agent:
    mind = agent.identity.blue
    rows = [prompts.question(prompts.third_person(q, person.user)) for q in opinions]
    asked = {p.name: (p, prompts.ANSWER_PREFIX) for p in people}
    asked['order'] = (person, '\n\n'.join(examples[::-1]) + '\n\n')
    for name, (other, prefix) in asked.items():
      said = [' ' + (a.replace(other.user, person.user) or '.') for a in other.answers]
      found = agent.decoder.logprobs(mind, rows, said, prefix=prefix)
      person.likely[name] = np.array([x.mean() for x in found])


# ---- What it comes to ----


def gap(a: Person, b: Person) -> np.ndarray:
  """Of each question, what answers lose under the other's weights, mean of both ways; nats."""
  own = a.likely[a.name] - b.likely[a.name]
  return (own + b.likely[b.name] - a.likely[b.name]) / 2


def gaps(people: Sequence[Person]) -> dict[str, list[np.ndarray]]:
  """Kind -> gaps of its pairs."""
  out: dict[str, list[np.ndarray]] = {'agents': [], 'seeds': [], 'order': []}
  for a, b in itertools.combinations(people, 2):
    if a.persona == b.persona:
      out['seeds'].append(gap(a, b))
    elif a.life.seed == b.life.seed:
      out['agents'].append(gap(a, b))
  out['order'] = [np.abs(p.likely[p.name] - p.likely['order']) for p in people]
  return out


def style(answers: Sequence[str]) -> dict[str, np.ndarray]:
  """Of each answer."""
  from dreaming.brain import prompts

  words = [a.casefold().split() for a in answers]
  return {
    'words': np.array([len(w) for w in words], float),
    'different': np.array([len(set(w)) / len(w) if w else 1.0 for w in words]),
    'refusals': np.array([float(prompts.is_unknown(a)) for a in answers]),
  }


def cohens_d(a: np.ndarray, b: np.ndarray) -> float:
  """Difference of means in pooled standard deviations; 0 where nothing varies."""
  spread = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2) if min(len(a), len(b)) > 1 else 0.0
  return float((a.mean() - b.mean()) / spread) if spread else 0.0


def consistent(embedder: Any, answers: Sequence[str], wordings: int) -> float:
  """Mean cosine between the answers to one question."""
  found = []
  for i in range(0, len(answers), wordings):
    v = embedder([a or '.' for a in answers[i : i + wordings]])
    found += [float(v[j] @ v[k]) for j, k in itertools.combinations(range(len(v)), 2)]
  return statistics.fmean(found)


def compare(people: Sequence[Person], wordings: int, result: Any) -> dict[str, float]:
  from dreaming.memory import embed

  found = {kind: rows for kind, rows in gaps(people).items() if rows}
  means = {kind: float(np.mean(rows)) for kind, rows in found.items()}
  for kind, rows in found.items():
    result.add(f'gap_{kind}', [float(r.mean()) for r in rows], 'nats a token')
    groups = [list(q) for q in np.array(rows).T]  # of each question, over the pairs
    one_night.show(f'gap_{kind}', one_night.over_groups(groups), 'questions', _NAME)
  embedder = embed.make('wordllama')
  of = {p: [x for x in people if x.persona == p] for p in PERSONAS}
  for name in ('words', 'different', 'refusals'):
    a, b = (np.concatenate([style(x.answers)[name] for x in of[p]]) for p in PERSONAS)
    result.add(f'style_{name}_d', cohens_d(a, b))
  for p in people:
    result.add(f'choice_{p.persona}_{p.life.seed}', p.choices[-1])
    result.add(f'choice_base_{p.persona}', p.choices[0])
    others = [x for x in people if x.persona != p.persona and x.dreams]
    said = embedder([a.replace(p.user, 'Somebody') or '.' for a in p.answers]).mean(axis=0)
    if p.dreams and others:
      own = embedder(p.dreams).mean(axis=0) @ said
      other = np.mean([embedder(x.dreams).mean(axis=0) @ said for x in others])
      result.add(f'reflections_{p.persona}_{p.life.seed}', float(own - other))
    before, after = (consistent(embedder, x, wordings) for x in (p.before, p.answers))
    result.add(f'consistency_{p.persona}_{p.life.seed}', after - before)
  return means


def draw(figure: Any, people: Sequence[Person], means: Mapping[str, float]) -> None:
  matrix, lines, bars = figure.subplots(1, 3)
  cells = [[float(a.likely[b.name].mean()) for b in people] for a in people]
  image = matrix.imshow(cells, cmap='viridis')
  names = [p.name for p in people]
  matrix.set_xticks(range(len(people)), names, rotation=45, ha='right')
  matrix.set_yticks(range(len(people)), names)
  matrix.set(title='answers of (across) under (down), nats a token')
  figure.colorbar(image, ax=matrix)
  for p in people:
    lines.plot(range(len(p.choices)), p.choices, 'o-', label=p.name)
  lines.axhline(0, color='gray', linewidth=0.5)
  lines.set(xlabel='after night', title='choices: own life minus the other')
  lines.legend()
  bars.bar(list(means), list(means.values()))
  bars.set(title='gaps, nats a token')


# ---- The benchmark ----


def lives(args, tmp: str) -> list[Person]:
  if args.science or args.irony:
    if not (args.science and args.irony):
      raise ValueError('--science and --irony go together, as many of one as of the other')
    return [
      Person(persona, dataclasses.replace(life, seed=i))
      for persona in PERSONAS
      for i, life in enumerate(lived.given(getattr(args, persona), args.config))
    ]
  if args.quick:
    args.config, args.workdir = common.ROOT / 'configs' / 'tiny.py', pathlib.Path(tmp)
  out = []
  for seed, persona in itertools.product(range(1 if args.quick else args.seeds), PERSONAS):
    days = sorted((_FOLDER / persona).glob('day*.json'))[: 2 if args.quick else None]
    life = lived.Life(
      workdir=args.workdir / f'{persona}-{seed}', days=tuple(days), config=args.config, seed=seed,
      cache=args.cache,
    )  # fmt: skip
    lived.ensure(life)
    out.append(Person(persona, life))
  return out


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--config', type=pathlib.Path, default=common.ROOT / 'configs' / 'gemma3_270m.py')
  p.add_argument('--seeds', type=int, default=3, help='how many: 0, 1, ...')
  p.add_argument('--workdir', type=pathlib.Path, default=common.ROOT / 'build' / 'lives')
  p.add_argument('--questionnaire', type=pathlib.Path, default=_FOLDER / 'questionnaire.json')
  p.add_argument('--plot', type=pathlib.Path)
  for persona in PERSONAS:
    p.add_argument(f'--{persona}', type=pathlib.Path, action='append', help='a life that is over')
  args = p.parse_args()
  questionnaire = json.loads(args.questionnaire.read_text(encoding='utf-8'))
  opinions = [w for words in questionnaire['consistency'] for w in words]
  with tempfile.TemporaryDirectory() as tmp:
    people = lives(args, tmp)
    result = common.Result(_NAME, args, config=args.config.stem, lives=[p.name for p in people])
    for person in people:
      ask(person, questionnaire, 4 if args.quick else None)
    for person in people:
      score(person, people, opinions)
    means = compare(people, len(questionnaire['consistency'][0]), result)
    result.keep([{'life': p.name, 'answers': p.answers, 'choices': p.choices} for p in people])
    if args.plot:
      from dreaming import report

      report.draw(args.plot, lambda f: draw(f, people, means), common.cache_of(args))
  if 'seeds' in means:  # one seed has nothing to be compared with
    result.bar('agents_over_seeds', means['agents'] / max(means['seeds'], 1e-9), '>=', RATIO)
  return result.finish()


if __name__ == '__main__':
  try:
    sys.exit(main())
  except (ValueError, OSError, subprocess.CalledProcessError) as e:
    sys.exit(f'{_NAME}: {e}')
