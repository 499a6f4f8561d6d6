"""Decoding, one stream: ours against Hugging Face transformers in bf16.

  python benchmarks/decode.py [--quick] [--json=FILE] [--peer-python=PATH]

Both continue the same prompt greedily by the same number of tokens, prefill included, from the same
weights, in turn. Ours decodes as the agent does, with the weights in --dtype.
Expected: 2 to 4 minutes on two cores, after the peers' environment is made.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import common

BAR = 1.4  # times the peer's tokens a second
PROMPT = (
  'The lighthouse stood on the last rock before the open sea. Every evening the keeper climbed the '
  'stairs, and'
)


def main() -> int:
  p = common.parser(__doc__)
  common.add_peer_flag(p)
  p.add_argument('--tokens', type=int, default=64)
  p.add_argument('--rounds', type=int, default=5)
  p.add_argument('--dtype', default='float32', help='of our weights, see model.dtype')
  args = p.parse_args()
  if args.quick:
    args.tokens, args.rounds = 8, 1

  from dreaming.brain import weights
  from dreaming.brain.decode import Decoder
  from dreaming.brain.tokenizer import Tokenizer
  from dreaming.types import Mind

  cache = common.cache_of(args)
  python = common.peer_python(args.peer_python, cache)
  common.keep_programs(cache)
  base = weights.load(weights.ModelConfig(dtype=args.dtype), cache=cache)

  class Endless(Tokenizer):  # both must say exactly as many tokens
    eos = end_of_turn = -1

  tokenizer = Endless(base.tokenizer.model_proto)
  decoder, mind = Decoder(base.arch, tokenizer), Mind(params=base.params)
  said = []

  def ours() -> float:
    return common.timed(
      lambda: said.append(decoder.generate(mind, [PROMPT], max_tokens=args.tokens, stop=())[0])
    )

  with tempfile.TemporaryDirectory() as tmp, common.Peer(python) as peer:
    common.hand_over(base, pathlib.Path(tmp))
    versions = peer('load', directory=tmp, dtype='bfloat16')
    result = common.Result('decode', args, tokens=args.tokens, dtype=args.dtype, peer=versions)
    ids = tokenizer.encode(PROMPT, bos=True)
    theirs = []

    def peers() -> float:
      theirs.append(peer('decode', ids=ids, tokens=args.tokens))
      return theirs[-1]['seconds']

    seconds = common.in_turn({'ours': ours, 'peer': peers}, args.rounds)

  assert all(len(t['ids']) == args.tokens for t in theirs)
  print(f'ours: {said[-1]!r}\npeer: {tokenizer.decode(theirs[-1]["ids"])!r}')
  speed = {
    side: result.add(f'{side}_tokens_per_s', [args.tokens / s for s in seconds[side]], 'tokens/s')
    for side in ('ours', 'peer')
  }
  result.bar('ratio', speed['ours'] / speed['peer'], '>=', BAR)
  return result.finish()


if __name__ == '__main__':
  sys.exit(main())
