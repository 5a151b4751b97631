from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.adapters.folder_blob import FolderBlobStore
from shared.errors import InfrastructureFault
from shared.ports import BlobStore

STORES: dict[str, Callable[[Path], BlobStore]] = {"folder": lambda root: FolderBlobStore(root / "blobs")}


@pytest.fixture(params=STORES)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return STORES[request.param](tmp_path)


def test_what_is_written_is_read(blobs: BlobStore) -> None:
    blobs.write("a/b/c.bin", b"\x00\xff")
    blobs.write("a/b/c.bin", b"second")
    blobs.write("a/b/empty", b"")
    assert blobs.read("a/b/c.bin") == b"second"
    assert blobs.read("a/b/empty") == b""


def test_what_is_not_there_is_file_not_found(blobs: BlobStore) -> None:
    blobs.write("a/b", b"")
    for name in ("absent", "a/absent", "a", "a/b/c"):
        with pytest.raises(FileNotFoundError):
            blobs.read(name)


def test_names_are_ascending_and_by_prefix(blobs: BlobStore) -> None:
    assert list(blobs.names("")) == []
    for name in ("b/2", "b/10", "a.txt", "b-c", "a/z", "b/x/y"):
        blobs.write(name, b"")
    assert list(blobs.names("")) == ["a.txt", "a/z", "b-c", "b/10", "b/2", "b/x/y"]
    assert list(blobs.names("b/")) == ["b/10", "b/2", "b/x/y"]
    assert list(blobs.names("b")) == ["b-c", "b/10", "b/2", "b/x/y"]
    assert list(blobs.names("b/1")) == ["b/10"]
    assert list(blobs.names("none/at/all")) == []


def test_delete_is_idempotent(blobs: BlobStore) -> None:
    blobs.write("a/b", b"")
    blobs.delete("a/b")
    blobs.delete("a/b")
    blobs.delete("never/was")
    assert list(blobs.names("")) == []


def test_replace_needs_what_was_expected(blobs: BlobStore) -> None:
    assert not blobs.replace("m", b"1", b"0")
    assert blobs.replace("m", b"1", None)
    assert not blobs.replace("m", b"2", None)
    assert not blobs.replace("m", b"2", b"0")
    assert blobs.replace("m", b"2", b"1")
    assert blobs.read("m") == b"2"
    assert list(blobs.names("")) == ["m"]


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../up", "a/..", "a\0b", "a\\..\\b"])
def test_a_name_that_leaves_the_store_is_refused(blobs: BlobStore, name: str) -> None:
    for act in (
        lambda: blobs.read(name),
        lambda: blobs.write(name, b""),
        lambda: blobs.delete(name),
        lambda: blobs.replace(name, b"", None),
    ):
        with pytest.raises(ValueError, match="no blob name"):
            act()


def test_a_folder_that_is_full_keeps_the_old_bytes_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FolderBlobStore(tmp_path)
    store.write("a/b", b"old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InfrastructureFault, match="free space"):
        store.write("a/b", b"new")
    assert store.read("a/b") == b"old"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_a_folder_lists_no_unfinished_writes_nor_its_lock(tmp_path: Path) -> None:
    store = FolderBlobStore(tmp_path)
    (tmp_path / ".recommndr-halfway").write_bytes(b"a killed process left this")
    assert store.replace("m", b"1", None)
    assert list(store.names("")) == ["m"]
    with pytest.raises(ValueError, match="unfinished"):
        store.write(".recommndr-x", b"")


def test_a_folder_that_cannot_be_made_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = FolderBlobStore(tmp_path / "file" / "below")
    with pytest.raises(InfrastructureFault):
        store.write("a", b"")
    with pytest.raises(InfrastructureFault):
        store.replace("a", b"", None)
