"""Clicks of simulated shoppers who look at the top of a page more often than at its end, by known odds."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from batch.exposed_rows import ExposedRows, read_exposed
from batch.models.logit import LogitParams, fit_logit
from batch.models.position_bias import LEAST_EXAMINATION, click_weights, estimate_examination
from batch.models.ranker import RankerParams, train_ranker
from batch.models.ranker_columns import Column
from batch.models.rankers import page_ndcg
from batch.models.ranking_rows import RankingRows, joined
from shared.adapters.folder_blob import FolderBlobStore
from shared.errors import ConfigurationError
from shared.events import Event, EventType
from shared.features.vector import SCHEMA
from shared.ingest.exposures import write_exposures
from shared.ingest.lake import publish_history
from shared.ingest.lake_table import unnumbered_table
from tests.unit.lake_builders import SHOP, START, event

SHOWN = 10
EXAMINED = 1 / np.arange(1, SHOWN + 1) ** 0.8
GAINS = (0.0, 1.0)
COLUMNS = [Column(0, None, 0.0), Column(1, None, 0.0)]


def shown_pages(pages: int, seed: int, examined: NDArray[np.float64] = EXAMINED) -> ExposedRows:
    """Pages of SHOWN items that a poor ranker ordered: relevance hangs on column 0, its order mostly on column 1."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(pages, SHOWN, 2))
    scores = 0.3 * features[:, :, 0] + features[:, :, 1]
    order = np.argsort(-scores, axis=1)
    features = np.take_along_axis(features, order[:, :, None], axis=1)
    relevance = 0.6 / (1 + np.exp(1 - 1.5 * features[:, :, 0]))
    clicked = rng.random((pages, SHOWN)) < relevance * examined
    kept = clicked.any(axis=1)
    labels = clicked[kept].astype(np.int64).ravel()
    groups = np.full(int(kept.sum()), SHOWN)
    rows = RankingRows(features[kept].reshape(-1, 2).astype(np.float32), labels, groups)
    position = np.tile(np.arange(SHOWN), len(groups))
    logged = np.take_along_axis(scores, order, axis=1)[kept].ravel()
    return ExposedRows(rows, position, logged, np.zeros(len(labels), np.int64))


def recovered(rows: RankingRows) -> tuple[float, float]:
    """What a logit that learnt from these rows gives the poor ranker's column in relation to the true one, and NDCG."""
    terms, _ = fit_logit(rows, None, COLUMNS, LogitParams(l2=(1e-4,)), GAINS)
    weights = terms.weight / terms.scale
    return float(weights[1] / weights[0]), true_ndcg(terms.score)


def true_ndcg(score: Callable[[NDArray[np.float32]], NDArray[np.float64]]) -> float:
    """NDCG@20 on pages whose relevance is known without clicks."""
    rng = np.random.default_rng(99)
    fresh = rng.normal(size=(300 * 30, 2)).astype(np.float32)
    relevant = (rng.random(len(fresh)) < 0.6 / (1 + np.exp(1 - 1.5 * fresh[:, 0]))).astype(np.int64)
    return float(page_ndcg(score(fresh), RankingRows(fresh, relevant, np.full(300, 30)), GAINS).mean())


def test_examination_is_found_from_clicks_and_scores() -> None:
    rng = np.random.default_rng(1)
    kind = rng.integers(0, 8, size=60_000)
    # The better kinds stand further up, so that plain click rates by position mix looks with relevance.
    position = np.minimum(rng.poisson(1 + 0.9 * (7 - kind)), SHOWN - 1)
    relevance = np.linspace(0.05, 0.6, 8)[kind]
    clicked = rng.random(len(kind)) < EXAMINED[position] * relevance
    found = estimate_examination(position, kind, clicked)
    np.testing.assert_allclose(found, EXAMINED, atol=0.05)
    plain = np.array([clicked[position == place].mean() for place in range(SHOWN)])
    assert np.abs(plain / plain[0] - EXAMINED).max() > 0.1, "without relevance it would not be found"


def test_weighed_clicks_recover_the_order_that_plain_clicks_hide() -> None:
    shown = shown_pages(6000, 2)
    plain_share, plain_ndcg = recovered(shown.rows)
    share, ndcg = recovered(replace(shown.rows, weights=click_weights(shown.position, EXAMINED)))
    assert plain_share > 0.25, "clicks alone take the poor ranker's word for it"
    assert abs(share) < 0.1
    assert ndcg > plain_ndcg + 0.03


