"""The release manifest: what a bundle holds, written last, so that a bundle without one does not exist."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from shared.candidates.params import DEFAULT, SourceParams
from shared.errors import ReleaseUnavailable
from shared.events import EventSource
from shared.ports import BlobStore


class ReleaseManifest(Struct, frozen=True, kw_only=True):
    """One release. `files` maps each file's name inside the bundle to its SHA-256; instants are epoch ms.

    `state_layouts` describes the slots of its state version ("user", "item"), so that later code can go on folding it;
    None in releases that are older than this field. `retrieval` are the request-time parameters of its sources.
    """

    release_id: str
    created_at: int
    as_of: int
    schema_digest: str
    feature_names: tuple[str, ...]
    state_version: str
    time_zone: str
    currency: str
    bought_window_days: int
    shop_name: str
    sources: tuple[EventSource, ...]
    items_count: int
    users_count: int
    als: dict[str, float]
    evaluation: dict[str, Any]
    drift_baseline: dict[str, list[float]]
    mlflow_run_id: str | None
    files: dict[str, str]
    state_layouts: dict[str, list[dict[str, Any]]] | None = None
    retrieval: SourceParams = DEFAULT


def folder_of(release_id: str) -> str:
    """Where the bundle's files stand in the blob store."""
    return f"releases/{release_id}"


def checksum(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return sha256(data).hexdigest()


def write_manifest(blobs: BlobStore, manifest: ReleaseManifest) -> None:
    """Write it; every file it names must stand already."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    blobs.write(f"{folder_of(manifest.release_id)}/manifest.json", data)


def read_manifest(blobs: BlobStore, release_id: str) -> ReleaseManifest:
    """Raises ReleaseUnavailable when there is none or it cannot be read."""
    try:
        return msgspec.json.decode(blobs.read(f"{folder_of(release_id)}/manifest.json"), type=ReleaseManifest)
    except FileNotFoundError as error:
        raise ReleaseUnavailable(f"release {release_id} has no manifest: it was never finished or is gone") from error
    except msgspec.DecodeError as error:
        raise ReleaseUnavailable(f"the manifest of release {release_id} cannot be read: {error}") from error


def read_file(blobs: BlobStore, manifest: ReleaseManifest, name: str) -> bytes:
    """One of the bundle's files, checked; raises ReleaseUnavailable when missing or altered."""
    try:
        data = blobs.read(f"{folder_of(manifest.release_id)}/{name}")
    except FileNotFoundError as error:
        raise ReleaseUnavailable(f"release {manifest.release_id} lacks its file {name}") from error
    if checksum(data) != manifest.files.get(name):
        raise ReleaseUnavailable(f"{name} of release {manifest.release_id} differs from its checksum")
    return data


def release_ids(blobs: BlobStore) -> list[str]:
    """Every finished release, ascending."""
    return [name.split("/")[1] for name in blobs.names("releases/") if name.endswith("/manifest.json")]
