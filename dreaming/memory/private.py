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
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from dreaming.types import Dream, Experience

STRUCK = '***'

_KINDS = r'pass(?:word|code|phrase|wort)s?|pwd|pin(?: ?code| ?number)?|cvv|cvc|secret(?: ?key)?'
_KINDS += (
  r'|(?:api|access|licen[cs]e|private|security|recovery|door|gate|alarm|safe)[ -]?(?:key|code)s?'
)
_KINDS += r'|combination|token|credentials?|wi-?fi (?:key|code)|(?:seed|recovery) phrase'
_KINDS += r'|(?:social security|passport|insurance|id(?:entity)?) number|ssn'
# What opens: "the code for the front door is 4921", "the safe opens with 18-36-42".
_KINDS += r'|(?:key|code)s? (?:for|of|to) (?:the|my|our|his|her|their) [\w\' -]{2,40}?'
_IS = (
  r'(?:\s*(?:is|are|was|=|:|will be|(?:changed|set) to|remains)\s*(?:now\s+|still\s+|called\s+)?'
)
_IS += r'|\s+to\s+(?=\S*\d))'
_SAID = re.compile(
  rf'\b(?:{_KINDS})\b(?:\s+(?:for|of|to|on|at)\s+[^.:=\n]{{1,40}}?)?{_IS}'
  r'(?P<secret>"[^"\n]{1,80}"|\'[^\'\n]{1,80}\'|[^\s,;]{3,80})',
  re.IGNORECASE,
)
_NAMED = re.compile(  # right after its kind: "the password Tulip-77", "PIN 4921"
  r'\b(?:pass(?:word|code|phrase)|pwd|pin(?: ?code| ?number)?|cvv|cvc|(?:door|gate|alarm|safe)'
  r' ?code)'
  r'\s+(?P<secret>(?=[^\s,;]*\d)[^\s,;]{3,80})'
  r'|\bopen(?:s|ed)? with (?P<opens>\d[\d #*-]{2,20}\d)',
  re.IGNORECASE,
)
_ANSWER = re.compile(  # right after somebody spoke of one; no time of the day is
  r"^\W*(?:(?:it|that)(?:'s| is| was)|here you are:?|namely)?\s*"
  r'(?!\d{1,2}(?::\d\d)?(?:am|pm)?(?:[\s,;.!?]|$))'
  r'(?P<secret>"[^"\n]{2,80}"|(?=[^\s,;]*\d)[^\s,;]{3,80})[.!]?\s*$',
  re.IGNORECASE,
)
_KIND = re.compile(rf'\b(?:{_KINDS})\b', re.IGNORECASE)
_LOGIN = re.compile(r'\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]{1,80}:(?P<secret>[^\s/@]{1,80})@')
_BLOCK = re.compile(
  r'-----BEGIN (?P<what>[A-Z ]{0,40}PRIVATE KEY)-----.{0,20000}?(?:-----END (?P=what)-----|\Z)',
  re.DOTALL,
)
_TOKEN = re.compile(r'[A-Za-z0-9_\-./+=]{16,4096}')
_MAKERS = re.compile(r'(?:sk|pk|rk|ghp|gho|glpat|hf|xox[abprs]|npm|pypi|AKIA|AIza)[-_A-Z0-9]')
_DIGITS = re.compile(r'(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d|\.\d)')
_IBAN = re.compile(r'\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}\b')
_MAIL = re.compile(r'[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,4}')
_PHONE = re.compile(r'(?<![\w.])(?:\+|00|0)\d(?:[ ()/-]?\d){6,14}(?!\w)')
_TELLING = 4  # characters from which a value tells by itself what it is
_BITS = 3.3  # of a random token's characters, each; words run together have less


class Found(NamedTuple):
  kind: str  # 'password', 'key', 'card', 'account'; 'mail', 'phone'
  start: int
  end: int


class Told(NamedTuple):
  """A secret where somebody told it."""

  kind: str  # as in Found
  value: str  # without quotes
  before: str  # what the text says before it


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
  return Secrets.of([e], contacts=contacts).without(e)


