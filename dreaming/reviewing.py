"""A night that waits until somebody has looked at what it dreamt, or at what it learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dreaming.behind import Behind
from dreaming.types import QA, Dream, Status

if TYPE_CHECKING:  # a second of imports that talking does not need
  from dreaming.sleep.review import Waiting


class Reviewing(Behind):
  """An identity whose nights can be reviewed: see sleep/review.py and `config.review`."""

  def waiting(self) -> Waiting | None:
    """The night that stopped for its review, and where."""
    from dreaming.sleep import review

    return review.waiting(self.diary)

  def review(
    self,
    id: int,
    decision: str,
    *,
    alike: bool = True,
    text: str | None = None,
    pairs: Iterable[QA] | None = None,
    answer: str | None = None,
  ) -> list[Dream]:
    """Decides on a dream of the night that waits; returns all that changed, as they are now.

    Args:
      decision: 'approve', 'reject' or 'edit'. What is edited is kept.
      alike: also on the other wordings of its fact, unless it is edited by text or pairs.
      text: in the place of the dream's.
      pairs: in the place of the dream's.
      answer: in the place of the fact's, in all its wordings.

    Raises:
      ValueError: no dreams wait, or this one is none of them, or the decision is none.
    """
    from dreaming.sleep import review

    rewritten = text is not None or pairs is not None
    if decision not in ('approve', 'reject', 'edit'):
      raise ValueError(f'{decision!r} is no decision: approve, reject or edit')
    if (decision == 'edit') != (rewritten or answer is not None) or (rewritten and answer):
      raise ValueError('give text and pairs, or answer, to edit; nothing to approve or reject')
    if answer is not None:
      return review.correct(self.diary, id, answer)
    ids = review.alike(self.diary, id) if alike and not rewritten else [id]
    fields = {'text': text, 'pairs': pairs}
    return review.decide(self.diary, ids, keep=decision != 'reject', **fields)

  def let_on(self, by: str = '') -> Waiting:
    """Lets the night that waits go on: the next `sleep` does. Raises ValueError: none waits."""
    from dreaming.sleep import review

    return review.go_on(self.diary, by or self.life.user)

  def refuse(self, by: str = '') -> Waiting:
    """Ends the night that waits; nothing of it is learned. Raises ValueError: none waits."""
    from dreaming.sleep import review

    return review.refuse(self.diary, by or self.life.user)


USAGE = 'review takes: on; refuse; approve IDS; reject IDS; answer ID WORDS; nothing for a list'


def command(agent: Reviewing, text: str) -> Iterator[str]:
  """What a person types of a review, for the chat and --mode=review; yields what to show.

  Raises:
    ValueError: it is no such command, or nothing waits.
  """
  word, _, rest = text.strip().partition(' ')
  if not word:
    yield from _listed(agent)
  elif word in ('on', 'refuse') and not rest:
    now = agent.let_on() if word == 'on' else agent.refuse()
    yield f'night {now.night} ' + ('goes on: sleep again' if word == 'on' else 'is over: refused')
  elif word in ('approve', 'reject'):
    for id in _ids(rest):
      yield _changed(agent.review(id, word))
  elif word == 'answer':
    id, _, answer = rest.strip().partition(' ')
    yield _changed(agent.review(_ids(id)[0], 'edit', answer=answer.strip()))
  else:
    raise ValueError(f'{USAGE}; this was {text[:60]!r}')


def _listed(agent: Reviewing) -> Iterator[str]:
  from dreaming.sleep import review

  now = agent.waiting()
  if now is None:
    yield 'nothing waits for a review'
    return
  night = agent.diary.night(now.night)
  if now.point == 'generations':
    exam = night.payloads['examine']
    for name, value in exam['measures'].items():
      shown, base = ('-' if v is None else f'{v:.3g}' for v in (value, exam['base'].get(name)))
      yield f'{name:<16} {shown:>8}   base {base:>8}'
    for question, reply, right in exam['replies'].get('recall', ()):
      yield f'{"right" if right else "wrong"}  {question} {reply.strip()}'
  else:
    facts: dict[tuple, list[Dream]] = {}
    for d in agent.diary.dreams(now.night):
      facts.setdefault((*review.key(d), d.status), []).append(d)
    for dreams in facts.values():
      first = dreams[0]
      told = first.text or ' '.join(f'{p.question} {p.answer}' for p in first.pairs[:1])
      more = f' (and {len(dreams) - 1} more wordings)' if len(dreams) > 1 else ''
      why = '' if first.status == Status.KEPT else f'  (rejected: {first.quality.reason})'
      of = ','.join(map(str, first.sources))
      yield f'{first.id:>5}  of {of:<8} {" ".join(told.split())[:120]}{more}{why}'
  yield f'night {now.night} waits. {USAGE}'


def _ids(text: str) -> list[int]:
  try:
    return [int(i) for i in text.split(',')]
  except ValueError:
    raise ValueError(f'{text[:60]!r} are no ids: {USAGE}') from None


def _changed(dreams: list[Dream]) -> str:
  told = dreams[0].text or ' '.join(f'{p.question} {p.answer}' for p in dreams[0].pairs[:1])
  kept = dreams[0].status == Status.KEPT
  return f'{"kept" if kept else "rejected"}: {" ".join(told.split())[:120]} ({len(dreams)} dreams)'
