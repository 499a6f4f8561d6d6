"""OpenAI's wire format: requests into ours, our pieces into its objects and chunks."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dreaming.brain import chat
from dreaming.brain.sampler import Sampler
from dreaming.brain.tokenizer import Tokenizer
from dreaming.serve.access import Refused
from dreaming.serve.stream import Token
from dreaming.serve.talk import Reply

AGENT = 'agent'

# ---- Requests ----


def generation(model: str) -> int | None:
  """Which generation a model's name means; None is whoever serves. Raises Refused."""
  if model in (AGENT, f'{AGENT}@blue'):
    return None
  found = re.fullmatch(rf'{AGENT}@(0|[1-9][0-9]{{0,8}})', model)
  if found is None:
    line = f'there is no model {model[:60]!r}: take agent, agent@blue or agent@N, see /v1/models'
    raise Refused(404, line, 'model_not_found')
  return int(found[1])


def conversation(messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[chat.Turn], str]:
  """The last message, the turns before it, and what the system says.

  Raises Refused where the last message is not the user's.
  """
  system: list[str] = []
  said: list[tuple[str, str]] = []
  for m in messages:
    text = _text(m.get('content'))
    if m['role'] in ('system', 'developer'):
      system.append(text)
    elif said and said[-1][0] == m['role']:  # two in a row are one
      said[-1] = m['role'], f'{said[-1][1]}\n{text}'
    else:
      said.append((m['role'], text))
  if not said or said[-1][0] != 'user':
    raise Refused(422, 'messages: the last one must be of role user', 'invalid_value')
  if said[0][0] == 'assistant':
    said.insert(0, ('user', ''))
  turns = [
    chat.Turn(text=user, response=reply)
    for (_, user), (_, reply) in zip(said[:-1:2], said[1::2], strict=True)
  ]
  return said[-1][1], turns, '\n\n'.join(filter(None, system))


def _text(content: Any) -> str:
  if content is None or isinstance(content, str):
    return content or ''
  return '\n'.join(part['text'] for part in content if part['type'] == 'text')


def sampler(body: Mapping[str, Any], default: Sampler, seed: int) -> Sampler:
  return Sampler(
    temperature=float(body.get('temperature', default.temperature)),
    top_k=body.get('top_k', default.top_k),
    top_p=float(body.get('top_p', default.top_p)),
    seed=body.get('seed', seed) % 2**32,
  )


def stop(body: Mapping[str, Any]) -> tuple[str, ...]:
  given = body.get('stop', ())
  return (given,) if isinstance(given, str) else tuple(given)


# ---- Answers ----


def usage(prompt: int, completion: int) -> dict[str, int]:
  return {
    'prompt_tokens': prompt,
    'completion_tokens': completion,
    'total_tokens': prompt + completion,
  }


def head(kind: str, id: str, created: int, generation: int) -> dict[str, Any]:
  """What every object and chunk begins with. The model says which generation it is from."""
  return {
    'id': id,
    'object': kind,
    'created': created,
    'model': f'{AGENT}@{generation}',
    'system_fingerprint': f'generation-{generation}',
  }


def about(reply: Reply) -> dict[str, Any]:
  """What OpenAI's format has no place for."""
  recalled = reply.why.recalled if reply.why else ()
  return {
    'generation': reply.generation,
    'reader': reply.reader,  # whose words they are: a pretrained model's base reads the notes
    'experience': reply.experience,
    'shown': [s.plain() for s in reply.shown],
    'recalled': [
      {'experience': max(r.experience.id, 0) or None, 'score': round(r.score, 4)} for r in recalled
    ],
  }


def chat_logprobs(tokens: Iterable[Token], top: int, tokenizer: Tokenizer) -> dict[str, Any]:
  def entry(id: int, logprob: float) -> dict[str, Any]:
    raw = piece_bytes(tokenizer, id)
    text = raw.decode(errors='replace')
    return {'token': text, 'logprob': logprob, 'bytes': list(raw)}

  return {
    'content': [
      {**entry(t.id, t.logprob), 'top_logprobs': [entry(*x) for x in t.top[:top]]} for t in tokens
    ],
    'refusal': None,
  }


def completion_logprobs(
  tokens: Sequence[Token], top: int, tokenizer: Tokenizer, offset: int
) -> dict[str, Any]:
  texts = [_piece(tokenizer, t.id) for t in tokens]
  offsets = [offset + sum(map(len, texts[:i])) for i in range(len(texts))]
  return {
    'tokens': texts,
    'token_logprobs': [t.logprob for t in tokens],
    'top_logprobs': [{_piece(tokenizer, i): p for i, p in t.top[:top]} for t in tokens],
    'text_offset': offsets,
  }


def piece_bytes(tokenizer: Tokenizer, id: int) -> bytes:
  """The bytes of a token, also of one that is a part of a character."""
  if id >= tokenizer.vocab_size:
    return b''
  piece = tokenizer.piece(id)
  found = re.fullmatch('<0x([0-9A-F]{2})>', piece)
  return bytes([int(found[1], 16)]) if found else piece.replace('\u2581', ' ').encode()


def _piece(tokenizer: Tokenizer, id: int) -> str:
  return piece_bytes(tokenizer, id).decode(errors='replace')


def embedding(vector: np.ndarray, index: int, encoding: str) -> dict[str, Any]:
  values = np.asarray(vector, '<f4')
  packed = base64.b64encode(values.tobytes()).decode() if encoding == 'base64' else values.tolist()
  return {'object': 'embedding', 'index': index, 'embedding': packed}
