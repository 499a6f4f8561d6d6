"""Judges one run of pytest: python launch/verdict.py NAME REPORT.xml EXIT_CODE

After a full set-up nothing is missing, so a skipped test is a test that was lost: only one whose
reason begins with "hardware:" (no such device here) or "system:" (a program that the set-up cannot
bring, for want of root rights) may be skipped. Prints one line with counts and duration, and which
programs were missing; exits with 1 unless all is well.
"""

from __future__ import annotations

import pathlib
import sys
import xml.etree.ElementTree as ElementTree

ALLOWED = ('hardware:', 'system:')


def judge(report: pathlib.Path, code: int) -> tuple[str, list[str]]:
  """Reads a JUnit report.

  Args:
    report: written by pytest --junit-xml.
    code: pytest's exit code.

  Returns:
    A line with counts and seconds, and what is wrong, one line each.
  """
  if not report.is_file():
    return 'no report', [f'pytest ended with {code} and wrote no report']
  suite = ElementTree.parse(report).getroot().find('testsuite')
  assert suite is not None  # pytest writes exactly one
  tests, skipped = int(suite.get('tests', 0)), int(suite.get('skipped', 0))
  failed = int(suite.get('failures', 0)) + int(suite.get('errors', 0))
  wrong = []
  for case in suite.iter('testcase'):
    for skip in case.iter('skipped'):
      reason = skip.get('message', '')
      if skip.get('type') != 'pytest.xfail' and not reason.startswith(ALLOWED):
        name = f'{case.get("classname")}.{case.get("name")}'.strip('.')
        wrong.append(f'{name} was skipped ({reason}): nothing may be missing here')
  if tests == skipped:
    wrong.append('no test ran')
  if code not in (0, 5):  # 5: none collected, which the line above says
    wrong.append(f'pytest ended with {code}')
  elif failed:
    wrong.append(f'{failed} failed')
  passed = tests - skipped - failed
  seconds = float(suite.get('time', 0))
  reasons = {s.get('message', '') for s in suite.iter('skipped')}
  missing = ''.join(f'; {r}' for r in sorted(reasons) if r.startswith('system:'))
  return f'{passed} passed, {failed} failed, {skipped} skipped in {seconds:.1f} s{missing}', wrong


def main(argv: list[str]) -> int:
  name, report, code = argv
  line, wrong = judge(pathlib.Path(report), int(code))
  print(f'{name} tests: {line}')
  for problem in wrong:
    print(f'{name} tests: {problem}', file=sys.stderr)
  return 1 if wrong else 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
