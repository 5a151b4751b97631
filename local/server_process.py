"""local.serve as a process of its own: started, waited for, stopped; its output goes to a file in the shop's folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from local.instance_lock import read_serving
from local.shopper import ShopApi, UnexpectedAnswer
from shared.errors import InfrastructureFault, RecommndrError

READY_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 30.0
LOG_NAME: Final = "serve.log"


class ServerDidNotStart(RecommndrError):
    """The server ended, or was not ready in time; the message carries the end of its output."""


@dataclass
class ServerProcess:
    """A server that is ready."""

    address: str
    process: subprocess.Popen[bytes]

    def stop(self) -> int:
        """Ask it to end, wait until it has, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextmanager
def server_process(
    data: Path, port: int, environment: Mapping[str, str] | None = None, arguments: Sequence[str] = ()
) -> Iterator[ServerProcess]:
    """Serve a folder while the block runs; port 0 takes a free one, `arguments` are more of local.serve's.

    Raises ServerDidNotStart.
    """
    data.mkdir(parents=True, exist_ok=True)
    log_path = data / LOG_NAME
    command = [sys.executable, "-m", "local.serve", "--data", str(data), "--port", str(port), *arguments]
    with log_path.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = ServerProcess("", process)
    try:
        server.address = _wait_until_ready(process, data, log_path)
        yield server
    finally:
        server.stop()


def _wait_until_ready(process: subprocess.Popen[bytes], data: Path, log_path: Path) -> str:
    deadline = time.monotonic() + READY_TIMEOUT_S
    trouble = "it does not listen yet"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerDidNotStart(f"the server ended with exit code {process.returncode}. {_end_of(log_path)}")
        serving = read_serving(data)
        if serving is not None and serving.pid == process.pid and serving.address:
            try:
                with ShopApi(serving.address) as api:
                    api.get("health/ready")
            except (UnexpectedAnswer, InfrastructureFault) as error:
                trouble = str(error)
            else:
                return serving.address
        time.sleep(0.1)
    raise ServerDidNotStart(f"the server was not ready within {READY_TIMEOUT_S:.0f} s: {trouble}. {_end_of(log_path)}")


def _end_of(log_path: Path) -> str:
    lines = log_path.read_text(errors="replace").splitlines()[-15:]
    return f"The end of {log_path}: " + " | ".join(lines)
