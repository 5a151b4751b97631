"""Redis came back empty, or never held this shop: everything of it again from the lake and the broker log.

Loads the feature state of every event source from the lake, publishes the last night's lists and the allocation where
there is none, and folds what the broker log holds beyond the lake. The shop may serve and take events meanwhile. Where
nothing is missing, nothing is done; stopped half-way, run it again.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from redis import Redis

from local.embedded import LOG_OPTIONS, STATE_OPTIONS, EmbeddedServer
from shared.adapters.broker import Broker, open_broker
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_state import RedisStateStore
from shared.adapters.redis_versions import StateVersions
from shared.cli import command
from shared.errors import ConfigurationError, InfrastructureFault, ReleaseUnavailable
from shared.events import EventSource
from shared.ingest.fold_chunk import AnyVersion
from shared.ingest.lake import read_manifest
from shared.ingest.partitioning import live_source, with_live
from shared.ingest.processor import EventProcessor
from shared.ingest.state_versions import needed_versions
from shared.releases.manifest import read_manifest as read_release
from shared.settings import Settings

BUILT_RELEASE: Final = Path("nightly/release/release_id.txt")
_TIMEOUT_MS: Final = 30_000
_PAUSE_S: Final = 0.5
_REPORT_EVERY_S: Final = 3.0


def rebuild(data: Path, settings: Settings, stage_arguments: Sequence[str], *, patience_s: float) -> int:
    """Load, publish, catch up; 0 when the state reaches the broker log's end, 1 when it did not within `patience_s`.

    Raises what the steps raise; none of them does harm when it is done again.
    """
    started = time.monotonic()
    blobs = FolderBlobStore(data)
    if read_manifest(blobs) is None:
        raise ConfigurationError(f"there is no lake under {data}: nothing can be rebuilt from it")
    with connect(settings.redis_url, timeout_ms=_TIMEOUT_MS) as client, closing(open_broker(settings)) as broker:
        common = ["--data", str(data), "--redis", settings.redis_url]
        with _step("1. feature state from the lake"):
            release_id = _built_release(data, blobs)
            also = [] if release_id is None else ["--release", release_id]
            _run("feature_jobs.backfill_state", [*common, *also, *stage_arguments])
        with _step("2. lists and allocation of the last night"):
            if RedisReleaseStore(client).allocation() is not None:
                print("  an allocation stands: nothing to publish", flush=True)
            elif release_id is None:
                print("  nothing to publish", flush=True)
            else:
                _run("batch.publish_release", common)
        with _step("3. what the broker log holds beyond the lake"):
            hand_over = HandOver.to_the_end_of(broker, blobs, client, settings)
            behind = hand_over.run(patience_s)
            ends = [f"{hand_over.live.name}/{part} at {end}" for part, end in hand_over.ends.items() if end is not None]
            print(
                f"  {f'the broker log ended: {", ".join(ends)}' if ends else 'the broker log holds nothing'}",
                flush=True,
            )
    seconds = time.monotonic() - started
    if behind:
        print(f"after {seconds:.1f} s still behind: {'; '.join(behind)}. Run the command again", file=sys.stderr)
        return 1
    print(f"rebuilt in {seconds:.1f} s: the state holds all that lake and broker log hold", flush=True)
    return 0


@dataclass(frozen=True)
class HandOver:
    """The live stream folded from the lake's end to where the broker log ended when this was made."""

    live: EventSource
    ends: Mapping[int, int | None]
    versions: Sequence[AnyVersion]
    store: RedisStateStore
    processor: EventProcessor

    @classmethod
    def to_the_end_of(cls, broker: Broker, blobs: FolderBlobStore, client: Redis, settings: Settings) -> HandOver:
        """For every version that releases need, but those marked broken. Raises InfrastructureFault."""
        manifest = read_manifest(blobs)
        held = None if manifest is None else manifest.source(settings.event_source)
        (live,) = with_live([] if held is None else [held.event_source()], live_source(settings))
        needed = needed_versions(RedisReleaseStore(client), partial(read_release, blobs)).fold
        broken = StateVersions(client).broken()
        versions = [one for one in needed if one.name not in broken]
        store = RedisStateStore(client, settings.user_key_secret)
        processor = EventProcessor(live.name, store=store, versions=versions, blobs=blobs, broker=broker.reader)
        ends = {partition: broker.reader.last_sequence(partition) for partition in live.partitions()}
        return cls(live, ends, versions, store, processor)

    def run(self, patience_s: float) -> list[str]:
        """Fold, beside the shop's own processor if that runs; who is still behind after `patience_s`."""
        deadline = time.monotonic() + patience_s
        reported = time.monotonic()
        while True:
            failed = ""
            try:
                self.processor.catch_up(self.live.partitions())
            except InfrastructureFault as error:  # the shop's processor may be a chunk ahead; the marks decide
                failed = f"; {error}"
            behind = self.behind()
            if not behind or time.monotonic() > deadline:
                return behind
            if time.monotonic() - reported > _REPORT_EVERY_S:
                reported = time.monotonic()
                print(f"  {behind[0]}{failed}", flush=True)
            time.sleep(_PAUSE_S)

    def behind(self) -> list[str]:
        """Each partition and version whose mark lies below the broker log's end."""
        found = []
        for partition, end in self.ends.items():
            for version in self.versions:
                mark = self.store.marks(self.live.name, partition, version.name)[1]
                reached = -1 if mark is None else mark.sequence
                if end is not None and reached < end:
                    found.append(f"{self.live.name}/{partition}, version {version.name}: at {reached} of {end}")
        return found


