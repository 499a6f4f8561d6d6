"""What is trimmed was learned, matters little, and is never lost."""

from __future__ import annotations

import dataclasses
import io
import json

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from rich.console import Console

from configs import tiny
from dreaming import days, live, terminal, types
from dreaming.agent import Agent
from dreaming.memory import export, trim, whole
from dreaming.memory.diary import Diary
from dreaming.memory.index import Index
from dreaming.memory.trim import TrimConfig

DAY = 86_400.0
NOW = 400 * DAY
CONFIG = TrimConfig(days=90.0, below=4.0, keep=0)


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'diary.sqlite'


@pytest.fixture
def diary(path):
  with Diary(path) as diary:
    yield diary


def say(diary, content='The bus was late.', importance=2.0, feedback=0.0, **fields):
  fields = {'time': 100 * DAY, 'speaker': 'Priya', 'session': 's'} | fields
  rated = types.Scores(importance=importance, feedback=feedback, rater='r')
  return diary.append(content=content, scores=rated, **fields)


def sleep(diary, ids, number=1, parent=None):
  night = diary.begin_night({})
  manifest = types.Manifest(
    number=number, parent=parent, night=night, created=1.0, base='b', sources=(), seed=0, files={},
    lora={}, scores={}, config={},
  )  # fmt: skip
  diary.promote(manifest, ids, night)


def index_of(diary, near=()):
  """Each is like no other, but those that are named."""
  ids = [e.id for e in diary.experiences()]
  vectors = np.eye(len(ids) + 1, dtype=np.float32)[: len(ids)]
  for a, b in near:
    vectors[ids.index(b)] = vectors[ids.index(a)]
  order = np.argsort(ids)
  return Index(np.array(ids)[order], vectors[order])


def planned(diary, config=CONFIG, near=()):
  return trim.plan(diary, config, NOW, index_of(diary, near), 0.5)


def everything(diary):
  return [e for e in diary.experiences(archived=None) if e.kind != 'summary']


# ---- What may go ----


def test_only_what_is_old_unimportant_and_learned_goes(diary):
  gone = say(diary)
  kept = [
    say(diary, 'It rains.', time=NOW - 10 * DAY),
    say(diary, 'I am moving to Leeds.', importance=8.0),
    say(diary, 'Hello there.', feedback=10.0),
    say(diary, 'Bye.', feedback=1.0),
    diary.append(time=1.0, speaker='P', content='Nobody has rated this.'),
  ]
  unlearned = say(diary, 'The tram was late.')
  sleep(diary, [gone.id, *(e.id for e in kept)])
  plan = planned(diary)
  assert [e.id for e in plan.chosen] == [gone.id]
  assert sum(plan.kept.values()) == 6
  assert plan.kept['is not absorbed by a night that counts'] == 1
  assert plan.kept['has feedback'] == 2
  with pytest.raises(ValueError, match=f'experience {unlearned.id} is not absorbed'):
    trim.trim(diary, [*plan.chosen, unlearned], CONFIG)
  assert diary.archived() == [] and len(diary.experiences()) == 7


@pytest.mark.parametrize(
  'text', ['No, it is Kiwi.', 'Actually I ride a moped.', 'I meant Tuesday.', 'I no longer smoke.']
)
def test_corrections_stay(diary, text):
  sleep(diary, [say(diary, text).id])
  assert planned(diary).kept == {'may correct something older': 1}


def test_what_is_like_something_older_stays_and_the_same_words_do_not(diary):
  older = say(diary, 'My parrot is called Kiwi.', importance=8.0)
  newer = say(diary, 'My parrot is called Mango.', time=101 * DAY)
  again = say(diary, 'my parrot is  called kiwi.', time=102 * DAY)
  sleep(diary, [older.id, newer.id, again.id])
  assert [e.id for e in planned(diary, near=[(older.id, newer.id)]).chosen] == [again.id]
  chosen = planned(diary, near=[(older.id, again.id)]).chosen
  assert [e.id for e in chosen] == [newer.id, again.id]


def test_an_older_one_behind_many_neighbours_is_found(diary):
  later = [say(diary, f'The parrot {i}.', time=200 * DAY, importance=9.0).id for i in range(70)]
  newer = say(diary, 'My parrot is called Mango.', time=101 * DAY)
  older = say(diary, 'My parrot is called Kiwi.', importance=8.0)  # told later of an earlier day
  sleep(diary, [older.id, newer.id, *later])
  near = [(newer.id, i) for i in [older.id, *later]]
  assert planned(diary, near=near).chosen == ()


def test_what_is_not_embedded_stays(diary):
  sleep(diary, [say(diary).id])
  empty = Index(np.zeros(0, np.int64), np.zeros((0, 3), np.float32))
  assert trim.plan(diary, CONFIG, NOW, empty, 0.5).chosen == ()


def test_the_latest_stay(diary):
  ids = [say(diary, f'Small talk {i}.', time=float(i)).id for i in range(5)]
  sleep(diary, ids)
  assert [e.id for e in planned(diary, dataclasses.replace(CONFIG, keep=2)).chosen] == ids[:3]


