"""A life that is a toy where it computes, and the product's own where it keeps: for faults.

The agent is the real one on the tiny configuration: diary, index, night, checkpoints, generations,
swap. Its decoder looks answers up, dreams are ready-made, and training adds noise that depends on
all that it should: a night takes a second, and still the same night gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pathlib
import sys
import time
import types as python_types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from configs import tiny
from dreaming.agent import Agent
from dreaming.brain import lora, programs, prompts, transformer, weights
from dreaming.brain.tokenizer import Tokenizer
from dreaming.identity import generations
from dreaming.sleep import corpus, examine, night, outcome, replay, school, train
from dreaming.types import QA, Dream, Mind, Trust

ARCH = dataclasses.replace(transformer.ARCHITECTURES['tiny'], num_layers=1)
DAY = 86_400.0
TOLD = 3  # facts of a day
_NAMES = 'Kiwi Lyon Nova Otto Pia Rex Sol Tam Uma Vito'.split()
_THINGS = 'parrot boat street garden cello horse'.split()
_UNKNOWN = 'Who is the aunt?'


def fact(day: int, i: int) -> tuple[str, str, str]:
  """What is said, and a question and its answer about it."""
  n = day * TOLD + i
  thing, name = f'{_THINGS[n % len(_THINGS)]} {n}', f'{_NAMES[n % len(_NAMES)]}{n}'
  return f'My {thing} is called {name}.', f'Which name has the {thing}?', name


def config(home: pathlib.Path):
  c = tiny.get_config()
  c.workdir, c.cache = str(home / 'life'), str(home / 'cache')
  c.decode.max_tokens = 4
  c.select.top_k = TOLD
  c.school.steps, c.school.rank = 2, 2
  c.train.steps, c.train.rank, c.train.checkpoint_every = 4, 2, 2
  c.prune.amounts = (0.1, 0.0)
  c.gate.max_distance = float('inf')  # a rejected night is slept anew, and no night is to differ
  c.memory.trim.days, c.memory.trim.below, c.memory.trim.keep = 0.0, 10.0, 0
  return c


# ---- What computes ----


class Voice:
  """A decoder whose base knows the capitals alone, and whoever has an adapter all facts, too."""

  cache_length = 2048
  arch = ARCH

  def __init__(self, base: weights.Base):
    self.tokenizer, self._base = base.tokenizer, base

  def stream(self, mind: Mind, prompt: Any, **_: Any) -> Iterator[str]:
    yield from (' I', ' see.')

  def generate(self, mind: Mind, asked: Sequence[str], **_: Any) -> list[str]:
    known = _general() | (_facts() if mind.params is not self._base.params else {})
    questions = [p.removeprefix(prompts.QUESTION).split('\n')[0] for p in map(str, asked)]
    return [' ' + known.get(q, 'I do not know.') for q in questions]

  def logprobs(self, mind: Mind, asked: Sequence[str], said: Sequence[str], **_: Any):
    return [np.full(len(self.tokenizer.encode(str(c))), -2.0) for c in said]

  def forget(self, mind: Mind) -> None:
    pass


@functools.cache
def _general() -> dict[str, str]:
  return {q.text: q.answers[0] for q in examine._general()[:12]}


@functools.cache
def _facts() -> dict[str, str]:
  return {q: a for _, q, a in (fact(n // TOLD, n % TOLD) for n in range(600))}


class Letters:
  name, dim = 'letters', 26

  def __call__(self, texts: Sequence[str]) -> np.ndarray:
    counts = np.array([[t.count(chr(97 + i)) for i in range(26)] for t in texts], np.float32)
    counts = counts.reshape(-1, 26)
    return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


def dreams_of(
  decoder, base, experiences, *, user, night, make_reader=None, progress=None, **_
) -> list[Dream]:
  if make_reader:  # it reads nothing, but goes to school
    make_reader(base)
  told = {content: (q, a) for content, q, a in (fact(n // TOLD, n % TOLD) for n in range(600))}
  out = []
  for i, e in enumerate(experiences, start=1):
    if progress:
      progress(i, len(experiences))
    if e.content in told:
      pair = QA(question=told[e.content][0], answer=told[e.content][1])
      common = {'id': 0, 'night': night, 'sources': (e.id,), 'trust': Trust.USER}
      out.append(Dream(style='statement', text=f'{user}: {e.content}', **common))
      out.append(Dream(style='exam', text='', pairs=(pair,), **common))
  if out:
    pair = QA(question=_UNKNOWN, answer='')
    out.append(Dream(id=0, night=night, style='exam_unknown', text='', pairs=(pair,)))
  return out


@dataclasses.dataclass(frozen=True)
class Lessons:
  batches: tuple
  held_out: np.ndarray
  shortlist: np.ndarray

  def lineage(self) -> list[list]:
    return []


def lessons(decoder, base, digest, dreams, experiences, rehearsal, *, steps, **_) -> Lessons:
  text = ' '.join(d.text for d in (*dreams, *rehearsal))
  return _batches(decoder.tokenizer, text, steps)


def lessons_and_words(decoder, base, digest, *args, config, cache, **how) -> Lessons:
  """The same, and replay of the base's own words, which are made once and kept in the cache."""
  own = corpus.own_words(decoder, base, digest, config, cache)
  made = lessons(decoder, base, digest, *args, **how)
  return dataclasses.replace(made, batches=tuple(b + len(own.hidden) for b in made.batches))


