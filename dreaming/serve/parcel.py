"""A whole agent as one file, out of a server and into one."""

from __future__ import annotations

import asyncio
import pathlib
import re
import shutil
import tempfile
import time

from starlette.background import BackgroundTask
from starlette.responses import FileResponse, JSONResponse, Response

from dreaming import bundle
from dreaming.identity.forget import sync
from dreaming.serve import routes
from dreaming.serve.access import Refused
from dreaming.serve.config import NAME, ServeConfig
from dreaming.serve.routes import Call, Endpoint
from dreaming.serve.talk import Talk

_CHUNK = 1 << 20  # bytes that are written at a time


class Parcel:
  """Sends the agent that is served, and takes others in beside it."""

  def __init__(self, talk: Talk, config: ServeConfig):
    self._talk, self._agent, self._limit = talk, talk.agent, config.max_agent_bytes
    self._taking = asyncio.Lock()

  def endpoints(self) -> list[Endpoint]:
    return [
      Endpoint(method='GET', path='/api/agent', handler=self.send, scope='admin',
               summary='The whole agent as one file', answer='application/zip'),
      Endpoint(method='POST', path='/api/agent/{name}', handler=self.take, scope='admin',
               summary='Take such a file in, as a further identity: serve.identities serves it',
               upload='application/zip'),
    ]  # fmt: skip

  async def send(self, call: Call) -> Response:
    del call
    directory = tempfile.mkdtemp(dir=self._agent.workdir, prefix='.sending-')
    path = pathlib.Path(directory) / f'{time.strftime("%Y-%m-%d")}{bundle.ENDING}'
    over = BackgroundTask(shutil.rmtree, directory, ignore_errors=True)
    try:
      await asyncio.to_thread(bundle.pack, self._agent, path)
    except BaseException:
      await over()
      raise
    return FileResponse(path, media_type='application/zip', filename=path.name, background=over)

  async def take(self, call: Call) -> Response:
    self._talk.check()  # the base tells whether it fits
    base = self._agent.base.digest
    name = call.request.path_params['name']
    if not re.fullmatch(NAME, name):
      line = f'{name[:60]!r} is no name of an identity: take a to z, 0 to 9, _ and -'
      raise Refused(422, line, 'invalid_value')
    to = self._agent.workdir.parent / name
    if to.exists():
      raise Refused(409, f'there is an identity {name!r} already: choose another name', 'exists')
    if self._taking.locked():
      raise Refused(409, 'another agent is being taken in: wait until it is there', 'busy')
    async with self._taking:
      with tempfile.TemporaryDirectory(dir=self._agent.workdir, prefix='.unpacking-') as tmp:
        file, home = pathlib.Path(tmp) / f'taken{bundle.ENDING}', pathlib.Path(tmp) / name
        await self._receive(call, file)
        try:
          about = await asyncio.to_thread(bundle.unpack, file, home)
        except ValueError as e:  # of the line no path is told
          raise Refused(422, str(e).replace(str(file), 'the file'), 'invalid_agent') from None
        kept = {k: about.get(k) for k in ('agent', 'user', 'active', 'experiences', 'lost')}
        home.rename(to)
        await asyncio.to_thread(sync, to.parent)
    fits = set(about.get('bases') or ()) <= {base}
    how = f'name it in serve.identities: --config.serve.identities="({name!r},)"'
    return JSONResponse({'name': name, **kept, 'same_base': fits, 'next': how}, 201)

  async def _receive(self, call: Call, file: pathlib.Path) -> None:
    """The body into a file, no more than allowed."""
    part = bytearray()
    line = f'the file has more than {self._limit:,} bytes (serve.max_agent_bytes)'
    refused = Refused(413, line, 'body_too_large', {'Connection': 'close'})
    with file.open('xb') as out:

      async def keep(chunk: bytes) -> None:
        part.extend(chunk)
        if len(part) >= _CHUNK:
          await asyncio.to_thread(out.write, bytes(part))
          part.clear()

      await routes.receive(call.request, self._limit, keep, refused)
      out.write(part)
