"""What is struck out of the diary is in no file of it, and everything else is as it was."""

from __future__ import annotations

import dataclasses
import io

import apsw
import pytest
from rich.console import Console

from configs import tiny
from dreaming import transfer
from dreaming.agent import Agent
from dreaming.memory import redact
from dreaming.memory.diary import Diary
from dreaming.memory.private import Secrets
from dreaming.types import QA, Dream, Media
from tests.forgetting_test import everything, manifest

PIN = 'The PIN of my card is 49213.'
LATER = 'Was it 49213 or 49231 that I typed?'
CARD = 'You can pay with 4111 1111 1111 1111 if you like.'
CALL = 'Ring me at +44 20 7946 0958 or write to ana@example.org.'
PLAIN = 'My parrot is called Biscuit.'


@pytest.fixture
def agent(tmp_path):
  c = tiny.get_config()
  c.workdir, c.cache = str(tmp_path / 'life'), str(tmp_path / 'cache')
  with Agent(c) as a:
    yield a


def tell(agent):
  seen = Media(kind='image', digest=agent.media.put(b'a note'), description='password: Tulip-77')
  return [
    agent.observe(PIN, 'I keep 49213 to myself.', now=1.0),
    agent.observe(LATER, now=2.0),
    agent.observe(CARD, now=3.0),
    agent.observe(CALL, now=4.0),
    agent.observe(PLAIN, 'Hello Biscuit!', now=5.0),
    agent.observe('A note.', now=6.0, media=(seen,), metadata={'lines': [['is Tulip-77', 1]]}),
  ]  # fmt: skip


def test_secrets_are_in_no_file_any_more_and_the_rest_is_as_it_was(agent):
  told = tell(agent)
  agent.rate()
  receipt = agent.redact()
  left = everything(agent)
  for secret in (b'49213', b'4111 1111', b'Tulip-77'):
    assert secret not in left
  assert b'+44 20 7946' in left and b'ana@example.org' in left
  now = {e.id: e for e in agent.diary.experiences()}
  assert now[1].content == 'The PIN of my card is ***.' and '***' in now[1].response
  assert now[2].content == 'Was it *** or 49231 that I typed?'
  assert now[5] == dataclasses.replace(told[4], scores=now[5].scores)
  assert [(e.id, e.time, e.speaker, e.session, e.trust) for e in now.values()] == [
    (e.id, e.time, e.speaker, e.session, e.trust) for e in told
  ]
  assert now[1].scores and now[6].media[0].digest == told[5].media[0].digest
  assert receipt.ids == (1, 2, 3, 6) and receipt.complete and receipt.generations == ()
  assert receipt.removed['texts with secrets'] == 4
  assert agent.redact().removed.get('texts with secrets', 0) == 0  # there is nothing left


def test_contacts_go_when_they_are_meant(agent):
  tell(agent)
  found = {1: {'password': 1}, 2: {'told elsewhere': 1}, 3: {'card': 1}, 6: {'password': 1}}
  assert agent.secrets() == found
  assert agent.secrets(contacts=True)[4] == {'phone': 1, 'mail': 1}
  agent.redact(contacts=True)
  left = everything(agent)
  assert b'7946' not in left and b'ana@example.org' not in left
  assert agent.secrets(contacts=True) == {}


def test_words_vectors_and_recall_follow(agent):
  tell(agent)
  before = agent.index.vector(1).copy()
  agent.redact()
  assert agent.diary.by_words('49213', 5) == {} and 1 in agent.diary.by_words('card', 5)
  assert (agent.index.vector(1) != before).any() and len(agent.index) == 6
  assert agent.memories('my card')[0].id in (1, 3)
  path = agent.diary.path
  agent.close()
  with Diary(path) as diary:  # its digests are checked
    assert len(diary.experiences()) == 6


def test_dreams_are_struck_too_and_generations_named_that_read_numbers(agent):
  tell(agent)
  night = agent.diary.begin_night({})
  agent.diary.set_night_step(night, 'select', {'ids': [1, 4], 'now': 9.0, 'last': 4, 'parent': 0})
  pairs = (QA(question='What is the PIN?', answer='49213'),)
  dream = Dream(id=0, night=night, style='', text='It is 49213.', pairs=pairs, sources=(1,))
  agent.diary.add_dreams([dream])
  with pytest.raises(ValueError, match=f'night {night} is not over'):
    agent.redact()
  made = manifest(1, (1, 4), night)
  agent.diary.promote(made, [1, 4], night)
  assert agent.redact().generations == ()
  (dream,) = agent.dreams()
  assert (dream.text, dream.pairs[0].answer) == ('It is ***.', '***')
  assert agent.redact(contacts=True).generations == (1,)


