"""Overlays on their way to Redis: at once where it answers, else kept and tried again until it does."""

from __future__ import annotations

import logging
import threading
from enum import Enum
from typing import Final

from functions.circuit import Circuit
from shared.adapters.redis_overlay import RedisOverlays
from shared.errors import InfrastructureFault
from shared.features.overlay import NO_OVERLAY, Overlay

log = logging.getLogger(__name__)

MOST_WAITING: Final = 10_000
"""Users; beyond, the one who waits longest is left to the fold, which has her event as well."""


class Written(Enum):
    """What became of an overlay."""

    YES = "every worker reads it"
    SUPERSEDED = "something newer stood there already"
    WAITING = "Redis does not answer; it is tried again"


class OverlayWriter:
    """Nothing depends on it for good: whatever it is given, the broker log has acknowledged before."""

    def __init__(self, overlays: RedisOverlays, circuit: Circuit) -> None:
        self._overlays = overlays
        self._circuit = circuit
        self._lock = threading.Lock()
        self._waiting: dict[str, Overlay] = {}

    def write(self, user_id: str, overlay: Overlay) -> Written:
        """Write it now, with what waited of hers, or keep it to be written later."""
        with self._lock:
            waited = self._waiting.get(user_id, NO_OVERLAY)
        wanted = waited.merge(overlay)
        try:
            written = Written.YES if self._send(user_id, wanted) else Written.SUPERSEDED
        except InfrastructureFault as error:
            log.debug("an overlay waits: %s", error)
            with self._lock:
                self._waiting[user_id] = self._waiting.pop(user_id, NO_OVERLAY).merge(wanted)
                while len(self._waiting) > MOST_WAITING:
                    del self._waiting[next(iter(self._waiting))]
            return Written.WAITING
        self._settle(user_id, waited)
        return written

    def waiting(self, user_id: str) -> Overlay:
        """What this worker knows of her and Redis does not yet."""
        return self._waiting.get(user_id, NO_OVERLAY)

    def retry(self) -> int:
        """Write what waits and return how many users it was. Raises StateUnavailable."""
        with self._lock:
            waiting = list(self._waiting.items())
        for user_id, overlay in waiting:
            self._send(user_id, overlay)
            self._settle(user_id, overlay)
        return len(waiting)

    def _settle(self, user_id: str, written: Overlay) -> None:
        with self._lock:
            if self._waiting.get(user_id) is written:  # else more came meanwhile
                del self._waiting[user_id]

    def _send(self, user_id: str, overlay: Overlay) -> bool:
        version, erased_at = overlay.preferences, overlay.erased_at
        if erased_at is not None:
            self._circuit.call(lambda: self._overlays.erase(user_id, erased_at))
        if version is None:
            return True
        # A broker that does not tell a place does not tell its clock either.
        untold = overlay.place is None
        return self._circuit.call(
            lambda: self._overlays.set_preferences(user_id, version, overlay.place, now_at_most=untold)
        )
