"""One training step of a night: ours against a Hugging Face PEFT LoRA in f32, on the same batches.

  python benchmarks/train_step.py [--quick] [--json=FILE] [--peer-python=PATH]

Both train a LoRA of the same rank on all linears of the same weights with AdamW, on the same packed
rows, with the same positions, segments and loss positions, in turn; counted are loss tokens a
second. What differs is what each is: ours multiplies with the frozen weights in train.dtype, makes
logits at loss positions only and over the night's shortlist; PEFT, as it comes, works in f32 and
makes logits of the whole vocabulary at every position. `peer_gathered` is PEFT with the loss
positions gathered by hand: how much of the difference is that one trick. The bar is against PEFT as
it comes. Expected: 5 to 10 minutes on two cores, after the peers' environment is made.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

from benchmarks import common

BAR = 1.2  # times the peer's loss tokens a second
ROWS, LENGTH, SHORTLIST = 4, 256, 8192


def batches_of(tokenizer, count: int, height: int) -> tuple[list, np.ndarray]:
  """`count` packed batches of `height` rows of questions, answers and texts, and their shortlist.

  No loss position is left out, so that both sides learn exactly the same tokens.
  """
  from dreaming.brain import prompts
  from dreaming.sleep import packing

  exam = common.ROOT / 'dreaming' / 'sleep' / 'exam'
  examples = [
    packing.Example(prompt=prompts.question(q['question']), target=f' {q["answers"][0]}\n')
    for q in json.loads((exam / 'general.json').read_text())
  ]
  lines = (exam / 'generic.txt').read_text().splitlines()
  examples += [packing.Example(prompt='', target=x + '\n') for x in lines if x.strip()]
  encoded = [packing.encode(tokenizer, e, LENGTH, 1) for e in examples]
  stream = packing.endless(encoded, np.random.default_rng(0))
  rows = [packing.pack(height, LENGTH, stream) for _ in range(count)]
  losses = max(sum(int(e.loss.sum()) for row in batch for e in row) for batch in rows)
  batches = [packing.batch_of(batch, LENGTH, losses, k=1) for batch in rows]
  shortlist = np.unique(np.concatenate([b.target_ids.reshape(-1) for b in batches]))
  # Filled up with Gemma's first tokens, which are about its most frequent ones.
  more = np.setdiff1d(np.arange(2 * SHORTLIST), shortlist)[: SHORTLIST - len(shortlist)]
  shortlist = np.sort(np.concatenate([shortlist, more])).astype(np.int32)
  return batches, shortlist


def labels_of(batch) -> np.ndarray:
  """Int['B L'] as transformers takes them: a loss position's label stands at the next token."""
  where = np.asarray(batch.loss_positions)[np.asarray(batch.weights) > 0] + 1
  labels = np.full(batch.tokens.size, -100, np.int64)
  labels[where] = np.asarray(batch.tokens).reshape(-1)[where]
  return labels.reshape(batch.tokens.shape)


def main() -> int:
  p = common.parser(__doc__)
  common.add_peer_flag(p)
  p.add_argument('--rounds', type=int, default=7)
  p.add_argument('--rows', type=int, default=ROWS, help=f'of {LENGTH} tokens, of a batch')
  p.add_argument('--rank', type=int, default=16)
  p.add_argument('--dtype', default='bfloat16', help='of our products, see train.dtype')
  args = p.parse_args()
  if args.quick:
    args.rounds = 1

  import jax

  from dreaming.brain import lora, weights
  from dreaming.sleep import train
  from dreaming.types import TrainState

  cache = common.cache_of(args)
  python = common.peer_python(args.peer_python, cache)
  common.keep_programs(cache)
  base = weights.load(weights.ModelConfig(), cache=cache)
  batches, shortlist = batches_of(base.tokenizer, 4, 1 if args.quick else args.rows)
  tokens = float(np.mean([b.weights.sum() for b in batches]))
  config = train.TrainConfig(rank=args.rank, dtype=args.dtype)

  # ---- Ours ----
  optimizer = train.make_optimizer(config)
  step = train.make_step(base.arch, config, optimizer)
  adapter = lora.init(jax.random.key(0), base.arch, rank=args.rank, targets=config.targets)
  state = TrainState(step=jax.numpy.int32(0), adapter=adapter, opt_state=optimizer.init(adapter))
  frozen = train.frozen(base.params, base.arch, shortlist, config.dtype)
  own = [b.replace(target_ids=np.searchsorted(shortlist, b.target_ids)) for b in batches]
  turns = {side: itertools.cycle(range(len(batches))) for side in ('ours', 'peer', 'gathered')}
  losses: dict[str, list[float]] = {side: [] for side in turns}

  def ours() -> float:
    nonlocal state
    batch = own[next(turns['ours'])]

    def work():
      nonlocal state
      state, metrics = step(state, frozen, batch)
      losses['ours'].append(float(metrics['dream_loss']))  # waits for the step

    return common.timed(work)

  # ---- Theirs ----
  with tempfile.TemporaryDirectory() as tmp, common.Peer(python) as peer:
    common.hand_over(base, pathlib.Path(tmp))
    versions = peer('load', directory=tmp, dtype='float32')
    alpha = args.rank * config.scale
    versions |= peer('adapt', rank=args.rank, alpha=alpha, learning_rate=config.learning_rate)
    requests = [
      {
        'tokens': b.tokens.tolist(),
        'positions': b.positions.tolist(),
        'segments': b.segment_ids.tolist(),
        'labels': labels_of(b).tolist(),
      }
      for b in batches
    ]

    def theirs(side: str) -> float:
      answer = peer('train', **requests[next(turns[side])], gathered=side == 'gathered')
      losses[side].append(answer['loss'])
      return answer['seconds']

    result = common.Result(
      'train_step', args, rows=len(batches[0].tokens), length=LENGTH, rank=args.rank,
      dtype=args.dtype, shortlist=len(shortlist), loss_tokens=tokens, peer=versions,
    )  # fmt: skip
    sides = {'ours': ours, 'peer': lambda: theirs('peer')}
    seconds = common.in_turn(sides, args.rounds, warm_up=1 if args.quick else 2)
    more = common.in_turn({'gathered': lambda: theirs('gathered')}, max(1, args.rounds // 2))

  print('first losses:', {side: round(x[0], 4) for side, x in losses.items()})
  speed = {
    side: result.add(f'{side}_loss_tokens_per_s', [tokens / s for s in all_], 'tokens/s')
    for side, all_ in {**seconds, 'peer_gathered': more['gathered']}.items()
  }
  result.add('ours_loss', losses['ours'])
  result.add('peer_loss', losses['peer'])
  result.bar('ratio', speed['ours'] / speed['peer'], '>=', BAR)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