class Secrets:
  """The secrets of a whole diary: what is one in some place is struck in every other one.

  Example:
    secrets = Secrets.of(diary.experiences(archived=None))
    secrets.without(e)  # as the model may read it
    secrets.clean(dream)  # whether it may train

  Args:
    known: values, bare; `of` leaves plain words and short numbers to where they were told.
    contacts: addresses and telephone numbers go, too.
  """

  def __init__(self, known: Collection[str] = (), contacts: bool = False):
    self._known, self._contacts = _any_of(known), contacts

  @classmethod
  def of(cls, experiences: Iterable[Experience], contacts: bool = False) -> Secrets:
    """What was told in any of them, also where only the message before says what it is."""
    values = {t.value for t in told(experiences)}
    return cls({v for v in values if not v.isalpha() and len(v) >= _TELLING}, contacts)

  def strike(self, text: str) -> str:
    """The text without what is a secret by its form or by having been told as one."""
    text = strike(text, self._contacts)
    return self._known.sub(STRUCK, text) if self._known else text

  def without(self, e: Experience) -> Experience:
    """An experience as the model may read it by night: both sides of it."""
    own = _any_of({t.value for text in _texts(e) for t in _told(text)})

    def struck(text: str) -> str:
      text = self.strike(text)
      return own.sub(STRUCK, text) if own else text

    media = tuple(dataclasses.replace(m, description=struck(m.description)) for m in e.media)
    content, response = struck(e.content), struck(e.response)
    return dataclasses.replace(e, content=content, response=response, media=media)

  def clean(self, dream: Dream) -> bool:
    """Whether a dream holds none: one of an earlier night may be older than what finds it."""
    texts = [dream.text, *(t for p in dream.pairs for t in (p.question, p.answer))]
    # Together: "What is the door code?" and "4921" are a secret, neither is one by itself.
    texts += [f'{p.question.rstrip("?")} is {p.answer}' for p in dream.pairs]
    return all(self.strike(text) == text for text in texts)


def _texts(e: Experience) -> list[str]:
  return [e.content, e.response, *(m.description for m in e.media)]


def told(experiences: Iterable[Experience]) -> Iterator[Told]:
  """The secrets of experiences, oldest first; also those that only the message before tells of."""
  # (speaker, session) -> the message before, where it spoke of a secret and told none
  spoken: dict[tuple[str, str], str] = {}
  for e in sorted(experiences, key=lambda e: (e.time, e.id)):
    texts, by = _texts(e), (e.speaker, e.session)
    found = [t for text in texts for t in _told(text)]
    if not found and by in spoken and (m := _ANSWER.match(e.content)):
      before = f'{spoken[by]} {e.content[: m.start("secret")]}'
      found = [Told('password', _plain(m['secret']), before)]
    yield from found
    spoken.pop(by, None)
    if not found and any(_KIND.search(text) for text in texts):
      spoken[by] = e.content


def _told(text: str) -> Iterator[Told]:
  for f in find(text):
    if len(value := _plain(text[f.start : f.end])) > 2:
      yield Told(f.kind, value, text[: f.start])


def _plain(value: str) -> str:
  return value.strip('"\'').rstrip('.!?')


def _any_of(values: Collection[str]) -> re.Pattern[str] | None:
  """Any of the values as whole words; the longest first."""
  if not values:
    return None
  words = '|'.join(re.escape(v) for v in sorted(values, key=lambda v: (-len(v), v)))
  return re.compile(rf'(?<!\w)(?:{words})(?!\w)', re.IGNORECASE)


def _secrets(text: str) -> Iterator[Found]:
  for m in _BLOCK.finditer(text):
    yield Found('key', *m.span())
  for m in _LOGIN.finditer(text):
    yield Found('password', *m.span('secret'))
  for m in _SAID.finditer(text):
    secret = m['secret']
    named = m[0][:3].casefold() in ('pas', 'pwd') and secret[0].isupper() and len(secret) > 3
    if named or _is_password(secret):
      ends = len(secret) - len(secret.rstrip('.!?'))  # the sentence's, not the password's
      yield Found('password', m.start('secret'), m.end('secret') - ends)
  for m in _NAMED.finditer(text):
    name = 'secret' if m['secret'] else 'opens'
    yield Found('password', m.start(name), m.start(name) + len(m[name].rstrip('.!?')))
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
