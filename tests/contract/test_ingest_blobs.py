"""From a file in blob storage to a shop's history in blob storage, on the emulator."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from batch.ingest_events import main
from shared.adapters.blob_address import open_blobs
from shared.adapters.folder_blob import FolderBlobStore
from shared.ingest.lake import read_manifest, read_rows
from tests.contract.azurite_server import CONNECTION, Azurite

pytestmark = pytest.mark.xdist_group("azurite")

TABLE = "time,customer,product,kind\n" + "".join(
    f"2024-05-{number % 28 + 1:02}T10:{number % 60:02}:00Z,u{number % 17},p{number % 11},view\n"
    for number in range(400)
)
MAPPING = """
[events]
columns = { time = "time", user = "customer", item = "product", event = "kind" }
"""


def test_a_blob_becomes_the_same_history_as_a_file(
    azurite: Azurite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = azurite.new_container()
    blobs = open_blobs(url, CONNECTION)
    blobs.write("inbox/log.csv.gz", gzip.compress(TABLE.encode() + b"bad\n"))
    mapping, file = tmp_path / "m.toml", tmp_path / "log.csv"
    mapping.write_text(MAPPING)
    file.write_text(f"{TABLE}bad\n")
    monkeypatch.setenv("BLOB_CONNECTION", CONNECTION)
    table = ["--format", "table", "--mapping", str(mapping)]
    there = [*table, "--path", f"{url}/inbox/log.csv.gz", "--out", f"{url}/shops/one"]
    assert main(there) == 0
    assert "rows: 401 = 400 events + 1 rejected" in capsys.readouterr().out
    assert main([*table, "--path", str(file), "--out", str(tmp_path / "shop")]) == 0
    shop, local = open_blobs(f"{url}/shops/one", CONNECTION), FolderBlobStore(tmp_path / "shop")
    assert read_manifest(shop) == read_manifest(local)
    assert read_rows(shop).equals(read_rows(local))
    assert list(shop.names("")) == list(local.names(""))
    capsys.readouterr()
    assert main(there) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*there, "--shift-weeks", "2"]) == 0
    manifest = read_manifest(shop)
    assert manifest is not None
    assert [source.shift_weeks for source in manifest.sources] == [2]
    assert not [name for name in shop.names("lake/") if name not in {entry.name for entry in manifest.files}
                and not name.startswith(("lake/rejects/", "lake/lake_manifest"))]  # fmt: skip


def test_what_is_not_there_is_said_in_one_line(
    azurite: Azurite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = azurite.new_container()
    mapping = tmp_path / "m.toml"
    mapping.write_text(MAPPING)
    table = ["--format", "table", "--mapping", str(mapping), "--path", f"{url}/inbox/log.csv", "--dry-run"]
    assert main(table) == 2
    assert "BLOB_CONNECTION" in capsys.readouterr().err
    monkeypatch.setenv("BLOB_CONNECTION", CONNECTION)
    assert main(table) == 2
    told = capsys.readouterr().err
    assert "there is no file http://127.0.0.1" in told
    assert told.count("\n") == 1
