"""What is measured is what was asked."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dreaming.brain import prompts, weights
from dreaming.brain.decode import Decoder
from dreaming.sleep import artifacts, examine
from dreaming.sleep.examine import Question
from dreaming.types import QA, Dream, Mind, Status


class Parrot:
  """A decoder that knows its answers by the question, and counts how often it is asked."""

  cache_length = 400

  def __init__(self, answers, tokenizer=None, logprob=-2.0, by_luck=()):
    self.answers, self.tokenizer, self.logprob, self.calls = answers, tokenizer, logprob, 0
    self.by_luck = by_luck  # questions answered in the usual order of the examples only

  def generate(self, mind, asked, *, max_tokens, prefix):
    self.calls += 1
    examples = prompts.ANSWER_PREFIX.strip().split('\n\n')
    assert sorted(prefix.strip().split('\n\n')) == sorted(examples) and prefix.endswith('\n\n')
    lost = self.by_luck if prefix != prompts.ANSWER_PREFIX else ()
    questions = [p.removeprefix(prompts.QUESTION).split('\n')[0] for p in asked]
    known = {q: a for q, a in self.answers.items() if q not in lost}
    return [' ' + known.get(q, 'I do not know.') for q in questions]

  def logprobs(self, mind, asked, continuations, prefix=''):
    self.calls += 1
    return [np.full(len(self.tokenizer.encode(c)), self.logprob) for c in continuations]

  def forget(self, mind):
    pass


@pytest.fixture(scope='module')
def tiny():
  return weights.load(weights.ModelConfig(architecture='tiny', weights='random'))


# ---- The exam ----


def _dream(style, question, answer, status=Status.KEPT, sources=(1,)):
  pair = QA(question=question, answer=answer)
  return Dream(id=0, night=1, style=style, text='', pairs=(pair,), sources=sources, status=status)


def test_the_exam_is_what_never_trains():
  recall, unknown = examine.held_out(
    [
      _dream('question', 'What is the parrot called?', 'Kiwi'),
      _dream('exam', 'Which bird?', 'parrot', sources=(3, 5)),
      _dream('exam', 'Which city?', 'Lyon'),
      _dream('exam', 'Which sea?', 'Black', status=Status.REJECTED),
      _dream('exam_unknown', 'Who is the aunt?', ''),
    ]
  )
  assert [q.text for q in recall] == ['Which bird?', 'Which city?']
  assert recall[0].sources == (3, 5)
  assert unknown == (Question(text='Who is the aunt?', answers=('parrot', 'Lyon')),)


def test_measures_count_what_they_say(tiny):
  exam = examine.Exam(
    recall=(
      Question(text='Which bird?', answers=('parrot',)),
      Question(text='Which city?', answers=('Lyon',)),
    ),
    never_mentioned=(Question(text='Who is the aunt?', answers=('parrot', 'Lyon')),),
    general=(
      Question(text='What is the opposite of hot?', answers=('cold',)),
      Question(text='Which bird?', answers=('parrot',)),
    ),
    firm=(1,),
  )
  answers = {'Which bird?': 'A parrot.', 'Which city?': 'Paris. Or Lyon.'}
  decoder = Parrot({**answers, 'Who is the aunt?': 'Lyon'}, tiny.tokenizer)
  report = examine.examine(decoder, Mind(params={}), exam)
  assert report.measures['recall'] == 0.5 and report.measures['recall_count'] == 2
  assert report.replies['recall'] == (('A parrot.', True), ('Paris. Or Lyon.', False))
  assert report.measures['never_mentioned'] == 1.0
  assert report.measures['general'] == 0.5 and report.measures['general_kept'] == 1.0
  assert report.measures['nll'] == report.measures['median_loss'] == 2.0
  assert 'earlier' not in report.measures


def test_a_refusal_is_no_answer_though_a_fact_is_the_users_name():
  """A stranger's "my friend Priya" made every refusal an invention, and no night passed."""
  question = examine.Question(text='Who is the friend of Mallory?', answers=('Priya',))
  replies = ['Priya has not told me.', 'Priya', 'I think Priya.', 'Nobody']
  assert examine.judge([question] * 4, replies) == [False, True, True, False]


