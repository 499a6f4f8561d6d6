"""The modes beside living: import, export, approve, review, trim, forget, rescue."""

from __future__ import annotations

import datetime
import pathlib
import shutil
from collections.abc import Mapping

from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from dreaming import bundle, report, reviewing, terminal
from dreaming.agent import Agent
from dreaming.identity.bluegreen import IdentityLock
from dreaming.memory.imports.item import Refused
from dreaming.memory.imports.run import Report

MODES: Mapping[str, tuple[str, ...]] = {
  'import': ('files', 'format'),
  'export': ('to',),
  'approve': ('session', 'ids'),
  'trim': ('do', 'ids'),
  'review': ('do',),
  'forget': ('do', 'ids', 'person'),
}
"""Mode -> the flags that are for it alone."""

_STRIKES = 'found', 'secrets', 'contacts'  # of --mode=forget: what is struck out of all texts
_SHOWN = 20  # lines of a report; its file has them all


def check(mode: str, flags: Mapping[str, str | None]) -> None:
  """Refuses flags of another mode, and a mode without its flag, before anything is opened.

  Raises:
    ValueError: which, and where it belongs.
  """
  for name, value in flags.items():
    if value is not None and name not in MODES.get(mode, ()):
      owner = ' or --mode='.join(m for m, names in MODES.items() if name in names)
      raise ValueError(f'--{name} is for --mode={owner}, not for --mode={mode}')
  needed = {'import': 'files', 'export': 'to'}.get(mode)
  if needed and not flags.get(needed):
    raise ValueError(f'--mode={mode} needs --{needed}=...')
  do, ids = flags.get('do'), flags.get('ids')
  known = ('diary', 'replay', *_STRIKES) if mode == 'forget' else ('archive', 'restore')
  if mode != 'review' and do not in (None, *known):
    raise ValueError(f'--do={do} is unknown: take {" or ".join(known)}, or nothing for a list')
  given = [name for name in ('ids', 'person') if flags.get(name) is not None]
  if mode == 'forget' and do in _STRIKES and given:
    raise ValueError(f'--do={do} strikes secrets out of the whole diary: leave out --{given[0]}')
  if mode == 'forget' and (len(given) > 1 or not given and do not in ('replay', *_STRIKES)):
    raise ValueError('--mode=forget needs --ids=1,2 or --person=NAME: one of them')
  if mode == 'trim' and ids is not None and do != 'restore':
    raise ValueError('--ids goes with --do=restore: config.memory.trim says what is archived')
  if flags.get('session') is not None and flags.get('ids') is not None:
    raise ValueError('--session and --ids both say what to approve: give one')


def run(agent: Agent, mode: str, flags: Mapping[str, str | None], console: Console) -> int:
  """One of MODES; returns the exit code."""
  if mode == 'import':
    paths = [pathlib.Path(p.strip()).expanduser() for p in str(flags['files']).split(',')]
    return bring(agent, paths, flags.get('format'), console)
  if mode == 'export':
    return take(agent, pathlib.Path(str(flags['to'])).expanduser(), console)
  if mode == 'review':
    for line in reviewing.command(agent, flags.get('do') or ''):
      _say(console, line)
    return 0
  if mode == 'trim':
    return trim(agent, flags.get('do'), flags.get('ids'), console)
  if mode == 'forget':
    return forget(agent, flags.get('do'), flags.get('ids'), flags.get('person'), console)
  return approve(agent, flags.get('session'), flags.get('ids'), console)


def bring(agent: Agent, paths: list[pathlib.Path], format: str | None, console: Console) -> int:
  """Imports files one after the other; 1 when one was refused or had damaged parts."""
  code = 0
  for path in paths:
    path.stat()  # a mistyped name shows before anything is imported
  for path in paths:
    log = agent.workdir / 'imports' / f'{path.name}.log'
    log.parent.mkdir(exist_ok=True)
    try:
      with log.open('w', encoding='utf-8', errors='replace') as file, _bar(console) as bar:
        task = bar.add_task(f'Importing {terminal.printable(path.name)}', total=None)
        done = agent.import_file(
          path,
          format=format,
          progress=lambda done, total, bar=bar, task=task: bar.update(
            task, completed=done, total=total
          ),
          told=lambda x, file=file: print(terminal.printable(f'{x.place}: {x.why}'), file=file),
        )
    except Refused as e:
      log.unlink(missing_ok=True)
      _say(console, f'{path}: refused: {e}')
      code = 1
      continue
    _show(done, log, console)
    code = code or int(done.damaged > 0)
  if agent.diary.waiting():
    _say(console, 'Nothing that was imported is dreamt of before --mode=approve lets it.')
  return code


