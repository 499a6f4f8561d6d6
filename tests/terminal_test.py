"""The chat of the terminal, with an agent that answers without weights."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from configs import tiny
from dreaming import terminal
from dreaming.agent import Agent, Why
from dreaming.memory.recall import Recalled
from dreaming.memory.relevance import Parts
from dreaming.sleep.outcome import Outcome
from dreaming.types import QA, Dream, Manifest, Media, Quality, Scores, Status, Trust


class Echo(Agent):
  """Says what it hears, in two pieces."""

  asleep = 0

  def _speak(self, text, user, now, retrieval, fields):
    said = f'You said: {text}'
    yield said[:4]
    yield said[4:]
    e = self.observe(text, said, user=user, now=now, **fields)
    parts = Parts(
      cosine=0.7, words=0.4, before=0.3, names=0.0, names_near=1.0, when=True, named=False
    )
    r = Recalled(
      experience=e, score=1.0, recency=0.9, importance=5.5, relevance=0.7, parts=parts, corrects=7
    )
    self._why = Why(question=text, generation=0, prompt=f'Q: {text}\nA:', recalled=(r,))

  def sleep(self, *, progress=None, **_):
    self.asleep += 1
    progress('train', 1, 2, {'loss': 0.5})
    return Outcome(number=self.asleep, state='empty', reason='no experience is left to dream of')


@pytest.fixture
def agent(tmp_path):
  c = tiny.get_config()
  c.workdir, c.cache = str(tmp_path / 'life'), str(tmp_path / 'cache')
  c.decode.max_message_bytes = 100
  with Echo(c) as a:
    yield a


def talk(agent: Agent, *lines: str | bytes) -> tuple[int, str]:
  source = io.BytesIO(b'\n'.join(x if isinstance(x, bytes) else x.encode() for x in lines))
  out = io.StringIO()
  return terminal.run(agent, source, out), out.getvalue()


def test_lines_are_messages_and_replies_are_lines(agent):
  code, out = talk(agent, 'Hello', '', '  Good night  ')
  assert (code, out) == (0, 'You said: Hello\nYou said: Good night\n')
  assert [e.content for e in agent.diary.experiences()] == ['Hello', 'Good night']


def test_a_bad_line_is_refused_in_one_line_and_the_others_are_answered(agent, capsys):
  code, out = talk(agent, 'Hello', 'x' * 200_000, b'\xff\xfe', 'y' * 101, 'z' * 100)
  assert code == 2
  assert out == 'You said: Hello\n' + f'You said: {"z" * 100}\n'
  errors = capsys.readouterr().err.splitlines()
  assert len(errors) == 3
  assert '200,001 bytes, the limit is 100' in errors[0]  # with its line end
  assert 'not UTF-8' in errors[1] and '101 bytes' in errors[2]
  assert [len(e.content) for e in agent.diary.experiences()] == [5, 100]


def test_a_long_line_is_never_held_whole():
  class Endless(io.RawIOBase):
    """A gigabyte in one line, made as it is read."""

    left = 1 << 30

    def readable(self):
      return True

    def readinto(self, buffer):
      n = min(self.left, len(buffer))
      buffer[:n] = b'x' * n
      self.left -= n
      return n

    def readline(self, size=-1):
      assert 0 < size <= 1 << 20
      n = min(self.left, size)
      self.left -= n
      return b'x' * n

  [error] = terminal.messages(Endless(), 100)
  assert isinstance(error, ValueError) and '1,073,741,824 bytes' in str(error)


def test_quit_ends_it(agent):
  assert talk(agent, '/quit', 'Hello') == (0, '')
  assert not agent.diary.experiences()


def test_help_names_every_command(agent):
  _, out = talk(agent, '/help')
  assert all(command in out for command in terminal._Chat(agent, io.StringIO())._commands)


def test_an_unknown_command_is_no_message(agent):
  _, out = talk(agent, '/slep')
  assert out == '/slep is no command; /help lists them\n'
  assert not agent.diary.experiences()


def test_sleep_says_loudly_when_nothing_changed(agent):
  _, out = talk(agent, '/sleep')
  assert 'NIGHT 1 CHANGED NOTHING (empty): no experience is left to dream of' in out


def test_memories_come_with_score_and_night(agent):
  assert talk(agent, '/memories')[1] == 'nothing was said yet\n'
  agent.observe('My parrot is Biscuit.', now=86_400.0, scores=Scores(importance=7.25))
  _, out = talk(agent, '/memories')
  assert '1970-01-02 00:00   7.2  not slept over  Priya: My parrot is Biscuit.' in out
  _, out = talk(agent, '/memories parrot')
  assert 'Biscuit' in out
  assert talk(agent, '/memories quantum chromodynamics')[1] == 'nothing comes to mind\n'


def test_memories_are_of_somebody_and_of_some_days(agent):
  told = [('Priya', 'My parrot is Biscuit.'), ('Ana Lee', 'Parrots eat nuts.'),
          ('Priya', 'The parrot bit me.')]  # fmt: skip
  for day, (speaker, content) in enumerate(told, 1):
    agent.observe(content, user=speaker, now=86_400.0 * day + 3600)

  def said(command):
    lines = talk(agent, command)[1].splitlines()
    return [line.partition('over  ')[2].partition(': ')[2] for line in lines]

  assert said('/memories from:priya') == ['The parrot bit me.', 'My parrot is Biscuit.']
  assert said('/memories from:"Ana Lee" parrot') == ['Parrots eat nuts.']
  assert said('/memories since:1970-01-03 until:1970-01-03') == ['Parrots eat nuts.']
  assert set(said('/memories parrot since:1970-01-03')) == {
    'Parrots eat nuts.', 'The parrot bit me.'}  # fmt: skip
  assert talk(agent, '/memories until:1970-01-01')[1] == 'nothing comes to mind\n'


@pytest.mark.parametrize(
  ('line', 'why'),
  [
    ('since:1970-13-01', 'since:1970-13-01: it is no date; give one as since:2026-03-31'),
    ('until:yesterday parrot', 'until:yesterday: it is no date'),
    ('since:', 'since:: it is no date'),
    ('from:Eve', 'from:Eve: no such name has spoken; who has: Priya'),
  ],
)
def test_a_wrong_filter_is_one_line(agent, line, why, capsys):
  agent.observe('My parrot is Biscuit.', now=86_400.0)
  code, out = talk(agent, f'/memories {line}')
  (error,) = capsys.readouterr().err.splitlines()
  assert (code, out) == (2, '') and why in error


def test_dreams_show_what_was_rejected_and_why(agent):
  assert talk(agent, '/dreams')[1] == 'no dreams yet\n'
  e = agent.observe('My parrot is Biscuit.')
  night = agent.diary.begin_night({})
  common = {'id': 0, 'night': night, 'sources': (e.id,)}
  bad = Quality(reason='not grounded')
  agent.diary.add_dreams(
    [
      Dream(style='question', text='', pairs=(QA(question='Who?', answer='Biscuit'),), **common),
      Dream(style='list', text='nonsense', status=Status.REJECTED, quality=bad, **common),
    ]
  )
  lines = talk(agent, '/dreams')[1].splitlines()
  assert lines[0].split() == ['question', 'of', '1', 'Who?', 'Biscuit']
  assert lines[1].endswith('nonsense  (rejected: not grounded)')
  assert lines[2] == '1 kept, 1 rejected'


def test_generations_mark_the_one_that_serves(agent):
  assert talk(agent, '/generations')[1] == '*   0  the base\n'
  fields = {'created': 0.0, 'base': 'b', 'sources': (), 'seed': 0, 'files': {}, 'lora': {}}
  manifest = Manifest(
    number=1, parent=None, night=None, scores={'recall': 0.5}, config={}, **fields
  )
  agent.diary.promote(manifest, (), None)
  lines = talk(agent, '/generations')[1].splitlines()
  assert lines[0] == '    0  the base'
  assert lines[1].startswith('*   1  of 0  1970-01-01') and lines[1].endswith('recall 0.5')


@pytest.mark.parametrize('argument', ['x', '-1', '1.5'])
def test_rollback_takes_numbers_only(agent, capsys, argument):
  assert talk(agent, f'/rollback {argument}')[0] == 2
  assert f"'{argument}' is no generation" in capsys.readouterr().err


def test_why_shows_prompt_and_memories(agent):
  assert talk(agent, '/why')[1] == 'nothing was answered yet\n'
  lines = talk(agent, 'Hello', '/why')[1].splitlines()
  assert lines[1] == "'Hello' was answered by generation 0, reading:"
  assert lines[2:4] == ['  | Q: Hello', '  | A:']
  assert lines[4].startswith('  memory 1: score 1.00 (relevance 0.70, ')
  assert lines[4].endswith('a correction of 7')
  assert lines[5].endswith('the turn before 0.30, hubness 0.00, of the time asked about')


def test_thumbs_and_what_to_remember_are_noted(agent, capsys):
  assert talk(agent, '/up')[0] == 2 and 'talk first' in capsys.readouterr().err
  _, out = talk(agent, 'Hello', '/up', 'My pin is 1234.', '/down', '/remember I am vegan.')
  lines = out.splitlines()
  assert lines[1] == 'kept: Hello' and lines[4] == 'kept: I am vegan.'
  assert lines[3].startswith('left out of dreams') and lines[3].endswith(': My pin is 1234.')
  noted = [(e.content, e.scores.feedback, e.response[:8]) for e in agent.diary.experiences()]
  assert noted == [
    ('Hello', 10.0, 'You said'), ('My pin is 1234.', 1.0, 'You said'), ('I am vegan.', 10.0, ''),
  ]  # fmt: skip
  assert talk(agent, 'Bye', '/remember')[1].endswith('kept: Bye\n')


def test_forget_that_says_what_it_does_not_do(agent):
  _, out = talk(agent, 'My pin is 1234.', 'Forget that.', 'I forgot that at home.')
  assert out.splitlines()[2].startswith('(that is left out of dreams, and still in the diary')
  assert out.count('left out') == 1 and len(agent.diary.experiences()) == 3


def test_what_was_said_cannot_drive_the_terminal(agent):
  _, out = talk(agent, 'a\x1b[2J\x07b', '/memories')
  assert '\x1b' not in out and '\x07' not in out


# ---- On a real terminal ----

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from terminal_test import Echo, terminal, tiny
class Slow(Echo):
  def _speak(self, text, user, now, retrieval, fields):
    import time
    if text == 'wait':
      yield 'waiting'
      try:
        time.sleep(30)
      finally:
        self.observe(text, 'waiting', user=user, now=now)
    yield from super()._speak(text, user, now, retrieval, fields)
c = tiny.get_config()
c.workdir, c.cache = {workdir!r}, {cache!r}
with Slow(c) as a:
  sys.exit(terminal.run(a))
"""


