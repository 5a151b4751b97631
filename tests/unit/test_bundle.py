from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from shared.adapters.folder_blob import FolderBlobStore
from shared.catalog import CatalogEntry
from shared.errors import ReleaseUnavailable
from shared.events import EventSource, ItemId
from shared.features.definitions import STATE_VERSION
from shared.features.vector import SCHEMA
from shared.releases import bundle as bundle_module
from shared.releases.bundle import (
    CATALOG,
    FACTORS,
    RANKER,
    SEARCH,
    TREES,
    encode_files,
    load_bundle,
    write_bundle,
)
from shared.releases.manifest import ReleaseManifest, checksum, folder_of, read_manifest, release_ids, write_manifest
from tests.unit.builders import NOW, updated

FACTOR_ROWS = np.arange(6, dtype=np.float64).reshape(3, 2) / 7


def entries() -> tuple[CatalogEntry, ...]:
    made = []
    for number, item in enumerate(("cup", "mug", "rake")):
        entry = CatalogEntry(item_id=ItemId(item))
        entry.apply(
            updated(
                item,
                at=NOW + number,
                event_id=f"made {item}",
                title=item.title(),
                price_cents=number,
                categories=["Home"],
            ),
            NOW,
        )
        made.append(entry)
    return tuple(made)


def manifest_of(files: dict[str, bytes], release_id: str = "r1", items_count: int = 3) -> ReleaseManifest:
    return ReleaseManifest(
        release_id=release_id,
        created_at=NOW,
        as_of=NOW,
        schema_digest=SCHEMA.digest,
        feature_names=SCHEMA.names,
        state_version=STATE_VERSION,
        time_zone="Europe/London",
        currency="GBP",
        bought_window_days=30,
        shop_name="shop",
        sources=(EventSource("live-1", (4, 8)), EventSource("foreign", (2,), ours=False)),
        items_count=items_count,
        users_count=9,
        als={"factors": 2.0},
        evaluation={"ndcg": 0.1},
        drift_baseline={"f": [0.0, 1.0]},
        mlflow_run_id=None,
        files={name: checksum(data) for name, data in files.items()},
    )


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobStore:
    return FolderBlobStore(tmp_path)


@pytest.fixture
def files() -> dict[str, bytes]:
    return encode_files(entries(), FACTOR_ROWS, b"onnx")  # type: ignore[arg-type]  # float64 is rounded on the way


def test_a_bundle_survives_the_store(blobs: FolderBlobStore, files: dict[str, bytes]) -> None:
    manifest = manifest_of(files)
    write_bundle(blobs, manifest, files)
    read = load_bundle(blobs, "r1")
    assert read.manifest == manifest
    assert [entry.encode() for entry in read.entries] == [entry.encode() for entry in entries()]
    assert read.factors.dtype == np.float32
    np.testing.assert_array_equal(read.factors, FACTOR_ROWS.astype(np.float32))
    assert read.ranker == b"onnx"
    assert (read.search, read.trees) == (None, None)
    assert release_ids(blobs) == ["r1"]
    assert encode_files(read.entries, read.factors, read.ranker) == files, "equal bundles are equal bytes"


def test_a_bundle_may_bring_a_search_index_and_trees(blobs: FolderBlobStore, files: dict[str, bytes]) -> None:
    factors = FACTOR_ROWS.astype(np.float32)
    more = encode_files(entries(), factors, b"onnx", {SEARCH: b"words", TREES: b"wood"})
    assert more == {**files, SEARCH: b"words", TREES: b"wood"}
    write_bundle(blobs, manifest_of(more), more)
    read = load_bundle(blobs, "r1")
    assert (read.search, read.trees) == (b"words", b"wood")
    only_search = encode_files(entries(), factors, b"onnx", {SEARCH: b"words"})
    write_bundle(blobs, manifest_of(only_search, "r2"), only_search)
    assert load_bundle(blobs, "r2").trees is None
    blobs.write(f"{folder_of('r2')}/{SEARCH}", b"other words")
    with pytest.raises(ReleaseUnavailable, match="checksum"):
        load_bundle(blobs, "r2")


def test_without_its_manifest_a_bundle_does_not_exist(blobs: FolderBlobStore, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        blobs.write(f"{folder_of('r1')}/{name}", data)
    assert release_ids(blobs) == []
    with pytest.raises(ReleaseUnavailable, match="never finished"):
        load_bundle(blobs, "r1")


@pytest.mark.parametrize("name", [RANKER, FACTORS, CATALOG])
def test_a_file_that_is_altered_or_gone_is_found(blobs: FolderBlobStore, files: dict[str, bytes], name: str) -> None:
    write_bundle(blobs, manifest_of(files), files)
    path = f"{folder_of('r1')}/{name}"
    altered = bytearray(files[name])
    altered[len(altered) // 2] ^= 1
    blobs.write(path, bytes(altered))
    with pytest.raises(ReleaseUnavailable, match="checksum"):
        load_bundle(blobs, "r1")
    blobs.delete(path)
    with pytest.raises(ReleaseUnavailable, match="lacks"):
        load_bundle(blobs, "r1")


def test_a_manifest_that_cannot_be_read_is_said_so(blobs: FolderBlobStore, files: dict[str, bytes]) -> None:
    write_bundle(blobs, manifest_of(files), files)
    whole = blobs.read("releases/r1/manifest.json")
    for broken in (whole[:-9], b"", b"[]", whole.replace(b'"items_count": 3', b'"items_count": "three"')):
        blobs.write("releases/r1/manifest.json", broken)
        with pytest.raises(ReleaseUnavailable, match="cannot be read"):
            read_manifest(blobs, "r1")


def test_only_the_files_that_the_manifest_names_are_written(blobs: FolderBlobStore, files: dict[str, bytes]) -> None:
    manifest = manifest_of(files)
    some = {name: data for name, data in files.items() if name != RANKER}
    for wrong in (some, {**files, "more.bin": b""}, {**files, RANKER: b"another"}):
        with pytest.raises(ReleaseUnavailable):
            write_bundle(blobs, manifest, wrong)
    assert release_ids(blobs) == []


def test_items_and_factors_must_be_as_many_as_the_manifest_says(blobs: FolderBlobStore) -> None:
    short = encode_files(entries(), FACTOR_ROWS[:2].astype(np.float32), b"onnx")
    write_bundle(blobs, manifest_of(short), short)
    with pytest.raises(ReleaseUnavailable, match="3 items and 2 factors"):
        load_bundle(blobs, "r1")
    whole = encode_files(entries(), FACTOR_ROWS.astype(np.float32), b"onnx")
    write_bundle(blobs, manifest_of(whole, "r2", items_count=4), whole)
    with pytest.raises(ReleaseUnavailable, match="not 4"):
        load_bundle(blobs, "r2")


def test_two_items_with_one_hash_are_not_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "id_hash", len)
    with pytest.raises(ReleaseUnavailable, match="share a 64-bit hash"):
        encode_files(entries(), FACTOR_ROWS.astype(np.float32), b"onnx")


def test_releases_are_listed_ascending(blobs: FolderBlobStore, files: dict[str, bytes]) -> None:
    for release_id in ("2026-02", "2026-01", "2025-12"):
        write_manifest(blobs, msgspec.structs.replace(manifest_of(files), release_id=release_id))
    assert release_ids(blobs) == ["2025-12", "2026-01", "2026-02"]
    assert read_manifest(blobs, "2026-01").sources[0] == replace(EventSource("live-1", (4, 8)))
