"""Lives: the same seed tells the same, evidence is sound, and files are checked line by line."""

from __future__ import annotations

import collections
import datetime
import itertools
import json
import pathlib
import random
import sys

import pytest

from benchmarks import ask, difficulty, grammar, lives, tales

GOOD = {
  'user': 'Nora',
  'experiences': [
    {'time': '2025-02-04T19:10:00', 'content': 'We have got a new dog.'},
    {'time': '2025-02-04T20:11:00+01:00', 'content': 'He is called Basil.', 'speaker': 'Sam'},
  ],
  'questions': [{'question': "What is our dog's name?", 'evidence': [1], 'kind': 'neighbour'}],
}


@pytest.fixture(scope='module')
def dev() -> lives.Life:
  return lives.life(0)


@pytest.fixture(scope='module')
def test() -> lives.Life:
  return lives.life(lives.TEST_SEED)


@pytest.fixture(scope='module', params=[0, lives.TEST_SEED])
def life(request, dev, test) -> lives.Life:
  return test if request.param else dev


# --- Made up -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_life(tmp_path, dev):
  lives.save(dev, tmp_path / 'a.json')
  lives.save(lives.life(0), tmp_path / 'b.json')
  assert (tmp_path / 'a.json').read_bytes() == (tmp_path / 'b.json').read_bytes()
  written = {x['content'] for x in grammar.texts('handwritten')}
  mine = {x.content for x in dev.experiences} - written
  other = {x.content for x in lives.life(1).experiences} - written
  assert len(mine & other) < 0.4 * len(mine)  # small talk is alike in all lives


@pytest.mark.parametrize('count', [1, 2, 3, 17, 300, 400, 1000, 2500])
def test_a_life_has_as_many_experiences_as_asked_for_in_the_order_of_time(count):
  told = lives.life(5, count)
  assert len(told.experiences) == count
  times = [x.time for x in told.experiences]
  assert times == sorted(times)
  assert tales.START.timestamp() <= times[0] and times[-1] < ask.END.timestamp()
  assert tuple(lives.stream(5, count)) == told.experiences
  written = [q for q in told.questions if q.question in HAND_QUESTIONS]
  assert len(written) == (60 if count >= tales.HANDWRITTEN_FROM else 0)


def test_a_session_is_one_stretch_of_one_day(life):
  seen = set()
  for session, some in itertools.groupby(life.experiences, key=lambda x: x.session):
    assert session not in seen
    seen.add(session)
    days = {datetime.datetime.fromtimestamp(x.time, datetime.UTC).date() for x in some}
    assert len(days) == 1 and session.startswith(str(*days))


