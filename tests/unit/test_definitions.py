from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from feature_jobs.describe_features import describe, main, page_of
from shared.candidates.merge import merge
from shared.candidates.opinion import Listed
from shared.candidates.params import DEFAULT
from shared.candidates.query import ListKind, Neighbours, Query, history_of
from shared.candidates.trends import Trends
from shared.events import EventType
from shared.features import definitions
from shared.features.aggregations import DAY_MS, HOUR_MS, Aggregation, Count, Decayed, Earliest, LastK
from shared.features.declaration import Entity, Feature
from shared.features.definitions import FEATURES, ITEM_LAYOUT, LISTS, STATE_VERSION, USER_LAYOUT, Retrieval, layout_of
from shared.features.items import ItemTable
from shared.features.shard import Shopper
from shared.features.vector import assemble
from shared.features.views import PairView, RequestView, RetrievalBlock
from tests.unit import oracle
from tests.unit.builders import (
    MODEST,
    NOW,
    UTC,
    Sent,
    all_rows,
    event,
    histories,
    shopper_of,
    state_of,
    updated,
    view_of,
)

ROOT = Path(definitions.__file__).parents[2]
NAMES = {one.name for one in FEATURES}
ITEMS = ("a", "b", "c", "d", "e")


def world(histories_by_user: dict[str, list[Sent]]) -> ItemTable:
    table = ItemTable()
    catalogue = [
        updated("a", at=NOW, categories=["Home", "Kitchen"], brand="Acme", price_cents=999, stock=500),
        updated("b", at=NOW, categories=["Kitchen"], price_cents=25_000, stock=0, arrived_at="2023-10-01T00:00:00Z"),
        updated("c", at=NOW, categories=["Garden"], brand="Acme", price_cents=0),
        updated("d", at=NOW, brand="Bolt", price_cents=1, stock=7),
    ]
    for one in catalogue:
        table.fold(one, NOW)
    for history in histories_by_user.values():
        for action in history:
            table.fold(action.event, action.enqueued_at)
    return table


@dataclass(frozen=True)
class Said:
    """What retrieval and the request said: lists by source, the last clicks' co-occurrence lists, device, surface."""

    carried: dict[Retrieval, dict[int, float]] = field(default_factory=dict)
    met: list[dict[int, float]] = field(default_factory=list)
    device: str | None = None
    surface: str | None = None
    time_zone: ZoneInfo = UTC
    text: dict[int, float] = field(default_factory=dict)


SCORES = st.dictionaries(st.integers(0, 3), st.floats(0.125, 9, width=32), max_size=4).map(
    lambda scores: dict(sorted(scores.items(), key=lambda one: (-one[1], one[0])))
)
SAID = st.builds(
    Said,
    st.dictionaries(st.sampled_from(list(Retrieval)), SCORES.filter(bool)),
    st.lists(SCORES, max_size=12),
    st.sampled_from([None, "desktop", "App", "fridge", ""]),
    st.sampled_from([None, "product", "EMAIL", "window"]),
    st.sampled_from([UTC, ZoneInfo("Europe/London"), ZoneInfo("Asia/Kolkata"), ZoneInfo("America/St_Johns")]),
    SCORES,
)


