"""Reading: which facts of labelled messages are found, and how many are believed that nobody told.

  python benchmarks/reading.py [--quick] [--json=FILE] [--messages=FILE]
  python benchmarks/reading.py --fit    # makes belief.WEIGHTS anew

messages.json are those that the weights were fitted on, messages_heldout.json are others, of other
people: the bars are on these. A fact counts as found when one of the relations that its label
allows is believed for its value; every other belief is a wrong one. A label without relations is a
value of which anything may be believed. With --fit the weights are fitted on messages.json (three
invented people, and the first shipped day) and some examples of the bank, each read as if it were
not in it; the figures beside them are of weights fitted without the same person's messages.
Expected: 2 minutes on two cores, 12 with --fit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

HERE = pathlib.Path(__file__).parent
FOUND_BAR, RIGHT_BAR = 0.60, 0.60  # our own: of the facts told, of those believed
EXAMPLES = 100  # of the bank, each with the weight of half a message's
BANK_WEIGHT, RIDGE = 0.5, 10.0


def plain(value: str) -> str:
  """Case folded, without an article."""
  value = value.casefold()
  for article in ('the ', 'a ', 'an '):
    value = value.removeprefix(article)
  return value


# ---- Reading ----


class Reader:
  """The base, with what a night reads messages with."""

  def __init__(self, args: argparse.Namespace):
    from configs import gemma3_270m
    from dreaming import configuration
    from dreaming.brain import transformer, weights
    from dreaming.brain.decode import Decoder
    from dreaming.memory import embed
    from dreaming.sleep import reader
    from dreaming.sleep.relations import Matcher
    from dreaming.types import Mind

    config = gemma3_270m.get_config()
    cache = common.cache_of(args)
    common.keep_programs(cache)
    base = weights.load(weights.ModelConfig(), cache)
    config.school.steps = min(config.school.steps, 4) if args.quick else config.school.steps
    night = configuration.night(config)
    self.config = night.dream
    self.decoder = Decoder(base.arch, base.tokenizer)
    self.mind = Mind(params=transformer.cast(base.params, self.config.dtype), generation=0)
    school = reader.of_night(base, self.decoder, night, cache, 0)
    self.own = school(self.mind) if school and not args.fit else None  # --fit is of the bank alone
    self.embedder = embed.make(config.memory.embedder)
    if args.fit:  # everything that could be read, not only what is likely
      wide = {'finalists': 5, 'readings': 5, 'min_rank': -99.0, 'min_gain': -9.0}
      match = dataclasses.replace(self.config.match, **wide)
      self.config = dataclasses.replace(self.config, match=match)
    self.matcher = Matcher(self.decoder, self.mind, self.embedder, self.config.match)

  def read(self, messages: Sequence[dict[str, Any]], matcher=None) -> list[tuple[Any, Any]]:
    """(fact, what its questions say) of all messages; a fact's source is its message's number."""
    from dreaming.sleep import dream
    from dreaming.sleep.relations import Message
    from dreaming.types import Experience

    said = [Message(text=m['text'], source=i, user=m['user']) for i, m in enumerate(messages)]
    told = {
      i: Experience(id=i, time=0.0, kind='chat', speaker=m['user'], content=m['text'])
      for i, m in enumerate(messages)
    }
    facts = [f for own in (matcher or self.matcher).facts(said, _progress) for f in own]
    print(file=sys.stderr)
    checked = dream.check(self.decoder, self.mind, facts, told, self.config)
    if self.own:
      seen = self.own.evidence(facts, {i: m['text'] for i, m in enumerate(messages)})
      checked = [dataclasses.replace(c, seen=x) for c, x in zip(checked, seen, strict=True)]
    return list(zip(facts, checked, strict=True))


def _progress(done: int, total: int) -> None:
  print(f'\rread {done} of {total} messages', end='', file=sys.stderr, flush=True)


def judged(pairs, messages, threshold: float) -> dict[str, Any]:
  """What is found, missed and wrong; `pairs` with their log-odds in `belief.of`."""
  from dreaming.sleep import belief

  believed, _ = belief.settle(pairs, threshold)
  told = {(i, v): r for i, m in enumerate(messages) for v, r in m['facts'].items()}
  found, wrong = set(), []
  for fact, _ in believed:
    key = fact.source, plain(fact.value)
    if key in told and (not told[key] or fact.relation.name in told[key]):
      found.add(key)
    else:
      wrong.append(fact.fill(fact.relation.statements[0]))
  facts = {key for key, relations in told.items() if relations}
  return {
    'told': len(facts),
    'found': len(found & facts),
    'wrong': len(wrong),
    'missed': sorted(f'{messages[i]["text"]} [{v}]' for i, v in facts - found),
    'believed_wrongly': wrong,
  }


# ---- Fitting ----


def logistic(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
  """Ridge logistic regression by Newton's method; the first column is the bias, not penalized."""
  spread = x.std(axis=0) + 1e-6
  spread[0] = 1.0
  z, b = x / spread, np.zeros(x.shape[1])
  ridge = np.full(len(b), RIDGE)
  ridge[0] = 1e-6
  for _ in range(50):
    p = 1 / (1 + np.exp(-z @ b))
    hessian = (z * (weight * p * (1 - p))[:, None]).T @ z + np.diag(ridge)
    b -= np.linalg.solve(hessian, z.T @ (weight * (p - y)) + ridge * b)
  return b / spread


