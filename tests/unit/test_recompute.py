"""Past pages recompute the same in any order; in the order they were made, each event is folded once."""

from __future__ import annotations

import random
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from feature_jobs.recompute import Exposure, Past
from shared.events import Event, EventType, ItemId, UserId, from_ms
from shared.features.definitions import Retrieval
from shared.features.items import ItemTable
from shared.features.replay import LoggedEvent

START_AT = 1_780_000_000_000
UTC = ZoneInfo("UTC")
ITEMS = [ItemId(f"item-{number}") for number in range(6)]
USERS = [UserId(f"user-{number}") for number in range(3)]


def history(count: int, seed: int) -> list[LoggedEvent]:
    """Two partitions, (partition, sequence) ascending; each user's events come through both."""
    draw = random.Random(seed)
    found = []
    for partition in range(2):
        for sequence in range(count):
            at = START_AT + sequence * 60_000 + partition
            event = Event(
                event_id=f"{partition}-{sequence}", event_type=draw.choice([EventType.VIEW, EventType.CART]),
                occurred_at=from_ms(at - draw.randrange(10**7)), user_id=draw.choice(USERS), item_id=draw.choice(ITEMS),
                price_cents=draw.randrange(100, 900),
            )  # fmt: skip
            found.append(LoggedEvent("live-1", partition, sequence, at, event))
    return found


def page(worker: str, number: int, marks: tuple[int, int], user: UserId) -> Exposure:
    seen = {f"live-1.{partition}": mark for partition, mark in enumerate(marks)}
    nothing = [[0] * len(Retrieval) for _ in ITEMS]
    return Exposure(
        recommendation_id=f"{worker}.{number}", release="r", worker=worker, number=number, state_version="", schema="",
        features_count=0, user_id=user, as_of=START_AT + 10**9 + number, fallback=None, visibility=seen,
        item_marks=seen, items=ITEMS, retrieval_ranks=nothing, vectors="",
        retrieval_scores=[[0.0] * len(Retrieval) for _ in ITEMS], retrieval_covisitation=[[0.0, 0.0] for _ in ITEMS],
        retrieval_text=[0.0 for _ in ITEMS],
    )  # fmt: skip


def pages(worker: str, count: int, seed: int) -> list[Exposure]:
    """A worker's pages in the order made: what it had seen never goes back."""
    draw = random.Random(seed)
    firsts, seconds = (sorted(draw.randrange(-1, 60) for _ in range(count)) for _ in range(2))
    return [page(worker, number, (firsts[number], seconds[number]), draw.choice(USERS)) for number in range(count)]


def test_any_order_of_pages_and_workers_gives_the_vectors_of_a_fresh_fold() -> None:
    events = history(60, 1)
    asked = [*pages("a", 15, 2), *pages("b", 15, 3)]
    wanted = {one.recommendation_id: Past.of(events).vectors(one, UTC) for one in asked}
    assert len({values.tobytes() for values in wanted.values()}) > 20
    draw = random.Random(4)
    past = Past.of(events)
    for one in draw.sample(asked, len(asked)):
        np.testing.assert_allclose(past.vectors(one, UTC), wanted[one.recommendation_id], rtol=1e-6, atol=1e-6)
        if draw.random() < 0.2:
            past.finished(draw.choice("ab"))


def test_workers_after_each_other_share_one_fold_and_workers_at_once_have_one_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folded = 0
    fold = ItemTable.fold

    def counted(table: ItemTable, event: Event, enqueued_at: int) -> None:
        nonlocal folded
        folded += 1
        fold(table, event, enqueued_at)

    monkeypatch.setattr(ItemTable, "fold", counted)
    past = Past.of(history(60, 1))
    for worker, marks in (("first", (20, 25)), ("second", (40, 30)), ("third", (59, 59))):
        past.vectors(page(worker, 1, marks, USERS[0]), UTC)
        past.finished(worker)
    assert folded == 120
    at_once = Past.of(history(60, 1))
    for mark in range(0, 60, 5):
        at_once.vectors(page("one", mark, (mark, 0), USERS[0]), UTC)
        at_once.vectors(page("other", mark, (0, mark), USERS[1]), UTC)
    assert folded == 120 + 2 * (56 + 1)