def test_on_a_terminal_control_c_stops_a_reply_and_not_the_talk(tmp_path):
  workdir = tmp_path / 'life'
  script = SCRIPT.format(
    tests=os.path.dirname(__file__), workdir=str(workdir), cache=str(tmp_path / 'cache')
  )
  main, side = pty.openpty()
  process = subprocess.Popen(
    [sys.executable, '-c', script],
    stdin=side,
    stdout=side,
    stderr=side,
    start_new_session=True,
    cwd=os.path.dirname(os.path.dirname(__file__)),
    env=os.environ | {'TERM': 'xterm', 'PROMPT_TOOLKIT_NO_CPR': '1'},
  )
  os.close(side)
  seen = ''

  def expect(what: str) -> None:
    nonlocal seen
    end = time.monotonic() + 60
    while what not in seen:
      assert time.monotonic() < end, seen
      if select.select([main], [], [], 0.2)[0]:
        seen += os.read(main, 4096).decode(errors='replace')
    seen = seen[seen.index(what) + len(what) :]

  try:
    expect('Priya:')
    os.write(main, b'wait\r')
    expect('waiting')
    process.send_signal(signal.SIGINT)
    expect('stopped')
    expect('Priya:')
    os.write(main, b'Hello\r')
    expect('You said: Hello')
    expect('Priya:')
    os.write(main, b'\x04')
    assert process.wait(timeout=30) == 0
  finally:
    process.kill()
    process.wait()
    os.close(main)
  assert 'wait' in (workdir / 'history').read_text()


