"""The blob port over a folder of the local file system."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from shared.errors import InfrastructureFault

_TEMPORARY = ".recommndr-"
"""What the name of every file begins with that is no blob: half-written files and the lock."""

_LOCK = f"{_TEMPORARY}lock"


class FolderBlobStore:
    """Blobs as files below `root`, which is made on the first write.

    A write goes to a temporary file beside its target, is flushed to the disk and renamed over it, so a reader or a
    crash finds the old bytes or the new ones. Temporary files are never listed. POSIX only (`fcntl`).
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def read(self, name: str) -> bytes:
        """The bytes; raises FileNotFoundError when there are none, InfrastructureFault when the disk fails."""
        path = self._path(name)
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(f"no blob {name}") from error
        except OSError as error:
            raise InfrastructureFault(f"cannot read {path}: {error.strerror}; check the disk and its rights") from error

    def write(self, name: str, data: bytes) -> None:
        """Put the bytes there whole or not at all. Raises InfrastructureFault when the disk refuses them."""
        path = self._path(name)
        try:
            _write_whole(path, data)
        except OSError as error:
            raise InfrastructureFault(
                f"cannot write {path}: {error.strerror}; check its free space and rights"
            ) from error

    def replace(self, name: str, data: bytes, expected: bytes | None) -> bool:
        """Write if what is there is `expected` (None: nothing), and say whether that was so."""
        with self._locked():
            try:
                held = self.read(name)
            except FileNotFoundError:
                held = None
            if held != expected:
                return False
            self.write(name, data)
            return True

    def names(self, prefix: str) -> Iterator[str]:
        """All names that begin with the prefix, ascending."""
        folder, _, _ = prefix.rpartition("/")
        start = self._path(folder) if folder else self.root
        found: list[str] = []
        for parent, _, files in os.walk(start):
            below = Path(parent).relative_to(self.root).as_posix()
            lead = "" if below == "." else f"{below}/"
            found += [f"{lead}{file}" for file in files if not file.startswith(_TEMPORARY)]
        yield from sorted(name for name in found if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Remove it; nothing happens when it is not there. Raises InfrastructureFault when the disk refuses."""
        path = self._path(name)
        try:
            path.unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise InfrastructureFault(f"cannot delete {path}: {error.strerror}; check its rights") from error

    def delete_unfinished(self, before_at: int) -> int:
        """Remove what writes that were killed left lying before this instant (epoch ms); returns how many files."""
        found = 0
        for parent, _, files in os.walk(self.root):
            for file in files:
                path = Path(parent) / file
                with suppress(FileNotFoundError):
                    if file.startswith(_TEMPORARY) and file != _LOCK and path.stat().st_mtime * 1000 < before_at:
                        path.unlink()
                        found += 1
        return found

    def _path(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
            raise ValueError(f"{name!r} is no blob name: relative, without '..', backslash or NUL")
        if parts[-1].startswith(_TEMPORARY):
            raise ValueError(f"{name!r} is no blob name: {_TEMPORARY}* is kept for unfinished writes")
        return self.root.joinpath(*parts)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / _LOCK).open("ab")
        except OSError as error:
            raise InfrastructureFault(f"cannot lock {self.root}: {error.strerror}; check its rights") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut: the folder's own entry has to reach the disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
