"""What is forgotten is in no file of an identity, and the receipt says what became of it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from configs import tiny
from dreaming import configuration, transfer
from dreaming.agent import Agent
from dreaming.identity import forget
from dreaming.memory.diary import Diary
from dreaming.sleep.night import NightConfig
from dreaming.sleep.outcome import plain
from dreaming.sleep.review import ReviewConfig
from dreaming.types import QA, Dream, Experience, Manifest, Media

BEA = 'My friend Bea Novak plays the oboe in Ghent.'
CELLO = 'I practise the cello every single evening.'


@pytest.fixture
def agent(tmp_path):
  c = tiny.get_config()
  c.workdir, c.cache = str(tmp_path / 'life'), str(tmp_path / 'cache')
  with Agent(c) as a:
    yield a


def manifest(number, sources, night, parent=None):
  return Manifest(
    number=number, parent=parent, night=night, created=0.0, base='', sources=sources, seed=0,
    files={}, lora={}, scores={}, config={},
  )  # fmt: skip


def slept(diary, ids, dreams, number=1, parent=None, examined=()):
  """A night that dreamt of something and was promoted."""
  night = diary.begin_night({})
  diary.set_night_step(night, 'select', {'ids': ids, 'now': 5.0, 'last': max(ids), 'parent': 0})
  fields = {'id': 0, 'night': night}
  diary.add_dreams(
    [Dream(style=s, text=t, pairs=p, sources=of, **fields) for s, t, p, of in dreams]
  )
  diary.set_night_step(night, 'examine', {'replies': {'earlier': list(examined)}})
  diary.promote(manifest(number, tuple(ids), night, parent), ids, night)


def everything(agent):
  agent.diary._run('PRAGMA wal_checkpoint(TRUNCATE)')
  return b''.join(p.read_bytes() for p in agent.workdir.rglob('*') if p.is_file())


def test_every_trace_goes_and_the_receipt_says_so(agent):
  digest = agent.media.put(b'a picture')
  seen = Media(kind='image', digest=digest, description='Bea Novak with her oboe')
  bea = agent.observe(BEA, 'Bea Novak sounds lovely.', now=1.0, media=(seen,))
  other = agent.observe(CELLO, now=2.0)
  question = QA(question='Where does Bea Novak play?', answer='Ghent')
  slept(
    agent.diary, [bea.id, other.id],
    [
      ('statement', 'Bea plays in Ghent.', (question,), (bea.id,)),
      ('exam', '', (QA(question='Who is in Ghent?', answer='Bea Novak'),), (bea.id,)),
      ('correction', 'It is no longer Bea Novak.', (), (other.id,)),
      ('unknown', '', (QA(question="Who is Bea Novak's aunt?", answer='?'),), (other.id,)),
      ('statement', 'The cello is practised.', (), (other.id,)),
    ],
  )  # fmt: skip
  third = agent.observe('The cat is called Momo and sleeps.', now=3.0)
  asked = ['Who is in Ghent?', 'Bea Novak', True], ['What is practised?', 'the cello', True]
  slept(agent.diary, [third.id], [('list', 'Momo.', (), (third.id,))], 2, 1, asked)
  history = agent.workdir / 'history'
  history.write_text(f'\n# 2026-01-01\n+{BEA}\n\n# 2026-01-01\n+{CELLO}\n\n# x\n+/remember {BEA}\n')
  agent._turns['Priya'] = []
  assert b'Novak' in everything(agent)
  assert agent.forget([bea.id, 99]) == 1
  assert b'Novak' not in everything(agent) and b'Ghent' not in everything(agent)
  assert CELLO in history.read_text()
  r = agent.receipt
  removed = {k: n for k, n in r.removed.items() if n}
  assert removed == {
    'experiences': 1, 'embeddings': 1, 'full-text entries': 1, 'media entries': 1, 'dreams': 4,
    'steps of nights': 1, 'lines of the history': 2, 'conversations at hand': 1, 'media files': 1,
  }  # fmt: skip
  assert r.ids == (bea.id,) and r.generations == (1, 2) and r.files == () and not r.complete
  assert [d.text for d in agent.diary.dreams()] == ['The cello is practised.', 'Momo.']
  assert agent.diary.night(2).payloads['examine']['replies'] == {'earlier': [list(asked[1])]}
  select = agent.diary.night(1).payloads['select']  # what a replay has to know
  assert select['ids'] == [other.id] and select['now'] == 5.0
  kept = (agent.workdir / 'forgotten' / '0001.json').read_text()
  assert json.loads(kept) == json.loads(json.dumps(r.plain())) and 'Bea' not in kept
  assert any('--do=replay' in line for line in r.lines())


def test_copies_that_hold_it_are_named(agent):
  bea = agent.observe(BEA, now=1.0)
  (agent.workdir / 'result.json').write_text(json.dumps({'text': BEA}))
  with Diary(agent.workdir / 'diary.sqlite.v1') as old:
    old.append(time=1.0, speaker='Priya', content=BEA)
  (agent.workdir / 'notes.txt').write_text('nothing of it')
  agent.forget([bea.id])
  assert agent.receipt.files == ('diary.sqlite.v1', 'result.json')
  assert not agent.receipt.complete


def test_words_across_the_pieces_of_a_large_file_are_found(tmp_path):
  (tmp_path / 'log').write_bytes(b'x' * 95 + BEA.encode() + b'y' * 500)
  assert forget._holds(tmp_path / 'log', {BEA.encode()}, size=100)
  assert not forget._holds(tmp_path / 'log', {b'another text'}, size=100)


def test_a_person_is_found_by_name_and_in_what_leans_on_it(agent):
  said = (
    BEA, 'She is afraid of geese, imagine.', 'It rains.', 'The beaches are empty.',
    'I saw BEA NOVAK again.', 'We had tea.',
  )  # fmt: skip
  for i, text in enumerate(said):
    agent.observe(text, now=float(i))
  agent.observe('Hello, I am here.', user='Bea Novak', now=9.0)
  assert [e.content for e in agent.about('bea  novak')] == [
    BEA, 'She is afraid of geese, imagine.', 'I saw BEA NOVAK again.', 'Hello, I am here.',
  ]  # fmt: skip
  assert len(agent.about('Bea')) == 4 and agent.about('Be') == []
  with pytest.raises(ValueError, match='--person is empty'):
    agent.about(' ')


def test_the_configuration_of_a_night_comes_back_from_the_diary(agent):
  config = agent.night_config
  assert isinstance(config, NightConfig)
  kept = json.loads(json.dumps(plain(dataclasses.asdict(config))))
  assert configuration.night_of(kept) == config
  with pytest.raises(ValueError, match='night.dream.novel=1 is no field'):
    configuration.night_of(kept | {'dream': kept['dream'] | {'novel': 1}})


@pytest.mark.parametrize(
  ('flags', 'match'),
  [
    ({}, 'needs --ids=1,2 or --person=NAME'),
    ({'ids': '1', 'person': 'Bea'}, 'needs --ids=1,2 or --person=NAME'),
    ({'ids': '1', 'do': 'archive'}, 'take diary or replay'),
  ],
)
def test_what_to_forget_is_said_once(flags, match):
  with pytest.raises(ValueError, match=match):
    transfer.check('forget', flags)
  transfer.check('forget', {'do': 'replay'})  # goes on with one that was interrupted


def test_forgetting_is_listed_before_it_is_done(agent, capsys):
  from rich.console import Console

  bea = agent.observe(BEA, now=1.0)
  agent.observe(CELLO, now=2.0)
  console = Console(width=200)
  assert transfer.run(agent, 'forget', {'person': 'Bea'}, console) == 0
  assert BEA in capsys.readouterr().out and len(agent.diary.experiences()) == 2
  assert transfer.run(agent, 'forget', {'ids': str(bea.id), 'do': 'diary'}, console) == 0
  assert '1  experiences removed' in capsys.readouterr().out
  assert [e.content for e in agent.diary.experiences()] == [CELLO]


def test_history_without_it_is_left_as_it_is(tmp_path):
  path = tmp_path / 'history'
  e = Experience(id=1, time=0.0, kind='chat', speaker='A', content='Hi')
  assert forget.strike_history(path, [e]) == 0
  path.write_text('\n# x\n+High up\n')
  assert forget.strike_history(path, [e]) == 0 and path.read_text() == '\n# x\n+High up\n'


def test_what_a_person_decided_is_not_lived_again(agent):
  bea = agent.observe(BEA, now=1.0)
  config = dataclasses.replace(agent.night_config, review=ReviewConfig(dreams=True))
  number = agent.diary.begin_night(plain(dataclasses.asdict(config)))
  agent.diary.set_night_step(number, 'select', {'ids': [bea.id], 'now': 5.0, 'last': bea.id})
  agent.diary.end_night(number, 'rejected')
  with pytest.raises(ValueError, match=f'night {number} was judged by a person'):
    agent.replay([bea.id])
  assert bea.id in agent.diary.ids()