@pytest.mark.parametrize(
  'field', [{'days': -1.0}, {'keep': -1}, {'sentences': 0}, {'days': np.nan}]
)
def test_a_wrong_setting_is_refused(field):
  with pytest.raises(ValueError, match=r'memory\.trim\.'):
    TrimConfig(**field)


# ---- What becomes of it ----


def trimmed(diary, count=6):
  texts = [f'Word{i} was here. Was it?' for i in range(count)]
  ids = [say(diary, t, time=100 * DAY + i, trust=types.Trust(2 + i % 2)).id
         for i, t in enumerate(texts)]  # fmt: skip
  diary.set_embedding(ids[0], np.ones(3), 'e')
  sleep(diary, ids)
  return ids, trim.trim(diary, planned(diary).chosen, CONFIG)


def test_what_is_archived_is_neither_searched_nor_lost(diary, path, tmp_path):
  before = {e.id: e for e in diary.experiences()}
  ids, done = trimmed(diary)
  assert list(done.archived) == ids and len(done.summaries) == 1
  (summary,) = diary.experiences()
  assert summary.id == done.summaries[0] and diary.ids() == [summary.id]
  assert diary.embeddings('e')[0].size == 0 and len(diary.unembedded('e')) == 1
  assert not {*diary.by_words('word5 here', 10)} & {*ids}
  # Still there:
  assert diary.experience(ids[3]).content == 'Word3 was here. Was it?'
  assert diary.archived('was WORD4')[0] == ids[4] and diary.archived('nonsense') == []
  assert sorted(diary.archived()) == ids == sorted(e.id for e in diary.experiences(archived=True))
  assert export.jsonl(diary, tmp_path / 'out.jsonl') == 6
  lines = [json.loads(x) for x in (tmp_path / 'out.jsonl').read_text().splitlines()]
  assert [x['id'] for x in lines] == ids
  wrong = f'SELECT count(*) FROM experiences WHERE digest IS NOT {whole.DIGEST}'
  assert diary._run(wrong) == [(0,)] and not before


def test_a_summary_says_what_was_said_and_no_more(diary):
  ids, done = trimmed(diary)
  summary = diary.experience(done.summaries[0])
  assert summary.content == 'Word0 was here. Word1 was here. Word2 was here.'
  assert (summary.kind, summary.speaker, summary.session) == ('summary', 'Priya', 's')
  assert summary.trust is types.Trust.USER and summary.metadata['of'] == 6
  assert diary.summarised(summary.id) == ids
  assert diary.experiences(unconsumed=True) == []  # no night dreams of it
  assert planned(diary).chosen == ()  # and it is not trimmed itself
  with pytest.raises(ValueError, match='is a summary'):
    diary.archive([summary.id])


def test_restoring_brings_back_all(diary):
  ids, done = trimmed(diary)
  before = everything(diary)
  assert diary.restore(ids[:2]) == 6 and diary.restore(ids) == 0  # what was summarised together
  with pytest.raises(ValueError, match='no experience'):
    diary.experience(done.summaries[0])
  assert diary.experiences() == before == everything(diary)
  assert [*diary.by_words('word5', 5)] == [ids[5]]


def test_a_rollback_brings_back_what_the_weights_no_longer_know(diary):
  first, second = say(diary), say(diary, 'It snows.')
  sleep(diary, [first.id])
  sleep(diary, [second.id], number=2, parent=1)
  assert len(trim.trim(diary, planned(diary).chosen, CONFIG).archived) == 2
  diary.activate(1)
  assert diary.archived() == [first.id]
  assert second.id in diary.ids() and [*diary.by_words('snows', 5)] == [second.id]
  assert [e.id for e in diary.experiences(unconsumed=True)] == [second.id]


def test_forgetting_takes_the_archive_and_its_summary_along(diary, path):
  ids, done = trimmed(diary)
  with pytest.raises(ValueError, match='is a summary: forget those that it stands for'):
    diary.forget(done.summaries)
  assert diary.forget([ids[0]]) == 1
  assert [e.id for e in diary.experiences()] == ids[1:]  # the others are back
  assert diary.archived() == []
  for file in path.parent.iterdir():
    assert b'Word0' not in file.read_bytes(), file
  assert [*diary.by_words('word1', 5)] == [ids[1]]


