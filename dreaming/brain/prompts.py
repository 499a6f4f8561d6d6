"""How the agent is asked: few-shot for pretrained checkpoints, the chat template for -it ones."""

from __future__ import annotations

import re

QUESTION = 'Q: '
ANSWER = 'A:'

# Four everyday questions with short answers, so that a pretrained model sees the format.
ANSWER_PREFIX = """Q: What is the capital of France?
A: Paris

Q: How many legs does a spider have?
A: Eight

Q: Who wrote Hamlet?
A: William Shakespeare

Q: What colour is grass?
A: Green

"""


# What nights teach to say of what nobody told.
UNKNOWN = '{user} has not told me.'


# What is replied from text that is not the user's own: its words, as somebody else's.
QUOTED = 'I only have it from others: "{words}"'
SAID = '{speaker} said: "{words}"'
# And what a picture shows, as it was described.
SEEN = 'I see {words}.'


def is_unknown(reply: str) -> bool:
  """Whether a reply says that nobody told."""
  return UNKNOWN.format(user='').strip(' .') in reply


def question(text: str) -> str:
  """A question in the format of ANSWER_PREFIX; the answer follows after a space."""
  return f'{QUESTION}{text}\n{ANSWER}'


def question_opening(words: str) -> str:
  return QUESTION + words


# The first that matches at a place holds. Verbs only where one with the subject makes a pair.
_FIRST_PERSON = (
  (r"I'm|I am", '{} is'),
  (r"I've|I have", '{} has'),
  (r"I'll", '{} will'),
  (r"I'd", '{} would'),
  (r'I do', '{} does'),
  (r"don't I", "doesn't {}"),
  (r"haven't I", "hasn't {}"),
  (r'am I', 'is {}'),
  (r'do I', 'does {}'),
  (r'have I', 'has {}'),
  (r'my|mine', "{}'s"),
  (r'I|me|myself', '{}'),
)
_ANY_FIRST_PERSON = re.compile(
  '|'.join(rf"(?P<p{i}>(?<![\w'])(?:{p})(?![\w']))" for i, (p, _) in enumerate(_FIRST_PERSON)),
  re.IGNORECASE,
)

_DATES = (
  '(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?|January|February|March|April|May|June|July|August|'
  'September|October|November|December'
)
# 'who won World War I', 'where was Otto I', but not 'on Mondays I'.
_NUMERAL_AFTER = re.compile(rf'\w\s+(?!(?:{_DATES})\b)[A-Z]\w*\s+$')


def is_numeral(before: str) -> bool:
  """Whether an 'I' after that text counts ('World War I') and is nobody."""
  return _NUMERAL_AFTER.search(before) is not None


def third_person(text: str, user: str) -> str:
  """A user's question as someone else would ask it, which is how nights learn facts.

  'What is my pet called?' said by Priya is "What is Priya's pet called?".
  """

  def about(match: re.Match[str]) -> str:
    if match.group() == 'I' and is_numeral(match.string[: match.start()]):
      return 'I'
    number = int(match.lastgroup.removeprefix('p'))
    said = _FIRST_PERSON[number][1].format(user)
    return said[0].upper() + said[1:] if match.group()[0].isupper() else said

  return _ANY_FIRST_PERSON.sub(about, text.replace('\u2019', "'"))
