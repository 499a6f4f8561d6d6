"""What a night writes of the facts that it believes, and asks about all that nobody told."""

from __future__ import annotations

import dataclasses
import datetime

import numpy as np
import pytest

from dreaming.brain import prompts
from dreaming.sleep import dream, things, untold
from dreaming.sleep.bank import bank, fill
from dreaming.sleep.belief import Fact
from dreaming.sleep.dream import DreamConfig
from dreaming.sleep.relations import MatchConfig, Matcher, Message
from dreaming.sleep.things import Thing
from dreaming.types import Experience, Status

RELATIONS = {r.name: r for r in bank()}
NOON = datetime.datetime(2026, 3, 2, 12, tzinfo=datetime.UTC).timestamp()


def letters(texts):
  """Unit vectors of how often each letter occurs: alike where words are."""
  counts = np.asarray([[t.lower().count(chr(97 + i)) for i in range(26)] for t in texts], float)
  return (counts + 1e-6) / np.linalg.norm(counts + 1e-6, axis=1, keepdims=True)


def fact(name, value, *, source=1, person='', gain=1.0):
  return Fact(relation=RELATIONS[name], user='Ana', person=person, value=value, source=source,
              score=-1.0, gain=gain)  # fmt: skip


def experience(id_, text, *, later=0.0):
  return Experience(id=id_, time=NOON + later, kind='chat', speaker='Ana', content=text)


def test_what_is_not_grounded_comes_on_no_page():
  told, other = fact('food_disliked', 'olives'), fact('food_disliked', 'kale', source=2)
  (asked,) = [d for d in dream.lay_out(told, ['Q?'], [], 1, DreamConfig()) if d.style == 'question']
  assert dream.asked_for(told, [asked]) and not dream.asked_for(other, [asked])
  assert not dream.asked_for(told, [dataclasses.replace(asked, status=Status.REJECTED)])


# ---- What was not told ----


def unknown(facts, *, maybe=(), texts=('My friend Bea rang.',), known=frozenset(), **fields):
  matcher = Matcher(None, None, letters, MatchConfig())
  kept = [(f, ['Q?'] * 10, []) for f in facts]
  told = {i: experience(i, t) for i, t in enumerate(texts, start=1)}
  config = DreamConfig(unknown_distance=0.995, **fields)
  rng = np.random.default_rng(0)
  found = untold.questions(matcher, [*maybe, *facts], kept, told, 'Ana', config, rng, known)
  out = untold.dreams(found, config.exam_unknown, 1, 1)
  return {d.style: d.pairs for d in out}


def test_what_nobody_told_is_asked_and_answered_as_such():
  asked = unknown([fact('food_disliked', 'olives')])
  pairs = asked['unknown'] + asked['exam_unknown']
  assert {p.answer for p in pairs} == {prompts.UNKNOWN.format(user='Ana')}
  assert len(asked['exam_unknown']) == 40
  assert all('Ana' in p.question and '{' not in p.question for p in pairs)
  assert not {p.question for p in asked['unknown']} & {p.question for p in asked['exam_unknown']}


def test_a_quiet_day_asks_as_much_about_what_was_not_told():
  one = unknown([fact('food_disliked', 'olives')], unknowns=300)
  assert 180 <= len(one['unknown']) <= 300  # some are drawn twice
  few = unknown([fact('food_disliked', 'olives')], unknowns=0, exam_unknown=5)
  assert set(few) == {'exam_unknown'}  # an empty dream would train on nothing


def test_what_earlier_nights_know_is_not_asked_in_any_wording():
  job = RELATIONS['user_job']
  told = fact('food_disliked', 'olives')
  wordings = {q.format(user='Ana') for q in job.questions}
  asked = {p.question for p in unknown([told], unknowns=2000)['unknown']}
  assert asked & wordings
  known = {job.questions[0].format(user='Ana')}
  asked = {p.question for p in unknown([told], unknowns=2000, known=known)['unknown']}
  assert asked and not asked & wordings


def test_what_was_told_or_may_have_been_is_not_asked():
  told, maybe = fact('food_disliked', 'olives'), fact('favourite_food', 'olives')
  questions = {p.question for p in unknown([told], maybe=[maybe], unknowns=400)['unknown']}
  for name in ('food_disliked', 'favourite_food'):
    assert not questions & {q.format(user='Ana') for q in RELATIONS[name].questions}
  assert questions & {
    q.format(user='Ana') for r in bank() if r.about == 'user' for q in r.questions
  }


def test_a_friend_may_be_the_best_friend():
  pairs = unknown([fact('friend_name', 'Bea')], unknowns=400)['unknown']
  best = {q.format(user='Ana') for q in RELATIONS['best_friend_name'].questions}
  assert not best & {p.question for p in pairs}


