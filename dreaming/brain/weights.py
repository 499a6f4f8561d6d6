"""Where the base comes from: the embedded GGUF, a GGUF file, an official Gemma checkpoint, random.

Whatever the source, params have the official names, shapes that were checked, and one dtype.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreaming.brain import gguf
from dreaming.brain.tokenizer import Tokenizer, model_proto
from dreaming.brain.transformer import ARCHITECTURES, Architecture, Transformer
from dreaming.types import Params

DTYPES = ('float32', 'bfloat16', 'float16')
OFFICIAL = (
  'official Gemma 3 checkpoints are at gs://gemma-data/checkpoints/gemma3-SIZE-KIND (SIZE 270m, '
  '1b, 4b, 12b, 27b; KIND pt or it) and on Kaggle (google/gemma-3, variation "flax"), after '
  'accepting the Gemma terms; point to one with --config.model.weights=DIRECTORY and to its '
  'tokenizer with --config.model.tokenizer=FILE'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """Mirrors `config.model`."""

  architecture: str = 'gemma3_270m'
  weights: str = 'embedded'
  tokenizer: str = 'embedded'
  instruct: bool = False
  dtype: str = 'float32'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
  """The frozen model."""

  params: Params
  tokenizer: Tokenizer
  arch: Architecture
  digest: str  # SHA-256 of where the weights came from
  instruct: bool


def is_checkpoint(source: str) -> bool:
  """Whether config.model.weights is the directory of an official checkpoint."""
  return source not in ('random', 'embedded') and not source.endswith('.gguf')


def default_cache() -> pathlib.Path:
  root = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(root) / 'dreaming-machines'


def load(config: ModelConfig, cache: str | pathlib.Path | None = None, seed: int = 0) -> Base:
  """Loads base and tokenizer.

  Args:
    config: what to load.
    cache: directory for converted weights, default ~/.cache/dreaming-machines.
    seed: of random weights.

  Raises:
    ValueError: an unknown architecture, a damaged file, weights of another shape.
    FileNotFoundError: weights that are not there, with where to get them.
  """
  if config.architecture not in ARCHITECTURES:
    raise ValueError(
      f'model.architecture={config.architecture!r} is unknown; there are: '
      + ', '.join(ARCHITECTURES)
    )
  if config.dtype not in DTYPES:
    raise ValueError(f'model.dtype={config.dtype!r}: it is one of {", ".join(DTYPES)}')
  arch, dtype = ARCHITECTURES[config.architecture], jnp.dtype(config.dtype)
  cache = pathlib.Path(cache).expanduser() if cache else default_cache()
  if config.weights == 'random':
    params, digest = _random(arch, seed), hashlib.sha256(f'random {seed}'.encode()).hexdigest()
    proto = None
  elif config.weights == 'embedded' or config.weights.endswith('.gguf'):
    if config.weights == 'embedded' and config.architecture != 'gemma3_270m':
      raise FileNotFoundError(
        f'no weights for {config.architecture}: only gemma3_270m is embedded; {OFFICIAL}'
      )
    params, proto, digest = gguf.load(config.weights, cache)
  else:
    params, digest = _from_orbax(config.weights)
    proto = None
  _check_shapes(params, arch, config)
  if config.tokenizer != 'embedded':
    tokenizer = Tokenizer.from_file(config.tokenizer)
  else:
    tokenizer = Tokenizer(proto) if proto else _embedded_tokenizer(config, arch, cache)
  if tokenizer.vocab_size > arch.vocab_size:
    raise ValueError(
      f'the tokenizer has {tokenizer.vocab_size} tokens, {config.architecture} has '
      f'{arch.vocab_size}; set model.tokenizer to the one the weights came with'
    )
  params = jax.tree.map(
    lambda x: jax.device_put(x, may_alias=True) if x.dtype == dtype else jnp.asarray(x, dtype),
    params,
  )
  return Base(
    params=params, tokenizer=tokenizer, arch=arch, digest=digest, instruct=config.instruct
  )


# ---- Official checkpoints, random weights ----


def _from_orbax(source: str) -> tuple[Params, str]:
  """An official Gemma checkpoint: nested as Flax has it, or flat as they were released."""
  tree = restored(source, _text)
  if tree is None:
    raise ValueError(
      f'{source} is not a readable Orbax checkpoint (no language model in it); {OFFICIAL}'
    )
  params = nest_official(tree)
  identity = hashlib.sha256()
  for where, leaf in jax.tree_util.tree_leaves_with_path(params):
    identity.update(f'{jax.tree_util.keystr(where)} {leaf.shape} {leaf.dtype}'.encode())
    identity.update(np.asarray(leaf.ravel()[:64], np.float32).tobytes())
  return params, identity.hexdigest()


def stored(source: str) -> dict[str, Any]:
  """What an official checkpoint holds: shapes, and no arrays. Raises as `restored`."""
  import orbax.checkpoint as ocp

  path = _there(source)
  with _readable(source), ocp.PyTreeCheckpointer() as checkpointer:
    metadata = checkpointer.metadata(path).item_metadata
    if not metadata or not metadata.tree:
      raise ValueError('nothing is stored there')
    return dict(metadata.tree)


def restored(
  source: str, choose: Callable[[Mapping[str, Any]], dict[str, Any] | None]
) -> dict[str, Any] | None:
  """Those entries of an official checkpoint that are chosen; None where none is.

  Args:
    source: a directory, local or gs://.
    choose: of a checkpoint's tree a part in the same layout.

  Raises:
    FileNotFoundError: there is none, with where to get it.
    OSError: it cannot be reached.
    ValueError: it is damaged, or no such checkpoint.
  """
  import orbax.checkpoint as ocp

  tree = stored(source)
  if not (some := choose(tree)):
    return None
  path = _there(source)
  with _readable(source):
    if any('/stacked_layers/' in k for k in tree):
      from gemma import gm  # rare layout; slow to import, and knows how

      return choose(gm.ckpts.load_params(path))
    # Onto the host: the mesh it was saved from is not this one.
    args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), some)
    restore = ocp.args.PyTreeRestore(item=some, restore_args=args, partial_restore=True)
    with ocp.PyTreeCheckpointer() as checkpointer:
      return checkpointer.restore(path, args=restore)


def _there(source: str):
  from etils import epath

  path = epath.Path(source).expanduser()
  try:
    exists = path.exists()
  except Exception as e:  # every kind of remote storage raises its own
    raise OSError(f'{source} cannot be reached ({_line(e)}); {OFFICIAL}') from e
  if not exists:
    raise FileNotFoundError(f'no checkpoint at {source} (model.weights); {OFFICIAL}')
  return path


@contextlib.contextmanager
def _readable(source: str) -> Iterator[None]:
  try:
    yield
  except (ValueError, KeyError, AttributeError, TypeError, OSError) as e:
    raise ValueError(f'{source} is not a readable Orbax checkpoint ({_line(e)}); {OFFICIAL}') from e


def _line(error: Exception) -> str:
  return ' '.join(str(error).split())[:200] or type(error).__name__


def _text(tree: Mapping[str, Any]) -> dict[str, Any]:
  """The entries of a checkpoint that hold the language model."""
  if 'params' in tree:
    return {'params': _text(tree['params'])}
  names = ('transformer/', 'layer_', 'embedder', 'final_norm')
  return {k: v for k, v in tree.items() if k.startswith(names)}


def nest_official(tree: Mapping[str, Any]) -> dict[str, Any]:
  """{'transformer/layer_0/mlp/linear': {'w': x}} -> {'layer_0': {'mlp': {'linear': x}}}.

  Vision parts are left out: text needs none of them.
  """
  if 'params' in tree and 'layer_0' in tree['params']:
    tree = tree['params']
  if any(k.startswith('transformer/') for k in tree):
    nested: dict[str, Any] = {}
    for path, leaves in tree.items():
      if not path.startswith('transformer/'):
        continue
      *parents, last = path.split('/')[1:]
      node = nested
      for key in parents:
        node = node.setdefault(key, {})
      node[last] = leaves['w'] if parents[-1:] == ['mlp'] and 'w' in leaves else dict(leaves)
    tree = nested
  embedding = {'input_embedding': tree['embedder']['input_embedding']} if 'embedder' in tree else {}
  layers = {k: v for k, v in tree.items() if k.startswith('layer_') or k == 'final_norm'}
  return {'embedder': embedding, **layers}


def _random(arch: Architecture, seed: int) -> Params:
  """Random weights of a sensible size, for tests and demos on the tiny architecture."""
  shapes = expected_shapes(arch)
  leaves, treedef = jax.tree.flatten(shapes)
  keys = jax.random.split(jax.random.key(seed), len(leaves))
  scale = arch.embed_dim**-0.5
  arrays = [scale * jax.random.normal(k, s.shape) for k, s in zip(keys, leaves, strict=True)]
  return jax.tree.unflatten(treedef, arrays)


def expected_shapes(arch: Architecture) -> dict[str, Any]:
  """The params of an architecture as ShapeDtypeStructs, official layout."""
  tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  one = Transformer(dataclasses.replace(arch, num_layers=1))  # all are alike: tracing takes time
  shapes = dict(jax.eval_shape(one.init, jax.random.key(0), tokens)['params'])
  layer = shapes.pop('layer_0')
  return {**shapes, **{f'layer_{i}': layer for i in range(arch.num_layers)}}


def _check_shapes(params: Params, arch: Architecture, config: ModelConfig) -> None:
  def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {'/'.join(str(k.key) for k in path): tuple(x.shape) for path, x in leaves}

  want, have = flat(expected_shapes(arch)), flat(params)
  wrong = [p for p in want if have.get(p) != want[p]]
  if wrong or len(have) != len(want):
    path = wrong[0] if wrong else next(p for p in have if p not in want)
    raise ValueError(
      f'model.weights={config.weights!r} is no {config.architecture}: {path} has shape '
      f'{have.get(path)}, expected {want.get(path)}; set model.architecture to what it is'
    )


def _embedded_tokenizer(config: ModelConfig, arch: Architecture, cache: pathlib.Path) -> Tokenizer:
  if arch.vocab_size < 262_144:  # tiny: bytes only
    return Tokenizer(_byte_proto(arch.vocab_size))
  try:
    return Tokenizer(gguf.load(gguf.EMBEDDED, cache)[1])
  except FileNotFoundError as e:
    raise FileNotFoundError(
      f'{config.weights} brings no tokenizer and the embedded one is not installed: set '
      'model.tokenizer to the tokenizer.model of the Gemma 3 release'
    ) from e


def _byte_proto(vocab_size: int) -> bytes:
  """A tokenizer of bytes and printable ASCII, for random weights."""
  pieces = ['<pad>', '<eos>', '<bos>', '<unk>', '<start_of_turn>', '<end_of_turn>']
  types = [3, 3, 3, 2, 3, 3]
  pieces += [f'<0x{i:02X}>' for i in range(256)] + ['▁', '\n']
  types += [6] * 256 + [1, 4]
  letters = [chr(i) for i in range(33, 127)]
  pieces, types = pieces + letters, types + [1] * len(letters)
  assert len(pieces) <= vocab_size, (len(pieces), vocab_size)
  return model_proto(pieces, [0.0] * len(pieces), types)
