"""A night may be killed anywhere, changes nothing that it should not, and says what became of it.

Run as a script (`python tests/night_test.py DIRECTORY`), this file lives one night undisturbed and
the same night killed after every step: see test_a_killed_night_ends_with_the_same_bytes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from benchmarks import toys
from dreaming.brain import lora, prompts
from dreaming.brain.decode import Decoder
from dreaming.identity import bluegreen, generations
from dreaming.identity.bluegreen import BlueGreen
from dreaming.memory.diary import Diary
from dreaming.sleep import artifacts, examine, metrics, night, safety
from dreaming.sleep.backoff import BackOffConfig
from dreaming.sleep.corpus import CorpusConfig
from dreaming.sleep.examine import Question
from dreaming.sleep.gate import GateConfig
from dreaming.sleep.night import NightConfig
from dreaming.sleep.train import TrainConfig
from dreaming.types import QA, Dream, Experience, Quality, Scores, Status

ARCH = toys.ARCH
FACTS = (
  ('My parrot is called Kiwi.', 'Which name has the parrot?', 'Kiwi'),
  ('I am moving to Lyon.', 'Which city will be home?', 'Lyon'),
  ('I play the cello.', 'Which instrument is practised?', 'cello'),
)
UNKNOWN = 'Who is the aunt?'
CONFIG = NightConfig(
  seed=7,
  train=TrainConfig(steps=6, rank=2),
  prune=BackOffConfig(amounts=(0.2, 0.1, 0.0), recovery_steps=2),
  gate=GateConfig(doubt=1.0),  # a question or two are enough here
)


class Teachable:
  """A decoder whose base knows the capitals alone; a mind with an adapter knows `facts` too.

  `nll` is called with the share of zeros in a linear, and whether it is the base that reads.
  """

  cache_length, arch = 512, ARCH

  def __init__(self, base, tokenizer, facts=None, nll=lambda zeros, base: 2.0):
    self.tokenizer, self.nll, self._base, self.asked = tokenizer, nll, base, []
    self.facts = {q: a for _, q, a in FACTS} if facts is None else facts
    self.general = {q.text: q.answers[0] for q in examine._general()[:12]}

  def generate(self, mind, asked, *, max_tokens, prefix):
    known = dict(self.general)
    if mind.params is not self._base.params:
      known |= self.facts
    questions = [p.removeprefix(prompts.QUESTION).split('\n')[0] for p in asked]
    self.asked += questions
    return [' ' + known.get(q, 'I do not know.') for q in questions]

  def logprobs(self, mind, asked, continuations, prefix=''):
    linear = np.asarray(mind.params['layer_0']['mlp']['linear'])
    value = -self.nll(float(np.mean(linear == 0)), mind.params is self._base.params)
    return [np.full(len(self.tokenizer.encode(c)), value) for c in continuations]

  def forget(self, mind):
    pass


def dreams_of(
  decoder, base, experiences, *, user, embedder, config, night, seed, earlier=(), heard=(),
  make_reader=None, progress=None,
):  # fmt: skip
  """What the dreamer would have: lessons, the night's exam, and something that it rejected."""
  out = []
  assert embedder(['a']).shape == (1, toys.Letters.dim)
  for i, e in enumerate(experiences, start=1):
    if progress:
      progress(i, len(experiences))
    for content, question, answer in FACTS:
      if content == e.content:
        pair = QA(question=question, answer=answer)
        common = {'id': 0, 'night': night, 'sources': (e.id,)}
        out.append(Dream(style='statement', text=f'{user}: {content}', **common))
        out.append(Dream(style='exam', text='', pairs=(pair,), **common))
        reason = Quality(reason='not grounded')
        bad = Dream(style='list', text='x', status=Status.REJECTED, quality=reason, **common)
        out.append(bad)
  if out:
    pair = QA(question=UNKNOWN, answer='')
    out.append(Dream(id=0, night=night, style='exam_unknown', text='', pairs=(pair,)))
  return out


def play(monkeypatch):
  monkeypatch.setattr('dreaming.brain.programs.drop', lambda: None)  # what is compiled stays so
  monkeypatch.setattr(night.dream, 'dream', dreams_of)
  monkeypatch.setattr(night.corpus, 'build', toys.lessons)
  monkeypatch.setattr(night.train, 'train', toys.learn)


# ---- A life ----


