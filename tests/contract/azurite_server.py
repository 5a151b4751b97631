"""Azurite, Microsoft's own emulator of Blob Storage, from npm: kept outside the tree, run for a session's tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from azure.storage.blob import ContainerClient

HERE = Path(__file__).parent / "azurite"
MODULE = "node_modules/azurite/dist/src/blob/main.js"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's own, the same everywhere and printed in its documentation."""
CONNECTION = f"AccountName={ACCOUNT};AccountKey={KEY}"
VERSION = "3.37.0"
_FETCH_TIMEOUT_S = 300
_START_TIMEOUT_S = 60


class NoAzurite(Exception):
    """It cannot run here; the message says why."""


@dataclass(frozen=True)
class Azurite:
    """A server that runs. Its containers are made by `new_container`."""

    port: int

    @property
    def account_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    def container(self, url: str) -> ContainerClient:
        name = url.rpartition("/")[2]
        return ContainerClient(self.account_url, name, credential={"account_name": ACCOUNT, "account_key": KEY})

    def new_container(self) -> str:
        """The address of an empty container."""
        url = f"{self.account_url}/test-{uuid.uuid4().hex[:12]}"
        with self.container(url) as client:
            client.create_container()
        return url


def fetch() -> Path:
    """The emulator's module, fetched into the user's cache folder when it is not there. Raises NoAzurite."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NoAzurite("node and npm are not installed")
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recommndr"
    folder = root / f"azurite-{VERSION}"
    root.mkdir(parents=True, exist_ok=True)
    with (root / "azurite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / MODULE).exists() or not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(HERE, folder)
            install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            try:
                subprocess.run(install, cwd=folder, check=True, capture_output=True, timeout=_FETCH_TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise NoAzurite(f"npm ci took more than {_FETCH_TIMEOUT_S} s") from error
            except subprocess.CalledProcessError as error:
                raise NoAzurite(f"npm ci failed: {error.stderr.decode(errors='replace')[-300:]}") from error
            (folder / "whole").touch()
    return folder / MODULE


@contextmanager
def running_azurite(folder: Path) -> Iterator[Azurite]:
    """A server that keeps everything in memory; `folder` is its own. Raises NoAzurite."""
    module = fetch()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = ["node", str(module), "--blobPort", str(port), "--inMemoryPersistence", "--silent", "--disableTelemetry"]
    with (folder / "azurite.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--skipApiVersionCheck"], cwd=folder, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait(process, port, folder / "azurite.log")
            yield Azurite(port)
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise NoAzurite(f"it ended at once: {log.read_text(errors='replace')[-300:]}")
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise NoAzurite(f"it did not listen within {_START_TIMEOUT_S} s")
