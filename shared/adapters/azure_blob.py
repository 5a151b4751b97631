"""The blob port over one container of Azure Blob Storage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.identity import DefaultAzureCredential
from azure.storage.blob import ContainerClient

from shared.errors import InfrastructureFault


class AzureBlobStore:
    """Blobs of one container, which must exist; a block blob's upload becomes visible whole or not at all."""

    def __init__(self, container: ContainerClient) -> None:
        self._container = container

    def read(self, name: str) -> bytes:
        """The bytes. Raises FileNotFoundError when there are none, InfrastructureFault when Azure does not answer."""
        with _mapped(name):
            return self._container.download_blob(_checked(name)).readall()

    def write(self, name: str, data: bytes) -> None:
        """Put the bytes there whole or not at all. Raises InfrastructureFault."""
        with _mapped(name):
            self._container.upload_blob(_checked(name), data, overwrite=True)

    def replace(self, name: str, data: bytes, expected: bytes | None) -> bool:
        """Write if what is there is `expected` (None: nothing), by entity tag, and say whether that was so."""
        blob = self._container.get_blob_client(_checked(name))
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
            yield from self._container.list_blob_names(name_starts_with=prefix or None)

    def delete(self, name: str) -> None:
        """Remove it; nothing happens when it is not there. Raises InfrastructureFault."""
        with _mapped(name):
            try:
                self._container.delete_blob(_checked(name))
            except ResourceNotFoundError:
                return


def open_azure_blobs(account_url: str, container: str, client_id: str | None = None) -> AzureBlobStore:
    """The container `container` of the account at `account_url`, as the app's managed identity.

    `client_id` chooses a user-assigned identity; off Azure the developer's own sign-in serves.
    """
    credential = DefaultAzureCredential(managed_identity_client_id=client_id)
    client = ContainerClient(account_url, container, credential=credential, connection_timeout=5, read_timeout=30)
    return AzureBlobStore(client)


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