# ---- Pictures and sounds ----


@pytest.fixture
def seen(agent, monkeypatch):
  """What is perceived in any file: a cat, or, in .wav files, words."""
  paths = []

  def perceive(path):
    paths.append(path)
    if path.endswith('none'):
      raise FileNotFoundError(f'no file at {path}')
    if path.endswith('.wav'):
      segments = [] if 'silence' in path else [[0.0, 1.0, 'I have a parrot.'], [1.0, 2.0, 'Yes.']]
      said = ' '.join(text for *_, text in segments)
      media = Media(kind='audio', digest='a' * 64, description=f'someone says: {said}')
      return media, {'name': path, 'seconds': 2.0, 'segments': segments}
    return Media(kind='image', digest='b' * 64, description='a cat'), {'name': path}

  monkeypatch.setattr(agent, 'perceive', perceive)
  return paths


@pytest.mark.parametrize(
  'line, path, said',
  [
    ('/show cat.jpg', 'cat.jpg', 'Look at this.'),
    ('/show cat.jpg  This is Miso.', 'cat.jpg', 'This is Miso.'),
    ('/show "my cat.jpg" This is "Miso".', 'my cat.jpg', 'This is "Miso".'),
    ("/show 'my cat.jpg'", 'my cat.jpg', 'Look at this.'),
    ('/show purr.wav', 'purr.wav', 'Listen to this.'),
  ],
)
def test_what_is_shown_is_observed_and_not_trusted(agent, seen, line, path, said):
  code, out = talk(agent, line)
  assert code == 0 and seen == [path]
  (e,) = agent.diary.experiences()
  assert (e.content, e.kind, e.trust) == (said, 'observation', Trust.THIRD_PARTY)
  assert [m.description for m in e.media] == [out.strip()]
  assert e.metadata['media'][0]['name'] == path


def test_a_voice_note_is_the_users_own_words(agent, seen):
  code, out = talk(agent, '/voice note.wav')
  assert code == 0 and seen == ['note.wav']
  (e,) = agent.diary.experiences()
  assert out == f'> I have a parrot. Yes.\n{e.response}\n'
  assert (e.content, e.trust) == ('I have a parrot. Yes.', Trust.USER)
  assert e.metadata['media'][0]['name'] == 'note.wav'
  assert e.media[0].description == 'a voice note of 2 s'


@pytest.mark.parametrize(
  'line, why',
  [
    ('/show', 'name a file'),
    ('/voice', 'name a file'),
    ('/show "cat.jpg', 'name a file'),
    ('/show none', 'no file at none'),
    ('/voice cat.jpg', 'no speech is heard'),
    ('/voice silence.wav', 'no speech is heard'),
    ('/voice a b.wav', 'in quotes'),
  ],
)
def test_what_cannot_be_shown_is_one_line_and_nothing_is_kept(agent, seen, line, why, capsys):
  code, _ = talk(agent, line)
  err = capsys.readouterr().err
  assert code == 2 and why in err and err.count('\n') == 1
  assert not agent.diary.experiences()
