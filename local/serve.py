"""The whole online system on one machine: embedded servers, the API over HTTP, the event pump, the timers."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import uvicorn
from redis import Redis

from local.embedded import EmbeddedServers
from local.event_pump import EventPump
from local.instance_lock import InstanceLock
from local.trigger_host import TIMER, TimerThread, Triggered, event_function, event_hub_batch, triggered_functions
from shared.adapters.redis_connection import connect
from shared.adapters.redis_log import RedisCheckpoints, RedisEventLog
from shared.cli import command
from shared.errors import ConfigurationError, InfrastructureFault
from shared.settings import Settings

DEFAULT_DATA: Final = Path(".recommndr/data")
DEFAULT_PORT: Final = 7071
DEFAULT_HOST: Final = "127.0.0.1"
GRACEFUL_SHUTDOWN_S: Final = 5
PUMP_TIMEOUT_MS: Final = 2000


def listening_socket(host: str, port: int) -> socket.socket:
    """A TCP socket that listens; port 0 takes a free one. Raises ConfigurationError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
        server.listen(128)
    except OSError as error:
        server.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({error.strerror}); another program may use it: give another --port"
        ) from error
    server.set_inheritable(True)
    return server


def local_environment(data: Path, servers: EmbeddedServers) -> dict[str, str]:
    """The settings that tie every process of this machine to one shop's folder and servers."""
    return {
        "REDIS_URL": servers.state_url,
        "EVENT_LOG_URL": servers.log_url,
        "BLOB_URL": str(data),
    }


class Triggers:
    """The event pump and the timers, each in a thread of its own, between `start` and `stop`."""

    def __init__(self, functions: Sequence[Triggered], settings: Settings, log_client: Redis) -> None:
        function = event_function(functions)
        broker = RedisEventLog(log_client, settings.event_source, settings.partition_count)
        self._timers = [TimerThread(function) for function in functions if function.trigger == TIMER]
        self._pump = EventPump(
            broker,
            RedisCheckpoints(log_client, settings.event_source),
            range(settings.partition_count),
            lambda records: function.call(event_hub_batch(records)),
            wait=broker.wait,
        )

    def start(self) -> None:
        """Begin; what fell due while nobody was there comes first."""
        self._pump.start()
        for timer in self._timers:
            timer.start()

    def stop(self) -> None:
        """End after the calls under way."""
        self._pump.stop()
        for timer in self._timers:
            timer.stop()


class TriggeringServer(uvicorn.Server):
    """Calls `begin` once it answers, and `end` before the application's life ends: triggers use its services."""

    def __init__(self, config: uvicorn.Config, begin: Callable[[], None], end: Callable[[], None]) -> None:
        super().__init__(config)
        self._begin = begin
        self._end = end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does, then `begin`."""
        await super().startup(sockets)
        if self.started:
            self._begin()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """`end`, then as uvicorn does."""
        await asyncio.to_thread(self._end)
        await super().shutdown(sockets)


def serve_http(
    api: Any,  # noqa: ANN401 - an ASGI application
    listener: socket.socket,
    begin: Callable[[], None],
    end: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are finished and the app's lifespan ends before it returns.

    Raises InfrastructureFault when the application does not start.
    """
    config = uvicorn.Config(
        api,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=GRACEFUL_SHUTDOWN_S,
    )
    # uvicorn sends itself the signal again when it is done; what follows here must still run, so nothing answers it.
    kept = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    server = TriggeringServer(config, begin, end)
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    if not server.started:
        raise InfrastructureFault("the API did not start; what it logged says why")


def describe(address: str, data: Path, settings: Settings) -> str:
    """What runs where, for the terminal."""
    lines = {
        "API": address,
        "documentation": f"{address}/docs",
        "metrics": f"{address}/metrics",
        "shop": str(data),
        "state": settings.redis_url.rpartition("@")[2],
        "broker log": settings.event_log_url.rpartition("@")[2],
    }
    return "\n".join(f"  {name:14}{value}" for name, value in lines.items())


def load_function_app() -> Any:  # noqa: ANN401 - the module as Azure loads it
    """function_app.py, imported once the environment is set: what it composes reads the settings."""
    return importlib.import_module("function_app")


def serve(data: Path, host: str, port: int, environ: Mapping[str, str]) -> None:
    """Serve a shop's folder until SIGINT or SIGTERM. Raises ConfigurationError before anything has started."""
    with ExitStack() as stack:
        lock = stack.enter_context(InstanceLock(data))
        listener = stack.enter_context(closing(listening_socket(host, port)))
        servers = stack.enter_context(EmbeddedServers(data, environ.get("REDIS_URL") or None))
        os.environ.update(local_environment(data, servers))
        settings = Settings.from_environment(os.environ)
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("azure").setLevel(logging.WARNING)
        application = load_function_app()
        # XREAD blocks for the pump's idle time, so its client waits longer than a request does.
        timeout_ms = max(PUMP_TIMEOUT_MS, settings.event_log_timeout_ms)
        log_client = stack.enter_context(closing(connect(settings.event_log_url, timeout_ms=timeout_ms)))
        triggers = Triggers(triggered_functions(application.app), settings, log_client)
        address = f"http://{'localhost' if host == DEFAULT_HOST else host}:{listener.getsockname()[1]}"

        def begin() -> None:
            triggers.start()
            lock.announce(address)
            print(f"Recommndr serves; Ctrl-C ends it.\n{describe(address, data, settings)}", flush=True)

        def end() -> None:
            print("stopping: requests end, pages shown are written, servers stop", flush=True)
            triggers.stop()

        serve_http(application.api, listener, begin, end)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.serve", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="the shop's folder (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one (%(default)s)")
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (%(default)s)")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    arguments = _arguments(argv)
    serve(arguments.data, arguments.host, arguments.port, os.environ)
    return 0


if __name__ == "__main__":
    sys.exit(main())
