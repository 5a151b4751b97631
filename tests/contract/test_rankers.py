"""What every ranker promises, whatever it is made of: the blend, the logit, LambdaMART, and trees on top of terms."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest
from scipy.stats import sem

from batch.models.logit import LogitParams
from batch.models.ranker import RankerParams
from batch.models.ranker_onnx import check_export
from batch.models.rankers import BLEND, LAMBDAMART, LOGIT, RankersParams, choose, fit_rankers, page_ndcg
from batch.models.ranking_rows import RankingRows
from batch.models.trained_ranker import TrainedRanker
from shared.errors import ConfigurationError, SchemaMismatch
from shared.features.declaration import Entity
from shared.features.definitions import FEATURES
from shared.features.vector import SCHEMA
from shared.ranking.ranker_parts import RankerParts
from shared.ranking.scorer import OnnxScorer
from tests.unit.made_rankings import column, made_rankings

ON_TERMS = "lambdamart on terms"
KINDS = (BLEND, LOGIT, LAMBDAMART, ON_TERMS)
LEAST = {BLEND: 0.4, LOGIT: 0.9, LAMBDAMART: 0.7, ON_TERMS: 0.85}
"""Of what the truth knows beyond chance; a blend sees the source's score and not the affinity."""
CROSSED = ("pair_brand_affinity_14d", "pair_session_category_affinity")
SMALL = RankersParams(
    logit=LogitParams(l2=(0.01, 0.001), popularity=False),
    lambdamart=RankerParams(trees=15, leaves=7, min_data_in_leaf=20, learning_rate=0.2, threads=1, popularity=False),
    start="zero",
    folds=2,
)


def fit(kind: str, training: RankingRows, held_out: RankingRows, params: RankersParams = SMALL) -> TrainedRanker:
    name, start = (LAMBDAMART, "logit") if kind == ON_TERMS else (kind, "zero")
    return fit_rankers(training, held_out, replace(params, start=start), names=(name,))[name]  # type: ignore[arg-type]  # one of the two literals


@cache
def ranker(kind: str) -> TrainedRanker:
    return fit(kind, made_rankings(250, 1)[0], made_rankings(80, 2)[0])


each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
def test_it_finds_the_order_that_made_the_choices(kind: str) -> None:
    rows, truth = made_rankings(150, 3)
    found = page_ndcg(ranker(kind).score(rows.features), rows, SMALL.label_gain).mean()
    best = page_ndcg(truth, rows, SMALL.label_gain).mean()
    chance = page_ndcg(np.random.default_rng(0).random(len(truth)), rows, SMALL.label_gain).mean()
    share = (found - chance) / (best - chance)
    assert LEAST[kind] < share < 1.05, f"{share:.2f} of what can be known"


@each_kind
def test_entities_that_are_left_out_are_not_read(kind: str) -> None:
    training, held_out = made_rankings(120, 5)[0], made_rankings(50, 6)[0]
    params = replace(SMALL, entities=(Entity.RETRIEVAL,))
    blind = fit(kind, training, held_out, params)
    rows = made_rankings(20, 4)[0].features
    shuffled = rows.copy()
    others = [place for place, one in enumerate(FEATURES) if one.entity is not Entity.RETRIEVAL]
    shuffled[:, others] = np.random.default_rng(0).permutation(shuffled[:, others])
    np.testing.assert_array_equal(blind.score(rows), blind.score(shuffled))
    assert len(np.unique(blind.score(rows))) > 1
    if kind != BLEND:
        assert not np.array_equal(ranker(kind).score(rows), ranker(kind).score(shuffled))


@each_kind
def test_a_row_has_its_score_wherever_it_stands(kind: str) -> None:
    rows = made_rankings(20, 4)[0].features
    order = np.random.default_rng(0).permutation(len(rows))
    scores = ranker(kind).score(rows)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(ranker(kind).score(rows[order]), scores[order])
    alone = np.concatenate([ranker(kind).score(rows[place : place + 1]) for place in range(30)])
    np.testing.assert_allclose(alone, scores[:30], rtol=1e-6)
    assert ranker(kind).score(rows[:0]).shape == (0,)


@each_kind
def test_the_order_of_candidates_and_the_names_of_users_teach_nothing(kind: str) -> None:
    training, held_out = made_rankings(120, 5)[0], made_rankings(50, 6)[0]
    rng = np.random.default_rng(1)
    moved = np.concatenate([start + rng.permutation(20) for start in range(0, len(training.labels), 20)])
    shuffled = RankingRows(
        training.features[moved],
        training.labels[moved],
        training.groups,
        None if training.users is None else training.users + 7_000,
    )
    fresh = made_rankings(10, 7)[0].features
    first, second = (fit(kind, one, held_out).score(fresh) for one in (training, shuffled))
    np.testing.assert_allclose(first, second, atol=2e-3)


@each_kind
def test_the_same_rows_and_seed_give_the_same_ranker(kind: str) -> None:
    again = fit(kind, made_rankings(250, 1)[0], made_rankings(80, 2)[0])
    assert again.to_onnx() == ranker(kind).to_onnx()
    assert again.parts().encode() == ranker(kind).parts().encode()


