"""What every benchmark shares: flags, turns, medians, bars, and the environment of the peers.

A benchmark measures, then judges: each bar is one line

  BAR decode.ratio 1.52 1.4 ok

and the exit code is 1 when one is missed. With --quick everything runs, as little as possible, and
nothing is judged: figures of a quick run, or of a busy machine, are worth nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
PEERS = ROOT / 'benchmarks' / 'peers.txt'

# ---- Flags ----


def parser(doc: str | None) -> argparse.ArgumentParser:
  """The flags that all benchmarks have; the program begins anew in large pages, see start.py."""
  if pathlib.Path(sys.argv[0]).resolve().parent == ROOT / 'benchmarks':  # not from within a test
    from dreaming import start

    start.begin_anew()
  p = argparse.ArgumentParser(
    description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
  )
  p.add_argument('--quick', action='store_true', help='run everything once, judge nothing')
  p.add_argument('--json', type=pathlib.Path, help='write the result there')
  p.add_argument('--cache', type=pathlib.Path, help='weights, programs, peers (default: the usual)')
  return p


def add_peer_flag(p: argparse.ArgumentParser) -> None:
  p.add_argument(
    '--peer-python', type=pathlib.Path, help=f'a Python with {PEERS.name} (default: made in cache)'
  )


def cache_of(args: argparse.Namespace) -> pathlib.Path:
  from dreaming.brain import weights

  return (args.cache or weights.default_cache()).expanduser().resolve()


def config_of(path: pathlib.Path) -> Any:
  """The ConfigDict of a file in configs/."""
  spec = importlib.util.spec_from_file_location('benchmarked_config', path)
  if spec is None or spec.loader is None or not path.is_file():
    raise ValueError(f'--config={path} is no configuration: give a file like configs/tiny.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


def ungate(config: Any) -> None:
  """Lets a night through whatever it learned, lost and says: it is measured, not gated."""
  config.gate.min_recall_gain = -1.0
  for name in config.gate:
    if re.fullmatch(r'max_(general|nll|never|toxic|gibberish|earlier)_\w+', name):
      config.gate[name] = float('inf')


def keep_programs(cache: pathlib.Path) -> None:
  """Compiled programs are kept from run to run, as the product does it."""
  import jax

  jax.config.update('jax_compilation_cache_dir', str(cache / 'xla'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)


# ---- Measuring ----


def in_turn(
  sides: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
  """Calls every side once a round, in turn, so that a busy moment hits all of them.

  Args:
    sides: name -> a function that does the work once and returns its seconds.
    rounds: that count.
    warm_up: rounds before, that do not.
  """
  seconds: dict[str, list[float]] = {name: [] for name in sides}
  for i in range(warm_up + rounds):
    for name, side in sides.items():
      took = side()
      if i >= warm_up:
        seconds[name].append(took)
  return seconds


def timed(work: Callable[[], Any]) -> float:
  start = time.perf_counter()
  work()
  return time.perf_counter() - start


def interval(right: int, of: int) -> tuple[float, float]:
  """The 95% interval of a share, Wilson's."""
  from dreaming.sleep import gate

  return gate.wilson(right / of, of, 0.95) if of else (0.0, 1.0)


def machine() -> dict[str, Any]:
  """What the figures belong to."""
  info: dict[str, Any] = {
    'platform': platform.platform(),
    'python': platform.python_version(),
    'cores': len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count(),
    'load': round(os.getloadavg()[0], 2),  # before: above 0 or so, others were working here
    'packages': {p: importlib.metadata.version(p) for p in ('jax', 'jaxlib', 'flax', 'numpy')},
  }
  if jax := sys.modules.get('jax'):
    info['device'] = jax.devices()[0].device_kind
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
    info['cpu'] = next(x.split(':', 1)[1].strip() for x in lines if x.startswith('model name'))
    lines = pathlib.Path('/proc/meminfo').read_text().splitlines()
    info['memory_gib'] = round(int(lines[0].split()[1]) / 2**20, 1)
  except (OSError, StopIteration, ValueError, IndexError):
    pass  # not a Linux machine: the platform says which
  return info


