"""The files that ingestion reads: on this machine or in blob storage, gzipped or not."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from shared.adapters.blob_address import is_blob_address, read_blob
from shared.errors import RecommndrError

_GZIP = b"\x1f\x8b"


class UnreadableInput(RecommndrError):
    """A file cannot be read as what it was said to be; the message says what to do next."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file to read. `address` is a path, or https://ACCOUNT.blob.core.windows.net/CONTAINER/NAME.

    A blob is read whole into memory; `connection` is the setting BLOB_CONNECTION.
    """

    address: str
    connection: str = ""

    @property
    def name(self) -> str:
        """The last part of the address."""
        return PurePosixPath(self.address).name

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The name's endings in lower case, .gz left out."""
        return tuple(ending for ending in map(str.lower, PurePosixPath(self.name).suffixes) if ending != ".gz")

    def open(self) -> BinaryIO:
        """The bytes from the beginning, decompressed where they are gzip. Raises UnreadableInput."""
        raw = self._raw()
        head = raw.read(2)
        raw.seek(0)
        if head != _GZIP:
            return raw
        if isinstance(raw, io.BytesIO):
            return cast("BinaryIO", gzip.GzipFile(fileobj=raw))
        raw.close()
        return cast("BinaryIO", gzip.open(self.address))

    def beside(self, name: str) -> InputFile | None:
        """The file of this name in the same folder, where there is one. Raises as `open`."""
        folder, slash, _ = self.address.rpartition("/")
        other = InputFile(f"{folder}{slash}{name}", self.connection)
        try:
            other._raw().close()
        except UnreadableInput:
            return None
        return other

    def _raw(self) -> BinaryIO:
        try:
            if is_blob_address(self.address):
                return io.BytesIO(read_blob(self.address, self.connection))
            return Path(self.address).open("rb")
        except FileNotFoundError as error:
            raise UnreadableInput(f"there is no file {self.address}; give --path the data set's file") from error
        except OSError as error:
            raise UnreadableInput(f"{self.address} cannot be read: {error.strerror}") from error
