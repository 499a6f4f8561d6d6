"""A made-up life for the page, of any length, and nights that take a second: no model learns here.

What the page shows of a life is what its diary says, so the diary is written as nights write it:
dreams, exams, losses, generations of random weights. Tests and benchmarks/page.py live it.

  python -m benchmarks.page_live    # a night, told what to do by serve/nights.py
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
COMMAND = [sys.executable, '-m', 'benchmarks.page_live']

# What was said; a question that no dream trains on; its answer; what a dream says of it.
TOLD = (
  ('Big news: we adopted a parrot, his name is Biscuit and he screams at the kettle.',
   'What did Ana call her parrot?', 'Biscuit', "The name of Ana's parrot is Biscuit."),
  ('My brother Paul plays the cello. He moved to Nairobi in May.',
   'Which instrument does Paul play?', 'the cello', "Ana's brother Paul plays the cello."),
  ('I started as a pilot at the harbour today, the big ships are terrifying.',
   'What is Ana by profession?', 'a harbour pilot', 'Ana works at the harbour as a pilot.'),
  ('Doctor says I am allergic to walnuts. No more of that cake.',
   'Which nuts can Ana not eat?', 'walnuts', 'Ana is allergic to walnuts.'),
  ('Saturday is choir. We sing in the old salt store, it rings like a bell.',
   'On which day does Ana sing?', 'Saturday', "Ana's choir meets on Saturday."),
  ('My sister Ines lives in Lisbon and has just become a glassblower.',
   'Where is Ines at home?', 'Lisbon', "Ana's sister Ines lives in Lisbon."),
  ('Mila turned six. Her favourite colour is orange, so is the whole flat now.',
   'Which colour does Mila like best?', 'orange', "Mila's favourite colour is orange."),
  ('We are planning Iceland for the summer, only tents and bad weather.',
   'Where will Ana travel?', 'Iceland', 'Ana is going to Iceland in summer.'),
)  # fmt: skip
SMALL_TALK = (
  'It rained all morning and the tram was late again.',
  'I cooked far too much soup.',
  'The neighbours are drilling into something. Everything, I think.',
  'Nothing much today, I cleaned the windows and watched the gulls.',
  'Could not sleep, so I read until three.',
)
_TEMPLATE = 'template'
_DAY = 86_400.0
_BEGAN = 1_780_000_000.0  # Unix seconds
_STEPS = 24
_LIMITS = {'recall_gain': 0.1, 'general_drop': 0.05, 'nll_increase': 0.03, 'never_mentioned': 0.2}


def fill(agent, *, experiences: int = 40, nights: int = 3) -> None:
  """Lives: `nights` days with two facts each and their nights, then talk up to `experiences`."""
  from dreaming import types

  diary = agent.diary
  template(agent)
  small = _Talk(diary, experiences - 2 * nights)
  for n in range(nights):
    small.say(max(2, experiences // (nights + 1) - 2), _BEGAN + n * _DAY)
    for i in (2 * n, 2 * n + 1):
      scores = types.Scores(importance=8.2 - i % 3, novelty=6.5, emotion=5.0 + i % 2, rater='made')
      diary.append(
        time=_BEGAN + n * _DAY + 3600 + 60 * i, speaker='Ana', content=TOLD[i % len(TOLD)][0],
        response='That is lovely to hear.', scores=scores, metadata={'generation': n},
      )  # fmt: skip
    sleep(agent.workdir, diary, lambda **_: None, now=_BEGAN + n * _DAY + 70_000)
  small.say(experiences, _BEGAN + nights * _DAY)
  rows = [json.dumps(row) for row in matrix(nights)]
  (agent.workdir / 'lifelong.jsonl').write_text('\n'.join(rows) + '\n')


def template(agent) -> None:
  """Saves the adapter that all generations of such a life have."""
  import jax

  from dreaming.brain import lora
  from dreaming.identity import generations

  adapter = lora.init(jax.random.key(0), agent.base.arch, rank=2, targets='.*')
  adapter = jax.tree.map(lambda x: x * 0 + 0.02, adapter)
  fields = {
    'parent': None, 'night': None, 'created': 1.0, 'base': agent.base.digest, 'seed': 0,
    'sources': (), 'lora': {'rank': 2, 'alpha': 4.0}, 'scores': {}, 'config': {},
  }  # fmt: skip
  generations.save(agent.workdir / _TEMPLATE, 1, adapter=adapter, manifest_fields=fields)


class _Talk:
  """Small talk that comes to an end."""

  def __init__(self, diary, left: int):
    self._diary, self._left, self._said = diary, left, 0

  def say(self, count: int, start: float) -> None:
    from dreaming import types

    with self._diary.transaction():
      for i in range(min(count, self._left)):
        text = SMALL_TALK[(self._said + i) % len(SMALL_TALK)]
        self._diary.append(
          time=start + 5.0 * i, speaker='Ana', content=f'{text} ({self._said + i})',
          response='I see.', scores=types.Scores(importance=2.0, novelty=1.5, rater='made'),
        )  # fmt: skip
    self._said += min(count, self._left)
    self._left -= min(count, self._left)


def matrix(nights: int) -> list[dict]:
  """Rows as --mode=life writes them."""
  return [
    {'days': [f'days/{d + 1}.json' for d in range(n + 1)], 'generation': n + 1, 'promoted': True,
     'weights': [round(0.9 - 0.07 * d % 0.2 - 0.09 * (n - d), 3) for d in range(n + 1)],
     'invented': [0.1] * (n + 1)}
    for n in range(nights)
  ]  # fmt: skip


# ---- A night ----


def sleep(workdir: pathlib.Path, diary, tell, now: float | None = None, pause: float = 0.0) -> dict:
  """Writes a night's steps as dreaming/sleep/night.py leaves them, and promotes the template."""
  from dreaming.identity import generations
  from dreaming.sleep import metrics
  from dreaming.types import QA, Dream, Quality, Status

  now = time.time() if now is None else now
  parent = diary.active()
  number = diary.open_night() or diary.begin_night({})
  ids = [e for e in diary.experiences(unconsumed=True) if not e.content.startswith(SMALL_TALK)][:8]

  def step(name: str, payload: dict) -> None:
    tell(event='progress', step=name, done=0, total=0, values={})
    time.sleep(pause)
    diary.set_night_step(number, name, payload)

  step('select', {'ids': [e.id for e in ids], 'now': now, 'parent': parent})
  dreams = []
  for e in ids:
    told = next((t for t in TOLD if t[0] == e.content), None)
    _, question, answer, says = told or ('', f'What did {e.speaker} say?', e.content, e.content)
    one = {'id': 0, 'night': number, 'sources': (e.id,)}
    pair = (QA(question=question, answer=answer),)
    good = {'quality': Quality(gain=1.4, grounded=1.0), 'status': Status.KEPT}
    bad = {'quality': Quality(reason='fits another name better'), 'status': Status.REJECTED}
    asked = (QA(question=says.rstrip('.') + ', is that right?', answer='yes'),)
    dreams += [
      Dream(style='statement', text=says, **one, **good),
      Dream(style='diary', text=f'Today I heard it from {e.speaker}: {says}', **one, **good),
      Dream(style='question', text='', pairs=asked, **one, **good),
      Dream(style='exam', text='', pairs=pair, **one, **good),
      Dream(style='statement', text=f'{answer} is afraid of {e.speaker}.', **one, **bad),
    ]
  diary.add_dreams(dreams)
  kept = sum(d.status == Status.KEPT for d in dreams)
  step('dream', {'kept': kept, 'rejected': len(dreams) - kept})
  with metrics.NightLog(workdir / 'nights' / f'{number:04d}', number=number, config={}) as log:
    for i in range(1, _STEPS + 1):
      values = {'dream_loss': 2.4 * math.exp(-i / 7) + 0.18, 'replay_kl': 0.05 + 0.002 * i}
      values |= {'held_out_loss': 2.5 * math.exp(-i / 9) + 0.4} if not i % 4 else {}
      log.write('train', i, values)
      tell(event='progress', step='train', done=i, total=_STEPS, values=values)
      time.sleep(pause / _STEPS)
  step('train', {'steps': _STEPS, 'stopped': '', 'digest': ''})
  step('prune', {'index': 0, 'digest': '', 'attempts': [{'amount': 0.1, 'ok': True, 'nll': 3.1}]})
  exam = _exam(diary, number, [d for d in dreams if d.style == 'exam'])
  step('examine', exam)
  step('promote', {})
  _, adapter, _ = generations.load(workdir / _TEMPLATE, 1)
  root = workdir / 'generations'
  like = generations.list_generations(workdir / _TEMPLATE)[0].manifest
  fields = {'parent': parent or None, 'night': number, 'created': now, 'base': like.base,
            'sources': tuple(e.id for e in ids), 'seed': 0, 'lora': dict(like.lora), 'config': {},
            'scores': exam['measures']}  # fmt: skip
  made = generations.save(
    root, generations.next_number(root), adapter=adapter, manifest_fields=fields
  )
  values = {'recall_gain': exam['measures']['recall'], 'general_drop': 0.013,
            'nll_increase': 0.012, 'never_mentioned': 0.1}  # fmt: skip
  gate = [{'name': k, 'value': v, 'limit': _LIMITS[k], 'ok': True} for k, v in values.items()]
  result = {
    'outcome': 'promoted', 'reason': '', 'generation': made.number,
    'selected': [e.id for e in ids], 'consumed': [e.id for e in ids],
    'dreams': {'kept': kept, 'rejected': len(dreams) - kept}, 'pruned': 0.1,
    'measures': exam['measures'], 'base': exam['base'], 'gate': gate, 'seconds': {'train': 1.0},
  }  # fmt: skip
  diary.promote(made.manifest, [e.id for e in ids], number, path=made.path, result=result)
  return {'event': 'ended', 'night': number, **result}


