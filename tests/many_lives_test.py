"""What benchmarks make of lives: arms, gaps, corrections, hand-written dreams, coverage."""

from __future__ import annotations

import json
import pathlib
import types

import numpy as np
import pytest

from benchmarks import by_hand, corrections, coverage, identity, lived
from dreaming import days
from dreaming.sleep.bank import bank
from dreaming.sleep.belief import Fact
from dreaming.types import QA, Dream, Experience

ROOT = pathlib.Path(__file__).parents[1]


# ---- Lives ----


def life(path, **fields):
  days_ = (ROOT / 'days' / 'eight' / 'day1.json',)
  given = {'workdir': path, 'days': days_, 'config': ROOT / 'configs' / 'tiny.py'}
  return lived.Life(**given | fields)


def test_an_arm_changes_what_consolidates(tmp_path):
  assert lived.config_of(life(tmp_path, arm='fold', seed=3)).train.consolidation == 'fold'
  assert lived.config_of(life(tmp_path, arm='fold', seed=3)).seed == 3
  passages = lived.config_of(life(tmp_path, arm='passages'))
  assert passages.train.consolidation == 'continual' and passages.train.min_raw_loss == 0.0


def test_a_life_that_is_over_says_its_days(tmp_path):
  with pytest.raises(ValueError, match='has no lifelong.jsonl'):
    lived.given([tmp_path], ROOT / 'configs' / 'tiny.py')
  rows = [{'days': ['a.json']}, {'days': ['a.json', 'b.json']}]
  (tmp_path / 'lifelong.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  (found,) = lived.given([tmp_path], ROOT / 'configs' / 'tiny.py')
  assert found.days == (pathlib.Path('a.json'), pathlib.Path('b.json'))
  assert lived.ensure(found) == rows  # nothing is left to live


def test_words_alone_are_what_was_said_and_the_nights_exam():
  def own(decoder, base, experiences, **fields):
    return [Dream(id=0, night=1, style=s, text='x') for s in ('question', 'exam', 'exam_unknown')]

  said = [Experience(id=4, time=1.0, kind='chat', speaker='Ana', content='I have a boat.')]
  found = lived.words_alone(own)(None, None, said, night=1)
  assert [(d.style, d.text) for d in found][:1] == [('passage', 'I have a boat.')]
  assert [d.style for d in found] == ['passage', 'exam', 'exam_unknown']


# ---- Hand-written dreams ----


def test_dreams_by_hand_never_ask_what_the_day_asks():
  for path in sorted(by_hand.DREAMS.glob('*.json')):
    folder = ROOT / 'days' if (ROOT / 'days' / path.name).exists() else ROOT / 'benchmarks' / 'days'
    day = days.load(folder / path.name)
    ids = list(range(1, 1 + len(day.interactions)))
    dreams, _ = by_hand.written(path, day, 1, ids)
    asked = {by_hand.one_night.folded(p.question) for d in dreams for p in d.pairs}
    assert asked and not asked & {by_hand.one_night.folded(p.question) for p in day.probes}
    assert {s for d in dreams for s in d.sources} <= set(ids)


def test_what_is_told_by_hand_is_not_untold():
  def vectors(texts):  # by length alone: all are alike
    return np.ones((len(texts), 1))

  told = [
    Dream(
      id=0,
      night=1,
      style='question',
      text='',
      pairs=(QA(question="What is Bea's job?", answer='cook'),),
    )
  ]
  pairs = (
    QA(question='Which job has Bea?', answer='no'),
    QA(question='Which job has Cleo?', answer='no'),
  )
  unknown = Dream(id=0, night=1, style='unknown', text='', pairs=pairs)
  (left,) = by_hand.untold([unknown, told[0]], told, vectors)
  assert [p.question for p in left.pairs] == ['Which job has Cleo?']


# ---- Coverage ----


def test_a_question_is_covered_by_a_value_of_its_own_message():
  job = next(r for r in bank() if r.name == 'person_job')
  fact = Fact(
    relation=job, user='Ana', person='Bea', value='ship welder', source=2, score=0, gain=0
  )
  probes = [
    days.Probe(question='?', answers=('a welder',), about=(2,)),
    days.Probe(question='?', answers=('welder',), about=(1,)),
    days.Probe(question='?', answers=('cook',), about=(2,)),
  ]
  assert coverage.answers(types.SimpleNamespace(probes=probes), [fact]) == 1


def test_labelled_readings_are_of_relations_and_days_that_there_are():
  labels = json.loads(coverage.LABELS.read_text())
  names = {r.name for r in bank(more=True)}
  for name, messages in labels.items():
    day = days.load(coverage.find(f'{name}.json'))
    for at, own in messages.items():
      text = day.interactions[int(at)].text.casefold()
      assert all(r in names and v.casefold() in text and y in (1, 2) for r, _, v, y in own)


# ---- Corrections ----


def test_corrections_are_told_before_they_are_corrected(tmp_path):
  rows = corrections.load(ROOT / 'days' / 'eight' / 'corrections.json')
  assert len(rows) > 10
  rows[3]['corrected'] = rows[3]['told']
  (tmp_path / 'c.json').write_text(json.dumps(rows))
  with pytest.raises(ValueError, match='row 3 is told on day'):
    corrections.load(tmp_path / 'c.json')
  del rows[0]['old']
  (tmp_path / 'c.json').write_text(json.dumps(rows))
  with pytest.raises(ValueError, match='row 0 needs exactly'):
    corrections.load(tmp_path / 'c.json')


# ---- Identity ----


def person(persona, seed, path, likely):
  found = identity.Person(persona, life(path, seed=seed))
  found.likely = {k: np.array(v) for k, v in likely.items()}
  return found


def test_a_gap_is_what_answers_lose_under_the_others_weights(tmp_path):
  a = person('science', 0, tmp_path, {'science 0': [-1.0], 'irony 0': [-4.0], 'order': [-1.5]})
  b = person('irony', 0, tmp_path, {'science 0': [-3.0], 'irony 0': [-2.0], 'order': [-2.0]})
  assert identity.gap(a, b) == pytest.approx([2.0]) == identity.gap(b, a)
  found = identity.gaps([a, b])
  assert found['seeds'] == [] and found['agents'][0].tolist() == [2.0]
  assert [x.tolist() for x in found['order']] == [[0.5], [0.0]]


def test_effect_sizes():
  a, b = np.array([1.0, 2.0, 3.0]), np.array([3.0, 4.0, 5.0])
  assert identity.cohens_d(a, b) == pytest.approx(-2.0) and identity.cohens_d(a, a) == 0.0
  assert identity.cohens_d(np.ones(3), np.zeros(3)) == 0.0  # nothing varies: no scale for it
  found = identity.style(['yes yes no', '', 'Ana has not told me.'])
  assert found['words'].tolist() == [3, 0, 5] and found['refusals'].tolist() == [0, 0, 1]
  assert found['different'][0] == pytest.approx(2 / 3)


class Likes:
  """Finds texts with some words likely."""

  def __init__(self, words):
    self.words = words

  def logprobs(self, mind, asked, said, *, prefix):
    assert all(s.strip().lower() in a.lower() for a, s in zip(asked, said, strict=True))
    return [np.array([0.0 if any(w in s for w in self.words) else -5.0]) for s in said]


def test_a_choice_is_the_likeliest_option_whatever_the_order():
  options = [
    {'text': 'Stars', 'fits': 'science'}, {'text': 'Masks', 'fits': 'irony'},
    {'text': 'Tea', 'fits': 'neither'},
  ]  # fmt: skip
  asked = [{'question': 'What is best?', 'options': options}]
  for likes, wanted in ((('Stars',), 1.0), (('Masks',), -1.0), (('Tea',), 0.0)):
    agent = types.SimpleNamespace(
      decoder=Likes(likes), identity=types.SimpleNamespace(mind=lambda n: n)
    )
    assert identity.choice(agent, 1, asked, 'science') == wanted
