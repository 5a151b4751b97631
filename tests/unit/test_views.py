from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import EventType
from shared.features.aggregations import DAY_MS, HOUR_MS, MINUTE_MS
from shared.features.items import ItemTable
from shared.features.views import PairView, RequestView, UserView
from tests.unit import oracle
from tests.unit.builders import (
    MODEST,
    NOW,
    UTC,
    Sent,
    all_rows,
    histories,
    sent,
    shopper_of,
    table_of,
    updated,
    view_of,
)

ITEMS = ("a", "b", "c", "d", "e")
CATALOGUE: dict[str, dict[str, Any]] = {
    "a": {"categories": ["Home", "Kitchen"], "brand": "Acme", "price_cents": 999},
    "b": {"categories": ["Kitchen"], "brand": "Bolt", "price_cents": 25_000},
    "c": {"categories": ["Garden"], "price_cents": 0},
    "d": {"brand": "Acme", "price_cents": 1},
}


def shop() -> ItemTable:
    return table_of(*(updated(item, at=NOW - DAY_MS, **fields) for item, fields in CATALOGUE.items()))


def pair_of(history: list[Sent], table: ItemTable, as_of: int) -> PairView:
    user = view_of(shopper_of(*history), table, as_of)
    return PairView(user, table.block(all_rows(table), as_of), table.category, table.brand)


@MODEST
@given(histories(items=ITEMS), st.sampled_from([0, 20 * MINUTE_MS, 30 * MINUTE_MS, 30 * MINUTE_MS + 1, 9 * DAY_MS]))
def test_sessions_and_affinities_are_what_a_walk_over_the_history_finds(history: list[Sent], wait: int) -> None:
    as_of = max((one.at for one in history), default=NOW) + wait
    table = shop()
    pair = pair_of(history, table, as_of)
    products = {str(product.item_id): product for product in table.products}
    scene = oracle.Scene(history, products, "a", [], as_of)
    assert pair.user.session_length == len(scene.session())
    assert pair.user.session_age_ms == (scene.now - scene.session()[-1].at if scene.session() else 0)
    assert [(act.at, oracle.WEIGHT[act.kind]) for act in scene.acts()] == list(
        zip(pair.user.actions.at.tolist(), pair.user.actions.weights.tolist(), strict=True)
    )
    for column, code in ((table.category, lambda one: one.category), (table.brand, lambda one: one.brand)):
        found = pair.affinity(column, column[all_rows(table)])
        for row, item in enumerate(CATALOGUE):
            told = oracle.Scene(history, products, item, [], as_of)
            assert found[row] == pytest.approx(told.share(told.acts(), code), rel=1e-9, abs=1e-12)


def test_actions_do_not_depend_on_how_a_process_numbered_its_items() -> None:
    history = [sent("view", item=item, event_id=f"view-{item}") for item in ITEMS for _ in range(2)]
    history += [sent("cart", item="c", event_id="cart")]
    orders = []
    for items in (ITEMS, ITEMS[::-1]):
        table = table_of(*(updated(item) for item in items))
        user = view_of(shopper_of(*history), table)
        orders.append([str(table.products[row].item_id) for row in user.actions.rows])
    assert orders[0] == orders[1]
    assert orders[0][0] == "c"


def test_a_user_is_never_read_before_her_newest_event() -> None:
    user = view_of(shopper_of(sent("view", at=NOW)), shop(), NOW - HOUR_MS)
    assert user.as_of == NOW
    assert user.session_age_ms == 0


@pytest.mark.parametrize(("gap_ms", "length"), [(30 * MINUTE_MS, 3), (30 * MINUTE_MS + 1, 2)])
def test_a_session_bears_a_silence_of_30_minutes_and_no_longer(gap_ms: int, length: int) -> None:
    times = (NOW - 30 * MINUTE_MS - 5 - gap_ms, NOW - 30 * MINUTE_MS - 5, NOW - 30 * MINUTE_MS)
    shopper = shopper_of(*(sent("view", at=at, item=item) for at, item in zip(times, ITEMS, strict=False)))
    user = view_of(shopper, shop(), NOW)
    assert user.session_length == length
    assert user.session_age_ms == NOW - times[-length]
    assert view_of(shopper, shop(), NOW + 1).session_length == 0


def test_a_stranger_has_no_actions_no_session_and_no_taste() -> None:
    pair = pair_of([], shop(), NOW)
    assert len(pair.user.actions.rows) == 0
    assert (pair.user.session_length, pair.user.session_age_ms) == (0, 0)
    assert not pair.affinity(pair.category_of, pair.items.category).any()
    assert np.isnan(pair.last_at(EventType.VIEW)).all()
    assert not pair.times_acted().any()


def test_items_the_table_does_not_know_are_kept_as_unknown() -> None:
    history = [sent("view", item="gone", at=NOW - 1), sent("view", item="a")]
    pair = pair_of(history, shop(), NOW)
    assert pair.user.actions.rows.tolist() == [0, -1]
    assert pair.affinity(pair.category_of, pair.items.category)[0] == pytest.approx(0.5)
    assert pair.times_acted().tolist() == [1, 0, 0, 0]


def test_the_last_time_is_the_last() -> None:
    history = [sent("view", item="a", at=NOW - 9), sent("view", item="b", at=NOW - 5), sent("view", item="a", at=NOW)]
    last = pair_of(history, shop(), NOW).last_at(EventType.VIEW)
    assert last[:2].tolist() == [NOW, NOW - 5]
    assert np.isnan(last[2:]).all()


def test_an_affinity_is_a_share() -> None:
    history = [sent("purchase", item="a"), sent("view", item="b"), sent("view", item="c")]
    pair = pair_of(history, shop(), NOW)
    shares = pair.affinity(pair.category_of, pair.items.category)
    np.testing.assert_allclose(shares, [6 / 7, 6 / 7, 1 / 7, 0.0])
    unknown_only = pair_of([sent("view", item="d")], shop(), NOW)
    assert not unknown_only.affinity(unknown_only.category_of, unknown_only.items.category).any()


def test_unimaginably_old_actions_still_make_a_share() -> None:
    pair = pair_of([sent("view", item="a", at=-62_135_596_800_000, enqueued_at=NOW)], shop(), NOW)
    assert np.isfinite(pair.affinity(pair.category_of, pair.items.category)).all()


@pytest.mark.parametrize(
    ("zone", "hour", "weekday"),
    [("UTC", 22 + 13 / 60, 1), ("Europe/London", 22 + 13 / 60, 1), ("Asia/Kolkata", 3 + 43 / 60, 2)],
)
def test_a_request_knows_the_shops_hour_and_weekday(zone: str, hour: float, weekday: int) -> None:
    request = RequestView(NOW, ZoneInfo(zone))
    assert request.hour == pytest.approx(hour)
    assert request.weekday == pytest.approx(weekday + hour / 24)


def test_summer_time_moves_the_shops_hour() -> None:
    half_a_year = 182 * DAY_MS
    winter, summer = (RequestView(at, ZoneInfo("Europe/London")) for at in (NOW, NOW + half_a_year))
    assert summer.hour == pytest.approx(winter.hour + 1)


def test_reading_a_user_leaves_her_state_as_it_was() -> None:
    shopper = shopper_of(sent("view", item="a"), sent("cart", item="b", price_cents=5))
    before = shopper.state.encode()
    pair = pair_of([], shop(), NOW)
    user = UserView(shopper.state, NOW + DAY_MS, pair.user.lists, UTC)
    assert user.decayed.sum() < shopper.state.decayed.sum()
    assert shopper.state.encode() == before