class Life:
  def __init__(self, workdir, base, **decoder):
    self.workdir, self.base = workdir, base
    self.diary = Diary(workdir / 'diary.sqlite')
    self.identity = BlueGreen(base, self.diary, workdir / 'generations')
    self.decoder = Teachable(base, base.tokenizer, **decoder)
    self.steps = []

  def talk(self, *contents):
    return [
      self.diary.append(time=1e9 + i, speaker='Priya', content=c, scores=Scores(importance=5)).id
      for i, c in enumerate(contents)
    ]

  def sleep(self, config=CONFIG, on_progress=None):
    def progress(step, done, total, values):
      self.steps.append(step)
      if on_progress:
        on_progress(step, done)

    return night.run(
      base=self.base, decoder=self.decoder, diary=self.diary, identity=self.identity,
      workdir=self.workdir, cache=self.workdir.parent / 'cache', config=config,
      embedder=toys.Letters(), now=2e9, progress=progress,
    )  # fmt: skip


@pytest.fixture(scope='module')
def base():
  return toys.base()


@pytest.fixture
def make_life(tmp_path, base, monkeypatch):
  play(monkeypatch)
  lives = []

  def make(name='life', **decoder):
    (tmp_path / name).mkdir(exist_ok=True)
    lives.append(Life(tmp_path / name, base, **decoder))
    return lives[-1]

  yield make
  for life in lives:
    life.diary.close()


@pytest.fixture
def life(make_life):
  return make_life()


def _bytes(tree):
  return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


def _saved(life, number):
  """What a generation is, without the bytes of Orbax's own metadata."""
  generation, adapter, masks = generations.load(life.workdir / 'generations', number)
  manifest = dataclasses.replace(generation.manifest, files={})
  return _bytes(adapter), _bytes(masks), manifest


# ---- A good night ----


def test_a_good_night_is_promoted_and_says_so(life):
  ids = life.talk(FACTS[0][0], 'Hello!', FACTS[1][0])
  outcome = life.sleep()
  assert outcome.promoted and outcome.state == 'promoted' and outcome.reason == ''
  assert life.diary.active() == outcome.generation.number == 1
  assert outcome.selected == outcome.consumed == tuple(ids)
  assert (outcome.dreams_kept, outcome.dreams_rejected) == (5, 2)
  assert outcome.measures['recall'] == 1.0 and outcome.base_measures['recall'] == 0.0
  assert outcome.pruned == 0.2 and all(row.ok for row in outcome.rows)
  assert life.diary.experiences(unconsumed=True) == []
  generation, _, masks = generations.load(life.workdir / 'generations', 1)
  assert set(masks) == {'merged', 'delta'}
  assert generation.manifest.sources == tuple(ids) and generation.manifest.night == 1
  assert generation.manifest.scores['recall'] == 1.0
  assert life.diary.night(1).result['outcome'] == 'promoted'


def test_its_directory_explains_itself(life):
  life.talk(FACTS[0][0])
  life.sleep()
  directory = life.workdir / 'nights' / '0001'
  names = {p.name for p in directory.iterdir()}
  assert names == {'README.txt', 'config.json', 'metrics.jsonl', 'tensorboard', 'summary.json'}
  summary = json.loads((directory / 'summary.json').read_text())
  assert summary['state'] == 'promoted' and len(summary['gate']) == 16
  steps = [r['index'] for r in metrics.read(directory / 'metrics.jsonl') if r['step'] == 'train']
  assert steps == [1, 2, 3, 4, 5, 6]
  everything = ''.join(p.read_text() for p in directory.iterdir() if p.is_file())
  assert 'Kiwi' not in everything  # words stay where they can be forgotten
  life.diary.forget(e.id for e in life.diary.experiences())
  assert 'Kiwi' not in json.dumps([dict(n.payloads) | dict(n.result) for n in life.diary.nights()])


def test_a_night_hears_all_that_was_said_before_it(life, monkeypatch):
  plain, nights = night.dream.dream, []

  def spy(*args, heard, **kwargs):
    nights.append(heard)
    return plain(*args, **kwargs)

  monkeypatch.setattr(night.dream, 'dream', spy)
  for content, *_ in FACTS[:2]:
    life.talk(content)
    assert life.sleep().promoted
  assert nights == [[FACTS[0][0]], [FACTS[0][0], FACTS[1][0]]]


