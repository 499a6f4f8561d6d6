"""Days: the loader, the judge of answers, and the rules that the shipped days keep."""

from __future__ import annotations

import collections
import json
import pathlib
import re

import pytest

from dreaming import days

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAM = pathlib.Path(days.__file__).parent / 'sleep' / 'exam'
SHIPPED = ('priya', 'tomas')
DEVELOPMENT = tuple(sorted(p.stem for p in (ROOT / 'benchmarks' / 'days').glob('*.json')))

GOOD = {
  'user': 'Ana',
  'interactions': [
    {'time': '2026-03-02T09:10:00', 'text': 'I have a goat.'},
    {'time': '2026-03-02T10:10:00+01:00', 'text': 'Hm.', 'response': 'Yes?', 'user': 'Bo'},
  ],
  'probes': [{'question': 'What animal?', 'answers': ['goat'], 'about': [0]}],
  'never_mentioned': [{'question': 'Which sea?', 'wrong': ['goat']}],
}


def _write(path: pathlib.Path, value) -> pathlib.Path:
  path.write_text(value if isinstance(value, str) else json.dumps(value), encoding='utf-8')
  return path


# --- The loader ----------------------------------------------------------------------------------


def test_load_reads_every_field(tmp_path):
  path = _write(tmp_path / 'day.json', GOOD)
  day = days.load(path)
  assert (day.user, day.path) == ('Ana', path)
  first, second = day.interactions
  assert (first.text, first.response, first.user) == ('I have a goat.', '', 'Ana')
  assert (second.response, second.user) == ('Yes?', 'Bo')
  assert first.time == second.time == 1772442600.0  # UTC without an offset
  assert day.probes == (days.Probe(question='What animal?', answers=('goat',), about=(0,)),)
  assert day.never_mentioned == (days.NeverMentioned(question='Which sea?', wrong=('goat',)),)


def test_load_takes_a_day_without_user_probes_and_never_mentioned(tmp_path):
  day = days.load(_write(tmp_path / 'day.json', {'interactions': GOOD['interactions']}), user='Eve')
  assert (day.user, day.interactions[0].user, day.interactions[1].user) == ('Eve', 'Eve', 'Bo')
  assert day.probes == day.never_mentioned == ()


@pytest.mark.parametrize(
  'change, words',
  [
    ({'interactions': []}, 'interactions is []'),
    ({'interactions': 'hello'}, "interactions is 'hello'"),
    ({'interactions': [5]}, 'interactions[0] is 5'),
    ({'interactions': [{'time': '2026-03-02'}]}, "add the field 'text'"),
    ({'interactions': [{'time': '2026-13-02', 'text': 'x'}]}, "[0]: time is '2026-13-02'"),
    ({'interactions': [{'time': 1772442600, 'text': 'x'}]}, 'time is 1772442600'),
    ({'interactions': [{'time': '2026-03-02', 'text': ' '}]}, "text is ' '"),
    ({'interactions': [{'time': '2026-03-02', 'text': 'a\ud800'}]}, r"text is 'a\ud800'"),
    ({'interactions': [{'time': '2026-03-02', 'text': 'x', 'mood': 1}]}, "field is 'mood'"),
    ({'interactions': [{'time': '2026-03-02', 'text': 'x', 'response': None}]}, 'response is None'),
    (
      {'interactions': GOOD['interactions'] + [{'time': '2026-03-01', 'text': 'x'}]},
      "interactions[2]: time is '2026-03-01': earlier",
    ),
    ({'probes': [{'question': 'q', 'answers': [], 'about': [0]}]}, 'probes[0]: answers is []'),
    ({'probes': [{'question': 'q', 'answers': 'goat', 'about': [0]}]}, "answers is 'goat'"),
    ({'probes': [{'question': 'q', 'answers': ['a', ''], 'about': [0]}]}, "answers[1] is ''"),
    ({'probes': [{'question': 'q', 'answers': ['a'], 'about': []}]}, 'about is []'),
    ({'probes': [{'question': 'q', 'answers': ['a'], 'about': [2]}]}, 'about is 2: give 0 to 1'),
    ({'probes': [{'question': 'q', 'answers': ['a'], 'about': [-1]}]}, 'about is -1'),
    ({'probes': [{'question': 'q', 'answers': ['a'], 'about': [True]}]}, 'about[0] is True'),
    ({'probes': [{'question': 'q', 'answers': ['a']}]}, "add the field 'about'"),
    ({'never_mentioned': [{'question': 'q', 'wrong': []}]}, 'never_mentioned[0]: wrong is []'),
    ({'user': 7}, 'user is 7'),
    ({'usr': 'Ana'}, "field is 'usr'"),
  ],
)
def test_load_refuses_in_one_line_that_names_file_and_value(tmp_path, change, words):
  path = _write(tmp_path / 'day.json', GOOD | change)
  with pytest.raises(ValueError) as caught:
    days.load(path)
  line = str(caught.value)
  assert line.startswith(str(path)) and words in line and '\n' not in line
  assert len(line) < len(str(path)) + 200


