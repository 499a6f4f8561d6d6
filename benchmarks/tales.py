"""How a life is made up: who does what and when, out of the texts in benchmarks/lives/.

A story is told in beats, days or months apart; a log is a thing that happens again and again (a
run, a film), so that only its time tells one entry from another. `Teller` draws who and what, day
by day, and remembers where each fact was told; ask.py turns that into questions. Nothing here
knows how anything is found again.
"""

from __future__ import annotations

import dataclasses
import datetime
import heapq
import random
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.grammar import Voice, texts

START = datetime.datetime(2025, 2, 3, tzinfo=datetime.UTC)  # a Monday; handwritten.json fits it
DAYS = 364
FACTS, LOGS = 0.55, 0.1  # the most of a life that stories and handwritten, and logs, take
ASKED = 2000  # so many experiences' worth of stories are asked about; what is more only distracts
HANDWRITTEN_FROM = 400  # a shorter life has no room for the 119 handwritten experiences


# ---- Who and what ----


@dataclasses.dataclass(frozen=True)
class Person:
  name: str
  relation: str  # 'my sister'
  he: str
  him: str
  his: str

  def slots(self, key: str) -> dict[str, str]:
    full = f'{self.relation} {self.name}'
    return {
      key: self.name, f'{key}_full': full,
      f'{key}_he': self.he, f'{key}_him': self.him, f'{key}_his': self.his,
    }  # fmt: skip


def _people(rng: random.Random, names: list[tuple[str, str]], count: int) -> list[Person]:
  names = rng.sample(names, min(count, len(names)))
  roles = rng.sample(texts('pools')['role'], len(texts('pools')['role']))
  people = []
  for i, (name, sex) in enumerate(names):
    role = roles[i % len(roles)]
    # A sister is a she: the few roles that say so follow the name.
    pair = {
      'sister': ('sister', 'cousin'), 'aunt': ('aunt', 'uncle'), 'uncle': ('aunt', 'uncle'),
      'niece': ('niece', 'nephew'), 'nephew': ('niece', 'nephew'),
    }.get(role, (role, role))  # fmt: skip
    words = ('she', 'her', 'her') if sex == 'she' else ('he', 'him', 'his')
    people.append(Person(name, f'my {pair[sex == "he"]}', *words))
  return people


@dataclasses.dataclass
class Instance:
  """One told story, or one entry of a log."""

  source: Mapping[str, Any]
  slots: dict[str, str]
  people: dict[str, Person]
  day: int
  asked: bool
  where: dict[str, int] = dataclasses.field(default_factory=dict)  # key of a turn -> index
  times: list[float] = dataclasses.field(default_factory=list)  # of all its turns


@dataclasses.dataclass
class Line:
  content: str
  response: str
  speaker: str
  instance: Instance | None = None
  key: str = ''


@dataclasses.dataclass
class Told:
  """A line in its place: what Teller.tell gives, in the order of time."""

  time: float
  session: str
  line: Line


# ---- The teller ----


