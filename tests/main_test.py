"""The command line: what it costs to start, what it refuses and how, and whole days with nights."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from configs import tiny
from dreaming import days, live, main, report
from dreaming.agent import Agent
from dreaming.sleep.gate import Row
from dreaming.sleep.outcome import Outcome
from dreaming.types import Generation, Manifest

ROOT = pathlib.Path(__file__).parents[1]

DAY = {
  'user': 'Ana',
  'interactions': [
    {'time': '2026-03-02T08:00:00', 'text': 'I have a parrot [bold]Biscuit[/bold].'},
    {'time': '2026-03-02T09:00:00', 'text': 'It rains.', 'response': 'Take care.'},
  ],
  'probes': [{'question': 'What is the pet called?', 'answers': ['Biscuit'], 'about': [0]}],
  'never_mentioned': [{'question': 'Where was Ana born?', 'wrong': ['Biscuit']}],
}


def start(*flags: str, **kwargs) -> subprocess.Popen[str]:
  pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE}
  return subprocess.Popen(
    [sys.executable, '-m', 'dreaming.main', *flags], cwd=ROOT, text=True, **pipes | kwargs
  )


def run(*flags: str, stdin: str = '') -> tuple[int, str, str]:
  process = start(*flags)
  out, err = process.communicate(stdin, timeout=120)
  return process.returncode, out, err


@pytest.fixture
def flags(tmp_path) -> list[str]:
  return [
    '--config=configs/tiny.py',
    f'--config.workdir={tmp_path / "life"}',
    f'--config.cache={tmp_path / "cache"}',
  ]


@pytest.fixture
def day(tmp_path) -> str:
  path = tmp_path / 'day.json'
  path.write_text(json.dumps(DAY))
  return str(path)


# ---- Starting ----


def test_help_is_quick_and_loads_nothing():
  script = (
    'import sys, dreaming.main as m; print([n for n in ("jax", "numpy") if n in sys.modules])'
  )
  done = subprocess.run(
    [sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert done.stdout == '[]\n'
  before = time.monotonic()
  code, out, _ = run('--help')
  assert code == 0 and '--mode=MODE' in out
  assert time.monotonic() - before < 10  # benchmarks/startup.py holds the real bar


def test_main_is_short():
  assert len((ROOT / 'dreaming' / 'main.py').read_text().splitlines()) < 60


def test_status_loads_no_weights(flags):
  code, out, err = run(*flags, '--mode=status', '--config.model.weights=/nowhere.gguf')
  assert (code, err) == (0, '')
  assert 'the base (generation 0), of 0 promoted' in out


@pytest.mark.parametrize(
  'flag, why',
  [
    ('--config.train.lerning_rate=1', 'lerning_rate'),
    ('--config.nix.y=1', "no such field: 'nix'"),
    ('--config.train.steps=abc', "--config.train.steps=abc: invalid literal for int() .* 'abc'"),
    ('--mode=dream', '--mode=dream: value should be one of <live|life'),
    ('--nix', "Unknown command line flag 'nix'"),
    ('words', "'words' is no flag"),
    ('--config=configs/nix.py', 'configs/nix.py'),
    ('--config=README.md', 'README.md'),
  ],
)
def test_a_mistaken_flag_is_one_line(flag, why):
  code, out, err = run('--config=configs/tiny.py', flag)
  assert (code, out) == (2, '')
  assert err.startswith('dreaming: ') and err.count('\n') == 1
  assert why.split(' .* ')[0] in err and 'Traceback' not in err


@pytest.mark.parametrize(
  'field, value, why',
  [
    ('life.days', ('/nowhere.json',), 'no day at /nowhere.json'),
    ('life.user', '', "life.user is ''"),
    ('model.architecture', 'gemma3_7b', "model.architecture='gemma3_7b' is unknown"),
    ('model.weights', '/nowhere.gguf', 'no GGUF file at /nowhere.gguf'),
    ('decode.temperature', -1.0, 'temperature=-1'),
    ('decode.max_tokens', 4096, 'decode.max_tokens is 4096'),
    ('memory.embedder', 'nix', "memory.embedder is 'nix'"),
    ('mesh.data', -2, 'mesh.data=-2'),
    ('select.top_k', 0, 'select.top_k is 0'),
    ('score.importance', -1.0, 'score: weights are >= 0'),
  ],
)
def test_a_mistaken_value_is_one_line(config, field, value, why, capsys):
  """In this process: what main prints is the error's own line."""
  config.update_from_flattened_dict({field: value})
  with pytest.raises((ValueError, OSError)) as e:
    live.run('live', config)
  assert why in str(e.value)
  with pytest.raises(SystemExit) as end:
    main.refuse(e.value)
  assert end.value.code == 2 and capsys.readouterr().err.count('\n') == 1


