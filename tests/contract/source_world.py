"""One small shop by hand, under any numbering, in which every source has an answer that can be told in advance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from shared.candidates.als import ItemFactors
from shared.candidates.params import DEFAULT
from shared.candidates.query import REQUEST_KINDS, CandidateSource, History, ListKind, Neighbours, Query
from shared.candidates.ranked import Ranked
from shared.events import ItemId, Preferences
from shared.features.aggregations import DAY_MS, MINUTE_MS
from shared.features.definitions import Retrieval
from shared.features.items import ItemTable
from shared.features.shard import Shopper
from shared.recommend import Model, PageRequest, Prepared, Shelf, default_sources, item_rows, prepare
from tests.unit.builders import NOW, event, sent, table_of, updated

COUNT = 12
ARRIVED_DAYS_AGO = {2: 5, 9: 1, 10: 10, 11: 40}
ANN = (
    sent("cart", item="i0", at=NOW - 3 * MINUTE_MS),
    sent("view", item="i4", at=NOW - 2 * MINUTE_MS),
    sent("purchase", item="i1", at=NOW - MINUTE_MS),
)
TOUCHED = {0, 1, 4}
FACTORS = np.random.default_rng(5).normal(size=(COUNT, 4)).astype(np.float32)

# Items 0-3 are of category A, 4-7 of B, 8-11 of C; item n was viewed n + 1 times; the lists of item n hold
# n + 1, n + 2 and n + 5 with scores 1, 1/2, 1/4. Ann bought 1, then before that viewed 4, then carted 0.
AROUND_HERS = [2, 3, 6, 5, 9]
ANSWERS: dict[Retrieval, list[int]] = {Retrieval(kind.value): AROUND_HERS for kind in REQUEST_KINDS} | {
    Retrieval.ALS: [],  # told by the normal equations, below
    Retrieval.REPEAT: [1, 0, 4],
    Retrieval.POPULAR: [3, 11, 10, 9, 2, 8, 7, 6, 5, 1, 4, 0],  # A is lifted three times, B a tenth: they are her taste
    Retrieval.ARRIVALS: [2, 9, 10],
}
STRANGERS: dict[Retrieval, list[int]] = {
    Retrieval.POPULAR: list(range(COUNT))[::-1],
    Retrieval.ARRIVALS: [9, 2, 10],
}


@dataclass(frozen=True)
class World:
    """One shop under one numbering: `place[n]` is the index of item n."""

    prepared: Prepared
    query: Query
    source: CandidateSource
    place: list[int]

    def items(self, ranked: Ranked) -> list[int]:
        """The answer in item numbers."""
        number = {index: item for item, index in enumerate(self.place)}
        return [number[index] for index in ranked.indexes.tolist()]


def catalogue(prefix: str, count: int = COUNT) -> ItemTable:
    table = table_of()
    for number in range(count):
        changes: dict[str, Any] = {"categories": ["Shop", "ABC"[number // 4]], "price_cents": 100}
        if number in ARRIVED_DAYS_AGO:
            arrived = np.datetime64(NOW - ARRIVED_DAYS_AGO[number] * DAY_MS, "ms")
            changes["arrived_at"] = f"{arrived}Z"
        table.fold(updated(f"{prefix}{number}", at=NOW - 90 * DAY_MS, **changes), NOW)
        for _ in range(number + 1):
            table.fold(event("view", item=f"{prefix}{number}", user="others", at=NOW - DAY_MS), NOW)
    return table


def model_of(factors: np.ndarray, bought_window_days: int = 0) -> Model:
    sources = default_sources(ItemFactors.of(factors, 0.05, 2.0))
    return Model("r", sources, None, ZoneInfo("UTC"), bought_window_days)  # type: ignore[arg-type]  # nothing is scored


def world(
    name: Retrieval,
    shopper: Shopper,
    *,
    place: Sequence[int] | None = None,
    prefix: str = "i",
    bought_window_days: int = 0,
    preferences: Preferences | None = None,
    **request: Any,
) -> World:
    place = list(place or range(COUNT))
    order = np.argsort(place)
    table = catalogue(prefix)
    shelf = Shelf.of(table, item_rows(table, [ItemId(f"{prefix}{number}") for number in order]))
    model = model_of(FACTORS[order], bought_window_days)
    if "context_row" in request:
        request["context_row"] = table.row_of_id(f"{prefix}{request['context_row']}")
    shopper = replace(shopper, preferences=preferences)
    prepared = prepare(shelf, model, shopper, PageRequest(NOW, **request))
    query = replace(prepared.query, neighbours=lists(prepared.query, place))
    return World(prepared, query, model.sources[name], place)


def lists(query: Query, place: Sequence[int]) -> Mapping[ListKind, Neighbours]:
    places, number = np.array(place), np.argsort(place)
    around = [[(number[seed] + step) % COUNT for step in (1, 2, 5)] for seed in query.seeds]
    indexes = np.array(around, dtype=np.int64).reshape(-1, 3)
    scores = np.tile(np.array([1.0, 0.5, 0.25], np.float32), (len(indexes), 1))
    return dict.fromkeys(ListKind, Neighbours(places[indexes].astype(np.int32), scores))


def naive_factor(history: History) -> np.ndarray:
    """Hu, Koren, Volinsky: argmin of sum over all items of c (p - x y)^2 + reg |x|^2; untouched: c = 1, p = 0."""
    wide = FACTORS.astype(np.float64)
    confidence, preference = np.ones(COUNT), np.zeros(COUNT)
    for age, index in enumerate(history.indexes):
        confidence[index], preference[index] = 2.0 * history.weights[age] * DEFAULT.als_decay**age, 1.0
    left = sum(confidence[item] * np.outer(wide[item], wide[item]) for item in range(COUNT)) + 0.05 * np.eye(4)
    right = sum(confidence[item] * preference[item] * wide[item] for item in range(COUNT))
    return np.linalg.solve(left, right)


def known_answer(name: Retrieval, query: Query) -> list[int]:
    if name is not Retrieval.ALS:
        return ANSWERS[name]
    scores = FACTORS @ naive_factor(query.history)
    return [item for item in np.argsort(-scores).tolist() if scores[item] > 0 and item not in TOUCHED]
