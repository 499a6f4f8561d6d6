"""The diary keeps what it acknowledged, changes nothing, and refuses what it cannot read."""

from __future__ import annotations

import dataclasses
import pathlib
import signal
import subprocess
import sys
import threading
import time

import apsw
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from dreaming import types
from dreaming.memory import schema, store, tables
from dreaming.memory.diary import Diary


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'life' / 'diary.sqlite'


@pytest.fixture
def diary(path):
  with Diary(path) as diary:
    yield diary


def say(diary, content='My parrot is called Kiwi.', time=1000.0, **fields):
  return diary.append(time=time, speaker='Priya', content=content, **fields)


def manifest(number, night, parent=None, **fields):
  return types.Manifest(
    number=number,
    parent=parent,
    night=night,
    created=5.0,
    base='ab' * 32,
    sources=(1, 2),
    seed=np.int64(3),
    files={'adapter/a': 'cd' * 32},
    lora={'rank': 4, 'targets': ('q', 'k')},
    scores={'recall': np.float32(0.5)},
    config={'steps': 6, 'path': pathlib.PurePosixPath('x')},
    **fields,
  )


def promote(diary, number, consumed, parent=None):
  night = diary.begin_night({})
  diary.promote(manifest(number, night, parent), consumed, night)
  return night


# Experiences.


def test_append_returns_what_is_read_back(path):
  with Diary(path) as diary:
    written = say(
      diary,
      response='A fine name.',
      kind='observation',
      media=(
        types.Media(kind='image', digest='00', description='a bird'),
        types.Media(kind='audio', digest='11'),
      ),
      scores=types.Scores(importance=7.5, novelty=2.0, rater='r'),
      trust=types.Trust.IMPORTED,
      session='s',
      metadata={'a': [1, None, 'é'], 'b': {'c': 0.5}},
    )
  with Diary(path) as diary:
    assert diary.experience(written.id) == written
  assert written.media[1].kind == 'audio' and written.scores.importance == 7.5
  assert written.trust is types.Trust.IMPORTED and written.night is None


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
  content=st.text(st.characters(exclude_categories=('Cs',)), min_size=1),
  time=st.floats(-1e9, 1e11),
)
def test_any_text_survives(tmp_path_factory, content, time):
  hypothesis.assume(content.strip())
  with Diary(tmp_path_factory.mktemp('d') / 'diary.sqlite') as diary:
    e = diary.append(time=time, speaker=content, content=content, response=content)
    assert (e.content, e.response, e.speaker, e.time) == (content, content, content, time)


def test_experiences_come_in_order_of_time_and_can_be_narrowed(diary):
  a, b, c = (say(diary, time=t).id for t in (30.0, 10.0, 20.0))

  def ids(**query):
    return [e.id for e in diary.experiences(**query)]

  assert ids() == [b, c, a]
  assert ids(newest_first=True, limit=2) == [a, c]
  assert ids(since=20.0) == [c, a]
  assert ids(until=20.0) == [b]
  assert ids(ids=[c, 999]) == [c]
  assert ids(ids=[]) == []


def test_the_latest_scores_count(diary):
  id = say(diary).id
  for importance in (3.0, 9.0):
    diary.set_scores(id, types.Scores(importance=importance, rater='same'))
  assert diary.experience(id).scores.importance == 9.0


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'content': 'x' * 10_000_000}, r'the message has 10,000,000 bytes, the limit is 65,536'),
    ({'content': 'é' * 40_000}, r'80,000 bytes'),
    ({'content': 'x', 'response': 'x' * 65_537}, r'the response has 65,537 bytes'),
    ({'content': ' \n'}, r'empty'),
    ({'content': 'bad \ud800'}, r'not valid Unicode .* at 4'),
    ({'content': 'x', 'time': float('nan')}, r'time nan'),
    ({'content': 'x', 'time': 1.7e12}, r'Unix seconds'),
    ({'content': 'x', 'metadata': {'a': object()}}, r'plain values'),
    ({'content': 'x', 'metadata': {'a': float('nan')}}, r'JSON'),
  ],
)
def test_bad_messages_are_refused_in_one_line_and_nothing_is_kept(diary, fields, message):
  with pytest.raises(ValueError, match=message) as error:
    say(diary, **fields)
  assert '\n' not in str(error.value)
  assert diary.experiences() == []


