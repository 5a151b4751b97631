"""Tuning on label queries alone: one source at a time, scored by its own lists, every trial in MLflow.

Searched by the tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) of Optuna, seeded. What a source is
scored on, the rankers do not learn from, as far as there are queries enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Final

import numpy as np
import optuna
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from batch.evaluation.fit import Fittable, lists_of
from batch.evaluation.pages import PageMaker
from batch.evaluation.params import Parameters, replaced, value_of
from batch.evaluation.tuning_spaces import Tunable, spaces
from batch.tracking import Tracking
from shared.candidates.query import REQUEST_KINDS, Query
from shared.candidates.span import SpanModel
from shared.features.definitions import Retrieval
from shared.recommend import default_sources

K: Final = 20
METRIC: Final = "ndcg_20"

_DISCOUNTS: Final = 1 / np.log2(np.arange(2, K + 2))
_IDEAL: Final = np.concatenate([[0.0], np.cumsum(_DISCOUNTS)])


@dataclass(frozen=True, slots=True)
class TuneBudget:
    """`trials` of each source at most, and `minutes` for all sources together at most; 0 or None: no such bound."""

    trials: int | None = None
    minutes: float | None = None


@dataclass(frozen=True, slots=True)
class Journal:
    """Where trials are told: `log` gets a trial's parameters and its score, `say` a line for each source."""

    log: Callable[[dict[str, Any], float], None]
    say: Callable[[str], None]

    @classmethod
    def of(cls, tracking: Tracking) -> Journal:
        """Every trial a run in MLflow, lines to the terminal."""

        def log(params: dict[str, Any], score: float) -> None:
            tracking.start_run(params=params, metrics={METRIC: score})

        return cls(log, print)


@dataclass(frozen=True)
class Bench:
    """What sources are tried on: rows to fit on, and a maker of pages (without retrieval) for the queries scored."""

    fittable: Fittable
    maker: PageMaker
    _prepared: dict[tuple[int, float], list[Query]] = field(default_factory=dict)

    def score(self, source: Retrieval, parameters: Parameters) -> float:
        """Mean NDCG@20 of the source's own lists, fitted with these parameters."""
        kinds = [kind for kind in REQUEST_KINDS if kind.value == source.value]
        span, _ = self.fittable.fit(parameters.retrieval, only={source})
        items = len(self.fittable.products)
        neighbours = {kind: lists_of(span, kind, items, lambda _: None) for kind in kinds}
        model = SpanModel(span.items, neighbours, parameters.sources)
        asked = default_sources(span.items, parameters.sources)[source]
        queries = self.maker.queries
        total = 0.0
        with threadpool_limits(1):
            for place, query in enumerate(self._queries(parameters)):
                known = {kind: model.lookup(kind, query.seeds) for kind in kinds}
                shown = asked.consider(replace(query, neighbours=known)).top(K).indexes
                wanted = queries.positives[queries.positive_starts[place] : queries.positive_starts[place + 1]]
                total += _ndcg(shown, wanted)
        return total / len(queries)

    def _queries(self, parameters: Parameters) -> list[Query]:
        key = parameters.sources.seeds, parameters.sources.session_weight  # what a query depends on
        if key not in self._prepared:
            maker = replace(self.maker, model=replace(self.maker.model, params=parameters.sources))
            self._prepared[key] = [maker.prepared(place).query for place in range(len(maker.queries))]
        return self._prepared[key]


def tune(bench: Bench, parameters: Parameters, budget: TuneBudget, seed: int, journal: Journal) -> Parameters:
    """The parameters with what did best for each source in turn.

    A source's values of now are its first trial, so nothing gets worse on the queries it is scored on.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ends_at = None if budget.minutes is None else perf_counter() + 60 * budget.minutes
    searched = spaces(parameters)
    for place, (source, space) in enumerate(searched.items()):
        started = perf_counter()
        share = None if ends_at is None else max(ends_at - started, 0.0) / (len(searched) - place)
        before = bench.score(source, parameters)
        if before == 0:
            journal.say(f"{source}: says nothing on this data; not tuned")
            continue
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        study.enqueue_trial({one.name: value_of(parameters, one.name) for one in space}, skip_if_exists=True)
        study.optimize(_objective(bench, source, space, parameters, journal), n_trials=budget.trials, timeout=share)
        if study.best_value > before:
            parameters = replaced(parameters, study.best_params)
        seconds = perf_counter() - started
        journal.say(
            f"{source}: NDCG@20 {before:.4f} -> {study.best_value:.4f} in {len(study.trials)} trials, {seconds:.0f} s"
        )
    return parameters


def _objective(
    bench: Bench, source: Retrieval, space: Sequence[Tunable], parameters: Parameters, journal: Journal
) -> Callable[[optuna.Trial], float]:
    def score(trial: optuna.Trial) -> float:
        values = {one.name: _drawn(trial, one, value_of(parameters, one.name)) for one in space}
        found = bench.score(source, replaced(parameters, values))
        journal.log({"source": source.value, "trial": trial.number, **values}, found)
        return found

    return score


def _drawn(trial: optuna.Trial, tunable: Tunable, current: float) -> float:
    """A value within the bounds, which the value of now widens where it lies outside."""
    low, high = min(tunable.low, current), max(tunable.high, current)
    if isinstance(current, int):
        return trial.suggest_int(tunable.name, int(low), int(high), log=tunable.log)
    return trial.suggest_float(tunable.name, low, high, log=tunable.log)


def _ndcg(shown: NDArray[np.int32], wanted: NDArray[np.int32]) -> float:
    """Binary NDCG@20 of one list of distinct items."""
    ideal = _IDEAL[min(len(np.unique(wanted)), K)]
    return float(_DISCOUNTS[: len(shown)][np.isin(shown, wanted)].sum() / ideal)