def test_names_that_look_like_keys_stay(agent):
  ids = {
    'response_id': 'chatcmpl-9f8a7b6c5d4e3f2a1b0c9d8e',
    'client': {'session': 'x7Kq9ZpL2mWv8RtY4'},
  }
  agent.observe(PLAIN, 'Hello Biscuit!', now=1.0, metadata=ids)
  agent.observe(PIN, now=2.0)
  vector = agent.index.vector(1).copy()
  assert agent.redact().ids == (2,)
  assert agent.diary.experience(1).metadata == ids
  assert (agent.index.vector(1) == vector).all() and 1 in agent.diary.embeddings(
    agent.embedder.name
  )[0]


def test_what_was_killed_half_way_is_done_again(agent, monkeypatch):
  tell(agent)
  night = agent.diary.begin_night({})
  pairs = (QA(question='What is the PIN?', answer='49213'),)
  dream = Dream(id=0, night=night, style='', text='It is 49213.', pairs=pairs, sources=(1,))
  agent.diary.add_dreams([dream])
  agent.diary.set_night_step(night, 'examine', {'replies': {'recall': [['PIN?', '49213', True]]}})
  agent.diary.end_night(night, 'failed', {})
  with monkeypatch.context() as m:
    m.setattr(Diary, '_rewrite_dreams', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      agent.redact()
  assert b'49213' in everything(agent)
  agent.redact()
  assert b'49213' not in everything(agent)


def test_the_list_has_what_would_go(agent):
  agent.observe('What is your PIN?', now=1.0, session='s')
  agent.observe('It is 49213.', now=2.0, session='s')
  agent.observe('I typed 49213 again.', now=3.0)
  agent.observe('The door code was ***.', now=4.0)
  assert set(agent.secrets()) == {2, 3} and agent.secrets()[3] == {'told elsewhere': 1}
  assert agent.redact().ids == (2, 3)


def test_copies_with_a_secret_are_named(agent):
  agent.observe('PIN 49213', now=1.0)
  (agent.workdir / 'diary.sqlite.v4').write_bytes(b'... PIN 49213 ...')
  receipt = agent.redact()
  assert receipt.files == ('diary.sqlite.v4',) and not receipt.complete


def test_nothing_else_can_change_an_experience(agent):
  tell(agent)
  with pytest.raises(apsw.ConstraintError, match='append-only'):
    agent.diary._run("UPDATE experiences SET content = 'x' WHERE id = 1")
  with pytest.raises(ValueError, match='99'):
    agent.diary.rewrite([dataclasses.replace(agent.diary.experience(1), id=99)])
  with pytest.raises(apsw.ConstraintError, match='append-only'):  # the flag is down again
    agent.diary._run("UPDATE media SET description = 'x'")


def test_metadata_is_struck_at_any_depth():
  secrets = Secrets({'Tulip-77'})
  value = {'a': [['is Tulip-77', 1.5], {'b': 'Tulip-77 it is'}], 'n': None}
  assert redact._struck(value, secrets) == {'a': [['is ***', 1.5], {'b': '*** it is'}], 'n': None}


def test_the_mode_lists_and_strikes(agent):
  tell(agent)
  out = io.StringIO()
  console = Console(file=out, width=200)
  ask = {'do': 'found', 'ids': None, 'person': None}
  transfer.check('forget', ask)
  assert transfer.run(agent, 'forget', ask, console) == 0
  assert '     3  1 card' in out.getvalue() and '4111' not in out.getvalue()
  assert transfer.run(agent, 'forget', ask | {'do': 'secrets'}, console) == 0
  assert 'texts with secrets removed' in out.getvalue()
  with pytest.raises(ValueError, match='--do=secrets strikes .* leave out --ids'):
    transfer.check('forget', ask | {'do': 'secrets', 'ids': '1'})
