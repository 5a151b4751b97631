from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batch.generate_shop import ShopPlan, main, shop_tables
from batch.synthetic_shop.assortment import LEAVES
from batch.synthetic_shop.calendar import build_calendar, last_midnight
from batch.synthetic_shop.memory import REBUY_AFTER_DAYS, Business, Memory
from batch.synthetic_shop.shoppers import BLOCK_SHOPPERS
from batch.synthetic_shop.streams import random_stream
from shared.adapters.folder_blob import FolderBlobStore
from shared.catalog import CatalogEntry
from shared.events import Event, EventType, ItemId, decode_event, encode_event, to_ms
from shared.ingest.lake import EVENT_SCHEMA, events_of_table, read_manifest, read_rows

DAY_MS = 86_400_000
LONDON = ZoneInfo("Europe/London")
ENDS_AT = to_ms(datetime(2026, 4, 20, tzinfo=LONDON))
SMALL = ShopPlan(
    users=400, items=150, events=12_000, days=45, seed=3, ends_at=ENDS_AT, time_zone="Europe/London", partitions=4
)
ARGUMENTS = ["--users", "80", "--items", "60", "--events", "800", "--days", "6", "--ends-at", "2026-04-20"]


@pytest.fixture(scope="module")
def tables() -> list[pa.Table]:
    return list(shop_tables(SMALL))


@pytest.fixture(scope="module")
def history(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables)


@pytest.fixture(scope="module")
def behaviour(history: pa.Table) -> pa.Table:
    return history.filter(pc.field("event_type") != EventType.ITEM_UPDATED.value)


def events_in(table: pa.Table) -> list[Event]:
    events = [event for event in events_of_table(table) if event is not None]
    assert len(events) == table.num_rows
    return events


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_stream_depends_on_each_part_of_its_key_and_on_nothing_else() -> None:
    first = random_stream(1, "visits", 2, 3).random(4)
    assert np.array_equal(first, random_stream(1, "visits", 2, 3).random(4))
    for other in (
        (2, "visits", 2, 3),
        (1, "market", 2, 3),
        (1, "visits", 3, 3),
        (1, "visits", 2, 4),
        (1, "visits", 23, 0),
    ):
        assert not np.array_equal(first, random_stream(*other).random(4))


def test_equal_arguments_write_equal_bytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("one", "two"):
        assert main([*ARGUMENTS, "--out", str(tmp_path / folder)]) == 0
    assert "item_updated" in capsys.readouterr().out
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert main([*ARGUMENTS, "--seed", "2", "--out", str(tmp_path / "other")]) == 0
    assert set(files_of(tmp_path / "one")) != set(files_of(tmp_path / "other"))


def test_the_order_in_which_blocks_run_does_not_matter() -> None:
    plan = replace(SMALL, users=2 * BLOCK_SHOPPERS + 100, events=30_000, days=4)
    backwards = shop_tables(
        plan, order=lambda day, blocks: sorted(range(blocks), key=lambda block: -block * (-1) ** day)
    )
    for table, other in zip(shop_tables(plan), backwards, strict=True):
        assert table.equals(other)


def test_another_shop_has_another_name() -> None:
    changes: tuple[dict[str, Any], ...] = (
        {"users": 401},
        {"items": 151},
        {"events": 12_001},
        {"days": 46},
        {"seed": 4},
        {"ends_at": ENDS_AT + 1},
    )
    names = {replace(SMALL, **change).source_name for change in ({}, *changes)}
    assert len(names) == 1 + len(changes)
    assert all(name.startswith("history-") and len(name) == len("history-") + 12 for name in names)


def test_the_lake_holds_the_history_with_the_shop_settings(tmp_path: Path) -> None:
    assert main([*ARGUMENTS, "--partitions", "3", "--out", str(tmp_path)]) == 0
    blobs = FolderBlobStore(tmp_path)
    manifest = read_manifest(blobs)
    assert manifest is not None
    (source,) = manifest.sources
    assert (source.kind, source.partition_counts, source.shift_weeks) == ("history", (3,), 0)
    assert (manifest.shop.time_zone, manifest.shop.bought_window_days) == ("Europe/London", 30)
    rows = read_rows(blobs)
    assert set(rows.column("partition").to_pylist()) == {0, 1, 2}
    assert rows.column("enqueued_at").equals(rows.column("occurred_at"))


