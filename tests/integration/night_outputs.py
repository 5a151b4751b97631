"""A night's outputs made by hand, small and different for each seed: what publishing starts from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.adapters.folder_blob import FolderBlobStore
from shared.candidates.query import ListKind
from shared.candidates.span import lists_folder
from shared.catalog import CatalogEntry
from shared.events import EventSource, ItemId
from shared.features.definitions import STATE_VERSION
from shared.features.vector import SCHEMA
from shared.releases.bundle import encode_files, write_bundle
from shared.releases.manifest import ReleaseManifest, checksum

USERS = [f"user-{number}" for number in range(70)]
ITEMS = 40
LISTS = pa.schema(
    [
        ("item", pa.int32()),
        ("indexes", pa.list_(pa.int32())),
        ("columns", pa.list_(pa.list_(pa.float32()))),
    ]
)


def write_night(data: Path, release_id: str, seed: int) -> ReleaseManifest:
    """Lists, bundle and release_id.txt below `data`, as the stages before publishing leave them."""
    draw = np.random.default_rng(seed)
    records = pa.table(
        {
            "user_id": USERS,
            "newest_at": pa.array(draw.integers(1, 10**12, len(USERS)), pa.int64()),
            "actions_count": pa.array(draw.integers(1, 99, len(USERS)), pa.int64()),
            "indexes": pa.array([draw.permutation(ITEMS)[: draw.integers(0, 9)] for _ in USERS], pa.list_(pa.int32())),
        }
    )
    sizes = [len(each) for each in records["indexes"].to_pylist()]
    records = records.append_column("scores", pa.array([draw.random(n) for n in sizes], pa.list_(pa.float32())))
    records = records.append_column("vector", pa.array([draw.random(4) for _ in USERS], pa.list_(pa.float32())))
    folder = data / "nightly/candidates"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(records.slice(0, 30), folder / "part-00000.parquet")
    pq.write_table(records.slice(30), folder / "part-00001.parquet")
    for kind in ListKind:
        lists_folder(data, "all", kind).mkdir(parents=True, exist_ok=True)
        pq.write_table(_lists(draw), lists_folder(data, "all", kind) / "part-00000.parquet")
    entries = tuple(
        CatalogEntry(item_id=ItemId(f"item-{number}"), fields={"title": (seed, 1, f"Title {seed}")})
        for number in range(ITEMS)
    )
    files = encode_files(entries, draw.random((ITEMS, 4)).astype(np.float32), b"no ranker is loaded here")
    manifest = ReleaseManifest(
        release_id=release_id,
        created_at=0,
        as_of=1_780_000_000_000,
        schema_digest=SCHEMA.digest,
        feature_names=SCHEMA.names,
        state_version=STATE_VERSION,
        time_zone="UTC",
        currency="GBP",
        bought_window_days=30,
        shop_name="test",
        sources=(EventSource("live-1", (2,)),),
        items_count=ITEMS,
        users_count=len(USERS),
        als={"regularization": 1.0, "alpha": 1.0},
        evaluation={},
        drift_baseline={},
        mlflow_run_id=None,
        files={name: checksum(body) for name, body in files.items()},
    )
    write_bundle(FolderBlobStore(data), manifest, files)
    (data / "nightly/release").mkdir(exist_ok=True)
    (data / "nightly/release/release_id.txt").write_text(release_id)
    (data / "nightly/candidates/summary.json").write_bytes(msgspec.json.encode({"as_of": manifest.as_of, "users": 70}))
    return manifest


def _lists(draw: np.random.Generator) -> pa.Table:
    indexes = [draw.permutation(ITEMS)[: draw.integers(0, 6)] for _ in range(ITEMS)]
    columns = [[draw.random(len(each)), draw.random(len(each))] for each in indexes]
    return pa.table({"item": np.arange(ITEMS), "indexes": indexes, "columns": columns}, schema=LISTS)
