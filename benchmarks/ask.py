"""What is asked about a told life, with the experiences that answer it: see lives.py.

Half of the wordings are for development lives and half for test lives, so that nothing that is
tuned on the ones has seen the others. Who is asked about what is drawn; what the answer is, is
known, because tales.py remembers where it told each fact.
"""

from __future__ import annotations

import calendar
import datetime
import random
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import grammar, tales

SHARES = {'paraphrase': 0.45, 'time': 0.15, 'speaker': 0.1, 'neighbour': 0.15, 'correction': 0.15}
END = tales.START + datetime.timedelta(days=tales.DAYS)
DAY = datetime.timedelta(days=1)

Asked = tuple[str, list[int], str, datetime.datetime]  # question, evidence, kind, asked
_Moment = tuple[int, datetime.datetime]  # index and time of one entry of a log


def questions(teller: tales.Teller, seed: int, split: str, count: int) -> list[Asked]:
  """`count` questions, or as many as the life has, with kinds in SHARES; the rest is drawn evenly.

  Args:
    teller: has told its life to the end.
    split: 'dev' or 'test', whose wordings to use.
  """
  rng = random.Random(f'questions {seed} {split}')
  say = grammar.Voice(rng)
  by_kind: dict[str, list[Asked]] = {kind: [] for kind in SHARES}
  for asked in [*_stories(teller, say, rng, split), *_logs(teller, say, rng, split)]:
    by_kind['paraphrase' if asked[2] == 'direct' else asked[2]].append(asked)
  chosen: list[Asked] = []
  spare: list[Asked] = []
  for kind, some in by_kind.items():
    rng.shuffle(some)
    n = round(SHARES[kind] * count)
    chosen += some[:n]
    spare += some[n:]
  rng.shuffle(spare)
  chosen += spare[: max(0, count - len(chosen))]
  rng.shuffle(chosen)
  return chosen


def _stories(
  teller: tales.Teller, say: grammar.Voice, rng: random.Random, split: str
) -> Iterator[Asked]:
  for instance in teller.instances:
    if not instance.asked or 'asks' not in instance.source:
      continue
    for ask in instance.source['asks']:
      text = say(ask[split], instance.slots)
      evidence = [instance.where[key] for key in ask['of']]
      # Asked when all has been said, so that everything else is there to distract.
      yield text, evidence, ask['kind'], END + DAY * rng.uniform(0.3, 4)


# ---- Questions about time ----


def _logs(
  teller: tales.Teller, say: grammar.Voice, rng: random.Random, split: str
) -> Iterator[Asked]:
  if teller.dense:  # too much happens in any week, and not all of it is remembered
    return
  entries: dict[str, list[_Moment]] = {}
  clashes: dict[str, list[datetime.datetime]] = {}
  for instance in teller.instances:
    moments = [_moment(t) for t in instance.times]
    clashes.setdefault(instance.source['id'], []).extend(moments)
    if 'say' in instance.where:
      entries.setdefault(instance.source['id'], []).append((instance.where['say'], moments[0]))
  for log in grammar.texts('talk')['logs']:
    mine = entries.get(log['id'], [])
    other = [t for name in log.get('clash', ()) for t in clashes.get(name, ())]
    other += [
      datetime.datetime.fromisoformat(d).replace(hour=12, tzinfo=datetime.UTC)
      for d in log.get('clash_days', ())
    ]
    for moment in mine:
      found = list(_phrases(moment[1], rng, exact=log.get('exact', False)))
      rng.shuffle(found)
      for phrase, asked, inside, near in found:
        evidence = [i for i, t in mine if inside(t) and t < asked]
        fuzzy = [i for i, t in mine if near(t) and i not in evidence]
        if len(evidence) <= 3 and not fuzzy and not any(near(t) for t in other):
          yield say(log[split], {'when': phrase}), evidence, 'time', asked
          break


def _phrases(
  t: datetime.datetime, rng: random.Random, exact: bool
) -> Iterator[tuple[str, datetime.datetime, Callable[[Any], bool], Callable[[Any], bool]]]:
  """Ways to say when `t` was: words, when they are said, what they mean, what comes too near."""
  day = t.replace(hour=0, minute=0, second=0, microsecond=0)

  def within(low: datetime.datetime, high: datetime.datetime) -> Callable[[Any], bool]:
    return lambda x: low <= x < high

  def at(days: float) -> datetime.datetime:  # some hour of a later day
    return day + DAY * days + datetime.timedelta(hours=rng.uniform(9, 21))

  today = within(day, day + DAY)
  late = END + DAY * rng.uniform(0.3, 4)
  yield f'on {t.day} {t:%B}', late, today, today
  if t > tales.START + 150 * DAY:  # a question early in the year would have too little to find
    yield 'yesterday', at(1), today, today
    yield 'three days ago', at(3), today, within(day - DAY, day + 2 * DAY)
    yield f'last {t:%A}', at(rng.randint(3, 6)), today, today
  if exact:
    return
  if 2 < t.month:  # February is half asked from, January just over
    first = day.replace(day=1)
    month = within(first, first + calendar.monthrange(t.year, t.month)[1] * DAY)
    yield f'in {t:%B}', late, month, month
    third = min(2, (t.day - 1) // 10)
    words = ('at the beginning of', 'in the middle of', 'at the end of')[third]
    part = within(first + 10 * third * DAY, first + (10, 20, 31)[third] * DAY)
    wide = within(day - 6 * DAY, day + 7 * DAY)
    yield f'{words} {t:%B}', late, part, lambda x: part(x) or wide(x)
  if t > tales.START + 150 * DAY:
    monday = day - t.weekday() * DAY
    week = within(monday, monday + 7 * DAY)
    yield 'last week', monday + 7 * DAY + DAY * rng.uniform(0.4, 4), week, week
    yield 'two weeks ago', at(14), today, within(day - 4 * DAY, day + 5 * DAY)
    yield 'a month ago', at(30), today, within(day - 8 * DAY, day + 9 * DAY)
    if t.weekday() >= 5:
      weekend = within(monday + 5 * DAY, monday + 7 * DAY)
      yield 'last weekend', monday + 7 * DAY + DAY * rng.uniform(0.4, 3), weekend, weekend
      later = monday + 14 * DAY + DAY * rng.uniform(0.4, 3)
      yield 'the weekend before last', later, weekend, weekend


def _moment(time: float) -> datetime.datetime:
  return datetime.datetime.fromtimestamp(time, datetime.UTC)