# ---- What was told ----


def test_the_newer_of_two_facts_that_exclude_each_other_holds():
  old = fact('exam_date', 'the 4th of May', source=1)
  new = fact('exam_date', 'the 11th of May', source=2)
  other = fact('allergy', 'cats', source=1)
  holding, replaced = dream.newest([new, old, other], {1: 1.0, 2: 2.0})
  assert holding == [new, other] and replaced == [(old, new)]
  corrected = dream.correction(old, new, 1)
  assert 'the 4th of May' in corrected.text and 'the 11th of May' in corrected.text
  assert {p.answer for p in corrected.pairs} == {'the 11th of May'}


ALL_FORMS = DreamConfig(statements=5, dialogues=2)


def test_a_fact_is_laid_out_in_five_styles():
  told = fact('thing_lost', 'passport')
  asked = ['What did Ana lose?', 'What is missing?', 'What is gone?', 'What did Ana mislay?']
  out = dream.lay_out(told, asked, ['What is Ana looking for?'], 1, ALL_FORMS)
  assert {d.style for d in out} == {'statement', 'question', 'reversed', 'dialogue', 'exam'}
  assert all(d.sources == (1,) and d.status == Status.KEPT for d in out)
  statements = [d.text for d in out if d.style == 'statement']
  assert len(statements) == len(set(statements)) == len(told.relation.statements)
  assert all('passport' in s for s in statements)
  pages = dream.pages([(told, asked, [])], {1: experience(1, 'x')}, 1, 'Ana', DreamConfig(),
                      np.random.default_rng(0))  # fmt: skip
  assert [d.style for d in pages] == ['diary', 'list'] and pages[0].text.startswith('Monday.')


def test_fewer_forms_of_a_fact():
  told = fact('thing_lost', 'passport')
  asked = ['What did Ana lose?', 'What is missing?', 'What is gone?', 'What did Ana mislay?']
  few = DreamConfig(statements=1, dialogues=0)
  styles = [d.style for d in dream.lay_out(told, asked, [], 1, few)]
  assert styles == ['statement', 'question', 'reversed']
  one = dream.lay_out(told, asked, [], 1, DreamConfig(statements=1, dialogues=1))
  (talk,) = [d.text for d in one if d.style == 'dialogue']
  assert asked[0] in talk and asked[2] not in talk
  with pytest.raises(ValueError, match='dream.statements=-1'):
    DreamConfig(statements=-1)


def unheard_of(said: str, maybe=(), known=()) -> dict[str, list[str]]:
  """The questions by relation."""
  relations = bank(True)
  pairs = untold.unheard_of(relations, maybe, said, 'Ana', np.random.default_rng(0), known)
  assert {p.answer for p in pairs} <= {prompts.UNKNOWN.format(user='Ana')}
  asked = {p.question for p in pairs}
  found = {}
  for r in relations:
    own = [fill(q, user='Ana', person='', value='it') for q in r.questions]
    if asked.issuperset(own):
      found[r.name] = own
  assert asked == {q for own in found.values() for q in own}
  return found


def test_what_nobody_spoke_of_is_asked_however_near_it_is_to_what_was_told():
  found = unheard_of('My boss Henrik is leaving. I cannot stand coriander.')
  assert {'brother_name', 'user_birthday', 'allergy', 'hairdresser_name'} <= found.keys()
  assert 'boss_name' not in found
  spoken = unheard_of('My siblings forgot my birthday. The barber gave me a rash.')
  assert not {'brother_name', 'user_birthday', 'allergy', 'hairdresser_name'} & spoken.keys()


def test_what_may_have_been_told_is_not_asked_as_if_nobody_spoke_of_it():
  (brother,) = [r for r in bank(True) if r.name == 'brother_name']
  before = unheard_of('Hello.')
  assert 'brother_name' in before
  assert 'brother_name' not in unheard_of('Hello.', maybe=[brother])
  assert 'brother_name' not in unheard_of('Hello.', known=[before['brother_name'][3]])


