from __future__ import annotations

import base64
import errno
import io
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import ContainerClient
from urllib3 import HTTPResponse

from shared.adapters.azure_blob import AzureBlobStore
from shared.adapters.blob_address import BlobAddress, open_blobs, parse_blob_address, read_blob
from shared.adapters.folder_blob import FolderBlobStore
from shared.errors import ConfigurationError, InfrastructureFault
from shared.ports import BlobStore
from tests.contract.azurite_server import CONNECTION, Azurite

Make = Callable[[pytest.FixtureRequest, Path], BlobStore]
ON_AZURITE = pytest.mark.xdist_group("azurite")


def emulated(request: pytest.FixtureRequest) -> BlobStore:
    server: Azurite = request.getfixturevalue("azurite")
    return open_blobs(server.new_container(), CONNECTION)


STORES: dict[str, Make] = {
    "folder": lambda _, root: FolderBlobStore(root / "blobs"),
    "azurite": lambda request, _: emulated(request),
}


@pytest.fixture(params=[pytest.param(name, marks=ON_AZURITE if name == "azurite" else ()) for name in STORES])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return STORES[request.param](request, tmp_path)


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


def test_of_many_replacing_at_once_none_is_lost(blobs: BlobStore) -> None:
    blobs.write("count", b"0")

    def add(times: int) -> None:
        while times:
            held = blobs.read("count")
            times -= blobs.replace("count", str(int(held) + 1).encode(), held)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, [5] * 4))
    assert blobs.read("count") == b"20"


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


class Wire(requests.adapters.BaseAdapter):
    """The SDK's outer boundary: answers every request with what the test says, and keeps what was asked."""

    def __init__(self, answer: int | Exception, code: str = "", body: bytes = b"") -> None:
        super().__init__()
        self.answer, self.code, self.body = answer, code, body
        self.asked: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        response = requests.Response()
        response.request, response.url, response.status_code = request, str(request.url), self.answer
        response.raw = HTTPResponse(io.BytesIO(self.body), preload_content=False)
        response.headers.update({"Content-Length": str(len(self.body)), "ETag": '"7"'})
        response.headers["Content-Range"] = f"bytes 0-{len(self.body) - 1}/{len(self.body)}"
        if self.code:
            response.headers["x-ms-error-code"] = self.code
        return response

    def close(self) -> None:
        return


def azure(wire: Wire) -> AzureBlobStore:
    session = requests.Session()
    session.mount("https://", wire)
    transport = RequestsTransport(session=session, session_owner=False)
    url = "https://example.blob.core.windows.net"
    return AzureBlobStore(ContainerClient(url, "lake", credential=None, transport=transport, retry_total=0))


def test_azure_reads_and_writes_whole_blobs() -> None:
    wire = Wire(206, body=b"bytes")
    assert azure(wire).read("a/b") == b"bytes"
    wire = Wire(201)
    azure(wire).write("a/b", b"new")
    assert wire.asked[0].method == "PUT"
    assert str(wire.asked[0].url).endswith("/lake/a/b")


def test_azure_without_the_blob_is_file_not_found_and_without_the_container_a_fault() -> None:
    with pytest.raises(FileNotFoundError):
        azure(Wire(404, "BlobNotFound")).read("a")
    azure(Wire(404, "BlobNotFound")).delete("a")
    with pytest.raises(InfrastructureFault, match="container"):
        azure(Wire(404, "ContainerNotFound")).read("a")


@pytest.mark.parametrize("answer", [403, 500, 503, requests.ConnectionError("no route"), requests.ReadTimeout("slow")])
def test_azure_that_does_not_answer_is_a_fault(answer: int | Exception) -> None:
    store = azure(Wire(answer))
    for act in (
        lambda: store.read("a"),
        lambda: store.write("a", b""),
        lambda: store.delete("a"),
        lambda: list(store.names("")),
        lambda: store.replace("a", b"", None),
    ):
        with pytest.raises(InfrastructureFault):
            act()


