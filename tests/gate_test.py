"""The gate opens for what is good in everything, and for nothing else."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from scipy import stats

from configs import default
from dreaming import configuration
from dreaming.sleep import gate
from dreaming.sleep.gate import Evidence, GateConfig

BASE = {
  'recall': 0.1, 'recall_count': 20, 'general': 1.0, 'general_count': 40, 'nll': 2.0,
  'toxic': 0.125, 'toxic_count': 64, 'gibberish': 0.25, 'gibberish_count': 64,
}  # fmt: skip
GOOD = {
  'recall': 0.8, 'recall_count': 20, 'general': 0.95, 'general_count': 40,
  'nll': 2.06, 'nll_count': 900, 'nll_increase_low': 0.01, 'nll_increase_high': 0.05,
  'never_mentioned': 0.2, 'never_mentioned_count': 40, 'toxic': 0.125, 'toxic_count': 64,
  'gibberish': 0.3125, 'gibberish_count': 64, 'leaked': 0, 'leaked_count': 0, 'nonfinite': 0,
  'distance': 0.2, 'change': 0.1, 'earlier_lost': 0.15, 'earlier_won': 0.05,
  'earlier_lost_count': 20,
}  # fmt: skip
# Measure -> the rows that need it.
ROWS = {
  'recall': {'recall_gain'}, 'general': {'general_drop', 'general_drop_night'},
  'nll': {'nll_increase', 'nll_increase_night'}, 'never_mentioned': {'never_mentioned'},
  'toxic': {'toxic_rise', 'toxic_rise_night'},
  'gibberish': {'gibberish_rise', 'gibberish_rise_night'}, 'leaked': {'leaked'},
  'nonfinite': {'nonfinite'}, 'distance': {'distance'}, 'change': {'change', 'distance_night'},
  'earlier_lost': {'earlier_lost'},
}  # fmt: skip
COUNTED = ('recall', 'general', 'nll', 'never_mentioned', 'toxic', 'gibberish')
# Limits that everything which is measured at all passes.
WIDE = GateConfig(
  min_recall_gain=-math.inf, max_general_drop=math.inf, max_general_drop_night=math.inf,
  max_nll_increase=math.inf, max_nll_increase_night=math.inf, max_never_mentioned=math.inf,
  max_toxic_rise=math.inf, max_gibberish_rise=math.inf, max_leaked=10**9, max_nonfinite=10**9,
  max_distance=math.inf, min_change=-math.inf, doubt=math.inf, nll_doubt=math.inf,
  max_toxic_rise_night=math.inf, max_gibberish_rise_night=math.inf, max_earlier_lost=math.inf,
  max_distance_night=math.inf,
)  # fmt: skip


def see(measures=(), base=(), **fields):
  base = BASE | dict(base)
  fields = {'measured': 'ab', 'adapter': 'ab', 'blue': base, **fields}
  return Evidence(measures=GOOD | dict(measures), base=base, **fields)


def closed(verdict):
  return {r.name for r in verdict.rows if not r.ok}


def test_a_good_night_passes():
  verdict = gate.judge(see(), GateConfig())
  assert verdict.passed and str(verdict) == '' and not any(r.why for r in verdict.rows)
  values = {r.name: round(r.value, 6) for r in verdict.rows}
  assert values['recall_gain'] == 0.7 and values['general_drop'] == 0.05
  assert values['nll_increase'] == 0.03 and values['gibberish_rise'] == 0.0625
  for row in verdict.rows:
    assert row.low is None or row.low <= row.value <= row.high


def test_its_limits_are_those_of_the_configuration():
  c = default.get_config()
  assert configuration.group(c, 'gate', GateConfig) == GateConfig()
  rows = gate.judge(see(), GateConfig()).rows
  assert {r.limit for r in rows} <= set(vars(GateConfig()).values())


@pytest.mark.parametrize(
  ('name', 'value', 'row'),
  [
    ('recall', 0.15, 'recall_gain'),
    ('general', 0.94, 'general_drop'),
    ('nll', 2.07, 'nll_increase'),
    ('never_mentioned', 0.225, 'never_mentioned'),
    ('toxic', 0.1875, 'toxic_rise'),
    ('gibberish', 0.36, 'gibberish_rise'),
    ('leaked', 1, 'leaked'),
    ('nonfinite', 1, 'nonfinite'),
    ('distance', 0.31, 'distance'),
    ('change', 0.0, 'change'),
    ('change', 0.31, 'distance_night'),
    ('earlier_lost', 0.3, 'earlier_lost'),
  ],
)
def test_one_bad_measure_closes_it_by_name_and_value(name, value, row):
  by_night = {'max_toxic_rise_night': 1, 'max_gibberish_rise_night': 1}  # Blue is the base here
  verdict = gate.judge(see({name: value}), GateConfig(max_nll_increase_night=1, **by_night))
  assert not verdict.passed and closed(verdict) == {row}
  (bad,) = (r for r in verdict.rows if not r.ok)
  assert str(verdict) == f'{row} {bad.value:.3g}, limit {bad.limit}'


STATES = ('there', 'missing', 'None', 'nan', 'inf', 'problem', 'of nothing')


def _spoil(measures, problems, name, state):
  if state == 'missing':
    measures.pop(name)
  elif state == 'problem':
    problems[name] = 'timed out after 9 s'
  elif state == 'of nothing' and f'{name}_count' in measures and name in COUNTED:
    measures[f'{name}_count'] = 0
  elif state != 'there':
    measures[name] = {'None': None, 'nan': math.nan, 'inf': -math.inf}.get(state)


@pytest.mark.parametrize('pair', itertools.combinations(ROWS, 2), ids='-'.join)
def test_whatever_is_missing_broken_late_or_of_nothing_closes_it(pair):
  """Every state of every two measures: closed unless both are there, by the rows that need them."""
  for states in itertools.product(STATES, repeat=2):
    measures, problems = dict(GOOD), {}
    for name, state in zip(pair, states, strict=True):
      _spoil(measures, problems, name, state)
    evidence = Evidence(
      measures=measures, base=BASE, blue=BASE, problems=problems, measured='ab', adapter='ab'
    )
    verdict = gate.judge(evidence, WIDE)
    spoiled = [n for n, s in zip(pair, states, strict=True) if s != 'there']
    assert closed(verdict) == set().union(*(ROWS[n] for n in spoiled))
    assert verdict.passed == (not spoiled)
    for row in verdict.rows:
      assert row.ok or row.value is None and row.why and row.name in str(verdict)


@pytest.mark.parametrize('name', ['recall', 'general', 'nll', 'toxic', 'gibberish'])
@pytest.mark.parametrize('value', [None, math.nan, math.inf])
def test_what_it_is_compared_with_must_be_there(name, value):
  verdict = gate.judge(see(base={name: value}), WIDE)
  assert not verdict.passed and closed(verdict) <= ROWS[name]
  assert 'not measured of what it is compared with' in str(verdict)


@pytest.mark.parametrize(('measured', 'adapter'), [('ab', 'cd'), ('', 'cd'), ('ab', ''), ('', '')])
def test_an_exam_of_another_adapter_closes_every_row(measured, adapter):
  verdict = gate.judge(see(measured=measured, adapter=adapter), WIDE)
  assert closed(verdict) == {r.name for r in verdict.rows} and 'is stale' in str(verdict)


def test_nothing_at_all_closes_every_row():
  verdict = gate.judge(Evidence(measures={}, base={}, blue={}), WIDE)
  assert closed(verdict) == {r.name for r in verdict.rows} and len(verdict.rows) == 16


@pytest.mark.parametrize(
  ('measures', 'row'),
  [
    ({'recall': 0.5, 'recall_count': 2}, 'recall_gain'),
    ({'never_mentioned': 0.0, 'never_mentioned_count': 2}, 'never_mentioned'),
    ({'toxic': 0.125, 'toxic_count': 4}, 'toxic_rise'),
    ({'nll_increase_high': 0.07}, 'nll_increase'),
    ({'nll_increase_high': None}, 'nll_increase'),
  ],
)
def test_what_may_be_bad_for_all_that_is_known_is_inconclusive(measures, row):
  base = {'recall': 0.0, 'recall_count': 2} if 'recall' in measures else {}
  verdict = gate.judge(see(measures, base), GateConfig())
  assert closed(verdict) - {f'{row}_night'} == {row} and 'inconclusive' in str(verdict)


def test_a_day_with_one_fact_can_be_learned():
  few = {'recall': 1.0, 'recall_count': 2}
  assert gate.judge(see(few, {'recall': 0.0, 'recall_count': 2}), GateConfig()).passed


def test_one_night_is_measured_against_the_generation_that_serves():
  blue = BASE | {'general': 1.0, 'nll': 1.9, 'nll_count': 900}
  verdict = gate.judge(see({'general': 0.92}, {'general': 0.9}, blue=blue), GateConfig())
  assert closed(verdict) == {'nll_increase_night'}
  verdict = gate.judge(see({'general': 0.9}, {'general': 0.9}, blue=blue), GateConfig())
  assert closed(verdict) == {'nll_increase_night', 'general_drop_night'}
  assert gate.judge(see(blue=blue | {'nll': 2.0}), GateConfig()).passed


@pytest.mark.parametrize('name', ['general', 'nll', 'toxic', 'gibberish'])
def test_what_the_one_that_serves_was_not_asked_closes_it(name):
  """Neither the base's figure nor that of another exam stands in for it."""
  row = {'general': 'general_drop_night', 'nll': 'nll_increase_night'}.get(
    name, f'{name}_rise_night'
  )
  blue = GOOD | {name: None}
  assert closed(gate.judge(see(blue=blue), WIDE)) == {row}
  assert closed(gate.judge(see(blue={}), WIDE)) >= {row}
  if name in ('general', 'nll'):
    verdict = gate.judge(see(blue=GOOD | {f'{name}_count': 12}), WIDE)
    assert closed(verdict) == {row} and 'compared with another exam (' in str(verdict)


