"""Relatives, birthdays, allergies that nobody spoke of: what asks about one has no answer.

What is likest to a question about an uncle is something, and a small reader takes it for the
answer ("Which instrument does Priya's uncle play?": the cello that Priya has begun). Such words are
few and hardly have others for them, so that their absence tells; that of other words does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

_MOTHER = ('mother', 'mum', 'mom', 'mam', 'mama', 'mummy', 'mommy', 'ma', 'parent', 'folks')
_FATHER = ('father', 'dad', 'papa', 'daddy', 'pa', 'pop', 'parent', 'folks')
_CHILD = (
  'child', 'children', 'kid', 'baby', 'twin', 'triplet', 'toddler', 'teenager', 'eldest',
  'youngest', 'oldest', 'firstborn', 'little one',
)  # fmt: skip
_SON = ('son', 'boy', 'stepson', *_CHILD)
_DAUGHTER = ('daughter', 'girl', 'stepdaughter', *_CHILD)
_BROTHER = ('brother', 'bro', 'sibling', 'twin', 'triplet')
_SISTER = ('sister', 'sis', 'sibling', 'twin', 'triplet')
_PARTNER = (
  'husband', 'wife', 'partner', 'spouse', 'fiance', 'fiancee', 'boyfriend', 'girlfriend',
  'married', 'wedding', 'hubby', 'widow', 'widower', 'divorced', 'ex',
)  # fmt: skip
_GRANDMOTHER = (
  'grandmother', 'grandma', 'granny', 'gran', 'nan', 'nana', 'nanna', 'grandparent', 'oma',
  'abuela', 'nonna', 'babushka', 'gogo', 'lola', 'nani', 'yaya',
)  # fmt: skip
_GRANDFATHER = ('grandfather', 'grandpa', 'grandad', 'granddad', 'gramps', 'grandparent', 'opa',
                'abuelo', 'nonno')  # fmt: skip

_NEAR = 3  # words after the name among which it is: "Priya's late grandmother"

_BIRTHDAY = ('birthday', 'birthdays', 'born', 'birth', 'bday', 'turn', 'turned', 'turning')
_ALLERGY = (
  'allergic', 'allergy', 'allergies', 'intolerant', 'intolerance', 'hay', 'coeliac', 'celiac',
  'reaction', 'epipen', 'rash', 'hives', 'swell', 'swollen', 'itch', 'sneeze',
)  # fmt: skip
# What is asked about -> the words of which one must have been said, or nothing was told of them.
_TOLD_BY = {
  **dict.fromkeys(('mother', 'mum', 'mom'), _MOTHER),
  **dict.fromkeys(('father', 'dad'), _FATHER),
  'brother': _BROTHER,
  'sister': _SISTER,
  'son': _SON,
  'daughter': _DAUGHTER,
  'husband': _PARTNER,
  'wife': _PARTNER,
  'uncle': ('uncle',),
  'aunt': ('aunt', 'auntie', 'aunty'),
  'cousin': ('cousin',),
  'nephew': ('nephew', *_BROTHER, *_SISTER),
  'niece': ('niece', *_BROTHER, *_SISTER),
  **dict.fromkeys(('grandmother', 'grandma', 'granny'), _GRANDMOTHER),
  **dict.fromkeys(('grandfather', 'grandpa', 'grandad'), _GRANDFATHER),
  **dict.fromkeys(('birthday', 'birthdate'), _BIRTHDAY),
  **dict.fromkeys(('allergic', 'allergy', 'allergies'), _ALLERGY),
  'grandson': ('grandson', 'granddaughter', 'grandchild', 'grandchildren', 'grandkid'),
  'granddaughter': ('grandson', 'granddaughter', 'grandchild', 'grandchildren', 'grandkid'),
}


def unheard(question: str, user: str, told: Callable[[Collection[str]], bool]) -> str | None:
  """What of the user's a question is about and nobody spoke of, as 'brother', or None.

  Args:
    question: in the third person ("What is Priya's brother called?").
    user: whose it is.
    told: whether something that was said has one of these words.
  """
  for near in re.findall(rf"\b{re.escape(user)}(?:'s?)?((?:\W+\w+){{1,{_NEAR}}})", question):
    for word in re.findall(r'\w+', near):
      words = _TOLD_BY.get(word.casefold())
      if words and not told(words):
        return word
  return None
