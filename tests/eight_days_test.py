"""The written lives and passages: eight days, two personas, a questionnaire, invented texts."""

from __future__ import annotations

import collections
import functools
import json
import pathlib
import re

import days_test
import pytest

from dreaming import days

ROOT = pathlib.Path(__file__).resolve().parent.parent
EIGHT = sorted((ROOT / 'days' / 'eight').glob('day*.json'))
PERSONAS = {
  name: sorted((ROOT / 'days' / 'personas' / name).glob('day*.json'))
  for name in ('science', 'irony')
}
ALL = EIGHT + PERSONAS['science'] + PERSONAS['irony']
CORRECTIONS = json.loads((ROOT / 'days' / 'eight' / 'corrections.json').read_text('utf-8'))
QUESTIONNAIRE = json.loads((ROOT / 'days' / 'personas' / 'questionnaire.json').read_text('utf-8'))
PASSAGES = json.loads((ROOT / 'benchmarks' / 'passages.json').read_text('utf-8'))
each_day = pytest.mark.parametrize('path', ALL, ids=lambda p: f'{p.parent.name}-{p.stem}')


def _one_sentence(text: str) -> str:
  return re.sub(r'[.!?,:;]+(\s|$)', ' ', text)  # days.is_right reads the first sentence only


load = functools.cache(days.load)


@functools.cache
def _seen(day: days.Day) -> set[str]:
  text = ' '.join(x.text for x in day.interactions)
  return {days_test._stem(w) for w in days_test._words(text) + re.findall(r'\w+', text)}


def _known(day: days.Day, probe: days.Probe) -> list[str]:
  """The words of a question that the day has said already, names and function words apart."""
  content = set(days_test._words(probe.question)) - days_test._named(day, probe) - {day.user}
  content = {w for w in content if w.casefold() not in days_test.FUNCTION_WORDS}
  seen = _seen(day)
  return sorted(w for w in content for part in [w, *w.split('-')] if days_test._stem(part) in seen)


def _facts(day: days.Day) -> dict[tuple[int, ...], tuple[str, ...]]:
  return {p.about: p.answers for p in day.probes}


# --- Days ----------------------------------------------------------------------------------------


