"""The language that a text is written in, told by the text alone.

  language.of('Mein Papagei heißt Kiwi.')  # 'de'

py3langid (BSD 3-Clause) carries its model: naive Bayes over byte n-grams (Lui and Baldwin,
langid.py, ACL 2012) of 139 languages. It asks for nothing but numpy, is offline, and the same text
always has the same language. The first takes under half a second and 75 MiB, others 0.1 ms each.
"""

from __future__ import annotations

import collections
import functools
import lzma
import unicodedata
from typing import Any

_CHARS = 1_000  # of a text that are looked at
_BYTES = 8  # of letters in UTF-8 below which it is too short: two words, or three Chinese signs
_LEAST = 0.6  # probability: half as much again as that of all other languages together
_SIGNS = ('So', 'Sk')  # Unicode categories of emoji, which are of no language
# What ISO 639-3 counts to a language with a code of two letters (its macrolanguages).
_PART_OF = {'ary': 'ar', 'arz': 'ar', 'wuu': 'zh', 'yue': 'zh'}


def of(text: str) -> str:
  """The ISO 639-1 code of a text's language, such as 'en'.

  '' where it is too short, too much like several languages, or in one without such a code; and
  where py3langid is not installed or cannot be loaded: a message counts more than its language.
  """
  text = ''.join(c for c in text[:_CHARS] if unicodedata.category(c) not in _SIGNS)
  letters = ''.join(c for c in text if c.isalpha())
  if len(letters.encode()) < _BYTES or (model := _model()) is None:
    return ''
  found: collections.Counter[str] = collections.Counter()
  for code, probability in model.rank(text):
    found[_PART_OF.get(code, code)] += probability
  ((code, probability),) = found.most_common(1)
  return code if probability >= _LEAST and len(code) == 2 else ''


@functools.cache
def _model() -> Any:
  """py3langid's, None where there is none."""
  try:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
  except (ImportError, OSError, EOFError, ValueError, lzma.LZMAError):
    return None
