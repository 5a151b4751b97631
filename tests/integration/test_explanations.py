"""explain=true: what each source said, what each feature added, what the rules took."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from batch.models.ranker_onnx import export_ranker
from batch.models.ranker_trees import tree_paths
from functions.api.models import Recommendations
from local.embedded import EmbeddedServers
from shared.features.vector import SCHEMA
from shared.releases.bundle import TREES
from tests.integration.api_shop import GONE, HIDDEN, WEIGHTS, ApiShop, item_id, open_shop

TREE_RELEASE = "r-trees"


@pytest.fixture(scope="module")
def booster() -> lgb.Booster:
    """Trees that have learnt to rank as the test shop's linear ranker does."""
    rng = np.random.default_rng(1)
    rows = rng.random((4000, len(SCHEMA.names)), dtype=np.float32)
    weights = np.array([WEIGHTS.get(name, 0.0) for name in SCHEMA.names])
    parameters = {"objective": "regression", "verbose": -1, "num_threads": 1, "num_leaves": 15, "learning_rate": 0.3}
    data = lgb.Dataset(rows, rows @ weights, feature_name=list(SCHEMA.names))
    return lgb.train(parameters, data, 30)


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path, booster: lgb.Booster) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        ranker, trees = export_ranker(booster, SCHEMA.names), tree_paths(booster).encode()
        opened.publish(TREE_RELEASE, ranker=ranker, extra={TREES: trees})
        opened.services.refresh()
        yield opened


def explained(shop: ApiShop, user_id: str, **query: Any) -> Recommendations:
    return Recommendations.model_validate(shop.page(user_id, explain="true", **query))


def test_contributions_by_name_add_up_to_each_score(shop: ApiShop, booster: lgb.Booster) -> None:
    shop.click("ada", 100)
    page = explained(shop, "ada")
    assert page.release == TREE_RELEASE
    expected = booster.predict(np.zeros((1, len(SCHEMA.names))), pred_contrib=True)
    for item in page.items:
        assert item.explanation is not None
        score = item.explanation.score
        assert score is not None
        assert score.expected == pytest.approx(np.asarray(expected)[0, -1])
        shares = [one.contribution for one in score.contributions]
        assert 1 <= len(shares) <= 10
        assert sorted(map(abs, shares), reverse=True) == list(map(abs, shares))
        assert score.expected + sum(shares) + score.rest == pytest.approx(item.score, abs=1e-4)
        assert {one.feature for one in score.contributions} <= set(SCHEMA.names)
    said = {one.feature for item in page.items for one in item.explanation.score.contributions}  # type: ignore[union-attr]  # checked above
    assert "retrieval_transitions_score" in said


def test_without_trees_or_without_the_ranker_contributions_are_null(shop: ApiShop) -> None:
    stranger = explained(shop, "nobody")
    assert stranger.fallback is not None
    assert all(item.explanation is not None and item.explanation.score is None for item in stranger.items)
    shop.click("ben", 100)
    shop.publish("r-linear")
    shop.services.refresh()
    page = explained(shop, "ben")
    assert page.release == "r-linear"
    assert all(item.explanation is not None and item.explanation.score is None for item in page.items)


def test_rules_name_some_of_what_they_took(shop: ApiShop) -> None:
    shop.click("cleo", 100, "purchase")
    page = explained(shop, "cleo", category="Category 5", exclude=item_id(101))
    assert page.explanation is not None
    removed, examples = page.explanation.removed, page.explanation.removed_examples
    assert set(examples) == set(removed) == {"unavailable", "category", "excluded", "bought"}
    assert examples["unavailable"] == [item_id(GONE), item_id(HIDDEN)]
    assert (examples["excluded"], examples["bought"]) == ([item_id(101)], [item_id(100)])
    assert removed["category"] > len(examples["category"]) == 20
    assert not {one for ids in examples.values() for one in ids} & {item.item_id for item in page.items}
    assert shop.page("cleo")["explanation"] is None