@pytest.mark.parametrize('text', ['', '{"user": ', '[' * 100_000, '[]', '"day"', 'null'])
def test_load_refuses_what_is_no_day(tmp_path, text):
  with pytest.raises(ValueError, match='day.json') as caught:
    days.load(_write(tmp_path / 'day.json', text))
  assert '\n' not in str(caught.value)


def test_load_refuses_bad_utf8_missing_files_and_folders(tmp_path):
  (tmp_path / 'latin.json').write_bytes(b'{"user": "Tom\xe1s"}')
  with pytest.raises(ValueError, match='latin.json is not JSON in UTF-8'):
    days.load(tmp_path / 'latin.json')
  for path in (tmp_path / 'none.json', tmp_path):
    with pytest.raises(FileNotFoundError, match='no day at'):
      days.load(path)


def test_load_refuses_a_huge_file_unread(tmp_path):
  path = _write(tmp_path / 'day.json', GOOD)
  with open(path, 'r+b') as f:
    f.truncate(days.MAX_FILE_BYTES + 1)
  with pytest.raises(ValueError, match='10000001.*limit is 10000000'):
    days.load(path)


def test_long_values_are_cut_in_errors(tmp_path):
  with pytest.raises(ValueError) as caught:
    days.load(_write(tmp_path / 'day.json', GOOD | {'user': ['x' * 100_000]}))
  assert len(str(caught.value)) < len(str(tmp_path)) + 200


# --- The judge -----------------------------------------------------------------------------------


@pytest.mark.parametrize('reply', ['A GOAT.', 'goat', 'It is a "goat".', "a goat's", 'Goat?'])
def test_right(reply):
  assert days.is_right(reply, ['cow', 'Goat'])


@pytest.mark.parametrize('reply', ['', 'Goats.', 'scapegoat', 'goat_1', 'Cow. Goat.', 'Cow\nGoat'])
def test_not_right(reply):
  assert not days.is_right(reply, ['goat'])


def test_answers_of_several_words_numbers_and_accents():
  assert days.is_right('on  march\t14 we go', ['March 14'])
  assert not days.is_right('on march 140', ['March 14'])
  assert days.is_right('At 14, it is.', ['14']) and days.is_right('It costs 14.', ['14'])
  for reply in ('14.5 km', '3.14', '1,014', '14:30', '14th'):
    assert not days.is_right(reply, ['14'])
  assert days.is_right('INÉS', ['Inés']) and days.is_right('Ine\u0301s', ['Inés'])
  assert not days.is_right('Ines', ['Inés'])
  assert days.is_right('STRASSE', ['Straße'])
  assert days.is_right('a c++ (old) book', ['C++ (old)'])  # answers are text, not patterns


def test_no_answers_are_never_right_and_a_bare_text_is_refused():
  assert not days.is_right('goat', []) and not days.is_right('goat', ['', ' '])
  with pytest.raises(ValueError, match='pass a list'):
    days.is_right('goat', 'goat')


# --- The shipped days ----------------------------------------------------------------------------

FUNCTION_WORDS = frozenset(
  'a about am an and any are as at be been before being by can could did do does during for from '
  'had has have he her hers him his how i if in is it its me must my never next not now of off on '
  'or our out '
  'she should so some than that the their them there they this to up was we were what when where '
  'which while who whom whose why will with would you your'.split()
)


OWN_VOICE = {'I', 'me', 'my'}


def _words(text: str) -> list[str]:
  return re.findall(r"\w+(?:[-'’]\w+)*", re.sub(r"['’]s\b", '', text))


def _stem(word: str) -> str:
  """Coarse on purpose: 'lives', 'lived' and 'living' are one word."""
  word = word.casefold()
  return re.sub(r'(?:ing|ied|ies|ed|es|s|e|y)$', '', word) if len(word) > 4 else word


def _named(day: days.Day, probe: days.Probe) -> set[str]:
  """The names that a question can't do without: they stand in the messages it is about."""
  about = _words(' '.join(day.interactions[i].text for i in probe.about))
  return {w for w in _words(probe.question)[1:] if w != 'I' and w[0].isupper() and w in about}


def _day(name: str) -> days.Day:
  folder = ROOT / 'benchmarks' / 'days' if name in DEVELOPMENT else ROOT / 'days'
  return days.load(folder / f'{name}.json')


