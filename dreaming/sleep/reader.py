"""Reading by who was at school (school.py): what a message tells, asked and said in other words.

It says what a message tells, and asks for that. Many of its questions are wrong, but which ones its
own likelihoods tell quite well: how likely the question is once the answer is given; how sure
that answer is; how likely it would rather say that nobody told. A logistic
regression weighs them, fitted on questions that were labelled by hand. The same likelihoods help to
tell which readings of the bank are true (belief.py), and which questions nobody answers.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dreaming.brain import programs, prompts, transformer
from dreaming.brain.decode import Decoder, Sampler
from dreaming.sleep import school
from dreaming.sleep.corpus import shortlist_of
from dreaming.sleep.relations import Message
from dreaming.types import Mind


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReaderConfig:
  """Mirrors `config.dream.reader`."""

  samples: int = 16  # answers that are sampled for each message, each with a question
  wordings: int = 8  # questions that are sampled for each of its `answers`
  sentences: int = 4
  untold: int = 4
  temperature: float = 0.7
  top_p: float = 0.95
  tokens: int = 40  # of a question with its answer
  min_odds: float = 0.5  # log-odds that a question is right, from which it is kept
  most: int = 10  # questions of one answer, the likeliest
  answers: int = 5  # of one message, the likeliest
  min_unread: float = 0.2  # probability of "not told" below which a message answers a question
  near: int = 3  # other messages that a question is asked of, too

  def __post_init__(self):
    counts = ('samples', 'wordings', 'answers', 'sentences', 'untold', 'most', 'near')
    if wrong := [f'{n}={vars(self)[n]}' for n in counts if vars(self)[n] < 0]:
      raise ValueError(f'dream.reader.{wrong[0]}: it is 0 or more')
    if self.tokens < 1 or not 0 <= self.min_unread <= 1:
      raise ValueError(
        f'dream.reader: tokens={self.tokens}, min_unread={self.min_unread}: tokens are at least 1, '
        'a probability is from 0 to 1'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
  """What a message tells: a question and its answer, in the message's words."""

  source: int  # experience id
  question: str
  answer: str
  odds: float  # log-odds that it is right

  @property
  def probability(self) -> float:
    return float(1 / (1 + np.exp(-self.odds)))


_LONGEST = 6  # words of an answer
# Tokens that probabilities are among, with all of the messages and of what is said.
_FREQUENT = 8192
# What a sentence or a question may begin with beside a name of the message.
_FIRST = frozenset(
  'the a an in on at of for to from by with without about after before since until during under '
  'over because when while where what which who whom whose why how is are was were does do did has '
  'have had can could will would should must may might there it this that these every each one two '
  'now once next last as if his her their our its beside near against into through between'.split()
)
_SELF = re.compile(r"\b(?:I|I'm|me|my|mine|you|your|we|our)\b", re.IGNORECASE)

# Log-odds for each unit of a feature: benchmarks/questions.py makes them, of labelled questions.
WEIGHTS: Mapping[str, float] = {'bias': 0.89, 'read': 0.25, 'unread': -0.17, 'asked': 1.68}


def features(read: float, unread: float, asked: float) -> dict[str, float]:
  """What is known of a question with its answer.

  Args:
    read: log-likelihood of the answer after message and question, nats.
    unread: that of "not told" in its place.
    asked: mean log-likelihood of the question after message and answer, nats a token.
  """
  return {'bias': 1.0, 'read': max(read, -8.0), 'unread': max(unread, -12.0), 'asked': asked}


def of_night(
  base: Any,
  decoder: Decoder,
  config: Any,
  cache: pathlib.Path,
  seed: int,
  progress: Callable[..., None] | None = None,
) -> Callable[[Mind], Reader] | None:
  """What makes the reader of a night of the base as it dreams; nothing where nobody goes to school.

  The reader shares with that base what school did not change. Who was not at school yet goes now.

  Args:
    base: as school.teach has it.
    decoder: of its architecture.
    config: NightConfig.
    cache: where the school's adapter is kept.
    seed: of the night.
    progress: of the night: told how many steps of school are done.
  """
  if not config.school.steps:
    return None
  told = progress and (lambda done, total: progress('school', done, total, {}))

  def make(mind: Mind) -> Reader:
    adapter = school.teach(base, config.school, cache, told)
    return Reader(decoder, school.reader(mind, adapter, base.arch), config.dream.reader, seed)

  return make