class Result:
  """Collects what was measured and judges it.

  Example:
    result = Result('decode', args, tokens=64)
    result.add('ours_tokens_per_s', [21.0, 20.5, 20.8])
    result.bar('ratio', 1.5, '>=', 1.4)
    sys.exit(result.finish())
  """

  def __init__(self, name: str, args: argparse.Namespace, **conditions: Any):
    self._name, self._args = name, args
    self._values: dict[str, Any] = {}
    self._bars: list[dict[str, Any]] = []
    self._runs: list[Any] = []
    self._conditions, self._machine = conditions, machine()

  def keep(self, runs: Sequence[Any]) -> None:
    """Whole runs, for the JSON alone; it is written at once, so that what is done is not lost."""
    self._runs = list(runs)
    self._write()

  def add(self, name: str, values: float | Sequence[float], unit: str = '') -> float:
    """Notes a measure; of several values the median counts, and all are kept."""
    values = list(values) if isinstance(values, Sequence) else [values]
    median = statistics.median(values)
    self._values[name] = {'median': median, 'unit': unit, 'values': values}
    spread = f' ({min(values):.4g} to {max(values):.4g}, n={len(values)})' if values[1:] else ''
    print(f'{self._name}.{name} {median:.4g} {unit}{spread}'.rstrip(), flush=True)
    return median

  def bar(self, name: str, value: float, sign: str, limit: float) -> bool:
    """Judges one value; what is not finite has missed."""
    met = math.isfinite(value) and {'>=': value >= limit, '<=': value <= limit}[sign]
    self._bars.append({'name': name, 'value': value, 'sign': sign, 'limit': limit, 'met': met})
    verdict = ('ok' if met else 'short') + ' (--quick: not judged)' * self._args.quick
    print(f'BAR {self._name}.{name} {value:.3g} {limit:.3g} {verdict}', flush=True)
    return met

  def finish(self) -> int:
    """Writes the JSON; returns the exit code."""
    self._write()
    missed = [b['name'] for b in self._bars if not b['met']]
    return 1 if missed and not self._args.quick else 0

  def _write(self) -> None:
    if not self._args.json:
      return
    out = {
      'benchmark': self._name,
      'quick': self._args.quick,
      'conditions': self._conditions,
      'machine': self._machine,
      'measures': self._values,
      'bars': self._bars,
    } | ({'runs': self._runs} if self._runs else {})
    self._args.json.parent.mkdir(parents=True, exist_ok=True)
    temporary = self._args.json.with_name(f'.{self._args.json.name}.tmp')
    temporary.write_text(json.dumps(out, indent=2) + '\n')
    temporary.replace(self._args.json)


# ---- Peers ----


def peer_python(
  given: pathlib.Path | None, cache: pathlib.Path, packages: pathlib.Path = PEERS
) -> pathlib.Path:
  """A Python with `packages` in it: the given one, or one made in the cache, once for each list."""
  if given is not None:
    if not given.expanduser().is_file():
      raise FileNotFoundError(f'--peer-python={given} is not there')
    return given.expanduser()
  name = hashlib.sha256(packages.read_bytes() + sys.version.encode()).hexdigest()[:16]
  home = cache / 'peers' / name
  python = home / 'bin' / 'python'
  if not (home / 'complete').exists():
    print(f'making an environment for {packages.name} in {home} (once)', flush=True)
    subprocess.run([sys.executable, '-m', 'venv', '--clear', str(home)], check=True)
    subprocess.run([str(python), '-m', 'pip', 'install', '-q', '-r', str(packages)], check=True)
    (home / 'complete').touch()
  return python