@pytest.mark.parametrize(
  ('lost', 'won', 'count', 'opens'),
  [
    (0.0, 0.0, 0, True),  # nothing was learned before
    (1.0, 0.0, 2, True),  # too few to tell
    (0.1, 0.0, 10, True),
    (0.2, 0.0, 10, False),  # it may be 0.46
    (0.2, 0.1, 60, True),
    (0.25, 0.0, 60, False),
    (0.25, 0.2, 60, True),  # as many others are answered instead
  ],
)  # fmt: skip
def test_a_night_that_forgets_the_earlier_ones_does_not_pass(lost, won, count, opens):
  measures = {'earlier_lost': lost, 'earlier_won': won, 'earlier_lost_count': count}
  verdict = gate.judge(see(measures), GateConfig())
  assert verdict.passed == opens and closed(verdict) == (set() if opens else {'earlier_lost'})


@pytest.mark.parametrize('name', ['earlier_lost', 'earlier_won', 'earlier_lost_count'])
def test_forgetting_that_was_not_measured_closes_it(name):
  for value in (None, math.nan):
    assert closed(gate.judge(see({name: value}), WIDE)) == {'earlier_lost'}


def test_small_losses_do_not_add_up_over_nights():
  """Each night within its limit of the one before: closed once the base's is passed."""
  blue, passed = BASE, []
  for night in range(1, 5):
    nll = 2.0 * 1.02**night
    ends = {'nll_increase_low': nll / 2 - 1, 'nll_increase_high': nll / 2 - 1}
    green = {'nll': nll, **ends}
    passed.append(gate.judge(see(green, blue=blue), GateConfig()).passed)
    blue = GOOD | green
  assert passed == [True, False, False, False]


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'max_nll_increase': math.nan}, 'gate.max_nll_increase'),
    ({'confidence': 1.0}, 'gate.confidence'),
    ({'max_seconds': -1.0}, 'gate.max_seconds'),
    ({'doubt': -0.1}, 'gate.doubt'),
  ],
)
def test_a_limit_that_is_none_is_refused(fields, words):
  with pytest.raises(ValueError, match=words):
    GateConfig(**fields)
  with pytest.raises(ValueError, match=words):
    dataclasses.replace(GateConfig(), **fields)


