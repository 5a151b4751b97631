"""Which blob store BLOB_URL names."""

from __future__ import annotations

from pathlib import Path

from shared.adapters.folder_blob import FolderBlobStore
from shared.ports import BlobStore


def open_blobs(url: str) -> BlobStore:
    """A folder, or a container of a storage account; Azure's SDK itself takes the identity from its environment."""
    if "://" not in url:
        return FolderBlobStore(Path(url))
    from shared.adapters.azure_blob import open_azure_blobs  # noqa: PLC0415 - Azure's SDK takes 0.5 s that a folder saves

    account_url, _, container = url.rstrip("/").rpartition("/")
    return open_azure_blobs(account_url, container)