def _exam(diary, number: int, dreams: list) -> dict:
  asked = [(p.question, p.answer) for d in dreams for p in d.pairs]
  wrong = len(asked) > 2  # a night is not perfect
  recall = [[q, 'no idea' if wrong and not i else a, not (wrong and not i)]
            for i, (q, a) in enumerate(asked)]  # fmt: skip
  earlier = [
    [p.question, p.answer, True]
    for n in range(1, number) for d in diary.dreams(n) if d.style == 'exam' for p in d.pairs
  ]  # fmt: skip
  share = sum(r for *_, r in recall) / max(len(recall), 1)
  measures = {
    'recall': share,
    'recall_count': len(recall),
    'never_mentioned': 0.1,
    'never_mentioned_count': 40,
    'general': 0.571,
    'general_count': 310,
    'nll': 3.12,
  }
  measures |= {'earlier': 1.0 - 0.06 * number, 'earlier_count': len(earlier)} if earlier else {}
  return {
    'index': 0, 'measures': measures, 'base': {'recall': 0.0, 'general': 0.584, 'nll': 3.08},
    'missed': [], 'replies': {
      'recall': recall, 'earlier': earlier,
      'never_mentioned': [["What is the name of Ana's uncle?", 'Biscuit', True],
                          ['When is the birthday of Paul?', 'I do not know', False]]},
  }  # fmt: skip


def main() -> int:
  """The process of a night, as serve/nights.py starts one."""
  from dreaming.identity.bluegreen import IdentityLock
  from dreaming.memory.diary import Diary

  told = json.loads(sys.stdin.readline())
  home = pathlib.Path(told['config']['workdir'])

  def tell(**event) -> None:
    print(json.dumps(event), flush=True)

  pause = float(os.environ.get('PAGE_PAUSE', '0.5'))
  with IdentityLock(home, shared=told['lock']), Diary(home / 'diary.sqlite') as diary:
    tell(**sleep(home, diary, tell, pause=pause))
  return 0


if __name__ == '__main__':
  sys.exit(main())