@pytest.mark.parametrize(
  'sql',
  [
    "UPDATE experiences SET content = 'forged'",
    "UPDATE experiences SET response = 'forged'",
    'UPDATE experiences SET time = 0',
    'DELETE FROM experiences',
    "INSERT OR REPLACE INTO experiences VALUES (2, 0, 'chat', 'x', 'forged', '', 2, '', '{}', x'')",
    "UPDATE media SET description = 'forged'",
    'DELETE FROM media',
  ],
)
def test_the_database_itself_is_append_only(diary, sql):
  # The second has no media, whose own triggers would hold it too.
  before = [say(diary, media=(types.Media(kind='image', digest='00'),)), say(diary)]
  with pytest.raises(apsw.ConstraintError, match='append-only'):
    diary._connection.execute(sql)
  assert diary.experiences() == before


def test_forgetting_removes_every_trace_from_the_file(path):
  secret = 'xyzzy-9731'
  with Diary(path) as diary:
    kept, gone = say(diary, 'something else'), say(diary, f'my PIN is {secret}')
    diary.set_scores(gone.id, types.Scores(importance=9.0, rater='r'))
    diary.set_embedding(gone.id, np.ones(4), 'e')
    night = diary.begin_night({})
    dream = types.Dream(id=0, night=night, style='s', text=secret, sources=(kept.id, gone.id))
    other = dataclasses.replace(dream, text='other', sources=(kept.id,))
    diary.add_dreams([dream, other])
    diary.set_night_step(night, 'corpus', {'texts': [secret]})
    with pytest.raises(ValueError, match='night 1 is not over'):
      diary.forget([gone.id])
    diary.promote(manifest(1, night), [kept.id, gone.id], night)
    assert diary.forget([gone.id, 999]) == 1
    assert [e.id for e in diary.experiences()] == [kept.id]
    assert [d.text for d in diary.dreams()] == ['other']
    assert diary.embeddings('e')[0].size == 0
    for file in path.parent.iterdir():
      assert secret.encode() not in file.read_bytes(), file
    assert say(diary).id > gone.id  # an id is never used twice
    with pytest.raises(apsw.ConstraintError):
      diary._connection.execute('DELETE FROM experiences')


# Embeddings.


def test_embeddings_come_back_exactly_and_by_embedder(diary):
  ids = [say(diary, time=-t).id for t in range(3)]
  rows = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
  for id, row in reversed(list(zip(ids, rows, strict=True))):
    diary.set_embedding(id, np.zeros(5), 'a')
    diary.set_embedding(id, row, 'a')
  diary.set_embedding(ids[0], np.ones(2), 'b')
  got_ids, got = diary.embeddings('a')
  assert got_ids.tolist() == ids and got.dtype == np.float32
  np.testing.assert_array_equal(got, rows)
  assert diary.unembedded('b') == [ids[1], ids[2]]
  assert diary.embeddings('none')[1].shape == (0, 0)
  with pytest.raises(ValueError, match='no experience 99'):
    diary.set_embedding(99, np.ones(5), 'a')
  with pytest.raises(ValueError, match='finite'):
    diary.set_embedding(ids[0], np.array([np.nan]), 'a')


# Dreams and nights.


