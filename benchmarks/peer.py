"""The peers' side, run in their own environment: Hugging Face transformers and PEFT.

Reads requests from standard input and answers on standard output, each a line of JSON; see
common.Peer. The model is built from our own weights; nothing is downloaded.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import time

import numpy as np
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

# What libraries print must not come between the answers.
_ANSWERS = os.fdopen(os.dup(sys.stdout.fileno()), 'w')
sys.stdout = sys.stderr


DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
DTYPES = {'bfloat16': torch.bfloat16, 'float32': torch.float32}


class Session:
  def __init__(self):
    self.model = self.optimizer = None

  def load(self, directory, dtype):
    """Our weights in a Gemma3ForCausalLM of transformers."""
    directory = pathlib.Path(directory)
    config = Gemma3TextConfig(**json.loads((directory / 'config.json').read_text()))
    config._attn_implementation = 'sdpa'
    torch.set_default_dtype(DTYPES[dtype])
    model = Gemma3ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    files = {f.stem: f for f in directory.glob('*.npy')}
    state = {n: torch.from_numpy(np.load(f, allow_pickle=False)) for n, f in files.items()}
    wrong = model.load_state_dict(state, strict=False)
    missing = [n for n in wrong.missing_keys if n != 'lm_head.weight']  # tied
    if missing or wrong.unexpected_keys:
      raise ValueError(f'missing {missing[:3]}, unexpected {wrong.unexpected_keys[:3]}')
    model.tie_weights()
    self.model = model.eval().to(DEVICE)
    versions = {'torch': torch.__version__, 'threads': torch.get_num_threads(), 'device': DEVICE}
    return {**versions, 'parameters': sum(p.numel() for p in model.parameters())}

  def decode(self, ids, tokens):
    """Greedy, exactly `tokens` new ones, with the KV cache that generate makes by default."""
    prompt = torch.tensor([ids], device=DEVICE)
    start = time.perf_counter()
    with torch.inference_mode():
      out = self.model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
      )
    said = out[0, len(ids) :].tolist()  # waits for the device
    return {'seconds': time.perf_counter() - start, 'ids': said}

  def adapt(self, rank, alpha, learning_rate):
    """A PEFT LoRA on all linears, trained with AdamW."""
    import peft

    torch.manual_seed(0)
    names = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
    config = peft.LoraConfig(
      r=rank, lora_alpha=alpha, target_modules=names, lora_dropout=0.0, task_type='CAUSAL_LM'
    )
    self.model = peft.get_peft_model(self.model, config).train()
    self.model.config.use_cache = False
    trained = [p for p in self.model.parameters() if p.requires_grad]
    self.optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0)
    return {'peft': peft.__version__, 'trained': sum(p.numel() for p in trained)}

  def train(self, tokens, positions, segments, labels, gathered):
    """One step on a packed batch.

    Args:
      tokens, positions, segments: [B, L].
      labels: [B, L], of each position's own token as transformers has it, -100 where no loss is.
      gathered: make logits at loss positions only, which transformers by itself does not.
    """
    tokens, positions, segments, labels = (
      torch.tensor(x, device=DEVICE) for x in (tokens, positions, segments, labels)
    )
    start = time.perf_counter()
    distance = positions[:, :, None] - positions[:, None, :]
    mask = (distance >= 0) & (segments[:, :, None] == segments[:, None, :])
    window = self.model.config.sliding_window
    masks = {
      'full_attention': mask[:, None],
      'sliding_attention': (mask & (distance < window))[:, None],
    }
    inputs = {'input_ids': tokens, 'attention_mask': masks, 'position_ids': positions}
    if gathered:
      inner = self.model.get_base_model()
      hidden = inner.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
      target = labels[:, 1:]
      logits = inner.lm_head(hidden[target != -100])
      loss = torch.nn.functional.cross_entropy(logits.float(), target[target != -100])
    else:
      loss = self.model(**inputs, labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], 1.0)
    self.optimizer.step()
    self.optimizer.zero_grad(set_to_none=True)
    if DEVICE == 'cuda':
      torch.cuda.synchronize()
    return {'seconds': time.perf_counter() - start, 'loss': loss.item()}


def main():
  session = Session()
  commands = {
    'load': session.load,
    'decode': session.decode,
    'adapt': session.adapt,
    'train': session.train,
  }
  for line in sys.stdin:
    request = json.loads(line)
    answer = commands[request.pop('command')](**request)
    _ANSWERS.write(json.dumps(answer) + '\n')
    _ANSWERS.flush()


if __name__ == '__main__':
  main()
