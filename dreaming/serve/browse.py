"""What the page looks at: the diary by filters, facts, a night in full, the forgetting matrix.

And what it brings in: a foreign log, as `--mode=import` does it.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import json
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from starlette.responses import JSONResponse, Response

from dreaming.agent import Agent
from dreaming.memory.nights import Night
from dreaming.memory.senses import media as media_lib
from dreaming.serve import own, schemas
from dreaming.serve.access import Refused
from dreaming.serve.probes import replies
from dreaming.serve.routes import Call, Endpoint
from dreaming.serve.talk import Talk
from dreaming.sleep import examine, ledger, metrics
from dreaming.types import Trust

_LIMIT = {'type': 'integer', 'minimum': 1, 'maximum': 200}
_OFFSET = {'type': 'integer', 'minimum': 0, 'maximum': 10_000_000}
_NIGHT = {'type': 'integer', 'minimum': 0, 'maximum': 2**53}
_TRUST = {trust.name.lower(): trust for trust in Trust}
_WAITING = 'waiting'  # for approval: imported, or of a third party
_CHOSEN = 200  # experiences of a night that are shown
_POINTS = 400  # of a curve
_MATRIX_BYTES = 4 << 20
_EPISODES = 30 * 86_400.0  # seconds
_LINES = 20  # of what an import left out
IMPORT = {
  'type': 'object',
  'properties': {
    'name': {'type': 'string', 'pattern': '^[A-Za-z0-9_][A-Za-z0-9_. -]{0,99}$'},
    'text': {'type': 'string', 'minLength': 1, 'description': 'of the file; JSON or JSON Lines'},
  },
  'required': ['name', 'text'],
  'additionalProperties': False,
}


class Browse:
  """Further endpoints under /api; all but the import only read."""

  def __init__(self, talk: Talk):
    self._talk, self._agent = talk, talk.agent

  def endpoints(self) -> list[Endpoint]:
    page = {'limit': _LIMIT, 'offset': _OFFSET}
    filters: dict[str, schemas.Schema] = {
      'text': {'type': 'string', 'maxLength': 200},
      'kind': {'enum': ['chat', 'observation', 'reflection', 'summary']},
      'trust': {'enum': [*_TRUST, _WAITING]},
      'night': _NIGHT,
    }
    return [
      Endpoint(method='GET', path='/api/diary', handler=self.diary, scope='read',
               summary='A page of experiences, newest first', query=page | filters),
      Endpoint(method='GET', path='/api/episodes', handler=self.episodes, scope='read',
               summary='Turns as they hang together, newest first; by default of the last 30 days',
               query=page | {k: schemas.FILTERS[k] for k in ('since', 'until')}),
      Endpoint(method='GET', path='/api/media/{digest}', handler=self.media, scope='read',
               summary='A picture or a sound of the diary', answer='application/octet-stream'),
      Endpoint(method='GET', path='/api/facts', handler=self.facts, scope='read',
               summary='What was told, and how well the weights hold it',
               query=page | {'state': {'enum': list(ledger.STATES)}}),
      Endpoint(method='GET', path='/api/nights/{number}/report', handler=self.report,
               scope='read', summary='What a night chose, asked, measured'),
      Endpoint(method='GET', path='/api/matrix', handler=self.matrix, scope='read',
               summary='After each night of --mode=life, what is known of each day'),
      Endpoint(method='POST', path='/api/import', handler=self.bring, scope='admin',
               summary='Bring a foreign log in, untrusted', body=IMPORT),
    ]  # fmt: skip

  # ---- The diary ----

  async def diary(self, call: Call) -> Response:
    fields = {'limit': 50} | call.query
    trust = fields.pop('trust', None)
    fields |= {'waiting': True} if trust == _WAITING else {'trust': _TRUST.get(trust)}

    def read() -> dict[str, Any]:
      ids, total = self._agent.diary.browse(**fields)
      found = self._agent.diary.experiences(ids=ids, newest_first=True)
      return {'total': total, 'experiences': [own.experience(x) for x in found]}

    return JSONResponse(await asyncio.to_thread(read))

  async def episodes(self, call: Call) -> Response:
    latest = self._agent.diary.experiences(limit=1, newest_first=True)
    since = latest[0].time - _EPISODES if latest else 0.0  # a whole life would hold others up
    fields = {'limit': 50, 'offset': 0, 'since': since} | call.query
    limit, offset = fields.pop('limit'), fields.pop('offset')
    found = await self._talk.with_mind(self._agent.episodes, **fields)
    some = found[::-1][offset : offset + limit]
    return JSONResponse({'total': len(found), 'episodes': [dataclasses.asdict(e) for e in some]})

  async def bring(self, call: Call) -> Response:
    report = await self._talk.with_mind(_import, self._agent, call.body['name'], call.body['text'])
    self._talk.news()
    return JSONResponse({
      'added': report.added, 'known': report.known, 'skipped': report.skipped,
      'damaged': report.damaged, 'formats': list(report.formats),
      'lines': [{'place': x.place, 'why': x.why} for x in report.lines[:_LINES]],
    })  # fmt: skip

  async def media(self, call: Call) -> Response:
    digest, store = call.request.path_params['digest'], self._agent.media
    try:
      data = await asyncio.to_thread(store.read, digest)
    except (ValueError, FileNotFoundError) as e:  # of the line no path is told
      line = 'it is damaged' if isinstance(e, ValueError) and len(digest) == 64 else 'not kept here'
      raise Refused(404, f'picture or sound {digest[:64]!r}: {line}', 'not_found') from None
    _, format = media_lib.kind(data)
    headers = {'Content-Security-Policy': "default-src 'none'; sandbox"}
    return Response(data, media_type=media_lib.TYPES[format], headers=headers)

  # ---- Facts ----

  async def facts(self, call: Call) -> Response:
    found = await asyncio.to_thread(ledger.facts, self._agent.diary)
    counts = collections.Counter(f.state for f in found)
    state, start = call.query.get('state'), call.query.get('offset', 0)
    chosen = [f for f in reversed(found) if state in (None, f.state)]
    return JSONResponse({
      'states': {s: counts[s] for s in ledger.STATES},
      'total': len(chosen),
      'facts': [
        {'experience': f.experience, 'time': f.time, 'text': f.text, 'state': f.state,
         'nights': list(f.nights),
         'exams': [{'night': n, 'share': share} for n, share in f.exams]}
        for f in chosen[start : start + call.query.get('limit', 50)]
      ],
    })  # fmt: skip

  # ---- A night ----

  async def report(self, call: Call) -> Response:
    return JSONResponse(await asyncio.to_thread(self._report, call.number('number')))

  def _report(self, number: int) -> dict[str, Any]:
    diary = self._agent.diary
    before = [n for n in diary.nights() if n.number <= number]
    if not before or before[-1].number != number:
      raise Refused(404, f'the diary has no night {number}', 'not_found')
    night = before.pop()
    left = {step: night.payloads.get(step) or {} for step in ('select', 'prune', 'examine')}
    chosen = night.result.get('selected') or left['select'].get('ids') or []
    missed = set(left['examine'].get('missed') or ())
    found = {e.id: e for e in diary.experiences(ids=chosen[:_CHOSEN])}
    log = self._agent.workdir / 'nights' / f'{number:04d}' / 'metrics.jsonl'
    return {
      'number': number,
      'parent': left['select'].get('parent'),
      'chosen': [  # in the order in which they were chosen
        {**own.experience(found[i]), 'missed': i in missed} for i in chosen if i in found
      ],
      'chosen_count': len(chosen),
      'measures': left['examine'].get('measures') or night.result.get('measures') or {},
      'base': left['examine'].get('base') or night.result.get('base') or {},
      'questions': list(self._questions(night, before)),
      'attempts': left['prune'].get('attempts') or [],
      'losses': _thinned([r for r in metrics.read(log) if r['step'] == 'train']),
    }

  def _questions(self, night: Night, before: list[Night]) -> Iterator[dict[str, Any]]:
    """Of its exam, with its answers, and those of an earlier night that was asked the same."""
    known: dict[str, dict[str, Any]] = {}
    for n in before:
      for _, question, reply, right in replies(n):
        known[question] = {'night': n.number, 'reply': reply, 'right': right}
    exams = self._agent.diary.dreams(styles=['exam'])
    asked = examine.held_out(d for d in exams if d.night <= night.number)[0]
    answers = {q.text: q.answers[0] for q in asked}  # the latest of each
    for measure, question, reply, right in replies(night):
      yield {
        'measure': measure, 'question': question, 'reply': reply, 'right': right,
        'answer': '' if measure == 'never_mentioned' else answers.get(question, ''),
        'before': known.get(question),
      }  # fmt: skip

  # ---- A life of many days ----

  async def matrix(self, call: Call) -> Response:
    del call
    return JSONResponse({'rows': await asyncio.to_thread(_rows, self._agent.workdir)})


def _import(agent: Agent, name: str, text: str) -> Any:
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory) / name
    path.write_text(text, encoding='utf-8')
    return agent.import_file(path)


def _thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """At most about _POINTS of them, the last among them."""
  step = max(1, len(rows) // _POINTS)
  kept = list(itertools.islice(reversed(rows), 0, None, step))[::-1]
  return [{'index': r['index'], 'values': r['values']} for r in kept]


def _rows(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """The rows that --mode=life has written so far; none where there was no such life."""
  try:
    with (workdir / 'lifelong.jsonl').open('rb') as f:
      lines = f.read(_MATRIX_BYTES).decode(errors='replace').splitlines()
  except FileNotFoundError:
    return []
  rows = []
  for line in lines:
    try:
      row = json.loads(line)
      rows.append({
        'day': pathlib.PurePath(row['days'][-1]).stem, 'generation': row['generation'],
        'promoted': row['promoted'], 'weights': row['weights'], 'invented': row['invented'],
      })  # fmt: skip
    except (ValueError, TypeError, KeyError, IndexError):
      break  # cut off in writing
  return rows
