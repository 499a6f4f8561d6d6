"""School, and reading by who was there: lessons are whole, and what is read is in its message."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import pathlib
import types

import jax
import numpy as np
import pytest

from configs import tiny
from dreaming import days
from dreaming.agent import Agent
from dreaming.brain import prompts, weights
from dreaming.brain.decode import Decoder
from dreaming.sleep import asked, belief, dream, reader, school, untold
from dreaming.sleep.packing import Example, batch_of, encode
from dreaming.sleep.reader import Reader, ReaderConfig, Told
from dreaming.sleep.relations import Message
from dreaming.sleep.school import SchoolConfig
from dreaming.sleep.settings import NightConfig
from dreaming.types import QA, Dream, Mind, Status
from tests.dream_test import fact, letters

ROOT = pathlib.Path(__file__).parents[1]
SHORT = SchoolConfig(steps=2, rows=2, row_length=512, rank=2, dtype='float32')
UNKNOWN = prompts.UNKNOWN.format(user='Ana')


@pytest.fixture(scope='module')
def base():
  return weights.load(weights.ModelConfig(architecture='tiny', weights='random'))


# ---- Lessons ----


def test_lessons_are_whole():
  found = school.lessons()
  assert len(found) >= 1_000 and len({x.text for x in found}) == len(found)
  for x in found:
    assert len(x.untold) >= 2, x.text
    for f in x.facts:
      assert f.answer.casefold() in x.text.casefold() and len(f.answer.split()) <= 5, x.text
      assert len(set(f.questions)) >= 6 and len(f.says) >= 2, x.text
      assert all(q.endswith('?') for q in f.questions), x.text
      assert all(f.answer.casefold() in s.casefold() for s in f.says), x.text


def test_no_lesson_is_about_a_day_that_is_measured():
  folders = ('days', 'benchmarks/days')
  files = [p for f in folders for p in (ROOT / f).glob('*.json')]
  lived = [days.load(p) for p in files]
  asked_ = {q.casefold() for x in school.lessons() for f in x.facts for q in f.questions}
  asked_ |= {q.casefold() for x in school.lessons() for q in x.untold}
  texts = {x.text.casefold() for x in school.lessons()}
  assert len(lived) > 5
  for day in lived:
    assert not {p.question.casefold() for p in (*day.probes, *day.never_mentioned)} & asked_
    assert not {i.text.casefold() for i in day.interactions} & texts


def test_a_lesson_asks_tells_refuses_and_wonders():
  rng = np.random.default_rng(0)
  lesson = next(x for x in school.lessons() if len(x.facts) == 2)
  other = next(x for x in school.lessons() if x.facts and x.user != lesson.user)
  made = school.examples(lesson, other, rng)
  refusal = f' {prompts.UNKNOWN.format(user=lesson.user)}\n'
  asks = [e for e in made if e.prompt == school.TELLS]
  assert {e.target.split('\n')[0].strip() for e in asks[:2]} == {f.answer for f in lesson.facts}
  plain = {q for f in lesson.facts for q in f.questions[:3]}
  assert {e.target.split(school.QUESTION)[1].strip() for e in asks} == plain  # the first ones
  answered = {(e.prompt, e.target.strip()) for e in made}
  assert all((prompts.question(q), f.answer) in answered for f in lesson.facts for q in f.questions)
  refused = {e.prompt for e in made if e.target == refusal}
  assert {prompts.question(q) for q in lesson.untold} < refused  # and one of the other's
  assert any(e.prompt == school.SENTENCE for e in made)
  assert any(e.prompt == school.UNTOLD for e in made)
  quiet = dataclasses.replace(lesson, facts=())
  first, *_ = school.examples(quiet, other, rng)
  assert (first.prompt, first.target) == (school.TELLS, f' {school.NOTHING}\n\n')


def test_what_follows_a_message_is_read_after_that_message(base):
  """A row's questions stand where they would stand alone, behind the message of their own row."""
  (p, p_row), (q, q_row) = itertools.islice(school.rows(base.tokenizer, SHORT), 2)
  b = batch_of([p_row, q_row], SHORT.row_length, 4096, 1, heads=[p, q])
  for r, (head, row) in enumerate(((p, p_row), (q, q_row))):
    assert b.tokens[r, : len(head)].tolist() == head
    ids = row[0].ids
    assert b.tokens[r, len(head) : len(head) + len(ids)].tolist() == ids.tolist()
    assert b.positions[r, len(head) : len(head) + len(ids)].tolist() == list(
      range(len(head), len(head) + len(ids))
    )
  lone = encode(base.tokenizer, Example(prompt='', target='x\n'), 64, 1)
  assert batch_of([[lone]], 64, 8, 1).tokens[0, : len(lone.ids)].tolist() == lone.ids.tolist()