def test_the_switch_does_as_well_with_odds_learnt_from_the_clicks() -> None:
    shown = shown_pages(6000, 3)
    plain_share, plain_ndcg = recovered(shown.rows)
    share, ndcg = recovered(shown.weighed())
    assert abs(share) < plain_share / 3
    assert ndcg > plain_ndcg + 0.03


def test_trees_learn_from_weighed_clicks_too() -> None:
    shown, stopping = shown_pages(2000, 5), shown_pages(500, 6)
    params = RankerParams(trees=20, leaves=7, min_data_in_leaf=50, feature_fraction=1.0, threads=1)
    plain = train_ranker(shown.rows, stopping.rows, params=params)
    weighed = train_ranker(shown.weighed(), stopping.weighed(), params=params)
    found = [true_ndcg(lambda rows, one=one: np.asarray(one.predict(rows))) for one in (plain, weighed)]  # type: ignore[misc]  # the lambda takes the model by value
    assert found[1] > found[0] + 0.015


def test_where_every_place_is_looked_at_weights_change_little() -> None:
    shown = shown_pages(3000, 4, np.ones(SHOWN))
    weights = shown.weighed().weights
    assert weights is not None
    assert np.abs(weights - 1).max() < 0.35


def test_weights_are_bounded_and_rows_are_asked_for() -> None:
    assert click_weights(np.array([0, 1, 9]), np.array([1.0, 0.0])).tolist() == [
        1,
        1 / LEAST_EXAMINATION,
        1 / LEAST_EXAMINATION,
    ]
    assert estimate_examination(np.array([0, 3]), np.array([0, 0]), np.array([True, False])).shape == (4,)
    with pytest.raises(ConfigurationError, match="exposures"):
        estimate_examination(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.bool_))


def test_rows_of_two_origins_keep_their_users_apart() -> None:
    first = RankingRows(np.zeros((4, 3), np.float32), np.zeros(4, np.int64), np.array([2, 2]), np.array([0, 5]))
    second = RankingRows(np.ones((3, 3), np.float32), np.ones(3, np.int64), np.array([3]), None, np.full(3, 2.0))
    both = joined(first, second)
    assert both.users is not None
    assert both.weights is not None
    assert both.users.tolist() == [0, 5, 6]
    assert both.weights.tolist() == [1, 1, 1, 1, 2, 2, 2]


def line(number: int, items: list[str], **changed: object) -> bytes:
    vectors = np.full((len(items), len(SCHEMA.names)), number, "<f4")
    said = {
        "recommendation_id": f"r{number}", "release": "a", "schema": SCHEMA.digest, "user_id": f"user{number % 2}",
        "fallback": None, "items": items, "scores": [1.0 - place / 10 for place in range(len(items))],
        "vectors": base64.b64encode(vectors.tobytes()).decode(), "worker": "w",
    }  # fmt: skip
    return msgspec.json.encode(said | changed)


def test_pages_on_record_become_rows_with_the_actions_that_name_them(tmp_path: Path) -> None:
    blobs = FolderBlobStore(tmp_path)
    assert read_exposed(blobs) is None
    lines = [
        line(1, ["tea", "jam", "rye"]),
        line(2, ["jam", "tea"]),
        line(3, ["tea"], fallback="new_user"),
        line(4, ["tea", "jam"], schema="another"),
        line(5, ["tea", "jam"]),
    ]
    write_exposures(blobs, "w", START // 60_000 * 60_000, lines)
    events = [
        replaced(1, "jam", EventType.VIEW, "r1"), replaced(2, "jam", EventType.PURCHASE, "r1"),
        replaced(3, "oat", EventType.VIEW, "r1"), replaced(4, "tea", EventType.CART, "r2"),
        replaced(5, "tea", EventType.VIEW, "r3"), replaced(6, "tea", EventType.VIEW, "r4"),
        replaced(7, "tea", EventType.VIEW, None),
    ]  # fmt: skip
    publish_history(blobs, "history-a", 2, SHOP, [unnumbered_table(events)], 3)
    found = read_exposed(blobs)
    assert found is not None
    assert found.rows.labels.tolist() == [0, 3, 0, 0, 2]
    assert found.rows.groups.tolist() == [3, 2]
    assert found.rows.users is not None
    assert found.rows.users.tolist() == [1, 0]
    assert found.position.tolist() == [0, 1, 2, 0, 1]
    assert found.rows.features[:, 0].tolist() == [1, 1, 1, 2, 2]


def replaced(number: int, item: str, kind: EventType, recommendation: str | None) -> Event:
    """An event that follows from a recommendation."""
    return msgspec.structs.replace(
        event(number, START + number * 1000, item=item), event_type=kind, recommendation_id=recommendation
    )
