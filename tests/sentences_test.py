"""Where sentences end."""

import pytest

from dreaming.brain import sentences


@pytest.mark.parametrize(
  'text, sentence',
  [
    ('A goat. Or a cow.', 'A goat.'),
    ('A goat! Or a cow.', 'A goat!'),
    ('"A goat." Or a cow.', '"A goat."'),
    ('\n  A goat\nA cow', 'A goat'),
    ('See Dr. Silva. Bye.', 'See Dr. Silva.'),
    ('It is in St. Ives. Bye.', 'It is in St. Ives.'),
    ('It is 3.5 km. Bye.', 'It is 3.5 km.'),
    ('At 10 a.m. on Friday. Bye.', 'At 10 a.m. on Friday.'),
    ('By J. R. Silva. Bye.', 'By J. R. Silva.'),
    ('In No. 5. Bye.', 'In No. 5.'),
    ('No. She has a goat.', 'No.'),
    ('On Oct. 3. Bye.', 'On Oct. 3.'),
    ('In Oct. She flies.', 'In Oct.'),
    ('Well... a goat. Bye.', 'Well... a goat.'),
    ('Well... A goat.', 'Well...'),
    ('1. A goat. 2. A cow.', '1. A goat.'),
    ('What?! A goat.', 'What?!'),
    ('', ''),
    ('...', '...'),
  ],
)
def test_the_first_sentence(text, sentence):
  assert sentences.first(text) == sentence


@pytest.mark.parametrize(
  'text, found',
  [
    ('A goat. Or a cow? No!', ['A goat.', 'Or a cow?', 'No!']),
    ('I saw Dr. Silva. He was\nlate. ', ['I saw Dr. Silva.', 'He was', 'late.']),
    ('First. 2. Second. Third', ['First.', '2. Second.', 'Third']),
    ('\n \n', []),
  ],
)
def test_all_sentences(text, found):
  assert sentences.split(text) == found


@pytest.mark.parametrize('text', ['A goat. See Dr. Silva at 10 a.m. Bye.', '"What?!" A goat...'])
def test_nothing_is_lost(text):
  assert ' '.join(sentences.split(text)) == text