def take(agent: Agent, to: pathlib.Path, console: Console) -> int:
  """By its ending the whole agent, or JSON Lines, or else a data set in a directory."""
  with _bar(console) as bar:
    task = bar.add_task(f'Exporting to {to.name}', total=None)

    def progress(done: int, total: int) -> None:
      bar.update(task, completed=done, total=total)

    if to.suffix == bundle.ENDING:
      size = bundle.pack(agent, to, progress)
      _say(console, f'the whole agent is in {to}: {size:,} bytes')
      if gone := bundle.lost(agent):
        _say(console, f'{len(gone)} pictures or sounds are in it by name alone, no file has them:')
        _say(console, '  ' + ', '.join(d[:12] for d in gone[:8]))
      return 0
    count = agent.export(to, progress)
  _say(console, f'{count:,} experiences are in {to}')
  return 0


def packed(flags: Mapping[str, str | None]) -> pathlib.Path | None:
  """The file of a whole agent, where that is what --files names."""
  path = pathlib.Path(flags.get('files') or '')
  return path.expanduser() if path.suffix == bundle.ENDING else None


def unpack(config: ConfigDict, path: pathlib.Path, console: Console) -> int:
  """Makes an identity of the file of a whole agent."""
  home = pathlib.Path(config.workdir).expanduser()
  with IdentityLock(home), _bar(console) as bar:
    task = bar.add_task(f'Unpacking {path.name}', total=None)
    about = bundle.unpack(
      path, home, lambda done, total: bar.update(task, completed=done, total=total)
    )
  with Agent(config) as agent:  # whether its diary is whole
    count = agent.status().experiences
  _say(console, f'{about.get("agent")} is in {home}, with {count:,} experiences')
  return 0


def approve(agent: Agent, session: str | None, ids: str | None, console: Console) -> int:
  """Approves a session, a pattern of sessions or ids; without any, tells what is waiting."""
  if session is None and ids is None:
    for w in agent.diary.waiting():
      first, last = (f'{datetime.datetime.fromtimestamp(t):%Y-%m-%d}' for t in (w.first, w.last))
      _say(console, f'{w.count:>7,}  {first} to {last}  {w.session or "(no session)"}')
    _say(console, "Approve with --session=NAME, a pattern such as --session='chatgpt/*', or --ids=")
    return 0
  if ids is not None:
    chosen = _numbers(ids)
  elif not (chosen := agent.diary.unapproved(session)):
    raise ValueError(f'nothing waits in a session {session!r}: --mode=approve lists what does')
  _say(console, f'{agent.approve(chosen):,} experiences are approved: nights may dream of them')
  return 0


def trim(agent: Agent, do: str | None, ids: str | None, console: Console) -> int:
  """Lists what would go to the archive, moves it there, or brings it back."""
  if do == 'restore':
    count = agent.restore(None if ids is None else _numbers(ids))
    _say(console, f'{count:,} experiences are back from the archive')
  elif do == 'archive':
    _say(console, report.trimmed(agent.trim()))
  else:
    for line in report.trimmable(agent.trimmable()):
      _say(console, line)
    _say(console, 'Nothing was changed: --do=archive moves them, --do=restore brings them back.')
  return 0


