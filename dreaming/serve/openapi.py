"""The OpenAPI document, made from the endpoints themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from dreaming.serve.routes import Endpoint

_ERRORS = {
  '400': 'no JSON', '401': 'no token, or a wrong one', '403': 'not with this token, or from here',
  '404': 'there is no such thing', '413': 'the body is too large', '422': 'a value is wrong',
  '429': 'too many requests', '503': 'not ready',
}  # fmt: skip


def document(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
  """OpenAPI 3.1 of the endpoints."""
  paths: dict[str, dict[str, Any]] = {}
  for e in endpoints:
    paths.setdefault(e.path, {})[e.method.lower()] = _operation(e)
  return {
    'openapi': '3.1.0',
    'info': {'title': 'Dreaming Machines', 'version': '1', 'license': {
      'name': 'Apache 2.0', 'identifier': 'Apache-2.0'}},
    'paths': paths,
    'components': {
      'securitySchemes': {'token': {'type': 'http', 'scheme': 'bearer'}},
      'schemas': {'Error': {
        'type': 'object', 'required': ['error'], 'properties': {'error': {
          'type': 'object', 'required': ['message', 'type'], 'properties': {
            'message': {'type': 'string'}, 'type': {'type': 'string'},
            'param': {'type': ['string', 'null']}, 'code': {'type': ['string', 'null']}}}},
      }},
    },
  }  # fmt: skip


def _operation(e: Endpoint) -> dict[str, Any]:
  names = re.findall(r'\{(\w+)\}', e.path)
  texts = {'model', 'digest', 'name'}
  kinds = {name: 'string' if name in texts or 'replies' in e.path else 'integer' for name in names}
  parameters = [
    {'name': n, 'in': 'path', 'required': True, 'schema': {'type': kinds[n]}} for n in names
  ] + [{'name': n, 'in': 'query', 'schema': dict(schema)} for n, schema in e.query.items()]
  error = {'application/json': {'schema': {'$ref': '#/components/schemas/Error'}}}
  answers: dict[str, Any] = {
    code: {'description': text, 'content': error} for code, text in _ERRORS.items()
  }
  answers['2XX'] = {'description': 'done', 'content': {e.answer: {}}}
  operation: dict[str, Any] = {
    'operationId': f'{e.method.lower()}{re.sub(r"[^a-zA-Z0-9]+", "_", e.path)}',
    'summary': e.summary, 'parameters': parameters, 'responses': answers,
    'security': [] if e.scope is None else [{'token': [e.scope]}],
  }  # fmt: skip
  if e.body is not None:
    operation['requestBody'] = {
      'required': bool(e.body.get('required')),
      'content': {'application/json': {'schema': dict(e.body)}},
    }
  if e.upload:
    operation['requestBody'] = {'required': True, 'content': {e.upload: {}}}
  return operation
