"""Dreams of what the reader asked and said itself (reader.py), beside those of the bank."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dreaming.brain import prompts
from dreaming.sleep.reader import Reader, Told, bare, has, sound_sentence
from dreaming.sleep.relations import Message
from dreaming.types import QA, Dream, Quality, Status


@dataclasses.dataclass(frozen=True)
class Own:
  """What a night dreams of the reader's own questions."""

  dreams: list[Dream]
  untold: list[QA]  # questions that come to mind and that no message answers


def dream(
  reader: Reader,
  messages: Sequence[Message],
  times: Mapping[int, float],
  embedder: Callable[[list[str]], np.ndarray],
  *,
  held: int,
  night: int,
  rng: np.random.Generator,
) -> Own:
  """What messages tell, in the reader's words, and what they leave open.

  Args:
    reader: asks.
    messages: what was said.
    times: when, by source.
    embedder: texts to unit vectors: which messages a question may also be about.
    held: questions of an answer that are held out for the exam, where it has more than three times
      as many.
    night: its number.
    rng: which are held out.
  """
  found = reader.told(messages)
  good = [t for t in found if t.odds >= reader.config.min_odds]
  near = _Near(reader, messages, embedder)
  chosen = near.standing(_chosen(good, times, reader), times)
  out, of = [], _by_answer(chosen)
  for (source, _), own in of.items():
    sure = Quality(grounded=float(np.mean([t.probability for t in own])))
    fields = {'id': 0, 'night': night, 'sources': (source,), 'quality': sure}
    order = [own[i] for i in rng.permutation(len(own))]
    exam = order[:held] if len(order) > 3 * held else []
    asked = [t for t in own if t not in exam]
    for style, some in (('question', asked), ('exam', exam)):
      if some:
        pairs = tuple(QA(question=t.question, answer=t.answer) for t in some)
        out.append(Dream(style=style, text='', pairs=pairs, **fields))
  out += _refused(found, reader.config.min_odds, night)
  answers: dict[int, list[str]] = {}
  for source, answer in of:
    answers.setdefault(source, []).append(answer)
  by_id = {m.source: m for m in messages}
  for source, text in reader.sentences([m for m in messages if m.source in answers]):
    if any(sound_sentence(by_id[source], text, a) for a in answers[source]):
      quality = Quality(grounded=1.0)
      out.append(
        Dream(id=0, night=night, style='statement', text=text, sources=(source,), quality=quality)
      )
  return Own(out, near.nobody(reader.untold(messages)))


def _chosen(good: Sequence[Told], times: Mapping[int, float], reader: Reader) -> list[Told]:
  """The likeliest questions of the likeliest answers of each message.

  One question has one answer: of several messages the newest one's, of one message the likeliest.
  """
  best: dict[str, Told] = {}
  for t in sorted(good, key=lambda t: (-times[t.source], -t.source, -t.odds)):
    best.setdefault(t.question.casefold(), t)
  out: list[Told] = []
  count: dict[int, int] = {}
  ranked = sorted(_by_answer(list(best.values())).items(), key=lambda x: -sum(t.odds for t in x[1]))
  for (source, _), own in ranked:
    count[source] = count.get(source, 0) + 1
    if count[source] <= reader.config.answers:
      out += sorted(own, key=lambda t: -t.odds)[: reader.config.most]
  return sorted(out, key=lambda t: t.source)


def _by_answer(told: Sequence[Told]) -> dict[tuple[int, str], list[Told]]:
  out: dict[tuple[int, str], list[Told]] = {}
  for t in told:
    out.setdefault((t.source, bare(t.answer)), []).append(t)
  return out


def _refused(found: Sequence[Told], least: float, night: int) -> list[Dream]:
  """What was asked and is not believed, one dream a message."""
  out: dict[int, list[Told]] = {}
  for t in found:
    if t.odds < least:
      out.setdefault(t.source, []).append(t)
  reason = f'log-odds below {least:g} that its question is right'
  return [
    Dream(
      id=0, night=night, style='question', text='', sources=(source,), status=Status.REJECTED,
      pairs=tuple(QA(question=t.question, answer=t.answer) for t in own),
      quality=Quality(grounded=float(np.mean([t.probability for t in own])), reason=reason),
    )
    for source, own in out.items()
  ]  # fmt: skip


class _Near:
  """Which other messages a question could be about, and whether they answer it."""

  def __init__(self, reader: Reader, messages: Sequence[Message], embedder):
    self._reader, self._messages, self._embedder = reader, messages, embedder
    self._vectors = embedder([m.text for m in messages])
    self._at = {m.source: i for i, m in enumerate(messages)}

  def _rows(self, sources: Sequence[int], questions: Sequence[str]) -> list[list[int]]:
    """Indices of the messages that are nearest to each question, its own not among them."""
    if not questions:
      return []
    alike = self._embedder(list(questions)) @ self._vectors.T
    alike[np.arange(len(questions)), [self._at[s] for s in sources]] = -np.inf
    count = min(self._reader.config.near, len(self._messages) - 1)
    return np.argsort(-alike, axis=1, kind='stable')[:, :count].tolist()

  def _unread(self, pairs: Sequence[tuple[int, str]]) -> np.ndarray:
    return self._reader.unread([self._messages[i] for i, _ in pairs], [q for _, q in pairs])

  def standing(self, told: Sequence[Told], times: Mapping[int, float]) -> list[Told]:
    """Those that no later message answers otherwise: the newer experience wins."""
    rows = self._rows([t.source for t in told], [t.question for t in told])
    asked: list[tuple[int, int]] = []  # (of told, of messages)
    for n, (t, near) in enumerate(zip(told, rows, strict=True)):
      at = times[t.source], t.source
      asked += [(n, i) for i in near if (times[(s := self._messages[i].source)], s) > at]
    unread = self._unread([(i, told[n].question) for n, i in asked])
    gone = {
      n for (n, i), x in zip(asked, unread, strict=True)
      if x < self._reader.config.min_unread
      and not has(self._messages[i].text, bare(told[n].answer))
    }  # fmt: skip
    return [t for n, t in enumerate(told) if n not in gone]

  def nobody(self, wonders: Sequence[tuple[int, str]]) -> list[QA]:
    """Those that neither their own message nor one near answers."""
    rows = self._rows([s for s, _ in wonders], [q for _, q in wonders])
    pairs = [
      (i, q) for (s, q), near in zip(wonders, rows, strict=True) for i in (self._at[s], *near)
    ]
    if not pairs:
      return []
    answered = {
      q for (_, q), x in zip(pairs, self._unread(pairs), strict=True)
      if x < self._reader.config.min_unread
    }  # fmt: skip
    user = {m.source: m.user for m in self._messages}
    found = {q: user[s] for s, q in wonders if q not in answered}
    return [QA(question=q, answer=prompts.UNKNOWN.format(user=u)) for q, u in found.items()]