def forget(
  agent: Agent, do: str | None, ids: str | None, person: str | None, console: Console
) -> int:
  """Lists what would be forgotten, forgets it ('diary'), or makes the weights anew, too ('replay').

  Or lists which experiences tell secrets ('found'), strikes these out ('secrets'), and addresses
  and telephone numbers with them ('contacts'). 1 when something holds it still: the receipt says
  what.
  """
  if do == 'found':
    for id, kinds in agent.secrets(contacts=True).items():
      _say(console, f'{id:>6}  ' + ', '.join(f'{n} {kind}' for kind, n in kinds.items()))
    _say(console, 'Nothing was changed: --do=secrets strikes passwords, keys, cards and accounts '
         'out of the diary, --do=contacts mail addresses and telephone numbers, too.')  # fmt: skip
    return 0
  if do in ('secrets', 'contacts'):
    receipt = agent.redact(contacts=do == 'contacts')
    for line in receipt.lines():
      _say(console, line)
    return 0 if receipt.complete else 1
  if ids is not None:
    found = agent.diary.experiences(ids=_numbers(ids))
  else:
    found = agent.about(person) if person is not None else []
  if do is None:
    for e in found:
      when = datetime.datetime.fromtimestamp(e.time, datetime.UTC)
      _say(console, f'{e.id:>6}  {when:%Y-%m-%d %H:%M}  {e.speaker}: {e.content}')
    many = f'{len(found):,} experience' + 's' * (len(found) != 1)
    _say(
      console, f'{many}. Nothing was changed: --do=diary removes what is listed from the diary '
      'and all that it made of it, --do=replay from the weights, too.',
    )  # fmt: skip
    return 0
  if person is not None and not found:
    raise ValueError(f'--person={person!r}: nothing was said by them or of them')
  if do == 'diary':
    agent.forget(e.id for e in found)
  else:
    with _bar(console) as bar:
      task = bar.add_task('Living the nights again', total=None)
      agent.replay(
        _numbers(ids) if ids is not None else [e.id for e in found],
        progress=lambda done, total: bar.update(task, completed=done, total=total),
      )
  for line in agent.receipt.lines() if agent.receipt else ():
    _say(console, line)
  return 0 if agent.receipt and agent.receipt.complete else 1


def rescue(config: ConfigDict, console: Console) -> int:
  """Puts a new diary in the place of a damaged one; 1 when a part of it could not be saved."""
  from dreaming.memory import rescue as rescue_lib

  path = pathlib.Path(config.workdir).expanduser() / 'diary.sqlite'
  if not path.exists():
    raise ValueError(f'there is no diary {path}: give its --config.workdir')
  with IdentityLock(path.parent):
    done = rescue_lib.rescue(path)
    shutil.rmtree(path.parent / 'index', ignore_errors=True)  # made anew when it is needed
  _say(console, f'{done.experiences:,} experiences are saved in {done.path}')
  if done.damaged:
    ids = ', '.join(map(str, done.damaged_ids[:_SHOWN])) + ', ...' * (
      len(done.damaged_ids) > _SHOWN
    )
    _say(console, f'not as they were, and left out: {ids}; what is left of them: {done.damaged}')
  for table, count in done.left.items():
    _say(console, f'{count:,} or more rows of the table {table} could not be saved')
  _say(console, f'the damaged file is kept as {done.kept}')
  return 1 if done.damaged or done.left else 0


def _numbers(ids: str) -> list[int]:
  try:
    return [int(i) for i in ids.split(',')]
  except ValueError:
    raise ValueError(f'--ids={ids!r}: give numbers with commas between') from None


def _show(done: Report, log: pathlib.Path, console: Console) -> None:
  for line in done.lines[:_SHOWN]:
    _say(console, f'  {line.place}: {line.why}')
  left = done.skipped + done.damaged
  if left > _SHOWN:
    _say(console, f'  and {left - _SHOWN:,} more, all in {log}')
  for why, count in done.reasons.items() if left > _SHOWN else ():
    _say(console, f'  {count:>7,} x {why}')
  others = f', {done.other:,} files of the archive left alone' if done.other else ''
  _say(
    console,
    f'{done.path} ({", ".join(done.formats)}): {done.added:,} new, {done.known:,} known '
    f'already, {done.skipped:,} skipped, {done.damaged:,} damaged{others}',
  )


def _say(console: Console, line: str) -> None:
  console.print(terminal.printable(line), markup=False, soft_wrap=True)


def _bar(console: Console) -> Progress:
  columns = TextColumn('{task.description}', markup=False), BarColumn(), TaskProgressColumn()
  return Progress(*columns, TimeElapsedColumn(), console=console, transient=True)