def _built_release(data: Path, blobs: FolderBlobStore) -> str | None:
    """The release that the last night built, where its files are whole enough to be published."""
    path = data / BUILT_RELEASE
    if not path.exists():
        print("  no night has built a release here: run python -m batch.run_nightly afterwards", flush=True)
        return None
    release_id = path.read_text(encoding="utf-8").strip()
    try:
        read_release(blobs, release_id)
    except ReleaseUnavailable as error:
        print(f"  {error}: run python -m batch.run_nightly afterwards", flush=True)
        return None
    return release_id


def _run(module: str, arguments: Sequence[str]) -> None:
    """Run a stage by its name, as the night does. Raises InfrastructureFault when it ends with an error."""
    code = importlib.import_module(module).main(list(arguments))
    if code:
        raise InfrastructureFault(f"python -m {module} ended with exit code {code}; its error stands above")


@contextmanager
def _step(name: str) -> Iterator[None]:
    print(name, flush=True)
    started = time.monotonic()
    yield
    print(f"  done in {time.monotonic() - started:.1f} s", flush=True)


def _settings(data: Path, environ: Mapping[str, str], redis_url: str, broker_url: str, stack: ExitStack) -> Settings:
    """The settings with the shop's own servers where no others are named; those that do not run are started."""
    state = redis_url or environ.get("REDIS_URL", "")
    log = broker_url or environ.get("EVENT_LOG_URL", "")
    if not state:
        state = stack.enter_context(EmbeddedServer(data / "state", STATE_OPTIONS)).url
    if not log:
        log = stack.enter_context(EmbeddedServer(data / "log", LOG_OPTIONS)).url
    return Settings.from_environment({**environ, "REDIS_URL": state, "EVENT_LOG_URL": log, "BLOB_URL": str(data)})


@command
def main(argv: Sequence[str] | None = None) -> int:
    """0 when the state reached the broker log's end, 1 when it is behind or a stage failed, 2 for wrong use."""
    parser = argparse.ArgumentParser(prog="python -m local.rebuild_state", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    parser.add_argument("--redis", default="", metavar="URL", help="feature state (REDIS_URL, else the folder's own)")
    parser.add_argument("--broker", default="", metavar="URL", help="broker log (EVENT_LOG_URL, else the folder's own)")
    parser.add_argument("--engine", default="auto", help="of feature_jobs.backfill_state (%(default)s)")
    parser.add_argument(
        "--patience", type=float, default=600.0, metavar="S", help="longest wait for the catching up (%(default)g s)"
    )
    arguments = parser.parse_args(argv)
    with ExitStack() as stack:
        settings = _settings(arguments.data, os.environ, arguments.redis, arguments.broker, stack)
        os.environ.update({"REDIS_URL": settings.redis_url, "BLOB_URL": str(arguments.data)})
        engine = ["--engine", arguments.engine]
        for name, url in (("state", settings.redis_url), ("broker log", settings.event_log_url)):
            print(f"{name:11}{url.rpartition('@')[2]}", flush=True)
        return rebuild(arguments.data, settings, engine, patience_s=arguments.patience)


if __name__ == "__main__":
    sys.exit(main())