def arrays(scores: dict[int, float], width: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    padding = width - len(scores)
    return (
        np.array([*scores, *[-1] * padding], dtype=np.int32),
        np.array([*scores.values(), *[0.0] * padding], dtype=np.float32),
    )


def matrix_of(history: list[Sent], table: ItemTable, as_of: int, said: Said | None = None) -> np.ndarray:
    """Of every row of the table: through the merge of the sources' lists, filled up with what is popular."""
    said = said or Said()
    rows = all_rows(table)
    user = view_of(Shopper(state_of(history)), table, as_of, said.time_zone)
    met = [arrays(scores, 6) for scores in said.met]
    lists = Neighbours(
        np.array([indexes for indexes, _ in met], np.int32).reshape(-1, 6),
        np.array([scores for _, scores in met], np.float32).reshape(-1, 6),
    )
    query = Query(
        user,
        history_of(user, rows.astype(np.int32)),
        np.arange(len(met), dtype=np.int32),
        np.ones(len(met)),
        np.arange(len(met)),
        {ListKind.COOCCURRENCE: lists},
        Trends.of(table, rows),
        as_of,
        np.ones(len(rows), np.bool_),
    )
    everyone = np.ones(len(rows), np.bool_)
    opinions = {name: Listed.of(*arrays(scores, len(scores)), everyone) for name, scores in said.carried.items()}
    candidates = merge({Retrieval.POPULAR: Listed.nothing()} | opinions, query, DEFAULT)
    assert candidates.indexes.tolist() == rows.tolist()
    if said.text:
        candidates = candidates.with_text(np.array([said.text.get(row, 0.0) for row in rows.tolist()], np.float32))
    pair = PairView(user, table.block(rows, as_of), table.category, table.brand)
    return assemble(pair, candidates.retrieval, RequestView(as_of, said.time_zone, said.device, said.surface))


@MODEST
@given(histories(items=ITEMS), histories(items=ITEMS), st.sampled_from([0, HOUR_MS, 29 * HOUR_MS, 60 * DAY_MS]), SAID)
def test_every_feature_is_what_the_oracle_says(mine: list[Sent], others: list[Sent], wait: int, said: Said) -> None:
    as_of = max([NOW, *(one.at for one in mine + others)]) + wait
    table = world({"mine": mine, "others": others})
    matrix = matrix_of(mine, table, as_of, said)
    products = {str(product.item_id): product for product in table.products if product.item_id}
    for row, item in enumerate(ITEMS[:4]):
        assert table.row_of_id(item) == row
        scene = oracle.Scene(
            mine,
            products,
            item,
            [one for one in mine + others if one.event.item_id == item],
            as_of,
            said.time_zone,
            {name: [(ITEMS[index], score) for index, score in scores.items()] for name, scores in said.carried.items()},
            [{ITEMS[index]: score for index, score in scores.items()} for scores in said.met],
            said.device,
            said.surface,
            {ITEMS[index]: score for index, score in said.text.items()},
        )
        for column, feature in enumerate(FEATURES):
            wanted = oracle.FEATURES[feature.name](scene)
            # A spread is a small difference of large sums: its square is exact to about 1e-12.
            close = pytest.approx(wanted, rel=1e-5, abs=2e-5 if feature.name == "user_price_spread_30d" else 1e-6)
            assert matrix[row, column] == close, (feature.name, item)


def test_the_oracle_has_an_entry_for_each_feature_and_for_no_other() -> None:
    assert oracle.FEATURES.keys() == NAMES


def test_names_say_whom_they_describe_and_occur_once() -> None:
    assert len(NAMES) == len(FEATURES)
    for one in FEATURES:
        assert one.name.startswith(f"{one.entity}_")
        assert re.fullmatch(r"[a-z0-9_]+", one.name)
        assert one.description
        assert one.dtype == "float32"


@pytest.mark.parametrize("entity", [Entity.USER, Entity.ITEM])
def test_every_action_is_counted_at_every_half_life(entity: Entity) -> None:
    halved = {one.half_life_ms for feature in FEATURES if feature.entity is entity for one in _decayed(feature)}
    assert halved == {HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS}


def _decayed(feature: Feature) -> list[Decayed]:
    return [one for one in feature.aggregations if isinstance(one, Decayed)]


def test_a_feature_in_a_file_of_its_own_is_stored_served_and_documented() -> None:
    bounced = Decayed((EventType.REMOVE_FROM_CART,), 2 * DAY_MS)
    added = Feature(
        "user_remove_from_cart_decayed_2d",
        Entity.USER,
        "what the user | thought better of",
        lambda user: user.value(bounced),
        (bounced,),
    )
    features = (*FEATURES, added)
    layout = layout_of({Entity.USER, Entity.PAIR}, features)
    assert set(layout.slot) == {*USER_LAYOUT.slot, bounced}
    assert repr(layout) != repr(USER_LAYOUT)
    assert "| `user_remove_from_cart_decayed_2d` | user | what the user \\| thought better of |" in page_of(features)
    state = type(state_of([])).empty(layout)
    state.add(event("remove_from_cart", at=NOW - DAY_MS), NOW)
    table = world({})
    pair = PairView(view_of(Shopper(state), table), table.block(all_rows(table), NOW), table.category, table.brand)
    matrix = assemble(pair, RetrievalBlock.silent(4, len(Retrieval)), RequestView(NOW, UTC), features)
    assert matrix.shape == (4, len(FEATURES) + 1)
    assert matrix[:, -1].tolist() == pytest.approx([2**-0.5] * 4)


def test_layouts_hold_what_features_read_and_nothing_else() -> None:
    read = {one for feature in FEATURES if feature.entity is Entity.ITEM for one in feature.aggregations}
    assert set(ITEM_LAYOUT.slot) == read
    assert not ITEM_LAYOUT.lists
    assert set(LISTS.values()) <= set(USER_LAYOUT.slot)


def test_the_state_version_is_a_function_of_the_aggregations_alone() -> None:
    assert re.fullmatch("[0-9a-f]{8}", STATE_VERSION)
    code = "from shared.features.definitions import STATE_VERSION; print(STATE_VERSION)"
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == STATE_VERSION
    renamed = tuple(replace(one, name=f"{one.name}_x", description="") for one in FEATURES)
    assert repr(layout_of({Entity.ITEM}, renamed)) == repr(ITEM_LAYOUT)


def test_the_page_is_what_the_declarations_say() -> None:
    assert main(["--check"]) == 0, "run python -m feature_jobs.describe_features"


def test_a_page_that_says_otherwise_is_found_and_rewritten(tmp_path: Path) -> None:
    page = tmp_path / "features.md"
    assert main(["--check", "--page", str(page)]) == 1
    page.write_text(page_of().replace("halved", "doubled"))
    assert main(["--check", "--page", str(page)]) == 1
    assert main(["--page", str(page)]) == 0
    assert main(["--check", "--page", str(page)]) == 0
    assert all(f"`{name}`" in page.read_text() for name in NAMES)


@pytest.mark.parametrize(
    ("aggregation", "words"),
    [
        (Decayed((EventType.VIEW, EventType.CART), 7 * DAY_MS), "one of view, cart, half-life 7 d"),
        (Decayed((EventType.VIEW,), HOUR_MS), "one of view, half-life 1 h"),
        (Count((EventType.CART,)), "count of cart"),
        (Earliest((EventType.CART,)), "earliest of cart"),
        (LastK((EventType.CART,), 9), "last 9 of cart"),
    ],
)
def test_aggregations_in_words(aggregation: Aggregation, words: str) -> None:
    assert describe(aggregation) == words


def test_a_stranger_reads_as_the_defaults_say() -> None:
    matrix = matrix_of([], world({}), NOW)
    told = dict(zip((one.name for one in FEATURES), matrix[0].tolist(), strict=True))
    for name in ("user_action_recency_hours", "pair_view_recency_hours", "pair_purchase_recency_hours"):
        assert told[name] == 9600.0
    assert told["user_price_mean_30d"] == told["user_price_spread_30d"] == -1.0
    assert told["user_tenure_days"] == told["pair_category_affinity_14d"] == 0.0
    assert shopper_of().preferences is None
