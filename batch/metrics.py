"""Ranking metrics over queries, catalogue coverage, and paired bootstrap intervals by user."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SAMPLES_AT_ONCE: Final = 4_000_000

Metric = NDArray[np.float64]
"""One value a query."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the 2.5% and 97.5% quantiles of its bootstrap distribution."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Places:
    """Where q queries' positives stand: query int64[m] and place float64[m] >= 1 of each that stands anywhere.

    counts int64[q]: how many positives each query has, found or not. A query without any scores 0 by every metric.
    """

    query: NDArray[np.int64]
    place: NDArray[np.float64]
    counts: NDArray[np.int64]

    def recall(self, k: int) -> Metric:
        """The share of a query's positives within the first k places."""
        return np.asarray(self._summed(k, np.ones(len(self.place))) / np.maximum(self.counts, 1))

    def hit_rate(self, k: int) -> Metric:
        """1 where any positive stands within the first k places; of a lone positive the same as recall."""
        return np.asarray(self._summed(k, np.ones(len(self.place))) > 0, dtype=np.float64)

    def ndcg(self, k: int) -> Metric:
        """Binary, gain 1 / log2(place + 1), the ideal with min(k, positives) hits (Järvelin and Kekäläinen 2002)."""
        ideal = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(2, k + 2)))])[np.minimum(self.counts, k)]
        return np.asarray(self._summed(k, 1 / np.log2(self.place + 1)) / np.where(ideal > 0, ideal, 1))

    def mrr(self, k: int) -> Metric:
        """1 / place of the first positive within k places, 0 without one."""
        best = np.full(len(self.counts), np.inf)
        np.minimum.at(best, self.query, self.place)
        return np.asarray(np.where(best <= k, 1 / best, 0))

    def _summed(self, k: int, gains: NDArray[np.float64]) -> Metric:
        near = self.place <= k
        return np.bincount(self.query[near], gains[near], minlength=len(self.counts))


def mid_places(
    ranks: NDArray[np.integer], scores: NDArray[np.floating], wanted: NDArray[np.bool_], counts: NDArray[np.integer]
) -> Places:
    """The places of wanted entries, where equal scores share the mean of their places (mid-rank).

    Ties broken by an item's number would leak what the number knows (raw ids often stand in order of first appearance);
    the mean place is fair and is no draw.

    Args:
        ranks: integers [q, n], 1 for the first; 0 is an entry that is not in the list (masked, or padding).
        scores: what was ranked by, [q, n]; equal scores of one query must have adjoining ranks.
        wanted: bool [q, n], the positives.
        counts: [q] positives of each query, including those that are no entry.
    """
    query, column = np.nonzero(wanted & (ranks > 0))
    rank = ranks[query, column]
    tied = (scores[query] == scores[query, column][:, None]) & (ranks[query] > 0)
    before = (tied & (ranks[query] < rank[:, None])).sum(axis=1)
    place = rank - before + (tied.sum(axis=1) - 1) / 2
    return Places(query, np.asarray(place, dtype=np.float64), np.asarray(counts, dtype=np.int64))


def places_of_hits(hits: NDArray[np.bool_], counts: NDArray[np.integer]) -> Places:
    """The places of a `hits_matrix`, whose lists are in the order they are shown in."""
    query, column = np.nonzero(hits)
    return Places(query, (column + 1).astype(np.float64), np.asarray(counts, dtype=np.int64))


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


def recall_at(hits: NDArray[np.bool_], positive_counts: NDArray[np.integer], k: int) -> Metric:
    """Per query [queries]: `Places.recall` of lists as they are shown."""
    return places_of_hits(hits, positive_counts).recall(k)


def ndcg_at(hits: NDArray[np.bool_], positive_counts: NDArray[np.integer], k: int) -> Metric:
    """Per query [queries]: `Places.ndcg` of lists as they are shown."""
    return places_of_hits(hits, positive_counts).ndcg(k)


def mrr_at(hits: NDArray[np.bool_], k: int) -> Metric:
    """Per query [queries]: `Places.mrr` of lists as they are shown."""
    return places_of_hits(hits, hits.sum(axis=1)).mrr(k)


