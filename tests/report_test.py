"""What a run prints when it is over."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dreaming import report


@pytest.mark.parametrize('width', [40, 80, 200])
def test_how_much_of_a_fact_is_known_stands_beside_it_however_long_it_is(width):
  out = io.StringIO()
  console = Console(file=out, width=width)
  report.show_facts([('My parrot screams at the kettle. ' * 5, 1.0), ('Tea?', 1 / 3)], console)
  assert '100% ' in out.getvalue() and '33% ' in out.getvalue() and 'Tea?' in out.getvalue()
  assert all(len(line) <= width for line in out.getvalue().splitlines())