def test_no_step_of_a_night_reads_a_secret(life, monkeypatch):
  read = []

  def spied(plain, place):
    def spy(*args, **kwargs):
      read.extend(args[place])
      return plain(*args, **kwargs)

    return spy

  monkeypatch.setattr(night.dream, 'dream', spied(night.dream.dream, 2))
  monkeypatch.setattr(night.corpus, 'build', spied(night.corpus.build, 4))
  life.talk(FACTS[0][0], f'{FACTS[1][0]} My PIN is 4921.')
  assert life.sleep().promoted
  assert len(read) == 4 and all(isinstance(e, Experience) for e in read)
  assert not any('4921' in e.content for e in read)
  assert any('My PIN is ***.' in e.content for e in read)
  assert any('4921' in e.content for e in life.diary.experiences())


def test_the_base_is_not_written(life, base):
  before = _bytes(base.params)
  life.talk(*(content for content, _, _ in FACTS))
  assert life.sleep().promoted
  assert _bytes(base.params) == before
  assert life.identity.mind(0).params is base.params
  untrained = lora.init(jax.random.key(0), ARCH, rank=2, targets='.*')
  green = bluegreen.wake(base, untrained, scale=2.0, number=1)
  assert _bytes(green.params) == before  # an adapter that is off is the base, bit for bit


def test_the_next_night_carries_the_adapter_on_and_rehearses(life, monkeypatch):
  life.talk(FACTS[0][0])
  life.sleep()
  seen = {}

  def build(decoder, mind, digest, dreams, experiences, rehearsal, **kwargs):
    seen.update(dreams=dreams, rehearsal=rehearsal)
    return toys.lessons(decoder, mind, digest, dreams, experiences, rehearsal, **kwargs)

  def learn(*args, **kwargs):
    if kwargs.get('masks') is None:
      seen['adapter'] = kwargs['adapter']
    return toys.learn(*args, **kwargs)

  monkeypatch.setattr(night.corpus, 'build', build)
  monkeypatch.setattr(night.train, 'train', learn)
  life.talk(FACTS[1][0])
  outcome = life.sleep()
  assert outcome.promoted and outcome.generation.parent == 1
  assert [d.text for d in seen['rehearsal']] == [f'Priya: {FACTS[0][0]}']
  assert [d.text for d in seen['dreams']] == [f'Priya: {FACTS[1][0]}']  # no exam, none rejected
  assert _bytes(seen['adapter']) == _bytes(generations.load(life.workdir / 'generations', 1)[1])
  assert outcome.measures['earlier'] == 1.0 and outcome.measures['earlier_count'] == 1


def test_another_kind_of_adapter_is_refused_and_nothing_is_lost(life):
  life.talk(FACTS[0][0])
  life.sleep()
  life.talk(FACTS[1][0])
  other = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, rank=4))
  with pytest.raises(ValueError, match='rank=4'):
    life.sleep(other)
  assert life.diary.active() == 1 and len(life.diary.experiences(unconsumed=True)) == 1
  assert life.sleep().promoted  # set back: the other night ends as failed, a new one begins
  assert [n.state for n in life.diary.nights()] == ['promoted', 'failed', 'promoted']


# ---- Nights that change nothing ----


def test_a_night_without_experiences_is_empty(life):
  outcome = life.sleep()
  assert outcome.state == 'empty' and 'talk' in outcome.reason and not outcome.promoted
  assert life.diary.active() == 0 and life.diary.open_night() is None


def test_a_night_without_dreams_is_empty_and_consumes_nothing(life):
  life.talk('Hello!')
  outcome = life.sleep()
  assert outcome.state == 'empty' and 'dreams' in outcome.reason
  assert len(life.diary.experiences(unconsumed=True)) == 1
  assert list((life.workdir / 'generations').glob('[0-9]*')) == []


def test_a_closed_gate_rejects_with_its_reason(make_life):
  life = make_life(facts={UNKNOWN: 'Kiwi'})  # has learned nothing, and invents
  life.talk(FACTS[0][0])
  outcome = life.sleep()
  assert outcome.state == 'rejected'
  assert 'recall_gain' in outcome.reason and 'never_mentioned' in outcome.reason
  assert life.diary.active() == 0 and len(life.diary.experiences(unconsumed=True)) == 1
  assert list((life.workdir / 'generations').glob('[0-9]*')) == []
  assert life.diary.night(1).state == 'rejected'


