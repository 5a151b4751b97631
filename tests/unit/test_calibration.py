"""Calibrated probabilities are those of the world that made the hits, also where negatives were drawn."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from batch.models.calibration import MOST_KNOTS, calibrate, drawn_weights
from shared.errors import ConfigurationError, CorruptRecord
from shared.ranking.calibration import Calibration

PAGES, LENGTH = 2000, 40


def truth(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.3 / (1 + np.exp(2 - 2 * scores))


def world(seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=PAGES * LENGTH)
    return scores, rng.random(len(scores)) < truth(scores)


def test_probabilities_are_those_that_made_the_hits() -> None:
    scores, hit = world(1)
    table = calibrate(scores, hit)
    fresh, fresh_hit = world(2)
    said = table.probability(fresh)
    asked = np.linspace(-2, 2, 9)
    np.testing.assert_allclose(table.probability(asked), truth(asked), atol=0.03)
    assert said.mean() == pytest.approx(fresh_hit.mean(), rel=0.05)
    for low in (0.02, 0.05, 0.1, 0.2):
        among = (said >= low) & (said < 1.5 * low)
        assert fresh_hit[among].mean() == pytest.approx(said[among].mean(), rel=0.15)


def test_what_was_drawn_from_is_weighed_back() -> None:
    scores, hit = world(3)
    rng = np.random.default_rng(4)
    kept = hit | (rng.random(len(hit)) < 0.25)
    length = kept.reshape(PAGES, LENGTH).sum(axis=1)
    assert length.min() > 0
    weights = drawn_weights(hit[kept], length, np.full(PAGES, LENGTH))
    assert weights.sum() == pytest.approx(PAGES * LENGTH)
    assert np.all(weights[hit[kept]] == 1)
    asked = np.linspace(-1, 2, 7)
    found = calibrate(scores[kept], hit[kept], weights).probability(asked)
    np.testing.assert_allclose(found, truth(asked), atol=0.03)
    unweighted = calibrate(scores[kept], hit[kept]).probability(asked)
    assert np.all(unweighted > 1.3 * truth(asked)), "without weights a draw of one in four overstates"


def test_the_table_is_small_never_falls_and_survives_as_json() -> None:
    table = calibrate(*world(5))
    assert 10 < len(table.thresholds) <= MOST_KNOTS
    again = Calibration.decode(table.encode())
    scores = np.linspace(-9, 9, 500).astype(np.float32)
    np.testing.assert_array_equal(again.probability(scores), table.probability(scores))
    assert np.all(np.diff(table.probability(scores)) >= 0)
    assert 0 <= table.probability(scores)[0] <= table.probability(scores)[-1] <= 1


def test_one_row_and_one_class_are_enough() -> None:
    assert calibrate(np.array([0.5]), np.array([True])).probability(np.array([-3.0, 3.0])).tolist() == [1, 1]
    assert calibrate(np.arange(3.0), np.zeros(3, np.bool_)).probability(np.array([1.0])).tolist() == [0]
    with pytest.raises(ConfigurationError, match="cannot be calibrated"):
        calibrate(np.empty(0), np.empty(0, np.bool_))
    with pytest.raises(ConfigurationError, match="2 scores and 1 hits"):
        calibrate(np.arange(2.0), np.ones(1, np.bool_))


@pytest.mark.parametrize(
    "table",
    [
        {"thresholds": [0, 1], "values": [0.5, 0.4]},
        {"thresholds": [1, 0], "values": [0.4, 0.5]},
        {"thresholds": [0, 1], "values": [0.5]},
        {"thresholds": [], "values": []},
        {"thresholds": [0.0], "values": [1.5]},
        {"thresholds": [0.0]},
    ],
)
def test_no_table_is_refused(table: dict[str, list[float]]) -> None:
    with pytest.raises(CorruptRecord):
        Calibration.decode(msgspec.json.encode(table))
