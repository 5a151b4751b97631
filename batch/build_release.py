"""Stage: the release bundle, put together from the night's outputs and written to the blob store, manifest last.

A release is named for its night and its content: equal inputs give the same id, and lists published under an id never
change.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from batch.catalog_snapshot import fold_catalog, load_item_ids
from batch.published_lists import RELEASE_FOLDER, digest_of_lists, load_summary
from batch.tracking import Tracking, run_of_night
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.stage_folder import replace_folder
from shared.candidates.span import load_factors, load_source_params
from shared.cli import command
from shared.errors import ConfigurationError, ReleaseUnavailable, SchemaMismatch
from shared.events import EventSource, from_ms
from shared.features.definitions import STATE_VERSION
from shared.features.vector import SCHEMA
from shared.ingest.lake import LakeManifest, read_manifest
from shared.ingest.state_versions import CURRENT_LAYOUTS
from shared.ports import BlobStore
from shared.ranking.scorer import OnnxScorer
from shared.releases.bundle import CALIBRATION, SEARCH, TREES, encode_files, load_bundle, write_bundle
from shared.releases.manifest import ReleaseManifest, checksum, folder_of
from shared.search.index import build_index
from shared.settings import Settings


@dataclass(frozen=True, slots=True)
class LiveSource:
    """The stream that the release will be served with."""

    name: str
    partition_count: int


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write releases/<id>/ and nightly/release/release_id.txt of a shop's folder, and register the ranker."""
    settings = Settings.from_environment(os.environ)
    parser = argparse.ArgumentParser(prog="python -m batch.build_release", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    data = parser.parse_args(argv).data
    live = LiveSource(settings.event_source, settings.partition_count)
    manifest = build_release(data, live, created_at=int(time.time() * 1000))
    if manifest.mlflow_run_id is not None:
        folder = data / folder_of(manifest.release_id)
        version = Tracking.of(data).register(
            manifest.release_id, manifest.mlflow_run_id, folder / "ranker.onnx", folder / "manifest.json"
        )
        print(f"  registered in MLflow as version {version}")
    return 0


def build_release(data: Path, live: LiveSource, *, created_at: int) -> ReleaseManifest:
    """Assemble and write the bundle; one that stands whole already under its id is left as it is.

    `created_at` is now, in epoch ms. Raises ConfigurationError when a stage has not run, SchemaMismatch when the
    ranker was trained on other features than this code makes.
    """
    blobs = FolderBlobStore(data)
    lake = read_manifest(blobs)
    if lake is None:
        raise ConfigurationError(f"there is no lake under {data}; run batch.generate_shop or batch.ingest_events first")
    night = load_summary(data)
    entries = fold_catalog(blobs, load_item_ids(data), night.as_of)
    factors = load_factors(data, "all")
    ranker = _checked_ranker(data)
    began = time.perf_counter()
    search = build_index(entry.product() for entry in entries)
    print(f"  search index: {len(search) / 1e6:.1f} MB in {time.perf_counter() - began:.1f} s", flush=True)
    files = encode_files(entries, np.asarray(factors.factors), ranker, {SEARCH: search, **extra_files(data)})
    shop = lake.shop
    content: dict[str, Any] = {
        "as_of": night.as_of,
        "schema_digest": SCHEMA.digest,
        "state_version": STATE_VERSION,
        "time_zone": shop.time_zone,
        "currency": shop.currency,
        "bought_window_days": shop.bought_window_days,
        "shop_name": shop.name,
        "sources": [msgspec.to_builtins(source) for source in serving_sources(lake, live)],
        "als": factors.fold_in_params(),
        "users_count": night.users,
        "retrieval": msgspec.to_builtins(load_source_params(data, "all")),
        "files": {name: checksum(body) for name, body in sorted(files.items())},
    }
    release_id = name_release(night.as_of, {**content, "lists": digest_of_lists(data)})
    manifest = _standing(blobs, release_id)
    if manifest is None:
        fields = {
            **content,
            "release_id": release_id,
            "created_at": created_at,
            "feature_names": SCHEMA.names,
            "items_count": len(entries),
            "evaluation": summary_of(_json(data / "nightly/evaluation/report.json", "batch.evaluate_release")),
            "drift_baseline": _json(data / "nightly/training/baseline.json", "feature_jobs.build_training_set"),
            "mlflow_run_id": run_of_night(data),
            "state_layouts": CURRENT_LAYOUTS,
        }
        manifest = msgspec.convert(fields, ReleaseManifest)
        write_bundle(blobs, manifest, files)
    with replace_folder(data / RELEASE_FOLDER) as folder:
        (folder / "release_id.txt").write_text(f"{release_id}\n", encoding="utf-8")
    size = sum(len(body) for body in files.values())
    print(f"  release {release_id}: {len(entries):,} items, {night.users:,} users, {size / 1e6:.1f} MB")
    return manifest


def extra_files(data: Path) -> dict[str, bytes]:
    """What a bundle may lack: what explains the ranker and how likely its scores are, where its export left them."""
    places = {TREES: data / "nightly/onnx/parts.npz", CALIBRATION: data / "nightly/onnx" / CALIBRATION}
    return {name: place.read_bytes() for name, place in places.items() if place.exists()}


def serving_sources(lake: LakeManifest, live: LiveSource) -> tuple[EventSource, ...]:
    """Where a user's shards may lie: every source of the lake, and the live one with the count it has now."""
    sources = {entry.name: entry.event_source() for entry in lake.sources}
    held = sources.get(live.name, EventSource(live.name, ()))
    earlier = tuple(count for count in held.partition_counts if count != live.partition_count)
    sources[live.name] = EventSource(live.name, (*earlier, live.partition_count), held.ours)
    return tuple(sources.values())


def name_release(as_of: int, content: dict[str, Any]) -> str:
    """<UTC day of as_of>-<8 hex digits of the content's hash>."""
    digest = sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()
    return f"{from_ms(as_of):%Y%m%d}-{digest[:8]}"


def summary_of(report: dict[str, Any]) -> dict[str, Any]:
    """What a release tells of its evaluation: the point estimates of every method, and the bars."""
    methods = report["methods"]
    return {
        "k": report["k"],
        "queries": report["queries"],
        "users": report["users"],
        "candidate_recall": report["candidate_recall"],
        "ndcg": {name: segments["all"]["ndcg"]["estimate"] for name, segments in methods.items()},
        "recall": {name: segments["all"]["recall"]["estimate"] for name, segments in methods.items()},
        "bars": report["bars"],
    }


def _checked_ranker(data: Path) -> bytes:
    summary = _json(data / "nightly/training/summary.json", "feature_jobs.build_training_set")
    path = data / "nightly/onnx/ranker.onnx"
    if not path.exists():
        raise ConfigurationError(f"{path} is not there; run python -m batch.export_ranker --data {data} first")
    ranker = path.read_bytes()
    columns = OnnxScorer(ranker).feature_count
    if summary["schema"] != SCHEMA.digest or columns != len(SCHEMA.names):
        raise SchemaMismatch(
            f"the ranker was trained on feature schema {summary['schema']} ({columns} columns), this code makes "
            f"{SCHEMA.digest} ({len(SCHEMA.names)}); run the night from build_training_set"
        )
    return ranker


def _standing(blobs: BlobStore, release_id: str) -> ReleaseManifest | None:
    try:
        return load_bundle(blobs, release_id).manifest
    except ReleaseUnavailable:
        return None


def _json(path: Path, module: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} is not there; run python -m {module} first") from error


if __name__ == "__main__":
    sys.exit(main())