def test_a_life_has_a_year_of_many_days_speakers_and_words(life):
  days = {int(x.time // 86400) for x in life.experiences}
  assert len(days) > 250 and (max(days) - min(days)) > 350
  speakers = collections.Counter(x.speaker for x in life.experiences)
  assert speakers.most_common(1)[0][0] == life.user
  assert len(speakers) > 10 and speakers[life.user] > 900
  assert len({x.content for x in life.experiences}) > 900
  assert all(x.content.strip() and x.response.strip() for x in life.experiences)
  assert not any(c in x.content + x.response for x in life.experiences for c in '[]|{}')


@pytest.mark.parametrize('bad', [-1, 1.0, '0', True])
def test_a_bad_seed_is_refused(bad):
  with pytest.raises(ValueError, match=f'seed is {bad!r}: give a whole number'):
    lives.life(bad, 10)


@pytest.mark.parametrize('bad', [0, -1, 10.0, '10', True, lives.MAX_COUNT + 1])
def test_a_bad_count_is_refused(bad):
  with pytest.raises(ValueError, match=f'count is {bad!r}: give 1 to 1000000'):
    next(lives.stream(0, bad))


# --- Questions -----------------------------------------------------------------------------------

HAND_QUESTIONS = {x['question']: x for x in grammar.texts('questions')}


def test_there_are_200_questions_of_the_kinds_that_were_promised(life):
  assert len(life.questions) == lives.GENERATED + 60
  kinds = collections.Counter(q.kind for q in life.questions)
  assert set(kinds) == set(lives.KINDS)
  assert kinds['time'] == 30 and kinds['correction'] == 30 and kinds['speaker'] == 20
  assert 30 <= kinds['neighbour'] <= 34


def test_evidence_was_told_before_it_was_asked(life):
  for q in life.questions:
    assert q.evidence and list(q.evidence) == sorted(set(q.evidence))
    assert 0 <= q.evidence[0] and q.evidence[-1] < life.known(q) <= len(life.experiences)
    n = life.known(q)
    assert life.experiences[n - 1].time <= q.asked
    assert n == len(life.experiences) or life.experiences[n].time > q.asked


def test_what_is_not_about_time_is_asked_with_the_whole_life_to_distract(life):
  mine = [q for q in life.questions if q.question not in HAND_QUESTIONS]
  assert all(life.known(q) == len(life.experiences) for q in mine if q.kind != 'time')
  assert all(life.known(q) > 250 for q in mine)


def test_no_question_stands_in_the_life_and_none_is_asked_twice(life):
  said = {x.content.casefold() for x in life.experiences}
  assert not any(q.question.casefold() in text for q in life.questions for text in said)
  assert len({(q.question, q.asked) for q in life.questions}) == len(life.questions)
  mine = [q for q in life.questions if q.kind != 'time']  # 'yesterday' may be asked twice
  assert len({q.question for q in mine}) == len(mine)


def test_a_correction_has_only_its_newest_telling_as_evidence(life):
  for q in life.questions:
    if q.kind == 'correction':
      assert len(q.evidence) == 1


def test_speaker_questions_are_answered_by_another_speaker(life):
  for q in life.questions:
    if q.kind == 'speaker':
      speakers = {life.experiences[i].speaker for i in q.evidence}
      assert life.user not in speakers and len(speakers) == 1
      assert 'Mum' in speakers or speakers.pop() in q.question


def test_neighbours_stand_directly_before_their_evidence_in_the_same_session(life):
  for q in life.questions:
    if q.kind == 'neighbour':
      for i in q.evidence:
        assert life.experiences[i].session == life.experiences[i - 1].session


def test_handwritten_evidence_is_the_handwritten_text(life):
  hand = grammar.texts('handwritten')
  for q in life.questions:
    if q.question in HAND_QUESTIONS:
      want = {hand[i]['content'] for i in HAND_QUESTIONS[q.question]['evidence']}
      assert {life.experiences[i].content for i in q.evidence} == want


def test_dev_and_test_share_no_question_and_no_wording(dev, test):
  def questions(life, split):
    return {q.question for q in life.questions if q.split == split}

  assert not questions(dev, 'dev') & questions(test, 'test')
  hand = collections.Counter(x['split'] for x in grammar.texts('questions'))
  assert hand == {'dev': 30, 'test': 30}
  assert len(questions(dev, 'test')) == len(questions(test, 'dev')) == 30  # the handwritten ones
  for source in (*grammar.texts('stories'), *grammar.texts('talk')['logs']):
    for x in source.get('asks', [source]):
      assert x['dev'] != x['test']


def test_every_text_parses_and_every_question_has_its_evidence():
  for story in grammar.texts('stories'):
    turns = [t for b in story['beats'] for t in b['turns'] if not isinstance(t, str)]
    keys = [t['key'] for t in turns if 'key' in t]
    assert len(keys) == len(set(keys)), story['id']
    for asked in story['asks']:
      assert asked['kind'] in lives.KINDS and set(asked['of']) <= set(keys), story['id']
      for split in lives.SPLITS:
        assert grammar.parse(asked[split]) and asked[split].endswith('?')
  for bad in ('a [b', 'a b]', 'a | b'):
    with pytest.raises(ValueError, match='that'):
      grammar.parse(bad)


def test_choices_go_round_and_unknown_slots_are_refused():
  say = grammar.Voice(random.Random(0))
  assert {say('[a|b|c {x}].', {'x': 'd'}) for _ in range(12)} == {'A.', 'B.', 'C d.'}
  assert say('a {x} ,  and A {y}.', {'x': 'egg', 'y': 'owl?'}) == 'An egg, and An owl?'
  with pytest.raises(KeyError):
    say('{nothing}', {})


def test_what_words_about_time_mean():
  t = datetime.datetime(2025, 10, 18, 19, tzinfo=datetime.UTC)  # a Saturday
  found = {p: (asked, inside) for p, asked, inside, _ in ask._phrases(t, random.Random(0), False)}
  assert all(inside(t) and t < asked for asked, inside in found.values())
  asked, inside = found['last weekend']
  assert 0 <= asked.weekday() <= 3 and asked.date() > datetime.date(2025, 10, 19)
  assert inside(t + ask.DAY) and not inside(t - ask.DAY) and not inside(t + 2 * ask.DAY)
  assert found['yesterday'][0].date() == datetime.date(2025, 10, 19)
  assert 'in October' in found and 'in the middle of October' in found and 'on 18 October' in found
  assert not found['in October'][1](t + 14 * ask.DAY)


# --- Files ---------------------------------------------------------------------------------------


def _write(path: pathlib.Path, value) -> pathlib.Path:
  path.write_text(value if isinstance(value, str) else json.dumps(value), encoding='utf-8')
  return path


def test_a_life_comes_back_from_its_file(tmp_path, dev):
  lives.save(dev, tmp_path / 'x' / 'life.json')
  assert lives.load(tmp_path / 'x' / 'life.json') == dev
  assert [p.name for p in (tmp_path / 'x').iterdir()] == ['life.json']


def test_load_fills_in_what_is_left_out(tmp_path):
  told = lives.load(_write(tmp_path / 'life.json', GOOD))
  first, second = told.experiences
  assert (first.speaker, second.speaker, first.response) == ('Nora', 'Sam', '')
  assert first.session == second.session == '2025-02-04'
  assert second.time - first.time == 60.0
  (q,) = told.questions
  assert (q.evidence, q.kind, q.split, q.asked) == ((1,), 'neighbour', 'test', second.time + 86400)
  told = lives.load(_write(tmp_path / 'life.json', {'experiences': GOOD['experiences']}))
  assert told.user == told.experiences[0].speaker == 'User' and told.questions == ()


Q = GOOD['questions'][0]


@pytest.mark.parametrize(
  'change, words',
  [
    ({'experiences': []}, 'experiences is []'),
    ({'experiences': 'hello'}, "experiences is 'hello'"),
    ({'experiences': [5]}, 'experiences[0] is 5'),
    ({'experiences': [{'time': '2025-03-02'}]}, "add the field 'content'"),
    ({'experiences': [{'time': '2025-13-02', 'content': 'x'}]}, "time is '2025-13-02'"),
    ({'experiences': [{'time': 5, 'content': 'x'}]}, 'time is 5'),
    ({'experiences': [{'time': '2025-03-02', 'content': ' '}]}, "content is ' '"),
    ({'experiences': [{'time': '2025-03-02', 'content': 'a\ud800'}]}, 'content is'),
    ({'experiences': [{'time': '2025-03-02', 'content': 'x', 'mood': 1}]}, "field is 'mood'"),
    ({'experiences': [{'time': '2025-03-02', 'content': 'x', 'response': 3}]}, 'response is 3'),
    ({'experiences': GOOD['experiences'][::-1]}, '[1]: time is'),
    ({'questions': {}}, 'questions is {}'),
    ({'questions': [Q | {'evidence': []}]}, 'questions[0]: evidence is []'),
    ({'questions': [Q | {'evidence': [2]}]}, 'evidence is 2: give indices from 0 to 1'),
    ({'questions': [Q | {'evidence': [True]}]}, 'evidence is True'),
    ({'questions': [Q | {'evidence': [-1]}]}, 'evidence is -1'),
    ({'questions': [Q | {'asked': '2025-02-04T19:10:30'}]}, 'told only after it was asked'),
    ({'questions': [Q | {'kind': 'odd'}]}, "kind is 'odd': give one of direct"),
    ({'questions': [Q | {'kind': ['direct']}]}, "kind is ['direct']"),
    ({'questions': [Q | {'split': 'train'}]}, "split is 'train'"),
    ({'questions': [{'evidence': [1]}]}, "add the field 'question'"),
    ({'questions': [Q | {'question': ''}]}, "question is ''"),
    ({'user': 7}, 'user is 7'),
    ({'usr': 'Ana'}, "field is 'usr'"),
  ],
)
def test_load_refuses_in_one_line_that_names_file_and_value(tmp_path, change, words):
  path = _write(tmp_path / 'life.json', GOOD | change)
  with pytest.raises(ValueError) as caught:
    lives.load(path)
  line = str(caught.value)
  assert line.startswith(str(path)) and words in line and '\n' not in line
  assert len(line) < len(str(path)) + 250


@pytest.mark.parametrize('text', ['', '{"user": ', '[' * 100_000, '[]', '"life"', 'null'])
def test_load_refuses_what_is_no_life(tmp_path, text):
  with pytest.raises(ValueError, match='life.json') as caught:
    lives.load(_write(tmp_path / 'life.json', text))
  assert '\n' not in str(caught.value)


def test_load_refuses_bad_utf8_missing_files_and_huge_ones(tmp_path):
  (tmp_path / 'latin.json').write_bytes(b'{"user": "Tom\xe1s"}')
  with pytest.raises(ValueError, match='latin.json is not JSON in UTF-8'):
    lives.load(tmp_path / 'latin.json')
  for path in (tmp_path / 'none.json', tmp_path):
    with pytest.raises(FileNotFoundError, match='no life at'):
      lives.load(path)
  path = _write(tmp_path / 'life.json', GOOD)
  with open(path, 'r+b') as f:
    f.truncate(lives.MAX_FILE_BYTES + 1)
  with pytest.raises(ValueError, match=f'the limit is {lives.MAX_FILE_BYTES}'):
    lives.load(path)


# --- How hard ------------------------------------------------------------------------------------


def test_difficulty_counts_what_is_found(capsys):
  x = [lives.Experience(time=float(i), speaker='A', content=c) for i, c in enumerate(TEXTS)]
  ask_ = {'kind': 'direct', 'asked': 99.0, 'split': 'dev'}
  told = lives.Life(
    user='A',
    experiences=tuple(x),
    questions=(
      lives.Question(question='Where do zebras live?', evidence=(0,), **ask_),
      lives.Question(question='What of the bees?', evidence=(0,), **ask_),
    ),
  )
  table = difficulty.report(told)
  assert table['all']['bm25'] == table['all']['overlap'] == 0.5
  assert table['all']['gold'] == 0.5 and table['all']['other'] == 0.5
  assert 'direct' in capsys.readouterr().out


TEXTS = ['Zebras live here.'] + [f'Bees number {i} hum.' for i in range(9)]


# --- The command ---------------------------------------------------------------------------------


def test_the_command_writes_a_life_and_says_how_hard_it_is(tmp_path, monkeypatch, capsys):
  file = tmp_path / 'life.json'
  monkeypatch.setattr(sys, 'argv', ['lives.py', '--seed=7', '--count=40', f'--json={file}'])
  assert lives.main() == 0 and lives.load(file) == lives.life(7, 40)
  monkeypatch.setattr(sys, 'argv', ['lives.py', f'--life={file}', '--check'])
  assert lives.main() == 0 and 'embedding' in capsys.readouterr().out
  monkeypatch.setattr(sys, 'argv', ['lives.py', '--count=0'])
  with pytest.raises(SystemExit):
    lives.main()
  assert 'count is 0' in capsys.readouterr().err
