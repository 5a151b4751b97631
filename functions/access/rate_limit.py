"""A token bucket for each of many callers, in one number a caller and in bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MOST_CALLERS: Final = 100_000
BURST_S: Final = 10
"""A bucket holds what may be asked for in so many seconds: a page of a shop is several requests at once."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request may come in, and what is left: `retry_after_s` is 0 where it may."""

    allowed: bool
    capacity: int
    remaining: int
    retry_after_s: float


class RateLimit:
    """At most `per_minute` requests a minute from each caller, up to ten seconds' worth of them at once.

    The generic cell rate algorithm (ITU-T I.371, annex A), which is a token bucket that keeps, in place of the tokens
    and when they were counted, the instant at which the bucket is full again. Who was not seen for that long has a full
    bucket and needs no entry: the callers not seen for longest are forgotten beyond 100,000.
    """

    def __init__(self, per_minute: int) -> None:
        """`per_minute` is 1 or more."""
        self._interval_s = 60.0 / per_minute
        self.capacity = max(1, per_minute * BURST_S // 60)
        self._tolerance_s = self._interval_s * (self.capacity - 1)
        # Not a dict: what is deleted at its front leaves holes that the next search for the front walks over.
        self._full_again_at: OrderedDict[str, float] = OrderedDict()

    def take(self, caller: str, now_s: float) -> Decision:
        """Count one request of `caller` at `now_s`, an instant of a monotonic clock in seconds."""
        full_at = max(self._full_again_at.pop(caller, now_s), now_s)
        wait_s = full_at - now_s - self._tolerance_s
        # The difference of two large instants is exact to about a nanosecond only.
        allowed = wait_s <= 1e-6
        if allowed:
            full_at += self._interval_s
        self._full_again_at[caller] = full_at
        if len(self._full_again_at) > MOST_CALLERS:
            self._full_again_at.popitem(last=False)
        remaining = self.capacity - math.ceil((full_at - now_s) / self._interval_s - 1e-6)
        return Decision(allowed, self.capacity, max(0, remaining), 0.0 if allowed else wait_s)

    def __len__(self) -> int:
        return len(self._full_again_at)
