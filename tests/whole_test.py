"""What was acknowledged and is not there, or not as it was, does not pass for a whole diary."""

from __future__ import annotations

import json
import os
import random
import shutil

import hypothesis
import hypothesis.strategies as st
import pytest

from dreaming import types
from dreaming.memory import log, rescue, schema, tables, whole
from dreaming.memory.diary import Diary

PAGE = 4096
LONG = 'a long story '


def fill(diary, count=60, first=0):
  for i in range(first, first + count):
    with diary.transaction():
      e = diary.append(
        time=1.7e9 + i,
        speaker='Ana',
        content=f'word{i} {LONG * 600 if i % 10 == 0 else LONG}',
        media=[types.Media(kind='image', digest='00', description='é')] if i % 7 == 0 else (),
      )
      diary.set_scores(e.id, types.Scores(importance=5.0, rater='r'))


@pytest.fixture
def path(tmp_path):
  path = tmp_path / 'life' / 'diary.sqlite'
  with Diary(path) as diary:
    fill(diary)
  return path


def killed(path, count=40):
  """The same, going on, and killed: what it wrote last is in the log alone."""
  with Diary(path) as diary:
    fill(diary, count, 100)
    files = {p: p.read_bytes() for p in path.parent.iterdir() if p.name[-4:] != '-shm'}
  for p, data in files.items():
    p.write_bytes(data)
  assert path.with_name('diary.sqlite-wal').stat().st_size > 0


def harm(path, how):
  data = bytearray(path.read_bytes())
  how(data)
  path.write_bytes(data)


def at(text, data):
  return bytes(data).rindex(text.encode())


def state(path):
  names = [path, path.with_name(f'{path.name}-wal'), whole.mark_of(path)]
  return [p.read_bytes() if p.exists() else b'' for p in names]


def contents(path):
  with Diary(path) as diary:
    return {e.id: e.content for e in diary.experiences()}


# ---- What is noticed ----


def flip(data):
  data[at(f'word33 {LONG}', data)] ^= 1


def zero_the_end_of_a_text(data):
  """The last page of a long text: its checksum is right, and so is the tree."""
  last = [i for i in range(0, len(data), PAGE) if data[i : i + 4] == b'\0\0\0\0' and data[i + 4]]
  data[last[-1] : last[-1] + PAGE] = bytes(PAGE)


def empty(data):
  data.clear()


def cut(data):
  del data[-2 * PAGE :]


@pytest.mark.parametrize('how', [flip, zero_the_end_of_a_text, cut])
@pytest.mark.parametrize('in_order', [True, False])
def test_a_changed_file_is_refused_as_it_is(path, how, in_order):
  if not in_order:
    killed(path)
  harm(path, how)
  before = state(path)
  with pytest.raises(ValueError, match='damaged.*rescue') as error:
    Diary(path)
  assert state(path) == before
  assert '\n' not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize('in_order', [True, False])
def test_an_empty_or_missing_file_is_not_a_new_diary(path, in_order):
  if not in_order:
    killed(path)
  harm(path, empty)
  before = state(path)
  with pytest.raises(ValueError, match=r'gone or empty.*\.mark'):
    Diary(path)
  assert state(path) == before
  path.unlink()
  with pytest.raises(ValueError, match='gone or empty'):
    Diary(path)
  assert not path.exists()


def log_flip(data):
  data[32 + 5 * (PAGE + 24) + 200] ^= 1


def log_header(data):
  data[9] ^= 1


def log_last(data):
  data[-100] ^= 1


@pytest.mark.parametrize('how', [log_flip, log_header, log_last, empty])
def test_a_damaged_log_is_not_taken_for_its_end(path, how):
  killed(path)
  harm(path.with_name('diary.sqlite-wal'), how)
  before = state(path)
  with pytest.raises(ValueError, match='of the .* writes that were acknowledged'):
    Diary(path)
  assert state(path) == before
  whole.mark_of(path).unlink()  # the way out that the message tells
  with Diary(path) as diary:
    assert diary.remark == ''


def test_an_older_copy_and_another_diary_are_noticed(path):
  old = path.read_bytes()
  with Diary(path) as diary:
    fill(diary, 1, 100)
  new = path.read_bytes()
  path.write_bytes(old)
  with pytest.raises(ValueError, match='older copy'):
    Diary(path)
  with Diary(path.with_name('other.sqlite')) as diary:
    fill(diary)
  shutil.copyfile(path.with_name('other.sqlite'), path)
  with pytest.raises(ValueError, match='another one'):
    Diary(path)
  path.write_bytes(new)
  assert len(contents(path)) == 61


def test_what_is_damaged_while_it_is_open_is_noticed_when_it_is_read(path):
  with Diary(path) as diary:
    harm(path, flip)
    diary._run('PRAGMA shrink_memory')
    with pytest.raises(ValueError, match='damaged'):
      diary.experiences()
  with pytest.raises(ValueError, match='damaged'):
    Diary(path)


def test_what_is_damaged_while_nothing_is_written_is_noticed_at_the_next_opening(path):
  with Diary(path):
    harm(path, flip)
  with pytest.raises(ValueError, match='damaged'):
    Diary(path)