def test_a_fact_that_did_not_take_stays_new(make_life):
  life = make_life(facts={FACTS[0][1]: FACTS[0][2]})
  kiwi, lyon = life.talk(FACTS[0][0], FACTS[1][0])
  outcome = life.sleep()
  assert outcome.promoted and outcome.consumed == (kiwi,) and outcome.selected == (kiwi, lyon)
  assert [e.id for e in life.diary.experiences(unconsumed=True)] == [lyon]


# ---- Pruning ----


@pytest.mark.parametrize(('bears', 'taken'), [(0.25, 0.2), (0.15, 0.1), (0.01, 0.0)])
def test_it_prunes_by_what_it_bears(make_life, bears, taken):
  life = make_life(nll=lambda zeros, base: 2.0 if zeros < bears else 2.1)
  life.talk(FACTS[0][0])
  outcome = life.sleep()
  assert outcome.promoted and outcome.pruned == taken
  attempts = [a['amount'] for a in life.diary.night(1).payloads['prune']['attempts']]
  assert attempts == [a for a in CONFIG.prune.amounts if a >= taken]
  _, _, masks = generations.load(life.workdir / 'generations', 1)
  assert ('merged' in masks) == (taken > 0)


@pytest.mark.parametrize('nll', [2.1, float('nan')])
def test_what_training_spoiled_is_not_blamed_on_pruning(make_life, nll):
  life = make_life(nll=lambda zeros, base: 2.0 if base else nll)
  life.talk(FACTS[0][0])
  outcome = life.sleep()
  assert outcome.state == 'rejected' and 'nll_increase' in outcome.reason
  attempts = [a['amount'] for a in life.diary.night(1).payloads['prune']['attempts']]
  assert attempts == [0.0]  # at once: no amount in between could help


def test_recovery_trains_with_the_mask_that_will_serve(life, monkeypatch):
  seen = []

  def learn(*args, **kwargs):
    if kwargs.get('masks') is not None:
      seen.append((kwargs['masks'], kwargs['config'].steps))
    return toys.learn(*args, **kwargs)

  monkeypatch.setattr(night.train, 'train', learn)
  life.talk(FACTS[0][0])
  life.sleep()
  _, _, masks = generations.load(life.workdir / 'generations', 1)
  assert [_bytes(m) for m, _ in seen] == [_bytes(masks['merged'])]
  assert [steps for _, steps in seen] == [2]
  weight = np.asarray(life.identity.blue.params['layer_0']['mlp']['linear'])
  kept = np.asarray(masks['merged']['layer_0']['mlp']['linear'])
  assert not weight[~kept].any() and np.mean(kept) == pytest.approx(0.8, abs=0.01)


def test_an_exam_that_fails_backs_off_too(make_life, monkeypatch):
  life = make_life()
  real = life.decoder.generate

  def generate(mind, asked, **kwargs):
    """Pruned by more than a tenth, it has forgotten everything, though its nll is fine."""
    zeros = np.mean(np.asarray(mind.params['layer_0']['mlp']['linear']) == 0)
    return ['?'] * len(asked) if zeros > 0.15 else real(mind, asked, **kwargs)

  monkeypatch.setattr(life.decoder, 'generate', generate)
  life.talk(FACTS[0][0])
  outcome = life.sleep()
  assert outcome.promoted and outcome.pruned == 0.1


# ---- Killed ----


class Killed(BaseException):
  pass


def _kill_after(diary, step, strike):
  """Lets `strike` happen right after the diary has committed a step."""
  real = diary.set_night_step

  def set_night_step(number, done, payload=None):
    real(number, done, payload)
    if done == step and diary._depth == 0:
      strike()

  diary.set_night_step = set_night_step


def _strike():
  raise Killed


@pytest.mark.parametrize('step', ['select', 'corpus', 'train', 'prune', 'examine'])
def test_an_interrupted_night_goes_on_where_it_was(make_life, step):
  whole, broken = make_life('whole'), make_life('broken')
  for life in (whole, broken):
    life.talk(FACTS[0][0], FACTS[1][0])
  whole.sleep()
  _kill_after(broken.diary, step, _strike)
  with pytest.raises(Killed):
    broken.sleep()
  assert broken.diary.active() == 0 and len(broken.diary.experiences(unconsumed=True)) == 2
  again = make_life('broken')
  assert again.sleep().promoted
  assert _saved(again, 1) == _saved(whole, 1)
  assert len(again.diary.nights()) == 1 and len(again.diary.dreams()) == len(whole.diary.dreams())
  order = ['select', 'dream', 'corpus', 'train', 'prune', 'examine', 'promote']
  done = order[: order.index(step)] if step == 'corpus' else order[: order.index(step) + 1]
  assert not {s for s in done if s not in ('corpus',)} & set(again.steps)  # nothing done twice


