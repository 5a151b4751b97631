"""A bundle's files: what the night writes and a worker loads."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from shared.catalog import CatalogEntry, decode_entry
from shared.errors import ReleaseUnavailable
from shared.events import id_hash
from shared.ports import BlobStore
from shared.releases.manifest import ReleaseManifest, checksum, folder_of, read_file, read_manifest, write_manifest

RANKER: Final = "ranker.onnx"
FACTORS: Final = "item_factors.npy"
CATALOG: Final = "catalog.msgpack"
SEARCH: Final = "search.sqlite"
TREES: Final = "ranker_trees.npz"
CALIBRATION: Final = "calibration.json"


@dataclass(frozen=True)
class Bundle:
    """A release in memory. The catalogue snapshot's order is the dense item index.

    `factors` is float32[n_items, d]; `ranker` an ONNX model as bytes. Bundles of older code have neither `search` (the
    full-text index, an SQLite database) nor `trees` (what explains the ranker: `shared.ranking.ranker_parts`) nor
    `calibration` (how likely its scores are hits: `shared.ranking.calibration`).
    """

    manifest: ReleaseManifest
    entries: tuple[CatalogEntry, ...]
    factors: NDArray[np.float32]
    ranker: bytes
    search: bytes | None = None
    trees: bytes | None = None
    calibration: bytes | None = None


def encode_files(
    entries: tuple[CatalogEntry, ...],
    factors: NDArray[np.float32],
    ranker: bytes,
    extra: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """The bundle's files by name; `extra` holds those a bundle may lack, as they are (SEARCH, TREES, CALIBRATION).

    Raises:
        ReleaseUnavailable: two items share a 64-bit hash: state could not tell them apart.
    """
    hashes = {id_hash(entry.item_id) for entry in entries}
    if len(hashes) != len(entries):
        raise ReleaseUnavailable("two item ids share a 64-bit hash; rename one of them before publishing")
    buffer = io.BytesIO()
    np.save(buffer, factors.astype(np.float32), allow_pickle=False)
    catalog = msgspec.msgpack.encode([entry.encode() for entry in entries])
    return {RANKER: ranker, FACTORS: buffer.getvalue(), CATALOG: catalog, **(extra or {})}


def write_bundle(blobs: BlobStore, manifest: ReleaseManifest, files: dict[str, bytes]) -> None:
    """Put the files in place, the manifest last; raises ReleaseUnavailable unless they are just those it names."""
    if files.keys() != manifest.files.keys():
        raise ReleaseUnavailable(f"{sorted(files)} are not the files that the manifest of {manifest.release_id} names")
    for name, data in files.items():
        if manifest.files[name] != checksum(data):
            raise ReleaseUnavailable(f"{name} is not the file that the manifest of {manifest.release_id} names")
        blobs.write(f"{folder_of(manifest.release_id)}/{name}", data)
    write_manifest(blobs, manifest)


def load_bundle(blobs: BlobStore, release_id: str) -> Bundle:
    """Fetch and verify; raises ReleaseUnavailable."""
    manifest = read_manifest(blobs, release_id)
    encoded = msgspec.msgpack.decode(read_file(blobs, manifest, CATALOG), type=list[bytes])
    factors = np.load(io.BytesIO(read_file(blobs, manifest, FACTORS)), allow_pickle=False)
    entries = tuple(decode_entry(data) for data in encoded)
    if not len(entries) == len(factors) == manifest.items_count:
        raise ReleaseUnavailable(
            f"release {release_id} has {len(entries)} items and {len(factors)} factors, not {manifest.items_count}"
        )
    search, trees, calibration = (
        read_file(blobs, manifest, name) if name in manifest.files else None for name in (SEARCH, TREES, CALIBRATION)
    )
    return Bundle(manifest, entries, factors, read_file(blobs, manifest, RANKER), search, trees, calibration)
