"""One thread that does one thing again and again until it is told to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from shared.errors import InfrastructureFault

log = logging.getLogger(__name__)


class Background:
    """Calls `step` every `pause_ms`. A fault is logged when it begins and when it ends, and never ends the thread."""

    def __init__(self, name: str, step: Callable[[], object], pause_ms: int) -> None:
        self._name = name
        self._step = step
        self._pause_s = pause_ms / 1000
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False

    def start(self) -> None:
        """Begin; nothing happens when it runs already."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End after the step under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
            self._thread = None

    def _run(self) -> None:
        while not self._stop.is_set():
            self.take_step()
            self._stop.wait(self._pause_s)

    def take_step(self) -> None:
        """One step in the caller's thread; a fault is logged as it would be in the background."""
        try:
            self._step()
        except InfrastructureFault as error:
            if not self._failing:
                log.warning("%s: %s; trying on", self._name, error)
            self._failing = True
        except Exception:
            log.exception("%s: a step failed; trying on", self._name)
            self._failing = True
        else:
            if self._failing:
                log.info("%s: works again", self._name)
            self._failing = False