def test_school_is_gone_to_once_and_again_when_what_it_left_is_damaged(base, tmp_path):
  seen: list[int] = []
  first = school.teach(base, SHORT, tmp_path, lambda done, total: seen.append(done))
  assert seen == [1, 2]
  again = school.teach(base, SHORT, tmp_path, lambda done, total: seen.append(done))
  assert seen == [1, 2]
  (file,) = (tmp_path / 'school').glob('*.npz')
  file.write_bytes(file.read_bytes()[:-100])
  third = school.teach(base, SHORT, tmp_path)
  file.with_suffix('.sha256').write_bytes(b'\xff\xfe')
  assert school.teach(base, SHORT, tmp_path) and not file.with_suffix('').exists()
  for a, b, c in zip(*(jax_leaves(t) for t in (first, again, third)), strict=True):
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a, c)
  assert school.teach(base, dataclasses.replace(SHORT, steps=1), tmp_path) is not None
  assert len(list((tmp_path / 'school').glob('*.npz'))) == 2  # another school has its own file


def jax_leaves(tree):
  return [np.asarray(x) for x in jax.tree.leaves(tree)]


def test_a_night_reads_with_who_was_at_school_or_with_the_bank_alone(base, tmp_path):
  decoder, mind = Decoder(base.arch, base.tokenizer), mind_of(base)
  config = NightConfig(school=SHORT)
  steps: list[tuple] = []
  make = reader.of_night(base, decoder, config, tmp_path, 1, lambda *at: steps.append(at))
  assert make is not None and not steps  # it goes when the night first reads
  taught = make(mind).mind.params
  assert steps == [('school', 1, 2, {}), ('school', 2, 2, {})]
  assert taught['embedder'] is mind.params['embedder']  # what school leaves alone is shared
  assert not np.array_equal(*(leaf(p) for p in (taught, mind.params)))
  none = NightConfig(school=dataclasses.replace(SHORT, steps=0))
  assert reader.of_night(base, decoder, none, tmp_path, 1) is None


def leaf(params):
  return np.asarray(params['layer_0']['mlp']['linear'])


def test_a_whole_night_of_a_toy_model_goes_to_school(tmp_path):
  c = tiny.get_config()
  c.workdir, c.cache = str(tmp_path / 'life'), str(tmp_path / 'cache')
  c.school.steps, c.school.rows, c.school.row_length, c.school.rank = 2, 1, 1024, 2
  for name in ('samples', 'wordings', 'sentences', 'untold'):
    c.dream.reader[name] = 2
  with Agent(c) as agent:
    for text in ('My sister Ana lives in Rome.', 'I bought a red bicycle.'):
      agent.observe(text)
    outcome = agent.sleep()
    assert outcome.promoted, outcome.reason
  assert list((tmp_path / 'cache' / 'school').glob('*.npz'))