def of_bank(reader: Reader, count: int) -> tuple[list[dict[str, Any]], list[Any]]:
  """Examples of the bank as messages, each read by a bank that does not have it."""
  from dreaming.sleep import relations
  from dreaming.sleep.bank import bank

  rng = np.random.default_rng(1)
  messages = []
  for r in bank():
    text, value = r.examples[rng.integers(len(r.examples))]
    facts = {plain(value.split('|')[-1].strip()): [r.name]}
    messages.append({'user': 'Noor', 'text': text, 'facts': facts})
  messages = [messages[i] for i in rng.permutation(len(messages))[:count]]
  texts = {m['text'] for m in messages}

  class Without(relations.Matcher):
    def __init__(self, *args):
      super().__init__(*args)
      self.relations = tuple(
        dataclasses.replace(r, examples=kept)
        if (kept := tuple(e for e in r.examples if e[0] not in texts))
        else r
        for r in self.relations
      )

  matcher = Without(reader.decoder, reader.mind, reader.embedder, reader.config.match)
  return messages, reader.read(messages, matcher)


def table(pairs, messages, only_labelled: bool):
  """(features, labels, people, readings), without values of which anything may be believed."""
  from dreaming.sleep import belief

  rows, labels, people, kept = [], [], [], []
  for fact, result in pairs:
    m = messages[fact.source]
    allowed = m['facts'].get(plain(fact.value))
    if allowed == [] or (only_labelled and allowed is None):
      continue
    features = belief.features(fact, result)
    rows.append([features[name] for name in belief.WEIGHTS])
    labels.append(float(fact.relation.name in (allowed or ())))
    people.append(m['user'])
    kept.append((fact, result))
  return np.asarray(rows), np.asarray(labels), np.asarray(people), kept


def fit(reader: Reader, messages, quick: bool) -> dict[str, Any]:
  from dreaming.sleep import belief

  x, y, people, kept = table(reader.read(messages), messages, False)
  bank_messages, bank_pairs = of_bank(reader, 20 if quick else EXAMPLES)
  bx, by, _, _ = table(bank_pairs, bank_messages, True)

  def weights(train: np.ndarray) -> dict[str, float]:
    weight = np.concatenate([np.ones(train.sum()), np.full(len(by), BANK_WEIGHT)])
    found = logistic(np.concatenate([x[train], bx]), np.concatenate([y[train], by]), weight)
    return dict(zip(belief.WEIGHTS, np.round(found, 2).tolist(), strict=True))

  results, shipped = [], dict(belief.WEIGHTS)
  for person in dict.fromkeys(people.tolist()):
    belief.WEIGHTS = weights(people != person)  # type: ignore[misc]
    own = [m if m['user'] == person else {**m, 'facts': {}} for m in messages]
    pairs = [p for p, who in zip(kept, people, strict=True) if who == person]
    results.append(judged(pairs, own, reader.config.min_belief_alone))
  belief.WEIGHTS = shipped  # type: ignore[misc]
  total = {k: sum(r[k] for r in results) for k in ('told', 'found', 'wrong')}
  return {'weights': weights(np.ones(len(y), bool)), 'readings': len(y), **total}


# ---- The benchmark ----


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--messages', type=pathlib.Path, default=HERE / 'messages_heldout.json')
  p.add_argument('--fit', action='store_true', help='fit belief.WEIGHTS on messages.json')
  args = p.parse_args()
  reader, begin = Reader(args), time.perf_counter()

  def load(path: pathlib.Path) -> list[dict[str, Any]]:
    messages = json.loads(path.read_text(encoding='utf-8'))
    return messages[::4] if args.quick else messages

  if args.fit:
    fitted = fit(reader, load(HERE / 'messages.json'), args.quick)
    print(json.dumps(fitted, indent=1))
    return 0
  result = common.Result('reading', args, messages=args.messages.name)
  messages = load(args.messages)
  least = reader.config.min_belief if reader.own else reader.config.min_belief_alone
  found = judged(reader.read(messages), messages, least)
  result.add('seconds', time.perf_counter() - begin, 's')
  result.keep([found])
  for name in ('missed', 'believed_wrongly'):
    print(f'{name}:', *found[name], sep='\n  ')
  believed = found['found'] + found['wrong']
  result.bar('found', found['found'] / found['told'], '>=', FOUND_BAR)
  result.bar('right', found['found'] / max(believed, 1), '>=', RIGHT_BAR)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