@each_kind
def test_what_is_saved_is_what_is_loaded(kind: str, tmp_path: Path) -> None:
    ranker(kind).save(tmp_path)
    again = TrainedRanker.load(tmp_path)
    rows = made_rankings(10, 8)[0].features
    assert again.name == ranker(kind).name
    np.testing.assert_array_equal(again.exact_score(rows), ranker(kind).exact_score(rows))
    assert again.to_onnx() == ranker(kind).to_onnx()


@each_kind
def test_the_onnx_form_scores_and_orders_alike_on_thresholds_too(kind: str) -> None:
    one = ranker(kind)
    report = check_export(one.booster, one.to_onnx(), made_rankings(60, 9)[0].features, one.terms)
    assert report.given.exact
    assert report.on_threshold.exact
    assert report.on_threshold.rows >= 4096
    assert report.on_threshold.max_error <= 1e-5


@each_kind
def test_contributions_add_up_to_the_served_score(kind: str) -> None:
    one = ranker(kind)
    rows = made_rankings(10, 10)[0].features
    parts = RankerParts.decode(one.parts().encode())
    found, said = parts.contributions(rows), one.exact_contributions(rows)
    np.testing.assert_allclose(found.values, said.values, atol=1e-6)
    np.testing.assert_allclose(found.values.sum(axis=1) + found.expected, one.exact_score(rows), atol=1e-9)
    np.testing.assert_allclose(
        found.values.sum(axis=1) + found.expected, OnnxScorer(one.to_onnx()).score(rows), atol=1e-5
    )


@each_kind
def test_rows_of_another_schema_are_refused(kind: str) -> None:
    width = len(SCHEMA.names)
    for wrong in (np.zeros((2, width + 1), np.float32), np.zeros((2, width)), np.zeros(width, np.float32)):
        with pytest.raises(SchemaMismatch, match=f"{width} features"):
            ranker(kind).score(wrong)  # type: ignore[arg-type]  # what is refused
        with pytest.raises(SchemaMismatch):
            OnnxScorer(ranker(kind).to_onnx()).score(wrong)  # type: ignore[arg-type]  # what is refused


@each_kind
def test_thin_data_gives_a_ranker(kind: str) -> None:
    training, held_out = made_rankings(3, 11)[0], made_rankings(1, 12)[0]
    one = fit(kind, training, held_out)
    assert np.isfinite(one.score(made_rankings(2, 13)[0].features)).all()
    check_export(one.booster, one.to_onnx(), training.features, one.terms)


@each_kind
def test_without_a_positive_there_is_nothing_to_learn(kind: str) -> None:
    rows = made_rankings(5, 14)[0]
    with pytest.raises(ConfigurationError, match="positive label"):
        fit(kind, replace(rows, labels=np.zeros_like(rows.labels)), rows)
    with pytest.raises(ConfigurationError, match="label 3 has no gain"):
        fit(kind, rows, rows, replace(SMALL, label_gain=(0.0, 1.0)))


def test_the_family_is_fitted_at_once_and_the_logit_serves_unless_another_is_clearly_better() -> None:
    params = replace(SMALL, start="held_out")
    chosen = set()
    for seed in (15, 41):
        training, held_out = made_rankings(120, seed)[0], made_rankings(60, seed + 1)[0]
        family = fit_rankers(training, held_out, params)
        assert list(family) == [BLEND, LOGIT, LAMBDAMART]
        logit, trees = (
            page_ndcg(family[name].score(held_out.features), held_out, params.label_gain)
            for name in (LOGIT, LAMBDAMART)
        )
        clearly = (trees - logit).mean() > sem(trees - logit)
        assert choose(family, held_out, params) == (LAMBDAMART if clearly else LOGIT)
        assert choose({LOGIT: family[BLEND], BLEND: family[LOGIT]}, held_out, params) == BLEND
        chosen.add(clearly)
    assert chosen == {True, False}
    assert choose({LOGIT: family[LOGIT], LAMBDAMART: family[LOGIT]}, held_out, params) == LOGIT, "no better than equal"


def test_where_columns_act_together_trees_are_chosen() -> None:
    def crossed(seed: int, pages: int) -> RankingRows:
        rows = made_rankings(pages, seed)[0]
        first, second = (rows.features[:, column(name)] > 0.6 for name in CROSSED)
        truth = np.where(first != second, 3.0, 0.0).reshape(pages, -1)
        bought = (truth + np.random.default_rng(seed).gumbel(size=truth.shape)).argmax(axis=1)
        labels = np.zeros(truth.shape, np.int64)
        labels[np.arange(pages), bought] = 3
        return replace(rows, labels=labels.ravel())

    training, held_out = crossed(17, 300), crossed(18, 80)
    trees = replace(SMALL.lambdamart, trees=40)
    params = replace(SMALL, lambdamart=trees)
    assert choose(fit_rankers(training, held_out, params), held_out, params) == LAMBDAMART


def test_a_model_of_trees_alone_from_an_earlier_night_is_read(tmp_path: Path) -> None:
    booster = ranker(LAMBDAMART).booster
    assert isinstance(booster, lgb.Booster)
    booster.save_model(str(tmp_path / "model.txt"))
    assert TrainedRanker.load(tmp_path).name == LAMBDAMART
    with pytest.raises(ConfigurationError, match="train_ranker first"):
        TrainedRanker.load(tmp_path / "nowhere")
