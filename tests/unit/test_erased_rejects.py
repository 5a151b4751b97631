from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from batch.erased_rejects import clear_rejects
from batch.ingest_events import main
from shared.adapters.folder_blob import FolderBlobStore
from shared.ingest.erased_users import ErasureEntry


def key_of(user_id: str) -> str:
    return blake2b(user_id.encode(), digest_size=16).hexdigest()


def erased(*user_ids: str) -> list[ErasureEntry]:
    return [ErasureEntry(key_of(one), 1, "0" * 32) for one in user_ids]


TABLE = (
    "time,customer,product\n"
    "2024-05-01T10:00:00Z,ann,p1\n"
    "2024-05-01T10:00:00Z,ann,p1\n"
    "soon,ann,p1\n"
    'soon,"annabel",p1\n'
    "2024-05-01T10:00:00Z,ann\n"
    "soon,17850.0,p1\n"
    "soon, ben ,p1,more\n"
)
JSON = (
    '{"time": "soon", "customer": "ann", "product": "p1"}\n'
    '{"time": , "customer":"ann"\n'
    '{"time": "x", "customer": "ben"}\n'
)
MAPPING = """
[events]
constants = { event = "view" }
columns = { time = "time", user = "customer", item = "product" }
"""


def rejects(tmp_path: Path, name: str, text: str) -> tuple[FolderBlobStore, str]:
    file, mapping, out = tmp_path / name, tmp_path / "m.toml", tmp_path / name.replace(".", "-")
    file.write_text(text + ("2024-05-01T10:00:00Z,carl,p1\n" if "csv" in name else _GOOD))
    mapping.write_text(MAPPING)
    assert main(["--format", "table", "--path", str(file), "--mapping", str(mapping), "--out", str(out)]) == 0
    blobs = FolderBlobStore(out)
    (found,) = [one for one in blobs.names("lake/rejects/") if one.endswith(".csv")]
    return blobs, found


_GOOD = '{"time": "2024-05-01T10:00:00Z", "customer": "carl", "product": "p1"}\n'


def test_rows_of_an_erased_user_go_and_no_others(tmp_path: Path) -> None:
    blobs, name = rejects(tmp_path, "log.csv", TABLE)
    before = blobs.read(name)
    assert before.count(b"ann,") == 3
    assert clear_rejects(blobs, [], key_of) == 0
    assert clear_rejects(blobs, erased("nobody"), key_of) == 0
    assert blobs.read(name) == before
    assert clear_rejects(blobs, erased("nobody", "ann"), key_of) == 3
    left = blobs.read(name).decode().splitlines()
    assert [line.split(",")[1].strip() for line in left] == ["customer", "annabel", "17850.0", "ben"]
    assert clear_rejects(blobs, erased("nobody", "ann", "ben", "17850"), key_of) == 2
    assert len(blobs.read(name).splitlines()) == 2


def test_in_json_and_in_rows_that_are_none_as_well(tmp_path: Path) -> None:
    blobs, name = rejects(tmp_path, "log.jsonl", JSON)
    assert clear_rejects(blobs, erased("ann"), key_of) == 2
    assert b"ann" not in blobs.read(name)
    assert b"ben" in blobs.read(name)


def test_a_file_is_looked_at_again_only_when_it_or_the_erasures_changed(tmp_path: Path) -> None:
    blobs, name = rejects(tmp_path, "log.csv", TABLE)
    asked: list[str] = []

    def counting(user_id: str) -> str:
        asked.append(user_id)
        return key_of(user_id)

    assert clear_rejects(blobs, erased("ann"), counting) == 3
    first = len(asked)
    assert first
    assert clear_rejects(blobs, erased("ann"), counting) == 0
    assert len(asked) == first
    blobs.write(name, blobs.read(name) + b"soon,ann,p1,9,,,\n")
    assert clear_rejects(blobs, erased("ann"), counting) == 1