def test_trimming_happens_entirely_or_not_at_all(diary, monkeypatch):
  ids = [say(diary, f'Talk {i}.', time=8 * i * DAY).id for i in range(3)]
  sleep(diary, ids)
  before = diary.experiences()
  done = []

  def archive(some, summary):
    if done:
      raise OSError('no space left')
    done.append(Diary.archive(diary, some, summary))

  monkeypatch.setattr(diary, 'archive', archive)
  with pytest.raises(OSError, match='no space'):
    trim.trim(diary, planned(diary).chosen, CONFIG)
  assert diary.experiences() == before == everything(diary) and diary.archived() == []


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(acts=st.lists(st.tuples(st.sampled_from('tra'), st.sets(st.integers(1, 8)))))
def test_whatever_is_done_nothing_is_lost_or_doubled(tmp_path_factory, acts):
  with Diary(tmp_path_factory.mktemp('d') / 'diary.sqlite') as diary:
    ids = [say(diary, f'Word{i} again.', time=3 * i * DAY).id for i in range(8)]
    sleep(diary, ids)
    before = everything(diary)
    for act, some in acts:
      if act == 't':
        trim.trim(diary, diary.experiences(ids=some & {*diary.ids(kind='chat')}), CONFIG)
      elif act == 'r':
        diary.restore(some)
      else:
        diary.archive(some & {*ids})
      assert everything(diary) == before
      archived = {*diary.archived()}
      for i, id in enumerate(ids):
        assert (id in diary.by_words(f'word{i}', 9)) == (id not in archived)
    assert diary._run('PRAGMA integrity_check') == [('ok',)]


# ---- Modes and commands ----


@pytest.fixture
def config(tmp_path):
  c = tiny.get_config()
  c.workdir, c.cache = str(tmp_path / 'life'), str(tmp_path / 'cache')
  c.memory.trim.keep = 0
  return c


def test_modes_list_archive_and_restore(config, capsys):
  with Agent(config) as agent:
    e = say(agent.diary, 'The bus was late, [bold] as always.')
    sleep(agent.diary, [e.id])
  assert live.run('trim', config, {}) == 0
  out = capsys.readouterr().out
  assert 'The bus was late, [bold] as always.' in out and 'Nothing was changed' in out
  assert live.run('trim', config, {'do': 'archive'}) == 0
  assert '1 experiences are archived, 1 summaries stay' in capsys.readouterr().out
  assert live.run('status', config, {}) == 0
  assert '1 archived' in capsys.readouterr().out
  assert live.run('trim', config, {'do': 'restore', 'ids': f'{e.id}'}) == 0
  assert '1 experiences are back' in capsys.readouterr().out


def test_commands_list_archive_and_restore(config):
  with Agent(config) as agent:
    e = say(agent.diary, 'The bus was late.')
    sleep(agent.diary, [e.id])
    assert [x.content for x in agent.memories('bus')] == ['The bus was late.']
    commands = (
      '/trim',
      '/trim now',
      '/archive bus',
      '/archive tram',
      f'/restore {e.id}',
      '/restore x',
    )
    source, out = io.BytesIO('\n'.join(commands).encode()), io.StringIO()
    assert terminal.run(agent, source, out) == 2  # the last is refused
    assert agent.diary.ids() == [e.id]
    assert [x.id for x in agent.memories('bus')] == [e.id]
  lines = out.getvalue().splitlines()
  assert lines[1].startswith('1 experiences are old') and '1 experiences are archived' in lines[2]
  assert lines[3].endswith('Priya: The bus was late.') and lines[4] == 'nothing of it is archived'


@pytest.mark.parametrize(
  'mode, flags, why',
  [
    ('trim', {'do': 'x'}, '--do=x is unknown'),
    ('trim', {'ids': '1'}, '--ids goes with --do=restore'),
    ('status', {'do': 'archive'}, '--do is for --mode=trim'),
  ],
)
def test_wrong_flags_are_refused(config, mode, flags, why):
  with pytest.raises(ValueError, match=why):
    live.run(mode, config, flags)


def test_a_damaged_diary_is_rescued_by_its_mode(config, tmp_path, capsys):
  path = tmp_path / 'life' / 'diary.sqlite'
  with pytest.raises(ValueError, match='there is no diary'):
    live.run('rescue', config, {})
  with Agent(config) as agent:
    for i in range(40):
      say(agent.diary, f'Message {i}. ' + 'And so on. ' * 40)
  data = bytearray(path.read_bytes())
  data[bytes(data).rindex(b'Message 17')] ^= 1
  path.write_bytes(data)
  with pytest.raises(ValueError, match='damaged.*--mode=rescue'):
    live.run('status', config, {})
  assert live.run('rescue', config, {}) == 1
  out = capsys.readouterr().out
  assert '39 experiences are saved' in out and 'not as they were, and left out: 18' in out
  assert live.run('status', config, {}) == 0
  (kept,) = (p for p in path.parent.glob('*.broken-*') if p.suffix not in ('.mark', '.jsonl'))
  assert kept.read_bytes() == data


def test_a_day_that_was_archived_is_not_lived_again(config, tmp_path, monkeypatch):
  day = {'user': 'Priya', 'interactions': [
    {'time': '2020-01-01T08:00:00', 'text': 'The bus was late.', 'response': 'Oh.'}]}  # fmt: skip
  (tmp_path / 'day.json').write_text(json.dumps(day))
  lived = days.load(tmp_path / 'day.json', user='Priya')
  with Agent(config) as agent:
    live.talk(agent, lived, Console(quiet=True))
    (e,) = agent.diary.experiences()
    agent.diary.archive([e.id])
    live.talk(agent, lived, Console(quiet=True))
    assert agent.diary.experiences() == [] and agent.diary.archived() == [e.id]