def test_a_dream_is_never_more_trusted_than_its_sources(diary):
  own = say(diary).id
  foreign = say(diary, trust=types.Trust.IMPORTED).id
  night = diary.begin_night({})
  dream = types.Dream(
    id=0,
    night=night,
    style='qa',
    text='t',
    pairs=(types.QA(question='q', answer='a'),),
    sources=(foreign, own),
    quality=types.Quality(gain=np.float32(1.5), grounded=1.0),
    trust=types.Trust.APPROVED,
  )
  own_dream = dataclasses.replace(dream, sources=(own,), status=types.Status.REJECTED)
  kept = diary.add_dreams([dream, own_dream])
  assert [d.trust for d in kept] == [types.Trust.IMPORTED, types.Trust.USER]
  assert diary.dreams() == kept
  assert diary.dreams(status=types.Status.REJECTED) == kept[1:]
  assert diary.dreams(night=night, status=types.Status.KEPT) == kept[:1]
  assert diary.dreams(night=night + 1) == []
  with pytest.raises(ValueError, match='sources that the diary lacks'):
    diary.add_dreams([own_dream, dataclasses.replace(dream, sources=(own, 77))])
  assert diary.dreams() == kept


def test_a_night_is_resumed_with_what_its_steps_left(path):
  with Diary(path) as diary:
    number = diary.begin_night({'steps': (1, 2)})
    diary.set_night_step(number, 'select', {'ids': [1]})
    diary.set_night_step(number, 'dream', None)
  with Diary(path) as diary:
    assert diary.open_night() == number
    night = diary.night(number)
    assert (night.state, night.step, night.config) == ('running', 'dream', {'steps': [1, 2]})
    assert night.payloads == {'select': {'ids': [1]}, 'dream': None}
    with pytest.raises(ValueError, match='night 1 is not over'):
      diary.begin_night({})
    with pytest.raises(ValueError, match='through promote'):
      diary.end_night(number, 'promoted', {})
    diary.end_night(number, 'rejected', {'recall': 0.1})
    assert diary.open_night() is None
    assert diary.night(number).result == {'recall': 0.1} and diary.night(number).ended
    for act in (
      lambda: diary.set_night_step(number, 'train'),
      lambda: diary.end_night(number, 'failed', {}),
      lambda: diary.promote(manifest(1, number), [], number),
    ):
      with pytest.raises(ValueError, match='night 1 is over'):
        act()
    assert diary.begin_night({}) == number + 1
    assert [n.state for n in diary.nights()] == ['rejected', 'running']


# Generations.


def test_promotion_is_all_or_nothing(diary):
  id = say(diary).id
  night = diary.begin_night({})
  with pytest.raises(ValueError, match='no experience 55'):
    diary.promote(manifest(1, night), [id, 55], night)
  assert diary.active() == 0 and diary.generations() == [] and diary.open_night() == night
  assert [e.id for e in diary.experiences(unconsumed=True)] == [id]
  diary.promote(manifest(1, night), [id], night, result={'recall': np.float32(0.5)})
  assert diary.active() == 1 and diary.night(night).state == 'promoted'
  assert diary.night(night).result == {'recall': 0.5}
  assert diary.experience(id).night == night and diary.experiences(unconsumed=True) == []
  (generation,) = diary.generations()
  assert generation.path == diary.path.parent / 'generations/1'
  assert generation.manifest.sources == (1, 2) and generation.manifest.seed == 3
  with pytest.raises(ValueError, match='generation 1 exists'):
    diary.promote(manifest(1, None), [], None)
  with pytest.raises(ValueError, match='only a night consumes'):
    diary.promote(manifest(2, None), [id], None)


def test_paths_of_generations_move_with_the_diary(tmp_path):
  with Diary(tmp_path / 'here' / 'diary.sqlite') as diary:
    night = diary.begin_night({})
    directory = tmp_path / 'here' / 'generations' / '000001'
    diary.promote(manifest(1, night), [], night, path=directory)
    assert diary.generations()[0].path == directory
    with pytest.raises(ValueError, match='inside of'):
      diary.promote(manifest(2, None), [], None, path=tmp_path / 'elsewhere')
  (tmp_path / 'here').rename(tmp_path / 'there')
  with Diary(tmp_path / 'there' / 'diary.sqlite') as diary:
    assert diary.generations()[0].path == tmp_path / 'there' / 'generations' / '000001'