class Peer:
  """A process of peer.py: one request, one answer, each a line of JSON. Idle, it only waits.

  Example:
    with Peer(python) as peer:
      peer('load', directory='/tmp/x', dtype='bfloat16')
  """

  def __init__(self, python: pathlib.Path):
    env = {**os.environ, 'HF_HUB_OFFLINE': '1', 'TOKENIZERS_PARALLELISM': 'false'}
    env.pop('PYTHONPATH', None)
    self._process = subprocess.Popen(
      [str(python), str(ROOT / 'benchmarks' / 'peer.py')],
      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip

  def __call__(self, command: str, **arguments: Any) -> dict[str, Any]:
    """Raises RuntimeError when the peer fails; its own words are on standard error."""
    assert self._process.stdin and self._process.stdout
    try:
      self._process.stdin.write(json.dumps({'command': command, **arguments}) + '\n')
      self._process.stdin.flush()
      line = self._process.stdout.readline()
    except BrokenPipeError:
      line = ''
    if not line:
      raise RuntimeError(f'the peer ended at {command!r} with exit code {self._process.wait()}')
    return json.loads(line)

  def __enter__(self) -> Peer:
    return self

  def __exit__(self, *_: Any) -> None:
    if self._process.stdin:
      self._process.stdin.close()
    self._process.wait(timeout=60)


def hand_over(base: Any, directory: pathlib.Path) -> None:
  """Our own base as Hugging Face's Gemma3ForCausalLM takes it: config.json and .npy files."""
  import numpy as np

  arch, tree = base.arch, base.params
  directory.mkdir(parents=True, exist_ok=True)

  def save(name: str, x: Any) -> None:
    x = np.ascontiguousarray(np.asarray(x, np.float32))
    np.save(directory / f'{name}.npy', x, allow_pickle=False)

  def rows(w: Any) -> Any:  # [heads, D, head_dim] -> [heads * head_dim, D]
    return np.asarray(w).transpose(0, 2, 1).reshape(-1, arch.embed_dim)

  save('model.embed_tokens.weight', tree['embedder']['input_embedding'])
  save('model.norm.weight', tree['final_norm']['scale'])
  for i in range(arch.num_layers):
    layer, to = tree[f'layer_{i}'], f'model.layers.{i}'
    attn, mlp = layer['attn'], layer['mlp']
    save(f'{to}.self_attn.q_proj.weight', rows(attn['q_einsum']['w']))
    save(f'{to}.self_attn.k_proj.weight', rows(attn['kv_einsum']['w'][0]))
    save(f'{to}.self_attn.v_proj.weight', rows(attn['kv_einsum']['w'][1]))
    out = np.asarray(attn['attn_vec_einsum']['w'])
    save(f'{to}.self_attn.o_proj.weight', out.reshape(-1, arch.embed_dim).T)
    save(f'{to}.self_attn.q_norm.weight', attn['_query_norm']['scale'])
    save(f'{to}.self_attn.k_norm.weight', attn['_key_norm']['scale'])
    save(f'{to}.mlp.gate_proj.weight', mlp['gating_einsum'][0])
    save(f'{to}.mlp.up_proj.weight', mlp['gating_einsum'][1])
    save(f'{to}.mlp.down_proj.weight', np.asarray(mlp['linear']).T)
    save(f'{to}.input_layernorm.weight', layer['pre_attention_norm']['scale'])
    save(f'{to}.post_attention_layernorm.weight', layer['post_attention_norm']['scale'])
    save(f'{to}.pre_feedforward_layernorm.weight', layer['pre_ffw_norm']['scale'])
    save(f'{to}.post_feedforward_layernorm.weight', layer['post_ffw_norm']['scale'])
  config = {
    'vocab_size': arch.vocab_size,
    'hidden_size': arch.embed_dim,
    'intermediate_size': arch.hidden_dim,
    'num_hidden_layers': arch.num_layers,
    'num_attention_heads': arch.num_heads,
    'num_key_value_heads': arch.num_kv_heads,
    'head_dim': arch.head_dim,
    'sliding_window': arch.sliding_window,
    'query_pre_attn_scalar': round(arch.query_multiplier**-2),
    'max_position_embeddings': 32768,
  }
  (directory / 'config.json').write_text(json.dumps(config))
