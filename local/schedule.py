"""When a timer of the Functions host runs next: its six-field schedule (NCRONTAB), by the machine's UTC clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from shared.errors import ConfigurationError

FIELDS = (("second", 0, 59), ("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 6))
LONGEST_LOOK_S = 24 * 3600


class Schedule:
    """Parsed `second minute hour day month weekday`; each is `*`, `a`, `a-b`, `*/n` or a comma-separated list of them.

    Raises ConfigurationError for anything else.
    """

    def __init__(self, text: str) -> None:
        parts = text.split()
        if len(parts) != len(FIELDS):
            raise ConfigurationError(f"the schedule {text!r} has {len(parts)} fields, not the {len(FIELDS)} it needs")
        self._text = text
        self._allowed = [_values(part, low, high, text) for part, (_, low, high) in zip(parts, FIELDS, strict=True)]

    def after(self, instant: datetime) -> datetime:
        """The first whole second after `instant` that fits; raises ConfigurationError when a day holds none."""
        candidate = instant.astimezone(UTC).replace(microsecond=0)
        for _ in range(LONGEST_LOOK_S):
            candidate += timedelta(seconds=1)
            if self._fits(candidate):
                return candidate
        raise ConfigurationError(f"the schedule {self._text!r} does not run within a day")

    def _fits(self, at: datetime) -> bool:
        values = (at.second, at.minute, at.hour, at.day, at.month, at.isoweekday() % 7)
        return all(value in allowed for value, allowed in zip(values, self._allowed, strict=True))


def _values(part: str, low: int, high: int, text: str) -> frozenset[int]:
    found: set[int] = set()
    try:
        for piece in part.split(","):
            span, _, step = piece.partition("/")
            first, _, last = ("", "", "") if span == "*" else span.partition("-")
            start = int(first) if first else low
            end = int(last) if last else (start if first and not step else high)
            found.update(range(start, end + 1, int(step) if step else 1))
    except ValueError as error:
        raise ConfigurationError(f"the schedule {text!r} cannot be read: {part!r}") from error
    if not found or not found <= set(range(low, high + 1)):
        raise ConfigurationError(f"the schedule {text!r} has {part!r} where {low} to {high} is allowed")
    return frozenset(found)
