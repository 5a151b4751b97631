"""What each source and each feature group adds: taken away, the ranker trained anew, and the loss paired by query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from batch.evaluation.candidates_measured import measure_candidates
from batch.evaluation.compared import metric_of
from batch.evaluation.label_rows import label_rows
from batch.evaluation.page_view import View, Without
from batch.evaluation.rankings import Score, rank_by
from batch.evaluation.report import Ablation, AblationRow, Verdict
from batch.metrics import Metric, bootstrap_difference
from batch.models.rankers import RankersParams, fit_rankers
from batch.train_ranker import held_out_users
from shared.errors import ConfigurationError
from shared.features.declaration import Entity
from shared.features.definitions import Retrieval
from shared.features.vector import Matrix


@dataclass(frozen=True, slots=True)
class AblationParams:
    """At most so many queries to learn on, with so many negatives each, and to judge on; what the ranker is, and how
    its pages are shown; the metric that loses; the bootstrap's draws.
    """

    label_queries: int
    negatives: int
    test_queries: int
    ranker: str
    rankers: RankersParams
    max_per_category: int
    metric: str
    samples: int
    seed: int


def ablate(label: View, test: View, params: AblationParams, say: Callable[[str], None]) -> Ablation:
    """Leave out each source that carries anything, and each group of features, one at a time.

    The whole is trained on the same sample of label queries as what is left of it, so a loss is that of the source or
    group and not that of less to learn from. Feature groups keep all candidates.
    """
    label = _sampled(label, params.label_queries, params.seed)
    test = _sampled(test, params.test_queries, params.seed + 1)
    whole = _quality(label, test, params)
    recall = _recall(test)
    cases = [Without.of_source(source) for source in _carrying(test)] + [Without.of_group(entity) for entity in Entity]
    rows = []
    for number, without in enumerate(cases, start=1):
        say(f"ablation {number} of {len(cases)}: without {without.kind} {without.name}")
        left = replace(test, without=without)
        reduced = _quality(replace(label, without=without), left, params)
        loss = bootstrap_difference(whole, reduced, test.users, samples=params.samples, seed=params.seed)
        without_recall = recall if without.source is None else _recall(left)
        metric = float(reduced.mean())
        rows.append(AblationRow(without.kind, without.name, metric, loss, Verdict.of(loss), without_recall))
    rows.sort(key=lambda row: (row.kind, -row.loss.estimate))
    return Ablation(params.ranker, len(label.chosen), len(test.chosen), float(whole.mean()), recall, rows)


def _quality(label: View, test: View, params: AblationParams) -> Metric:
    """The metric of each test query, by the ranker trained on these label queries."""
    held_out = held_out_users(label.users)
    training = label_rows(replace(label, chosen=label.chosen[~held_out]), params.negatives, params.seed)
    stopping = label_rows(replace(label, chosen=label.chosen[held_out]), params.negatives, params.seed)
    try:
        score: Score = fit_rankers(training, stopping, params.rankers, names=(params.ranker,))[params.ranker].score
    except ConfigurationError:  # nothing varies, or nothing is to be found: no order is better than another
        score = _no_order
    del training, stopping
    ranking = rank_by(test, {params.ranker: score}, params.max_per_category)[params.ranker]
    return metric_of(ranking.places, params.metric)


def _no_order(features: Matrix) -> NDArray[np.float32]:
    return np.zeros(len(features), dtype=np.float32)


def _sampled(view: View, at_most: int, seed: int) -> View:
    if len(view.chosen) <= at_most:
        return view
    drawn = np.random.default_rng(seed).choice(len(view.chosen), size=at_most, replace=False)
    return replace(view, chosen=view.chosen[np.sort(drawn)])


def _carrying(view: View) -> list[Retrieval]:
    carried: NDArray[np.bool_] = np.zeros(len(Retrieval), dtype=np.bool_)
    for block in view.blocks():
        carried |= block.ranks.any(axis=0)
    return [source for source, said in zip(Retrieval, carried.tolist(), strict=True) if said]


def _recall(view: View) -> float:
    return measure_candidates(view)[-1].all
