"""One server per data folder: a lock file that also says who serves it, and where."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from shared.errors import ConfigurationError

LOCK_NAME = "serve.lock"


class Serving(msgspec.Struct, frozen=True):
    """Who holds the folder. `address` is empty until the server answers."""

    pid: int
    address: str = ""


class InstanceLock:
    """Held for as long as the process lives, however it ends; a context manager.

    Raises ConfigurationError when another process holds it, or the folder cannot be had.
    """

    def __init__(self, data: Path) -> None:
        self._path = data / LOCK_NAME
        try:
            data.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
        except OSError as error:
            raise ConfigurationError(
                f"cannot write into {data} ({error.strerror}); give a folder of yours with --data"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            holder = read_serving(data)
            who = "another process" if holder is None else f"process {holder.pid}"
            where = f" on {holder.address}" if holder is not None and holder.address else ""
            raise ConfigurationError(
                f"{who} serves {data} already{where}; stop it, or give another folder with --data"
            ) from error
        self.announce("")

    def announce(self, address: str) -> None:
        """Tell others where the server of this folder answers."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(msgspec.json.encode(Serving(os.getpid(), address)))
        self._file.flush()

    def __enter__(self) -> Self:
        """Hold it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go; the file stays, empty."""
        self._file.seek(0)
        self._file.truncate()
        self._file.close()


def read_serving(data: Path) -> Serving | None:
    """What the lock file of a folder says; None when it says nothing."""
    try:
        return msgspec.json.decode((data / LOCK_NAME).read_bytes(), type=Serving)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
