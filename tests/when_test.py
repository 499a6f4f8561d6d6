"""Which time a question asks about, seen from a Thursday."""

from __future__ import annotations

import datetime

import numpy as np
import pytest

from dreaming.memory import when

NOW = datetime.datetime(2026, 11, 26, 10, tzinfo=datetime.UTC).timestamp()


def days(text, now=NOW):
  """First and last day of each span."""
  return [
    tuple(
      f'{datetime.datetime.fromtimestamp(t, datetime.UTC):%Y-%m-%d}' for t in (s.start, s.end - 1)
    )
    for s in when.spans(text, now)
  ]


@pytest.mark.parametrize(
  ('text', 'first', 'last'),
  [
    ('What did I say today?', '2026-11-26', '2026-11-26'),
    ('What did I eat yesterday?', '2026-11-25', '2026-11-25'),
    ('What was it the day before yesterday?', '2026-11-24', '2026-11-24'),
    ('Whom did I meet last night?', '2026-11-25', '2026-11-26'),
    ('Where was I last weekend?', '2026-11-21', '2026-11-22'),
    ('What did I do last week?', '2026-11-16', '2026-11-22'),
    ('How is this week going?', '2026-11-23', '2026-11-29'),
    ('What did I buy last month?', '2026-10-01', '2026-10-31'),
    ('What happened last year?', '2025-01-01', '2025-12-31'),
    ('What did I plan two weeks ago?', '2026-11-09', '2026-11-15'),
    ('And a couple of days ago?', '2026-11-23', '2026-11-25'),
    ('What have I read over the past 3 weeks?', '2026-11-05', '2026-11-26'),
    ('Who called on Monday?', '2026-11-23', '2026-11-23'),
    ('Who called last Thursday?', '2026-11-19', '2026-11-19'),
    ('What did I do in March?', '2026-03-01', '2026-03-31'),
    ('What did I do in December?', '2025-12-01', '2025-12-31'),
    ('What did I do in March 2024?', '2024-03-01', '2024-03-31'),
    ('Who came on 5 June?', '2026-06-05', '2026-06-05'),
    ('Who came on December 24th?', '2025-12-24', '2025-12-24'),
    ('Who came on the 3rd of May, 2025?', '2025-05-03', '2025-05-03'),
    ('Who came on the 30th?', '2026-10-30', '2026-10-30'),
    ('Who came on the 31st?', '2026-10-31', '2026-10-31'),
    ('Where did we go in the summer?', '2026-06-01', '2026-08-31'),
    ('Where did we go last winter?', '2025-12-01', '2026-02-28'),
    ('What did I cook in the middle of June?', '2026-06-10', '2026-06-21'),
    ('What did I cook at the end of February?', '2026-02-22', '2026-02-28'),
    ('What did I cook in early December 2024?', '2024-12-01', '2024-12-11'),
    ('What did I cook in mid-May?', '2026-05-09', '2026-05-22'),
    ('Who came on 26 November?', '2025-11-26', '2025-11-26'),
    ('What did I begin in 2025?', '2025-01-01', '2025-12-31'),
  ],
)
def test_a_time_is_read_as_it_is_meant(text, first, last):
  assert days(text) == [(first, last)]


@pytest.mark.parametrize(
  'text',
  ['', 'I may go.', 'Who will march with me?', 'What fell?', 'Who came on 31 June?', 'in 0000',
   'What happened 9999 years ago?', 'Who came on the 45th?', 'the 2nd dog', 'room 2025'],
)  # fmt: skip
def test_what_names_no_time_has_none(text):
  assert days(text) == []


def test_several_times_are_all_read():
  assert days('Was it in March or in May?') == [
    ('2026-03-01', '2026-03-31'),
    ('2026-05-01', '2026-05-31'),
  ]


@pytest.mark.parametrize('now', [-62e9, 0.0, 253e9])
def test_at_any_time_that_the_diary_takes(now):
  for text in ('last week', '40 years ago', 'last winter', 'on the 31st', 'tonight', '29 February'):
    for span in when.spans(text, now):
      assert span.start < span.end


def test_a_span_has_its_first_moment_and_not_the_one_after_it():
  (span,) = when.spans('today', NOW)
  assert span.start in span and span.end not in span and NOW in span


def test_the_middle_of_what_was_long_ago_is_meant_most():
  (ago,) = when.spans('a month ago', NOW)
  (march,) = when.spans('in March', NOW)
  middle = (ago.start + ago.end) / 2
  shares = ago.share(np.array([ago.start - 1, ago.start, middle, ago.end - 1, ago.end]))
  assert shares == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0], abs=1e-5)
  assert march.share(np.array([march.start, march.end])).tolist() == [1.0, 0.0]
