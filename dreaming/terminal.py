"""Talking in the terminal: streaming replies, history, and commands that look inside.

On a terminal the line editor is prompt_toolkit's, with the history of this identity; otherwise
standard input is read line by line, one message each, and the replies are lines of standard output.
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any, BinaryIO, TextIO

from rich.console import Console

from dreaming import mishaps, report, reviewing
from dreaming.agent import Agent
from dreaming.memory import addressed, feedback
from dreaming.memory.score import UNWANTED, WANTED
from dreaming.memory.senses import perception
from dreaming.types import Status, Trust

HELP = """\
/sleep            one night: dream of what was said, learn it, and serve it if it passes
/memories [from:NAME] [since:DAY] [until:DAY] [TEXT]
                  what comes to mind for TEXT, or the latest that was said; a DAY is 2026-03-31,
                  a NAME that has spaces stands in quotes
/facts            what was told, and how well the weights hold it
/dreams           what the last night dreamt, and what it rejected and why
/review [WHAT]    what a night waits with (config.review); on, refuse, reject 3,4, answer 5 WORDS
/generations      all generations, and which one serves
/rollback [N]     let generation N serve again, by default the parent; 0 is the base
/why              what stood behind the last reply
/up, /down        dream of the last message for sure, or never
/remember [TEXT]  the same as /up, or: keep TEXT, without a reply
/show FILE [TEXT] look at a picture or hear a sound, with what you say about it: kept as others'
                  words, recalled and not dreamt of
