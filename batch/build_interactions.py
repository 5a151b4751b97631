"""Stage: the lake's accepted behaviour as one dense table, with the users, the items and the periods it defines."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from batch.interactions import BEHAVIOUR_TYPES, INTERACTIONS_FOLDER
from batch.periods import Periods, choose_periods
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.stage_folder import replace_folder
from shared.adapters.user_keys import keyed_with
from shared.cli import command
from shared.errors import ConfigurationError, RecommndrError
from shared.events import EventType, id_hash
from shared.ingest.erased_users import KeyOf, count_erasures, no_secret
from shared.ingest.lake import LakeManifest, read_manifest, read_rows
from shared.ingest.redaction import Redaction, redaction_of_lake
from shared.ports import Verdict
from shared.settings import Settings

_COLUMNS: Final = (
    "source", "partition", "sequence", "enqueued_at", "verdict", "event_type", "occurred_at", "user_id", "item_id",
    "session_id", "quantity", "changes",
)  # fmt: skip


class InteractionsSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the interactions table holds; instants are epoch ms, `fingerprint` changes when any row or id does.

    Dropped are behaviour rows of items the catalogue does not know, of users who were erased later, and redacted rows.
    `erasures` is how many of the lake's erasures it is without, at least.
    """

    interactions: int
    users: int
    items: int
    by_type: dict[str, int]
    dropped: dict[str, int]
    oldest_at: int
    newest_at: int
    fingerprint: str
    time_zone: str
    periods: Periods
    erasures: int = 0


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Builds nightly/interactions of a shop's folder; 2 when the lake cannot be read or is too small."""
    parser = argparse.ArgumentParser(prog="python -m batch.build_interactions", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    arguments = parser.parse_args(argv)
    build_interactions(arguments.data, keyed_with(Settings.from_environment(os.environ).user_key_secret))
    return 0


def build_interactions(data: Path, key_of: KeyOf = no_secret) -> InteractionsSummary:
    """Reads the lake below `data` and writes interactions.parquet, users.parquet, items.parquet and summary.json.

    `key_of` hashes user ids: whoever was erased is left out, also where no compaction has seen that yet.

    The item index is the place of an id among the catalogue's ids in order of their hashes, so that a tie broken by
    index says nothing about when a product was made; the user index follows the bytes of the ids. Raises
    ConfigurationError when there is no lake, no catalogue or too few days, RecommndrError when two item ids share a
    hash.
    """
    started = perf_counter()
    blobs = FolderBlobStore(data)
    manifest = read_manifest(blobs)
    if manifest is None:
        raise ConfigurationError(f"{data} holds no lake; run batch.generate_shop or batch.ingest_events first.")
    rows = read_rows(blobs, columns=_COLUMNS)
    rows = rows.filter(pc.field("verdict") == Verdict.ACCEPTED.value)
    print(f"  read {rows.num_rows:,} accepted rows ({rows.num_rows / (perf_counter() - started):,.0f} rows/s)")
    item_ids, item_hashes = _by_hash(_described(rows))
    if len(item_ids) == 0:
        raise ConfigurationError("The lake holds no item with a title: without a catalogue nothing can be shown.")
    behaviour, dropped = _usable_behaviour(rows, item_ids, redaction_of_lake(blobs, manifest, key_of))
    user_ids = _sorted_ids(behaviour["user_id"])
    table = _dense(behaviour, user_ids, item_ids)
    summary = _summarise(table, user_ids, item_ids, dropped, manifest)
    with replace_folder(data / INTERACTIONS_FOLDER) as folder:
        pq.write_table(table, folder / "interactions.parquet", compression="zstd")
        pq.write_table(_index_table("user_id", user_ids), folder / "users.parquet", compression="zstd")
        items = _index_table("item_id", item_ids).append_column("item_hash", pa.array(item_hashes, pa.uint64()))
        pq.write_table(items, folder / "items.parquet", compression="zstd")
        (folder / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1))
    print(
        f"  {summary.interactions:,} interactions of {summary.users:,} users with {summary.items:,} items "
        f"in {perf_counter() - started:.1f} s; dropped: {_counted(summary.dropped)}"
    )
    return summary


def _counted(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in dropped.items() if count) or "none"


def load_summary(data: Path) -> InteractionsSummary:
    """The summary of a shop's folder; raises ConfigurationError when the stage has not run."""
    path = data / INTERACTIONS_FOLDER / "summary.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=InteractionsSummary)
    except FileNotFoundError as error:
        raise ConfigurationError(
            f"{path} is not there; run python -m batch.build_interactions --data {data} first."
        ) from error


def _described(rows: pa.Table) -> pa.Array:
    """The ids of the items that have ever had a title, ascending: the others are no products yet, and shown nowhere."""
    updates = rows.filter(pc.field("event_type") == EventType.ITEM_UPDATED.value)
    return _sorted_ids(updates.filter(pc.match_substring(updates["changes"], '"title":'))["item_id"])


