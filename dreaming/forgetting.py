"""What an agent forgets: an experience or a person, from the diary, the files, and the weights."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dreaming import configuration, mishaps
from dreaming.brain import chat
from dreaming.identity import forget as forget_lib
from dreaming.identity.forget import Receipt
from dreaming.memory import addressed, private, reading, redact
from dreaming.memory.archive import SUMMARY
from dreaming.memory.embed import experience_text
from dreaming.trimming import Trimming
from dreaming.types import Experience

if TYPE_CHECKING:  # a second of imports that talking does not need
  from dreaming.identity.relive import Plan, Sleeper

_HISTORY = 'history'  # of the terminal, in the identity's directory


class Forgetting(Trimming):
  """An identity that can forget, and prove it: see identity/forget.py and identity/relive.py."""

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self._turns: dict[str, list[chat.Turn]] = {}
    self._why: Any = None
    self.receipt: Receipt | None = None
    """Of what was forgotten last."""

  def about(self, person: str) -> list[Experience]:
    """All that was said by a person or of them, archived or not, in order of time.

    By name, as a whole word, in what was said, answered and shown; and what leans on the turn
    before ('He is called...'). Who is spoken of in other words alone is not found.

    Raises:
      ValueError: no name is given.
    """
    if not (name := ' '.join(person.split())):
      raise ValueError('--person is empty: give a name')
    named = re.compile(rf'(?<!\w){re.escape(name)}(?!\w)', re.IGNORECASE)
    found, last = [], {}
    for e in self.diary.experiences(archived=None):
      texts = (e.speaker, experience_text(e), e.response)
      of_them = any(named.search(text) for text in texts)
      leans = last.get(e.session, False) and reading.leans(e.content)
      if e.kind != SUMMARY:
        last[e.session] = of_them or leans
        found += [e] if of_them or leans else []
    return found

  def forget(self, ids: Iterable[int]) -> int:
    """Deletes experiences with all that was derived from them; returns how many they were.

    `receipt` then tells what was removed and what still holds it: what nights have learned of them
    is in the generations until `replay`.

    Raises:
      ValueError: a night is running, or a replay is not over.
    """
    self.check_replay()
    return self._forget(ids).removed['experiences']

  def check_replay(self) -> None:
    """Raises ValueError while a replay is not over: what came meanwhile would go with the old."""
    if forget_lib.replaying(self.workdir):
      raise ValueError('a replay is not over: finish it first with --mode=forget --do=replay')

  def secrets(self, contacts: bool = False) -> dict[int, dict[str, int]]:
    """Id -> kind of secret that the experience tells -> how often; see redact.found."""
    return redact.found(self.diary.experiences(archived=None), contacts)

  @mishaps.clearly('striking out stopped, and the diary is whole', 'try again')
  def redact(self, contacts: bool = False) -> Receipt:
    """Strikes secrets out of the diary and all that was made of it; the experiences stay.

    No night has read them. Addresses and telephone numbers are read where
    `sleep.select.strike_contacts` is off: the receipt names the generations that may know them.

    Args:
      contacts: addresses and telephone numbers, too.

    Raises:
      ValueError: a night is running, or a replay is not over.
    """
    self.check_replay()
    lived = self.diary.experiences(archived=None)
    secrets = private.Secrets.of(lived, contacts)
    pairs = [(e, redact.struck(e, secrets)) for e in lived]
    changed = [e for e, new in pairs if new != e]
    if (number := self.diary.open_night()) is not None:
      raise ValueError(f'night {number} is not over: let it end before striking anything out')
    # The history first: done again, nothing of the diary would tell what is to go from it.
    lines = forget_lib.strike_history(self.workdir / _HISTORY, changed)
    _, dreams = self.diary.rewrite((new for e, new in pairs if new != e), secrets)
    removed = {
      'texts with secrets': len(changed), 'dreams with secrets': dreams,
      'lines of the history': lines,
    }  # fmt: skip
    ids = tuple(e.id for e in changed)
    cleared, clean, files = self._clear(changed, {t.value for t in private.told(lived)})
    self.receipt = Receipt(
      ids=ids,
      removed=removed | cleared,
      generations=self._read_contacts(ids) if contacts else (),
      files=files,
      clean=clean,
      time=time.time(),
    )
    if changed:
      forget_lib.write(self.workdir, self.receipt)
    return self.receipt

  def _read_contacts(self, ids: tuple[int, ...]) -> tuple[int, ...]:
    """Generations that learned of these while nights read addresses and telephone numbers."""
    struck = [n.config.get('select', {}).get('strike_contacts') for n in self.diary.nights()]
    return () if struck and all(struck) else forget_lib.learned(self.diary, ids)

  @mishaps.clearly('forgetting stopped, and the diary is whole', 'forget again')
  def _forget(self, ids: Iterable[int]) -> Receipt:
    gone = self.diary.experiences(ids=ids)
    chosen = tuple(e.id for e in gone)
    before = self.diary.traces(chosen)
    count = self.diary.forget(chosen)
    after = self.diary.traces(chosen)
    removed = {what: n - after[what] for what, n in before.items()}
    removed['experiences'] = count
    files = {m.digest for e in gone for m in e.media} - self.diary.digests()
    for digest in files:
      self.media.remove(digest)
    removed['media files'] = len(files)
    removed['lines of the history'] = forget_lib.strike_history(self.workdir / _HISTORY, gone)
    removed['conversations at hand'] = len(self._turns)
    cleared, clean, files = self._clear(gone)
    self.receipt = Receipt(
      ids=chosen,
      removed=removed | cleared,
      generations=forget_lib.learned(self.diary, chosen),
      files=files,
      clean=clean,
      time=time.time(),
    )
    if count:
      forget_lib.write(self.workdir, self.receipt)
    return self.receipt

  def _clear(
    self, gone: Sequence[Experience], values: Collection[str] = ()
  ) -> tuple[dict[str, int], dict[str, int], tuple[str, ...]]:
    """Lets go of what is made again when it is needed, in files and in memory.

    Returns:
      What -> how many files went; `clean` and `files` of a receipt: all is looked at once more.
    """
    from dreaming.sleep import metrics

    before = forget_lib.made_again(self.workdir)
    self.renew_indexes()
    with contextlib.suppress(OSError, ValueError):  # of a night that the diary does not know
      metrics.close_over(self.workdir / 'nights', self.diary)
    after = forget_lib.made_again(self.workdir, remove=True)
    of_cache, clean, stuck = forget_lib.clear_cache(self.cache, gone, values)
    removed = {what: len({*some} - {*after[what]}) for what, some in before.items()}
    removed['files of the cache'] = of_cache
    left = (str(p.relative_to(self.workdir)) for some in after.values() for p in some)
    copies = forget_lib.copies(self.workdir, gone, values)
    addressed.find.cache_clear()
    loaded = self.__dict__
    if (eyes := loaded.get('eyes')) is not None:
      eyes.forget()
    if (decoder := loaded.get('decoder')) is not None:  # keys and values of what it has read
      for mind in (self.base_mind, *([loaded['identity'].blue] if 'identity' in loaded else [])):
        decoder.forget(mind)
    self._turns.clear()
    self._why = None
    return removed, clean, tuple(sorted({*copies, *left})) + stuck

  def replay(
    self, ids: Iterable[int] = (), progress: Callable[[int, int], None] | None = None
  ) -> Receipt:
    """Forgets experiences, and lives the nights that knew them again without; see relive.py.

    It takes as long as these nights did. Interrupted, it goes on when it is called again, without
    ids. The old weights serve until it is over.

    Raises:
      ValueError: a night is running; another replay is not over; there is nothing to forget; a
        night was made with a configuration that this version does not know. Nothing changes then.
    """
    from dreaming.identity import relive

    ids = tuple(ids)
    plan = relive.kept(self.workdir)
    if plan is not None and ids:
      raise ValueError(f'a replay without {list(plan.ids)[:20]} is not over: finish it first')
    if plan is None:
      if not self.diary.experiences(ids=ids) and not forget_lib.learned(self.diary, ids):
        raise ValueError(f'the diary has none of {list(ids)[:20]}: there is nothing to forget')
      if (number := self.diary.open_night()) is not None:
        raise ValueError(f'night {number} is not over: let it end before forgetting')
      plan = relive.plan(self.diary, ids)
      for n in plan.nights:
        config = configuration.night_of(n.config)
        if n.number >= plan.first and n.lived and config.judged:
          raise ValueError(
            f'night {n.number} was judged by a person or a supervisor, and what they decide cannot '
            'be lived again: roll back behind it, and forget with --do=diary'
          )
      relive.finish(self.workdir)  # a twin that lost its plan is none of this one
      relive.keep(self.workdir, plan)
    if not plan.receipt:  # killed in between: what is gone already is not counted twice
      receipt = self._forget(plan.ids)
      plan = dataclasses.replace(plan, receipt=dataclasses.asdict(receipt))
      relive.keep(self.workdir, plan)
    again = [n for n in plan.nights if n.number >= plan.first]
    gone = self._relive(plan, progress) if again else ()
    left = forget_lib.learned(self.diary, plan.ids)
    done = {**plan.receipt['removed'], 'generations': len(gone)}
    fields = plan.receipt | {'removed': done, 'generations': left, 'time': time.time()}
    fields |= {n: tuple(fields[n]) for n in ('ids', 'files')}
    replayed = tuple(n.number for n in again if n.lived)
    self.receipt = Receipt(**fields | {'replayed': replayed})
    forget_lib.write(self.workdir, self.receipt)
    relive.finish(self.workdir)
    return self.receipt

  def _relive(self, plan: Plan, progress: Callable[[int, int], None] | None) -> tuple[int, ...]:
    from dreaming.identity import relive

    twin = relive.relive(self.workdir, self.diary, plan, self._sleeper(), progress)
    try:
      gone = relive.adopt(self.workdir, self.diary, twin, plan)
    finally:
      twin.close()
    if (identity := self.__dict__.pop('identity', None)) is not None and identity.blue.generation:
      self.decoder.forget(identity.blue)
    self.renew_indexes()
    return gone

  def _sleeper(self) -> Sleeper:
    from dreaming.identity import relive
    from dreaming.memory import corroborate, index, rating
    from dreaming.sleep import night

    def ready(diary, config) -> None:
      if config.select.corroborated:
        diary.corroborate(corroborate.witnesses(diary.experiences(), self.life.agent))
      if diary.experiences(limit=1):
        made = index.build(diary, self.embedder)
        rating.rate(diary, made, self.decoder, self.base_mind, **self.rated_by(config))

    def sleep(diary, identity, path, config, now) -> None:
      before = identity.blue
      night.run(
        base=self.base, decoder=self.decoder, diary=diary, identity=identity, workdir=path,
        cache=self.cache, config=config, embedder=self.embedder, now=now,
      )  # fmt: skip
      if identity.blue is not before and before.generation:
        self.decoder.forget(before)

    return relive.Sleeper(
      base=self.base,
      embedder=self.embedder.name,
      ready=ready,
      sleep=sleep,
      config=configuration.night_of,
    )

  def rated_by(self, config: Any) -> dict[str, Any]:
    """How experiences are rated for a night of this configuration."""
    return {
      'model': f'{self._model.architecture}-{self.base.digest[:8]}',
      'emotional': self._weights.emotion > 0,
      'instruct': self._model.instruct,
      'contacts': config.select.strike_contacts,
      'least': config.select.least,
    }
