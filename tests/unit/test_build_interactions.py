"""From a lake on disk to the dense table: the index, the order, what is left out, and the command's exits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.build_interactions import load_summary, main
from batch.interactions import CART, PURCHASE, VIEW, Interactions, count_rows, load_interactions
from shared.adapters.folder_blob import FolderBlobStore
from shared.events import Event, EventType, ItemId, UserId, encode_event, id_hash, to_ms
from shared.ingest.lake import ShopSettings, publish_history, write_sealed
from shared.ingest.lake_table import EVENT_SCHEMA
from shared.ports import LandingRow, Verdict

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
Behaviour = tuple[str, str, str, float]
"""(user, item, event type, days after FIRST)"""

EVENTS: tuple[Behaviour, ...] = (
    ("zoe", "lamp", "view", 0),
    ("ann", "vase", "view", 1),
    ("ann", "vase", "cart", 1.5),
    ("zoe", "ämber", "view", 4),
    ("ann", "ghost", "view", 5),
    ("ann", "lamp", "purchase", 9.5),
)


def write_shop(
    data: Path, events: Sequence[Behaviour] = EVENTS, items: Sequence[str] = ("vase", "lamp", "ämber")
) -> None:
    rows = [
        {"event_type": "item_updated", "item_id": item, "occurred_at": to_ms(FIRST), "changes": '{"title": "x"}'}
        for item in items
    ]
    rows += [
        {
            "event_type": kind,
            "user_id": user,
            "item_id": item,
            "occurred_at": to_ms(FIRST + timedelta(days=days)),
            "session_id": "s" if kind == "purchase" else None,
        }
        for user, item, kind, days in events
    ]
    for number, row in enumerate(rows):
        row["event_id"] = f"e{number}"
    table = pa.Table.from_pylist(rows, schema=EVENT_SCHEMA).sort_by("occurred_at")
    publish_history(FolderBlobStore(data), "history-000000000001", 2, ShopSettings(), [table])


def seal(data: Path, *rows: tuple[Event, Verdict, datetime]) -> None:
    landing = [
        LandingRow("live-1", 0, number, to_ms(enqueued), verdict, encode_event(event))
        for number, (event, verdict, enqueued) in enumerate(rows)
    ]
    write_sealed(FolderBlobStore(data), landing)


def event(user: str, item: str | None, kind: EventType, at: datetime) -> Event:
    return Event(
        event_id=f"{user}-{at}",
        event_type=kind,
        occurred_at=at,
        user_id=UserId(user),
        item_id=None if item is None else ItemId(item),
    )


def build(data: Path) -> None:
    assert main(["--data", str(data)]) == 0


def named(found: Interactions) -> list[str]:
    """The item of each row by its id; the index follows the hashes."""
    ids = sorted(("lamp", "vase", "ämber"), key=id_hash)
    return [ids[index] for index in found.item]


def test_the_item_index_follows_the_hashes_and_the_user_index_the_bytes_of_the_ids(tmp_path: Path) -> None:
    write_shop(tmp_path)
    build(tmp_path)
    items = pq.read_table(tmp_path / "nightly/interactions/items.parquet").to_pydict()
    assert items["item_id"] == ["vase", "ämber", "lamp"]
    assert items["item_hash"] == sorted(items["item_hash"])
    assert items["index"] == [0, 1, 2]
    assert items["item_hash"] == [id_hash(item) for item in items["item_id"]]
    users = pq.read_table(tmp_path / "nightly/interactions/users.parquet").to_pydict()
    assert users["user_id"] == ["ann", "zoe"]
    assert (count_rows(tmp_path, "users"), count_rows(tmp_path, "items")) == (2, 3)


def test_an_item_without_a_title_is_no_product_yet(tmp_path: Path) -> None:
    write_shop(tmp_path, items=("vase", "lamp"))
    stock_alone = Event(
        event_id="s",
        event_type=EventType.ITEM_UPDATED,
        occurred_at=FIRST,
        item_id=ItemId("ghost"),
        changes={"stock": 1},
    )
    seal(tmp_path, (stock_alone, Verdict.ACCEPTED, FIRST))
    build(tmp_path)
    items = pq.read_table(tmp_path / "nightly/interactions/items.parquet").to_pydict()
    assert set(items["item_id"]) == {"vase", "lamp"}


def test_rows_are_dense_and_ordered_by_user_and_time(tmp_path: Path) -> None:
    write_shop(tmp_path)
    build(tmp_path)
    found = load_interactions(tmp_path)
    assert found.user.tolist() == [0, 0, 0, 1, 1]
    assert named(found) == ["vase", "vase", "lamp", "lamp", "ämber"]
    assert found.event_type.tolist() == [VIEW, CART, PURCHASE, VIEW, VIEW]
    assert found.session.tolist()[:2] == [-1, -1]
    assert found.session[2] >= 0
    assert found.quantity.tolist() == [1] * 5
    summary = load_summary(tmp_path)
    assert summary.dropped == {"redacted": 0, "erased_user": 0, "unknown_item": 1}
    assert summary.by_type == {"view": 3, "cart": 1, "remove_from_cart": 0, "purchase": 1}
    assert summary.newest_at == to_ms(FIRST + timedelta(days=9.5))
    assert summary.periods.test_end_at == to_ms(FIRST + timedelta(days=10))


def test_live_rows_count_when_accepted_and_never_before_they_were_enqueued(tmp_path: Path) -> None:
    write_shop(tmp_path)
    at = FIRST + timedelta(days=9.6)
    seal(
        tmp_path,
        (event("ann", "ämber", EventType.VIEW, at + timedelta(hours=5)), Verdict.ACCEPTED, at),
        (event("ann", "vase", EventType.VIEW, at), Verdict.DUPLICATE, at),
        (event("ann", "vase", EventType.VIEW, at), Verdict.DEAD, at),
        (event("zoe", "vase", EventType.VIEW, FIRST + timedelta(days=2)), Verdict.ACCEPTED, at),
    )
    build(tmp_path)
    found = load_interactions(tmp_path)
    assert len(found) == 7
    zoes = found.where(found.user == 1)
    assert named(zoes) == ["lamp", "vase", "ämber"], "what was sent late stands where it happened"
    assert found.at[[name == "ämber" for name in named(found)]].tolist() == [
        to_ms(at),
        to_ms(FIRST + timedelta(days=4)),
    ]
    assert len(found.known_before(to_ms(at))) == 5


def test_an_erased_user_keeps_only_what_came_after(tmp_path: Path) -> None:
    write_shop(tmp_path)
    erased = FIRST + timedelta(days=9.7)
    seal(
        tmp_path,
        (event("ann", None, EventType.USER_ERASED, erased), Verdict.ACCEPTED, erased),
        (
            event("ann", "vase", EventType.VIEW, erased + timedelta(hours=1)),
            Verdict.ACCEPTED,
            erased + timedelta(hours=1),
        ),
    )
    build(tmp_path)
    found = load_interactions(tmp_path)
    assert found.user.tolist() == [0, 1, 1]
    assert named(found) == ["vase", "lamp", "ämber"]
    assert load_summary(tmp_path).dropped["erased_user"] == 4


def test_building_again_gives_the_same_fingerprint_and_another_event_another(tmp_path: Path) -> None:
    write_shop(tmp_path / "a")
    write_shop(tmp_path / "b", (*EVENTS[:-1], ("ann", "lamp", "purchase", 9.6)))
    build(tmp_path / "a")
    first = load_summary(tmp_path / "a")
    build(tmp_path / "a")
    build(tmp_path / "b")
    assert load_summary(tmp_path / "a") == first
    assert load_summary(tmp_path / "b").fingerprint != first.fingerprint
    assert not list((tmp_path / "a/nightly").glob(".*")), "nothing half-written stays"


def test_naming_users_and_items_anew_keeps_the_numbers(tmp_path: Path) -> None:
    write_shop(tmp_path / "a")
    names = {"zoe": "q", "ann": "r", "lamp": "3", "vase": "2", "ämber": "1", "ghost": "0"}
    write_shop(tmp_path / "b", [(names[u], names[i], kind, d) for u, i, kind, d in EVENTS], ("2", "3", "1"))
    build(tmp_path / "a")
    build(tmp_path / "b")
    a, b = load_interactions(tmp_path / "a"), load_interactions(tmp_path / "b")
    ours, theirs = (sorted(ids, key=id_hash) for ids in (("lamp", "vase", "ämber"), "321"))
    places = np.array([ours.index({"3": "lamp", "2": "vase", "1": "ämber"}[name]) for name in theirs])
    assert sorted(zip(a.user, a.item, a.at, strict=True)) == sorted(zip(1 - b.user, places[b.item], b.at, strict=True))


@pytest.mark.parametrize(
    ("events", "items", "message"),
    [
        (EVENTS, (), "catalogue"),
        (EVENTS[:2], ("lamp", "vase"), "at least 3"),
        ((), ("lamp",), "no interactions"),
    ],
)
def test_too_little_data_exits_2_and_says_why(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    events: Sequence[Behaviour],
    items: Sequence[str],
    message: str,
) -> None:
    write_shop(tmp_path, events, items)
    assert main(["--data", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "nightly/interactions").exists()


def test_no_lake_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path)]) == 2
    assert "no lake" in capsys.readouterr().err