def test_a_rollback_gives_back_what_the_nights_it_leaves_had_consumed(diary):
  a, b, c = (say(diary, time=t).id for t in (1.0, 2.0, 3.0))
  first = promote(diary, 1, [a])
  promote(diary, 2, [b], parent=1)

  def unconsumed():
    return [e.id for e in diary.experiences(unconsumed=True)]

  assert unconsumed() == [c]
  diary.activate(1)
  assert diary.active() == 1 and unconsumed() == [b, c]
  assert diary.experience(a).night == first and diary.experience(b).night is None
  third = promote(diary, 3, [b, c], parent=1)  # a branch beside 2
  assert unconsumed() == [] and diary.experience(b).night == third
  diary.activate(0)
  assert unconsumed() == [a, b, c]
  with pytest.raises(ValueError, match='no generation 9'):
    diary.activate(9)


# The file.


def test_a_transaction_happens_entirely_or_not_at_all(diary):
  with pytest.raises(RuntimeError), diary.transaction():
    say(diary)
    with diary.transaction():
      say(diary)
    raise RuntimeError
  assert diary.experiences() == []
  with diary.transaction():
    say(diary)
  assert len(diary.experiences()) == 1


def test_what_was_acknowledged_survives_a_kill(path):
  code = (
    'import sys; from dreaming.memory.diary import Diary\n'
    f'diary = Diary({str(path)!r})\n'
    'for i in range(10**6):\n'
    '  e = diary.append(time=i, speaker="P", content=f"message {i}")\n'
    '  print(e.id, flush=True)\n'
  )
  child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
  ids = [int(child.stdout.readline()) for _ in range(25)]
  child.send_signal(signal.SIGKILL)
  ids += [int(line) for line in child.stdout if line.endswith('\n')]
  child.wait()
  child.stdout.close()
  with Diary(path) as diary:
    kept = diary.experiences()
    assert {e.id for e in kept} >= set(ids)
    assert [e.content for e in kept] == [f'message {i}' for i in range(len(kept))]
    say(diary)