def test_what_is_damaged_while_it_is_open_is_not_taken_for_what_was_closed(path):
  with Diary(path) as diary:
    harm(path, flip)
    fill(diary, 1, 100)
  assert whole.read_mark(path).closed == ''
  with pytest.raises(ValueError, match='damaged'):
    Diary(path)


def test_a_harmless_change_is_told(path):
  harm(path, lambda data: data.extend(b'x' * 5000))
  with Diary(path) as diary:
    assert 'changed after it was closed' in diary.remark and len(diary.experiences()) == 60
  with Diary(path) as diary:
    assert diary.remark == ''


@pytest.mark.parametrize(
  'text', [b'', b'\xff' * 300, b'{"identity": 1, "writes": 2, "closed": ""}', b'[' * 200, b'{}']
)
def test_a_damaged_mark_does_no_harm(path, text):
  whole.mark_of(path).write_bytes(text)
  assert len(contents(path)) == 60
  assert whole.read_mark(path).closed


def test_a_mark_is_of_the_file_only_when_it_was_closed(path):
  assert whole.read_mark(path).closed == whole.file_digest(path)
  with Diary(path) as diary:
    writes = whole.read_mark(path).writes
    assert not whole.read_mark(path).closed
    fill(diary, 1, 100)
    assert whole.read_mark(path).writes == writes + 1
    with Diary(path):
      pass
    assert not whole.read_mark(path).closed  # it is open here
  assert whole.read_mark(path).closed == whole.file_digest(path)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
  text=st.text(st.characters(exclude_categories=('Cs',)), min_size=1),
  time=st.sampled_from([0.0, -0.0, 1.5, 1e10, -1e9]),
)
def test_any_experience_has_its_digest(tmp_path_factory, text, time):
  hypothesis.assume(text.strip())
  path = tmp_path_factory.mktemp('d') / 'diary.sqlite'
  with Diary(path) as diary:
    media = [types.Media(kind=text, digest=text, description=text)] * 2
    metadata = {text: [text]}
    diary.append(
      time=time, speaker=text, content=text, response=text, media=media, metadata=metadata
    )
    sql = f'SELECT count(*) FROM experiences WHERE digest = {whole.DIGEST}'
    assert diary._run(sql) == [(1,)]


# ---- The log ----


def test_a_whole_log_is_read_as_sqlite_reads_it(path):
  killed(path)
  pages, count = log.pages(path.with_name('diary.sqlite-wal').read_bytes(), PAGE)
  with Diary(path):
    pass  # which writes the log into the file
  data = path.read_bytes()
  assert len(data) == count * PAGE and len(pages) > 20
  for number, page in pages.items():
    written = data[(number - 1) * PAGE : number * PAGE]
    assert page.whole and log.is_sealed(written)
    assert page.data[100:-8] == written[100:-8]


@pytest.mark.parametrize('data', [b'', b'x', bytes(32), bytes(5000), os.urandom(20_000)])
def test_of_what_is_no_log_no_page_is_believed(data):
  pages, _ = log.pages(data, PAGE)
  assert not any(page.whole and any(page.data) for page in pages.values())


# ---- Rescue ----


def test_rescue_keeps_the_damaged_file_and_all_that_is_right(path):
  before = contents(path)
  harm(path, flip)
  damaged = path.read_bytes()
  done = rescue.rescue(path)
  assert done.kept.read_bytes() == damaged
  left = contents(path)
  assert set(before.items()) >= set(left.items()) and set(before) - set(left) == {34}
  assert done.damaged_ids == (34,) and done.experiences == 59
  (line,) = done.damaged.read_text().splitlines()
  assert json.loads(line)['id'] == 34
  with Diary(path) as diary:
    assert {*diary.by_words('word1', 5)} == {2}
    assert diary.experience(1).media[0].description == 'é'
    assert diary.append(time=1.0, speaker='x', content='x').id == 61


def log_number(data):
  """Of one of the last pages: it is another one's from now on."""
  data[-7 * (PAGE + 24) + 3] ^= 1


@pytest.mark.parametrize('how', [log_flip, log_header, log_last, log_number])
def test_rescue_finds_what_stands_behind_a_damaged_page_of_the_log(path, how):
  killed(path)
  harm(path.with_name('diary.sqlite-wal'), how)
  done = rescue.rescue(path)
  assert done.experiences >= 98  # of 100: what is on the one page may be lost
  for id, text in contents(path).items():
    assert text.startswith(f'word{id - 1 if id <= 60 else id + 39} ')


def test_rescue_refuses_what_it_cannot_read(path):
  path.write_bytes(b'PK\3\4' + os.urandom(50_000))
  before = state(path)
  with pytest.raises(ValueError, match=r'nothing of .* can be read'):
    rescue.rescue(path)
  assert state(path) == before and len([*path.parent.iterdir()]) == 2


def test_a_whole_diary_is_not_rescued(path):
  before = state(path)
  with pytest.raises(ValueError, match='is whole: there is nothing to rescue'):
    rescue.rescue(path)
  assert state(path) == before


