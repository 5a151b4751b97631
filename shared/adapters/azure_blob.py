"""The blob port over one container of Azure Blob Storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.identity import DefaultAzureCredential
from azure.storage.blob import ContainerClient

from shared.adapters.blob_address import BlobAddress
from shared.errors import ConfigurationError, InfrastructureFault


class AzureBlobStore:
    """Blobs of one container, which must exist; a block blob's upload becomes visible whole or not at all.

    With `folder` names are relative to that folder of the container.
    """

    def __init__(self, container: ContainerClient, folder: str = "") -> None:
        self._container = container
        self._lead = f"{folder}/" if folder else ""

    def read(self, name: str) -> bytes:
        """The bytes. Raises FileNotFoundError when there are none, InfrastructureFault when Azure does not answer."""
        with _mapped(name):
            return self._container.download_blob(self._named(name)).readall()

    def write(self, name: str, data: bytes) -> None:
        """Put the bytes there whole or not at all. Raises InfrastructureFault."""
        with _mapped(name):
            self._container.upload_blob(self._named(name), data, overwrite=True)

    def replace(self, name: str, data: bytes, expected: bytes | None) -> bool:
        """Write if what is there is `expected` (None: nothing), by entity tag, and say whether that was so."""
        blob = self._container.get_blob_client(self._named(name))
        with _mapped(name):
            try:
                if expected is None:
                    blob.upload_blob(data, overwrite=False)
                    return True
                held = blob.download_blob()
                if held.readall() != expected:
                    return False
                blob.upload_blob(
                    data, overwrite=True, etag=held.properties.etag, match_condition=MatchConditions.IfNotModified
                )
            except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError):
                return False
        return True

    def names(self, prefix: str) -> Iterator[str]:
        """All names that begin with the prefix, ascending: the order in which Azure lists them."""
        with _mapped(prefix):
            for name in self._container.list_blob_names(name_starts_with=f"{self._lead}{prefix}" or None):
                yield name.removeprefix(self._lead)

    def delete(self, name: str) -> None:
        """Remove it; nothing happens when it is not there. Raises InfrastructureFault."""
        with _mapped(name):
            try:
                self._container.delete_blob(self._named(name))
            except ResourceNotFoundError:
                return

    def _named(self, name: str) -> str:
        return f"{self._lead}{_checked(name)}"


def open_azure_blobs(address: BlobAddress, connection: str = "", client_id: str | None = None) -> AzureBlobStore:
    """The container, or folder in one, at an address: on Azure as the app's managed identity.

    `client_id` chooses a user-assigned identity; off Azure the developer's own sign-in serves. The emulator knows no
    identities: `connection` is its connection string, of which account name and key are taken. Raises
    ConfigurationError: none for the emulator, or one for Azure, where keys have no place.
    """
    if address.emulated:
        credential: Any = _emulator_credential(connection)
    elif connection:
        raise ConfigurationError("BLOB_CONNECTION is for the emulator at http://127.0.0.1; leave it empty for Azure")
    else:
        credential = DefaultAzureCredential(managed_identity_client_id=client_id)
    client = ContainerClient(
        address.account_url, address.container, credential=credential, connection_timeout=5, read_timeout=30
    )
    return AzureBlobStore(client, address.name)


def _emulator_credential(connection: str) -> dict[str, str]:
    parts = dict(part.partition("=")[::2] for part in connection.split(";") if part)
    if not parts.get("AccountName") or not parts.get("AccountKey"):
        raise ConfigurationError(
            "the blob emulator wants BLOB_CONNECTION: its connection string, with AccountName and AccountKey"
        )
    return {"account_name": parts["AccountName"], "account_key": parts["AccountKey"]}


def _checked(name: str) -> str:
    if not name or name.startswith("/") or ".." in PurePosixPath(name).parts or "\0" in name or "\\" in name:
        raise ValueError(f"{name!r} is no blob name: relative, without '..', backslash or NUL")
    return name


@contextmanager
def _mapped(name: str) -> Iterator[None]:
    """The SDK's errors as the port's; a missing container is a fault and not a missing blob."""
    try:
        yield
    except ResourceNotFoundError as error:
        if getattr(error, "error_code", None) == "ContainerNotFound":
            raise InfrastructureFault("the blob container that BLOB_URL names does not exist") from error
        raise FileNotFoundError(f"no blob {name}") from error
    except AzureError as error:
        raise InfrastructureFault(f"blob storage does not answer for {name}: {error.message}") from error
