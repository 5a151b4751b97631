"""The whole story on one machine: events, the nightly job, the API, and a shopper whose clicks change her page."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from local import evaluation_table
from local.casting import Customer, choose_customer, customers
from local.claims import Claims
from local.embedded import EmbeddedServers
from local.instance_lock import InstanceLock
from local.prepared_shop import ShopSource, begin, clear, generated, ingested, is_prepared, prepare, published_release
from local.serve import DEFAULT_DATA, DEFAULT_HOST, DEFAULT_PORT, listening_socket, local_environment
from local.server_process import ServerProcess, server_process
from local.shopper import ShopApi, UnexpectedAnswer
from local.story import MEASURED_PAGES, Story
from local.story_screen import Screen
from shared.cli import command
from shared.errors import ConfigurationError, InfrastructureFault, RecommndrError
from shared.events import from_ms
from shared.releases.manifest import ReleaseManifest

PAGE_COLUMNS: Final = 100
STALE_DAYS: Final = 3
"""Older data still works, but what is decayed by the hour or day has died away."""


def make_ready(
    data: Path, source: ShopSource, servers: EmbeddedServers, console: Console, *, fresh: bool
) -> ReleaseManifest:
    """The published release of this source, made if the folder does not hold it; the servers run afterwards.

    Raises ConfigurationError and PreparationFailed.
    """
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[bold]» {text}[/] [dim]({time.monotonic() - began:.0f} s since the start)[/]")

    if not fresh and is_prepared(data, source):
        servers.start()
        release = published_release(data, servers.state_url)
        if release is not None:
            age = (datetime.now(UTC) - from_ms(release.as_of)).days
            hint = "; --fresh makes it anew" if age >= STALE_DAYS else ""
            say(f"{data} holds release {release.release_id} of the same data, {age} days old{hint}")
            return release
        servers.stop()
    clear(data, forced=fresh)
    begin(data, source)
    servers.start()
    if os.environ.get("REDIS_URL") and published_release(data, servers.state_url) is not None:
        raise ConfigurationError("the Redis of REDIS_URL holds another shop's release; give an empty one, or none")
    prepare(data, source, servers, say)
    release = published_release(data, servers.state_url)
    assert release is not None, "prepare raises when nothing is published"
    return release


def tell(data: Path, release: ReleaseManifest, server: ServerProcess, claims: Claims) -> Customer:
    """The story and the evaluation, and whom they were about; an answer that should not be is a claim that fails."""
    console = claims.console
    found = customers(data)
    heroine = choose_customer(found)
    try:
        with ShopApi(server.address) as api:
            Story(Screen(console), api, claims, release.release_id).tell(heroine, _sample(found))
    except (UnexpectedAnswer, InfrastructureFault) as error:
        claims.check("every request was answered", holds=False, evidence=str(error))
    console.print()
    console.rule("[bold]How good it is", align="left")
    report = evaluation_table.read_report(data)
    evaluation_table.show(report, console)
    evaluation_table.check(report, claims, repeats_matter=release.bought_window_days == 0)
    console.print()
    return heroine


def recompute(data: Path, servers: EmbeddedServers, claims: Claims) -> None:
    """Claim that the pages just shown can be recomputed from the log, now that the server has written them down."""
    finished = subprocess.run(
        [sys.executable, "-m", "feature_jobs.check_parity", "--data", str(data)],
        env={**os.environ, **local_environment(data, servers)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    last = (finished.stdout.strip().splitlines() or ["no output"])[-1]
    sentence = "what the ranker read for these pages can be recomputed from the log alone"
    claims.check(sentence, finished.returncode == 0, last)


def _sample(found: Sequence[Customer]) -> list[str]:
    step = max(1, len(found) // MEASURED_PAGES)
    return [customer.user_id for customer in found[::step]]


def _addresses(console: Console, address: str, data: Path, heroine: Customer) -> None:
    console.print()
    console.rule("[bold]The shop stays open until Ctrl-C", align="left")
    for name, value in {
        "all endpoints": f"{address}/docs",
        "her page": f"{address}/recommend/{heroine.user_id}",
        "metrics": f"{address}/metrics",
        "experiments": f"make mlflow MLFLOW_STORE=sqlite:///{data}/mlflow.db",
    }.items():
        console.print(f"  {name:18} {value}", soft_wrap=True)


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Prepare, serve, tell; returns the exit code."""
    source = _source(arguments)
    data = _folder(arguments)
    port = arguments.port if arguments.port is not None else (0 if arguments.once else DEFAULT_PORT)
    with closing(listening_socket(DEFAULT_HOST, port)):
        pass  # known before the work begins
    servers = EmbeddedServers(data, os.environ.get("REDIS_URL") or None)
    claims = Claims(console)
    try:
        with InstanceLock(data):
            release = make_ready(data, source, servers, console, fresh=arguments.fresh)
        with server_process(data, port, local_environment(data, servers)) as server:
            heroine = tell(data, release, server, claims)
            if not arguments.once:
                verdict = claims.summarise()
                _addresses(console, server.address, data, heroine)
                _stay(server)
                return verdict
            ended = server.stop()
        claims.check("the server ends cleanly", ended == 0, f"exit code {ended}")
        with InstanceLock(data):  # nobody else may lean on servers that end in a moment
            recompute(data, servers, claims)
            servers.stop()
    finally:
        servers.stop()
    return claims.summarise()


def _stay(server: ServerProcess) -> None:
    try:
        code = server.process.wait()
    except KeyboardInterrupt:
        return
    raise ServerEnded(f"the server ended by itself with exit code {code}")


class ServerEnded(RecommndrError):
    """The server went away while it should stay."""


def _source(arguments: argparse.Namespace) -> ShopSource:
    sizes = {name: getattr(arguments, name) for name in ("users", "items", "events", "days", "seed")}
    if arguments.data_file is None:
        return generated(sizes)
    if any(value is not None for value in sizes.values()):
        raise ConfigurationError("a shop of a file has the sizes it has: leave --users, --items and the like out")
    return ingested(arguments.data_file, arguments.format)


def _folder(arguments: argparse.Namespace) -> Path:
    if arguments.data is not None:
        return Path(arguments.data)
    return DEFAULT_DATA if arguments.data_file is None else DEFAULT_DATA.parent / arguments.data_file.stem


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local.demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end after the story: 0 when every claim is true, else 1")
    parser.add_argument("--data-file", type=Path, metavar="FILE", help="a real shop's orders, not a synthetic shop")
    parser.add_argument("--format", default="online_retail", help="format of that file (%(default)s)")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help=f"the shop's folder ({DEFAULT_DATA}, or by the file's name)"
    )
    parser.add_argument("--port", type=int, help=f"0 takes a free one, as --once does ({DEFAULT_PORT})")
    parser.add_argument("--fresh", action="store_true", help="make the shop anew even if the folder holds it")
    for name in ("users", "items", "events", "days", "seed"):
        parser.add_argument(f"--{name}", type=int, help="of the synthetic shop (default: the generator's)")
    return parser.parse_args(argv)


def _width() -> int | None:
    """The terminal's own width, or that of a page where the story goes into a file or a pipe."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else PAGE_COLUMNS


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    arguments = _arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # what was started is ended then, too
    return run(arguments, Console(highlight=False, width=_width()))


if __name__ == "__main__":
    sys.exit(main())
