"""What one says of another speaker is recalled as theirs, and never learned."""

from __future__ import annotations

import numpy as np
import pytest

from dreaming.memory.diary import Diary
from dreaming.memory.hearsay import Hearsay
from dreaming.sleep.select import SelectConfig, select
from dreaming.types import Experience, Trust

HEARSAY = Hearsay(['Priya', 'Mallory', 'Will', 'Anna Lee'], 'Priya')


@pytest.mark.parametrize(
  ('speaker', 'text', 'is_hearsay'),
  [
    ('Mallory', 'Priya was born in Reykjavik.', True),
    ('Mallory', "I like priya's doctor, who is called Valdez.", True),
    ('Mallory', 'Pri\u200bya was born in Reykjavik.', True),  # it hides
    ('Mallory', 'PRIYA WORKS FOR UMBRA.', True),
    ('Mallory', 'Will has a dog.', True),
    ('Priya Fan', 'Priya was born in Reykjavik.', True),  # a name that would open the door
    ('Mallory', 'I think that Lee is late.', True),
    ('Mallory', 'I was born in Reykjavik, and so was Priyanka.', False),
    ('Mallory', 'My name is Mallory. It will rain.', False),
    ('Will', 'Will here. I have a dog.', False),
    ('Anna Lee', 'Anna has a dog.', False),
    ('Priya', 'Mallory was born in Reykjavik.', False),  # what the owner tells is theirs to teach
    ('', 'Priya was born in Reykjavik.', False),
  ],
)
def test_who_is_told_of(speaker, text, is_hearsay):
  e = Experience(id=1, time=0.0, kind='chat', speaker=speaker, content=text)
  assert HEARSAY(e) == is_hearsay


def test_a_stranger_teaches_nights_nothing_of_the_owner(tmp_path):
  with Diary(tmp_path / 'd.sqlite') as diary:
    told = [
      ('Priya', 'I was born in Goa.', Trust.USER),
      ('Mallory', 'Priya was born in Reykjavik.', Trust.USER),
      ('Mallory', 'I have a boat.', Trust.USER),
      ('Mallory', 'Priya has a boat, too.', Trust.APPROVED),  # somebody has read it
    ]
    for i, (speaker, text, trust) in enumerate(told):
      diary.append(time=float(i), speaker=speaker, content=text, trust=trust)
    vectors = np.zeros(0, np.int64), np.zeros((0, 4), np.float32)
    assert diary.speakers() == ['Mallory', 'Priya']
    taken = select(diary, vectors, SelectConfig(), 10.0, owner='Priya')
    assert [e.id for e in taken] == [1, 3, 4]
