"""Pages of erased users leave the exposure files, also those that were written late; all others stay as they were."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.user_keys import keyed_with
from shared.errors import CorruptRecord
from shared.ingest.erased_exposures import CLEARED_NAME, clear_exposures, lines_gone
from shared.ingest.erased_users import ErasureEntry
from shared.ingest.exposures import exposure_files, exposure_lines_of, write_exposures
from tests.unit.lake_builders import DAY, START, Watched

KEY_OF = keyed_with("a secret")
MINUTE = 60_000
AT = START + 10 * DAY + 5 * MINUTE


def line(user: str, as_of: int, number: int = 0) -> bytes:
    return msgspec.json.encode({"user_id": user, "user_key": KEY_OF(user), "as_of": as_of, "number": number})


def entry(user: str, at: int = AT) -> ErasureEntry:
    return ErasureEntry(KEY_OF(user), at, "ab" * 16)


@pytest.fixture
def blobs(tmp_path: Path) -> Watched:
    store = Watched(tmp_path)
    for day in range(10):
        at = START + day * DAY
        write_exposures(store, "w1", at, [line("ann", at), line("bob", at + 1), line("annabel", at + 2)])
        write_exposures(store, "w2", at, [line("ann", at + 3)])
    store.was_read.clear()
    return store


def names(blobs: FolderBlobStore) -> list[str]:
    return [name for _, _, name in exposure_files(blobs)]


def read(blobs: Watched) -> list[str]:
    found = [name for name in blobs.was_read if name in names(blobs)]
    blobs.was_read.clear()
    return found


def test_her_lines_go_and_files_that_held_nobody_else_with_them(blobs: Watched) -> None:
    before = {name: exposure_lines_of(blobs, name) for name in names(blobs)}
    assert clear_exposures(blobs, [entry("ann")], KEY_OF, AT + DAY) == 20
    assert len(names(blobs)) == 10
    for name in names(blobs):
        assert exposure_lines_of(blobs, name) == before[name][1:]
    assert lines_gone(blobs) == 20


def test_only_what_may_hold_somebody_is_read(blobs: Watched) -> None:
    assert clear_exposures(blobs, [], KEY_OF, AT) == 0
    assert read(blobs) == []
    early = entry("ann", START + 3 * DAY)
    assert clear_exposures(blobs, [early], KEY_OF, AT) == 7
    assert max(read(blobs)) < f"lake/exposures/{20231115 + 4}", "later days hold nothing from before"
    assert clear_exposures(blobs, [early], KEY_OF, AT) == 0
    assert read(blobs) == []
    assert clear_exposures(blobs, [early, entry("bob")], KEY_OF, AT) == 10


def test_a_file_that_comes_late_is_cleared_too(blobs: Watched) -> None:
    late = START + 2 * DAY
    clear_exposures(blobs, [entry("ann")], KEY_OF, AT)
    read(blobs)
    write_exposures(blobs, "w3", late, [line("ann", late), line("eve", late)])
    assert clear_exposures(blobs, [entry("ann")], KEY_OF, AT) == 1
    assert len([name for name in read(blobs) if "20231117" in name]) == 2, (
        "and the day's other files are looked at again"
    )
    assert lines_gone(blobs) == 21


def test_what_she_sees_afterwards_stays_and_a_minute_under_way_is_its_workers(blobs: Watched) -> None:
    write_exposures(blobs, "w1", AT, [line("ann", AT), line("ann", AT + 1)])
    assert clear_exposures(blobs, [entry("ann")], KEY_OF, AT + MINUTE) == 20
    (name,) = [one for one in names(blobs) if "T0005Z" in one]
    assert len(exposure_lines_of(blobs, name)) == 2
    assert clear_exposures(blobs, [entry("ann")], KEY_OF, AT + 10 * MINUTE) == 1
    assert exposure_lines_of(blobs, name) == [line("ann", AT + 1)]


def test_what_cannot_be_read_is_said(blobs: Watched) -> None:
    blobs.write(names(blobs)[0], b"no gzip")
    with pytest.raises(CorruptRecord, match="delete it"):
        clear_exposures(blobs, [entry("ann")], KEY_OF, AT)
    blobs.write(CLEARED_NAME, b"{")
    with pytest.raises(CorruptRecord, match="delete it"):
        lines_gone(blobs)
