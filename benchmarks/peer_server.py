"""A plain server of transformers, run in the peers' environment: a route, a lock, `generate`.

  python peer_server.py DIRECTORY PORT DTYPE TOGETHER

Of our own weights, as common.hand_over writes them. TOGETHER says how many requests may generate at
a time, each in a thread; two cores are mostly served best by one.
"""

from __future__ import annotations

import sys
import threading

import torch
import uvicorn
from peer import Session
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route


def main(directory: str, port: str, dtype: str, together: str) -> None:
  session, turn = Session(), threading.Semaphore(int(together))
  session.load(directory, dtype)

  def generate(ids: list[int], tokens: int) -> list[int]:
    with turn, torch.inference_mode():
      return session.decode(ids, tokens)['ids']

  async def complete(request):
    body = await request.json()
    said = await run_in_threadpool(generate, body['prompt'], body['max_tokens'])
    return JSONResponse({'ids': said, 'usage': {'completion_tokens': len(said)}})

  app = Starlette(routes=[Route('/v1/completions', complete, methods=['POST'])])
  uvicorn.run(app, host='127.0.0.1', port=int(port), log_level='error')


if __name__ == '__main__':
  main(*sys.argv[1:])
