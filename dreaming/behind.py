"""From what the weights replied back to the dreams and experiences that taught it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dreaming.brain import prompts
from dreaming.identity import generations
from dreaming.recollection import Recollection
from dreaming.types import QA

if TYPE_CHECKING:  # a second of imports that talking does not need
  from dreaming.sleep.origins import Origin
  from dreaming.sleep.provenance import Trained


class Behind(Recollection):
  """An identity that can tell where its weights have something from."""

  def lineage(self, night: int | None = None) -> list[Trained]:
    """Where every token that trained in a night comes from, by default the last of who serves.

    Raises:
      ValueError: see provenance.of_night; or the base serves, which has no night.
    """
    from dreaming.sleep import lineage, provenance

    if night is None:
      nights = lineage.nights(self.diary)
      if not nights:
        raise ValueError('the base serves: no night has trained it; name a night')
      night = nights[-1]
    return provenance.of_night(self.diary, night)

  def origins(self, question: str, reply: str, *, user: str | None = None) -> list[Origin]:
    """The dreams that an answer of the serving weights comes from, most alike first.

    It takes the gradients of some examples: 19 s at first on two busy cores, 6 to 9 s then. Empty
    for the base, which has learned nothing here.

    Args:
      question: as it was asked.
      reply: what was answered, without the notes' help.
      user: who asked, by default `life.user`.

    Raises:
      ValueError: the generation that serves is damaged.
    """
    from dreaming.sleep import lineage, origins

    number = self.diary.active()
    if not number:
      return []
    generation, adapter, _ = generations.load(self.workdir / 'generations', number)
    kind = generation.manifest.lora.get('consolidation', 'continual')
    asked = prompts.third_person(question, user or self.life.user)
    return origins.origins(
      QA(question=asked, answer=reply.strip().split('\n')[0]),
      [d for n in lineage.nights(self.diary) for d in lineage.told(self.diary, n)],
      params=self.identity.ground(generation.parent or 0, kind),
      arch=self.base.arch,
      adapter=adapter,
      tokenizer=self.base.tokenizer,
      embedder=self.embedder,
      config=self.night_config.train,
    )
