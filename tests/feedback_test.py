"""What words ask for: few wishes, found surely, and nothing where nobody wished."""

from __future__ import annotations

import time

import pytest

from dreaming import types
from dreaming.memory import feedback
from dreaming.memory.score import UNWANTED, WANTED

THIS, PREVIOUS = False, True


@pytest.mark.parametrize(
  ('said', 'value', 'previous'),
  [
    ('Remember this: my locker is number 41.', WANTED, THIS),
    ('Please remember that my sister is vegan.', WANTED, THIS),
    ('My locker is number 41. Please remember that.', WANTED, THIS),
    ('Remember this. The key is under the mat.', WANTED, THIS),
    ("I'm left-handed, so please remember that.", WANTED, THIS),
    ('Remember, I am allergic to nuts.', WANTED, THIS),
    ('Do not forget that I have an exam on Friday.', WANTED, THIS),
    ('Keep in mind that we leave at six.', WANTED, THIS),
    ('Make a note: the code is 77.', WANTED, THIS),
    ('Never forget that I love you.', WANTED, THIS),
    ('Remember that!', WANTED, PREVIOUS),
    ('please remember this', WANTED, PREVIOUS),
    ('No, wait, remember that!', WANTED, PREVIOUS),
    ('Please don\u2019t forget this', WANTED, PREVIOUS),
    ('Can you remember this for me?', WANTED, PREVIOUS),
    ("I'd like you to remember that.", WANTED, PREVIOUS),
    ('I want you to remember what I just said.', WANTED, PREVIOUS),
    ('\U0001f44d', WANTED, PREVIOUS),
    ('\U0001f44d\U0001f3fd', WANTED, PREVIOUS),
    ('\U0001f44e \U0001f44e', UNWANTED, PREVIOUS),
    ('Forget that.', UNWANTED, PREVIOUS),
    ('Please forget what I said.', UNWANTED, PREVIOUS),
    ('Oh, forget that I said anything.', UNWANTED, PREVIOUS),
    ('Forget what I said, it is on the 19th.', UNWANTED, PREVIOUS),
    ('Actually, forget my last message.', UNWANTED, PREVIOUS),
    ('You can forget about that, please', UNWANTED, PREVIOUS),
    ('do not keep this', UNWANTED, PREVIOUS),
    ('My salary is 3,000. Please forget that.', UNWANTED, THIS),
    ("Don't remember this: my pin is 1234.", UNWANTED, THIS),
  ],
)
def test_a_wish_is_found_with_what_it_is_about(said, value, previous):
  assert feedback.find(said) == (value, previous)


@pytest.mark.parametrize(
  'said',
  [
    'I forgot that at home.',
    'Remember when we went to Rome?',
    'Do you remember that?',
    'Do you remember that my sister is vegan?',
    'Remember that film we saw?',
    'Remember that guy from the gym. He called.',
    'Can you remember your first day?',
    'Remember me?',
    'Remember to breathe.',
    'Remember the Alamo!',
    "I can't remember this at all.",
    'I remember that!',
    'She told me to remember this.',
    'To remember this is hard.',
    'I will never forget that day.',
    'I want to forget that day.',
    'I told you to forget that!',
    "Don't let me forget that.",
    "Let's forget that.",
    'Did you forget that?',
    'How could I forget that?',
    'He forgets that every time.',
    'Forget it.',
    'Oh, forget about it!',
    'Forget everything I know about cooking, said the book.',
    'Thumbs up for the soup.',
    'Great \U0001f44d',
    '\U0001f44d\U0001f44e',
    '',
  ],
)
def test_where_nobody_wished_nothing_is_found(said):
  assert feedback.find(said) is None


def test_the_last_wish_counts():
  assert feedback.find('Remember this: my code is 7. No wait, it is 8. Forget that.') == (
    UNWANTED,
    THIS,
  )


def test_long_and_odd_messages_cost_no_time():
  begin = time.perf_counter()
  for said in ('please ' * 9_000, 'remember ,' * 9_000, ', so please ' * 9_000, '.' * 65_000):
    feedback.find(said)
  assert time.perf_counter() - begin < 1.0


def live(id, content, **fields):
  fields = {'kind': 'chat', 'speaker': 'Ana', 'session': 's'} | fields
  return types.Experience(id=id, time=float(id), content=content, **fields)


def test_that_is_what_the_same_person_said_before_in_this_conversation():
  lived = [
    live(1, 'I have a parrot.'),
    live(2, 'I have a cat.', speaker='Bo'),
    live(3, 'I have a dog.', session='earlier'),
    live(4, 'Forget that.'),
    live(5, 'No, remember that!'),  # not 'Forget that.', which only asks
    live(6, 'Remember that I am vegan.'),
    live(7, 'Remember that!'),
  ]
  assert [feedback.about(e, lived) for e in lived] == [
    None, None, None, (1, UNWANTED), (1, WANTED), (6, WANTED), (6, WANTED),
  ]  # fmt: skip
  assert feedback.about(live(1, 'Forget that.'), [live(1, 'Forget that.')]) is None


@pytest.mark.parametrize(
  'fields', [{'trust': types.Trust.IMPORTED}, {'trust': types.Trust.THIRD_PARTY}, {'kind': 'file'}]
)
def test_foreign_words_ask_for_nothing(fields):
  assert feedback.about(live(2, 'Remember that!', **fields), [live(1, 'Hello')]) is None
