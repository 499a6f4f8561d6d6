"""Who was never spoken of is not answered about; who was, is, by whatever word."""

from __future__ import annotations

import re

import pytest

from dreaming.memory import kin


def _told(*said):
  words = {w.rstrip('s') for text in said for w in re.findall(r'\w+', text.casefold())}
  return lambda wanted: bool(words & {*wanted})


@pytest.mark.parametrize(
  ('question', 'said', 'unheard'),
  [
    ("Which instrument does Priya's uncle play?", 'I have started the cello.', 'uncle'),
    ("What is Priya's brother called?", 'Henrik, my boss, was in a good mood.', 'brother'),
    ("What is Priya's brother called?", 'My sister Leela is getting married.', None),  # a sibling
    ("What is Priya's younger brother called?", 'The lift is stuck.', 'brother'),
    ("Where is Priya's mum from?", 'My mother was born in Pondicherry.', None),
    ("Where is Priya's mother from?", 'My parents are from Pune.', None),
    ("What does Priya's boss's wife do?", 'My boss is called Henrik.', 'wife'),
    ('What is Priya called?', 'Hello.', None),
    ('Who was the brother of Orville Wright?', 'Hello.', None),  # nobody of hers
    ("What does Omar's uncle do?", 'Hello.', None),
    ("What colour is Priya's car?", 'Hello.', None),
    ("WHAT IS PRIYA'S SON CALLED?", 'Hello.', None),  # another spelling of the name is let be
  ],
)
def test_of_whom_nothing_was_told(question, said, unheard):
  assert kin.unheard(question, 'Priya', _told(said)) == unheard


def test_every_relative_is_told_by_its_own_name():
  for relative, words in kin._TOLD_BY.items():
    assert relative in words
    assert kin.unheard(f"Who is Priya's {relative}?", 'Priya', _told(f'my {relative}')) is None


def test_a_name_is_no_pattern():
  assert kin.unheard("Who is J. (Jo)'s uncle?", 'J. (Jo)', _told('')) in (None, 'uncle')
  assert kin.unheard("Who is James' uncle?", 'James', _told('')) == 'uncle'