def catalogue_coverage(ranked: NDArray[np.integer], item_count: int, k: int) -> float:
    """The share of `item_count` items that stand in the first k places of some list [queries, places]."""
    shown = np.unique(ranked[:, :k])
    return float(np.count_nonzero(shown >= 0)) / max(1, item_count)


@dataclass(frozen=True, slots=True)
class Resampled:
    """Means of c columns under the bootstrap, all of the same draws: estimates [c], drawn [samples, c]."""

    estimates: NDArray[np.float64]
    drawn: NDArray[np.float64]

    def mean(self, column: int) -> Interval:
        """The mean of one column."""
        return _interval(float(self.estimates[column]), self.drawn[:, column])

    def difference(self, a: int, b: int) -> Interval:
        """Mean of column a less mean of column b, paired."""
        return _interval(float(self.estimates[a] - self.estimates[b]), self.drawn[:, a] - self.drawn[:, b])

    def ratio(self, a: int, b: int) -> Interval:
        """Mean of column a over mean of column b, paired; infinite where b is 0 throughout, NaN where a is too."""
        with np.errstate(divide="ignore", invalid="ignore"):
            estimate = float(self.estimates[a] / self.estimates[b])
            return _interval(estimate, self.drawn[:, a] / self.drawn[:, b])


def resample(
    columns: NDArray[np.float64], clusters: NDArray[np.integer], *, samples: int = 1000, seed: int = 0
) -> Resampled:
    """Bootstrap the means of columns [n, c] over n queries, whole clusters [n] (users) drawn with replacement.

    Queries of one user depend on each other; drawing queries would make intervals too narrow. Raises ValueError for
    unequal lengths or no query.
    """
    if not len(columns) == len(clusters) > 0:
        raise ValueError(f"{len(columns)} values of {len(clusters)} queries; both must be equal and above 0")
    _, number = np.unique(clusters, return_inverse=True)
    count = int(number.max()) + 1
    sums = np.empty((count, columns.shape[1] + 1))
    for column in range(columns.shape[1]):
        sums[:, column] = np.bincount(number, columns[:, column], count)
    sums[:, -1] = np.bincount(number, minlength=count)
    generator = np.random.default_rng(seed)
    drawn = np.empty((samples, sums.shape[1]))
    chunk = max(1, _SAMPLES_AT_ONCE // count)
    for low in range(0, samples, chunk):
        rows = min(chunk, samples - low)
        picks = generator.integers(0, count, size=(rows, count))
        times = np.bincount((np.arange(rows)[:, None] * count + picks).ravel(), minlength=rows * count)
        drawn[low : low + rows] = times.reshape(rows, count) @ sums
    return Resampled(columns.mean(axis=0), drawn[:, :-1] / drawn[:, -1:])


def bootstrap_ratio(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    clusters: NDArray[np.integer],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """mean(a) / mean(b) over queries [n] and its paired 95% interval by clusters; see `Resampled.ratio`."""
    return resample(_paired(a, b), clusters, samples=samples, seed=seed).ratio(0, 1)


def bootstrap_difference(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    clusters: NDArray[np.integer],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """mean(a) - mean(b) over queries [n] and its paired 95% interval by clusters."""
    return resample(_paired(a, b), clusters, samples=samples, seed=seed).difference(0, 1)


def bootstrap_mean(
    a: NDArray[np.float64], clusters: NDArray[np.integer], *, samples: int = 1000, seed: int = 0
) -> Interval:
    """The mean of a [n] and its 95% interval by clusters."""
    return resample(np.asarray(a)[:, None], clusters, samples=samples, seed=seed).mean(0)


def _paired(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values; both must be of the same queries")
    return np.stack([a, b], axis=1)


def _interval(estimate: float, drawn: NDArray[np.float64]) -> Interval:
    # Sorted values, not interpolation: infinities of a ratio stay infinities.
    low, high = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
    return Interval(estimate, float(low), float(high))
