"""A shop's folder made ready to serve: data, then the nightly job, each a process of its own, and only when needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from local.embedded import EmbeddedServers
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.redis_releases import RedisReleaseStore
from shared.errors import ConfigurationError, RecommndrError, ReleaseUnavailable
from shared.features.definitions import STATE_VERSION
from shared.features.vector import SCHEMA
from shared.releases.manifest import ReleaseManifest, read_manifest

RECORD_NAME: Final = "prepared.json"
SERVER_FOLDERS: Final = ("log", "state")
MADE_ANEW: Final = ("lake", "nightly", "releases", "spark", *SERVER_FOLDERS, RECORD_NAME)
"""What a fresh start removes; MLflow's runs stay."""


class PreparationFailed(RecommndrError):
    """A step ended with an error; its own output says which."""


class Preparation(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder was made from. It stands in the folder while it is made and after."""

    source: dict[str, str]
    state_version: str = STATE_VERSION
    schema_digest: str = SCHEMA.digest
    finished: bool = False

    def finish(self) -> Preparation:
        """The same, done."""
        return msgspec.structs.replace(self, finished=True)


@dataclass(frozen=True, slots=True)
class ShopSource:
    """Where a shop's events come from: the module that brings them in, and its arguments but `--out`."""

    module: str
    arguments: tuple[str, ...]
    described: str
    fingerprint: dict[str, str]


def generated(sizes: Mapping[str, int | None]) -> ShopSource:
    """A synthetic shop; sizes that are None are the generator's defaults."""
    given = {name: str(value) for name, value in sizes.items() if value is not None}
    arguments = tuple(text for name, value in given.items() for text in (f"--{name}", value))
    return ShopSource("batch.generate_shop", arguments, "generating a synthetic shop", {"shop": "synthetic", **given})


def ingested(path: Path, file_format: str) -> ShopSource:
    """A real shop's orders, shifted by whole weeks so that they end now. Raises ConfigurationError without a file."""
    if not path.is_file():
        raise ConfigurationError(f"there is no file {path}: give DATA the path of a shop's orders")
    status = path.stat()
    content = {"file": path.name, "bytes": str(status.st_size), "modified_ns": str(status.st_mtime_ns)}
    arguments = ("--format", file_format, "--path", str(path), "--shift-weeks", "auto")
    return ShopSource("batch.ingest_events", arguments, f"reading {path.name}", {"format": file_format, **content})


def read_preparation(data: Path) -> Preparation | None:
    """What the folder says it was made from; None when it says nothing that can be read."""
    try:
        return msgspec.json.decode((data / RECORD_NAME).read_bytes(), type=Preparation)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def is_prepared(data: Path, source: ShopSource) -> bool:
    """The folder was made, to the end, from this source by code with the same features."""
    return read_preparation(data) == Preparation(source=source.fingerprint).finish()


def clear(data: Path, *, forced: bool) -> None:
    """Remove what an earlier preparation made. Raises ConfigurationError for a shop that somebody else made."""
    stands = (data / "lake").exists() or (data / "releases").exists()
    if stands and not forced and not (data / RECORD_NAME).exists():
        raise ConfigurationError(
            f"{data} holds a shop that this command did not make; give another folder with --data, or --fresh to "
            "remove it"
        )
    for name in MADE_ANEW:
        path = data / name
        if path.is_dir():
            shutil.rmtree(path)
            if name in SERVER_FOLDERS:
                path.mkdir()  # a server that is about to start expects its folder
        else:
            path.unlink(missing_ok=True)


def begin(data: Path, source: ShopSource) -> None:
    """Say that the folder is being made."""
    _record(data, Preparation(source=source.fingerprint))


def prepare(data: Path, source: ShopSource, servers: EmbeddedServers, say: Callable[[str], None]) -> None:
    """Bring the events in, run the night, and say that the folder is made. Raises PreparationFailed."""
    environment = {
        **os.environ,
        "REDIS_URL": servers.state_url,
        "EVENT_LOG_URL": servers.log_url,
        "BLOB_URL": str(data),
    }
    run_step(source.described, [source.module, *source.arguments, "--out", str(data)], environment, say)
    run_step("running the nightly job", ["batch.run_nightly", "--data", str(data)], environment, say)
    if published_release(data, servers.state_url) is None:
        raise PreparationFailed("the nightly job ended without a published release")
    _record(data, Preparation(source=source.fingerprint).finish())


def run_step(
    described: str, module_and_arguments: Sequence[str], environment: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Run `python -m MODULE ARGS` to its end, its output going where ours goes. Raises PreparationFailed."""
    module, *arguments = module_and_arguments
    say(f"{described} (python -m {module})")
    began = time.monotonic()
    finished = subprocess.run([sys.executable, "-m", module, *arguments], env=dict(environment), check=False)
    if finished.returncode:
        raise PreparationFailed(f"python -m {module} ended with exit code {finished.returncode}")
    say(f"done in {time.monotonic() - began:.0f} s")


def published_release(data: Path, state_url: str) -> ReleaseManifest | None:
    """The manifest of the release with most weight; None when nothing is published or its files are gone."""
    with closing(connect(state_url, timeout_ms=5000)) as client:
        allocation = RedisReleaseStore(client).allocation()
    if allocation is None:
        return None
    release_id, _ = max(allocation.releases, key=lambda entry: entry[1])
    try:
        return read_manifest(FolderBlobStore(data), release_id)
    except ReleaseUnavailable:
        return None


def _record(data: Path, preparation: Preparation) -> None:
    data.mkdir(parents=True, exist_ok=True)
    FolderBlobStore(data).write(RECORD_NAME, msgspec.json.format(msgspec.json.encode(preparation), indent=2))