# ---- Talking ----


def test_chat_from_a_pipe_refuses_ten_megabytes_and_loses_nothing(flags, tmp_path):
  code, out, err = run(*flags, '--mode=chat', stdin='Hello\n' + 'x' * 10_000_000 + '\nGood night\n')
  assert code == 2 and len(out.splitlines()) >= 2
  assert err == (
    'the message has 10,000,001 bytes, the limit is 65,536: shorten or split it, or raise '
    'decode.max_message_bytes\n'
  )
  code, out, _ = run(*flags, '--mode=status')
  assert '2 experiences, 2 of them not slept over' in out
  home = {p.name for p in tmp_path.iterdir()}
  assert home == {'life', 'cache'}


def test_a_second_process_gets_one_line_and_an_interrupt_leaves_all_consistent(flags):
  first = start(*flags, '--mode=chat')
  first.stdin.write('/generations\nI have a parrot.\n')
  first.stdin.flush()
  assert first.stdout.readline() == '*   0  the base\n'
  code, out, err = run(*flags, '--mode=status')
  assert (code, out) == (2, '')
  assert f'in use by process {first.pid}' in err and err.count('\n') == 1
  assert first.stdout.readline()
  first.send_signal(signal.SIGINT)
  _, err = first.communicate(timeout=60)
  assert first.returncode == 130 and 'Traceback' not in err and 'is kept' in err
  _, out, _ = run(*flags, '--mode=status')
  assert '1 experiences' in out


# ---- Days and nights, with an agent that needs no weights ----


@pytest.fixture
def asleep(monkeypatch):
  """Replaces talking, sleeping and answering; gives the nights that are to come."""
  nights = []

  def speak(self, text, user, now, retrieval, fields):
    yield 'I see.'
    self.observe(text, 'I see.', user=user, now=now, **fields)

  def sleep(self, *, user, now, progress):
    state = nights.pop(0)
    number = 1 + sum(1 for _ in self.diary.nights())
    night = self.diary.begin_night({})
    progress('train', 1, 2, {'dream_loss': 0.5})
    self.slept = (user, now)
    rows = (Row(name='recall_gain', value=0.6, limit=0.1, ok=True),)
    if state == 'empty':
      self.diary.end_night(night, 'rejected')
      return Outcome(number=number, state=state, reason='no experience is left to dream of')
    manifest = Manifest(
      number=number, parent=None, night=night, created=0.0, base='b', sources=(), seed=0,
      files={}, lora={}, scores={}, config={},
    )  # fmt: skip
    ids = [e.id for e in self.diary.experiences(unconsumed=True)]
    self.diary.promote(manifest, ids, night)
    generation = Generation(number=number, parent=None, path=self.workdir, manifest=manifest)
    fields = {'rows': rows, 'measures': {'recall': 0.6}, 'seconds': {'train': 1.5}}
    return Outcome(
      number=number,
      state='promoted',
      reason='',
      generation=generation,
      consumed=tuple(ids),
      **fields,
    )

  def answer(self, questions, *, user, now, generation, retrieval):
    del self, user, now
    return ['Biscuit' if generation else 'a dog' for _ in questions]

  monkeypatch.setattr(Agent, '_speak', speak)
  monkeypatch.setattr(Agent, 'sleep', sleep)
  monkeypatch.setattr(Agent, 'answer', answer)
  return nights