def test_generating_again_changes_nothing_and_other_arguments_replace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*ARGUMENTS, "--out", str(tmp_path)]) == 0
    before = files_of(tmp_path)
    assert main([*ARGUMENTS, "--out", str(tmp_path)]) == 0
    assert files_of(tmp_path) == before
    assert "already" in capsys.readouterr().out
    assert main([*ARGUMENTS, "--seed", "9", "--out", str(tmp_path)]) == 0
    manifest = read_manifest(FolderBlobStore(tmp_path))
    assert manifest is not None
    assert len(manifest.sources) == 1
    assert {entry.name for entry in manifest.files} == {
        name for name in files_of(tmp_path) if name.endswith(".parquet")
    }


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--users", "0"], "--users"),
        (["--items", "-3"], "--items"),
        (["--users", "1000", "--events", "2000"], "at least 6,000"),
        (["--time-zone", "Mars/Base"], "time zone"),
        (["--time-zone", "../etc"], "time zone"),
        (["--ends-at", "yesterday"], "ISO 8601"),
        (["--days", "many"], "--days"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(
    wrong: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*wrong, "--out", str(tmp_path / "shop")]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "shop").exists()


def test_the_number_of_events_is_what_was_asked_for(behaviour: pa.Table) -> None:
    assert behaviour.num_rows == pytest.approx(SMALL.events, rel=0.03)
    users = set(behaviour.column("user_id").to_pylist())
    assert len(users) == SMALL.users


def test_every_event_passes_the_check_at_the_door(history: pa.Table) -> None:
    sample = history.take(list(range(0, history.num_rows, 7)))
    events = events_in(sample)
    assert {event.event_type for event in events} >= {"view", "cart", "purchase", "item_updated"}
    for event in events:
        assert decode_event(encode_event(event)) == event


def test_ids_are_unique_and_time_runs_forward(tables: list[pa.Table], history: pa.Table) -> None:
    assert history.schema.equals(EVENT_SCHEMA)
    assert pc.count_distinct(history.column("event_id")).as_py() == history.num_rows
    at = history.column("occurred_at").to_numpy()
    assert (np.diff(at) >= 0).all()
    assert len(tables) == SMALL.days
    assert at[-1] < ENDS_AT
    assert ENDS_AT - at[-1] < DAY_MS


def test_behaviour_has_its_price_and_session(behaviour: pa.Table) -> None:
    for name in ("price_cents", "session_id", "user_id", "item_id"):
        assert behaviour.column(name).null_count == 0
    bought = behaviour.filter(pc.field("event_type") == EventType.PURCHASE.value)
    assert bought.column("quantity").null_count == 0


def test_a_session_is_one_shoppers_and_breaks_after_thirty_minutes(behaviour: pa.Table) -> None:
    frame = behaviour.select(["user_id", "session_id", "occurred_at"]).to_pandas()
    assert (frame.groupby("session_id").user_id.nunique() == 1).all()
    frame = frame.sort_values(["user_id", "occurred_at"], kind="stable")
    gap = frame.occurred_at.diff()[frame.user_id.eq(frame.user_id.shift())]
    same = frame.session_id.eq(frame.session_id.shift())[gap.index]
    assert gap[same].max() <= 30 * 60_000
    assert gap[~same].min() > 30 * 60_000


def test_the_funnel_narrows_as_in_a_shop(behaviour: pa.Table) -> None:
    counts = Counter(behaviour.column("event_type").to_pylist())
    share = {name: count / behaviour.num_rows for name, count in counts.items()}
    assert share["view"] > 0.88
    assert 0.03 < share["cart"] < 0.08
    assert 0.012 < share["purchase"] < 0.04
    assert 0 < share["remove_from_cart"] < share["cart"] / 4


def test_what_happens_is_possible_when_it_happens(history: pa.Table) -> None:
    """Replay the log: nothing is seen before it arrived or while hidden, bought while out of stock, or mispriced."""
    catalog: dict[str, CatalogEntry] = {}
    looks_at_nothing_left = 0
    for event in events_in(history):
        item = ItemId(str(event.item_id))
        if event.event_type is EventType.ITEM_UPDATED:
            catalog.setdefault(item, CatalogEntry(item)).apply(event, event.occurred_at_ms)
            continue
        product = catalog[item].product()
        assert not product.hidden
        assert product.arrived_at is not None
        assert product.arrived_at <= event.occurred_at_ms
        assert product.price_cents == event.price_cents
        if event.event_type is EventType.CART:
            assert product.stock
        looks_at_nothing_left += product.stock == 0
    assert looks_at_nothing_left > 20


def test_the_catalogue_is_whole_and_changes(history: pa.Table) -> None:
    updates = [event for event in events_in(history) if event.event_type is EventType.ITEM_UPDATED]
    catalog: dict[str, CatalogEntry] = {}
    for event in updates:
        catalog.setdefault(str(event.item_id), CatalogEntry(ItemId(str(event.item_id)))).apply(
            event, event.occurred_at_ms
        )
    products = [entry.product() for entry in catalog.values()]
    assert len(products) == SMALL.items
    paths = {(leaf.root, leaf.name) for leaf in LEAVES}
    assert all(product.categories in paths for product in products)
    assert all(
        product.title and product.description and product.brand and product.price_cents > 0 for product in products
    )
    assert len({product.brand for product in products}) > 5
    start = to_ms(datetime(2026, 3, 7, tzinfo=LONDON))
    arrived = np.array([product.arrived_at for product in products])
    assert 0.7 < (arrived < start).mean() < 0.9
    assert ((ENDS_AT - arrived) < 14 * DAY_MS).any()
    changed = Counter(
        field for event in updates for field in (event.changes or {}) if "title" not in (event.changes or {})
    )
    assert changed["price_cents"] > 0
    assert changed["stock"] > 0