def test_threads_and_a_second_connection_lose_nothing(path):
  with Diary(path) as one, Diary(path) as two:

    def work(diary):
      for i in range(10):
        say(diary, str(i))

    threads = [threading.Thread(target=work, args=(d,)) for d in (one, one, two)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert len(one.experiences()) == len(two.experiences()) == 30


def test_threads_that_wait_share_a_transaction_and_a_bad_write_fails_alone(diary):
  commits, said, failed = [], [], []
  diary._connection.set_commit_hook(lambda: commits.append(1) or False)

  def work(i):
    scores = types.Scores(importance=float('nan') if i == 3 else 1.0)  # SQLite has no NaN
    try:
      said.append(say(diary, str(i), scores=scores))
    except apsw.ConstraintError:
      failed.append(i)

  threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
  with diary.transaction():
    for thread in threads:
      thread.start()
    while len(diary._waiting) < 8:
      time.sleep(0.001)
  for thread in threads:
    thread.join(timeout=60)
  assert failed == [3] and len(commits) == 2  # one of them is empty, of the thread that held it
  assert sorted(e.content for e in diary.experiences()) == [c for c in '01234567' if c != '3']
  assert {e.id: e for e in diary.experiences()} == {e.id: e for e in said}
  assert [*diary.by_words('3', 5)] == []


def test_an_interrupted_write_is_told_to_all_who_share_it(diary, monkeypatch):
  other = store._Work(lambda: diary._run("INSERT INTO imported VALUES ('x', 1)"))
  diary._waiting.append(other)
  with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
    m.setattr(Diary, '_append', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    say(diary)
  assert other.over and 'interrupted' in str(other.error)
  assert diary.known(['x']) == set() and diary.experiences() == []
  assert say(diary).id == 1


def corrupt_header(path):
  path.write_bytes(b'This is no database at all. ' * 400)


def corrupt_middle(path):
  data = bytearray(path.read_bytes())
  data[4096 * 2 : 4096 * 3] = b'\xff' * 4096
  path.write_bytes(data)


def truncate(path):
  path.write_bytes(path.read_bytes()[:-5000])


def newer(path):
  db = apsw.Connection(str(path))
  db.execute(f'PRAGMA user_version = {schema.VERSION + 1}')
  db.close()


def foreign(path):
  path.unlink()
  db = apsw.Connection(str(path))
  db.execute('CREATE TABLE recipes (name)')
  db.close()


@pytest.mark.parametrize(
  ('harm', 'message'),
  [
    (corrupt_header, 'damaged.*backup'),
    (corrupt_middle, 'damaged.*backup'),
    (truncate, 'damaged.*backup'),
    (newer, f'schema version {schema.VERSION + 1}, this program knows up to .*update'),
    (foreign, 'not a diary.*another workdir'),
  ],
)
def test_a_file_that_cannot_be_trusted_is_refused_untouched(path, harm, message):
  with Diary(path) as diary:
    for i in range(200):
      say(diary, f'message {i} ' * 10)
  harm(path)
  before = path.read_bytes()
  with pytest.raises(ValueError, match=message) as error:
    Diary(path)
  assert '\n' not in str(error.value) and str(path) in str(error.value)
  assert path.read_bytes() == before


# ---- Versions ----


def first_version(path):
  """A diary as the first version of the schema had it, with one experience and its picture."""
  path.parent.mkdir(parents=True, exist_ok=True)
  db = apsw.Connection(str(path))
  db.execute('PRAGMA journal_mode = WAL')
  db.execute(tables.FIRST)
  db.execute(f'PRAGMA application_id = {schema.APPLICATION_ID}')
  db.execute('PRAGMA user_version = 1')
  db.execute(
    'INSERT INTO experiences (time, kind, speaker, content, response, trust, session, metadata)'
    " VALUES (1, 'chat', 'Ana', 'My parrot sings.', '', 2, 's', '{}')"
  )
  db.execute("INSERT INTO media VALUES (1, 0, 'image', '00', 'a lighthouse')")
  db.close()


def version_of(path):
  db = apsw.Connection(str(path))
  try:
    return db.execute('PRAGMA user_version').get
  finally:
    db.close()


def test_an_earlier_version_is_brought_up_to_date_and_kept(path):
  first_version(path)
  with Diary(path) as diary:
    assert [e.content for e in diary.experiences()] == ['My parrot sings.']
    assert [*diary.by_words('parrot', 5)] == [*diary.by_words('lighthouse', 5)] == [1]
    say(diary)
    assert len(diary.by_words('parrot', 5)) == 2
  assert version_of(path) == schema.VERSION
  kept = path.with_name('diary.sqlite.v1')
  assert version_of(kept) == 1
  before = kept.read_bytes()
  with Diary(path):
    assert kept.read_bytes() == before


def test_an_update_that_fails_changes_nothing(path, monkeypatch):
  first_version(path)
  with monkeypatch.context() as m:
    m.setattr(schema, 'STEPS', (tables.FIRST, tables.SECOND + 'CREATE TABLE state (id);'))
    with pytest.raises(apsw.SQLError):
      Diary(path)
  assert version_of(path) == 1
  with Diary(path) as diary:
    assert [*diary.by_words('parrot', 5)] == [1]


def test_a_copy_that_was_not_finished_is_made_again(path):
  first_version(path)
  path.with_name('diary.sqlite.v1.part').write_bytes(b'half')
  with Diary(path):
    assert version_of(path.with_name('diary.sqlite.v1')) == 1
  assert not path.with_name('diary.sqlite.v1.part').exists()


def test_a_path_that_cannot_be_opened_is_one_clear_line(tmp_path):
  (tmp_path / 'diary.sqlite').mkdir()
  with pytest.raises(OSError, match='cannot be opened') as error:
    Diary(tmp_path / 'diary.sqlite')
  assert '\n' not in str(error.value)


def test_the_file_is_held_durably(diary):
  pragma = diary._connection.execute
  assert pragma('PRAGMA journal_mode').get == 'wal'
  assert pragma('PRAGMA synchronous').get == 2  # FULL
  assert pragma('PRAGMA foreign_keys').get == 1
