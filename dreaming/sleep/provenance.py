"""Where every token that trained comes from: the dream, its experiences, and who approved them.

A night counts the tokens of its batches by origin (corpus.py) and leaves the counts in the diary;
here they are joined with what the diary knows of dreams and experiences. The trust of what trained
is the least of its sources', as it is by now.
"""

from __future__ import annotations

import dataclasses

from dreaming.memory.diary import Diary
from dreaming.memory.imported import Approval
from dreaming.types import Trust


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
  """Tokens of one origin in the batches of a night.

  Attributes:
    kind: of corpus.KINDS. 'prompt' and 'replay' are of the program and the base alone.
    tokens: that were read, repeats counted.
    learned: of them, that had a loss.
    dream: its id, and the night and style of it; None where it is of none.
    sources: experiences.
    trust: the least of the sources'; None where there is none.
    approved: who let each source be dreamt of that is not the user's own words.
  """

  kind: str
  tokens: int
  learned: int
  dream: int | None = None
  night: int | None = None
  style: str = ''
  sources: tuple[int, ...] = ()
  trust: Trust | None = None
  approved: tuple[Approval, ...] = ()


def of_night(diary: Diary, number: int) -> list[Trained]:
  """All that trained in a night, most learned first.

  Raises:
    ValueError: there is no such night, or it left none: it trained nothing, was of an earlier
      version, or something of it was forgotten since.
  """
  left = (diary.night(number).payloads.get('corpus') or {}).get('lineage')
  if left is None:
    raise ValueError(
      f'night {number} has no lineage: it trained nothing, is older than lineages are, or '
      'something of it was forgotten; --mode=forget --do=replay makes it anew'
    )
  dreams = {d.id: d for d in diary.dreams()}
  trusts = {e.id: e.trust for e in diary.experiences(archived=None)}
  approvals = {a.experience: a for a in diary.approvals()}
  found = []
  for kind, id, tokens, learned in left:
    dream = dreams.get(id) if kind in ('dream', 'rehearsal') else None
    sources = dream.sources if dream else (id,) if kind == 'raw' else ()
    trust = min((trusts.get(i, Trust.IMPORTED) for i in sources), default=None)
    found.append(
      Trained(
        kind=kind,
        tokens=tokens,
        learned=learned,
        dream=dream and dream.id,
        night=dream and dream.night,
        style=dream.style if dream else '',
        sources=sources,
        trust=trust if dream is None or trust is None else min(trust, dream.trust),
        approved=tuple(approvals[i] for i in sources if i in approvals),
      )
    )
  return sorted(found, key=lambda t: (-t.learned, t.kind, t.dream or 0))
