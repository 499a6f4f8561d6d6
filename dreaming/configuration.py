"""From the ConfigDict of flags and files to the frozen dataclasses of the library, in one place.

Below this nobody reads a ConfigDict. Each group of configs/default.py becomes the dataclass that
lives beside the code it configures; a field that is unknown or of another type is one clear line.
"""

from __future__ import annotations

import dataclasses
import pathlib
import types
import typing
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

if TYPE_CHECKING:
  from dreaming.memory import score
  from dreaming.memory import trim as trim_lib
  from dreaming.sleep import night as night_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class LifeConfig:
  """Mirrors `config.life`."""

  days: tuple[str, ...] = ('days/priya.json',)
  user: str = 'Priya'
  agent: str = 'Echo'

  def __post_init__(self):
    for name in ('user', 'agent'):
      value = vars(self)[name]
      if not value.strip() or '\n' in value:
        raise ValueError(f'life.{name} is {value!r}: give a name, on one line')


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodeConfig:
  """Mirrors `config.decode`."""

  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 1.0
  max_tokens: int = 48
  cache_length: int = 1024
  max_message_bytes: int = 65_536
  choose_replies: bool = True  # a pretrained model to what is no question, among smalltalk.REPLIES
  refusal_line: float = 2.0  # nats, at most: brain/refusal.py

  def __post_init__(self):
    if not 0 <= self.refusal_line <= 100:
      raise ValueError(f'decode.refusal_line is {self.refusal_line}: take nats from 0 to 100')
    for name in ('max_tokens', 'cache_length', 'max_message_bytes'):
      if vars(self)[name] < 1:
        raise ValueError(f'decode.{name} is {vars(self)[name]}: take at least 1')
    if self.max_tokens >= self.cache_length:
      raise ValueError(
        f'decode.max_tokens is {self.max_tokens}, and decode.cache_length, which holds prompt and '
        f'reply, {self.cache_length}: take fewer tokens or a longer cache'
      )


def group(config: ConfigDict, name: str, cls: type, *, beside: Collection[str] = ()) -> Any:
  """The dataclass of one group of a configuration.

  Example:
    group(config, 'memory', RecallConfig, beside=('embedder',))

  Args:
    name: of the group.
    beside: fields of the group that are not the dataclass's.

  Raises:
    ValueError: a field is unknown, of another type, or has a value that the dataclass refuses.
  """
  values = {k: v for k, v in config[name].items() if k not in beside}
  if values.get('dtype') == 'auto':
    from dreaming.brain import kernels  # JAX, which --help does not need

    values['dtype'] = kernels.product_dtype()
  return _build(f'config.{name}', values, cls, known=beside)


def night(config: ConfigDict) -> night_lib.NightConfig:
  """All that decides a night. Raises ValueError as `group` does."""
  from dreaming.sleep import night as night_lib  # a second of imports that talking does not need

  hints = typing.get_type_hints(night_lib.NightConfig)
  groups = {n: group(config, n, cls) for n, cls in hints.items() if n in config and n != 'seed'}
  groups['dream'] = dataclasses.replace(groups['dream'], agent=config.life.agent)
  groups['select'] = dataclasses.replace(groups['select'], weights=weights(config))
  fields = {'seed': config.seed, 'user': config.life.user}
  fields['refusal_line'] = 0.0 if config.model.instruct else float(config.decode.refusal_line)
  return night_lib.NightConfig(**fields, **groups)


def night_of(values: Mapping[str, Any]) -> night_lib.NightConfig:
  """That of an earlier night, from the plain values that the diary keeps. Raises as `group`."""
  from dreaming.sleep import night as night_lib

  def back(value: Any) -> Any:
    if isinstance(value, Mapping):
      return ConfigDict({k: back(v) for k, v in value.items()})
    if isinstance(value, list):
      return tuple(back(v) for v in value)
    return float(value) if value in ('inf', '-inf') else value

  return _build('night', {k: back(v) for k, v in values.items()}, night_lib.NightConfig)


def weights(config: ConfigDict) -> score.ProfoundnessWeights:
  """How much each part of the scores counts. Raises ValueError as `group` does."""
  from dreaming.memory import score

  return group(config, 'score', score.ProfoundnessWeights)


def trim(config: ConfigDict) -> trim_lib.TrimConfig:
  """What goes to the archive. Raises ValueError as `group` does."""
  from dreaming.memory import trim as trim_lib

  return _build('config.memory.trim', dict(config.memory.trim), trim_lib.TrimConfig)


def days(config: ConfigDict) -> tuple[str, ...]:
  """`life.days`, also when a flag gave them as one text with commas."""
  paths = tuple(p.strip() for value in config.life.days for p in str(value).split(','))
  if not paths or not all(paths):
    raise ValueError(f"life.days={tuple(config.life.days)!r}: give JSON files, or '-' for stdin")
  return paths


def cache(config: ConfigDict) -> pathlib.Path:
  """Where converted weights and compiled programs are kept."""
  from dreaming.brain import weights  # imports jax, which most of this file does without

  return pathlib.Path(config.cache).expanduser() if config.cache else weights.default_cache()


def plain(value: Any) -> Any:
  """A configuration as plain values, for manifests and results."""
  if isinstance(value, ConfigDict | Mapping):
    return {k: plain(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [plain(v) for v in value]
  if isinstance(value, float) and value in (float('inf'), float('-inf')):
    return str(value)  # JSON has no infinity
  return value


def _build(where: str, values: Mapping[str, Any], cls: type, known: Collection[str] = ()) -> Any:
  hints = typing.get_type_hints(cls)
  for key, value in values.items():
    if key not in hints:
      fields = ', '.join(sorted({*hints, *known}))
      raise ValueError(f'{where}.{key}={value!r} is no field; there are: {fields}')
  return cls(**{k: _convert(f'{where}.{k}', v, hints[k]) for k, v in values.items()})


def _convert(where: str, value: Any, hint: Any) -> Any:
  if dataclasses.is_dataclass(hint) and isinstance(value, ConfigDict):
    return _build(where, value, hint)
  if not _fits(value, hint):
    raise ValueError(f'{where}={value!r} is no {_name(hint)}: give one')
  origin = typing.get_origin(hint)
  if origin is tuple:
    inner = typing.get_args(hint)[0]
    return tuple(_convert(where, v, inner) for v in value)
  return float(value) if hint is float else value


def _fits(value: Any, hint: Any) -> bool:
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, arg) for arg in args)
  if origin is tuple:
    if not isinstance(value, list | tuple):
      return False
    inner = [args[0]] * len(value) if args[-1] is Ellipsis else args
    return len(inner) == len(value) and all(map(_fits, value, inner))
  if hint is float:
    return isinstance(value, int | float) and not isinstance(value, bool)
  if hint is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, origin or hint)


def _name(hint: Any) -> str:
  return str(hint).replace('typing.', '') if typing.get_origin(hint) else hint.__name__
