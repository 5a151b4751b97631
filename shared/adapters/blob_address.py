"""Blob addresses: a folder, a container of a storage account or a folder in it, and single files there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from shared.adapters.folder_blob import FolderBlobStore
from shared.errors import ConfigurationError
from shared.ports import BlobStore

LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_CONTAINER: Final = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}|\$root|\$web")


@dataclass(frozen=True, slots=True)
class BlobAddress:
    """A place in blob storage: `account_url` ends before the container, `name` is what follows it, maybe empty."""

    account_url: str
    container: str
    name: str

    @property
    def emulated(self) -> bool:
        """It is on this machine: Azurite, not Azure."""
        return urlsplit(self.account_url).scheme == "http"


def is_blob_address(text: str) -> bool:
    """Whether it is meant as one, and not as a path."""
    return "://" in text


def parse_blob_address(url: str) -> BlobAddress:
    """https://<account>.blob.core.windows.net/<container>/<name>; the emulator has its account in the path.

    http is for loopback hosts alone: http://127.0.0.1:<port>/<account>/<container>/<name>. Raises ConfigurationError.
    """
    parts = urlsplit(url)
    path = [unquote(part) for part in parts.path.split("/") if part]
    if parts.query or parts.fragment or "@" in parts.netloc:
        # It may hold a key or a signature, so it is not shown.
        raise ConfigurationError("no blob address has a user, a query or a fragment; access is by identity")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigurationError(f"{url!r} is no blob address: https://<account>.blob.core.windows.net/<container>")
    account = []
    if parts.scheme == "http":
        if parts.hostname not in LOOPBACK:
            raise ConfigurationError(f"{url!r}: http is for the emulator on this machine alone; use https")
        account, path = path[:1], path[1:]
    if not path or not _CONTAINER.fullmatch(path[0]):
        raise ConfigurationError(f"{url!r} names no container after the account")
    if any(part in {".", ".."} for part in path):
        raise ConfigurationError(f"{url!r} holds . or .. between slashes")
    return BlobAddress("/".join([f"{parts.scheme}://{parts.netloc}", *account]), path[0], "/".join(path[1:]))


def open_blobs(url: str, connection: str = "") -> BlobStore:
    """A folder, or a container of a storage account (or a folder in it).

    Azure's SDK itself takes the identity from its environment. `connection` (the setting BLOB_CONNECTION) is for the
    emulator, which has none. Raises ConfigurationError.
    """
    if not is_blob_address(url):
        return FolderBlobStore(Path(url))
    address = parse_blob_address(url)
    from shared.adapters.azure_blob import open_azure_blobs  # noqa: PLC0415 - Azure's SDK takes 0.5 s that a folder saves

    return open_azure_blobs(address, connection)


def read_blob(url: str, connection: str = "") -> bytes:
    """One blob's bytes. Raises FileNotFoundError, InfrastructureFault, ConfigurationError."""
    address = parse_blob_address(url)
    folder, _, name = address.name.rpartition("/")
    if not name:
        raise ConfigurationError(f"{url!r} names a container and no file in it")
    place = "/".join(part for part in (address.account_url, address.container, folder) if part)
    return open_blobs(place, connection).read(name)