/trim [now]       what is old, unimportant and learned, or move it to the archive now
/archive [TEXT]   what is archived; /restore 3,4 (or all) brings it back
/voice FILE       a voice note of yours: its words are yours, and are answered
/help, /quit      this, and the end"""

LEFT_OUT = 'left out of dreams, and still in the diary: --mode=forget deletes'
"""What 'forget that' does, and what it does not."""

_HISTORY = 'history'  # in the identity's directory
_FILTER = re.compile(r'(?<!\S)(from|since|until):("[^"]*"|\S*)')  # of /memories
_DAY = 86_400.0  # seconds
_NAMED = 8  # of those who have spoken


def run(agent: Agent, source: BinaryIO | None = None, out: TextIO | None = None) -> int:
  """Talks until /quit or the end of the input; returns the exit code.

  Args:
    source: bytes to read messages from; by default the terminal or standard input.
    out: where replies go; standard output by default.
  """
  out = out or sys.stdout
  if source is None and sys.stdin.isatty() and out.isatty():
    return _Chat(agent, out).interactive()
  return _Chat(agent, out).piped(source or sys.stdin.buffer)


def messages(source: BinaryIO, limit: int) -> Iterator[str | ValueError]:
  """The lines of a stream, without the empty ones. A bad one comes as the error that it is.

  However long a line is, no more than `limit` bytes of it are held.
  """
  while line := source.readline(limit + 2):
    if len(line) > limit and not line.endswith(b'\n'):
      size = len(line)
      while more := source.readline(1 << 16):
        size += len(more)
        if more.endswith(b'\n'):
          break
      if size > limit + 1:
        yield ValueError(
          f'the message has {size:,} bytes, the limit is {limit:,}: shorten or split it, or raise '
          'decode.max_message_bytes'
        )
        continue
    try:
      text = line.decode().strip()
    except UnicodeDecodeError as e:
      yield ValueError(f'the message is not UTF-8 ({e.reason} at byte {e.start}): convert it')
      continue
    if text:
      yield text


def printable(text: str) -> str:
  """Without control characters, so that nothing that was once said can drive the terminal."""
  return ''.join(c if c.isprintable() or c in '\n\t' else '\ufffd' for c in text)


class _Chat:
  def __init__(self, agent: Agent, out: TextIO):
    self._agent, self._out = agent, out
    self._commands: dict[str, Callable[[str], None]] = {
      '/help': lambda _: self._say(HELP),
      '/sleep': self._sleep,
      '/memories': self._memories,
      '/facts': self._facts,
      '/dreams': self._dreams,
      '/generations': self._generations,
      '/rollback': self._rollback,
      '/why': self._why,
      '/up': lambda _: self._feedback(WANTED),
      '/down': lambda _: self._feedback(UNWANTED),
      '/remember': self._remember,
      '/show': self._show,
      '/voice': self._voice,
      '/review': self._review,
      '/trim': self._trim,
      '/archive': self._archive,
      '/restore': self._restore,
    }

  # ---- Loops ----

  def interactive(self) -> int:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory

    agent = self._agent
    session: PromptSession[str] = PromptSession(
      history=FileHistory(str(agent.workdir / _HISTORY)),
      completer=WordCompleter([*self._commands, '/quit'], sentence=True),
      complete_while_typing=False,
    )
    self._say(f'{agent.life.agent} is here (generation {agent.status().active}). /help for more.')
    while True:
      try:
        text = session.prompt(f'{agent.life.user}: ').strip()
      except KeyboardInterrupt:  # forget the line, not the conversation
        continue
      except EOFError:
        return 0
      if text == '/quit':
        return 0
      try:
        if text:
          self._turn(text)
      except KeyboardInterrupt:
        self._say('\n(stopped; what was said so far is kept)')
      except (ValueError, OSError) as e:
        self._complain(e)

  def piped(self, source: BinaryIO) -> int:
    """Exit code 2 when a message was refused; the others were still answered."""
    refused = False
    for message in messages(source, self._agent.max_message_bytes):
      try:
        if isinstance(message, ValueError):
          raise message
        if message == '/quit':
          break
        self._turn(message)
      except (ValueError, OSError) as e:
        self._complain(e)
        refused = True
    return 2 if refused else 0

  @mishaps.clearly('this was not finished')
  def _turn(self, text: str) -> None:
    command, _, rest = text.partition(' ')
    if command in self._commands:
      self._commands[command](rest.strip())
    elif command.startswith('/'):
      self._say(f'{printable(command)} is no command; /help lists them')
    else:
      self._answer(text)
      asked = feedback.find(text)
      if asked and asked.value == UNWANTED:  # noted when it is rated, before the next night
        self._say(f'(that is {LEFT_OUT})')

  def _answer(self, text: str, **fields: Any) -> None:
    for piece in self._agent.reply(text, stream=True, **fields):
      self._out.write(printable(piece))
      self._out.flush()
    self._say('')

  # ---- Commands ----

  def _sleep(self, _: str) -> None:
    with report.progress(Console(file=self._out)) as progress:
      outcome = self._agent.sleep(progress=progress)
    self._say(report.line(outcome))

  def _memories(self, rest: str) -> None:
    query, filters = filtered(rest, self._agent.diary.columns().speakers)
    found = self._agent.memories(query or None, **filters)
    for e in found:
      score = f'{e.scores.importance:4.1f}' if e.scores else '   -'
      night = f'night {e.night}' if e.night else 'not slept over'
      self._say(
        f'{e.id:>4}  {_date(e.time)}  {score}  {night:<14}  {e.speaker}: {_line(e.content)}'
      )
      if told := addressed.flagged(e, self._agent.life.agent):
        self._say(f"      tells the agent what to do, and is not the user's own: {_line(told)!r}")
    if not found:
      self._say('nothing comes to mind' if rest else 'nothing was said yet')
    if done := self._agent.embedding:
      line = '(by words alone where the encoder has not been yet: {:,} of {:,} done)'
      self._say(line.format(*done))

  def _facts(self, _: str) -> None:
    from dreaming.sleep import ledger  # a second of imports

    facts = ledger.facts(self._agent.diary)
    for f in facts:
      if f.nights:  # the others are counted below
        shares = ', '.join(f'night {night} {share:.0%}' for night, share in f.exams)
        self._say(f'{f.state:<10} {f.text[:80]}' + (f'  ({shares})' if shares else ''))
    counts = [f'{sum(f.state == s for f in facts)} {s}' for s in ledger.STATES]
    self._say(', '.join(c for c in counts if not c.startswith('0 ')) or 'nothing was told yet')

  def _review(self, rest: str) -> None:
    for line in reviewing.command(self._agent, rest):
      self._say(line)

  def _trim(self, rest: str) -> None:
    if rest not in ('', 'now'):
      raise ValueError(f'/trim {_line(rest)}: say /trim for a list, or /trim now')
    if rest:
      self._say(report.trimmed(self._agent.trim()))
    else:
      for line in report.trimmable(self._agent.trimmable()):
        self._say(line)

  def _archive(self, query: str) -> None:
    found = self._agent.archived(query or None)
    for e in found:
      self._say(f'{e.id:>4}  {_date(e.time)}  {e.speaker}: {_line(e.content)}')
    if not found:
      self._say('nothing of it is archived' if query else 'nothing is archived')

  def _restore(self, rest: str) -> None:
    ids = None if rest == 'all' else [i.strip() for i in rest.split(',')]
    if ids is not None and not all(i.isdecimal() for i in ids):
      raise ValueError('/restore takes ids with commas between, or all: /archive lists them')
    count = self._agent.restore(None if ids is None else map(int, ids))
    self._say(f'{count:,} back from the archive')

  def _dreams(self, _: str) -> None:
    dreams = self._agent.dreams()
    for d in dreams:
      parts = [d.text, *(f'{p.question} {p.answer}' for p in d.pairs)]
      text = ' / '.join(part for part in parts if part)
      why = '' if d.status == Status.KEPT else f'  (rejected: {_line(d.quality.reason)})'
      sources = ','.join(map(str, d.sources))
      self._say(f'{d.style:<12} of {sources:<8} {_line(text)}{why}')
    kept = sum(d.status == Status.KEPT for d in dreams)
    self._say(f'{kept} kept, {len(dreams) - kept} rejected' if dreams else 'no dreams yet')

  def _generations(self, _: str) -> None:
    active = self._agent.status().active
    self._say(f'{"*" if active == 0 else " "}   0  the base')
    for g in self._agent.generations():
      m = g.manifest
      scores = '  '.join(f'{k} {v:.3g}' for k, v in m.scores.items())
      mark = '*' if g.number == active else ' '
      self._say(
        f'{mark}{g.number:>4}  of {m.parent or 0}  {_date(m.created)}  '
        f'{len(m.sources)} experiences  {scores}'
      )

  def _rollback(self, number: str) -> None:
    if number and not number.isdecimal():
      raise ValueError(f'{_line(number)!r} is no generation: give its number, see /generations')
    serving = self._agent.rollback(int(number) if number else None)
    self._say(f'generation {serving} serves' + (' (the base)' if serving == 0 else ''))

  def _why(self, _: str) -> None:
    why = self._agent.why()
    if why is None:
      self._say('nothing was answered yet')
      return
    self._say(f'{_line(why.question)!r} was answered by generation {why.generation}, reading:')
    for line in why.prompt.rstrip().splitlines():
      self._say(f'  | {line}')
    for r in why.recalled:
      about = f', a correction of {r.corrects}' if r.corrects else ''
      self._say(
        f'  memory {r.experience.id}: score {r.score:.2f} (relevance {r.relevance:.2f}, '
        f'recency {r.recency:.2f}, importance {r.importance:.1f}){about}'
      )
      p = r.parts
      told = ', of the time asked about' * (p.when > 0) + ', by one who is named' * p.named
      told += ', read after the turn before' * bool(r.lead)
      self._say(
        f'    names {p.names_near:.2f}, words {p.words:.2f}, the turn before {p.before:.2f}, '
        f'hubness {p.hubness:.2f}{told}'
      )
    if not why.recalled:
      self._say('  no memory came to mind: this came from the weights')
      self._origins(why.question)

  def _origins(self, question: str) -> None:
    """The dreams that the weights have it from."""
    agent = self._agent
    last = agent.diary.experiences(limit=1, newest_first=True)
    if not agent.diary.active() or not last or last[0].content != question:
      return
    self._say('  looking for the dreams that it comes from ...')
    found = agent.origins(question, last[0].response, user=last[0].speaker)
    for o in [o for o in found if o.similarity > 0][:3]:
      told = agent.diary.experiences(ids=o.dream.sources)
      text = o.dream.text or ' '.join(f'{p.question} {p.answer}' for p in o.dream.pairs[:1])
      self._say(f'  {o.similarity:.2f}  dream {o.dream.id} of night {o.dream.night}: {_line(text)}')
      for e in told:
        self._say(f'        of experience {e.id}: {_line(e.content)}')

  def _remember(self, text: str) -> None:
    if text:
      self._agent.observe(text)
    self._feedback(WANTED)

  def _feedback(self, value: float) -> None:
    e = self._agent.feedback(value)
    self._say(f'{"kept" if value == WANTED else LEFT_OUT}: {_line(e.content)}')

  def _show(self, rest: str) -> None:
    path, text = _file(rest, '/show FILE [what you say about it]')
    media, metadata = self._agent.perceive(path)
    self._agent.observe(
      text or perception.WORDS[media.kind],
      kind='observation',
      media=(media,),
      trust=Trust.THIRD_PARTY,  # whoever made the picture wrote what stands in it
      metadata={'media': [metadata]},
    )
    self._say(media.description)

  def _voice(self, rest: str) -> None:
    path, text = _file(rest, '/voice FILE')
    if text:
      raise ValueError(f'/voice {_line(rest)}: give one FILE, in quotes where it has spaces')
    media, metadata = self._agent.perceive(path)
    try:
      said, media = perception.spoken(media, metadata)
    except ValueError as e:
      raise ValueError(f'{_line(path)}: {e}; /show takes pictures and sounds') from None
    self._say(f'> {said}')
    self._answer(said, media=(media,), metadata={'media': [metadata]})

  def _say(self, text: str) -> None:
    self._out.write(printable(text) + '\n')
    self._out.flush()

  def _complain(self, error: Exception) -> None:
    self._out.flush()
    print(printable(_line(str(error))), file=sys.stderr, flush=True)


def filtered(rest: str, speakers: Collection[str]) -> tuple[str, dict[str, Any]]:
  """The words after /memories, and its filters as `Agent.memories` takes them; days are in UTC.

  Raises ValueError when one is no date, or a name (whatever its case) none of the speakers'.
  """
  filters: dict[str, Any] = {}
  alike = {s.casefold(): s for s in speakers}
  for key, value in _FILTER.findall(rest):
    value = value.strip('"')
    if key == 'from':
      name = value if value in speakers else alike.get(value.casefold())
      if name is None:
        there = ', '.join([*speakers][:_NAMED]) or 'nobody'
        raise ValueError(f'from:{_line(value, 40)}: no such name has spoken; who has: {there}')
      filters['speaker'] = name
      continue
    try:
      day = datetime.datetime.strptime(value, '%Y-%m-%d').replace(tzinfo=datetime.UTC)
    except ValueError:
      line = f'{key}:{_line(value, 40)}: it is no date; give one as {key}:2026-03-31'
      raise ValueError(line) from None
    filters[key] = day.timestamp() + (_DAY if key == 'until' else 0.0)  # that day is one of them
  return ' '.join(_FILTER.sub('', rest).split()), filters


def _file(rest: str, usage: str) -> tuple[str, str]:
  """The file that a command names, in quotes where it has spaces, and what follows it."""
  quote = rest[:1] if rest[:1] in ('"', "'") else ''
  path, end, text = rest[len(quote) :].partition(quote or ' ')
  if not path or (quote and not end):
    raise ValueError(f'{usage}: name a file, in quotes where its name has spaces')
  return path, text.strip()


def _date(time: float) -> str:
  return f'{datetime.datetime.fromtimestamp(time, datetime.UTC):%Y-%m-%d %H:%M}'


def _line(text: str, limit: int = 160) -> str:
  text = ' '.join(text.split())
  return text if len(text) <= limit else text[: limit - 3] + '...'
