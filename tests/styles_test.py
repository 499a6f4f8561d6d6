"""Written dreams: chosen by name, kept to a clause, and sentence by sentence to their source."""

from __future__ import annotations

import pytest

from dreaming.sleep import grounding, styles
from dreaming.sleep.bank import bank
from dreaming.sleep.belief import Fact
from dreaming.sleep.dream import DreamConfig
from dreaming.types import Experience, Status

E = Experience(id=4, time=0.0, kind='chat', speaker='Ana', content='My sister Bea is a welder.')


class Writer:
  def __init__(self, text):
    self.text, self.prompts = text, []

  def generate(self, mind, prompts, **_):
    self.prompts += prompts
    return [self.text for _ in prompts]


def write(monkeypatch, text, names, clause='', grounded=0.0):
  limits = []

  def judge(decoder, base, claims, reader):
    return [0.7 if 'welder' in c.said else 0.1 for c in claims]

  real = grounding.sifted
  monkeypatch.setattr(grounding, 'probabilities', judge)
  monkeypatch.setattr(grounding, 'sifted', lambda *a: limits.append(a[4]) or real(*a))
  writer = Writer(text)
  out = styles.written(
    writer, None, [E], names=names, user='Ana', agent='Echo', clause=clause, grounded=grounded,
    night=1, seed=3,
  )  # fmt: skip
  return writer, out, limits


def test_sentences_that_are_not_grounded_are_left_out_of_the_text(monkeypatch):
  text = ' Bea is a welder. She lives in Rome. A welder, she is. And she als'
  writer, out, _ = write(monkeypatch, text, ('letter',))
  kept, gone = (next(d for d in out if d.status == s) for s in (Status.KEPT, Status.REJECTED))
  assert kept.text == 'Bea is a welder. A welder, she is.' and kept.sources == (4,)
  assert gone.text == 'She lives in Rome.' and 'grounded with 0.10' in gone.quality.reason
  assert kept.style == gone.style == 'letter'
  assert E.content in writer.prompts[0] and writer.prompts[0].endswith('Dear friend,')


def test_lists_lose_their_numbers_and_articles_keep_their_subject(monkeypatch):
  _, out, _ = write(monkeypatch, ' Bea is a welder.\n2. A welder works.', ('lessons',))
  assert out[0].text == 'Bea is a welder. A welder works.'
  _, out, _ = write(monkeypatch, ' has a sister who is a welder.', ('article',))
  assert out[0].text == 'Ana has a sister who is a welder.'


def test_a_clause_comes_first_and_nothing_is_written_that_was_not_chosen(monkeypatch):
  writer, _, _ = write(monkeypatch, ' x.', ('story', 'article'), clause='Be kind.')
  assert len(writer.prompts) == 2 and all(p.startswith('Be kind.\n\n') for p in writer.prompts)
  writer, out, _ = write(monkeypatch, ' x.', ())
  assert not writer.prompts and out == []
  writer, out, _ = write(monkeypatch, ' x.', ('multihop',))
  assert not writer.prompts and out == []


def test_a_stricter_filter_holds_for_what_is_written_too(monkeypatch):
  _, out, limits = write(monkeypatch, ' Bea is a welder.', ('letter',), grounded=0.8)
  assert limits == [0.8] and out[0].status == Status.REJECTED
  _, out, limits = write(monkeypatch, ' Bea is a welder.', ('letter',), grounded=0.1)
  assert limits == [0.62] and out[0].status == Status.KEPT


def test_a_question_goes_through_a_person():
  job = next(r for r in bank() if r.about == 'person' and 'job' in r.types)
  fact = Fact(relation=job, user='Ana', person='Bea', value='welder', source=4, score=0.0, gain=1.0)
  held = [fact.fill(job.questions[0])]
  (found,) = styles.hops([(fact, [], held)], {'Bea': ["Ana's sister"]}, 1)
  asked = {p.question for p in found.pairs}
  assert asked and all("Ana's sister" in q and 'Bea' not in q for q in asked)
  assert {p.answer for p in found.pairs} == {'welder'}
  hidden = job.questions[0].replace('{person}', "Ana's sister")
  assert hidden not in asked  # the exam's own wording stays the exam's
  assert styles.hops([(fact, [], [])], {}, 1) == []


def test_an_unknown_style_says_which_there_are():
  with pytest.raises(ValueError, match="dream.styles has 'haiku': there are letter, lessons"):
    DreamConfig(styles=('haiku',))
  with pytest.raises(ValueError, match='dream.grounded=1.5: a probability'):
    DreamConfig(grounded=1.5)
