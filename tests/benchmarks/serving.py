"""How long a recommendation takes over HTTP, next to a bare echo in the same minutes: `make bench`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from local.casting import customers
from local.demo import make_ready
from local.embedded import EmbeddedServers
from local.instance_lock import InstanceLock
from local.page_comparison import percentile
from local.prepared_shop import ShopSource, generated, published_release
from local.serve import DEFAULT_DATA, DEFAULT_HOST, listening_socket, local_environment
from local.server_process import ServerProcess, server_process
from local.shopper import ShopApi
from shared.cli import command
from shared.errors import InfrastructureFault, RecommndrError

REQUESTS: Final = 1000
LEAST_CANDIDATES: Final = 200
BLOCK: Final = 50
"""The two are asked in turns of so many, so that both meet the same noise of the machine."""

WARM_UP: Final = 100
SMALL_DATA: Final = DEFAULT_DATA.parent / "bench"
ECHO_TIMEOUT_S: Final = 20.0


class TooFewCandidates(RecommndrError):
    """An answer was made from fewer candidates than the measurement promises."""


@contextlib.contextmanager
def echo_server() -> Iterator[str]:
    """A minimal FastAPI app under the same server and the same options; yields its address."""
    with contextlib.closing(listening_socket(DEFAULT_HOST, 0)) as listener:
        port = listener.getsockname()[1]  # free again in a moment: uvicorn binds it itself, as a TCP socket
    options = ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    echo = [sys.executable, "-m", "uvicorn", "tests.benchmarks.echo:app", *options, "--log-level", "warning"]
    process = subprocess.Popen(echo)
    try:
        address = f"http://{DEFAULT_HOST}:{port}"
        _wait_until_it_answers(address)
        yield address
    finally:
        process.terminate()
        process.wait()


def _wait_until_it_answers(address: str) -> None:
    deadline = time.monotonic() + ECHO_TIMEOUT_S
    while True:
        try:
            with ShopApi(address) as api:
                api.get("echo", "ready")
        except InfrastructureFault:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


@contextlib.contextmanager
def shop(data: Path | None, console: Console) -> Iterator[tuple[ServerProcess, Path]]:
    """A served shop: the folder given, the demo's where it is ready, or else a small one made for this."""
    chosen = data or (DEFAULT_DATA if _published(DEFAULT_DATA) else SMALL_DATA)
    servers = EmbeddedServers(chosen, os.environ.get("REDIS_URL") or None)
    try:
        if chosen == SMALL_DATA:
            with InstanceLock(chosen):
                make_ready(chosen, _small_shop(), servers, console, fresh=False)
        else:
            servers.start()
        with server_process(chosen, 0, local_environment(chosen, servers)) as server:
            yield server, chosen
    finally:
        servers.stop()


def _small_shop() -> ShopSource:
    return generated({"users": 800, "items": 800, "events": 60_000, "days": 60})


def _published(data: Path) -> bool:
    if not (data / "releases").is_dir():
        return False
    with EmbeddedServers(data, os.environ.get("REDIS_URL") or None) as servers:
        return published_release(data, servers.state_url) is not None


def measure(api: ShopApi, echo: ShopApi, users: Sequence[str], requests: int) -> dict[str, Any]:
    """Ask both in turns and return what it took. Raises TooFewCandidates."""
    asked = [users[number % len(users)] for number in range(WARM_UP + requests)]
    for user in asked[:WARM_UP]:
        _ask(api, user)
        echo.get("echo", user)
    api.took_ms.clear()
    echo.took_ms.clear()
    fewest = sys.maxsize
    for start in range(WARM_UP, len(asked), BLOCK):
        block = asked[start : start + BLOCK]
        fewest = min(fewest, *(_ask(api, user) for user in block))
        for user in block:
            echo.get("echo", user)
    recommend, bare = _percentiles(api.took_ms["recommend"]), _percentiles(echo.took_ms["echo"])
    return {
        "requests": len(api.took_ms["recommend"]),
        "users": len(set(asked)),
        "fewest_candidates": fewest,
        "recommend_ms": recommend,
        "echo_ms": bare,
        "ratio": {name: round(recommend[name] / bare[name], 3) for name in recommend},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }


def _ask(api: ShopApi, user: str) -> int:
    """One page; returns how many candidates it was chosen from."""
    count = int(api.get("recommend", user)["candidates"])
    if count < LEAST_CANDIDATES:
        raise TooFewCandidates(f"the page of {user} was chosen from {count} candidates, not {LEAST_CANDIDATES}")
    return count


def _percentiles(took_ms: Sequence[float]) -> dict[str, float]:
    return {"p50": round(percentile(took_ms, 0.5), 3), "p99": round(percentile(took_ms, 0.99), 3)}


def run(data: Path | None, requests: int) -> dict[str, Any]:
    """The whole measurement. What it says on the way goes to stderr."""
    console = Console(stderr=True, highlight=False)
    with shop(data, console) as (server, folder), echo_server() as echo_address:
        console.print(f"» {requests:,} pages of {folder} from {server.address}, and as many bare echoes")
        users = [customer.user_id for customer in customers(folder)]
        with ShopApi(server.address) as api, ShopApi(echo_address) as echo:
            return measure(api, echo, users, requests)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.serving", description=__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"a shop's folder ({DEFAULT_DATA}, or a small one)")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="pages to ask for (%(default)s)")
    arguments = parser.parse_args(argv)
    print(json.dumps(run(arguments.data, arguments.requests), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
