"""What Prometheus reads, and logs as one JSON object a line."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from dreaming.serve.engine import Engine
  from dreaming.serve.stream import Stream
  from dreaming.serve.voices import Voices

_BUCKETS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'


class Metrics:
  """A registry of its own, so that several servers may live in one process (tests do)."""

  def __init__(self) -> None:
    import prometheus_client as prometheus

    self._prometheus = prometheus
    self._registry = registry = prometheus.CollectorRegistry()
    own: dict[str, Any] = {'registry': registry, 'namespace': 'dreaming'}
    self.requests = prometheus.Counter(
      'requests', 'HTTP requests', ('method', 'path', 'status'), **own
    )
    self.seconds = prometheus.Histogram(
      'request_seconds', 'from the first byte in to the last out', ('path',), buckets=_BUCKETS,
      **own,
    )  # fmt: skip
    self._ended = prometheus.Counter('streams', 'generated texts', ('finish', 'generation'), **own)
    self._tokens = prometheus.Counter('tokens', 'said', ('generation',), **own)
    self._read = prometheus.Counter('prompt_tokens', 'of prompts', ('generation',), **own)
    self._first = prometheus.Histogram(
      'first_token_seconds', 'from asking to the first token', buckets=_BUCKETS, **own
    )
    self.swap_seconds = prometheus.Histogram(
      'swap_seconds', 'from deciding on a generation to its serving', buckets=_BUCKETS, **own
    )
    self.nights = prometheus.Counter('nights', 'that ended', ('state',), **own)
    self._engine: Engine | None = None
    self._watching = False
    self._gauge = lambda *a: prometheus.Gauge(*a, **own)

  def watch(self, engine: Engine, voices: Voices) -> None:
    """Gauges that are read when Prometheus asks; of a later engine the same ones."""
    engine.on_end = self.ended
    again, self._engine, self._watching = self._watching, engine, True
    if again:
      return

    def of_engine(name: str) -> Callable[[], int]:
      return lambda: getattr(self._engine, name, 0)

    gauges = {
      'streams_active': ('being spoken', of_engine('active')),
      'streams_waiting': ('in the queue', of_engine('waiting')),
      'generation': ('that serves', lambda: voices.serving),
      'generations_warm': ('ready to serve at once', lambda: len(voices.warm)),
      'compilations': ('of decoding, since it woke', of_engine('compilations')),
    }
    for name, (doc, read) in gauges.items():
      self._gauge(name, doc).set_function(read)

  def rest(self) -> None:
    """There is no engine for a while."""
    self._engine = None

  def ended(self, stream: Stream) -> None:
    number = str(stream.generation)
    self._ended.labels(stream.finish or 'error', number).inc()
    self._tokens.labels(number).inc(stream.completion_tokens)
    self._read.labels(number).inc(stream.prompt_tokens)
    if stream.first_at is not None:
      self._first.observe(stream.first_at - stream.asked_at)

  def text(self) -> bytes:
    return self._prometheus.generate_latest(self._registry)


class JsonLines(logging.Formatter):
  """time, level, what, and the fields that came with it. No message of a user is ever logged."""

  def format(self, record: logging.LogRecord) -> str:
    line: dict[str, Any] = {
      'time': round(time.time(), 3), 'level': record.levelname.lower(),
      'logger': record.name, 'event': record.getMessage(),
    }  # fmt: skip
    line |= getattr(record, 'fields', {})
    if record.exc_info:
      line['traceback'] = self.formatException(record.exc_info)
    return json.dumps(line, default=str, ensure_ascii=True)
