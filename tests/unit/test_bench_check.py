"""The benchmark's verdict: what counts as a regression, and that the committed expectation can be read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.benchmarks.check import EXPECTED, regressions
from tests.benchmarks.serving import TooFewCandidates, measure

SLOW = {"ratio": {"p50": 10.0, "p99": 4.0, "event": 20.0}, "recommend_ms": {"p50": 6.0, "p99": 20.0}}


def expected(**ratio: float) -> dict[str, Any]:
    return {
        "ratio": {"p50": 8.0, "p99": 8.0, "event": 16.0} | ratio,
        "tolerance": {"p50": 0.5, "p99": 0.5, "event": 0.5},
        "recommend_ms_below": {"p99": 50},
    }


def test_within_tolerance_is_no_regression() -> None:
    assert regressions(SLOW, expected()) == []


def test_beyond_tolerance_and_beyond_the_bar_are_named() -> None:
    (worse,) = regressions(SLOW, expected(p50=6.0))
    assert worse.startswith("p50 takes 10.00 times")
    (heavy,) = regressions(SLOW, expected(event=13.0))
    assert heavy.startswith("event takes 20.00 times decoding")
    (late,) = regressions(SLOW | {"recommend_ms": {"p99": 50.0}}, expected())
    assert "50.0 ms" in late


def test_what_is_committed_names_all_that_is_compared() -> None:
    committed = json.loads(EXPECTED.read_text(encoding="utf-8"))
    assert set(committed["ratio"]) == set(committed["tolerance"]) == {"p50", "p99", "event"}
    assert committed["recommend_ms_below"] == {"p99": 50}


class Answering:
    """Stands in for a server: the benchmark's own arithmetic is what is tested."""

    def __init__(self, candidates: int) -> None:
        self.candidates = candidates
        self.took_ms: dict[str, list[float]] = {}

    def get(self, endpoint: str, _identifier: str) -> dict[str, int]:
        self.took_ms.setdefault(endpoint, []).append(2.0 if endpoint == "recommend" else 0.5)
        return {"candidates": self.candidates}


def test_the_measurement_counts_every_page_and_divides() -> None:
    report = measure(Answering(240), Answering(0), ["u1", "u2"], 120)  # type: ignore[arg-type]  # see Answering
    assert report["requests"] == 120
    assert report["fewest_candidates"] == 240
    assert report["ratio"] == {"p50": 4.0, "p99": 4.0}


def test_a_page_from_too_few_candidates_ends_it() -> None:
    with pytest.raises(TooFewCandidates, match="199"):
        measure(Answering(199), Answering(0), ["u1"], 10)  # type: ignore[arg-type]  # see Answering
