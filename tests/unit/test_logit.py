"""The conditional logit finds the weights that made the choices, at the optimum that another optimiser finds too."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from batch.models.logit import LogitParams, fit_logit
from batch.models.ranker_columns import Column, is_popularity, linear_columns, source_scores
from batch.models.rankers import RankersParams, out_of_fold, page_ndcg
from batch.models.ranking_rows import RankingRows
from shared.features.declaration import Entity
from shared.features.definitions import FEATURES, Retrieval
from shared.ranking.linear_terms import Z_LIMIT, LinearTerms

GAINS = (0.0, 1.0, 4.0)
PLAIN = [Column(place, None, 0.0) for place in range(4)]
TRUE = np.array([1.5, -0.8, 0.0, 0.4])


def chosen(pages: int, seed: int, size: int = 12, truth: NDArray[np.float64] = TRUE) -> RankingRows:
    """One candidate a page is chosen with the softmax of its columns times the truth."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(pages, size, 4)).astype(np.float32)
    pick = (features @ truth + rng.gumbel(size=(pages, size))).argmax(axis=1)
    labels = np.zeros((pages, size), np.int64)
    labels[np.arange(pages), pick] = 1
    return RankingRows(features.reshape(-1, 4), labels.ravel(), np.full(pages, size), np.arange(pages) // 2)


def test_the_weights_that_made_the_choices_are_found() -> None:
    terms, _ = fit_logit(chosen(4000, 1), None, PLAIN, LogitParams(l2=(1e-6,)), GAINS)
    np.testing.assert_allclose(terms.weight / terms.scale, TRUE, atol=0.08)


def test_it_stops_where_another_optimiser_stops() -> None:
    """With grades, pages of different length, several positives and a penalty, against the loss written plainly."""
    rng = np.random.default_rng(2)
    groups = rng.integers(2, 9, size=150)
    features = rng.normal(size=(int(groups.sum()), 4)).astype(np.float32)
    labels = rng.choice(3, p=[0.6, 0.25, 0.15], size=len(features))
    rows, l2 = RankingRows(features, labels, groups), 0.02
    terms, _ = fit_logit(rows, None, PLAIN, LogitParams(l2=(l2,)), GAINS)
    z = np.clip((features - terms.mean) / terms.scale, -Z_LIMIT, Z_LIMIT)
    gain = np.asarray(GAINS)[labels]

    def loss(weights: NDArray[np.float64]) -> float:
        total = mass = 0.0
        for page in np.split(np.arange(len(z)), np.cumsum(groups)[:-1]):
            positives = float(np.sqrt((gain[page] > 0).sum()))
            if positives:
                scores = z[page] @ weights
                share = gain[page] / gain[page].sum()
                total += positives * float(np.log(np.exp(scores).sum()) - share @ scores)
                mass += positives
        return total / mass + l2 / 2 * float(weights @ weights)

    plainly = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(terms.weight, plainly.x, atol=2e-4)


def test_few_newton_steps_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, _ = fit_logit(chosen(800, 3), None, PLAIN, LogitParams(l2=(1e-3,)), GAINS)
    monkeypatch.setattr("batch.models.logit._MAX_STEPS", 6)
    early, _ = fit_logit(chosen(800, 3), None, PLAIN, LogitParams(l2=(1e-3,)), GAINS)
    np.testing.assert_allclose(early.weight, exact.weight, atol=1e-3)


def test_held_out_users_choose_how_much_is_held_back() -> None:
    noise = np.zeros(4)
    _, for_noise = fit_logit(chosen(60, 4, truth=noise), chosen(400, 5, truth=noise), PLAIN, LogitParams(), GAINS)
    _, for_signal = fit_logit(chosen(2000, 6), chosen(400, 7), PLAIN, LogitParams(), GAINS)
    assert for_noise == max(LogitParams().l2)
    assert for_signal < for_noise


def test_columns_that_do_not_vary_within_pages_drop_out() -> None:
    rows = chosen(50, 8)
    rows.features[:, 1] = np.repeat(np.arange(50), 12)
    rows.features[:, 2] = 7.0
    terms, _ = fit_logit(rows, None, PLAIN, LogitParams(), GAINS)
    assert terms.feature.tolist() == [0, 3]
    rows.features[:] = 1.0
    silent, _ = fit_logit(rows, None, PLAIN, LogitParams(), GAINS)
    assert not silent.score(rows.features).any()


def test_scores_out_of_fold_know_nothing_of_their_own_labels() -> None:
    rng = np.random.default_rng(9)
    wide = rng.normal(size=(60 * 8, 80)).astype(np.float32)
    labels = np.zeros((60, 8), np.int64)
    labels[np.arange(60), rng.integers(0, 8, size=60)] = 1
    rows = RankingRows(wide, labels.ravel(), np.full(60, 8), np.arange(60) // 3)
    columns = [Column(place, None, 0.0) for place in range(80)]
    params = RankersParams(logit=LogitParams(l2=(1e-3,)), label_gain=GAINS)
    terms, l2 = fit_logit(rows, None, columns, params.logit, GAINS)
    by_heart = page_ndcg(terms.score(wide), rows, GAINS).mean()
    honest = page_ndcg(out_of_fold(rows, terms, params, l2), rows, GAINS).mean()
    chance = page_ndcg(rng.random(len(wide)), rows, GAINS).mean()
    assert by_heart > 0.75
    assert honest < chance + 0.1


def test_columns_follow_from_the_declarations() -> None:
    found = {FEATURES[one.feature].entity for one in linear_columns(popularity=False)}
    assert found == {Entity.PAIR, Entity.RETRIEVAL}
    more = {FEATURES[one.feature].name for one in linear_columns(popularity=True)}
    less = {FEATURES[one.feature].name for one in linear_columns(popularity=False)}
    assert more - less == {one.name for one in FEATURES if is_popularity(one)}
    alone = linear_columns(popularity=True, entities=(Entity.RETRIEVAL,))
    assert {FEATURES[one.feature].entity for one in alone} == {Entity.RETRIEVAL}
    assert len(source_scores()) == len(Retrieval)


def test_terms_read_nan_as_the_default_and_cut_what_lies_far_out() -> None:
    terms = LinearTerms(
        feature=np.array([0, 0], np.int16), offset=np.array([np.nan, 1.0], np.float32),
        fill=np.array([3.0, 3.0], np.float32), mean=np.array([1.0, 0.0]), scale=np.array([2.0, 1.0]),
        weight=np.array([10.0, 1.0]), features_count=np.array([2]),
    )  # fmt: skip
    asked = np.array([[3, 0], [np.nan, 0], [np.inf, 0], [-5, 0]], np.float32)
    expected = [10 + np.log(4), 10 + np.log(4), 10 * Z_LIMIT + Z_LIMIT, -30]
    np.testing.assert_allclose(terms.score(asked), expected, rtol=1e-7)
