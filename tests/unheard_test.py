"""What was never spoken of is not answered about; what was, is, by whatever word."""

from __future__ import annotations

import re

import pytest

from dreaming.memory import unheard


def _told(*said):
  words = {w.rstrip('s') for text in said for w in re.findall(r'\w+', text.casefold())}
  return lambda wanted: bool(words & {*wanted})


@pytest.mark.parametrize(
  ('question', 'said', 'about'),
  [
    ("Which instrument does Priya's uncle play?", 'I have started the cello.', 'uncle'),
    ("What is Priya's brother called?", 'Henrik, my boss, was in a good mood.', 'brother'),
    ("What is Priya's brother called?", 'My sister Leela is getting married.', 'brother'),
    ("What is Priya's brother called?", 'I have two siblings.', None),
    ("What is Priya's younger brother called?", 'The lift is stuck.', 'brother'),
    ("Where is Priya's mum from?", 'My mother was born in Pondicherry.', None),
    ("Where is Priya's mother from?", 'My parents are from Pune.', None),
    ("What does Priya's boss's wife do?", 'My boss is called Henrik.', 'wife'),
    ('What is Priya called?', 'Hello.', None),
    ('Who was the brother of Orville Wright?', 'Hello.', None),  # nobody of hers
    ("What does Omar's uncle do?", 'Hello.', None),
    ("What colour is Priya's car?", 'Hello.', None),
    ("On which date is Priya's birthday?", 'In October I am flying to Tasmania.', 'birthday'),
    ("On which date is Priya's birthday?", 'I am turning forty on the 4th of May.', None),
    ('What is Priya allergic to?', 'I cannot stand coriander.', 'allergic'),
    ('What is Priya allergic to?', 'No nuts for me, I am allergic.', None),
    ("WHAT IS PRIYA'S SON CALLED?", 'Hello.', None),  # another spelling of the name is let be
  ],
)
def test_of_what_nothing_was_told(question, said, about):
  assert unheard.unheard(question, 'Priya', _told(said)) == about


def test_every_relative_is_told_by_its_own_name():
  for word, words in unheard._TOLD_BY.items():
    assert {word, 'birth'} & {*words}
    told = _told(f'my {words[0]}')
    assert unheard.unheard(f"What of Priya's {word}?", 'Priya', told) is None


def test_a_name_is_no_pattern():
  assert unheard.unheard("Who is J. (Jo)'s uncle?", 'J. (Jo)', _told('')) == 'uncle'
  assert unheard.unheard("Who is James' uncle?", 'James', _told('')) == 'uncle'
