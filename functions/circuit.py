"""A circuit breaker: what did not answer is left alone for a moment, so that no request waits for it again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from shared.errors import InfrastructureFault

FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 2.0


class Circuit:
    """Guards calls to one server. After a fault it opens: calls fail at once until the pause is over, then one tries.

    The pause doubles with each fault in a row and a call that is answered, be it with a refusal, closes the circuit
    (Nygard, "Release It!", 2nd edition, section 5.2).
    """

    def __init__(
        self, fault: type[InfrastructureFault], name: str, seconds: Callable[[], float], *, on_open: Callable[[], None]
    ) -> None:
        """`fault` is what an open circuit raises; `seconds` is a monotonic clock; `on_open` is told of each fault."""
        self._fault = fault
        self._name = name
        self._seconds = seconds
        self._on_open = on_open
        self._lock = threading.Lock()
        self._faults = 0
        self._open_until = 0.0

    @property
    def closed(self) -> bool:
        """No fault since the last success."""
        return self._faults == 0

    def call[T](self, function: Callable[[], T]) -> T:
        """Run `function`; raises what it raises, or the circuit's fault at once while it is open."""
        if self._faults:
            self._enter_half_open()
        try:
            answer = function()
        except InfrastructureFault as fault:
            if fault.answered:
                self._close()
            else:
                self._record_fault()
            raise
        self._close()
        return answer

    def _enter_half_open(self) -> None:
        with self._lock:
            now = self._seconds()
            if self._faults and now < self._open_until:
                raise self._fault(f"{self._name} did not answer a moment ago; it is asked again within seconds")
            self._open_until = now + self._pause()

    def _close(self) -> None:
        if self._faults:
            with self._lock:
                self._faults, self._open_until = 0, 0.0

    def _record_fault(self) -> None:
        with self._lock:
            self._faults += 1
            self._open_until = self._seconds() + self._pause()
        self._on_open()

    def _pause(self) -> float:
        return float(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(max(self._faults - 1, 0), 10)))
