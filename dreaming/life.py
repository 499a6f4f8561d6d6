"""What an identity is made of, and where the configuration's ConfigDict ends."""

from __future__ import annotations

import dataclasses
import functools
import gc
import pathlib
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from ml_collections import ConfigDict

from dreaming import configuration, mishaps
from dreaming.brain import decode, programs, sharding, vision, weights
from dreaming.identity.bluegreen import BlueGreen, IdentityLock
from dreaming.memory import embed, index, reembed
from dreaming.memory import recall as recall_lib
from dreaming.memory.diary import Diary
from dreaming.memory.senses import perception
from dreaming.memory.senses.media import MediaStore
from dreaming.types import Experience, Media, Mind

if TYPE_CHECKING:  # a second of imports that only a night needs
  from dreaming.sleep import night

_LONGEST_TOKEN = 256  # bytes
_CAPTION_ROOM = 512  # tokens of a picture, a question and what is said of it


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

  def sense(self, data: bytes) -> tuple[Media, dict[str, Any]]:
    """The same of a file's content, which is not kept."""
    return perception.sense(data, self._senses, lambda: self.eyes)

  @functools.cached_property
  def eyes(self) -> vision.Eyes | None:
    """Those of the model's own checkpoint, or of senses.captioner; None where it has none.

    Raises OSError or ValueError, as `vision.load` and `weights.load`, with senses.captioner.
    """
    c = self._senses
    if c.captioner == perception.OWN_EYES:
      own = self._model.weights
      if not weights.is_checkpoint(own) or not vision.has(own):
        return None
      return vision.load(own, self.decoder, self.base_mind, instruct=self._model.instruct)
    if not c.captioner:
      return None
    base = weights.load(
      weights.ModelConfig(
        architecture=c.captioner_architecture, weights=c.captioner,
        tokenizer=c.captioner_tokenizer, instruct=True, dtype=self._model.dtype,
      ),
      self.cache,
    )  # fmt: skip
    decoder = decode.Decoder(base.arch, base.tokenizer, cache_length=_CAPTION_ROOM)
    mind = Mind(params=base.params, generation=0)
    if (eyes := vision.load(c.captioner, decoder, mind, instruct=True)) is None:
      raise ValueError(
        f'senses.captioner={c.captioner!r} has no eyes: take an official checkpoint of 4B or more'
      )
    return eyes

  def _stop_embedding(self) -> None:
    if self._reembedding is not None:
      self._reembedding.stop()
      self._reembedding = None

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
