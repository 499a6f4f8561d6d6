"""What an identity is made of, and where the configuration's ConfigDict ends."""

from __future__ import annotations

import dataclasses
import functools
import gc
import pathlib
import shutil
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from dreaming import configuration, mishaps
from dreaming.brain import decode, programs, sharding, vision, weights
from dreaming.identity.bluegreen import BlueGreen, IdentityLock
from dreaming.memory import embed, episodes, index, reembed
from dreaming.memory import recall as recall_lib
from dreaming.memory.diary import Diary
from dreaming.memory.senses import perception
from dreaming.memory.senses.media import MediaStore
from dreaming.types import Experience, Media, Mind

if TYPE_CHECKING:  # a second of imports that only a night needs
  from dreaming.sleep import night

_LONGEST_TOKEN = 256  # bytes


class Life:
  """An identity's parts: its lock, its diary, and the weights once something needs them.

  Args:
    config: of configs/default.py.
    lock: of its directory, where it is held already; closed with it.

  Raises:
    ValueError: a field of the configuration is unknown or wrong, or the diary is damaged.
    BlockingIOError: another process lives this identity.
    OSError: its directory cannot be written.
  """

  def __init__(self, config: ConfigDict, *, lock: IdentityLock | None = None):
    self.config = config
    self._decode = configuration.group(config, 'decode', configuration.DecodeConfig)
    self._model = configuration.group(config, 'model', weights.ModelConfig)
    self._memory = configuration.group(
      config, 'memory', recall_lib.RecallConfig, beside=('embedder', 'encoder', 'trim')
    )
    self._trim = configuration.trim(config)
    self._weights = configuration.weights(config)
    self._senses = configuration.group(config, 'senses', perception.SensesConfig)
    self._mesh = configuration.group(config, 'mesh', sharding.MeshConfig)
    self.life = configuration.group(config, 'life', configuration.LifeConfig)
    self.sampler = decode.Sampler(
      temperature=self._decode.temperature,
      top_k=self._decode.top_k,
      top_p=self._decode.top_p,
      seed=config.seed,
    )
    self.workdir = pathlib.Path(config.workdir).expanduser()
    self.cache = configuration.cache(config)
    self.media = MediaStore(self.workdir / 'media')
    self._reembedding: reembed.Reembedding | None = None
    self._opening = threading.RLock()  # pictures are looked at in a thread of their own
    self._lock = IdentityLock(self.workdir) if lock is None else lock
    try:
      # Messages are checked before they are answered; what was answered is always kept.
      limit = self._decode.max_message_bytes + _LONGEST_TOKEN * self._decode.max_tokens
      self.diary = Diary(self.workdir / 'diary.sqlite', max_message_bytes=limit)
    except BaseException:
      self._lock.close()
      raise

  # ---- What is loaded when it is first needed ----

  @functools.cached_property
  def night_config(self) -> night.NightConfig:
    return configuration.night(self.config)

  @functools.cached_property
  def base(self) -> weights.Base:
    """The frozen weights, spread over the mesh."""
    with self._opening:
      return self.__dict__.get('base') or self._opened()

  def _opened(self) -> weights.Base:
    programs.keep(self.cache)
    mesh = sharding.make_mesh(self._mesh)
    base = weights.load(self._model, self.cache, seed=self.config.seed)
    if mesh.size > 1:
      params = sharding.shard(base.params, mesh, sharding.BASE)
      base = dataclasses.replace(base, params=params)
    return base

  def share(self, other: Life) -> None:
    """Takes the buffers of another identity's base. Raises ValueError when it is another base."""
    if (self._model, self._mesh) != (other._model, other._mesh):
      raise ValueError(
        f'{self.workdir} has another base than {other.workdir}: config.model says so'
      )
    self.base = other.base

  @functools.cached_property
  def decoder(self) -> decode.Decoder:
    length = self._decode.cache_length
    return decode.Decoder(self.base.arch, self.base.tokenizer, cache_length=length)

  @functools.cached_property
  def identity(self) -> BlueGreen:
    return BlueGreen(self.base, self.diary, self.workdir / 'generations')

  @functools.cached_property
  def embedder(self) -> embed.Embedder:
    return embed.make(self.config.memory.embedder)

  @functools.cached_property
  def index(self) -> index.Index:
    return index.build(self.diary, self.embedder)

  @functools.cached_property
  def encoder(self) -> embed.Embedder:
    """What recall compares meanings with; the embedder itself where they are the same."""
    name = self.config.memory.encoder
    same = name == self.config.memory.embedder
    return self.embedder if same else embed.make(name, encoders=True)

  @functools.cached_property
  def memories_index(self) -> index.Index:
    """Of the encoder's vectors. Where many are missing they come by and by: see `embedding`."""
    if self.encoder is self.embedder:
      return self.index
    path = self.workdir / 'index' / f'{self.encoder.name}.usearch'
    missing = self.diary.unembedded(self.encoder.name)
    if len(missing) <= reembed.AT_ONCE:
      return index.build(self.diary, self.encoder, path=path)
    found = index.Index(*self.diary.embeddings(self.encoder.name), path)
    self._reembedding = reembed.Reembedding(self.diary, self.encoder, found, missing)
    return found

  @property
  def embedding(self) -> tuple[int, int] | None:
    """(memories done, of how many) while they get vectors of a new encoder, None otherwise."""
    return self._reembedding and (self._reembedding.done, self._reembedding.total)

  def adopt_vectors(self, wait: bool = False) -> None:
    """Takes up the vectors that are ready, or waits for all.

    Raises:
      OSError, ValueError: what ended it early; it goes on when the identity is opened again.
    """
    if (running := self._reembedding) is None:
      return
    try:
      if wait:
        running.wait()
      more = not wait and running.adopt()
    except BaseException:
      self._reembedding = None
      raise
    self._reembedding = running if more else None

  def _embedded(
    self, experience: Experience, embedders: Sequence[embed.Embedder]
  ) -> list[np.ndarray]:
    """Its vectors, kept in the diary. None where there is no memory for them: what was said is kept
    all the same, and embedded when an index is next made: whoever calls renews them.
    """
    try:
      vectors = [embedder([embed.experience_text(experience)])[0] for embedder in embedders]
    except MemoryError:
      return []
    except RuntimeError as e:
      if not mishaps.of_device(e):
        raise
      return []
    for embedder, vector in zip(embedders, vectors, strict=True):
      self.diary.set_embedding(experience.id, vector, embedder.name)
    return vectors

  def renew_indexes(self) -> None:
    """They are made anew when they are next needed, and what is on the disk of them goes."""
    self._stop_embedding()
    for name in ('index', 'memories_index'):
      self.__dict__.pop(name, None)
    shutil.rmtree(self.workdir / 'index', ignore_errors=True)

  @property
  def max_message_bytes(self) -> int:
    return self._decode.max_message_bytes

  @property
  def instruct(self) -> bool:
    """Whether the base takes the chat template."""
    return self._model.instruct

  @property
  def lock(self) -> IdentityLock:
    return self._lock

  @property
  def base_mind(self) -> Mind:
    return Mind(params=self.base.params, generation=0)

  def perceive(self, path: str | pathlib.Path) -> tuple[Media, dict[str, Any]]:
    """Looks at a picture or listens to a sound, and keeps it; see perception.perceive."""
    return perception.perceive(path, self.media, self._senses, lambda: self.eyes)

  @property
  def senses(self) -> dict[str, bool]:
    """'image' and 'audio' -> whether what it takes to perceive them is installed."""
    return perception.there(self._senses)

  def sense(self, data: bytes, *, wake: bool = True) -> tuple[Media, dict[str, Any]]:
    """The same of a file's content, which is not kept.

    Args:
      wake: whether eyes that are not open are opened, which reads weights.
    """
    return perception.sense(
      data, self._senses, lambda: self.eyes if wake else self.__dict__.get('eyes')
    )

  @functools.cached_property
  def eyes(self) -> vision.Eyes | None:
    """Those of the model's own checkpoint, or of senses.captioner; None where there are none.

    Raises OSError when senses.captioner cannot be used. What is wrong with the model's own eyes is
    logged: then a picture is described without them.
    """
    with self._opening:
      return self.__dict__.get('eyes') or self._eyes()

  def _eyes(self) -> vision.Eyes | None:
    c, own = self._senses, self._model.weights
    if c.captioner == perception.OWN_EYES:
      if not weights.is_checkpoint(own):
        return None
      try:
        if not vision.has(own):
          return None
        if not vision.installed():
          raise ValueError('bash launch/setup.sh official')
        return vision.load(own, self.decoder, self.base_mind, instruct=self._model.instruct)
      except (ValueError, OSError) as e:
        logging.warning('pictures are described without the eyes of %s: %s', own, e)
        return None
    if not c.captioner:
      return None
    try:
      base = weights.load(
        weights.ModelConfig(
          architecture=c.captioner_architecture, weights=c.captioner,
          tokenizer=c.captioner_tokenizer, instruct=True, dtype=self._model.dtype,
        ),
        self.cache,
      )  # fmt: skip
      decoder = decode.Decoder(base.arch, base.tokenizer)
      eyes = vision.load(
        c.captioner, decoder, Mind(params=base.params, generation=0), instruct=True
      )
      if eyes is None:
        raise ValueError('it has no eyes: take an official checkpoint of 4B or more')
    except ValueError as e:  # of the configuration, and not of the picture
      raise OSError(f'senses.captioner={c.captioner!r}: {e}') from e
    return eyes

  def episodes(
    self, *, since: float | None = None, until: float | None = None
  ) -> list[episodes.Episode]:
    """What was said as it hangs together, oldest first: see memory/episodes.py."""
    lived = self.diary.experiences(since=since, until=until)
    return episodes.group(lived, self.memories_index)

  def _stop_embedding(self) -> None:
    if self._reembedding is not None:
      self._reembedding.stop()
      self._reembedding = None

  def rest(self) -> None:
    """Lets go of what was laid out and compiled for what is over; what comes makes its own."""
    if 'decoder' in self.__dict__:
      self.decoder.rest()
    programs.drop()

  def unload(self) -> None:
    """Lets go of the weights; what needs them next reads them again."""
    for name in ('base', 'decoder', 'identity', '_replies', 'eyes'):
      self.__dict__.pop(name, None)
    gc.collect()
    programs.trim()

  def close(self) -> None:
    self._stop_embedding()
    self.diary.close()
    self._lock.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_) -> None:
    self.close()
