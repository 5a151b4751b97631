"""Places by mid-rank and masks, by hand; the metrics against ir-measures on lists without ties."""

from __future__ import annotations

from dataclasses import astuple

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, Success, nDCG
from numpy.typing import NDArray

from batch.evaluation.report import Verdict
from batch.metrics import (
    Interval,
    Places,
    bootstrap_difference,
    bootstrap_mean,
    hits_matrix,
    mid_places,
    places_of_hits,
    resample,
)


def ranked(scores: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Naively: a rank by descending score among what is there, 0 for the rest."""
    ranks = np.zeros(scores.shape, dtype=np.int64)
    for query, row in enumerate(scores):
        places = [place for place in np.argsort(-row, kind="stable") if there[query, place]]
        ranks[query, places] = np.arange(1, len(places) + 1)
    return ranks


def test_equal_scores_share_their_mean_place() -> None:
    #                    first  ---- places 2 to 4 ----  fifth
    scores = np.array([[0.9, 0.5, 0.5, 0.5, 0.1]])
    there = np.ones_like(scores, dtype=np.bool_)
    for wanted, place in enumerate([1.0, 3.0, 3.0, 3.0, 5.0]):
        mask = np.arange(5)[None, :] == wanted
        found = mid_places(ranked(scores, there), scores, mask, np.array([1]))
        assert found.place.tolist() == [place]
    middle = mid_places(ranked(scores, there), scores, np.array([[False, True, False, False, False]]), np.array([1]))
    assert middle.hit_rate(2) == pytest.approx([0])
    assert middle.hit_rate(3) == pytest.approx([1])
    assert middle.ndcg(20) == pytest.approx([1 / 2])  # log2(3 + 1)
    assert middle.mrr(20) == pytest.approx([1 / 3])


def test_the_order_of_columns_decides_no_tie() -> None:
    generator = np.random.default_rng(0)
    scores = generator.integers(0, 4, size=(30, 12)).astype(np.float64)
    wanted = generator.random((30, 12)) < 0.2
    there = np.ones_like(wanted)
    order = generator.permutation(12)
    counts = wanted.sum(axis=1)
    plain = mid_places(ranked(scores, there), scores, wanted, counts)
    shuffled = mid_places(ranked(scores[:, order], there), scores[:, order], wanted[:, order], counts)
    assert plain.ndcg(5) == pytest.approx(shuffled.ndcg(5))
    assert plain.recall(5) == pytest.approx(shuffled.recall(5))


def test_what_is_masked_takes_no_place_and_is_no_tie() -> None:
    scores = np.array([[0.9, 0.5, 0.5, 0.5]])
    there = np.array([[False, True, False, True]])
    found = mid_places(ranked(scores, there), scores, np.array([[True, True, False, False]]), np.array([2]))
    assert found.place.tolist() == [1.5]  # the second of two equals; the masked positive stands nowhere
    assert found.recall(2) == pytest.approx([1 / 2])


def test_nothing_found_and_nothing_to_find_are_zero() -> None:
    found = Places(np.array([], dtype=np.int64), np.array([]), np.array([0, 3]))
    for value in (found.recall(20), found.ndcg(20), found.mrr(20), found.hit_rate(20)):
        assert value.tolist() == [0, 0]


@pytest.mark.parametrize("k", [1, 10, 20])
def test_agrees_with_ir_measures_without_ties(k: int) -> None:
    generator = np.random.default_rng(k)
    queries, items = 40, 60
    scores = np.array([generator.permutation(items) for _ in range(queries)], dtype=np.float64)
    wanted = generator.random((queries, items)) < 0.08
    wanted[np.arange(queries), generator.integers(0, items, queries)] = True
    judged = {str(q): {str(i): 1 for i in np.flatnonzero(wanted[q])} for q in range(queries)}
    run = {str(q): {str(i): float(scores[q, i]) for i in range(items)} for q in range(queries)}
    theirs: dict[str, list[float]] = {
        str(measure): [0.0] * queries for measure in (nDCG @ k, R @ k, Success @ k, RR @ k)
    }
    for one in ir_measures.iter_calc([nDCG @ k, R @ k, Success @ k, RR @ k], judged, run):
        theirs[str(one.measure)][int(one.query_id)] = one.value
    ranks = ranked(scores, np.ones_like(wanted))
    by_score = mid_places(ranks, scores, wanted, wanted.sum(axis=1))
    lists = np.argsort(ranks, axis=1)
    by_list = places_of_hits(hits_matrix(lists, [np.flatnonzero(row).tolist() for row in wanted]), wanted.sum(axis=1))
    for ours in (by_score, by_list):
        assert ours.ndcg(k) == pytest.approx(theirs[str(nDCG @ k)])
        assert ours.recall(k) == pytest.approx(theirs[str(R @ k)])
        assert ours.hit_rate(k) == pytest.approx(theirs[str(Success @ k)])
        assert ours.mrr(k) == pytest.approx(theirs[str(RR @ k)])


def test_a_paired_difference_is_narrower_than_its_two_means() -> None:
    generator = np.random.default_rng(7)
    hard = generator.random(400)
    a, b = hard + 0.02, hard + generator.normal(0, 0.05, 400)
    difference = bootstrap_difference(a, b, np.arange(400))
    alone = bootstrap_mean(a, np.arange(400))
    assert difference.low > 0
    assert difference.estimate == pytest.approx(a.mean() - b.mean())
    assert difference.high - difference.low < (alone.high - alone.low) / 3
    opposite = bootstrap_difference(b, a, np.arange(400))
    assert (opposite.low, opposite.high) == pytest.approx((-difference.high, -difference.low), abs=2e-4)


def test_columns_resampled_together_are_as_alone() -> None:
    generator = np.random.default_rng(8)
    columns, users = generator.random((90, 3)), np.arange(90) // 3
    together = resample(columns, users, seed=4)
    for column in range(3):
        assert astuple(together.mean(column)) == pytest.approx(
            astuple(bootstrap_mean(columns[:, column], users, seed=4))
        )
    assert together.difference(0, 0) == Interval(0, 0, 0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.03, Verdict.ABOVE),
        (-0.01, 0.05, Verdict.SAME),
        (0.0, 0.05, Verdict.SAME),
        (-0.05, 0.01, Verdict.SAME),
        (-0.05, -0.01, Verdict.BELOW),
    ],
)
def test_a_difference_is_significant_where_its_interval_leaves_out_0(low: float, high: float, verdict: Verdict) -> None:
    assert Verdict.of(Interval((low + high) / 2, low, high)) is verdict
