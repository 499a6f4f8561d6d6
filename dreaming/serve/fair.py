"""A bounded queue that takes turns among clients: nobody waits behind all of another's requests."""

from __future__ import annotations

import collections
from typing import Any


class Full(Exception):
  """The queue holds as much as it may: 429."""


class FairQueue:
  """First in, first out for each client, one of each in turn. Not locked: its owner is.

  Args:
    limit: of all that wait. One client may have all but a quarter of it.
  """

  def __init__(self, limit: int):
    self._limit, self._own = limit, max(1, limit - limit // 4)
    self._waiting: collections.OrderedDict[str, collections.deque[Any]] = collections.OrderedDict()

  def __len__(self) -> int:
    return sum(map(len, self._waiting.values()))

  def put(self, client: str, items: list[Any]) -> None:
    """Takes all items, or none. Raises Full."""
    own = len(self._waiting.get(client, ()))
    if len(self) + len(items) > self._limit or own + len(items) > self._own:
      raise Full(
        f'{len(self)} requests wait ({own} of yours), the limit is {self._limit} (serve.queue): '
        'try again in a moment'
      )
    self._waiting.setdefault(client, collections.deque()).extend(items)

  def pop(self) -> Any | None:
    """The next one, or None."""
    while self._waiting:
      client, items = self._waiting.popitem(last=False)
      if not items:
        continue
      item = items.popleft()
      if items:
        self._waiting[client] = items  # behind all others
      return item
    return None

  def remove(self, item: Any) -> bool:
    """Takes an item out that nobody waits for any more."""
    for items in self._waiting.values():
      if item in items:
        items.remove(item)
        return True
    return False
