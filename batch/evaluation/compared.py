"""Rankings of the same queries as metrics with intervals, and each against another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from batch.evaluation.rankings import Ranking
from batch.evaluation.report import Comparison, Verdict
from batch.metrics import Interval, Metric, Places, Resampled, resample

_FORMULAS: Final[Mapping[str, Callable[[Places, int], Metric]]] = {
    "ndcg": Places.ndcg,
    "recall": Places.recall,
    "hit_rate": Places.hit_rate,
    "mrr": Places.mrr,
}


def metric_of(places: Places, metric: str) -> Metric:
    """A value a query of a metric by its name, such as ndcg@20."""
    name, _, k = metric.partition("@")
    return _FORMULAS[name](places, int(k))


@dataclass(frozen=True, slots=True)
class Compared:
    """Methods by metrics over the same queries, all intervals from the same draws of users."""

    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    resampled: Resampled

    @classmethod
    def over(
        cls,
        rankings: Mapping[str, Ranking],
        metrics: Sequence[str],
        users: NDArray[np.integer],
        chosen: NDArray[np.bool_],
        *,
        samples: int,
        seed: int,
    ) -> Self:
        """Of the chosen queries (bool[q], at least one) of rankings of q queries of `users`."""
        columns = np.empty((int(chosen.sum()), len(rankings) * len(metrics)))
        for row, ranking in enumerate(rankings.values()):
            for column, metric in enumerate(metrics):
                columns[:, row * len(metrics) + column] = metric_of(ranking.places, metric)[chosen]
        return cls(tuple(rankings), tuple(metrics), resample(columns, users[chosen], samples=samples, seed=seed))

    def metrics_of(self, method: str) -> dict[str, Interval]:
        """All metrics of a method."""
        return {metric: self.resampled.mean(self._column(method, metric)) for metric in self.metrics}

    def against(self, method: str, other: str, metric: str) -> Comparison:
        """A method against another."""
        a, b = self._column(method, metric), self._column(other, metric)
        difference, ratio = self.resampled.difference(a, b), self.resampled.ratio(a, b)
        finite = np.isfinite([ratio.estimate, ratio.low, ratio.high]).all()
        return Comparison(other, difference, ratio if finite else None, Verdict.of(difference))

    def best(self, methods: Iterable[str], metric: str) -> str:
        """The method with the highest estimate; of equals the first."""
        return max(methods, key=lambda name: float(self.resampled.estimates[self._column(name, metric)]))

    def _column(self, method: str, metric: str) -> int:
        return self.methods.index(method) * len(self.metrics) + self.metrics.index(metric)
