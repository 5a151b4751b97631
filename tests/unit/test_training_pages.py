"""Training pages: what happens after an instant cannot touch its rows."""

from pathlib import Path

import numpy as np
import pytest

from feature_jobs.build_training_set import Pass
from feature_jobs.instants import instants_of, sessions
from shared.candidates.als import ItemFactors
from shared.candidates.query import ListKind, Neighbours
from shared.candidates.span import SpanModel
from shared.events import ItemId, event_from_fields
from shared.features.replay import LoggedEvent
from shared.features.vector import SCHEMA
from shared.ingest.lake import ShopSettings
from shared.past_pages import Instant, PageRows
from shared.ranking.page_table import PageTable

HOUR = 3_600_000
START = 1_790_000_000_000
ITEMS = [ItemId(f"item-{number:02}") for number in range(30)]
SHOP = ShopSettings(name="test", time_zone="Europe/London", bought_window_days=30)


def logged(sequence: int, at: int, **fields: object) -> LoggedEvent:
    from shared.events import from_ms

    event = event_from_fields({"event_id": f"e{sequence}", "occurred_at": from_ms(at), **fields})
    return LoggedEvent("history-0", 0, sequence, at, event)


def history(*, future_item: int = 29) -> list[LoggedEvent]:
    """A shop of 30 items and 12 users over 10 days; `future_item` is described only on the last day."""
    rng = np.random.default_rng(5)
    events: list[tuple[int, dict[str, object]]] = []
    for number, item in enumerate(ITEMS):
        at = START + (9 * 24 * HOUR if number == future_item else 0)
        changes = {
            "title": str(item),
            "categories": ["root", f"c{number % 4}"],
            "price_cents": 500 + number,
            "stock": 9,
        }
        events.append((at, {"event_type": "item_updated", "item_id": str(item), "changes": changes}))
    for visit in range(150):
        at = START + HOUR + int(rng.integers(0, 10 * 24)) * HOUR
        user, taste = int(rng.integers(12)), int(rng.integers(4))
        for step, kind in enumerate(["view", "view", "cart", "purchase"][: int(rng.integers(2, 5))]):
            item = ITEMS[int(rng.integers(7)) * 4 + taste]
            fields: dict[str, object] = {
                "user_id": f"u{user}",
                "item_id": str(item),
                "session_id": f"s{visit}",
                "price_cents": 700,
            }
            events.append((at + step * 60_000, {"event_type": kind, **fields}))
    events.sort(key=lambda pair: pair[0])
    return [logged(sequence, at, **fields) for sequence, (at, fields) in enumerate(events)]


def span() -> SpanModel:
    rng = np.random.default_rng(1)
    factors = rng.normal(size=(len(ITEMS), 8)).astype(np.float32)
    indexes = np.stack([np.roll(np.arange(len(ITEMS), dtype=np.int32), -place - 1)[:6] for place in range(len(ITEMS))])
    lists = Neighbours(indexes, np.linspace(1, 0.1, 6, dtype=np.float32)[None, :].repeat(len(ITEMS), 0))
    return SpanModel(ItemFactors.of(factors, 0.05, 1.0), dict.fromkeys(ListKind, lists))


def pages(events: list[LoggedEvent], instants: list[Instant], negatives: int | None = None) -> PageTable:
    rows = PageRows({str(item): index for index, item in enumerate(ITEMS)}, negatives)
    past, place = Pass(ITEMS, SHOP), 0
    for instant in instants:
        while place < len(events) and events[place].enqueued_at <= instant.as_of:
            past.fold(events[place])
            place += 1
        past.page(instant, span(), rows)
    return rows.table()


def instants(events: list[LoggedEvent]) -> list[Instant]:
    found = [one for session in sessions(events) for one in instants_of(session, SHOP.positives)]
    return sorted(found, key=lambda one: one.as_of)


def test_nothing_that_arrives_after_an_instant_changes_its_rows() -> None:
    events = history()
    chosen = instants(events)[:40]
    horizon = chosen[-1].as_of
    spoilt = [one for one in events if one.enqueued_at <= horizon]
    for number, late in enumerate(one for one in events if one.enqueued_at > horizon):
        fields = {"event_type": "purchase", "user_id": f"u{number % 12}", "item_id": str(ITEMS[number % 30])}
        spoilt.append(logged(late.sequence, late.enqueued_at, price_cents=1, **fields))
    clean, after = pages(events, chosen), pages(spoilt, chosen)
    assert np.array_equal(clean.features, after.features)
    assert np.array_equal(clean.index, after.index)
    assert len(clean.length) == 40


def test_an_item_that_arrives_later_is_never_a_candidate_and_its_positives_count_as_missed() -> None:
    events = history(future_item=9)
    early = [one for one in instants(events) if one.as_of < START + 9 * 24 * HOUR]
    wanting = [one for one in early if ITEMS[9] in one.positives]
    assert wanting, "the shop must have sold the item that nobody could yet describe"
    table = pages(events, early)
    assert 9 not in table.index
    assert int(table.positives.sum()) > int(table.positive.sum())


def test_rows_carry_every_feature_and_the_grade_of_what_followed() -> None:
    events = history()
    (chosen,) = [one for one in instants(events) if len(one.labels) > 1][3:4]
    table = pages(events, [chosen])
    assert table.features.shape == (int(table.length[0]), len(SCHEMA.names))
    graded = {str(ITEMS[index]): int(grade) for index, grade in zip(table.index, table.label, strict=True) if grade}
    assert graded
    assert graded.items() <= {str(item): grade for item, grade in chosen.labels.items()}.items()


def test_negatives_are_thinned_and_graded_candidates_never() -> None:
    events = history()
    chosen = instants(events)[:30]
    whole, thinned = pages(events, chosen), pages(events, chosen, negatives=5)
    assert int((thinned.label > 0).sum()) == int((whole.label > 0).sum())
    assert thinned.length.max() <= 5 + max(len(one.labels) for one in chosen)
    assert np.array_equal(thinned.features, pages(events, chosen, negatives=5).features)


def test_a_table_survives_its_files(tmp_path: Path) -> None:
    events = history()
    table = pages(events, instants(events)[:10])
    table.save(tmp_path / "label")
    again = PageTable.load(tmp_path / "label")
    assert np.array_equal(again.features, table.features)
    assert np.array_equal(again.frequent, table.frequent)


def test_no_page_is_an_error() -> None:
    with pytest.raises(ValueError, match="no page"):
        PageRows({}, None).table()