def test_the_bases_own_exam_is_taken_once(tiny, tmp_path):
  decoder = Parrot({'What is the capital of France?': 'Paris'}, tiny.tokenizer)
  first = examine.known(decoder, Mind(params={}), 'ab', tmp_path)
  calls = decoder.calls
  count = len(examine._general())
  assert len(first.general) == count and first.general_right == 1 / count
  assert [first.general[i].answers for i in first.firm] == [('Paris',)] and first.nll == 2.0
  assert examine.known(decoder, Mind(params={}), 'ab', tmp_path) == first
  assert decoder.calls == calls
  examine.known(decoder, Mind(params={}), 'cd', tmp_path)
  assert decoder.calls == 2 * calls  # another base has its own
  for harm in (lambda text: text[:-4], lambda text: text.replace('2.0', '3.0')):
    for path in (tmp_path / 'exam').iterdir():
      assert harm(path.read_text()) != path.read_text()
      path.write_text(harm(path.read_text()))
    assert examine.known(decoder, Mind(params={}), 'ab', tmp_path) == first
  measures = examine.examine_base(
    decoder, Mind(params={}), examine.Exam(recall=(), never_mentioned=(), general=()), first
  )
  assert measures == {'general': 1 / count, 'general_count': count, 'nll': 2.0}


def test_what_the_base_gets_right_by_luck_counts_but_is_not_firm(tiny, tmp_path):
  answers = {'What is the capital of France?': 'Paris', 'What is the capital of Italy?': 'Rome'}
  lucky = ('What is the capital of Italy?',)
  known = examine.known(
    Parrot(answers, tiny.tokenizer, by_luck=lucky), Mind(params={}), 'ab', tmp_path
  )
  assert known.general_right == 2 / len(known.general)
  assert [known.general[i].answers for i in known.firm] == [('Paris',)]


def test_a_base_that_knows_nothing_is_still_measured(tiny, tmp_path):
  known = examine.known(Parrot({}, tiny.tokenizer), Mind(params={}), 'ab', tmp_path)
  assert known.general == examine._general() and known.general_right == 0.0
  assert examine.known(Parrot({}, tiny.tokenizer), Mind(params={}), 'ab', tmp_path) == known


def test_the_files_are_fit_to_measure_with():
  general = examine._general()
  assert len(general) >= 60 and len({q.text for q in general}) == len(general)
  shown = prompts.ANSWER_PREFIX
  assert len(examine._generic().split()) > 1500 and examine._generic() not in shown


# ---- With a real decoder ----


def test_nll_is_that_of_the_whole_text(tiny, monkeypatch):
  text = 'The sky is wide. A bird sings; it rains, and 3 boats are late. ' * 4
  monkeypatch.setattr(examine, '_generic', lambda: text)
  monkeypatch.setattr(examine, '_WINDOW', 90)
  decoder = Decoder(tiny.arch, tiny.tokenizer, cache_length=96)
  mind = Mind(params=tiny.params)
  nll, count = examine.generic_nll(decoder, mind)
  assert count == len(tiny.tokenizer.encode(text.strip()))
  windows = examine._windows(tiny.tokenizer, text, 90)
  assert ''.join(windows) == text.rstrip() and len(windows) == -(-count // 90)
  quick, some = examine.generic_nll(decoder, mind, quick=True)
  assert 0 < some < count and quick != nll
  flat = Mind(params=jax.tree.map(jnp.zeros_like, tiny.params))  # all tokens are as likely
  assert examine.generic_nll(decoder, flat)[0] == pytest.approx(math.log(512), rel=1e-5)
  assert nll != pytest.approx(math.log(512), rel=1e-3)


def test_an_exam_without_time_stops_between_its_parts(tiny):
  exam = examine.Exam(
    recall=(Question(text='Which bird?', answers=('parrot',)),),
    never_mentioned=(), general=(Question(text='Which sea?', answers=('Black',)),),
  )  # fmt: skip
  decoder, left = Parrot({}, tiny.tokenizer), iter([None, None])

  def tick():
    if next(left, 'over') == 'over':
      raise TimeoutError('over')

  with pytest.raises(TimeoutError):
    examine.examine(decoder, Mind(params={}), exam, tick)
  assert decoder.calls == 1  # recall was asked, general knowledge was not


def test_the_cache_file_holds_no_text_but_numbers(tiny, tmp_path):
  examine.known(Parrot({}, tiny.tokenizer), Mind(params={}), 'ab', tmp_path)
  (path,) = (tmp_path / 'exam').iterdir()
  found = {'right': 0, 'firm': [], 'nll': 2.0, 'quick_nll': 2.0}
  assert artifacts.kept(path) == found and path.read_text().count('\n') == 2