def _usable_behaviour(rows: pa.Table, item_ids: pa.Array, redaction: Redaction) -> tuple[pa.Table, dict[str, int]]:
    kinds = pa.array([kind.value for kind in BEHAVIOUR_TYPES])
    behaviour = rows.filter(pc.is_in(rows["event_type"], value_set=kinds))
    dropped = {}
    for reason, keep in (
        ("redacted", lambda table: pc.and_(pc.is_valid(table["user_id"]), pc.is_valid(table["item_id"]))),
        ("erased_user", lambda table: pa.array(~redaction.mask(table))),
        ("unknown_item", lambda table: pc.is_in(table["item_id"], value_set=item_ids)),
    ):
        kept = behaviour.filter(keep(behaviour))
        dropped[reason] = behaviour.num_rows - kept.num_rows
        behaviour = kept
    return behaviour, dropped


def _dense(behaviour: pa.Table, user_ids: pa.Array, item_ids: pa.Array) -> pa.Table:
    user = np.asarray(pc.index_in(behaviour["user_id"], value_set=user_ids), dtype=np.int32)
    item = np.asarray(pc.index_in(behaviour["item_id"], value_set=item_ids), dtype=np.int32)
    enqueued_at = np.asarray(behaviour["enqueued_at"], dtype=np.int64)
    at = np.minimum(np.asarray(behaviour["occurred_at"], dtype=np.int64), enqueued_at)
    table = pa.table(
        {
            "user": user,
            "item": item,
            "event_type": behaviour["event_type"].combine_chunks().dictionary_encode(),
            "at": at,
            "enqueued_at": enqueued_at,
            "quantity": pc.fill_null(behaviour["quantity"], 1),
            "session_id": behaviour["session_id"],
            "source": behaviour["source"].combine_chunks().dictionary_encode(),
            "partition": behaviour["partition"],
            "sequence": behaviour["sequence"],
        }
    )
    # The lake comes ordered by source, partition and sequence, and lexsort is stable: these decide among equals.
    return table.take(pa.array(np.lexsort((enqueued_at, at, user)))).combine_chunks()


def _summarise(
    table: pa.Table, user_ids: pa.Array, item_ids: pa.Array, dropped: dict[str, int], manifest: LakeManifest
) -> InteractionsSummary:
    enqueued_at = np.asarray(table["enqueued_at"], dtype=np.int64)
    periods = choose_periods(enqueued_at, manifest.shop.time_zone)
    counted = {
        value["values"]: value["counts"] for value in table["event_type"].cast(pa.string()).value_counts().to_pylist()
    }
    return InteractionsSummary(
        interactions=table.num_rows,
        users=len(user_ids),
        items=len(item_ids),
        by_type={kind.value: counted.get(kind.value, 0) for kind in BEHAVIOUR_TYPES},
        dropped=dropped,
        oldest_at=int(enqueued_at.min()),
        newest_at=int(enqueued_at.max()),
        fingerprint=_fingerprint(table, user_ids, item_ids),
        time_zone=manifest.shop.time_zone,
        periods=periods,
        erasures=count_erasures(manifest),
    )


def _fingerprint(table: pa.Table, user_ids: pa.Array, item_ids: pa.Array) -> str:
    digest = sha256()
    for name in ("user", "item", "at", "enqueued_at", "quantity"):
        digest.update(np.ascontiguousarray(np.asarray(table[name])).tobytes())
    for column in (table["event_type"], table["session_id"], user_ids, item_ids):
        digest.update("\n".join(text or "" for text in column.to_pylist()).encode())
    return digest.hexdigest()


def _sorted_ids(column: pa.ChunkedArray) -> pa.Array:
    ids: pa.Array = pc.unique(column).drop_null()
    return ids.take(pc.sort_indices(ids))


def _index_table(name: str, ids: pa.Array) -> pa.Table:
    return pa.table({"index": np.arange(len(ids), dtype=np.int32), name: ids})


def _by_hash(item_ids: pa.Array) -> tuple[pa.Array, NDArray[np.uint64]]:
    """The ids in ascending order of their hashes, and these."""
    hashes = np.array([id_hash(item_id) for item_id in item_ids.to_pylist()], dtype=np.uint64)
    values, counts = np.unique(hashes, return_counts=True)
    if np.any(counts > 1):
        twins: list[Any] = item_ids.filter(pa.array(hashes == values[counts > 1][0])).to_pylist()
        raise RecommndrError(f"The item ids {twins} share a 64-bit hash; rename one of them.")
    order = np.argsort(hashes)
    return item_ids.take(pa.array(order)), hashes[order]


if __name__ == "__main__":
    sys.exit(main())