class Teller:
  """Tells a life of `count` experiences, day by day, and remembers its facts.

  Args:
    seed: the same gives the same life, to the letter.
    count: experiences; the year stays a year, so more of them are more a day.
  """

  def __init__(self, seed: int, count: int):
    self._rng = rng = random.Random(f'life {seed}')
    self._count = count
    self._say = Voice(rng)
    pools = texts('pools')
    names = [(name, sex) for sex in ('she', 'he') for name in pools[sex]]
    rng.shuffle(names)
    # What is not asked about takes its names elsewhere, so that a question stays clear.
    self.dense = count > ASKED
    cut = len(names) // 2
    self._cast = _people(rng, names[:cut], 26)
    self._others = _people(rng, names[cut:], len(names))
    self.user = rng.choice(pools['user'])
    self._used: dict[tuple[str, str], set[str]] = {}
    self._deck: list[Mapping[str, Any]] = []
    self.instances: list[Instance] = []
    self.written: dict[int, int] = {}  # handwritten index -> index
    self._hand = texts('handwritten') if count >= HANDWRITTEN_FROM else []
    self._commit = len(self._hand)  # facts told, and those of stories that have begun
    self._logged = 0
    self._rate = sum(x['times'] for x in texts('talk')['logs']) * count / 1000 / DAYS

  def tell(self) -> Iterator[Told]:
    """Every experience, in the order of time. Keeps only what is still to be told."""
    rng, count = self._rng, self._count
    weights = [0.0 if rng.random() < 0.12 else rng.uniform(0.3, 1.7) for _ in range(DAYS)]
    weights[-1] = 1.0
    total, so_far, emitted, facts, number = sum(weights), 0.0, 0, 0, 0
    pending: list[tuple[int, int, Instance, int]] = []
    written: dict[int, list[tuple[int, Mapping[str, Any]]]] = {}
    for i, entry in enumerate(self._hand):
      day = (_utc(entry['time']) - START).days
      written.setdefault(day, []).append((i, entry))
    for day in range(DAYS):
      so_far += weights[day]
      blocks: list[list[Line]] = []
      goal = FACTS * count * min(1.0, (day + 1) / (DAYS - 30))
      for instance in self._begin(day, goal):
        for beat, offset in enumerate(self._offsets(instance.source)):
          number += 1
          heapq.heappush(pending, (day + offset, number, instance, beat))
      while pending and pending[0][0] == day:
        _, _, instance, beat = heapq.heappop(pending)
        blocks.append(self._beat(instance, beat))
      hand = written.get(day, [])
      logs = list(self._logs(day))
      told = len(hand) + sum(map(len, blocks)) + len(logs)
      facts += told - len(logs)
      blocks += logs
      fill = count - emitted - told
      if day < DAYS - 1:
        # Small talk is spread over the year, and leaves room for the facts that are still to come.
        ahead = max(0.0, FACTS * count - self._commit) + self._commit - facts
        ahead += self._rate * (DAYS - 1 - day) * 1.1
        small = (count - facts - ahead - self._logged) * so_far / total
        small -= emitted + told - facts - self._logged
        fill = max(0, min(fill - (self._commit - facts), int(small)))
      blocks += [[self._small()] for _ in range(fill)]
      rng.shuffle(blocks)
      for x in self._schedule(day, blocks, hand):
        self._remember(emitted, x)
        emitted += 1
        yield x

  def _remember(self, index: int, told: Told) -> None:
    instance = told.line.instance
    if instance is None and told.line.key:
      self.written[int(told.line.key)] = index
    elif instance is not None:
      instance.times.append(told.time)
      if told.line.key:
        instance.where[told.line.key] = index

  # Stories.

  def _begin(self, day: int, goal: float) -> Iterator[Instance]:
    tries = 0
    while self._commit < goal and tries < 60:
      if not self._deck:
        self._deck = list(texts('stories'))
        self._rng.shuffle(self._deck)
      source = self._deck.pop()
      tries += 1
      turns = sum(len(b['turns']) for b in source['beats'])
      last = max(b.get('after', (0, 0))[1] for b in source['beats'])
      if day + last >= DAYS or self._commit + turns > FACTS * self._count:
        continue
      if source.get('once') and self._used.get((source['id'], '')):
        continue
      self._used.setdefault((source['id'], ''), set()).add('told')
      self._commit += turns
      yield self._instance(source, day)

  def _offsets(self, source: Mapping[str, Any]) -> list[int]:
    return [self._rng.randint(*b.get('after', (0, 0))) for b in source['beats']]

  def _instance(self, source: Mapping[str, Any], day: int) -> Instance:
    asked = not self.dense or self._rng.random() < ASKED / self._count
    slots, people = {}, {}
    for name, spec in source['slots'].items():
      if spec == 'person':
        cast = self._cast if asked else self._others
        # Nobody has the same story twice, nor two that would answer each other's questions.
        used = self._used.setdefault((source.get('group', source['id']), name), set())
        if 'beats' not in source:
          used = set()
        free = [p for p in cast if p.name not in used and p not in people.values()]
        if not free:  # everybody had this story: it is told of others, and not asked about
          asked, free = False, [p for p in self._others if p not in people.values()]
        people[name] = self._rng.choice(free)
        used.add(people[name].name)
        slots |= people[name].slots(name)
      else:
        slots[name] = self._value(source['id'], name, spec, day, slots, asked)
    instance = Instance(source, slots, people, day, asked)
    if asked or not self.dense:
      self.instances.append(instance)
    return instance

  def _value(
    self, source: str, name: str, spec: Any, day: int, slots: Mapping[str, str], asked: bool
  ) -> str:
    rng = self._rng
    kind, _, bounds = spec.partition(':') if isinstance(spec, str) else ('', '', '')
    if bounds:
      low, high, *step = map(int, bounds.split('-'))
      value = rng.randrange(low, high + 1, *step)
      if kind != 'date':
        return str(value)
      return date_of(day + value)
    pool = texts('pools')[spec] if isinstance(spec, str) else spec
    if self.dense:
      cut = max(2, len(pool) // 2)
      pool = pool[:cut] if asked else pool[cut:] or pool
    used = self._used.setdefault((source, name), set())
    free = [x for x in pool if x not in used and x not in slots.values()]
    if not free:
      used.clear()
      free = [x for x in pool if x not in slots.values()] or list(pool)
    value = rng.choice(free)
    used.add(value)
    return value

  def _beat(self, instance: Instance, beat: int) -> list[Line]:
    lines = []
    for turn in instance.source['beats'][beat]['turns']:
      turn = {'say': turn} if isinstance(turn, str) else turn
      by = instance.people[turn['by']].name if 'by' in turn else self.user
      text = self._say(turn['say'], instance.slots)
      if 'by' not in turn:
        text = self._voice(text)
      response = self._response(turn.get('re', ''), instance.slots)
      lines.append(Line(text, response, by, instance, turn.get('key', '')))
    return lines

  def _logs(self, day: int) -> Iterator[list[Line]]:
    for log in texts('talk')['logs']:
      rate = log['times'] * self._count / 1000 / DAYS
      times = int(rate) + (self._rng.random() < rate % 1)
      for _ in range(times):
        if self._logged + 1 > LOGS * self._count:
          return
        self._logged += 1
        instance = self._instance(log, day)
        text = self._voice(self._say(self._rng.choice(log['say']), instance.slots))
        yield [Line(text, self._response('', {}), self.user, instance, 'say')]

  # What only fills the day.

  def _small(self) -> Line:
    rng, talk = self._rng, texts('talk')
    some = self._cast if not self.dense or rng.random() < 0.2 else self._others
    p, q = rng.sample(some, 2)
    slots = p.slots('p') | q.slots('q')
    kind = rng.random()
    if kind < 0.2:
      say, answer = rng.choice(talk['question'])
      return Line(self._say(say, slots), self._say(answer, slots), self.user)
    say = rng.choice(talk['mention'] if kind < 0.48 else talk['small'])
    return Line(self._voice(self._say(say, slots)), self._response('', {}), self.user)

  def _response(self, text: str, slots: Mapping[str, str]) -> str:
    rng = self._rng
    if text:
      return self._say(text, slots)
    some = [self._say(rng.choice(texts('talk')['response']), slots)]
    if rng.random() < 0.3:
      some.append(self._say(rng.choice(texts('talk')['response']), slots))
    return ' '.join(x if x[-1] in '.!?' else f'{x}.' for x in some)

  def _voice(self, text: str) -> str:
    """People open and close their messages in many ways, and not all of them use capitals."""
    rng, talk = self._rng, texts('talk')
    if rng.random() < 0.14:
      text = rng.choice(talk['before']) + text
    if rng.random() < 0.12:
      text += rng.choice(talk['after'])
    if rng.random() < 0.1:
      text = text[0].lower() + text[1:].rstrip('.')
    return text

  # When.

  def _schedule(
    self, day: int, blocks: list[list[Line]], hand: list[tuple[int, Mapping[str, Any]]]
  ) -> Iterator[Told]:
    """Sessions of a few blocks each; a block and a handwritten session stay in one piece."""
    rng = self._rng
    midnight = (START + datetime.timedelta(days=day)).timestamp()
    sessions: list[tuple[float, list[Line]]] = []
    room = 0
    for block in blocks:
      if room <= 0:
        room = rng.randint(2, 9)
        sessions.append((midnight + rng.uniform(6.5, 22.5) * 3600, []))
      sessions[-1][1].extend(block)
      room -= len(block)
    last = None
    for i, x in hand:
      time = _utc(x['time']).timestamp()
      if last is None or time - last > 1800:
        sessions.append((time, []))
      line = Line(x['content'], x['response'], x.get('speaker', self.user), None, str(i))
      sessions[-1][1].append(line)
      last = time
    sessions.sort(key=lambda s: s[0])
    lines = sum(len(s) for _, s in sessions)
    pace = min(1.0, 150 / max(lines, 1))  # a crowded day is talked through faster
    now = midnight + 6 * 3600.0
    date = datetime.datetime.fromtimestamp(midnight, datetime.UTC).date()
    for number, (begin, session) in enumerate(sessions, 1):
      now = max(now + 300 * pace, begin if pace == 1.0 else 0.0)
      for line in session:
        yield Told(round(now, 3), f'{date}.{number}', line)
        now += rng.randint(20, 120) * pace


def date_of(day: int) -> str:
  date = START + datetime.timedelta(days=day)
  return f'{date.day} {date:%B}'


def _utc(time: str) -> datetime.datetime:
  return datetime.datetime.fromisoformat(time).replace(tzinfo=datetime.UTC)
