"""Stage: what is left of erasures when the night is over: append-only files, and the dates in the receipts.

Runs last: what earlier stages made without the erased users is done from here on. Nothing happens where no receipt is
open.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec

from batch.build_interactions import load_summary as load_interactions_summary
from batch.erasure_receipts import clear_beside_lake, settle_receipts
from batch.published_lists import load_summary as load_candidates_summary
from shared.adapters.broker import open_broker
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import SCHEMES, connect
from shared.adapters.redis_files import rewrite_append_only_file
from shared.adapters.user_keys import keyed_with
from shared.cli import command
from shared.errors import ConfigurationError, InfrastructureFault
from shared.ingest.erasures import open_receipts
from shared.ingest.partitioning import live_source
from shared.ingest.seal import trim_broker
from shared.ports import BlobStore
from shared.settings import Settings

MADE_BY_NIGHT: Final = ("training_data", "dvc_cache", "coming_releases")
TRAINING_SUMMARY: Final = Path("nightly/training/summary.json")
_PATIENCE_S: Final = 600.0
_TIMEOUT_MS: Final = 30_000


def settle_erasures(data: Path, settings: Settings, now: int) -> None:
    """Rewrite the servers' append-only files and date the receipts' lines by `now` (epoch ms).

    Raises InfrastructureFault when a server does not answer; what is done by then is dated.
    """
    blobs = FolderBlobStore(data)
    if not open_receipts(blobs):
        print("  no receipt of an erasure is open")
        return
    without = erasures_of_night(data)
    clear_beside_lake(blobs, keyed_with(settings.user_key_secret), now, redacted=False)  # pages of the last minutes
    settle_receipts(blobs, ("exposures",), now)
    settled = settle_receipts(blobs, MADE_BY_NIGHT, now, of_first=without)
    print(f"  {settled:,} open receipts: this night was made without their users")
    if rewrite_files(blobs, settings):
        settle_receipts(blobs, ("append_only_file",), now, after=("state", "landing"))


def erasures_of_night(data: Path) -> int:
    """How many of the lake's erasures everything that the night has made is without; 0 where no night has run."""
    try:
        found = [load_interactions_summary(data).erasures, load_candidates_summary(data).erasures]
        training = msgspec.json.decode((data / TRAINING_SUMMARY).read_bytes())
    except (ConfigurationError, FileNotFoundError):
        return 0
    return min(*found, int(training.get("erasures", 0)))


def rewrite_files(blobs: BlobStore, settings: Settings) -> bool:
    """Have both servers write their append-only files anew; False when one let nobody ask for it.

    The embedded broker log first forgets what is sealed.
    """
    urls = [settings.redis_url]
    if settings.event_log_url.startswith(SCHEMES):
        live = live_source(settings)
        with closing(open_broker(settings)) as broker:
            trim_broker(live.name, live.partitions(), broker=broker.reader, blobs=blobs)
        urls.append(settings.event_log_url)
    done = True
    for url in urls:
        with connect(url, timeout_ms=_TIMEOUT_MS) as client:
            rewritten = rewrite_append_only_file(client, _PATIENCE_S)
        said = "of erased users it holds nothing more" if rewritten else "the server decides itself when to rewrite it"
        print(f"  append-only file of {url.rpartition('@')[2]}: {said}")
        done = done and rewritten
    return done


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; a server that does not answer is said, and no reason to call the night a failure."""
    settings = Settings.from_environment(os.environ)
    parser = argparse.ArgumentParser(prog="python -m batch.settle_erasures", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    parser.add_argument("--redis", default="", metavar="URL", help="feature state (default: the setting REDIS_URL)")
    arguments = parser.parse_args(argv)
    if arguments.redis:
        settings = dataclasses.replace(settings, redis_url=arguments.redis)
    try:
        settle_erasures(arguments.data, settings, int(time.time() * 1000))
    except InfrastructureFault as error:  # the night's release stands, and the receipts say what is still due
        sys.stderr.write(f"{error}; the receipts of erasures stay open until the next night\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
