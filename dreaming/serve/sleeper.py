"""One night in a process of its own, for a server: what it is told and tells is lines of JSON.

  python -m dreaming.serve.sleeper  < {"config": {...}, "lock": 7, "user": "Ana"}

The server's lock on the identity comes along as an open descriptor, so nobody else can live this
identity while either of the two does. It runs at low priority, and ends when the server ends: its
standard input is then closed. What was finished stays, and the next night goes on there.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

_NICE = 15


def main() -> int:
  told = json.loads(sys.stdin.readline())
  os.nice(_NICE)
  out = os.fdopen(os.dup(sys.stdout.fileno()), 'w', buffering=1, encoding='utf-8')
  os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whoever prints does not break the protocol

  def tell(**fields: Any) -> None:
    out.write(json.dumps(fields, allow_nan=False) + '\n')

  threading.Thread(target=_watch, daemon=True).start()
  try:
    event, code = sleep(told, tell)
    tell(**event)
  except (ValueError, OSError) as e:
    tell(event='failed', reason=' '.join(str(e).split()))
    return 2
  return code


def sleep(told: dict[str, Any], tell: Any) -> tuple[dict[str, Any], int]:
  """The night; returns its end as an event, and the code that this process ends with."""
  from ml_collections import ConfigDict

  from dreaming.agent import Agent
  from dreaming.identity.bluegreen import IdentityLock
  from dreaming.sleep.outcome import finite

  def progress(step: str, done: int, total: int, values: Any) -> None:
    tell(event='progress', step=step, done=done, total=total, values=finite(dict(values)))

  config = ConfigDict(told['config'])
  with Agent(config, lock=IdentityLock(config.workdir, shared=told['lock'])) as agent:
    outcome = agent.sleep(user=told.get('user'), progress=progress)
  return {'event': 'ended', 'night': outcome.number, **outcome.plain()}, outcome.code


def _watch() -> None:
  """Ends this process with the one that started it."""
  while os.read(sys.stdin.fileno(), 1):  # not through the buffer: Python ends while this waits
    pass
  os._exit(130)


if __name__ == '__main__':
  sys.exit(main())
