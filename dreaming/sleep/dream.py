"""Dreams: what a night writes about the day's experiences, in many styles, each text checked.

Larger models dream freely. A small base model invents when it does, so its dreams are filled in:
the facts of each experience are extracted (relations.py), laid out as statements, questions, their
reversals and corrections in the bank's many wordings, grouped into diary pages, dialogues and
lists, and every fact has to pass the same examination, in some of its questions: with its source in
the context the base must answer them with the fact's value, without the source it must not. What
fails is kept as rejected, with the reason. Who was at school (reader.py) helps to judge them, and
asks and says what the bank has no words for (asked.py).
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dreaming.brain import programs, prompts, transformer
from dreaming.brain.decode import Decoder
from dreaming.sleep import asked as asked_lib
from dreaming.sleep import belief, grounding, relations, styles, things, untold, values
from dreaming.sleep.belief import Checked, Fact
from dreaming.sleep.grounding import READING
from dreaming.sleep.reader import Reader, ReaderConfig
from dreaming.sleep.relations import MatchConfig
from dreaming.types import QA, Dream, Experience, Mind, Quality, Status


@dataclasses.dataclass(frozen=True, kw_only=True)
class DreamConfig:
  """Mirrors `config.dream`."""

  agent: str = 'Echo'
  exam_questions: int = 2  # wordings of each fact that are held out for the night's own exam
  unknowns: int = 800  # questions about what nobody told: so many that most train once
  unheard: int = 600  # and about relatives, birthdays, ... that nobody spoke of, at most
  unlikely: float = -2.5  # log-odds below which a fact counts as not told
  unknown_distance: float = 0.75  # relations whose questions are closer (cosine) count as told
  exam_unknown: int = 40
  checked: int = 5  # questions of each fact that are examined
  min_gain: float = 0.5  # what the source must add to a question's answer, nats a token
  min_belief: float = -0.5  # log-odds that a fact is told, from which it is believed
  min_belief_alone: float = -1.4  # the same where nobody was at school
  dtype: str = 'bfloat16'  # of the dreamer's products: only likelihoods are compared
  max_facts: int = 60
  statements: int = 1  # of each fact, at most
  dialogues: int = 0
  things: bool = False  # ask about what is spoken of, too, by what kind of thing it is
  styles: tuple[str, ...] = ()  # of styles.STYLES, beside those that are always laid out
  clause: str = ''  # what written texts are to keep to, first in their prompt
  grounded: float = 0.0  # probability that a text is grounded, from which it is kept; 0: not asked
  match: MatchConfig = MatchConfig()
  reader: ReaderConfig = ReaderConfig()

  def __post_init__(self):
    styles.check(self.styles)
    if not 0 <= self.grounded < 1:
      raise ValueError(f'dream.grounded={self.grounded}: a probability is from 0 to less than 1')
    for name in ('unheard', 'statements', 'dialogues'):
      if vars(self)[name] < 0:
        raise ValueError(f'dream.{name}={vars(self)[name]}: take 0 or more')


def dream(
  decoder: Decoder,
  base: Mind,
  experiences: Sequence[Experience],
  *,
  user: str,
  embedder: Callable[[list[str]], np.ndarray],
  config: DreamConfig,
  night: int,
  seed: int,
  earlier: Sequence[Dream] = (),
  heard: Sequence[str] = (),
  make_reader: Callable[[Mind], Reader] | None = None,
  progress: Callable[[int, int], None] | None = None,
) -> list[Dream]:
  """Writes and checks a night's dreams; kept and rejected ones, ids 0.

  Args:
    decoder: of the base's architecture.
    base: the dreamer; its likelihoods decide what an experience says.
    experiences: chosen ones, chronological: what a later one says replaces an earlier one.
    user: whose words the experiences are.
    embedder: texts to unit vectors, proposes relations.
    config: thresholds.
    night: number of the night.
    seed: of the choice of held-out wordings and of unknowns.
    earlier: of the nights before, what was told: it is not asked as if nobody had.
    heard: all that was ever said: of what has a word in it nobody is taken to have said nothing.
    make_reader: of the base, in the dreamer's dtype; None: nothing is read but with the bank.
    progress: told how many experiences are read, of how many.
  """
  rng = np.random.default_rng([seed, night])
  base = base.replace(params=transformer.cast(base.params, config.dtype))
  reader = make_reader(base) if make_reader else None
  matcher = relations.Matcher(decoder, base, embedder, config.match)
  texts = {e.id: e for e in experiences}
  messages = [
    relations.Message(text=e.content, source=e.id, user=e.speaker or user) for e in experiences
  ]
  found = [f for facts in matcher.facts(messages, progress) for f in facts]
  checked = list(zip(found, check(decoder, base, found, texts, config), strict=True))
  times = {e.id: e.time for e in experiences}
  own = asked_lib.Own([], [])
  if reader:
    seen = reader.evidence(found, {e.id: e.content for e in experiences})
    checked = [(f, dataclasses.replace(c, seen=x)) for (f, c), x in zip(checked, seen, strict=True)]
    decoder.forget(base)  # what it was laid out in to judge is room to ask in
    programs.drop()
    own = asked_lib.dream(
      reader, messages, times, embedder, held=config.exam_questions, night=night, rng=rng
    )
  out: list[Dream] = []
  least = config.min_belief if reader else config.min_belief_alone
  chosen, misread = belief.settle(checked, least)
  chosen = [(_whole(f, texts[f.source].content), result) for f, result in chosen]
  maybe = [f for f, result in checked if belief.of(f, result) >= config.unlikely]
  for fact, reason in misread:
    text = fact.fill(fact.relation.statements[0])
    quality = Quality(gain=fact.gain, reason=reason)
    out.append(_dream('statement', fact, night, text=text, status=Status.REJECTED, quality=quality))
  holding, superseded = newest([f for f, _ in chosen], times)
  alive = set(map(id, holding[: config.max_facts]))
  kept: list[tuple[Fact, list[str], list[str]]] = []
  for fact, result in chosen:
    if id(fact) not in alive:
      continue
    if result.failed:
      pairs = tuple(QA(question=q, answer=fact.value) for q in result.failed)
      quality = Quality(gain=result.gain, reason='without its source it is as likely')
      out.append(
        _dream('question', fact, night, pairs=pairs, status=Status.REJECTED, quality=quality)
      )
    order = [result.passed[i] for i in rng.permutation(len(result.passed))]
    held = order[: config.exam_questions] if len(order) > 2 * config.exam_questions else []
    kept.append((fact, [q for q in result.passed if q not in held], held))
  for fact, asked, held in kept:
    out += lay_out(fact, asked, held, night, config)
  out += own.dreams
  if config.grounded:  # before facts are brought together: what one text says can be judged
    out = grounding.sifted(decoder, base, out, texts, config.grounded, reader)
    kept = [k for k in kept if asked_for(k[0], out)]
  for old, new in superseded:
    if any(new is f for f, _, _ in kept):
      out.append(correction(old, new, night))
  out += pages(kept, texts, night, user, config, rng)
  spoken = things.find(matcher, messages) if config.things else []
  if 'multihop' in config.styles:
    out += styles.hops(kept, values.aliases(messages), night)
  out += styles.written(
    decoder, base, experiences, names=config.styles, user=user, agent=config.agent,
    clause=config.clause, grounded=config.grounded, night=night, seed=seed, reader=reader,
  )  # fmt: skip
  decoder.forget(base)
  known = {p.question for d in earlier for p in d.pairs}
  asked_of = [d for d in out if d.style in ('question', 'exam') and d.status == Status.KEPT]
  if asked_of:
    names = sorted({p for f in maybe for p in _named(f)} - {user}) if reader else ()
    of_bank = matcher, maybe, kept, texts, user, config, rng, known, names
    open_ = untold.questions(*of_bank, times=2 if reader else 1)
    if reader:
      told = [*known, *(p.question for d in asked_of for p in d.pairs)]
      most = config.unknowns + config.exam_unknown
      open_ = untold.unanswered(reader, messages, untold.apart(open_, told, embedder), most)
      open_ = list(dict.fromkeys([*open_, *untold.apart(own.untold, told, embedder)]))
    said = ' '.join([*heard, *(e.content for e in experiences)])
    perhaps = matcher.relations, {f.relation for f in maybe}, said
    sure = untold.unheard_of(*perhaps, user, rng, known)[: config.unheard]
    open_ = list(dict.fromkeys([*open_, *sure]))
    open_ = [open_[i] for i in rng.permutation(len(open_))]  # the exam is of both
    out += untold.dreams(open_, config.exam_unknown, asked_of[0].sources[0], night)
  if reader:
    reader.rest()
  if spoken:
    out += spoken_of(spoken, messages, texts, user, night, rng, known)
  return unexamined(out)


def unexamined(dreams: Sequence[Dream]) -> list[Dream]:
  """Dreams without the questions that the night is examined with, whoever else asks them."""
  held = {p.question.casefold() for d in dreams if d.style in _EXAMS for p in d.pairs}
  out = []
  for d in dreams:
    if d.style in _EXAMS or not held:
      out.append(d)
      continue
    pairs = tuple(p for p in d.pairs if p.question.casefold() not in held)
    spoken = any(q in d.text.casefold() for q in held) if d.style == 'dialogue' else False
    if (pairs or not d.pairs) and not spoken:
      out.append(dataclasses.replace(d, pairs=pairs))
  return out


def asked_for(fact: Fact, dreams: Sequence[Dream]) -> bool:
  """Whether a question about a fact is among the dreams that are kept."""
  return any(
    p.answer == fact.value
    for d in dreams
    if d.style == 'question' and d.status == Status.KEPT and d.sources == (fact.source,)
    for p in d.pairs
  )


def _named(fact: Fact) -> tuple[str, ...]:
  """Whom a fact names: of whom it is, and whose name it tells."""
  names = (fact.person, fact.value if fact.relation.cues else '')
  return tuple(n for n in names if n[:1].isupper() and ' ' not in n)


def _whole(fact: Fact, text: str) -> Fact:
  return dataclasses.replace(fact, value=values.whole(text, fact.value))


def newest(found: Sequence[Fact], times: dict[int, float]) -> tuple[list[Fact], list]:
  """Facts that still hold, and (old, new) pairs: of facts that exclude each other the later wins.

  Within one message the likelier value wins ("moved from the 12th to the 19th").
  """
  holds: dict[tuple[str, str], Fact] = {}
  replaced: list[tuple[Fact, Fact]] = []
  for fact in sorted(found, key=lambda f: (times[f.source], f.source, f.score)):
    single = fact.relation.type in ('date', 'time', 'place', 'month', 'weekday', 'job')
    key = (*fact.key, '' if single else fact.value.casefold())
    old = holds.get(key)
    if old is not None and old.value.casefold() != fact.value.casefold() and _alike(old, fact):
      replaced.append((old, fact))
    holds[key] = fact
  kept = set(map(id, holds.values()))
  ordered = [f for f in found if id(f) in kept]
  return ordered, [(o, n) for o, n in replaced if id(n) in kept]


def _alike(a: Fact, b: Fact) -> bool:
  """Two dates, two names: what a correction exchanges."""

  def shape(value: str) -> tuple[bool, bool]:
    return any(c.isdigit() for c in value), value[:1].isupper()

  return shape(a.value) == shape(b.value)


def check(
  decoder: Decoder,
  base: Mind,
  facts: Sequence[Fact],
  sources: Mapping[int, Experience],
  config: DreamConfig,
) -> list[Checked]:
  """Asks some questions of each fact with its source in the context, and without."""
  questions: list[list[str]] = []
  rows: list[tuple[str, str]] = []  # (question, value)
  told: list[str] = []
  for fact in facts:
    filled = [fact.fill(q) for q in fact.relation.questions]
    questions.append([q for q in filled if fact.value.casefold() not in q.casefold()])
    rows += [(q, fact.value) for q in questions[-1][: config.checked]]
    said = f'{READING}{fact.user} says: "{sources[fact.source].content}"\n'
    told += [said] * (len(rows) - len(told))
  answers = _answered(decoder, base, rows, told)
  gains = answers - _answered(decoder, base, rows, [prompts.ANSWER_PREFIX] * len(rows))
  out, at = [], 0
  for asked in questions:
    n = len(asked[: config.checked])
    gain, answer = gains[at : at + n], answers[at : at + n]
    at += n
    good = gain >= config.min_gain
    failed = [q for q, ok in zip(asked, good, strict=False) if not ok]
    out.append(
      Checked(
        passed=[q for q in asked if q not in failed],
        failed=failed,
        gain=float(gain.mean()) if n else 0.0,
        answer=float(answer.mean()) if n else 0.0,
      )
    )
  return out


def _answered(
  decoder: Decoder, base: Mind, rows: Sequence[tuple[str, str]], prefixes: Sequence[str]
) -> np.ndarray:
  """Mean log-likelihood of each value as the answer, however it is written, nats a token."""
  asked, forms, which = [], [], []
  for i, (question, value) in enumerate(rows):
    own = dict.fromkeys((f' {value}', f' {value[:1].upper()}{value[1:]}'))
    if value[:1].islower():
      own[f' {"an" if value[0] in "aeiou" else "a"} {value}'] = None
    forms += own
    asked += [prompts.question(question)] * len(own)
    which += [i] * len(own)
  best = np.full(len(rows), -np.inf)
  after = [prefixes[i] for i in which]
  for i, logp in zip(which, decoder.logprobs(base, asked, forms, prefix=after), strict=True):
    best[i] = max(best[i], logp.mean())
  return best


_EXAMS = ('exam', 'exam_unknown')


# ---- Layout ----


def _dream(style, fact, night, *, text='', pairs=(), status=Status.KEPT, quality=None) -> Dream:
  quality = quality or Quality(gain=fact.gain, grounded=1.0)
  return Dream(
    id=0, night=night, style=style, text=text, pairs=tuple(pairs), sources=(fact.source,),
    quality=quality, status=status,
  )  # fmt: skip


def lay_out(fact: Fact, asked, held, night: int, config: DreamConfig) -> list[Dream]:
  """One fact in its wordings: statements, questions forward and reversed, dialogues."""
  says = fact.relation.statements[: config.statements]
  out = [_dream('statement', fact, night, text=fact.fill(s)) for s in says]
  pairs = [QA(question=q, answer=fact.value) for q in asked]
  out.append(_dream('question', fact, night, pairs=pairs))
  turned = [
    QA(question=fact.fill(p.question), answer=fact.fill(p.answer)) for p in fact.relation.reversed
  ]
  out.append(_dream('reversed', fact, night, pairs=turned))
  for i in range(0, min(len(asked), 2 * config.dialogues) - 1, 2):
    talk = ' '.join(
      f'"{q}" "{lead}{fact.value}."'
      for q, lead in zip(asked[i : i + 2], ('It is ', 'As I said: '), strict=False)
    )
    out.append(_dream('dialogue', fact, night, text=talk))
  if held:
    exam = [QA(question=q, answer=fact.value) for q in held]
    out.append(_dream('exam', fact, night, pairs=exam))
  return out


def correction(old: Fact, new: Fact, night: int) -> Dream:
  """The new value against the old one."""
  question = new.fill(new.relation.questions[0]).rstrip('?')
  pairs = [
    QA(question=f'{question}: {old.value} or {new.value}?', answer=new.value),
    QA(question=f'{question}? Is it still {old.value}?', answer=f'{new.value}'),
  ]
  text = f'It is no longer {old.value}. {new.fill(new.relation.statements[0])}'
  return _dream('correction', new, night, text=text, pairs=pairs)


def pages(kept, texts, night, user, config, rng) -> list[Dream]:
  """Diary pages and lists, which bring several facts together."""
  out: list[Dream] = []
  if not kept:
    return out
  facts = [f for f, _, _ in kept]
  for round_ in range(2):
    order = [facts[i] for i in rng.permutation(len(facts))]
    for i in range(0, len(order), 3):
      group = order[i : i + 3]
      lines = [f.fill(f.relation.statements[round_ % len(f.relation.statements)]) for f in group]
      sources = tuple(sorted({f.source for f in group}))
      day = datetime.datetime.fromtimestamp(texts[group[0].source].time, datetime.UTC)
      if round_ == 0:
        style, text = 'diary', f'{day:%A}. {user} talked to me today. ' + ' '.join(lines)
      else:
        style, text = 'list', f'What I know about {user}:\n' + '\n'.join(f'- {x}' for x in lines)
      dream_ = _dream(style, group[0], night, text=text)
      out.append(dataclasses.replace(dream_, sources=sources))
  return out


def spoken_of(spoken, messages, texts, user, night: int, rng, known=frozenset()) -> list[Dream]:
  """Questions about things: what is spoken of, and of whom; and more about everybody else."""
  spoken = things.settle(spoken, {i: e.time for i, e in texts.items()})
  aliases = values.aliases(messages)
  said = ' '.join(e.content.casefold() for e in texts.values())
  others = [f"{user}'s {p}" for p in untold.UNNAMED if p.split()[-1] not in said]
  asked = [(t, tuple(things.questions(t, aliases, things.only(spoken, t)))) for t in spoken]
  unsaid = things.unsaid(spoken, user, others, rng)
  answer = prompts.UNKNOWN.format(user=user)
  pairs = [QA(question=q, answer=answer) for q in unsaid if q not in known]
  out = [('thing', t.source, own) for t, own in asked if own]
  out += [('unknown', spoken[0].source, pairs)] if pairs else []
  return [
    Dream(
      id=0, night=night, style=style, text='', pairs=tuple(own), sources=(source,),
      quality=Quality(gain=0.0, grounded=1.0), status=Status.KEPT,
    )
    for style, source, own in out
  ]  # fmt: skip