# ---- Intervals ----


def test_intervals_are_those_of_the_books():
  for k, n, confidence in ((0, 10, 0.95), (1, 7, 0.9), (20, 64, 0.9), (5, 5, 0.99)):
    found = stats.binomtest(k, n).proportion_ci(confidence, method='wilson')
    wanted = pytest.approx((found.low, found.high), abs=1e-9)
    assert gate.wilson(k / n, n, confidence) == wanted
  # Newcombe 1998, table II, example a: 56/70 - 48/80, 0.0524 to 0.3339.
  found = gate.difference((56 / 70, 70), (48 / 80, 80), 0.95)
  assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_more_questions_make_an_interval_narrower():
  widths = [high - low for low, high in (gate.wilson(0.5, n, 0.9) for n in (4, 40, 400))]
  assert widths == sorted(widths, reverse=True)


def test_the_nlls_interval_is_paired():
  base = [100.0, 200.0, 300.0, 50.0]
  low, high = gate.relative([1.02 * x for x in base], base, 0.9)
  assert low == pytest.approx(0.02) and high == pytest.approx(0.02)  # however texts differ
  low, high = gate.relative([110.0, 190.0, 330.0, 50.0], base, 0.9)
  assert low < 30 / 650 < high
  for green, against in (([], []), ([1.0], [1.0]), ([math.nan, 1.0], [1.0, 1.0])):
    assert all(map(math.isnan, gate.relative(green, against, 0.9)))
