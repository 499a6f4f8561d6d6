"""Relatives that nobody spoke of: a question about one of them has no answer in the diary.

What is likest to a question about an uncle is something, and a small reader takes it for the
answer ("Which instrument does Priya's uncle play?": the cello that Priya has begun). Words for
relatives are few and hardly have others for them, so that their absence tells.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

_MOTHER = ('mother', 'mum', 'mom', 'mam', 'mama', 'mummy', 'mommy', 'ma')
_FATHER = ('father', 'dad', 'papa', 'daddy', 'pa', 'pop')
_PARENT = (*_MOTHER, *_FATHER, 'parent', 'folks')
_CHILD = (
  'son', 'daughter', 'child', 'children', 'kid', 'boy', 'girl', 'baby', 'twin', 'toddler',
  'teenager', 'eldest', 'youngest', 'oldest', 'firstborn', 'stepson', 'stepdaughter',
)  # fmt: skip
_SIBLING = ('brother', 'sister', 'sibling', 'twin', 'bro', 'sis', 'triplet')
_PARTNER = (
  'husband', 'wife', 'partner', 'spouse', 'fiance', 'fiancee', 'boyfriend', 'girlfriend',
  'married', 'wedding', 'hubby', 'widow', 'widower', 'divorced', 'ex',
)  # fmt: skip
_GRANDMOTHER = ('grandmother', 'grandma', 'granny', 'gran', 'nan', 'nana', 'nanna', 'grandparent',
                'oma', 'abuela', 'nonna')  # fmt: skip
_GRANDFATHER = ('grandfather', 'grandpa', 'grandad', 'granddad', 'gramps', 'grandparent', 'opa',
                'abuelo', 'nonno')  # fmt: skip

_NEAR = 3  # words after "Priya's" among which the relative is: "Priya's late grandmother"

# A relative -> the words of which one must have been said, or nothing was told of them.
_TOLD_BY = {
  **dict.fromkeys(_MOTHER[:3], _PARENT),
  **dict.fromkeys(_FATHER[:2], _PARENT),
  'brother': _SIBLING,
  'sister': _SIBLING,
  'son': _CHILD,
  'daughter': _CHILD,
  'husband': _PARTNER,
  'wife': _PARTNER,
  'uncle': ('uncle', 'aunt', 'auntie', 'aunty'),
  'aunt': ('aunt', 'auntie', 'aunty', 'uncle'),
  'cousin': ('cousin',),
  'nephew': ('nephew', 'niece', *_SIBLING),
  'niece': ('niece', 'nephew', *_SIBLING),
  **dict.fromkeys(('grandmother', 'grandma', 'granny'), _GRANDMOTHER),
  **dict.fromkeys(('grandfather', 'grandpa', 'grandad'), _GRANDFATHER),
  'grandson': ('grandson', 'granddaughter', 'grandchild', 'grandchildren', 'grandkid'),
  'granddaughter': ('grandson', 'granddaughter', 'grandchild', 'grandchildren', 'grandkid'),
}


def unheard(question: str, user: str, told: Callable[[Collection[str]], bool]) -> str | None:
  """The user's relative that a question is about and of whom nothing was told, or None.

  Args:
    question: in the third person ("What is Priya's brother called?").
    user: whose relative it is.
    told: whether something that was said has one of these words.
  """
  for near in re.findall(rf"\b{re.escape(user)}'s?((?:\W+\w+){{1,{_NEAR}}})", question):
    for relative in re.findall(r'\w+', near):
      words = _TOLD_BY.get(relative.casefold())
      if words and not told(words):
        return relative
  return None