@pytest.fixture
def config(tmp_path, day):
  c = tiny.get_config()
  c.workdir, c.cache = str(tmp_path / 'life'), str(tmp_path / 'cache')
  c.life.days = (day,)
  return c


def test_a_day_is_lived_slept_over_and_reported(config, asleep, tmp_path, capsys):
  asleep += ['promoted']
  assert live.run('live', config) == 0
  out = capsys.readouterr().out
  assert '08:00 Ana: I have a parrot [bold]Biscuit[/bold].' in out
  assert '09:00 Echo: Take care.' in out
  assert 'Night 1: generation 1 serves now' in out
  life = tmp_path / 'life'
  result = json.loads((life / 'result.json').read_text())
  assert result['recall'] == {'base': 0.0, 'retrieval': 0.0, 'weights': 1.0, 'both': 1.0}
  assert result['never_mentioned']['weights'] == 1.0
  assert result['measures'] == {'recall': 0.6} and result['generation'] == 1
  assert set(result['seconds']) == {'talk', 'sleep', 'examine', 'total'}
  assert result['nights'][0]['gate'][0]['name'] == 'recall_gain'
  assert result['days'][0]['answers'][0]['weights'] == {'reply': 'Biscuit', 'right': True}
  assert (life / 'result.png').read_bytes().startswith(b'\x89PNG')
  assert {p.name for p in tmp_path.iterdir()} == {'life', 'cache', 'day.json'}


def test_a_day_that_was_cut_off_goes_on_and_one_that_was_lived_is_not_lived_twice(
  config, asleep, capsys
):
  asleep += ['promoted', 'empty']
  first = days.load(config.life.days[0]).interactions[0]
  with Agent(config) as a:
    a.observe(first.text, user=first.user, now=first.time)
  assert live.run('live', config) == 0
  assert '1 of 2 interactions are in the diary already' in capsys.readouterr().out
  assert live.run('live', config) == 1  # loud: there was nothing to learn
  assert 'NIGHT 2 CHANGED NOTHING (empty)' in capsys.readouterr().out.replace('\n', ' ')
  with Agent(config) as a:
    assert len(a.diary.experiences()) == 2


def test_two_days_are_two_nights_and_both_are_asked_about(config, asleep, tmp_path):
  second = tmp_path / 'second.json'
  second.write_text(json.dumps(DAY | {'interactions': [
    {'time': '2026-03-03T08:00:00', 'text': 'My sister is Leela.'}]}))  # fmt: skip
  config.life.days = (f'{config.life.days[0]},{second}',)  # as one flag gives them
  asleep += ['promoted', 'promoted']
  assert live.run('live', config) == 0
  result = json.loads((tmp_path / 'life' / 'result.json').read_text())
  assert [pathlib.Path(d['day']).name for d in result['days']] == ['day.json', 'second.json']
  assert [n['number'] for n in result['nights']] == [1, 2]


def test_every_day_is_read_before_one_is_lived(config, asleep, tmp_path):
  config.life.days = (config.life.days[0], '/nowhere.json')
  with pytest.raises(FileNotFoundError, match='/nowhere.json'):
    live.run('live', config)
  assert not (tmp_path / 'life').exists()


def test_a_message_of_a_day_that_is_too_long_is_refused_before_the_day(config, asleep, tmp_path):
  config.decode.max_message_bytes = 20
  with pytest.raises(ValueError, match=r'interactions\[0\]: text has 37 bytes, the limit is 20'):
    live.run('live', config)
  assert not (tmp_path / 'life').exists()


def test_sleep_and_examine_alone(config, asleep, tmp_path):
  asleep += ['empty', 'promoted']
  assert live.run('sleep', config) == 1
  assert live.run('sleep', config) == 0
  assert live.run('examine', config) == 0
  result = json.loads((tmp_path / 'life' / 'result.json').read_text())
  assert result['recall']['weights'] == 1.0 and result['nights'] == []


def test_a_plot_of_nothing_is_drawn(tmp_path):
  (tmp_path / 'life').mkdir()
  path = report.plot(tmp_path / 'life', {'days': [], 'nights': []}, tmp_path / 'cache')
  assert path.stat().st_size > 1000
  assert os.environ['MPLCONFIGDIR']
