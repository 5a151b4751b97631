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
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import uvicorn

from local.embedded import STATE_OPTIONS, EmbeddedServer, EmbeddedServers
from local.event_pump import EventPump
from local.http_protocol import guarded_protocol
from local.instance_lock import InstanceLock
from local.trigger_host import TIMER, TimerThread, Triggered, event_function, event_hub_batch, triggered_functions
from shared.adapters.redis_connection import connect
from shared.adapters.redis_log import RedisCheckpoints, RedisEventLog
from shared.cli import command
from shared.errors import ConfigurationError, InfrastructureFault
from shared.log_lines import write_log_lines
from shared.ports import LogRecord
from shared.settings import Settings

DEFAULT_DATA: Final = Path(".recommndr/data")
DEFAULT_PORT: Final = 7071
DEFAULT_HOST: Final = "127.0.0.1"
GRACEFUL_SHUTDOWN_S: Final = 5
PUMP_TIMEOUT_MS: Final = 2000
CHECKPOINT_MS: Final = 250


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


class Pump(Protocol):
    """Hands the broker log's records to the event function, between `start` and `stop`."""

    def start(self) -> None:
        """Begin in a thread of its own."""
        ...

    def stop(self) -> None:
        """End after the call under way."""
        ...


Handler = Callable[[Sequence[LogRecord]], None]
"""Takes a batch of one partition."""


def embedded_pump(settings: Settings, stack: ExitStack, handler: Handler) -> Pump:
    """The pump over the embedded log."""
    # XREAD blocks for the pump's idle time, so its client waits longer than a request does.
    timeout_ms = max(PUMP_TIMEOUT_MS, settings.event_log_timeout_ms)
    client = stack.enter_context(closing(connect(settings.event_log_url, timeout_ms=timeout_ms)))
    broker = RedisEventLog(client, settings.event_source, settings.partition_count)
    checkpoints = RedisCheckpoints(client, settings.event_source)
    return EventPump(
        broker, checkpoints, range(settings.partition_count), handler, wait=broker.wait, checkpoint_ms=CHECKPOINT_MS
    )


class Triggers:
    """The event pump and the timers, each in a thread of its own, between `start` and `stop`."""

    def __init__(self, functions: Sequence[Triggered], make_pump: Callable[[Handler], Pump]) -> None:
        function = event_function(functions)
        self._timers = [TimerThread(function) for function in functions if function.trigger == TIMER]
        self._pump = make_pump(lambda records: function.call(event_hub_batch(records)))

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
    settings: Settings,
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
        http=guarded_protocol(settings),
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,
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
        "event source": settings.event_source,
    }
    return "\n".join(f"  {name:14}{value}" for name, value in lines.items())


def load_function_app() -> Any:  # noqa: ANN401 - the module as Azure loads it
    """function_app.py, imported once the environment is set: what it composes reads the settings."""
    return importlib.import_module("function_app")


def start_embedded(data: Path, environ: Mapping[str, str], stack: ExitStack) -> Callable[[Handler], Pump]:
    """Start state and broker log, set the environment for them, and return what makes the pump."""
    servers = stack.enter_context(EmbeddedServers(data, environ.get("REDIS_URL") or None))
    os.environ.update(local_environment(data, servers))
    return partial(embedded_pump, Settings.from_environment(os.environ), stack)


def start_over_kafka(
    data: Path, broker: str, environ: Mapping[str, str], stack: ExitStack
) -> Callable[[Handler], Pump]:
    """See that the topic is there, start the state, set the environment, and return what makes the pump.

    Raises ConfigurationError, or BrokerUnavailable when the topic cannot be used; the message names the command.
    """
    from local.kafka_pump import KafkaPump  # noqa: PLC0415 - Kafka's client is imported when it is asked for
    from local.kafka_serving import kafka_environment, make_topic_ready  # noqa: PLC0415 - as above
    from shared.adapters.kafka_connection import connection_of  # noqa: PLC0415 - as above

    os.environ.update(kafka_environment(broker, environ) | {"BLOB_URL": str(data)})
    settings = Settings.from_environment(os.environ)
    connection = connection_of(settings)
    if make_topic_ready(connection, settings.partition_count):
        print(f"made the topic {connection.address.topic} of {settings.partition_count} partitions", flush=True)
    if not environ.get("REDIS_URL"):
        os.environ["REDIS_URL"] = stack.enter_context(EmbeddedServer(data / "state", STATE_OPTIONS)).url
    return partial(KafkaPump, connection, settings.event_source)


def serve(data: Path, host: str, port: int, environ: Mapping[str, str], broker: str | None = None) -> None:
    """Serve a shop's folder until SIGINT or SIGTERM, over the embedded log or the Kafka topic that `broker` names.

    Raises RecommndrError before anything has started.
    """
    with ExitStack() as stack:
        lock = stack.enter_context(InstanceLock(data))
        listener = stack.enter_context(closing(listening_socket(host, port)))
        if broker is None:
            make_pump = start_embedded(data, environ, stack)
        else:
            make_pump = start_over_kafka(data, broker, environ, stack)
        settings = Settings.from_environment(os.environ)
        write_log_lines(settings.log_level, settings.log_format)
        logging.getLogger("azure").setLevel(logging.WARNING)
        application = load_function_app()
        # Settings that make no sense together are told here in one line; within the server they would be a stack trace.
        application.bootstrap.services()
        triggers = Triggers(triggered_functions(application.app), make_pump)
        address = f"http://{'localhost' if host == DEFAULT_HOST else host}:{listener.getsockname()[1]}"

        def begin() -> None:
            triggers.start()
            lock.announce(address)
            print(f"Recommndr serves; Ctrl-C ends it.\n{describe(address, data, settings)}", flush=True)

        def end() -> None:
            print("stopping: requests end, pages shown are written, servers stop", flush=True)
            triggers.stop()

        serve_http(application.api, settings, listener, begin, end)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.serve", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, metavar="DIR", help="the shop's folder (%(default)s)"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one (%(default)s)")
    parser.add_argument(
        "--broker", metavar="URL", help="kafka://host:port[/topic] instead of the embedded log (topic: events)"
    )
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (%(default)s)")
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    arguments = _arguments(argv)
    serve(arguments.data, arguments.host, arguments.port, os.environ, arguments.broker)
    return 0


if __name__ == "__main__":
    sys.exit(main())
