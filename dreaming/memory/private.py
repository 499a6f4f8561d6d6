"""What must never be learned by heart: passwords, keys and card numbers in what people say.

Weights cannot unlearn a word, and anybody who talks to them may ask for it. So nights read every
message with its secrets struck out; the diary, which is its owner's, keeps them. Scanners for
source code find keys by their makers' formats; people also say "my PIN is 4921", which is in none.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from dreaming.types import Experience

STRUCK = '***'

_KINDS = r'pass(?:word|code|phrase|wort)s?|pwd|pin(?: ?code| ?number)?|cvv|cvc|secret(?: ?key)?'
_KINDS += (
  r'|(?:api|access|licen[cs]e|private|security|recovery|door|gate|alarm|safe)[ -]?(?:key|code)s?'
)
_KINDS += r'|combination|token|credentials?|wi-?fi (?:key|code)'
_IS = r'(?:\s*(?:is|are|was|=|:|will be|changed to|remains)\s*(?:now\s+|still\s+|called\s+)?)'
_SAID = re.compile(
  rf'\b(?:{_KINDS})\b(?:\s+(?:for|of|to|on|at)\s+[^.:=\n]{{1,40}}?)?{_IS}'
  r'(?P<secret>"[^"\n]{1,80}"|\'[^\'\n]{1,80}\'|[^\s,;]{3,80})',
  re.IGNORECASE,
)
_LOGIN = re.compile(r'\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,80}:(?P<secret>[^\s/@]{1,80})@')
_BLOCK = re.compile(
  r'-----BEGIN (?P<what>[A-Z ]{0,40}PRIVATE KEY)-----.{0,20000}?(?:-----END (?P=what)-----|\Z)',
  re.DOTALL,
)
_TOKEN = re.compile(r'[A-Za-z0-9_\-./+=]{16,4096}')
_MAKERS = re.compile(r'(?:sk|pk|rk|ghp|gho|glpat|hf|xox[abprs]|npm|pypi|AKIA|AIza)[-_A-Z0-9]')
_DIGITS = re.compile(r'(?<![\d.])\d(?:[ -]?\d){12,18}(?![\d.])')
_IBAN = re.compile(r'\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b')
_MAIL = re.compile(r'[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}')
_PHONE = re.compile(r'(?<![\w.])(?:\+|00|0)\d(?:[ ()/-]?\d){6,14}(?!\w)')
_BITS = 3.3  # of a random token's characters, each; words run together have less


class Found(NamedTuple):
  kind: str  # 'password', 'key', 'card', 'account'; 'mail', 'phone'
  start: int
  end: int


def find(text: str, contacts: bool = False) -> list[Found]:
  """The secrets of a text, in its order, none within another.

  Args:
    contacts: find addresses and telephone numbers, too. They are no secrets.
  """
  found = [*_secrets(text), *(_contacts(text) if contacts else ())]
  out: list[Found] = []
  for f in sorted(found, key=lambda f: (f.start, -f.end)):
    if not out or f.start >= out[-1].end:
      out.append(f)
  return out


def strike(text: str, contacts: bool = False) -> str:
  """The text with every secret struck out."""
  for f in reversed(find(text, contacts)):
    text = text[: f.start] + STRUCK + text[f.end :]
  return text


def without_secrets(e: Experience, contacts: bool = False) -> Experience:
  """An experience as nights may read it: content, response, and what is seen or heard."""
  media = tuple(
    dataclasses.replace(m, description=strike(m.description, contacts)) for m in e.media
  )
  content, response = strike(e.content, contacts), strike(e.response, contacts)
  return dataclasses.replace(e, content=content, response=response, media=media)


def _secrets(text: str) -> Iterator[Found]:
  for m in _BLOCK.finditer(text):
    yield Found('key', *m.span())
  for m in _LOGIN.finditer(text):
    yield Found('password', *m.span('secret'))
  for m in _SAID.finditer(text):
    secret = m['secret']
    if _is_password(secret):
      ends = len(secret) - len(secret.rstrip('.!?'))  # the sentence's, not the password's
      yield Found('password', m.start('secret'), m.end('secret') - ends)
  for m in _TOKEN.finditer(text):
    if _is_random(m[0]):
      yield Found('key', *m.span())
  for m in _DIGITS.finditer(text):
    if _luhn(re.sub(r'\D', '', m[0])):
      yield Found('card', *m.span())
  for m in _IBAN.finditer(text):
    if _iban(m[0].replace(' ', '')):
      yield Found('account', *m.span())


def _contacts(text: str) -> Iterator[Found]:
  for m in _MAIL.finditer(text):
    yield Found('mail', *m.span())
  for m in _PHONE.finditer(text):
    yield Found('phone', *m.span())


def _is_password(word: str) -> bool:
  """Quoted, or with something that is no plain word: "the password is wrong" tells none."""
  quoted = word[0] in '"\'' and len(word) > 2
  bare = word.strip('"\'.!?:')
  return quoted or (len(bare) > 2 and not bare.isalpha() and any(c.isalnum() for c in bare))


def _is_random(token: str) -> bool:
  """Letters and digits mixed as nobody writes them; no address, path or date is."""
  if '://' in token or token.startswith(('www.', '/', './')):
    return False
  bare = token.strip('.-_=/+')
  if _MAKERS.match(bare):
    return True
  parts = re.split(r'[-_./+=]', bare)  # words and numbers that are joined are mixed in none
  if not any(len(p) >= 12 and not p.isalpha() and not p.isdigit() for p in parts):
    return False
  counts = collections.Counter(bare).values()
  return -sum(c / len(bare) * math.log2(c / len(bare)) for c in counts) >= _BITS


def _luhn(digits: str) -> bool:
  """ISO/IEC 7812-1, annex B; what is all the same digit is no card."""
  doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
  return sum(d - 9 * (d > 9) for d in doubled) % 10 == 0 and len(set(digits)) > 1


def _iban(account: str) -> bool:
  """ISO 13616: the rest by 97 is 1."""
  if not 15 <= len(account) <= 34:
    return False
  return int(''.join(str(int(c, 36)) for c in account[4:] + account[:4])) % 97 == 1
