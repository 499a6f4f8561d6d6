"""Which time a question asks about: 'last weekend', 'two weeks ago', 'in March', 'on the 3rd'.

Spans of whole days in UTC, as the diary's times are shown. What somebody calls 'a week ago' is
seldom seven days to the hour, so a span is as wide as its unit is vague.
"""

from __future__ import annotations

import calendar
import dataclasses
import datetime
import re

import numpy as np
from dateutil.relativedelta import relativedelta

_MONTHS = {
  name.casefold(): i
  for names in (calendar.month_name, calendar.month_abbr)
  for i, name in enumerate(names)
  if name
} | {'sept': 9}
_DAYS = {name.casefold(): i for i, name in enumerate(calendar.day_name)}
_PARTS = {  # of a month: first and last day, as wide as people mean it
  'early': (1, 11), 'beginning': (1, 9), 'start': (1, 9), 'mid': (9, 22), 'middle': (10, 21),
  'late': (20, 31), 'end': (22, 31),
}  # fmt: skip
_SEASONS = {'spring': 3, 'summer': 6, 'autumn': 9, 'fall': 9, 'winter': 12}  # their first months
_NUMBERS = {
  'a': 1, 'an': 1, 'one': 1, 'two': 2, 'couple': 2, 'couple of': 2, 'three': 3, 'few': 3, 'four': 4,
  'five': 5, 'six': 6, 'seven': 7, 'eight': 8, 'nine': 9, 'ten': 10, 'eleven': 11, 'twelve': 12,
}  # fmt: skip
_YEARS = (1, 9998)  # that a calendar knows, with a neighbour on either side

_month = '|'.join(sorted(_MONTHS, key=len, reverse=True))
_number = '|'.join(sorted(_NUMBERS, key=len, reverse=True))
_day = '|'.join(_DAYS)
_season = '|'.join(_SEASONS)
_part = '|'.join(_PARTS)
_date = r'(?P<day>\d{1,2})(?:st|nd|rd|th)?'
_PATTERNS = tuple(
  re.compile(rf'\b(?:{p})\b')
  for p in (
    r'(?P<named>the day before yesterday|yesterday|today|tonight|last night|this morning)',
    rf'(?:(?:a|the) )?(?P<count>{_number}|\d{{1,3}}) (?P<unit>day|week|month|year)s? ago',
    r'(?P<which>last|this|past|previous) (?P<period>weekend|week|month|year)',
    rf'(?:(?:in|over|during) )?(?:the )?(?:last|past) (?P<within>{_number}|\d{{1,3}})'
    r' (?P<of>day|week|month|year)s',
    rf'(?:last|on|this|past) (?P<weekday>{_day})',
    rf'{_date} (?:of )?(?P<month>{_month})(?:,? (?P<year>\d{{4}}))?',
    rf'(?P<month>{_month}) {_date}(?:,? (?P<year>\d{{4}}))?',
    rf'on the {_date}',
    rf'(?P<part>{_part})(?: in | of |-| )(?P<month>{_month})(?:,? (?P<year>\d{{4}}))?',
    rf'(?:in|during|last|since|this|of)[ -](?P<month>{_month})'
    r'(?:,? (?P<year>\d{4}))?',
    rf'(?:in|during|last|this|over)(?: the)? (?P<season>{_season})(?: (?:of )?(?P<year>\d{{4}}))?',
    r'in (?P<year>\d{4})',
  )
)


# What every pattern has one of: most questions have none, and this is quick.
_HINT = re.compile(rf'\d|ago|day|week|month|year|night|morning|last|past|{_month}|{_season}')


@dataclasses.dataclass(frozen=True)
class Span:
  """Unix seconds, start <= t < end."""

  start: float
  end: float
  vague: bool = False  # 'a month ago': what is at its middle is meant more than its ends

  def __contains__(self, time: float) -> bool:
    return self.start <= time < self.end

  def share(self, time: np.ndarray) -> np.ndarray:
    """How much each time is meant: 1 within, 0 without; of a vague span down to a half."""
    half = (self.end - self.start) / 2
    off = np.abs(time - self.start - half) / half
    return np.where((self.start <= time) & (time < self.end), 1 - 0.5 * off * self.vague, 0.0)


