"""What is forgotten is in no file of an identity, and the receipt says what became of it."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import zlib

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from configs import tiny
from dreaming import configuration, transfer
from dreaming.agent import Agent
from dreaming.brain import programs
from dreaming.identity import forget
from dreaming.memory import addressed
from dreaming.memory.diary import Diary
from dreaming.memory.graph import Graph
from dreaming.sleep import examine, safety
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


# ---- What is made again: the index, working files, the cache, memory ----


def fill(agent):
  """Files as a life has them that remembers much, and was killed after a night."""
  Graph(np.eye(8, dtype=np.float32), agent.workdir / 'index' / 'e.usearch')
  work = agent.workdir / 'nights' / '0001' / 'work' / 'train'
  work.mkdir(parents=True)
  np.savez(work.parent / 'teacher-1.npz', ids=np.frombuffer(BEA.encode(), np.uint8))
  (work / 'step-000001-0.npz').write_bytes(b'x')
  for name, said in (('hers', f'Q: {BEA}'), ('own', 'Q: Who plays the oboe?')):
    path = agent.cache / 'replay' / f'{name}.npz'
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, said=json.dumps([said]), hidden=np.zeros(4, np.uint16))
  for name, text in (('exam/1.sealed', '{}'), ('school/1.sha256', '0'), ('weights/1.json', BEA)):
    path = agent.cache / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_what_is_made_again_goes_and_what_is_left_has_no_word_of_it(agent):
  bea, other = agent.observe(BEA, now=1.0), agent.observe(CELLO, now=2.0)
  slept(agent.diary, [bea.id, other.id], [('statement', 'x', (), (other.id,))])
  fill(agent)
  agent.forget([bea.id])
  r = agent.receipt
  assert {w: r.removed[w] for w in r.removed if 'files' in w} == {
    'media files': 0, 'files of the search index': 2, 'working files of nights': 2,
    'files of the cache': 1,
  }  # fmt: skip
  assert r.clean == {'exam': 1, 'replay': 1, 'school': 1} and r.files == ()
  assert [p.name for p in (agent.cache / 'replay').iterdir()] == ['own.npz']
  assert (agent.cache / 'weights' / '1.json').exists()  # of a checkpoint: not looked at
  assert not (agent.workdir / 'index').exists()
  assert [p.name for p in (agent.workdir / 'nights' / '0001').iterdir()] == ['summary.json']
  kept = json.loads((agent.workdir / 'forgotten' / '0001.json').read_text())
  assert kept['clean'] == r.clean and kept['removed'] == r.removed
  line = 'files of the cache that were looked through and have no word of it: exam (1), replay (1)'
  assert any(found.startswith(line) for found in r.lines())
  assert '      2  files of the search index removed' in r.lines()
  agent.forget([other.id])  # there is nothing of the kind any more
  assert not any(agent.receipt.removed[w] for w in r.removed if 'files' in w)


def test_what_could_not_be_removed_is_named(agent, monkeypatch):
  bea = agent.observe(BEA, now=1.0)
  slept(agent.diary, [bea.id], [])
  fill(agent)

  def refused(path, *_, **__):
    raise PermissionError(13, 'Permission denied', str(path))

  monkeypatch.setattr(pathlib.Path, 'unlink', refused)
  monkeypatch.setattr(shutil, 'rmtree', lambda path, *_, **__: None)
  agent.forget([bea.id])
  r = agent.receipt
  assert r.files == (
    'index/e.usearch', 'index/e.usearch.json', 'nights/0001/work/teacher-1.npz',
    'nights/0001/work/train/step-000001-0.npz', str(agent.cache / 'replay' / 'hers.npz'),
  )  # fmt: skip
  assert not r.complete and r.clean == {'exam': 1, 'replay': 1, 'school': 1}
  assert not any(n for what, n in r.removed.items() if 'files' in what)


def test_what_is_struck_out_goes_from_there_too(agent):
  agent.observe('The PIN of my card is 4921378.', now=1.0)
  fill(agent)
  np.savez(agent.cache / 'replay' / 'told.npz', said='["is it 4921378?"]')
  r = agent.redact()
  found = [r.removed[f'files of the {what}'] for what in ('search index', 'cache')]
  assert found == [2, 1] and r.clean['replay'] == 2 and r.complete


@pytest.mark.parametrize('text', [BEA, 'Zo\u00eb says "hello" to us.\nTwice.'])
def test_words_in_arrays_are_found(tmp_path, text):
  words = forget._words([Experience(id=1, time=0.0, kind='x', speaker='A', content=text)], ())
  for i, found in enumerate((text, json.dumps([text]), [['a', text]], text.encode())):
    path = tmp_path / f'{i}.npz'
    np.savez(path, numbers=np.zeros(9), said=found)
    assert forget._holds(path, words), i
    if i < 2:
      path.write_bytes(path.read_bytes()[:-20])  # its directory is cut off
      assert forget._holds(path, words), i
  np.savez(path, numbers=np.zeros(9), said='another text')
  assert not forget._holds(path, words)


def test_what_was_read_is_not_in_memory_any_more(agent):
  bea = agent.observe(BEA, now=1.0)
  decoder, mind = agent.decoder, agent.base_mind
  decoder.generate(mind, ['Who?'], max_tokens=1, prefix=BEA)
  decoder.logprobs(mind, ['Who?'], [' Bea'], prefix=BEA)
  addressed.find(BEA)
  assert decoder._prefixes and decoder._score._kept and addressed.find.cache_info().currsize
  agent.forget([bea.id])
  assert not decoder._prefixes and not decoder._score._kept
  assert not addressed.find.cache_info().currsize


@pytest.fixture
def quick(tmp_path, monkeypatch):
  """An agent whose whole night takes a minute."""
  monkeypatch.setattr(examine, '_general', lambda: (examine.Question(text='1?', answers=('2',)),))
  monkeypatch.setattr(examine, '_generic', lambda: 'It rains. ' * 4)
  monkeypatch.setattr(safety, '_own_probes', lambda: safety.probes()[::16])
  c = tiny.get_config()
  c.workdir, c.cache = str(tmp_path / 'life'), str(tmp_path / 'cache')
  c.decode.max_tokens, c.train.steps, c.prune.amounts = 4, 1, (0.0,)
  c.corpus.replay_questions = c.corpus.replay_texts = 1
  c.dream.max_facts, c.dream.unknowns = 2, 4
  with Agent(c) as a:
    yield a


@pytest.fixture
def kept_programs(quick):
  """All programs from here on go to the cache of the agent, however fast they were compiled."""
  names = (
    'jax_compilation_cache_dir', 'jax_persistent_cache_min_compile_time_secs',
    'jax_persistent_cache_min_entry_size_bytes', 'jax_disable_most_optimizations',
  )  # fmt: skip
  before = {name: jax.config.values[name] for name in names}
  assert quick.base  # which says where they are kept
  values = dict(zip(names, (str(quick.cache / 'xla'), 0.0, -1, True), strict=True))
  for settings in (values, before):
    for name, value in settings.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
    programs.drop()
    if settings is values:
      yield quick.cache / 'xla'


def holds(path, tokenizer, text):
  """Whether a file has a text, or its tokens one after the other, as anything may have them."""
  data = path.read_bytes()
  if path.parent.name == 'xla' and data[:1] == b'\x78':
    data = zlib.decompress(data)
  ids = np.array(tokenizer.encode(text))
  forms = [text.encode(e) for e in ('utf-8', 'utf-16-le', 'utf-32-le')]
  forms += [ids.astype(t).tobytes() for t in ('<i8', '<i4', '<u2')]
  forms.append(b''.join(map(varint, ids.tolist())))  # as XLA writes constants
  return any(form in data for form in forms)


def varint(n):
  low = bytes([n & 127 | 128 * (n > 127)])
  return low + varint(n >> 7) if n > 127 else low


def test_no_cache_has_a_word_of_what_was_told_answered_and_dreamt(quick, kept_programs):
  """A whole life of a day, a night and a morning: what CACHES leaves out, too."""
  for i, text in enumerate((BEA, CELLO)):
    quick.reply(text, now=1e9 + i)
  outcome = quick.sleep(now=1e9 + 99)
  assert outcome.dreams_kept and outcome.measures  # it has trained and was examined
  quick.reply('Where does Bea Novak play the oboe?', now=1e9 + 999)
  texts = {t for e in quick.diary.experiences() for t in (e.content, e.response)}
  texts |= {t for d in quick.dreams() for t in (d.text, *(p.question for p in d.pairs))}
  texts = {t[:24] for t in texts if len(t) >= 12} | {'Bea Novak', 'oboe in Ghent'}
  tokenizer, files = quick.base.tokenizer, [p for p in quick.cache.rglob('*') if p.is_file()]
  assert {p.relative_to(quick.cache).parts[0] for p in files} == {'exam', 'replay', 'xla'}
  assert sum(p.parent == kept_programs for p in files) > 50
  assert {(p.name, t) for p in files for t in texts if holds(p, tokenizer, t)} == set()
  # And if a program closed over what was told, it would be seen.
  ids = np.array(tokenizer.encode('oboe in Ghent'), np.int32)
  jax.jit(lambda x: x + jax.numpy.asarray(ids))(np.zeros(len(ids), np.int32))
  assert any(holds(p, tokenizer, 'oboe in Ghent') for p in kept_programs.iterdir())
