"""Nothing that ARRIVES after a row's instant may change the row, however long before it is said to have happened."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from feature_jobs.build_training_set import Pass, schedule
from feature_jobs.instants import instants_of, sessions
from feature_jobs.log_days import events_by_day
from shared.adapters.folder_blob import FolderBlobStore
from shared.events import Event, EventType, ItemId, encode_event, from_ms
from shared.features.aggregations import DAY_MS, HOUR_MS
from shared.ingest.lake import ShopSettings, write_sealed
from shared.past_pages import Instant, PageRows
from shared.ports import LandingRow, Verdict
from shared.ranking.page_table import PageTable
from tests.unit.builders import event, updated
from tests.unit.test_training_pages import span

START = 1_790_000_000_000 // DAY_MS * DAY_MS
ITEMS = [ItemId(f"item-{number:02}") for number in range(30)]
SHOP = ShopSettings(name="test", time_zone="Europe/London")
LATE_SHARE = 0.3

Log = list[tuple[int, Event]]
"""(enqueued_at, event) in log order."""


def recorded(seed: int) -> Log:
    """Ten days of a shop in which three events of ten arrive up to three days after they happened."""
    draw = random.Random(seed)
    log: Log = [
        (START, updated(item, at=START, event_id=f"new {item}", title=item, categories=["root", f"c{n % 4}"],
                        price_cents=500 + n, stock=9))
        for n, item in enumerate(ITEMS)
    ]  # fmt: skip
    for n, at in enumerate(sorted(draw.randrange(START + HOUR_MS, START + 10 * DAY_MS, 1000) for _ in range(900))):
        late_ms = draw.randrange(3 * DAY_MS) if draw.random() < LATE_SHARE else 0
        kind = draw.choice([EventType.VIEW, EventType.VIEW, EventType.CART, EventType.PURCHASE])
        user, item = f"u{draw.randrange(12)}", ITEMS[draw.randrange(len(ITEMS))]
        log.append((at, event(kind, user=user, item=item, at=max(START, at - late_ms), event_id=f"e{n}",
                              session_id=f"{user} {at // (2 * HOUR_MS)}", price_cents=700)))  # fmt: skip
    return log


def spoilt(log: Log, instant: int, how: str) -> Log:
    """The same log up to the instant; behind it, events are shuffled, made up, or brought forward in time."""
    draw = random.Random(7)
    before, after = [one for one in log if one[0] <= instant], [one for one in log if one[0] > instant]
    if how == "shuffled":
        events = [one for _, one in after]
        draw.shuffle(events)
        return [*before, *((at, one) for (at, _), one in zip(after, events, strict=True))]
    changed = []
    for at, one in after:
        fields: dict[str, Any] = {"occurred_at": from_ms(instant - draw.randrange(DAY_MS))}
        if one.item_id is not None and one.user_id is not None:
            fields |= {"event_type": EventType.PURCHASE, "item_id": draw.choice(ITEMS), "price_cents": 1}
            fields |= {"user_id": f"u{draw.randrange(12)}"}
        changed.append((at, msgspec.structs.replace(one, **fields)))
    return [*before, *changed]


def write_lake(folder: Path, log: Log) -> FolderBlobStore:
    blobs = FolderBlobStore(folder)
    rows = [
        LandingRow("live-1", 0, sequence, at, Verdict.ACCEPTED, encode_event(one))
        for sequence, (at, one) in enumerate(log)
    ]
    for start in range(0, len(rows), 200):
        write_sealed(blobs, rows[start : start + 200])
    return blobs


def rows_at(blobs: FolderBlobStore, asked: list[Instant]) -> PageTable:
    """The rows of these instants, by the stage's own pass over the lake."""
    rows = PageRows({item: index for index, item in enumerate(ITEMS)}, None)
    past = Pass(ITEMS, SHOP, {one.user_id for one in asked})
    for step in schedule(events_by_day(blobs), asked):
        if isinstance(step, Instant):
            past.page(step, span(), rows)
        else:
            past.fold(step)
    return rows.table()


@pytest.mark.parametrize("how", ["shuffled", "made up and dated back"])
def test_what_arrives_later_changes_nothing_of_a_row(tmp_path: Path, how: str) -> None:
    log = recorded(3)
    clean = write_lake(tmp_path / "clean", log)
    found = [one for session in sessions(events_by_day(clean)) for one in instants_of(session, SHOP.positives)]
    found.sort(key=lambda one: (one.as_of, one.user_id))
    for place in (60, 180):
        asked = found[place - 10 : place]
        horizon = asked[-1].as_of
        late = [one for at, one in log if at > horizon and one.occurred_at_ms <= horizon - HOUR_MS]
        assert late, "something that happened before the instant must arrive after it"
        other = write_lake(tmp_path / f"{how} {place}", spoilt(log, horizon, how))
        left, right = rows_at(clean, asked), rows_at(other, asked)
        for name in ("features", "index", "ranks", "popularity", "category", "stranger", "sessions_before", "touched",
                     "frequent"):  # fmt: skip
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=f"{name} at {place}")
