"""Random weights of a toy size: every step of the loop, in seconds on a CPU, learning nothing real.

  python -m dreaming.main --config=configs/tiny.py

Hardware: any CPU. Expected time: not measured yet; meant to be seconds. Expected recall: none, so
the gate is open here: a random model has nothing to lose, and a closed gate would end every night
before promotion. Weights: drawn from the seed; nothing is needed.
"""

from configs import default


def get_config():
  c = default.get_config().lock()
  c.workdir = 'lives/tiny'
  c.model.architecture = 'tiny'
  c.model.weights = 'random'
  c.decode.max_tokens = 8
  c.decode.cache_length = 2048  # its tokens are bytes: prompts are long
  c.select.top_k = 4
  c.train.steps = 4
  c.train.rank = 4
  c.prune.recovery_steps = 1
  c.gate.min_recall_gain = -1.0
  c.gate.max_general_drop = 1.0
  c.gate.max_nll_increase = float('inf')
  c.gate.max_never_mentioned = 1.0
  return c
