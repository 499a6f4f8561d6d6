"""What requests may say: JSON Schemas, which check them and stand in the OpenAPI document."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from dreaming.serve.access import Refused
from dreaming.serve.config import ServeConfig

Schema = Mapping[str, Any]
_TEXT = {'type': 'string', 'maxLength': 1_000_000}
_NAME = {'type': 'string', 'minLength': 1, 'maxLength': 200, 'pattern': r'^[^\n\r\x00]*$'}
_ID = {'type': 'integer', 'minimum': 1, 'maximum': 2**53}
_GENERATION = {'type': 'integer', 'minimum': 0, 'maximum': 2**53}


def _object(required: tuple[str, ...] = (), more: bool = False, **properties: Schema) -> Schema:
  return {
    'type': 'object',
    'properties': properties,
    'required': list(required),
    'additionalProperties': more,
  }


_BASE64 = {'type': 'string', 'maxLength': 2**30, 'contentEncoding': 'base64'}  # the body is bounded
_PART = {'anyOf': [
  _object(('type', 'text'), type={'const': 'text'}, text=_TEXT),
  _object(('type', 'image_url'), type={'const': 'image_url'}, image_url=_object(
    ('url',), url={'type': 'string', 'maxLength': 2**30, 'description': 'data:image/...;base64,'},
    detail={'enum': ['auto', 'low', 'high']})),
  _object(('type', 'input_audio'), type={'const': 'input_audio'}, input_audio=_object(
    ('data', 'format'), data=_BASE64, format={'type': 'string', 'maxLength': 20})),
]}  # fmt: skip
_MESSAGE = _object(
  ('role',),
  more=True,
  role={'enum': ['system', 'developer', 'user', 'assistant']},
  # The list first: what fails is written out for an error that nobody sees, megabytes of a picture.
  content={'anyOf': [{'type': 'array', 'items': _PART, 'minItems': 1, 'maxItems': 64}, _TEXT]},
)


def sampling(config: ServeConfig) -> dict[str, Schema]:
  """What chats and completions have in common."""
  stop = {'anyOf': [
    {'type': 'string', 'minLength': 1, 'maxLength': 200},
    {'type': 'array', 'maxItems': 8,
     'items': {'type': 'string', 'minLength': 1, 'maxLength': 200}},
  ]}  # fmt: skip
  fields: dict[str, Schema] = {
    'n': {'type': 'integer', 'minimum': 1, 'maximum': config.max_n},
    'max_tokens': {'type': 'integer', 'minimum': 1, 'maximum': config.max_tokens},
    'temperature': {'type': 'number', 'minimum': 0, 'maximum': 2},
    'top_p': {'type': 'number', 'exclusiveMinimum': 0, 'maximum': 1},
    'top_k': {'type': 'integer', 'minimum': 0, 'maximum': 128},
    'seed': {'type': 'integer', 'minimum': -(2**63), 'maximum': 2**63 - 1},
    'stop': stop,
    'stream': {'type': 'boolean'},
    'stream_options': _object((), True, include_usage={'type': 'boolean'}),
    # Only what changes nothing: a penalty that was passed over would be a lie.
    'presence_penalty': {'const': 0},
    'frequency_penalty': {'const': 0},
  }
  return {'model': _NAME, 'user': _NAME, **fields}


def chat(config: ServeConfig) -> Schema:
  return _object(
    ('model', 'messages'),
    messages={'type': 'array', 'items': _MESSAGE, 'minItems': 1, 'maxItems': 256},
    max_completion_tokens={'type': 'integer', 'minimum': 1, 'maximum': config.max_tokens},
    logprobs={'type': 'boolean'},
    top_logprobs={'type': 'integer', 'minimum': 0, 'maximum': 20},
    store={'type': 'boolean', 'description': 'keep it in the diary'},
    retrieval={'type': 'boolean', 'description': 'recall from the diary'},
    metadata={
      'type': 'object', 'maxProperties': 16, 'additionalProperties': {
        'type': 'string', 'maxLength': 512}},
    **sampling(config),
  )  # fmt: skip


def completion(config: ServeConfig) -> Schema:
  ids = {'type': 'array', 'minItems': 1, 'maxItems': 100_000,
         'items': {'type': 'integer', 'minimum': 0, 'maximum': 2**31 - 1}}  # fmt: skip
  return _object(
    ('model', 'prompt'),
    prompt={'anyOf': [_TEXT, ids, {'type': 'array', 'items': _TEXT, 'minItems': 1, 'maxItems': 8}]},
    logprobs={'type': 'integer', 'minimum': 0, 'maximum': 20},
    echo={'const': False},
    best_of={'const': 1},
    **sampling(config),
  )


EMBEDDING = _object(
  ('model', 'input'),
  model=_NAME,
  input={'anyOf': [
    {**_TEXT, 'minLength': 1},
    {'type': 'array', 'minItems': 1, 'maxItems': 256, 'items': {**_TEXT, 'minLength': 1}},
  ]},
  encoding_format={'enum': ['float', 'base64']},
  user=_NAME,
)  # fmt: skip

_TIME = {'type': 'number', 'minimum': 0, 'exclusiveMaximum': 253_402_300_800}
_SESSION = {'type': 'string', 'maxLength': 512}
FILTERS: dict[str, Schema] = {
  'speaker': {**_NAME, 'description': 'whose words they are'},
  'kind': {'enum': ['chat', 'observation', 'reflection', 'summary']},
  'session': {**_SESSION, 'description': 'as experiences have it'},
  'since': {**_TIME, 'description': 'Unix seconds'},
  'until': {**_TIME, 'description': 'Unix seconds, this one left out'},
}
"""Of experiences: only those."""

EXPERIENCE = _object(
  ('content',),
  content={**_TEXT, 'minLength': 1},
  response=_TEXT,
  user=_NAME,
  time=_TIME,
  kind={'enum': ['chat', 'observation']},
  session={**_SESSION, 'minLength': 1, 'description': 'the conversation it is of'},
  trust={'enum': ['user', 'third_party', 'imported']},
  metadata={'type': 'object', 'maxProperties': 64},
)
RECALL = _object(
  ('query',),
  query={**_TEXT, 'minLength': 1, 'maxLength': 10_000},
  limit={'type': 'integer', 'minimum': 1, 'maximum': 100},
  **FILTERS,
)
FEEDBACK = _object(
  ('value',), value={'enum': ['up', 'down']}, experience=_ID,
)  # fmt: skip
IDS = _object(('ids',), ids={'type': 'array', 'items': _ID, 'minItems': 1, 'maxItems': 10_000})
NIGHT = _object((), user=_NAME)
CANCEL = _object((), abandon={'type': 'boolean', 'description': 'end it as failed, not resumable'})
COMPARE = _object(
  ('questions', 'generations'),
  questions={'type': 'array', 'minItems': 1, 'maxItems': 32,
             'items': {**_TEXT, 'minLength': 1, 'maxLength': 10_000}},
  generations={'type': 'array', 'minItems': 1, 'maxItems': 4, 'items': _GENERATION},
  user=_NAME,
  max_tokens={'type': 'integer', 'minimum': 1, 'maximum': 64},
)  # fmt: skip
PROBES = _object(
  ('probes', 'generations'),
  probes={'type': 'array', 'minItems': 1, 'maxItems': 64, 'items': _object(
    ('question', 'answers'), question={**_TEXT, 'minLength': 1, 'maxLength': 10_000},
    answers={'type': 'array', 'minItems': 1, 'maxItems': 16,
             'items': {'type': 'string', 'minLength': 1, 'maxLength': 200}})},
  generations={'type': 'array', 'minItems': 1, 'maxItems': 4, 'items': _GENERATION},
  user=_NAME,
  max_tokens={'type': 'integer', 'minimum': 1, 'maximum': 64},
  retrieval={'type': 'boolean', 'description': 'recall from the diary'},
)  # fmt: skip
_PAIR = _object(
  ('question', 'answer'),
  question={**_TEXT, 'minLength': 1, 'maxLength': 1000},
  answer={**_TEXT, 'minLength': 1, 'maxLength': 1000},
)
REVIEW = _object(
  ('decision',),
  decision={'enum': ['approve', 'reject', 'edit']},
  alike={'type': 'boolean', 'description': 'also the other wordings of its fact (the default)'},
  text={**_TEXT, 'maxLength': 10_000},
  pairs={'type': 'array', 'maxItems': 32, 'items': _PAIR},
  answer={'type': 'string', 'minLength': 1, 'maxLength': 200,
          'description': "in the place of the fact's, in all wordings"},
)  # fmt: skip
ROLLBACK = _object((), generation=_GENERATION)
NOTHING = _object()


def parse(body: bytes, schema: Schema) -> dict[str, Any]:
  """A body as its schema has it, nulls left out. Raises Refused: 400 no JSON, 422 not as it is."""
  try:
    value = json.loads(body or b'{}', parse_constant=_no_constant)
  except (ValueError, RecursionError) as e:
    raise Refused(400, f'the body is not JSON: {e}', 'invalid_json') from None
  if isinstance(value, dict):  # clients send null for what they leave out
    value = {k: v for k, v in value.items() if v is not None}
  _bounded(value, schema)
  try:
    error = next(iter(sorted(_validator(_key(schema)).iter_errors(value), key=_depth)), None)
  except RecursionError:
    raise Refused(422, 'the body is nested too deeply', 'invalid_value') from None
  if error is not None:
    where = '.'.join(map(str, error.absolute_path)) or 'the body'
    line = error.message if len(error.message) < 300 else f'{error.message[:300]}...'
    raise Refused(422, f'{where}: {line}', 'invalid_value')
  return value


def _bounded(value: Any, schema: Schema) -> None:
  """Refuses lists that are too long before each of their items is looked at."""
  for name, of in schema.get('properties', {}).items():
    found = value.get(name) if isinstance(value, dict) else None
    limit = of.get('maxItems')
    if isinstance(found, list) and limit is not None and len(found) > limit:
      raise Refused(422, f'{name}: {len(found):,} items, the limit is {limit:,}', 'invalid_value')


def _no_constant(name: str) -> None:
  raise ValueError(f'{name} is no number of JSON')


def _depth(error: Any) -> int:
  return -len(error.absolute_path)


def _key(schema: Schema) -> str:
  return json.dumps(schema, sort_keys=True)


@functools.lru_cache(64)
def _validator(schema: str):
  import jsonschema  # 0.1 s that only a server pays

  return jsonschema.Draft202012Validator(json.loads(schema))
