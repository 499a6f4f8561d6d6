"""The page with a long diary: how long each view takes to be there, and pictures of it.

  python benchmarks/page.py [--quick] [--experiences=10000] [--pictures=DIR] [--json=FILE]
  python benchmarks/page.py --url=http://127.0.0.1:8377 --pictures=DIR    # of a server that runs

A made-up life (page_live.py) on random weights of a toy size: what is measured is the diary, the
API and the browser, Debian's chromium without a window. A load is from the request for the page, in
a tab that has nothing of it, to the moment when the view says that it is complete; medians.
Beside it stands the processor time of server and browser together, which the work of others on the
machine hardly changes. Pictures are of each view at 1100 by 760 and at 375 by 740, light and dark.
Expected: 3 minutes on two cores.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

BAR_SECONDS = 1.0
SIZES = {'': (1100, 760), '_phone': (375, 740)}
READY = 'main[aria-busy=false]'


class _Homes:
  """Directories for serve_config, as pytest's factory gives them."""

  def __init__(self, root: pathlib.Path, cache: pathlib.Path):
    self._root, self._cache = root, cache

  def mktemp(self, name: str) -> pathlib.Path:
    return self._root / name

  def getbasetemp(self) -> pathlib.Path:
    return self._cache


def load(browser, url: str, view: str, cpu: list[float]) -> float:
  """Seconds until a view is complete, in a new tab; adds its processor seconds to `cpu`."""
  context = browser.new_context(viewport={'width': 1100, 'height': 760})
  page = context.new_page()
  start, before = time.perf_counter(), processor()
  page.goto(f'{url}/#/{view}', wait_until='commit')
  page.locator(READY).wait_for(timeout=120_000)
  seconds = time.perf_counter() - start
  cpu.append(processor() - before)
  assert page.locator('main h1').count() == 1 and not page.get_by_text('Try again').count(), view
  context.close()
  return seconds


def processor() -> float:
  """Processor seconds of this process, where the server is, and of all that it has started."""
  parents, used = {}, {}
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = path.read_text().rpartition(')')[2].split()
    except OSError:  # it has ended
      continue
    pid = int(path.parent.name)
    parents[pid], used[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
  ours = {os.getpid()}
  while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
    ours |= more
  return sum(used.get(pid, 0) for pid in ours) / os.sysconf('SC_CLK_TCK')


def pictures(browser, url: str, views: dict[str, str], directory: pathlib.Path) -> None:
  """A PNG of each view, size and scheme."""
  directory.mkdir(parents=True, exist_ok=True)
  for scheme in ('light', 'dark'):
    for suffix, (width, height) in SIZES.items():
      context = browser.new_context(
        viewport={'width': width, 'height': height}, color_scheme=scheme, reduced_motion='reduce'
      )
      page = context.new_page()
      for name, view in views.items():
        page.goto('about:blank')
        page.goto(f'{url}/#/{view}')
        page.locator(READY).wait_for(timeout=60_000)
        for why in page.locator('.reply summary').all()[-1:]:
          why.click()
          page.wait_for_timeout(500)
        page.wait_for_timeout(200)  # charts are drawn when they know their width
        page.screenshot(path=directory / f'{name}{suffix}_{scheme}.png')
      context.close()


def main() -> int:
  p = common.parser(__doc__)
  p.add_argument('--experiences', type=int, default=10_000)
  p.add_argument('--nights', type=int, default=4)
  p.add_argument('--pictures', type=pathlib.Path, help='a directory to write them to')
  p.add_argument('--url', help='a server that runs: only pictures of it are taken')
  args = p.parse_args()
  from playwright.sync_api import sync_playwright

  path = shutil.which('chromium') or shutil.which('chromium-browser')
  if path is None:
    raise FileNotFoundError('there is no chromium: apt install chromium')
  views = {'chat': 'chat', 'diary': 'diary', 'nights': 'nights', 'identity': 'identity'}
  with sync_playwright() as player:
    browser = player.chromium.launch(executable_path=path, args=['--no-sandbox', '--disable-gpu'])
    if args.url:
      pictures(browser, args.url, views | {'night': 'nights/1'}, args.pictures)
      return 0
    return _measure(browser, views, args)


def _measure(browser, views: dict[str, str], args) -> int:
  from benchmarks import page_live
  from benchmarks.serve_live import Live, serve_config
  from dreaming.agent import Agent

  cache = common.cache_of(args)
  common.keep_programs(cache)
  count, rounds = (200, 1) if args.quick else (args.experiences, 3)
  result = common.Result('page', args, experiences=count, nights=args.nights)
  with tempfile.TemporaryDirectory() as home:
    config = serve_config(_Homes(pathlib.Path(home), cache), 'page')
    config.serve.slots, config.life.user = 2, 'Ana'
    with Agent(config) as agent:
      page_live.fill(agent, experiences=count, nights=args.nights)
      with Live(agent) as live:
        views |= {'night': f'nights/{args.nights}'}
        cpu: dict[str, list[float]] = {n: [] for n in views}
        sides = {n: lambda n=n, v=v: load(browser, live.url, v, cpu[n]) for n, v in views.items()}
        seconds = common.in_turn(sides, rounds)
        for name, found in seconds.items():
          result.add(f'{name}_processor', cpu[name][-rounds:], 's')
          result.bar(f'{name}_s', result.add(f'{name}_load', found, 's'), '<=', BAR_SECONDS)
        if args.pictures:
          pictures(browser, live.url, views, args.pictures)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
