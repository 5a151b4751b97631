"""Ranking metrics over queries, catalogue coverage, and paired bootstrap intervals by user."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SAMPLES_AT_ONCE: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the 2.5% and 97.5% quantiles of its bootstrap distribution."""

    estimate: float
    low: float
    high: float


def hits_matrix(ranked: NDArray[np.integer], positives: Sequence[Collection[int]]) -> NDArray[np.bool_]:
    """Which places hold a positive: bool [queries, places] of ranked item indexes [queries, places], padded with -1.

    Every list must name an item at most once; positives are one collection of item indexes >= 0 a query.
    """
    sizes = np.array([len(set(each)) for each in positives], dtype=np.int64)
    if len(sizes) != len(ranked):
        raise ValueError(f"{len(ranked)} ranked lists and {len(sizes)} sets of positives")
    wanted = np.fromiter((item for each in positives for item in set(each)), dtype=np.int64, count=int(sizes.sum()))
    width = 1 + max(int(ranked.max(initial=-1)), int(wanted.max(initial=-1)))
    keys = np.repeat(np.arange(len(sizes)), sizes) * width + wanted
    found = np.isin(np.arange(len(ranked))[:, None] * width + ranked, keys)
    return np.asarray(found & (ranked >= 0))


def recall_at(hits: NDArray[np.bool_], positive_counts: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """Per query [queries]: the share of its positives that stand in the first k places; 0 for a query without any."""
    found = hits[:, :k].sum(axis=1)
    return np.asarray(found / np.maximum(positive_counts, 1), dtype=np.float64)


def ndcg_at(hits: NDArray[np.bool_], positive_counts: NDArray[np.integer], k: int) -> NDArray[np.float64]:
    """Per query [queries]: binary NDCG, gain 1 / log2(place + 1), the ideal with min(k, positives) hits (Järvelin and
    Kekäläinen 2002); 0 for a query without positives.
    """
    gains = 1 / np.log2(np.arange(2, k + 2))
    found = hits[:, :k] @ gains[: hits[:, :k].shape[1]]
    ideal = np.concatenate([[0], np.cumsum(gains)])[np.minimum(positive_counts, k)]
    return np.asarray(found / np.where(ideal > 0, ideal, 1), dtype=np.float64)


def mrr_at(hits: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """Per query [queries]: 1 / place of the first hit within k places, 0 without one."""
    within = hits[:, :k]
    if within.shape[1] == 0:
        return np.zeros(len(hits))
    return np.asarray(np.where(within.any(axis=1), 1 / (within.argmax(axis=1) + 1), 0), dtype=np.float64)


def catalogue_coverage(ranked: NDArray[np.integer], item_count: int, k: int) -> float:
    """The share of `item_count` items that stand in the first k places of some list [queries, places]."""
    shown = np.unique(ranked[:, :k])
    return float(np.count_nonzero(shown >= 0)) / max(1, item_count)


def bootstrap_ratio(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    clusters: NDArray[np.integer],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """mean(a) / mean(b) over queries [n] and its paired 95% interval, whole clusters (users) drawn with replacement.

    Queries of one user depend on each other; drawing queries would make the interval too narrow. Infinite where b is 0
    throughout, NaN where a is too. Raises ValueError for unequal lengths.
    """
    sums_a, sums_b, _ = _resample(a, b, clusters, samples, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _interval(float(np.sum(a) / np.sum(b)), sums_a / sums_b)


def bootstrap_mean(
    a: NDArray[np.float64], clusters: NDArray[np.integer], *, samples: int = 1000, seed: int = 0
) -> Interval:
    """The mean of a [n] and its 95% interval by clusters."""
    sums, _, sizes = _resample(a, a, clusters, samples, seed)
    return _interval(float(np.mean(a)), sums / sizes)


def _interval(estimate: float, drawn: NDArray[np.float64]) -> Interval:
    # Sorted values, not interpolation: infinities of a ratio stay infinities.
    low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
    return Interval(estimate, float(low), float(high))


def _resample(
    a: NDArray[np.float64], b: NDArray[np.float64], clusters: NDArray[np.integer], samples: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Sums of a, sums of b and numbers of queries, each [samples], of as many clusters drawn with replacement."""
    if not len(a) == len(b) == len(clusters) > 0:
        raise ValueError(f"{len(a)} and {len(b)} values of {len(clusters)} queries; all must be equal and above 0")
    _, number = np.unique(clusters, return_inverse=True)
    count = int(number.max()) + 1
    per_cluster = np.stack([np.bincount(number, weights, count) for weights in (a, b, np.ones(len(a)))], axis=1)
    generator = np.random.default_rng(seed)
    drawn = np.empty((samples, 3))
    chunk = max(1, _SAMPLES_AT_ONCE // count)
    for low in range(0, samples, chunk):
        rows = min(chunk, samples - low)
        picks = generator.integers(0, count, size=(rows, count))
        times = np.bincount((np.arange(rows)[:, None] * count + picks).ravel(), minlength=rows * count)
        drawn[low : low + rows] = times.reshape(rows, count) @ per_cluster
    return drawn[:, 0], drawn[:, 1], drawn[:, 2]