def _cut(work):
  for path in work.glob('*.npz'):
    path.write_bytes(path.read_bytes()[:-20])


def _exchange(work):
  """Readable, and something else."""
  tree = lora.init(jax.random.key(5), ARCH, rank=2, targets='.*')
  for path in work.glob('*.npz'):
    artifacts.write(path, tree)


@pytest.mark.parametrize('damage', [_cut, _exchange])
def test_what_a_step_left_is_made_again_when_it_was_damaged(make_life, damage):
  whole, broken = make_life('whole'), make_life('broken')
  for life in (whole, broken):
    life.talk(FACTS[0][0])
  whole.sleep()
  _kill_after(broken.diary, 'prune', _strike)
  with pytest.raises(Killed):
    broken.sleep()
  work = broken.workdir / 'nights' / '0001' / 'work'
  assert len(list(work.glob('*.npz'))) == 2
  damage(work)
  again = make_life('broken')
  assert again.sleep().promoted and _saved(again, 1) == _saved(whole, 1)


def test_a_changed_configuration_begins_a_new_night(life):
  life.talk(FACTS[0][0])
  _kill_after(life.diary, 'train', _strike)
  with pytest.raises(Killed):
    life.sleep()
  del life.diary.set_night_step
  outcome = life.sleep(dataclasses.replace(CONFIG, seed=8))
  assert outcome.promoted and outcome.number == 2
  assert [n.state for n in life.diary.nights()] == ['failed', 'promoted']
  assert not list((life.workdir / 'nights').glob('*/work'))
  assert (life.workdir / 'nights' / '0001' / 'summary.json').exists()


# ---- With the real corpus, training and decoding ----


@pytest.fixture
def compiled_once(tmp_path):
  """Equal programs of several trainings are compiled once, and fast rather than well."""
  settings = {
    'jax_compilation_cache_dir': str(tmp_path / 'xla'),
    'jax_persistent_cache_min_compile_time_secs': 0.1,
    'jax_persistent_cache_min_entry_size_bytes': -1,
    'jax_disable_most_optimizations': True,
  }
  before = {name: jax.config.values[name] for name in settings}
  for values in (settings, before):
    for name, value in values.items():
      jax.config.update(name, value)
    compilation_cache.reset_cache()
    if values is settings:
      yield


@pytest.mark.usefixtures('compiled_once')
def test_a_whole_night_goes_on_within_training(make_life, base, monkeypatch):
  """Only the dreams are ready-made here: a random model has none."""
  monkeypatch.undo()
  monkeypatch.setattr(night.dream, 'dream', dreams_of)
  small = CorpusConfig(
    row_length=64, rows=2, replay_questions=2, replay_texts=2, replay_text_tokens=4,
    replay_near=2, top_k=4, losses=64, shortlist=128,
  )  # fmt: skip
  config = NightConfig(
    corpus=small,
    train=TrainConfig(steps=5, rank=2, learning_rate=1e-2, checkpoint_every=2, eval_every=2),
    prune=BackOffConfig(amounts=(0.2, 0.0), recovery_steps=2),
    gate=GateConfig(
      min_recall_gain=-1,
      max_general_drop=1,
      max_general_drop_night=1,
      max_nll_increase=math.inf,
      max_nll_increase_night=math.inf,
      max_never_mentioned=1,
      max_toxic_rise=1,
      max_toxic_rise_night=1,
      max_gibberish_rise=1,
      max_gibberish_rise_night=1,
      max_earlier_lost=1,
    ),
  )
  monkeypatch.setattr(examine, '_general', lambda: (Question(text='1?', answers=('2',)),))
  monkeypatch.setattr(examine, '_generic', lambda: 'It rains, and the boats are late. ' * 8)
  monkeypatch.setattr(prompts, 'ANSWER_PREFIX', 'Q: 1?\nA: 1\n\n')
  monkeypatch.setattr(safety, '_own_probes', lambda: safety.probes()[::8])

  lives, decoder = [], Decoder(ARCH, base.tokenizer, cache_length=256)
  for name in ('whole', 'killed', 'killed'):
    life = make_life(name)
    life.decoder = decoder  # one for all: compiling it takes longer than the night
    if not life.diary.experiences():
      life.talk(*(content for content, _, _ in FACTS))
    lives.append(life)
  whole, killed, again = lives

  def strike(step, done):
    if step == 'train' and done == 4:
      raise Killed

  assert whole.sleep(config).state == 'promoted'
  with pytest.raises(Killed):
    killed.sleep(config, strike)
  assert list((killed.workdir / 'nights' / '0001' / 'work' / 'train').glob('step-000002-*'))
  outcome = again.sleep(config)
  assert outcome.promoted and outcome.pruned == 0.2
  assert _saved(again, 1) == _saved(whole, 1)
  rows = metrics.read(again.workdir / 'nights' / '0001' / 'metrics.jsonl')
  losses = [r['values']['dream_loss'] for r in rows if r['step'] == 'train']
  assert len(losses) == 5 and losses[-1] < losses[0]
  _, _, masks = generations.load(again.workdir / 'generations', 1)
  weight = np.asarray(again.identity.blue.params['layer_0']['attn']['kv_einsum']['w'])
  kept = np.asarray(masks['merged']['layer_0']['attn']['kv_einsum']['w'])
  assert not weight[~kept].any() and weight[kept].all()


