"""Probes: what nights asked in their exams and how it was answered, and questions of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from starlette.responses import JSONResponse, Response

from dreaming.days import is_right
from dreaming.memory.nights import Night
from dreaming.serve import schemas
from dreaming.serve.completions import ask_all
from dreaming.serve.routes import Call, Endpoint
from dreaming.serve.talk import Talk
from dreaming.sleep import examine

_PAGE = {'limit': {'type': 'integer', 'minimum': 1, 'maximum': 500},
         'offset': {'type': 'integer', 'minimum': 0, 'maximum': 10_000_000}}  # fmt: skip
_UNKNOWN = 'never_mentioned'


class Probes:
  """The endpoints under /api/probes."""

  def __init__(self, talk: Talk):
    self._talk, self._agent = talk, talk.agent

  def endpoints(self) -> list[Endpoint]:
    return [
      Endpoint(method='GET', path='/api/probes', handler=self.asked, scope='read',
               summary="Questions of the nights' exams with their answers, the latest first",
               query=_PAGE),
      Endpoint(method='POST', path='/api/probes', handler=self.ask, scope='talk',
               summary='Questions with accepted answers: which generation knows them',
               body=schemas.PROBES),
    ]  # fmt: skip

  async def asked(self, call: Call) -> Response:
    found = await asyncio.to_thread(self._asked)
    start = call.query.get('offset', 0)
    page = found[start : start + call.query.get('limit', 100)]
    return JSONResponse({'total': len(found), 'probes': page})

  def _asked(self) -> list[dict[str, Any]]:
    diary = self._agent.diary
    known, _ = examine.held_out(diary.dreams(styles=['exam']))
    answers = {q.text: q for q in known}  # the latest of each
    found: dict[str, dict[str, Any]] = {}
    for night in diary.nights():
      for measure, question, reply, right in replies(night):
        probe = found.pop(question, None) or {'question': question, 'replies': []}
        about = answers.get(question) if measure != _UNKNOWN else None
        probe |= {
          'answers': list(about.answers) if about else [],
          'about': list(about.sources) if about else [],
        }
        probe['replies'].append({'night': night.number, 'reply': reply, 'right': right})
        found[question] = probe
    return list(found.values())[::-1]

  async def ask(self, call: Call) -> Response:
    body = call.body
    how = {name: body[name] for name in ('user', 'max_tokens', 'retrieval') if name in body}
    questions = [p['question'] for p in body['probes']]
    shares = {}
    out: list[dict[str, Any]] = [{**p, 'replies': {}} for p in body['probes']]
    for number in dict.fromkeys(body['generations']):
      said = await ask_all(self._talk, call, number, questions, **how)
      marks = [is_right(s, p['answers']) for s, p in zip(said, body['probes'], strict=True)]
      for probe, reply, right in zip(out, said, marks, strict=True):
        probe['replies'][str(number)] = {'reply': reply, 'right': right}
      shares[str(number)] = sum(marks) / len(marks)
    return JSONResponse({'probes': out, 'right': shares})


def replies(night: Night) -> Iterator[tuple[str, str, str, bool]]:
  """(measure, question, reply, whether it was right) of a night's exam."""
  found = (night.payloads.get('examine') or {}).get('replies') or {}
  for measure in ('recall', 'earlier', _UNKNOWN):
    for question, reply, right in found.get(measure, ()):
      # Of a question that nobody answered, to be right is to give an invention.
      yield measure, question, reply, bool(right) != (measure == _UNKNOWN)
