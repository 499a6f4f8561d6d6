"""The ways in which a memory is relevant, each on a small life with the real static vectors."""

from __future__ import annotations

import dataclasses
import datetime

import numpy as np
import pytest

from dreaming.memory import embed, index, relevance
from dreaming.memory.diary import Diary
from dreaming.memory.recall import RecallConfig, recall

START = datetime.datetime(2026, 3, 2, 9, tzinfo=datetime.UTC).timestamp()
HOUR, DAY = 3600.0, 86_400.0
EMBEDDER = embed.wordllama()


class World:
  def __init__(self, path):
    self.diary = Diary(path)
    self.ids = {}

  def say(self, content, at=0.0, speaker='Ana', session='s'):
    e = self.diary.append(time=START + at, speaker=speaker, content=content, session=session)
    self.ids[e.id] = content
    return e.id

  def parts(self, query, now=START + 40 * DAY, among=None):
    found = relevance.find(
      self.diary, index.build(self.diary, EMBEDDER), EMBEDDER, query, now, among
    )
    parts = found.parts(np.arange(len(found.ids)))
    return dict(zip(found.ids.tolist(), parts, strict=True))

  def recall(self, query, now=START + 40 * DAY, **changes):
    config = dataclasses.replace(RecallConfig(recall_k=1), **changes)
    built = index.build(self.diary, EMBEDDER)
    return [r.experience.id for r in recall(self.diary, built, EMBEDDER, query, now, config)]


@pytest.fixture
def world(tmp_path):
  world = World(tmp_path / 'diary.sqlite')
  yield world
  world.diary.close()


def test_a_name_does_not_draw_in_all_that_was_said_of_somebody(world):
  for i in range(6):
    world.say(f'Thought of Oriana again, {i} times.', at=i * DAY)
  told = world.say('She has found work as a nurse in Ghent, our Oriana.', at=20 * DAY)
  world.say('Kwame has found work as a nurse, too.', at=21 * DAY)
  parts = world.parts('In which profession is Oriana working?')
  assert parts[told].names == 1.0
  assert parts[told].cosine == max(p.cosine for p in parts.values() if p.names)
  assert world.recall('In which profession is Oriana working?') == [told]


def test_what_was_meant_a_turn_ago_counts(world):
  world.say('Ilka has bought a dog!')
  named = world.say('He is called Basil.', at=60)
  world.say('Otto is called to the office on Mondays.', at=5 * DAY)
  world.say('Kwame is called Kwame after his uncle.', at=6 * DAY)
  assert world.parts('What is the name of the dog of Ilka?')[named].names_near == 1.0
  assert named in world.recall('What is the name of the dog of Ilka?', recall_k=2)
  parts = world.parts('What is the dog called?')
  assert parts[named].before == pytest.approx(parts[named - 1].cosine)


@pytest.mark.parametrize(('at', 'session'), [(2 * HOUR, 's'), (60.0, 'other')])
def test_another_conversation_is_not_beside(world, at, session):
  world.say('Ilka has bought a dog!')
  later = world.say('He is called Basil.', at=at, session=session)
  part = world.parts('What is the name of the dog of Ilka?')[later]
  assert (part.before, part.names_near) == (0.0, 0.0)


def test_only_two_turns_before_are_looked_at(world):
  turns = ['Ilka is here.', 'One.', 'Two.', 'Three.']
  ids = [world.say(t, at=60.0 * i) for i, t in enumerate(turns)]
  parts = world.parts('What about Ilka?')
  assert [parts[i].names_near for i in ids] == [1.0, 1.0, 1.0, 0.0]


def test_a_time_brings_what_was_said_then(world):
  for i in range(30):
    world.say(f'We had soup for dinner, number {i}.', at=i * DAY)
  then = world.say('A walk to the moor.', at=9 * DAY)  # 11 March, a Wednesday
  parts = world.parts('What did I do on 11 March?')
  assert {i for i, p in parts.items() if p.when} == {10, then}
  assert world.recall('Where did I walk on 11 March?') == [then]