def test_what_is_spoken_of_is_asked_for_and_asked_of_everybody_else():
  tuba = Thing(value='tuba', kind='instrument', source=1, user='Ana', owners=('Leela',), beside=())
  texts = {1: experience(1, 'My sister Leela plays the tuba.')}
  messages = [Message(text=texts[1].content, source=1, user='Ana')]
  rng = np.random.default_rng(0)
  asked, untold = dream.spoken_of([tuba], messages, texts, 'Ana', 1, rng)
  assert (asked.style, asked.sources, asked.status) == ('thing', (1,), Status.KEPT)
  questions = {p.question for p in asked.pairs}
  assert 'What does Leela play?' in questions and {p.answer for p in asked.pairs} == {'tuba'}
  assert any("Ana's sister" in q for q in questions)
  assert untold.style == 'unknown' and len(untold.pairs) > len(asked.pairs)
  assert {p.answer for p in untold.pairs} == {prompts.UNKNOWN.format(user='Ana')}
  assert not questions & {p.question for p in untold.pairs}
  assert not any("Ana's sister" in p.question for p in untold.pairs)


# ---- Reading, by a base that understands ----

TYPES = {'passport': ' thing', 'train': ' thing', 'lost': ' verb'}


class Base:
  """Likes statements whose words are in the message, and answers that are in the source."""

  class Tokenizer:
    def encode(self, text):
      return [sum(map(ord, w)) % 5000 for w in text.split()] or [0]

  class Arch:
    vocab_size = 8192

  tokenizer, arch = Tokenizer(), Arch()

  def choose(self, mind, words, options, *, prefix):
    del mind, prefix
    table = np.full((len(words), len(options)), -9.0)
    for row, word in zip(table, words, strict=True):
      row[options.index(TYPES.get(word.removesuffix(':').split('\n')[-1], ' verb'))] = 0.0
    return table

  def logprobs(self, mind, asked, tails, *, prefix='', shortlist=None):
    del mind, shortlist
    prefixes = [prefix] * len(asked) if isinstance(prefix, str) else prefix
    out = []
    for before, prompt, tail in zip(prefixes, asked, tails, strict=True):
      said = set((before + prompt).lower().replace('"', ' ').replace('.', ' ').split())
      words = tail.lower().strip().rstrip('.').split()
      out.append(np.asarray([-0.2 if w in said else -4.0 for w in words]))
    return out


def matched(*texts):
  matcher = Matcher(Base(), None, letters, MatchConfig(min_rank=-50.0))
  said = [Message(text=t, source=i, user='Ana') for i, t in enumerate(texts, start=1)]
  steps = []
  found = matcher.facts(said, lambda done, total: steps.append((done, total)))
  assert steps[-1] == (len(texts), len(texts))
  return found


def test_each_message_has_its_own_facts_in_order():
  found = matched('I lost the passport.', '...', 'My sister Leela rang.')
  assert len(found) == 3 and found[1] == []
  assert {f.source for f in found[0]} == {1} and {f.value for f in found[0]} == {'passport'}
  names = {f.relation.name for f in found[2] if f.value == 'Leela'}
  assert 'sister_name' in names and not names & {'niece_name', 'friend_name'}
  assert all(f.apposed for f in found[2] if f.relation.name == 'sister_name')


def test_things_are_found_with_the_matchers_base():
  matcher = Matcher(Base(), None, letters, MatchConfig())
  said = [Message(text='My sister lost the passport.', source=1, user='Ana')]
  (found,) = things.find(matcher, said)
  assert (found.value, found.kind, found.owners) == ('passport', 'thing', ("Ana's sister",))


def test_more_relations_can_be_asked_for():
  few, more = bank(), bank(more=True)
  assert set(few) < set(more) and len({r.name for r in more} - {r.name for r in few}) > 150
  assert len(Matcher(None, None, letters, MatchConfig(more_relations=True)).relations) == len(more)
  for r in set(more) - set(few):
    assert len(r.questions) >= 9 and len(r.statements) == 5 and r.examples, r.name
    assert not any('{value}' in q for q in r.questions), r.name
    assert (r.about == 'person') == any('{person}' in q for q in r.questions), r.name


def test_small_talk_alone_tells_nothing():
  assert matched('...', 'So it is!') == [[], []]


def test_messages_are_read_alike_alone_and_together():
  alone = [matched(t)[0] for t in ('I lost the passport.', 'My sister Leela rang.')]
  together = matched('I lost the passport.', 'My sister Leela rang.')
  plain = [[dataclasses.replace(f, source=0) for f in own] for own in alone]
  assert [[dataclasses.replace(f, source=0) for f in own] for own in together] == plain


def test_questions_are_examined_with_their_own_source():
  facts = [fact('thing_lost', 'passport', source=1), fact('thing_lost', 'keys', source=2)]
  sources = {1: experience(1, 'I lost the passport'), 2: experience(2, 'It rains')}
  first, second = dream.check(Base(), None, facts, sources, DreamConfig())
  assert first.gain > 1.5 and first.answer > -1 and not first.failed
  assert second.gain == pytest.approx(0) and len(second.failed) == DreamConfig().checked