def spans(text: str, now: float) -> list[Span]:
  """The times that a text asks about, seen from `now` (Unix seconds); none if it names none.

  Of what comes again every year or month the latest that has begun is meant. Dates that no calendar
  has ('on the 31st of June') are left out.
  """
  if not _HINT.search(text.casefold()):
    return []
  today = datetime.datetime.fromtimestamp(now, datetime.UTC).date()
  if not _YEARS[0] < today.year < _YEARS[1]:
    return []
  out, rest = [], ' '.join(text.casefold().split())
  for pattern in _PATTERNS:
    for match in pattern.finditer(rest):
      try:
        span = _span({k: v for k, v in match.groupdict().items() if v is not None}, today)
      except (
        ValueError,
        OverflowError,
        StopIteration,
      ):  # no such day, or a year that no calendar knows
        span = None
      if span is not None:
        out.append(Span(*map(_seconds, span), vague=bool(match.groupdict().get('count'))))
    # What is read is not read again as something less: 'in March 2025' is not 'in 2025', too.
    rest = pattern.sub(lambda m: '#' * len(m[0]), rest)
  return out


def _span(found: dict[str, str], today: datetime.date):
  """(first day, day after the last) of what a pattern found."""
  day, one = today, datetime.timedelta(days=1)
  match found:
    case {'named': 'today' | 'tonight' | 'this morning'}:
      return day, day + one
    case {'named': 'the day before yesterday'}:
      return day - 2 * one, day - one
    case {'named': 'last night'}:  # people tell of it the same evening, or the morning after
      return day - one, day + one
    case {'named': _}:
      return day - one, day
    case {'count': count, 'unit': unit}:
      return _about(day, _count(count), unit)
    case {'within': count, 'of': unit}:
      return day - relativedelta(**{f'{unit}s': _count(count)}), day + one
    case {'which': which, 'period': period}:
      return _period(day, which != 'this', period)
    case {'weekday': name}:
      back = (day.weekday() - _DAYS[name]) % 7 or 7
      return day - back * one, day - (back - 1) * one
    case {'day': number, 'month': month}:
      year = int(found.get('year', day.year))
      date = datetime.date(year, _MONTHS[month], int(number))
      if date >= day and 'year' not in found:  # of today one says 'today'
        date = date.replace(year=year - 1)
      return date, date + one
    case {'day': number}:
      months = (day.replace(day=1) - relativedelta(months=n) for n in range(3))
      dates = (_day_of(month, int(number)) for month in months)  # not every month has a 31st
      date = next(d for d in dates if d is not None and d <= day)
      return date, date + one
    case {'part': part, 'month': month}:
      start, end = _months(day, _MONTHS[month], 1, found.get('year'))
      first, last = (start + (n - 1) * one for n in _PARTS[part])
      return first, min(last + one, end)
    case {'month': month}:
      return _months(day, _MONTHS[month], 1, found.get('year'))
    case {'season': season}:
      return _months(day, _SEASONS[season], 3, found.get('year'))
    case {'year': year}:
      return datetime.date(int(year), 1, 1), datetime.date(int(year) + 1, 1, 1)
  raise AssertionError(found)


def _day_of(month: datetime.date, number: int) -> datetime.date | None:
  in_month = calendar.monthrange(month.year, month.month)[1]
  return month.replace(day=number) if 1 <= number <= in_month else None


def _count(word: str) -> int:
  return int(word) if word.isdigit() else _NUMBERS[word]


def _about(day: datetime.date, count: int, unit: str):
  """So long ago, half a unit more or less; of days a day, when they are several."""
  middle = day - relativedelta(**{f'{unit}s': count})
  slack = datetime.timedelta(
    days={'day': min(count - 1, 1), 'week': 3, 'month': 15, 'year': 91}[unit]
  )
  return middle - slack, middle + slack + datetime.timedelta(days=1)


def _period(day: datetime.date, last: bool, period: str):
  monday = day - datetime.timedelta(days=day.weekday())
  if period == 'weekend':  # a weekend that is under way is this one
    saturday = monday + datetime.timedelta(days=5 - (7 if last or day.weekday() < 5 else 0))
    return saturday, saturday + datetime.timedelta(days=2)
  if period == 'week':
    monday -= datetime.timedelta(days=7 if last else 0)
    return monday, monday + datetime.timedelta(days=7)
  first = day.replace(day=1) if period == 'month' else day.replace(month=1, day=1)
  step = relativedelta(**{f'{period}s': 1})
  first -= step if last else relativedelta()
  return first, first + step


def _months(day: datetime.date, month: int, count: int, year: str | None):
  first = datetime.date(int(year) if year else day.year, month, 1)
  if first > day and not year:
    first -= relativedelta(years=1)
  return first, first + relativedelta(months=count)


def _seconds(day: datetime.date) -> float:
  midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
  return midnight.timestamp()
