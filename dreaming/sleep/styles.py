"""Further styles of dreams, off by default (`dream.styles`): the base writes, and is checked.

  letter        to an old friend            lessons       what was learned, as a list
  article       in the third person         implications  what follows, one thing after the other
  confidant     a talk with one who asks    story         a dream that turns it into a tale
  multihop      questions through a person: "Where does Ana's sister work?"

All but the last are free generation, which a small base is bad at: every sentence is judged against
its experience (grounding.py), and only what is grounded is kept. `multihop` is filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dreaming.brain import sentences
from dreaming.brain.decode import Decoder, Sampler
from dreaming.sleep import grounding
from dreaming.sleep.bank import fill
from dreaming.sleep.belief import Fact
from dreaming.sleep.reader import Reader
from dreaming.types import QA, Dream, Experience, Mind, Quality, Status

# The beginning of each text; the base goes on.
OPENINGS: Mapping[str, str] = {
  'letter': '{agent} writes a letter to an old friend about {user}.\nDear friend,',
  'lessons': 'What {agent} has learned about {user}:\n1.',
  'article': 'A short article about {user}, in the third person:\n{user}',
  'confidant': 'A friend asks {agent} what is new with {user}. {agent} answers: "{user}',
  'implications': 'What follows from it for {user}, one thing after the other:\n1.',
  'story': '{agent} dreams of it that night, and it becomes a tale:\n{user}',
}
STYLES = (*OPENINGS, 'multihop')

_TOKENS = 64
_LEAST = 0.62  # grounding.THRESHOLD, where `dream.grounded` asks for less
_LISTED = '0123456789.-) '


def check(names: Sequence[str]) -> None:
  """Raises ValueError where a style is unknown."""
  for name in names:
    if name not in STYLES:
      raise ValueError(f'dream.styles has {name!r}: there are {", ".join(STYLES)}')


def written(
  decoder: Decoder,
  base: Mind,
  experiences: Sequence[Experience],
  *,
  names: Sequence[str],
  user: str,
  agent: str,
  clause: str,
  grounded: float,
  night: int,
  seed: int,
  reader: Reader | None = None,
) -> list[Dream]:
  """One text of each style about each experience; what is not grounded is rejected.

  Args:
    names: of OPENINGS; others are passed over.
    clause: what the texts are to keep to, as the user has it; first in the prompt.
    grounded: probability from which a sentence is kept.
    seed: of the sampling.
    reader: judges them, where somebody was at school.
  """
  asked = [(e, n) for e in experiences for n in names if n in OPENINGS]
  if not asked:
    return []
  prompts = []
  for e, name in asked:
    who = e.speaker or user
    opening = OPENINGS[name].format(agent=agent, user=who)
    prompts.append(f'{clause}\n\n'.lstrip() + f'{who} says: "{e.content}"\n\n{opening}')
  sampler = Sampler(temperature=0.7, top_p=0.95, seed=seed % 2**31)
  texts = decoder.generate(base, prompts, max_tokens=_TOKENS, sampler=sampler, stop=('\n\n',))
  out: list[Dream] = []
  for (e, name), text in zip(asked, texts, strict=True):
    lead = (e.speaker or user) if OPENINGS[name].endswith('{user}') else ''
    for said in sentences.split(lead + text):
      said = said.strip('"').lstrip(_LISTED) if name != 'article' else said
      if said.endswith(('.', '!', '?')):  # the last one may be cut off
        quality = Quality(grounded=1.0)
        out.append(
          Dream(id=0, night=night, style=name, text=said, sources=(e.id,), quality=quality)
        )
  told = {e.id: e for e in experiences}
  judged = grounding.sifted(decoder, base, out, told, max(grounded, _LEAST), reader)
  return _joined(judged)


def _joined(judged: Sequence[Dream]) -> list[Dream]:
  """The sentences of one text that were kept as one dream, those that were not as another."""
  texts: dict[tuple, list[Dream]] = {}
  for d in judged:
    texts.setdefault((d.style, d.sources, d.status), []).append(d)
  out = []
  for (style, sources, status), own in texts.items():
    text = ' '.join(dict.fromkeys(d.text for d in own))
    first = own[0]
    out.append(
      Dream(
        id=0, night=first.night, style=style, text=text, sources=sources, quality=first.quality,
        status=Status(status),
      )
    )  # fmt: skip
  return out


def hops(
  kept: Sequence[tuple[Fact, list[str], list[str]]],
  aliases: Mapping[str, Sequence[str]],
  night: int,
) -> list[Dream]:
  """Questions about people by whose they are, answered with what was told of them by name.

  Args:
    kept: facts, with the questions that they passed and those that are held out.
    aliases: values.aliases: name -> "Ana's sister".
  """
  out = []
  for fact, _, held in kept:
    pairs = [
      QA(question=fill(q, user=fact.user, person=who, value=fact.value), answer=fact.value)
      for who in aliases.get(fact.person, ())[:2]
      for q in fact.relation.questions[:3]
      if fact.fill(q) not in held
    ]
    if fact.person and pairs:
      quality = Quality(gain=fact.gain, grounded=1.0)
      out.append(
        Dream(
          id=0, night=night, style='multihop', text='', pairs=tuple(dict.fromkeys(pairs)),
          sources=(fact.source,), quality=quality,
        )
      )  # fmt: skip
  return out