def test_stems_see_through_endings():
  assert _stem('lives') == _stem('living') == _stem('lived') != _stem('lift')


@pytest.mark.parametrize('name', SHIPPED + DEVELOPMENT)
def test_a_day_is_a_day(name):
  day = _day(name)
  assert len(day.interactions) == 20
  assert all(len(x.text) < 200 and not x.response for x in day.interactions)
  assert len({x.text for x in day.interactions}) == 20
  told = {i for p in day.probes for i in p.about}
  assert 9 <= len(told) <= 13  # the rest is small talk
  assert any(len(p.about) == 2 for p in day.probes)  # a correction


@pytest.mark.parametrize('name', SHIPPED + DEVELOPMENT)
def test_every_fact_has_three_different_questions(name):
  day = _day(name)
  per_fact = collections.Counter(p.about for p in day.probes)
  assert len(per_fact) == 10 and set(per_fact.values()) == {3}
  assert len({i for about in per_fact for i in about}) == sum(map(len, per_fact))  # none shared
  assert len({p.question for p in day.probes}) == 30
  own = sum(bool(OWN_VOICE & set(_words(p.question))) for p in day.probes)
  assert 5 <= own <= 7  # about a fifth
  for p in day.probes:
    assert OWN_VOICE & set(_words(p.question)) or day.user in p.question or _named(day, p)


@pytest.mark.parametrize('name', SHIPPED + DEVELOPMENT)
def test_questions_are_in_unseen_words(name):
  day = _day(name)
  text = ' '.join(x.text for x in day.interactions)
  seen = {_stem(w) for w in _words(text)} | {_stem(w) for w in re.findall(r'\w+', text)}
  for probe in day.probes:
    named = _named(day, probe)
    content = set(_words(probe.question)) - named - {day.user}
    content = {w for w in content if w.casefold() not in FUNCTION_WORDS}
    known = sorted(w for w in content for part in [w, *w.split('-')] if _stem(part) in seen)
    assert not known, f'{probe.question} says {known}, which occur in the day'
    assert content or named
    for answer in probe.answers:
      assert not days.is_right(probe.question.rstrip('?'), [answer]), 'the question tells'


@pytest.mark.parametrize('name', SHIPPED + DEVELOPMENT)
def test_answers_stand_in_what_the_probe_is_about_and_nowhere_else(name):
  day = _day(name)
  texts = [re.sub(r'[.!?,:;]+(\s|$)', ' ', x.text) for x in day.interactions]  # one sentence each
  for probe in day.probes:
    # Of a corrected fact only the newest message has the answer: the older ones said otherwise.
    telling = [i for i, text in enumerate(texts) if days.is_right(text, probe.answers)]
    assert telling == [probe.about[-1]], probe.question


@pytest.mark.parametrize('name', SHIPPED + DEVELOPMENT)
def test_never_mentioned_questions_are_about_unsaid_things(name):
  day = _day(name)
  text = ' '.join(x.text for x in day.interactions)
  stems = {_stem(w) for w in _words(text)}
  accepted = {a for p in day.probes for a in p.answers}
  assert len({n.question for n in day.never_mentioned}) == 10
  assert not {n.question for n in day.never_mentioned} & {p.question for p in day.probes}
  for never in day.never_mentioned:
    assert never.wrong and (day.user in never.question or name in DEVELOPMENT)  # or of others
    for wrong in never.wrong:
      said = all(_stem(w) in stems for w in _words(wrong))
      written_otherwise = re.fullmatch(r'\d+|[a-z-]+th|Oct', wrong)  # a date that is told as '12th'
      assert said or wrong in accepted or written_otherwise, wrong


# --- The general exam ----------------------------------------------------------------------------


def test_general_questions_are_many_different_and_do_not_tell():
  exam = json.loads((EXAM / 'general.json').read_text(encoding='utf-8'))
  assert len(exam) == len({x['question'] for x in exam}) >= 30
  for x in exam:
    assert set(x) == {'question', 'answers'} and x['question'].endswith('?')
    assert x['answers'] and all(isinstance(a, str) and a.strip() for a in x['answers'])
    assert not days.is_right(x['question'], x['answers']), x['question']


def test_generic_text_is_long_varied_and_apart_from_the_days():
  text = (EXAM / 'generic.txt').read_text(encoding='utf-8')
  paragraphs = text.strip().split('\n\n')
  assert 1500 <= len(text.split()) <= 2200 and len(set(paragraphs)) == len(paragraphs) >= 15
  for name in SHIPPED:
    day = _day(name)
    assert not {day.user} & set(_words(text))
    assert not {a for p in day.probes for a in p.answers if a[0].isupper()} & set(_words(text))