def test_rescue_takes_no_other_life(path):
  killed(path)
  with Diary(path.with_name('other.sqlite')) as diary:
    fill(diary, 90, 500)
  shutil.copyfile(path.with_name('other.sqlite'), path)  # under the log of the one that was here
  before = state(path)
  with pytest.raises(ValueError, match='another diary'):
    rescue.rescue(path)
  assert state(path) == before


def test_a_kill_while_the_rescued_one_is_put_in_place_is_told(path, monkeypatch):
  harm(path, flip)
  real = os.rename
  for target in (path, whole.mark_of(path)):

    def rename(old, new, target=target):
      if new == target:
        raise KeyboardInterrupt
      real(old, new)

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
      m.setattr(os, 'rename', rename)
      rescue.rescue(path)
    with pytest.raises(ValueError, match=r'gone or empty|another one'):
      Diary(path)
    (kept,) = path.parent.glob('*.broken-*[0-9]')
    real(kept, path)
    whole.mark_of(kept).unlink()
    kept.with_name(f'{kept.name}.jsonl').unlink()
  assert rescue.rescue(path).experiences == 59


def test_a_rescued_night_still_counts_and_an_unapproved_text_stays_so(path):
  with Diary(path) as diary:
    night = diary.begin_night({})
    diary.promote(manifest(night), [1, 2], night)
    foreign = diary.append(time=1.0, speaker='x', content='foreign', trust=types.Trust.IMPORTED)
  harm(path, flip)
  rescue.rescue(path)
  with Diary(path) as diary:
    assert diary.active() == 1 and diary.experience(1).night == night
    assert diary.experience(foreign.id).trust is types.Trust.IMPORTED
    # On the damaged page nobody can tell who had approved what.
    assert {e.trust for e in diary.experiences()} == {types.Trust.IMPORTED, types.Trust.USER}
    assert 1 < len(diary.unapproved()) < 50


def test_what_a_rescue_cannot_read_is_told_by_its_table(path):
  """A table without numbers: what lies between both ends is not known to be missing by itself."""
  with Diary(path) as diary:
    night = diary.begin_night({})
    for i in range(30):
      diary.set_night_step(night, f'step{i:02d}', {'left': f'{i} ' + 'payload ' * 400})
    diary.end_night(night, 'rejected', {})

  def flip_one(data):
    data[at('"left": "20 payload', data) + 12] ^= 1

  harm(path, flip_one)
  done = rescue.rescue(path)
  assert done.left == {'night_steps': 1}
  with Diary(path) as diary:
    left = diary.night(night).payloads
    assert {'step00', 'step29'} <= left.keys() and 'step20' not in left


def manifest(night):
  return types.Manifest(
    number=1, parent=None, night=night, created=1.0, base='b', sources=(1, 2), seed=0, files={},
    lora={}, scores={}, config={},
  )  # fmt: skip


def test_random_damage_never_passes_and_is_rescued_truly(path):
  """A few of what benchmarks/diary_faults.py does in hundreds."""
  before, original = contents(path), path.read_bytes()
  mark = whole.mark_of(path).read_bytes()
  rng = random.Random(0)
  for _ in range(12):
    data = bytearray(original)
    for _ in range(rng.randint(1, 4)):
      data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    whole.mark_of(path).write_bytes(mark)
    try:
      found = contents(path)
    except ValueError:
      rescue.rescue(path)
      assert set(before.items()) >= set(contents(path).items())
    else:
      assert found == before


# ---- Versions ----


def test_where_there_are_no_checksums_none_are_left_to_go_stale(path, monkeypatch):
  monkeypatch.setattr(whole, 'vfs', lambda: None)
  with pytest.raises(ValueError, match='cannot write: install'):
    Diary(path)
  bare = path.with_name('bare.sqlite')
  with Diary(bare) as diary:
    fill(diary)
  harm(bare, flip)
  with pytest.raises(ValueError, match='digest'):
    Diary(bare)


def test_an_earlier_version_gets_its_checksums_and_digests(tmp_path):
  import apsw

  path = tmp_path / 'diary.sqlite'
  db = apsw.Connection(str(path), vfs='unix')
  db.execute('PRAGMA journal_mode = WAL')
  db.execute(tables.FIRST)
  db.execute(tables.SECOND)
  db.execute(f'PRAGMA application_id = {schema.APPLICATION_ID}')
  db.execute('PRAGMA user_version = 2')
  for i in range(50):
    db.execute(
      'INSERT INTO experiences (time, kind, speaker, content, response, trust, session, metadata)'
      " VALUES (?, 'chat', 'Ana', ?, '', 2, 's', '{}')",
      (i, f'word{i} {LONG * 20}'),
    )
  db.close()
  assert path.read_bytes()[20] == 0
  assert len(contents(path)) == 50
  assert path.read_bytes()[20] == whole.RESERVED
  harm(path, flip)
  whole.mark_of(path).unlink()  # so that the checksum alone tells
  with pytest.raises(ValueError, match='checksum'):
    Diary(path)