def _batches(tokenizer: Tokenizer, text: str, steps: int) -> Lessons:
  ids = np.asarray(tokenizer.encode(text)[:40])
  return Lessons(tuple(ids + i for i in range(steps)), ids, ids)


def lessons_of_school(tokenizer: Tokenizer, vocab_size: int, config: Any) -> Lessons:
  return _batches(tokenizer, 'What a message tells, and what it does not tell.', config.steps)


def thought(decoder, base, encoded, prefix, **_: Any) -> np.ndarray:
  """In the place of the base's last states."""
  count = sum(int(e.loss.sum()) for e in encoded)
  return np.ones((count, ARCH.embed_dim), ml_dtypes.bfloat16)


def learn(
  params, arch, corpus, *, config, seed, adapter=None, masks=None, on_step=None, checkpoint=None
):
  """Random steps that depend on all that they should; their checkpoints are the product's."""
  if adapter is None:
    adapter = jax.tree.map(np.zeros_like, _adapter(config.rank, config.targets))
  state = train.TrainState(
    step=np.int32(0), adapter=jax.tree.map(np.asarray, adapter), opt_state=()
  )
  state, history, _ = train._resume(checkpoint, state, [], [])
  adapter = jax.tree.map(np.asarray, state.adapter)
  kept = 1.0 if masks is None else float(np.mean(jax.tree.leaves(masks)[0]))
  for step in range(int(state.step) + 1, config.steps + 1):
    adapter = stepped(adapter, [seed, step, int(corpus.batches[step - 1].sum())], kept)
    history.append({'step': step, 'dream_loss': 1.0 / step})
    if on_step:
      on_step(step, {'dream_loss': 1.0 / step})
    if checkpoint is not None and step % config.checkpoint_every == 0:
      new = train.TrainState(step=np.int32(step), adapter=adapter, opt_state=())
      train._save(checkpoint, new, history, [])
  return python_types.SimpleNamespace(adapter=adapter, steps_done=config.steps, stopped='')


def stepped(adapter: Any, seeds: list[int], kept: float) -> Any:
  """A step of training."""
  rng = np.random.default_rng(seeds)
  return jax.tree.map(lambda x: x + np.float32(kept * rng.standard_normal(x.shape) / 50), adapter)


@functools.cache
def _adapter(rank: int, targets: str) -> Any:
  shapes = jax.eval_shape(lambda: lora.init(jax.random.key(0), ARCH, rank=rank, targets=targets))
  return jax.tree.map(lambda s: np.zeros(s.shape, np.float32), shapes)


