"""Random weights of a toy size: every step of the loop, in seconds on a CPU, learning nothing real.

  python -m dreaming.main --config=configs/tiny.py

Hardware: any CPU. Expected time: a minute on two cores. Expected recall: none, so gate and dream
thresholds are open here: a random model has nothing to lose, believes nothing, and would end every
night before promotion. Weights: drawn from the seed; nothing is needed.
"""

from configs import default


def get_config():
  c = default.get_config().lock()
  c.workdir = 'lives/tiny'
  c.memory.encoder = 'wordllama'  # nothing else to load
  c.model.architecture = 'tiny'
  c.model.weights = 'random'
  c.school.steps = 0  # letters teach it nothing
  c.decode.max_tokens = 8
  c.decode.choose_replies = False  # it would choose by chance
  c.decode.cache_length = 2048  # its tokens are bytes: prompts are long
  c.select.top_k = 4
  c.select.threshold = 0.0
  for group, names in (
    (c.dream, ('min_gain', 'min_belief', 'min_belief_alone')),
    (c.dream.match, ('min_gain', 'min_rank')),
  ):
    for name in names:
      group[name] = -1e9
  c.dream.max_facts = 6
  c.dream.unknowns = 20
  c.dream.unheard = 10
  c.dream.match.more_relations = False
  c.dream.match.proposals = 2
  c.dream.match.type_proposals = 1
  c.dream.match.max_nouns = 1
  c.corpus.replay_questions = 8
  c.corpus.replay_texts = 2
  c.train.steps = 4
  c.train.rank = 4
  c.prune.recovery_steps = 1
  c.gate.min_recall_gain = -1.0
  c.gate.max_general_drop = c.gate.max_general_drop_night = 1.0
  c.gate.max_nll_increase = c.gate.max_nll_increase_night = float('inf')
  c.gate.max_never_mentioned = c.gate.max_earlier_lost = 1.0
  c.gate.max_toxic_rise = c.gate.max_toxic_rise_night = 1.0
  c.gate.max_gibberish_rise = c.gate.max_gibberish_rise_night = 1.0
  return c