def test_azure_replaces_by_entity_tag() -> None:
    assert not azure(Wire(409, "BlobAlreadyExists")).replace("m", b"1", None)
    fresh = Wire(201)
    assert azure(fresh).replace("m", b"1", None)
    assert fresh.asked[0].headers["If-None-Match"] == "*"
    other = Wire(206, body=b"other")
    assert not azure(other).replace("m", b"2", b"1")
    assert [request.method for request in other.asked] == ["GET"]

    class Overtaken(Wire):
        def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
            if request.method == "PUT":
                self.answer, self.code, self.body = 412, "ConditionNotMet", b""
            return super().send(request)

    overtaken = Overtaken(206, body=b"1")
    assert not azure(overtaken).replace("m", b"2", b"1")
    assert overtaken.asked[-1].headers["If-Match"] == '"7"'


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/..", "a\0b", "a\\b"])
def test_azure_refuses_names_that_the_folder_refuses(name: str) -> None:
    wire = Wire(201)
    with pytest.raises(ValueError, match="no blob name"):
        azure(wire).write(name, b"")
    assert wire.asked == []


@ON_AZURITE
def test_a_folder_of_a_container_is_a_store_of_its_own(azurite: Azurite) -> None:
    url = azurite.new_container()
    whole, one = open_blobs(url, CONNECTION), open_blobs(f"{url}/shops/one", CONNECTION)
    one.write("lake/a", b"1")
    whole.write("shops/oneself/b", b"2")
    assert list(one.names("")) == ["lake/a"]
    assert list(one.names("lake/")) == ["lake/a"]
    assert whole.read("shops/one/lake/a") == b"1"
    assert one.replace("lake/a", b"3", b"1")
    assert read_blob(f"{url}/shops/one/lake/a", CONNECTION) == b"3"
    one.delete("lake/a")
    assert list(whole.names("")) == ["shops/oneself/b"]
    with pytest.raises(FileNotFoundError):
        read_blob(f"{url}/shops/one/lake/a", CONNECTION)


@ON_AZURITE
def test_what_the_emulator_refuses_is_a_fault_and_names_no_key(azurite: Azurite) -> None:
    absent = open_blobs(f"{azurite.account_url}/not-there", CONNECTION)
    with pytest.raises(InfrastructureFault, match="container"):
        absent.read("a")
    wrong = base64.b64encode(b"another key of theirs").decode()
    refused = open_blobs(azurite.new_container(), f"AccountName=devstoreaccount1;AccountKey={wrong}")
    for act in (lambda: refused.read("a"), lambda: refused.write("a", b""), lambda: list(refused.names(""))):
        with pytest.raises(InfrastructureFault) as caught:
            act()
        assert wrong not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "connection", "message"),
    [
        ("http://127.0.0.1:10000/devstoreaccount1/lake", "", "BLOB_CONNECTION"),
        ("http://127.0.0.1:10000/devstoreaccount1/lake", "AccountName=x", "BLOB_CONNECTION"),
        ("https://shop.blob.core.windows.net/lake", CONNECTION, "leave it empty for Azure"),
        ("http://shop.blob.core.windows.net/account/lake", CONNECTION, "use https"),
        ("http://127.0.0.1.evil.example/account/lake", CONNECTION, "use https"),
        ("ftp://files/lake", "", "no blob address"),
        ("https://shop.blob.core.windows.net/", "", "no container"),
        ("https://shop.blob.core.windows.net/Lake", "", "no container"),
        ("https://shop.blob.core.windows.net/lake/../x", "", "holds . or .."),
        ("https://shop.blob.core.windows.net/lake?sig=secret", "", "access is by identity"),
        ("https://user:secret@shop.blob.core.windows.net/lake", "", "access is by identity"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, connection: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        open_blobs(url, connection)
    assert "secret" not in str(caught.value)


def test_addresses_are_taken_apart() -> None:
    assert parse_blob_address("https://shop.blob.core.windows.net/lake/a%20b/c.csv") == BlobAddress(
        "https://shop.blob.core.windows.net", "lake", "a b/c.csv"
    )
    assert parse_blob_address("http://[::1]:10000/acc/lake") == BlobAddress("http://[::1]:10000/acc", "lake", "")
