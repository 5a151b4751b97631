from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from shared.events import EventType
from shared.features.aggregations import DAY_MS
from shared.features.declaration import Entity, Feature
from shared.features.definitions import FEATURES, Retrieval, decayed
from shared.features.vector import SCHEMA, SMALLEST, assemble, schema_of
from shared.features.views import PairView, RequestView, RetrievalBlock
from tests.unit.builders import NOW, UTC, all_rows, sent, shopper_of, table_of, updated, view_of


def scene(count: int = 3) -> tuple[PairView, RetrievalBlock, RequestView]:
    table = table_of(*(updated(f"i{number}", price_cents=100 * number) for number in range(count)))
    user = view_of(shopper_of(sent("view", item="i1", price_cents=100)), table)
    retrieval = RetrievalBlock.silent(count, len(Retrieval))
    retrieval.ranks[1:2, [0, 2]], retrieval.scores[1:2, [0, 2]] = (4, 1), (0.5, 1.0)
    pair = PairView(user, table.block(all_rows(table), NOW), table.category, table.brand)
    return pair, retrieval, RequestView(NOW, UTC)


def column(matrix: np.ndarray, name: str) -> list[float]:
    found: list[float] = matrix[:, SCHEMA.names.index(name)].tolist()
    return found


def test_one_row_a_candidate_and_one_column_a_feature() -> None:
    matrix = assemble(*scene())
    assert matrix.shape == (3, len(FEATURES))
    assert matrix.dtype == np.float32
    assert np.isfinite(matrix).all()


def test_no_candidates_make_an_empty_matrix() -> None:
    assert assemble(*scene(0)).shape == (0, len(FEATURES))


def test_retrieval_is_read_by_source() -> None:
    matrix = assemble(*scene())
    assert column(matrix, "retrieval_als_reciprocal_rank") == [0, 0.25, 0]
    assert column(matrix, "retrieval_als_score") == [0, 0.5, 0]
    assert column(matrix, "retrieval_transitions_reciprocal_rank") == [0, 1, 0]
    assert column(matrix, "retrieval_popular_score") == [0, 0, 0]
    assert column(matrix, "retrieval_sources_count") == [0, 2, 0]


def test_the_clock_is_a_circle() -> None:
    matrix = assemble(*scene())
    hour, weekday = (22 + 13 / 60) / 24, (1 + (22 + 13 / 60) / 24) / 7
    for name, turn in (("request_hour", hour), ("request_weekday", weekday)):
        assert column(matrix, f"{name}_sin")[0] == pytest.approx(math.sin(2 * math.pi * turn), rel=1e-6)
        assert column(matrix, f"{name}_cos")[0] == pytest.approx(math.cos(2 * math.pi * turn), rel=1e-6)


def test_what_is_not_known_is_the_default_and_what_is_next_to_nothing_is_nothing() -> None:
    def of(values: list[float], default: float) -> list[float]:
        feature = Feature("item_probe", Entity.ITEM, "probe", lambda _: np.array(values), default=default)
        read: list[float] = assemble(*scene(), (feature,))[:, 0].tolist()
        return read

    assert of([math.nan, 2.0, math.nan], -7.0) == [-7.0, 2.0, -7.0]
    assert of([SMALLEST / 2, -SMALLEST / 2, -0.0], 3.0) == [0, 0, 0]
    assert of([SMALLEST * 2, 1.0, 0.0], 3.0)[0] > 0


def test_a_value_of_the_user_or_request_fills_its_column() -> None:
    probe = Feature("user_probe", Entity.USER, "probe", lambda user: user.session_length)
    assert assemble(*scene(), (probe,)).tolist() == [[1], [1], [1]]


def test_the_digest_tells_schemas_apart() -> None:
    first = FEATURES[0]
    changed = [
        (replace(first, name="user_other"), *FEATURES[1:]),
        (replace(first, default=first.default + 1), *FEATURES[1:]),
        (replace(first, dtype="float64"), *FEATURES[1:]),
        (replace(first, vocabulary=("desktop",)), *FEATURES[1:]),
        (replace(first, aggregations=(decayed(EventType.VIEW, "7d"),)), *FEATURES[1:]),
        (FEATURES[1], FEATURES[0], *FEATURES[2:]),
        FEATURES[1:],
    ]
    digests = {schema_of(features).digest for features in changed}
    assert len(digests) == len(changed)
    assert SCHEMA.digest not in digests
    assert schema_of((replace(first, description="otherwise said"), *FEATURES[1:])) == SCHEMA


def test_values_keep_decaying_when_nothing_happens() -> None:
    pair, retrieval, _ = scene()
    soon = assemble(pair, retrieval, RequestView(NOW, UTC))
    table = table_of(*(updated(f"i{number}") for number in range(3)))
    later_user = view_of(shopper_of(sent("view", item="i1")), table, NOW + 7 * DAY_MS)
    later_pair = PairView(later_user, table.block(all_rows(table), NOW + 7 * DAY_MS), table.category, table.brand)
    later = assemble(later_pair, retrieval, RequestView(NOW + 7 * DAY_MS, UTC))
    assert column(later, "user_view_decayed_7d")[0] == column(soon, "user_view_decayed_7d")[0] / 2
    assert column(later, "user_action_recency_hours")[0] == 7 * 24