def test_all_files_are_there_and_the_days_of_a_life_follow_each_other():
  assert [len(EIGHT), *map(len, PERSONAS.values())] == [8, 6, 6]
  for life in (EIGHT, *PERSONAS.values()):
    loaded = [load(p) for p in life]
    assert len({d.user for d in loaded}) == 1
    dates = [{int(x.time // 86_400) for x in d.interactions} for d in loaded]
    assert dates == [{min(dates[0]) + n} for n in range(len(life))]
  users = {load(life[0]).user for life in (EIGHT, *PERSONAS.values())}
  others = {days_test._day(n).user for n in ('priya', *days_test.DEVELOPMENT)}
  assert len(users) == 3 and not users & others


@each_day
def test_a_day_has_facts_small_talk_and_questions(path):
  day = load(path)
  eight = path in EIGHT
  assert len(day.interactions) == len({x.text for x in day.interactions}) == (14 if eight else 12)
  assert all(len(x.text) < 200 and not x.response for x in day.interactions)
  per_fact = collections.Counter(p.about for p in day.probes)
  assert len(per_fact) == (8 if eight else 4) and len({p.question for p in day.probes}) == sum(
    per_fact.values()
  )
  assert set(per_fact.values()) <= ({3} if eight else {2, 3})
  assert len({n.question for n in day.never_mentioned}) == (8 if eight else 0)
  for p in day.probes:  # whom it is about can be told from the question alone
    voice = days_test.OWN_VOICE & set(days_test._words(p.question))
    assert voice or day.user in p.question or days_test._named(day, p), p.question


@each_day
def test_questions_are_in_unseen_words_and_do_not_tell(path):
  day = load(path)
  for probe in day.probes:
    assert not _known(day, probe), probe.question
    assert not days.is_right(probe.question.rstrip('?'), probe.answers), probe.question


@each_day
def test_answers_are_short_quotes_from_their_message_and_no_two_facts_share_one(path):
  day = load(path)
  texts = [_one_sentence(x.text) for x in day.interactions]
  for about, answers in _facts(day).items():
    assert days.is_right(texts[about[-1]], answers[:1]), answers
    assert len(answers[0].split()) <= 4
    assert [i for i, t in enumerate(texts) if days.is_right(t, answers)] == [about[-1]], answers
  every = [a.casefold() for answers in _facts(day).values() for a in set(answers)]
  assert len(every) == len(set(every))


def test_a_life_gives_no_two_facts_the_same_answer_nor_asks_one_question_for_two():
  for life in (EIGHT, *PERSONAS.values()):
    facts = [set(map(str.casefold, a)) for p in life for a in _facts(load(p)).values()]
    every = [a for answers in facts for a in answers]
    assert len(every) == len(set(every))
  corrected = {(c['told'], c['corrected']) for c in CORRECTIONS}
  asked = collections.defaultdict(list)
  for n, path in enumerate(EIGHT, 1):
    for question in {p.question for p in load(path).probes}:
      asked[question].append(n)
  # The same question on two days is a correction, asked again for the new answer.
  assert {tuple(v) for v in asked.values() if len(v) > 1} <= corrected


@each_day
def test_wrong_answers_are_of_the_day_and_never_asked_is_never_told(path):
  day = load(path)
  seen, accepted = _seen(day), {a for p in day.probes for a in p.answers}
  told = {p.question for other in EIGHT for p in load(other).probes}
  for never in day.never_mentioned:
    assert never.question not in told
    for wrong in never.wrong:
      assert wrong in accepted or {days_test._stem(w) for w in days_test._words(wrong)} <= seen, (
        never.question,
        wrong,
      )


def test_corrections_name_days_that_tell_the_old_and_the_new_value():
  assert len(CORRECTIONS) == len({c['question'] for c in CORRECTIONS})
  per_fact = collections.Counter((*c['old'], c['told'], c['corrected']) for c in CORRECTIONS)
  assert len(per_fact) >= 4 and set(per_fact.values()) == {3}
  loaded = [load(p) for p in EIGHT]
  probes = {p.question for d in loaded for p in d.probes}
  for c in CORRECTIONS:
    assert set(c) == {'question', 'old', 'new', 'told', 'corrected'}
    assert 1 <= c['told'] < c['corrected'] <= 8 and c['question'] not in probes
    assert not {a.casefold() for a in c['old']} & {a.casefold() for a in c['new']}
    for n, answers in ((c['told'], tuple(c['old'])), (c['corrected'], tuple(c['new']))):
      day = loaded[n - 1]
      about = [k for k, v in _facts(day).items() if v == answers]
      assert len(about) == 1, (c['question'], n)
      probe = days.Probe(question=c['question'], answers=answers, about=about[0])
      assert not _known(day, probe), c['question']
    texts = [_one_sentence(x.text) for d in loaded[: c['corrected'] - 1] for x in d.interactions]
    assert not any(days.is_right(t, c['new']) for t in texts), 'the new value was told before'


# --- The questionnaire ---------------------------------------------------------------------------


def test_the_questionnaire_has_an_option_for_each_persona_and_none_from_the_days():
  choice = QUESTIONNAIRE['forced_choice']
  assert len(choice) == len({q['question'] for q in choice}) == 40
  said = ' '.join(x.text for p in ALL for x in load(p).interactions).casefold()
  texts = [o['text'] for q in choice for o in q['options']]
  assert len(texts) == len(set(texts))
  for q in choice:
    fits = [o['fits'] for o in q['options']]
    assert 2 <= len(fits) <= 4 and set(fits) <= {'science', 'irony', 'neither'}
    assert fits.count('science') == fits.count('irony') == 1
  for text in texts:
    assert not re.search(rf'\b{re.escape(text.casefold())}\b', said), text
  # Neither persona is told by its place in the list or by how long its options are.
  for name in PERSONAS:
    first = sum(q['options'][0]['fits'] == name for q in choice)
    assert 10 <= first <= 20
  words = {n: [len(o['text'].split()) for q in choice for o in q['options'] if o['fits'] == n]
           for n in PERSONAS}  # fmt: skip
  assert abs(sum(words['science']) - sum(words['irony'])) <= 40  # a word per question


def test_the_consistency_questions_come_in_five_wordings():
  groups = QUESTIONNAIRE['consistency']
  assert set(QUESTIONNAIRE) == {'forced_choice', 'consistency'}
  assert [len(g) for g in groups] == [5] * 10
  every = [w for g in groups for w in g]
  assert len(set(every)) == 50 and all(w.endswith('?') for w in every)


# --- The passages --------------------------------------------------------------------------------


def test_passages_hold_their_answers_and_questions_stand_alone():
  assert len(PASSAGES) == len({p['title'] for p in PASSAGES}) == 24
  asked = [q['question'] for p in PASSAGES for q in p['questions']]
  assert len(asked) == len(set(asked)) == 120
  for p in PASSAGES:
    assert set(p) == {'title', 'context', 'questions'} and len(p['questions']) == 5
    assert 90 <= len(p['context'].split()) <= 140, p['title']
    names = set(re.findall(r'(?<=[a-z,] )[A-Z]\w+', p['context'])) | {p['title'].split()[-1]}
    for q in p['questions']:
      assert set(q) == {'question', 'answers'}
      assert q['answers'][0] in p['context'], q
      assert not days.is_right(q['question'], q['answers']), q
      assert any(re.search(rf'\b{n}\b', q['question'], re.I) for n in names), q
    every = [a.casefold() for q in p['questions'] for a in q['answers']]
    assert len(every) == len(set(every)), p['title']
