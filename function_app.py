"""What Azure loads: an HTTP function per route of the API, the event trigger, the timer. Importing connects nothing."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import List  # noqa: UP035 - the Functions indexer takes no `list[...]`: with it the whole app would not load

import azure.functions as func
from fastapi.routing import iter_route_contexts

from functions import bootstrap
from functions.api.app import create_app
from functions.asgi_forwarding import forward
from shared.errors import ConfigurationError
from shared.settings import Settings

SEAL_SCHEDULE = "0 * * * * *"
LONGEST_FLUSH_S = 8.0
EVENT_HUB_SETTING = "EVENT_HUB"
"""Prefix of the app settings that say where the event hub is; by identity, EVENT_HUB__fullyQualifiedNamespace."""


def _cors_origins() -> tuple[str, ...]:
    """The setting. Settings that make no sense unload no function: the first request says what is wrong with them."""
    try:
        return Settings.from_environment(os.environ).cors_origins
    except ConfigurationError as error:
        logging.getLogger(__name__).critical("%s", error)
        return ()


CORS_ORIGINS = _cors_origins()
api = create_app(bootstrap.services, bootstrap.close, CORS_ORIGINS)
app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


def _http_function() -> Callable[[func.HttpRequest], Awaitable[func.HttpResponse]]:
    async def answer(req: func.HttpRequest) -> func.HttpResponse:
        return await forward(api, req)

    return answer


def _methods_of(path: str, methods: set[str]) -> list[str]:
    """What one function takes; of several at one address the first answers the preflights of all."""
    if CORS_ORIGINS and path not in _preflighted:
        _preflighted.add(path)
        methods = methods | {"OPTIONS"}
    return sorted(methods - {"HEAD"})


_preflighted: set[str] = set()
for _route in iter_route_contexts(api.routes):
    assert _route.path is not None, "every route of the API has an address"
    assert _route.name is not None, "and a name"
    app.function_name(_route.name)(
        app.route(
            route=_route.path.lstrip("/"),
            methods=_methods_of(_route.path, _route.methods or set()),
            auth_level=func.AuthLevel.ANONYMOUS,
            trigger_arg_name="req",
        )(_http_function())
    )


@app.function_name("process_events")
@app.retry(
    strategy="exponential_backoff", max_retry_count="-1", minimum_interval="00:00:01", maximum_interval="00:01:00"
)
@app.event_hub_message_trigger(
    arg_name="events",
    event_hub_name="%EVENT_HUB_NAME%",
    connection=EVENT_HUB_SETTING,
    cardinality=func.Cardinality.MANY,
    data_type=func.DataType.BINARY,
)
def process_events(events: List[func.EventHubEvent]) -> None:  # noqa: UP006 - see the import of List
    """Fold a batch of one partition; what raises is offered again by the host's retry policy."""
    bootstrap.services().ingest.process_batch(events)


@app.function_name("seal_lake")
@app.timer_trigger(arg_name="timer", schedule=SEAL_SCHEDULE, run_on_startup=False, use_monitor=False)
def seal_lake(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the host passes it by this name
    """Every minute: landing rows become files of the lake."""
    bootstrap.services().sealer.run()


def _flush_on_sigterm() -> None:
    """Write the exposures when Azure takes the worker away, then do what would have been done without us."""
    before = signal.getsignal(signal.SIGTERM)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        # In a thread of its own: what this one was doing may hold a lock that closing needs.
        closing = threading.Thread(target=bootstrap.close, daemon=True)
        closing.start()
        closing.join(LONGEST_FLUSH_S)
        if callable(before):
            before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    signal.signal(signal.SIGTERM, on_sigterm)


if threading.current_thread() is threading.main_thread():
    _flush_on_sigterm()
