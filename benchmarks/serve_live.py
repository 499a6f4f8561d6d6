"""A live server in a thread of this process, and generations for it: for tests and benchmarks."""

from __future__ import annotations

import socket
import threading
import time

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import openai
import uvicorn

from configs import tiny
from dreaming.agent import Agent
from dreaming.brain import lora
from dreaming.identity import generations
from dreaming.serve import server as server_lib


class Live:
  """A server in a thread of this process, on a port of its own.

  Args:
    token: with which its clients ask, where it wants one.
  """

  def __init__(self, agent: Agent, token: str = 'none', others: dict[str, Agent] | None = None):
    self.agent, self.token = agent, token
    self.server = server_lib.Server(agent, others)
    self.socket = socket.socket()
    self.socket.bind(('127.0.0.1', 0))
    self.port = self.socket.getsockname()[1]
    self.url = f'http://127.0.0.1:{self.port}'
    self._uvicorn = uvicorn.Server(
      uvicorn.Config(
        self.server.app, log_config=None, lifespan='on', loop='asyncio', timeout_graceful_shutdown=5
      )
    )
    self._thread = threading.Thread(target=self._uvicorn.run, args=([self.socket],))

  def __enter__(self) -> Live:
    self._thread.start()
    headers = {'Authorization': f'Bearer {self.token}'}
    self.http = httpx.Client(base_url=self.url, timeout=60, headers=headers)
    end = time.monotonic() + 900  # compiling on a busy machine
    while time.monotonic() < end:
      try:
        others = [s for s in self.server.others if not s.failed]
        paths = ['/ready', *(f'/agents/{s.name}/ready' for s in others)]
        if all(self.http.get(path).status_code == 200 for path in paths):
          break
      except httpx.TransportError:
        pass
      assert not self.server.failed
      time.sleep(0.1)
    else:
      raise TimeoutError('the server does not get ready')
    self.client = openai.OpenAI(
      base_url=f'{self.url}/v1', api_key=self.token, max_retries=0, timeout=60
    )
    return self

  def __exit__(self, *_) -> None:
    self.client.close()
    self.http.close()
    self._uvicorn.should_exit = True
    self._thread.join(30)
    self.socket.close()
    assert not self._thread.is_alive()


def plant(agent: Agent, seed: int, *, strength: float = 0.25, promote: bool = True) -> int:
  """Saves and promotes a generation of random weights, as a night would; returns its number."""
  base, diary = agent.base, agent.diary
  rng = np.random.default_rng(seed)
  adapter = lora.init(jax.random.key(0), base.arch, rank=2, targets='.*')
  adapter = jax.tree.map(
    lambda x: jnp.asarray(rng.standard_normal(x.shape) * strength, x.dtype), adapter
  )
  root = agent.workdir / 'generations'
  fields = {
    'parent': diary.active() or None, 'night': None, 'created': 1.0, 'base': base.digest,
    'sources': (), 'seed': seed, 'lora': {'rank': 2, 'alpha': 4.0}, 'scores': {}, 'config': {},
  }  # fmt: skip
  made = generations.save(
    root, generations.next_number(root), adapter=adapter, manifest_fields=fields
  )
  if promote:
    diary.promote(made.manifest, (), None, path=made.path)
  return made.number


def serve_config(tmp_path_factory, name: str):
  c = tiny.get_config()
  c.workdir = str(tmp_path_factory.mktemp(name) / 'life')
  c.cache = str(tmp_path_factory.getbasetemp() / 'cache')
  c.decode.max_tokens = 8
  c.decode.cache_length = 1024
  c.serve.rate = 0
  c.serve.kernels = False  # kernels_test.py compiles them
  c.serve.slots = 4
  c.serve.queue = 16
  return c
