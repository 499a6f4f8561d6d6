"""When it is time to sleep: at an hour, after so much was lived, or when nobody talks any more.

Never twice over the same experiences: what counts was lived since the last night began.
"""

from __future__ import annotations

import dataclasses
import datetime
import re

from dreaming.memory.diary import Diary
from dreaming.sleep import review

_TIME = r'([01]?\d|2[0-3]):([0-5]\d)'
_RETRY = 1800.0  # seconds after which a night that was cut off is tried again


@dataclasses.dataclass(frozen=True, kw_only=True)
class TriggerConfig:
  """Mirrors `config.trigger`. What is 0 or '' begins no night."""

  at: str = ''  # 'HH:MM', local time
  interactions: int = 0  # new ones
  importance: float = 0.0  # the sum of those that are rated
  idle_minutes: float = 0.0  # since the last word
  quiet: str = ''  # 'HH:MM-HH:MM', in which no night begins

  def __post_init__(self):
    if self.at and not re.fullmatch(_TIME, self.at):
      raise ValueError(f"trigger.at={self.at!r}: it is a time like '03:30', or ''")
    if self.quiet and not re.fullmatch(f'{_TIME}-{_TIME}', self.quiet):
      raise ValueError(f"trigger.quiet={self.quiet!r}: it is hours like '08:00-22:30', or ''")
    for name in ('interactions', 'importance', 'idle_minutes'):
      if not vars(self)[name] >= 0:
        raise ValueError(f'trigger.{name}={vars(self)[name]}: it is at least 0')

  @property
  def armed(self) -> bool:
    """Whether anything but a wish begins a night."""
    return bool(self.at or self.interactions or self.importance or self.idle_minutes)


def due(
  diary: Diary, now: float, config: TriggerConfig, zone: datetime.tzinfo | None = None
) -> str:
  """Why a night should begin now, or ''.

  Args:
    now: Unix seconds.
    zone: of the hours, by default the machine's.
  """
  local = datetime.datetime.fromtimestamp(now, datetime.UTC).astimezone(zone)
  if not config.armed or _within(config.quiet, local):
    return ''
  nights = diary.nights()
  if (number := diary.open_night()) is not None:
    if review.waiting(diary):
      return ''
    last = next(n for n in nights if n.number == number)
    return f'night {number} is not over' if now - last.started >= _RETRY else ''
  slept = max((n.started for n in nights), default=0.0)
  new = [e for e in diary.experiences(since=slept, unconsumed=True) if e.time > slept]
  if not new:
    return ''
  if config.interactions and len(new) >= config.interactions:
    return f'{len(new)} interactions since the last night'
  rated = sum(e.scores.importance for e in new if e.scores is not None)
  if config.importance and rated >= config.importance:
    return f'what was said since the last night has an importance of {rated:.0f}'
  idle = (now - max(e.time for e in new)) / 60
  if config.idle_minutes and idle >= config.idle_minutes:
    return f'nobody has talked for {idle:.0f} minutes'
  if config.at:
    hour, minute = map(int, config.at.split(':'))
    begin = local.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if slept < begin.timestamp() <= now and min(e.time for e in new) < begin.timestamp():
      return f'it is past {config.at}'
  return ''


def _within(hours: str, local: datetime.datetime) -> bool:
  """Whether a time of day is within 'HH:MM-HH:MM', which may go past midnight."""
  if not hours:
    return False
  begin, end = (datetime.time.fromisoformat(x.zfill(5)) for x in hours.split('-'))
  clock = local.time()
  return begin <= clock < end if begin <= end else clock >= begin or clock < end
