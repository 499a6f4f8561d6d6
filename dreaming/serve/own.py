"""Our own API: the diary, dreams, nights and generations of the agent that is served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.responses import JSONResponse, Response

from dreaming.memory.nights import Night
from dreaming.memory.score import UNWANTED, WANTED
from dreaming.serve import schemas
from dreaming.serve.access import Refused
from dreaming.serve.completions import ask_all
from dreaming.serve.message import session_of
from dreaming.serve.nights import Nights
from dreaming.serve.routes import Call, Endpoint
from dreaming.serve.swaps import Swaps
from dreaming.serve.talk import Talk
from dreaming.types import QA, Dream, Experience, Trust

_PAGE = {'type': 'integer', 'minimum': 1, 'maximum': 500}
_TRUST = {'user': Trust.USER, 'third_party': Trust.THIRD_PARTY, 'imported': Trust.IMPORTED}


class Own:
  """The endpoints under /api."""

  def __init__(self, talk: Talk, nights: Nights, swaps: Swaps):
    self._talk, self._nights, self._swaps = talk, nights, swaps
    self._agent = talk.agent

  def endpoints(self) -> list[Endpoint]:
    def e(method, path, handler, scope, summary, **more) -> Endpoint:
      return Endpoint(
        method=method, path=f'/api{path}', handler=handler, scope=scope, summary=summary, **more
      )

    page = {'limit': _PAGE, **schemas.FILTERS}
    number = {'type': 'integer', 'minimum': 1}
    return [
      e('GET', '/status', self.status, 'read', 'Who serves and what there is'),
      e('GET', '/experiences', self.experiences, 'read', 'The latest, newest first', query=page),
      e('GET', '/experiences/{id}', self.experience, 'read', 'One of them'),
      e('POST', '/experiences', self.observe, 'talk', 'Log something without an answer',
        body=schemas.EXPERIENCE),
      e('POST', '/recall', self.recall, 'read', 'What comes to mind', body=schemas.RECALL),
      e('POST', '/feedback', self.feedback, 'talk', 'Dream of it for sure, or never',
        body=schemas.FEEDBACK),
      e('POST', '/approve', self.approve, 'admin', 'Let nights dream of imported experiences',
        body=schemas.IDS),
      e('POST', '/forget', self.forget, 'admin', 'Delete experiences', body=schemas.IDS),
      e('GET', '/replies/{id}/why', self.why, 'read', 'What stood behind a reply'),
      e('GET', '/dreams', self.dreams, 'read', 'Of a night, by default the last',
        query={'night': number}),
      e('POST', '/dreams/{id}/review', self.review, 'admin',
        'Approve, reject or edit a dream of a night that waits, and its other wordings',
        body=schemas.REVIEW),
      e('GET', '/nights', self.list_nights, 'read', 'All nights, oldest first'),
      e('POST', '/nights', self.start, 'admin', 'Begin a night, or go on with one',
        body=schemas.NIGHT),
      e('GET', '/nights/current', self.current, 'read', 'The night that runs here'),
      e('GET', '/nights/current/events', self.events, 'read', 'Its progress, as it comes',
        query={'after': {'type': 'integer', 'minimum': -1}}, answer='text/event-stream'),
      e('POST', '/nights/refuse', self.refuse, 'admin', 'End the night that waits for its review',
        body=schemas.NOTHING),
      e('POST', '/nights/current/cancel', self.cancel, 'admin', 'End it; a later one goes on',
        body=schemas.CANCEL),
      e('GET', '/nights/{number}', self.night, 'read', 'One night with its measures'),
      e('GET', '/generations', self.generations, 'read', 'All, and which one serves'),
      e('POST', '/generations/compare', self.compare, 'talk', 'The same questions to several',
        body=schemas.COMPARE),
      e('POST', '/generations/rollback', self.rollback, 'admin',
        'Let an earlier one serve, by default the parent', body=schemas.ROLLBACK),
      e('POST', '/generations/{number}/promote', self.promote, 'admin', 'Let this one serve',
        body=schemas.NOTHING),
      e('POST', '/generations/{number}/pin', self.pin, 'admin', 'Keep it warm',
        body=schemas.NOTHING),
      e('DELETE', '/generations/{number}/pin', self.unpin, 'admin', 'Keep it no longer'),
    ]  # fmt: skip

  # ---- The diary ----

  async def status(self, call: Call) -> Response:
    del call
    s = await asyncio.to_thread(self._agent.status)
    return JSONResponse({
      'agent': self._agent.life.agent, 'user': self._agent.life.user, 'serving': s.active,
      'generations': s.generations, 'experiences': s.experiences, 'unconsumed': s.unconsumed,
      'dreams': s.dreams, 'nights': [{'number': n, 'state': state} for n, state in s.nights],
      'review': self._reviewed, 'waiting': self._waiting,
      'baking': self._talk.baking.plain(), 'senses': self._talk.senses.there,
      'asleep': self._talk.doze.asleep, 'held': self._talk.doze.held,
      'night_running': self._nights.running, 'warm': self._talk.voices.warm,
    })  # fmt: skip

  async def experiences(self, call: Call) -> Response:
    found = await asyncio.to_thread(self._agent.memories, **{'limit': 50} | call.query)
    return JSONResponse({'experiences': [experience(x) for x in found]})

  async def experience(self, call: Call) -> Response:
    found = self._agent.diary.experiences(ids=[call.number('id')])
    if not found:
      raise Refused(404, f'the diary has no experience {call.number("id")}', 'not_found')
    return JSONResponse(experience(found[0]))

  async def observe(self, call: Call) -> Response:
    fields = dict(call.body)
    if 'trust' in fields:
      fields['trust'] = _TRUST[fields['trust']]
    if 'time' in fields:
      fields['now'] = fields.pop('time')
    user = fields.setdefault('user', self._agent.life.user)
    # Of a client that names none, all that it logs for somebody is one.
    fields['session'] = session_of(
      call.client.name, user, fields.get('session', ''), fields.get('now')
    )
    self._talk.news()
    content = fields.pop('content')
    made = await self._talk.with_mind(self._agent.observe, content, **fields)
    return JSONResponse(experience(made), 201)

  async def recall(self, call: Call) -> Response:
    found = await self._talk.with_mind(self._agent.memories, **call.body)
    return JSONResponse({'experiences': [experience(x) for x in found]})

  async def feedback(self, call: Call) -> Response:
    value = WANTED if call.body['value'] == 'up' else UNWANTED
    made = await self._talk.with_mind(self._agent.feedback, value, call.body.get('experience'))
    if not made.metadata.get('read'):  # a note's words say nothing of who found it
      self._talk.baking.judged(made.metadata.get('generation'), value == UNWANTED)
    return JSONResponse(experience(made))

  async def approve(self, call: Call) -> Response:
    count = await asyncio.to_thread(self._agent.approve, call.body['ids'], call.client.name)
    self._talk.news()
    return JSONResponse({'approved': count})

  async def forget(self, call: Call) -> Response:
    count = await self._talk.with_mind(self._agent.forget, call.body['ids'])
    self._talk.forget_whys()
    receipt = self._agent.receipt
    return JSONResponse({'forgotten': count, 'receipt': receipt and receipt.plain()})

  async def why(self, call: Call) -> Response:
    id = call.request.path_params['id']
    why = self._talk.why(id)
    if why is None:
      raise Refused(404, f'no reply {id[:60]!r} is remembered here', 'not_found')
    recalled = [
      {'experience': max(r.experience.id, 0) or None, 'content': r.experience.content,
       'score': r.score, 'relevance': r.relevance, 'recency': r.recency,
       'importance': r.importance}
      for r in why.recalled
    ]  # fmt: skip
    return JSONResponse({
      'question': why.question, 'reader': why.generation, 'prompt': why.prompt,
      'recalled': recalled,
    })  # fmt: skip

  # ---- Dreams and nights ----

  async def dreams(self, call: Call) -> Response:
    found = await asyncio.to_thread(self._agent.dreams, call.query.get('night'))
    return JSONResponse({'dreams': [_dream(d) for d in found]})

  async def list_nights(self, call: Call) -> Response:
    del call
    found = await asyncio.to_thread(self._agent.diary.nights)
    return JSONResponse({'nights': [_night(n) for n in found]})

  async def night(self, call: Call) -> Response:
    number = call.number('number')
    if number not in dict(self._agent.diary.night_states()):
      raise Refused(404, f'the diary has no night {number}', 'not_found')
    return JSONResponse(_night(self._agent.diary.night(number)))

  async def start(self, call: Call) -> Response:
    if (green := self._talk.baking.green) is not None:
      line = f'generation {green.generation} bakes: promote it, roll back, or wait'
      raise Refused(409, line, 'baking')

    async def reviewed() -> None:  # whoever asks for it by hand has
      if self._agent.waiting():
        await asyncio.to_thread(self._agent.let_on, call.client.name)

    run = await self._nights.start(call.body.get('user'), reviewed)
    events = f'{call.request.url.path}/current/events'
    return JSONResponse({'run': run, 'events': events}, 202)

  def _at_rest(self) -> None:
    if self._nights.running:
      raise Refused(409, 'the night is running: it does not wait', 'night_running')

  async def review(self, call: Call) -> Response:
    self._at_rest()
    body = dict(call.body)
    if 'pairs' in body:
      body['pairs'] = [QA(**p) for p in body['pairs']]
    changed = await asyncio.to_thread(self._agent.review, call.number('id'), **body)
    return JSONResponse({'dreams': [_dream(d) for d in changed]})

  async def refuse(self, call: Call) -> Response:
    self._at_rest()
    over = await asyncio.to_thread(self._agent.refuse, call.client.name)
    return JSONResponse({'night': over.night, 'state': 'rejected'})

  @property
  def _waiting(self) -> dict[str, Any] | None:
    now = None if self._nights.running else self._agent.waiting()
    return None if now is None else {'night': now.night, 'point': now.point}

  @property
  def _reviewed(self) -> bool:
    config = self._agent.config.review
    return config.dreams or config.generations

  async def current(self, call: Call) -> Response:
    del call
    return JSONResponse({
      'run': self._nights.run, 'running': self._nights.running, 'last': self._nights.last,
    })  # fmt: skip

  async def events(self, call: Call) -> Response:
    last = call.request.headers.get('last-event-id', '')
    after = int(last) if last.isascii() and last.isdecimal() else call.query.get('after', -1)

    async def lines() -> AsyncIterator[Mapping[str, str]]:
      async for number, event in self._nights.events(after):
        yield {'id': str(number), 'event': event['event'], 'data': json.dumps(event)}

    return EventSourceResponse(lines(), sep='\n')

  async def cancel(self, call: Call) -> Response:
    await self._nights.cancel(call.body.get('abandon', False))
    return await self.current(call)

  # ---- Generations ----

  async def generations(self, call: Call) -> Response:
    del call
    found = await asyncio.to_thread(self._agent.generations)
    voices = self._talk.voices
    state = {'serving': voices.serving, 'warm': voices.warm}
    base = {'number': 0, 'parent': None, 'pinned': voices.is_pinned(0)}
    return JSONResponse({**state, 'generations': [base, *(
      {
        'number': g.number, 'parent': g.parent or 0, 'night': g.manifest.night,
        'created': g.manifest.created, 'experiences': len(g.manifest.sources),
        'scores': dict(g.manifest.scores), 'pinned': voices.is_pinned(g.number),
      }
      for g in found
    )]})  # fmt: skip

  async def compare(self, call: Call) -> Response:
    body, answers = call.body, {}
    how = {name: body[name] for name in ('user', 'max_tokens') if name in body}
    for number in dict.fromkeys(body['generations']):
      await self._known(number)
      answers[str(number)] = await ask_all(self._talk, call, number, body['questions'], **how)
    return JSONResponse({'questions': body['questions'], 'answers': answers})

  async def rollback(self, call: Call) -> Response:
    if (number := call.body.get('generation')) is not None:
      await self._known(number)
    return await self._serve(number)

  async def promote(self, call: Call) -> Response:
    return await self._serve(await self._known(call.number('number')))

  async def _serve(self, number: int | None) -> Response:
    self._talk.doze.check()
    serving = await asyncio.to_thread(self._swaps.rollback, number)
    return JSONResponse({'serving': serving})

  async def pin(self, call: Call) -> Response:
    number = await self._known(call.number('number'))
    self._talk.doze.check()
    await asyncio.to_thread(self._talk.voices.pin, number)
    return JSONResponse({'number': number, 'pinned': True})

  async def unpin(self, call: Call) -> Response:
    number = await self._known(call.number('number'))
    self._talk.voices.unpin(number)
    return JSONResponse({'number': number, 'pinned': False})

  async def _known(self, number: int) -> int:
    found = {0, *(g.number for g in await asyncio.to_thread(self._agent.generations))}
    if number not in found:
      there = ', '.join(map(str, sorted(found)))
      raise Refused(404, f'there is no generation {number}; there are: {there}', 'not_found')
    return number


def experience(e: Experience) -> dict[str, Any]:
  """An experience as the API tells it."""
  return {
    'id': e.id, 'time': e.time, 'kind': e.kind, 'speaker': e.speaker, 'content': e.content,
    'response': e.response, 'trust': e.trust.name.lower(), 'session': e.session,
    'night': e.night, 'metadata': dict(e.metadata),
    'media': [dict(vars(m)) for m in e.media],
    'scores': None if e.scores is None else vars(e.scores),
  }  # fmt: skip


def _dream(d: Dream) -> dict[str, Any]:
  return {
    'id': d.id, 'night': d.night, 'style': d.style, 'text': d.text,
    'pairs': [{'question': p.question, 'answer': p.answer} for p in d.pairs],
    'sources': list(d.sources), 'status': str(d.status), 'trust': d.trust.name.lower(),
    'gain': d.quality.gain, 'grounded': d.quality.grounded, 'reason': d.quality.reason,
  }  # fmt: skip


def _night(n: Night) -> dict[str, Any]:
  return {
    'number': n.number, 'state': n.state, 'step': n.step, 'started': n.started, 'ended': n.ended,
    'result': dict(n.result),
  }  # fmt: skip