def test_who_told_it(world):
  world.say('Bram says that he is afraid of the exam.', at=DAY)
  told = world.say('The exam frightens me, and I sleep badly.', at=2 * DAY, speaker='Bram')
  parts = world.parts('What did Bram tell you of the exam?')
  assert [i for i, p in parts.items() if p.named] == [told]
  assert world.recall('What did Bram tell you of the exam?') == [told]
  assert not any(p.named for p in world.parts('How is Bram getting along?').values())


def test_filters_leave_out_the_rest(world):
  ids = [world.say('The parrot sings.', at=i * DAY, speaker='AB'[i % 2]) for i in range(6)]
  assert set(world.parts('parrot', among={'speaker': 'A'})) == {*ids[::2]}
  assert set(world.parts('parrot', among={'until': START + 2 * DAY})) == {*ids[:2]}
  assert set(world.parts('parrot', among={'since': START + 5 * DAY})) == {ids[5]}
  assert world.parts('parrot', among={'session': 'none'}) == {}
  assert world.parts('parrot', among={'kind': 'observation'}) == {}


@pytest.mark.parametrize(
  ('query', 'names'),
  [
    ('Where does Ilka live?', {'Ilka'}),
    ('Ilka?', set()),
    ("What is Ilka's and Dr. Quispel's plan in March, on Monday?", {'Ilka', 'Dr', 'Quispel'}),
    ('Do I know it? Yes. Where is it?', set()),
    ('What is order 48213, of 2025, of 5 June?', {'48213'}),
    ('', set()),
  ],
)
def test_names(query, names):
  assert relevance.names_of(query) == names


def test_however_long_the_life_few_are_looked_at(world):
  with world.diary.transaction():
    for i in range(1500):
      world.say(f'The parrot of day {i} sings to Ilka.', at=i * 60.0)
  assert len(world.parts('Which parrot sings to Ilka today?')) < 450


def test_what_is_near_to_everything_comes_after_what_is_not(world):
  for i, name in enumerate(['Ivo', 'Zoe', 'Lars', 'Ada', 'Bea', 'Uma', 'Kim']):
    world.say(f'{name} asked how you are, and sends regards.', at=i * DAY)
  told = world.say('Ilka asked me for the ladder.', at=20 * DAY)
  hub = world.say('Ilka asked how you are, and sends love.', at=21 * DAY)
  parts = world.parts('What did Ilka ask how to get?')
  assert parts[hub].hubness > parts[told].hubness + 0.1
  plain = world.recall('What did Ilka ask how to get?', hubness=0.0, recall_k=9)
  less = world.recall('What did Ilka ask how to get?', hubness=1.0, recall_k=9)
  assert plain.index(hub) < plain.index(told) and less.index(told) < less.index(hub)


def test_a_memory_without_a_vector_is_as_near_to_others_as_they_are(world):
  world.say('I have a parrot.')
  world.say('I have a parrot and a cat.')
  built = index.build(world.diary, EMBEDDER)
  late = world.say('I have a parrot, Ana.')
  found = relevance.find(world.diary, built, EMBEDDER, 'a parrot', START + DAY)
  hubness = dict(zip(found.ids.tolist(), found.hubness.tolist(), strict=True))
  assert hubness[late] == pytest.approx(np.mean([v for i, v in hubness.items() if i != late]))


def test_names_are_a_third_of_what_a_query_means():
  asked = []

  def embedder(texts):
    asked.extend(texts)
    return np.eye(2, dtype=np.float32)[[len(asked) - 1]]

  meaning = relevance._meaning(embedder, {'Ilka'}, 'Where is Ilka?')
  assert asked == ['Where is someone?', 'Where is Ilka?']
  np.testing.assert_allclose(meaning, [2 / 3, 1 / 3], rtol=1e-6)