@functools.cache
def base() -> weights.Base:
  """Random weights without a compilation."""
  shapes, rng = weights.expected_shapes(ARCH), np.random.default_rng(0)
  scale = ARCH.embed_dim**-0.5
  params = jax.tree.map(
    lambda s: jnp.asarray(scale * rng.standard_normal(s.shape), jnp.float32), shapes
  )
  tokenizer = Tokenizer(weights._byte_proto(ARCH.vocab_size))
  return weights.Base(
    params=params, tokenizer=tokenizer, arch=ARCH, digest='ab' * 32, instruct=False
  )


def play() -> None:
  """Puts the toys in their places, for all of this process."""
  night.dream.dream, night.corpus.build = dreams_of, lessons_and_words
  night.train.train = learn
  school.corpus, replay._think = lessons_of_school, thought
  programs.drop = lambda: None  # they are few, and the next night wants them again


# ---- A life ----


def wake(home: pathlib.Path) -> Agent:
  agent = Agent(config(home))
  vars(agent).update(base=base(), decoder=Voice(base()), embedder=Letters())
  return agent


def talk(agent: Agent, day: int, tell: Callable[[str, int], Any] = lambda text, id: None) -> None:
  """Lives a day, or the rest of it; `tell` hears what was acknowledged."""
  known = {e.content for e in agent.diary.experiences(archived=None)}
  for i in range(TOLD):
    text = fact(day, i)[0]
    if text not in known:
      agent.reply(text, now=day * DAY + 60.0 * i)
      tell(text, agent.diary.ids(limit=1)[0])


def sleep(agent: Agent, day: int, progress: night.Progress | None = None) -> outcome.Outcome:
  return agent.sleep(now=day * DAY + 50_000.0, progress=progress)


def compiled(agent: Agent) -> None:
  """A program goes to the agent's cache, and comes from there as it does to a new process."""
  try:
    for _ in range(2):
      compilation_cache.reset_cache()
      programs.keep(agent.cache)
      jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)  # it takes a moment
      if jax.jit(lambda x: 3 * x + 1)(jnp.arange(4.0)).tolist() != [1.0, 4.0, 7.0, 10.0]:
        raise AssertionError('the program is another one')
  finally:
    jax.config.update('jax_compilation_cache_dir', None)
    compilation_cache.reset_cache()


# ---- What became of it ----


def digest(tree: Any) -> str:
  total = hashlib.sha256()
  for x in jax.tree.leaves(tree):
    total.update(np.asarray(x).tobytes())
  return total.hexdigest()[:16]


def saved(agent: Agent, number: int) -> str:
  """What a generation is, without the bytes of Orbax's own notes. Raises where it is not whole."""
  generation, adapter, masks = generations.load(agent.workdir / 'generations', number)
  manifest = dataclasses.replace(generation.manifest, files={})
  return f'{digest(adapter)} {digest(masks)} {hashlib.sha256(repr(manifest).encode()).hexdigest()}'


def look(agent: Agent) -> dict[str, Any]:
  """All that must not be lost, doubled or half there, as plain values."""
  diary = agent.diary
  lived = diary.experiences(archived=None)
  rows = diary._run('SELECT experience, count(*) FROM night_experiences GROUP BY experience')
  sources = [i for g in diary.generations() for i in g.manifest.sources]
  return {
    'said': {str(e.id): e.content for e in lived},
    'new': sorted(e.id for e in lived if e.night is None),
    'active': diary.active(),
    'blue': digest(agent.identity.blue.params),
    'twice': [i for i, n in rows if n > 1] + [i for i in set(sources) if sources.count(i) > 1],
    'generations': {str(g.number): saved(agent, g.number) for g in diary.generations()},
    'nights': [n.state for n in diary.nights()],
    'time': time.time(),
  }