def test_a_school_that_was_killed_goes_on(base, tmp_path, monkeypatch):
  longer = dataclasses.replace(SHORT, steps=21)

  class Killed(BaseException):
    pass

  def kill(done, total):
    if done == 21:
      raise Killed

  with pytest.raises(Killed):
    school.teach(base, longer, tmp_path / 'killed', kill)
  seen: list[int] = []
  resumed = school.teach(base, longer, tmp_path / 'killed', lambda done, _: seen.append(done))
  assert seen == [21]  # the 20 steps before were kept
  whole = school.teach(base, longer, tmp_path / 'whole')
  for a, b in zip(jax_leaves(resumed), jax_leaves(whole), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_lesson_needs_room(base):
  with pytest.raises(ValueError, match='row_length=3'):
    next(school.rows(base.tokenizer, dataclasses.replace(SHORT, row_length=3)))


def test_a_school_that_cannot_be_is_refused():
  with pytest.raises(ValueError, match='school.steps=-1'):
    SchoolConfig(steps=-1)
  with pytest.raises(ValueError, match='bank_share=1'):
    SchoolConfig(bank_share=1)
  with pytest.raises(ValueError, match='rows=0'):
    SchoolConfig(rows=0)
  with pytest.raises(ValueError, match='near=-1'):
    ReaderConfig(near=-1)


# ---- Reading ----


def said(text, source=1):
  return Message(text=text, source=source, user='Ana')


@pytest.mark.parametrize(
  ('question', 'answer', 'right'),
  [
    ('What is the dog of Ana called?', 'Rex', True),
    ('What is the dog of Ana called?', 'the Rex', True),
    ('What is the dog of Ana called?', 'Max', False),  # nobody said so
    ('What is Rex called?', 'Rex', False),  # it answers itself
    ("What is Bea's dog called?", 'Rex', False),  # who is Bea?
    ('What is the dog of Ana called', 'Rex', False),
    ('What is the dog of Ana called?', '', False),
    ('Which dog is it?', 'dog is called Rex and he is', False),
    ('Where?', 're', False),  # part of a word
  ],
)
def test_a_question_is_sound_by_its_words(question, answer, right):
  assert reader.sound(said('My dog is called Rex and he is here.'), question, answer) == right


def test_a_sentence_is_sound_by_its_words():
  message = said('My dog is called Rex.')
  assert reader.sound_sentence(message, 'The dog of Ana is Rex.', 'Rex')
  assert not reader.sound_sentence(message, 'The dog is Rex.', 'Rex')  # whose?
  assert not reader.sound_sentence(message, 'Ana gave Bea the dog Rex.', 'Rex')
  assert not reader.sound_sentence(message, 'Bea gave Ana the dog Rex.', 'Rex')
  assert not reader.sound_sentence(message, 'Ana has a dog.', 'Rex')


MUTE = Mind(params={'embedder': {'input_embedding': np.zeros((256, 2), np.float32)}})


class Scripted:
  """A decoder that says what it is told to, and finds `likely` continuations likely."""

  tokenizer = types.SimpleNamespace(encode=lambda text: list(text.encode()))
  arch = types.SimpleNamespace(vocab_size=256)

  def __init__(self, says, likely=()):
    self.says, self.likely, self.asked = says, likely, []

  def generate(self, mind, prompts, *, max_tokens, sampler, stop):
    self.asked += prompts
    return [next(t for k, t in self.says if k in p) if p else '' for p in prompts]

  def forget(self, mind):
    pass

  def logprobs(self, mind, prompts, tails, *, prefix, shortlist):
    assert {t for p in (*prefix, *tails) for t in self.tokenizer.encode(p)} <= {*shortlist}
    return [np.asarray([-0.1 if t in self.likely else -5.0]) for t in tails]


def test_a_sample_is_an_answer_of_its_message_and_what_it_answers():
  says = [
    ('It tells: Rex', ' Which dog is it?'), ('Rex', ' Rex\nQ: Who is the dog?'),
    ('rains', ' Max\nQ: Who is it?'), ('hi', 'none'), ('so', ''),
  ]  # fmt: skip
  decoder = Scripted(says, likely=(' Rex\n', ' Who is the dog?\n\n'))
  r = Reader(decoder, MUTE, ReaderConfig(samples=3, wordings=2), 1)
  messages = [said('My dog is called Rex.'), said('It rains.', 2), said('hi', 3), said('so.', 4)]
  first, second = r.told(messages)
  assert (first.source, first.question, first.answer) == (1, 'Who is the dog?', 'Rex')
  assert (second.source, second.question, second.answer) == (1, 'Which dog is it?', 'Rex')
  assert len(decoder.asked) == 12 + 2  # what another message says is asked for no more
  assert first.odds == pytest.approx(reader.odds(reader.features(-0.1, -5.0, -0.1)))
  assert 0 < second.probability < first.probability < 1
  assert first.odds > reader.odds(reader.features(-5.0, -0.1, -5.0))


def test_what_is_retold_and_left_open_is_about_somebody_of_the_message():
  r = Reader(Scripted([('Rex', 'Ana has Rex.')]), MUTE, ReaderConfig(sentences=3), 1)
  assert r.sentences([said('My dog is called Rex.')]) == [(1, 'Ana has Rex.')]  # once
  for text, sound in (
    ('How old is Rex?', True), ('What does Ana like?', True), ('Who wrote Hamlet?', False),
    ('How old are you, Ana?', False), ('Where does Bea live?', False), ('Rex is old', False),
    ('Is it raining?', False), ('Élise?', False),
  ):  # fmt: skip
    r = Reader(Scripted([('Rex', text)]), MUTE, ReaderConfig(untold=2), 1)
    assert r.untold([said('My dog is called Rex.')]) == ([(1, text)] if sound else []), text


def test_a_random_reader_gives_probabilities(base):
  r = Reader(Decoder(base.arch, base.tokenizer), mind_of(base), ReaderConfig(samples=2), 1)
  unread = r.unread([said('My dog is called Rex.'), said('It rains.', 2)], ['Who?', 'Where?'])
  assert unread.shape == (2,) and ((unread >= 0) & (unread <= 1)).all()
  assert all(math.isfinite(t.odds) for t in r.told([said('My dog is called Rex.')]))


def test_a_reader_has_the_words_of_school_of_the_messages_and_frequent_ones(base, monkeypatch):
  size = base.arch.vocab_size
  monkeypatch.setattr(reader, 'shortlist_of', lambda own, *_: np.asarray(sorted(own), np.int32))
  r = Reader(Decoder(base.arch, base.tokenizer), mind_of(base), ReaderConfig(), 1)
  heard = []
  monkeypatch.setattr(r.decoder, 'generate', lambda mind, asked, **_: heard.append(mind) or asked)
  r.sentences([said('Zoë fed Rex.')])
  r.untold([said('Zoë fed Rex.')])
  r.untold([said('She fed the 🦜.')])
  ids = [set(m.params['embedder']['said'].tolist()) for m in heard]
  assert heard[0] is heard[1] and ids[0] != ids[2]
  encode = base.tokenizer.encode
  for text in ('Zoë fed Rex.', ' rex', ' zoë', ' ana', school.UNTOLD, ' When did it happen?\n'):
    assert {*encode(text)} <= ids[0], text
  assert {*encode('🦜')} <= ids[2] and not {*encode('🦜')} <= ids[0] and len(ids[2]) < size


def test_evidence_is_finite_for_each_reading(base):
  r = Reader(Decoder(base.arch, base.tokenizer), mind_of(base), ReaderConfig(), 1)
  facts = [fact('thing_lost', 'passport'), fact('thing_lost', 'keys')]
  seen = r.evidence(facts, {1: 'I lost the passport'})
  assert [set(x) for x in seen] == [set(belief.TAUGHT) - {'bias', 'odds'}] * 2
  assert all(math.isfinite(v) for x in seen for v in x.values())
  assert r.evidence([], {}) == []


def mind_of(base):
  return Mind(params=base.params, generation=0)


def test_what_the_reader_thinks_counts_where_there_is_one():
  known = fact('thing_lost', 'passport')
  blank = belief.Checked(passed=['Q?'], failed=[], gain=1.0)
  sure = dataclasses.replace(
    blank, seen={'read': -0.1, 'unread': -8.0, 'asked': -1.0, 'said': -1.0}
  )
  doubtful = dataclasses.replace(
    blank, seen={'read': -6.0, 'unread': -0.1, 'asked': -4.0, 'said': -4.0}
  )
  assert belief.of(known, sure) > belief.of(known, doubtful)


# ---- Dreams of it ----


def test_no_dream_asks_what_the_night_is_examined_with():
  fields = {'id': 0, 'night': 1}
  exam = Dream(style='exam', text='', pairs=(QA(question='Who is Rex?', answer='a dog'),), **fields)
  same = QA(question='who is Rex?', answer='a dog')
  other = QA(question='Where is Rex?', answer='here')
  both = Dream(style='question', text='', pairs=(same, other), **fields)
  alone = Dream(style='question', text='', pairs=(same,), **fields)
  talk = Dream(style='dialogue', text='"Who is Rex?" "It is a dog."', **fields)
  page = Dream(style='diary', text='Rex is a dog.', **fields)
  left = dream.unexamined([exam, both, alone, talk, page])
  assert [(d.style, d.pairs) for d in left] == [
    ('exam', exam.pairs), ('question', (other,)), ('diary', ()),
  ]  # fmt: skip


class Fake:
  """A reader with ready answers."""

  mind = None

  def __init__(self, told=(), sentences=(), untold=(), answers=(), config=None):
    self.config = config or ReaderConfig()
    self._told, self._sentences, self._untold = list(told), list(sentences), list(untold)
    self._answers = set(answers)  # (source, question) that are answered there

  def told(self, messages):
    return self._told

  def sentences(self, messages):
    return [s for s in self._sentences if s[0] in {m.source for m in messages}]

  def untold(self, messages):
    return self._untold

  def unread(self, texts, questions):
    pairs = zip(texts, questions, strict=True)
    return np.asarray([float((m.source, q) not in self._answers) for m, q in pairs])


def dreamt(fake, *texts, held=2):
  messages = [said(t, i) for i, t in enumerate(texts, start=1)]
  times = {m.source: float(m.source) for m in messages}
  rng = np.random.default_rng(0)
  return asked.dream(fake, messages, times, letters, held=held, night=1, rng=rng)


def told(question, answer, source=1, odds=1.0):
  return Told(source=source, question=question, answer=answer, odds=odds)


def test_what_is_believed_is_asked_and_what_is_not_is_kept_as_refused():
  fake = Fake([told('Who?', 'Rex'), told('Where?', 'Rome', odds=-2.0)])
  kept, refused = dreamt(fake, 'Rex of Rome.').dreams
  assert kept.pairs == (QA(question='Who?', answer='Rex'),) and kept.status == Status.KEPT
  assert refused.status == Status.REJECTED and refused.quality.reason
  assert refused.pairs == (QA(question='Where?', answer='Rome'),)


def test_a_later_message_that_answers_otherwise_wins():
  fake = Fake(
    [told('How many?', 'forty', 1), told('How many?', 'sixty', 2)],
    answers={(1, 'How many?'), (2, 'How many?')},
  )
  (only,) = dreamt(fake, 'Forty bowls.', 'No, sixty bowls.').dreams
  assert only.pairs[0].answer == 'sixty' and only.sources == (2,)
  same = Fake([told('How many?', 'forty', 1)], answers={(1, 'How many?'), (2, 'How many?')})
  assert dreamt(same, 'Forty bowls.', 'Yes, forty.').dreams  # said again, not taken back


def test_some_questions_of_an_answer_are_held_out_where_there_are_many():
  many = [told(f'What is {w}?', 'Rex') for w in ('a', 'b', 'c', 'd', 'e', 'f', 'g')]
  styles = {d.style: d for d in dreamt(Fake(many), 'Rex.').dreams}
  assert len(styles['exam'].pairs) == 2 and len(styles['question'].pairs) == 5
  assert not set(styles['exam'].pairs) & set(styles['question'].pairs)
  few = {d.style for d in dreamt(Fake(many[:6]), 'Rex.').dreams}
  assert few == {'question'}


def test_the_likeliest_questions_of_the_likeliest_answers():
  found = [told('A?', 'x', odds=1.0), told('B?', 'x', odds=3.0), told('C?', 'y', odds=2.0)]
  dreams = dreamt(Fake(found, config=ReaderConfig(answers=1, most=1)), 'x y').dreams
  assert [d.pairs for d in dreams] == [(QA(question='B?', answer='x'),)]
  later = [told('A?', 'x', 1, odds=2.0), told('a?', 'y', 2)]
  (d,) = dreamt(Fake(later), 'x', 'y').dreams
  assert d.sources == (2,)  # one question, one answer: the newest
  clash = [told('A?', 'x', odds=1.0), told('A?', 'y', odds=2.0)]
  (d,) = dreamt(Fake(clash), 'x y').dreams
  assert d.pairs == (QA(question='A?', answer='y'),)


def test_sentences_tell_what_is_believed():
  fake = Fake(
    [told('Who?', 'Rex')], sentences=[(1, 'Ana has Rex.'), (1, 'Ana has a cat.'), (2, 'Ana is.')]
  )
  texts = [d.text for d in dreamt(fake, 'Rex here.', 'Hello.').dreams if d.style == 'statement']
  assert texts == ['Ana has Rex.']


def test_what_comes_to_mind_is_untold_where_no_message_answers_it():
  fake = Fake(untold=[(1, 'How old is Rex?'), (1, 'Where is Rex?')], answers={(2, 'Where is Rex?')})
  own = dreamt(fake, 'Rex here.', 'Rex is in Rome.')
  assert own.untold == [QA(question='How old is Rex?', answer=UNKNOWN)]
  assert dreamt(Fake(untold=[(1, 'Why?')]), 'Alone.').untold  # no other message to ask


def test_nothing_is_asked_as_untold_that_is_like_what_was_told_of_the_same_people():
  pairs = [
    QA(question=q, answer=UNKNOWN) for q in ('Is Ana tall?', 'Is Bea tall?', 'Why fly, Ana?')
  ]
  left = untold.apart(pairs, ['So is Ana tall?'], letters)
  assert [p.question for p in left] == ['Is Bea tall?', 'Why fly, Ana?']
  assert untold.apart(pairs, [], letters) == pairs


def test_a_question_that_a_message_about_the_same_people_answers_is_not_untold():
  pairs = [QA(question=q, answer=UNKNOWN) for q in ('How old is Bea?', 'Is Bea tall?', 'Is Cleo?')]
  fake = Fake(answers={(1, 'How old is Bea?'), (2, 'Is Bea tall?'), (2, 'Is Cleo?')})
  messages = [said('Bea is nine.', 1), said('Tall, I said.', 2)]
  left = untold.unanswered(fake, messages, pairs, 9)
  assert [p.question for p in left] == ['Is Bea tall?', 'Is Cleo?']  # the second names nobody
  assert untold.unanswered(fake, messages, pairs, 1) == left[:1]


def test_lessons_are_plain_json():
  folder = ROOT / 'dreaming' / 'sleep' / 'lessons'
  for file in folder.glob('*.jsonl'):
    for line in file.read_text('utf-8').splitlines():
      assert set(json.loads(line)) == {'user', 'text', 'facts', 'untold'}
