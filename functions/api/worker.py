"""The worker's services as handlers reach them: composed when they are first needed, never at import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, cast

from fastapi import Depends, Request

from functions.bootstrap import Services
from functions.metrics import Metrics
from shared.settings import Settings

DEFAULTS = Settings()


class WorkerServices:
    """Holds the function that composes; it is asked again and again, and composes once."""

    def __init__(self, compose_once: Callable[[], Services]) -> None:
        self._compose_once = compose_once
        self._services: Services | None = None

    def get(self) -> Services:
        """The services. Raises what composing raises."""
        if self._services is None:
            self._services = self._compose_once()
        return self._services

    @property
    def composed(self) -> Services | None:
        """The services if there are any yet; composes nothing."""
        return self._services

    def forget(self) -> None:
        """The services were closed."""
        self._services = None

    @property
    def metrics(self) -> Metrics | None:
        """The counters, None before anything was composed."""
        return None if self._services is None else self._services.metrics

    @property
    def settings(self) -> Settings:
        """The settings, the defaults before anything was composed."""
        return DEFAULTS if self._services is None else self._services.settings


async def _worker(request: Request) -> WorkerServices:
    return cast("WorkerServices", request.app.state.worker)


Worker = Annotated[WorkerServices, Depends(_worker)]
"""A handler's way to the services. It is a coroutine so that no thread is used up for it."""