def test_bought_things_are_left_alone_for_a_month() -> None:
    table = pa.concat_tables(shop_tables(replace(SMALL, days=80, events=24_000)))
    bought = table.filter(pc.field("event_type") == EventType.PURCHASE.value)
    frame = bought.select(["user_id", "item_id", "occurred_at"]).to_pandas()
    gap = frame.sort_values(["user_id", "item_id", "occurred_at"]).groupby(["user_id", "item_id"]).occurred_at.diff()
    again = gap.dropna()
    assert len(again) > 0
    assert (again >= 30 * DAY_MS).all()


def test_partners_are_bought_together() -> None:
    """The lift of the commonest pairs is far above the 1 that popularity explains."""
    plan = replace(SMALL, users=1_000, events=60_000)
    table = pa.concat_tables(shop_tables(plan))
    bought = table.filter(pc.field("event_type") == EventType.PURCHASE.value)
    baskets = (
        bought.select(["session_id", "item_id"]).to_pandas().drop_duplicates().groupby("session_id").item_id.apply(list)
    )
    count = Counter(item for basket in baskets for item in basket)
    pairs = Counter((one, two) for basket in baskets for one in basket for two in basket if one < two)
    lifts = [together * len(baskets) / (count[one] * count[two]) for (one, two), together in pairs.most_common(10)]
    assert np.median(lifts) > 2.5


def test_days_are_the_shops_own_also_when_the_clock_moves() -> None:
    calendar = build_calendar(1, 30, ENDS_AT, LONDON)
    starts = [datetime.fromtimestamp(at / 1000, LONDON) for at in calendar.starts_at]
    assert all((start.hour, start.minute) == (0, 0) for start in starts)
    assert (np.diff(calendar.starts_at) == 23 * 3_600_000).sum() == 1
    assert calendar.ends_at == ENDS_AT
    assert last_midnight(datetime(2026, 6, 1, 22, 30, tzinfo=UTC), LONDON) == to_ms(
        datetime(2026, 5, 31, 23, tzinfo=UTC)
    )
    assert last_midnight(datetime(2026, 6, 1, 23, 30, tzinfo=UTC), LONDON) == to_ms(
        datetime(2026, 6, 1, 23, tzinfo=UTC)
    )


def test_a_history_may_end_within_a_day() -> None:
    noon = to_ms(datetime(2026, 4, 19, 12, tzinfo=LONDON))
    table = pa.concat_tables(shop_tables(replace(SMALL, ends_at=noon)))
    newest = pc.max(table.column("occurred_at")).as_py()
    assert noon - 3_600_000 < newest < noon
    assert table.num_rows == pytest.approx(SMALL.events, rel=0.08)


@pytest.mark.parametrize("items", [1, 3, 40])
def test_a_tiny_shop_works(items: int) -> None:
    plan = replace(SMALL, users=5, items=items, events=200, days=3)
    assert pa.concat_tables(shop_tables(plan)).num_rows > items


def test_memory_keeps_the_strongest_business_and_forgets_what_was_settled() -> None:
    class Shelf:
        family = np.array([0, 0, 1, 2])
        consumable = np.array([False, False, True, False])

    memory, shopper = Memory.empty(2), np.array([0, 0, 0, 1])
    memory.remember(
        shopper, np.array([0, 1, 2, 3]), strength=np.array([1.0, 1.0, 2.0, 3.0]), due_day=np.array([5, 5, 5, 9]),
        kind=np.full(4, int(Business.VIEWED)), day=5,
    )  # fmt: skip
    assert memory.pull(np.array([0, 1]), 5).sum(1).tolist() == [4.0, 0.0]
    assert memory.pull(np.array([0]), 8).sum() == pytest.approx(2.0)
    memory.buy(np.array([0, 0]), np.array([0, 2]), 5, Shelf())  # type: ignore[arg-type] # two columns of a catalogue are enough here
    assert memory.pull(np.array([0]), 5).sum() == 0.0
    ask = np.array([0, 0, 0]), np.array([0, 1, 2])
    assert memory.may_buy(*ask, 20, Shelf()).tolist() == [False, True, False]  # type: ignore[arg-type] # see above
    assert memory.may_buy(*ask, 5 + REBUY_AFTER_DAYS, Shelf()).tolist() == [False, True, True]  # type: ignore[arg-type] # see above