class Reader:
  """Asks, answers, retells and wonders.

  Args:
    decoder: of the base's architecture.
    mind: of school.reader.
    config: how much.
    seed: of the sampling.
  """

  def __init__(self, decoder: Decoder, mind: Mind, config: ReaderConfig, seed: int):
    self.decoder, self.mind, self.config, self.seed = decoder, mind, config, seed
    self._words: set[int] = set()  # that it can say
    self._speaks = mind  # itself with these words alone

  # ---- Asking ----

  def told(self, messages: Sequence[Message]) -> list[Told]:
    """What messages tell, each question with the log-odds that it is right; none is left out.

    The answer comes first, and then what it answers. The answers that come most often are asked for
    more than once.
    """
    config = self.config
    first = self._sampled(messages, [school.TELLS] * len(messages), config.samples, 1)
    found = {(i, *pair): None for i, text in first if (pair := _parsed(messages[i], text))}
    forms: dict[tuple[int, str], list[str]] = {}  # of each answer
    for i, text in first:
      answer = text.partition('\n')[0].strip()
      if _tells(messages[i], answer):
        forms.setdefault((i, bare(answer)), []).append(answer)
    count: collections.Counter[int] = collections.Counter()
    more: list[tuple[int, str]] = []
    for (i, _), answers in sorted(forms.items(), key=lambda x: -len(x[1])):
      count[i] += 1
      if count[i] <= config.answers:
        more.append((i, answers[0]))
    openings = [f'{school.TELLS} {value}\n{school.QUESTION}' for _, value in more]
    again = self._sampled([messages[i] for i, _ in more], openings, config.wordings, 4)
    for n, text in again:
      i, value = more[n]
      if pair := _parsed(messages[i], f'{value}\n{school.QUESTION} {text}'):
        found[(i, *pair)] = None
    self.decoder.forget(self._speaks)  # what it was laid out in to ask is room to judge in
    programs.drop()
    asked = [(messages[i], q, a) for i, q, a in found]
    return [
      Told(source=m.source, question=q, answer=a, odds=odds(known))
      for (m, q, a), known in zip(asked, self.known(asked), strict=True)
    ]

  def known(self, asked: Sequence[tuple[Message, str, str]]) -> list[dict[str, float]]:
    """`features` of questions with their answers."""
    told = [school.told(m.user, m.text) for m, *_ in asked]
    questions = [prompts.question(q) for _, q, _ in asked]
    answers = [f' {a}\n' for *_, a in asked]
    refusals = [f' {prompts.UNKNOWN.format(user=m.user)}\n' for m, *_ in asked]
    opening = [f'{school.TELLS}{a}{school.QUESTION}' for a in answers]
    words = [f' {q}\n\n' for _, q, _ in asked]
    rows = zip(
      self._sums(told, questions, answers), self._sums(told, questions, refusals),
      self._means(told, opening, words), strict=True,
    )  # fmt: skip
    return [features(*row) for row in rows]

  def sentences(self, messages: Sequence[Message]) -> list[tuple[int, str]]:
    """(experience id, what it says of its user in other words), as sampled."""
    said = self._sampled(messages, [school.SENTENCE] * len(messages), self.config.sentences, 2)
    return [(messages[i].source, t) for i, t in dict.fromkeys(said) if t.endswith('.')]

  def untold(self, messages: Sequence[Message]) -> list[tuple[int, str]]:
    """(experience id, a question that it brings to mind and does not answer), as sampled."""
    said = self._sampled(messages, [school.UNTOLD] * len(messages), self.config.untold, 3)
    return [(messages[i].source, t) for i, t in dict.fromkeys(said) if sound_untold(messages[i], t)]

  def _sampled(self, messages, openings: Sequence[str], count: int, salt: int):
    """(index, what followed its message and opening), each text of an index once or more."""
    config = self.config
    asked = [
      school.told(m.user, m.text) + opening
      for m, opening in zip(messages, openings, strict=True)
      for _ in range(count)
    ]
    # An answer's line ends before its question begins.
    stop = ('\n\n',) if openings and openings[0].startswith(school.TELLS) else ('\n',)
    sampler = Sampler(
      temperature=config.temperature, top_p=config.top_p, seed=(self.seed + salt) % 2**31
    )
    texts = self.decoder.generate(
      self._speaker(messages), asked, max_tokens=config.tokens, stop=stop, sampler=sampler
    )
    return [(i // count, text.strip()) for i, text in enumerate(texts)] if count else []

  def _speaker(self, messages: Sequence[Message]) -> Mind:
    """Itself, with no words but those of school and of messages so far, and the most frequent.

    Most of a decode step is the logits of a vocabulary of all languages.
    """
    encode = self.decoder.tokenizer.encode
    words = {w for m in messages for w in re.findall(r'\w+', f'{m.user} {m.text}')}
    forms = {f(w) for w in words for f in (str, str.lower, str.capitalize)}
    own = {t for w in forms for t in (*encode(w), *encode(f' {w}'))}
    own |= {t for m in messages for t in encode(m.text)}
    if not self._words or own - self._words:
      self._words |= own | school.words(self.decoder.tokenizer)
      ids = shortlist_of(self._words, self.decoder.arch.vocab_size, _FREQUENT)
      self._speaks = self.mind.replace(params=transformer.speaking(self.mind.params, ids))
    return self._speaks

  def rest(self) -> None:
    """Drops what is kept to be fast, in asking and in judging."""
    self.decoder.forget(self._speaks)
    self.decoder.forget(self.mind)

  # ---- Judging ----

  def unread(self, texts: Sequence[Message], questions: Sequence[str]) -> np.ndarray:
    """Probability that each message does not answer each question, pairwise: Float['N']."""
    told = [school.told(m.user, m.text) for m in texts]
    refusals = [f' {prompts.UNKNOWN.format(user=m.user)}\n' for m in texts]
    asked = [prompts.question(q) for q in questions]
    return np.exp(self._sums(told, asked, refusals))

  def evidence(self, facts, texts: Mapping[int, str], asked: int = 2) -> list[dict[str, float]]:
    """What it thinks of readings of the bank, for belief.of.

    Args:
      facts: belief.Fact.
      texts: of their sources, by id.
      asked: questions of each.
    """
    told, prompts_, values, users, which, own, words = [], [], [], [], [], [], []
    for i, fact in enumerate(facts):
      filled = [fact.fill(q) for q in fact.relation.questions]
      for q in [q for q in filled if fact.value.casefold() not in q.casefold()][:asked]:
        told.append(school.told(fact.user, texts[fact.source]))
        prompts_.append(prompts.question(q))
        own.append(f'{school.TELLS} {fact.value}\n{school.QUESTION}')
        words.append(f' {q}\n\n')
        values.append(f' {fact.value}\n')
        users.append(f' {prompts.UNKNOWN.format(user=fact.user)}\n')
        which.append(i)
    sums = np.stack([
      self._sums(told, prompts_, values), self._sums(told, prompts_, users),
      self._means(told, own, words),
    ]) if told else np.zeros((3, 0))  # fmt: skip
    says = self._means(
      [school.told(f.user, texts[f.source]) for f in facts], [school.SENTENCE] * len(facts),
      [f' {f.fill(f.relation.statements[0])}' for f in facts],
    )  # fmt: skip
    index, out = np.asarray(which, int), []
    for i, said in enumerate(says):
      mine = sums[:, index == i]
      read, unread, question = mine.mean(axis=1) if mine.size else (-20.0, 0.0, -5.0)
      row = {'read': read, 'unread': unread, 'asked': question, 'said': said}
      out.append({k: float(x) for k, x in row.items()})
    return out

  def believed(
    self, users: Sequence[str], texts: Sequence[str], asked: Sequence[str | None],
    said: Sequence[str],
  ) -> np.ndarray:  # fmt: skip
    """How likely it would say something of messages, Float['N'], mean nats a token.

    Args:
      users: whose messages `texts` are.
      asked: the questions that are answered; None where a statement is made.
      said: answers and statements.
    """
    told = [school.told(u, text) for u, text in zip(users, texts, strict=True)]
    forms = [school.SENTENCE if q is None else prompts.question(q) for q in asked]
    return self._means(told, forms, [f' {s}\n' for s in said])

  def _sums(self, told, asked, tails) -> np.ndarray:
    return np.asarray([x.sum() for x in self._scores(told, asked, tails)])

  def _means(self, told, asked, tails) -> np.ndarray:
    return np.asarray([x.mean() for x in self._scores(told, asked, tails)])

  def _scores(self, told, asked, tails) -> list[np.ndarray]:
    if not told:
      return []
    encode, size = self.decoder.tokenizer.encode, self.decoder.arch.vocab_size
    words = {t for text in {*told, *tails} for t in encode(text)}  # what could be said instead
    among = shortlist_of(words, size, _FREQUENT)
    return self.decoder.logprobs(self.mind, asked, tails, prefix=told, shortlist=among)


def odds(found: Mapping[str, float]) -> float:
  return sum(WEIGHTS[name] * x for name, x in found.items())


def _parsed(message: Message, text: str) -> tuple[str, str] | None:
  """(question, answer) of what came after `school.TELLS`, if it is sound."""
  answer, _, rest = text.partition('\n')
  question = rest.partition('\n')[0]
  pair = question.removeprefix(school.QUESTION).strip(), answer.strip()
  return pair if question.startswith(school.QUESTION) and sound(message, *pair) else None


def bare(answer: str) -> str:
  """Case folded, without an article."""
  return re.sub(r'^(?:the|a|an) ', '', answer.casefold())


def sound(message: Message, question: str, answer: str) -> bool:
  """Whether a question could be right, by its words alone.

  Its answer stands in the message and not in the question, and it names nobody of whom the message
  does not speak.
  """
  value = bare(answer)
  return (
    question.endswith('?')
    and _tells(message, answer)
    and not has(question, value)
    and not _SELF.search(question)
    and _known(message, question)
  )


def _tells(message: Message, answer: str) -> bool:
  """Whether an answer stands in a message, and is short."""
  value = bare(answer)
  return 0 < len(value.split()) <= _LONGEST and has(message.text, value)


def sound_sentence(message: Message, text: str, answer: str) -> bool:
  """The same of a sentence that is to tell an answer."""
  told = has(text, bare(answer)) and message.user in text
  return told and _known(message, text) and not _SELF.search(text)


def sound_untold(message: Message, question: str) -> bool:
  """Whether a question could be about somebody of the message, by its words alone."""
  named = any(w[0].isupper() and has(message.text, w.casefold()) for w in _words(question)[1:])
  return (
    question.endswith('?')
    and (named or message.user in question)
    and _known(message, question)
    and not _SELF.search(question)
  )


def has(text: str, value: str) -> bool:
  """Whether a text has a value (case folded) as whole words."""
  return bool(re.search(rf'(?<!\w){re.escape(value)}(?!\w)', text.casefold()))


def _words(text: str) -> list[str]:
  return re.findall(r'\w+', text.replace("'s", ''))


def _known(message: Message, text: str) -> bool:
  """Whether all names in a text are the message's; usual first words have a capital for nothing."""
  known = {w.casefold() for w in _words(f'{message.text} {message.user}')}
  first, *others = _words(text) or ['']
  strange = [w for w in others if w[0].isupper() and w.casefold() not in known]
  return not strange and first.casefold() in known | _FIRST
