"""Stage: the release's lists into Redis under the release's own keys, and then, as the last step, the allocation.

It may be killed between any two writes and run again: until the allocation moves nobody reads the new lists, and they
carry the release's id and a checksum each.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import batched
from pathlib import Path
from typing import Final

from redis import Redis

from batch.published_lists import built_release, item_lists, load_summary, user_records
from shared.adapters.activation import Change, activate
from shared.adapters.erased_overlays import overlaid_erasures
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.keys import user_key
from shared.adapters.redis_connection import connect
from shared.adapters.redis_releases import USERS, RedisReleaseStore
from shared.adapters.user_keys import keyed_with
from shared.candidates.query import ListKind
from shared.cli import command
from shared.errors import ReleaseUnavailable
from shared.ingest.erased_users import ErasedUsers, fresh_erasures, no_secret, read_erasures
from shared.ingest.lake import read_manifest as read_lake_manifest
from shared.ports import BlobStore
from shared.releases.manifest import read_manifest
from shared.settings import Settings

LISTS_AT_ONCE: Final = 2000
_REDIS_TIMEOUT_MS: Final = 30_000
_REPORT_EVERY_S: Final = 3.0

Promote = Callable[[str], object]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Publish the release that batch.build_release built last."""
    settings = Settings.from_environment(os.environ)
    parser = argparse.ArgumentParser(prog="python -m batch.publish_release", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    parser.add_argument("--redis", default="", metavar="URL", help="release store (default: the setting REDIS_URL)")
    arguments = parser.parse_args(argv)
    release_id = built_release(arguments.data)
    blobs = FolderBlobStore(arguments.data)
    with connect(arguments.redis or settings.redis_url, timeout_ms=_REDIS_TIMEOUT_MS) as client:
        store = RedisReleaseStore(client)
        change = publish_release(
            arguments.data,
            blobs,
            store,
            release_id,
            user_secret=settings.user_key_secret,
            promote=promote_in_mlflow(arguments.data, blobs),
            erased=lambda: erased_since(arguments.data, blobs, client, settings.user_key_secret),
        )
    print(describe(change))
    return 0


def publish_release(
    data: Path,
    blobs: BlobStore,
    store: RedisReleaseStore,
    release_id: str,
    *,
    user_secret: str,
    promote: Promote,
    erased: Callable[[], Collection[bytes]] = tuple,
) -> Change:
    """Write the lists, check that they are all there, and give the release all traffic.

    Whoever was erased since the night read the lake has no list in it: `erased` tells who was erased, by keyed hash,
    and is asked after the lists are written, as erasures that come later find them there and remove them.
    Raises ReleaseUnavailable when the bundle is not whole or Redis holds fewer lists than were written.
    """
    manifest = read_manifest(blobs, release_id)
    store.begin(release_id, user_count=manifest.users_count, item_count=manifest.items_count)
    store.keep(release_id)
    encoded = ((user_key(user, user_secret), record.encode(release_id)) for user, record in user_records(data))
    _write(store, release_id, USERS, encoded, manifest.users_count)
    forgotten = sum(store.forget_user(user, [release_id]) for user in erased())
    if forgotten:
        print(f"  {forgotten:,} lists of users who were erased meanwhile are not published")
    for kind in ListKind:
        lists = ((index, neighbours.encode(release_id)) for index, neighbours in item_lists(data, kind))
        _write(store, release_id, kind.value, lists, manifest.items_count)
    return activate(store, blobs, release_id, promote)


def erased_since(data: Path, blobs: BlobStore, client: Redis, user_secret: str) -> set[bytes]:
    """The keyed hashes of all who were erased after the candidates were made: by the lake, or by what Redis knows.

    Raises LakeConflict, StateUnavailable.
    """
    manifest = read_lake_manifest(blobs)
    entries = read_erasures(blobs, manifest)
    known = load_summary(data).erasures
    without = ErasedUsers.of(entries[:known], no_secret).erased_at
    fresh = [copy.entry for copy in fresh_erasures(blobs, manifest, keyed_with(user_secret))]
    found = {(one.user_key, one.erased_at) for one in [*entries[known:], *fresh]}
    found |= {(user.hex(), at) for user, at in overlaid_erasures(client)}
    return {bytes.fromhex(key) for key, at in found if at > without.get(key, at - 1)}


def promote_in_mlflow(data: Path, blobs: BlobStore) -> Promote:
    """Moves MLflow's alias to a release's registered ranker, for releases that name an MLflow run."""

    def promote(release_id: str) -> None:
        if read_manifest(blobs, release_id).mlflow_run_id is None:
            return
        from batch.tracking import CHAMPION, REGISTERED_MODEL, Tracking  # noqa: PLC0415 - MLflow takes seconds to import

        version = Tracking.of(data).promote(release_id)
        if version is not None:
            print(f"  MLflow: {REGISTERED_MODEL} version {version} is {CHAMPION}")

    return promote


def describe(change: Change) -> str:
    """What moved, as a line for people."""
    before = f" instead of {change.before}" if change.before not in {None, change.after} else ""
    retired = f"; the lists of {', '.join(change.retired)} expire within a week" if change.retired else ""
    return f"  release {change.after} has all traffic{before} (allocation version {change.version}){retired}"


def _write[Key: (bytes, int)](
    store: RedisReleaseStore, release_id: str, kind: str, lists: Iterator[tuple[Key, bytes]], expected: int
) -> None:
    started = reported = time.perf_counter()
    written = 0
    for some in batched(lists, LISTS_AT_ONCE, strict=False):
        chunk: Mapping[Key, bytes] = dict(some)
        store.write_lists(release_id, kind, chunk)
        written += len(some)
        if time.perf_counter() - reported > _REPORT_EVERY_S:
            reported = time.perf_counter()
            rate = written / (reported - started)
            print(f"    {kind}: {written:,} of {expected:,} lists, {rate:,.0f}/s", flush=True)
    if written != expected:
        raise ReleaseUnavailable(
            f"the night has {written:,} {kind} lists, release {release_id} was built with {expected:,}; "
            "run the night from build_candidates"
        )
    print(f"  {kind}: {written:,} lists ({written / max(time.perf_counter() - started, 1e-9):,.0f}/s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