# ---- Killed for good ----

STRIKES = ('select', 'dreaming', 'dream', 'corpus', 'training', 'train', 'prune', 'examine', 'save')


def _one_life(workdir, strike_at):
  """In a process of its own: one night, up to a blow that nobody can catch."""
  play(pytest.MonkeyPatch())
  jax.config.update('jax_compilation_cache_dir', str(workdir.parent / 'xla'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)

  def strike():
    os.kill(os.getpid(), signal.SIGKILL)

  life = Life(workdir, toys.base())
  if not life.diary.experiences():
    life.talk(*(content for content, _, _ in FACTS))
  on_progress = None
  if strike_at == 'dreaming':
    on_progress = lambda step, done: step == 'dream' and done == 2 and strike()  # noqa: E731
  elif strike_at == 'training':
    on_progress = lambda step, done: step == 'train' and done == 3 and strike()  # noqa: E731
  elif strike_at == 'save':
    life.identity.promote = lambda *args, **kwargs: strike()
  elif strike_at == 'dream':  # inside a transaction: strike at what follows it
    on_progress = lambda step, done: step == 'corpus' and strike()  # noqa: E731
  elif strike_at:
    _kill_after(life.diary, strike_at, strike)
  outcome = life.sleep(on_progress=on_progress)
  assert outcome.promoted, outcome
  life.diary.close()


def main(directory):
  directory = pathlib.Path(directory)
  for name, strikes in (('whole', ()), ('killed', STRIKES)):
    workdir = directory / name
    workdir.mkdir()
    for strike_at in (*strikes, None):
      # Nothing of JAX has run here yet, so that a fork is as good as a new process, and faster.
      pid = os.fork()
      if pid == 0:
        _one_life(workdir, strike_at)
        os._exit(0)
      _, status = os.waitpid(pid, 0)
      expected = signal.SIGKILL if strike_at else 0
      assert status == expected, f'{name}, {strike_at}: status {status}'


def test_a_killed_night_ends_with_the_same_bytes(tmp_path, base):
  """SIGKILL within and after every step, one after the other, in the same night."""
  root = pathlib.Path(__file__).parents[1]
  subprocess.run(
    [sys.executable, __file__, str(tmp_path)], check=True, timeout=300, cwd=root,
    env={**os.environ, 'PYTHONPATH': str(root), 'PYTHONWARNINGS': 'ignore'},
  )  # fmt: skip
  lives = [Life(tmp_path / name, base) for name in ('whole', 'killed')]
  whole, killed = (_saved(life, life.diary.active()) for life in lives)
  assert whole == killed
  assert [life.diary.active() for life in lives] == [1, 1]
  assert len(lives[1].diary.nights()) == 1
  assert lives[1].diary.experiences(unconsumed=True) == []
  rows = [metrics.read(life.workdir / 'nights' / '0001' / 'metrics.jsonl') for life in lives]
  first, second = ([(r['step'], r['index'], r['values']) for r in some] for some in rows)
  assert first == second
  for life in lives:
    life.diary.close()


if __name__ == '__main__':
  main(sys.argv[1])
