"""The bodies of the children that rebuild: the backfill of an empty state, and the night's compaction."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from batch.compact_lake import compact
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_state import RedisStateStore
from shared.adapters.user_keys import keyed_with
from shared.events import EventSource
from tests.chaos.dying_ports import DyingBlobs
from tests.chaos.points import Doom, Fuse, Point
from tests.chaos.scale import SECRET, SOURCE, Place, Scale

_BACKFILL: Final = "feature_jobs.backfill_state"


def warm_up() -> None:
    """Import what the children need, once and not before the first of them: a run without losses saves two seconds."""
    import_module(_BACKFILL)


def backfill(place: Place, point: Point | None, calls: int, witness: int) -> None:
    """Load what has no mark, or die at a point of it. Raises as `backfill_state`."""
    doom = Doom(point, calls, witness)
    load, finish, read = RedisStateStore.load, RedisStateStore.finish_load, FolderBlobStore.read

    def dying_load(store: RedisStateStore, *arguments: Any, **named: Any) -> None:
        load(store, *arguments, **named)
        doom.reach(Point.BACKFILL_LOADED)

    def dying_finish(store: RedisStateStore, *arguments: Any, **named: Any) -> None:
        if doom.due(Point.BACKFILL_MARK):
            Fuse(store._client, doom).light(Point.BACKFILL_MARK)
        finish(store, *arguments, **named)
        doom.reach(Point.BACKFILL_MARKED)

    def dying_read(blobs: FolderBlobStore, name: str) -> bytes:
        data = read(blobs, name)
        doom.reach(Point.BACKFILL_READ)
        return data

    for owner, name, body in (
        (RedisStateStore, "load", dying_load),
        (RedisStateStore, "finish_load", dying_finish),
        (FolderBlobStore, "read", dying_read),
    ):
        setattr(owner, name, body)
    import_module(_BACKFILL).backfill_state(place.lake, place.state_url, SECRET)


def compact_night(scale: Scale, place: Place, calls: int, witness: int) -> None:
    """Take the sealed files into Parquet, or die at the `calls`-th write. Raises as `compact`."""
    doom = Doom(Point.COMPACTION, calls, witness)
    compact(
        DyingBlobs(FolderBlobStore(place.lake), doom, Point.COMPACTION),
        EventSource(SOURCE, (scale.partitions,)),
        key_of=keyed_with(SECRET),
    )
