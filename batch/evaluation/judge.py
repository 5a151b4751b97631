"""The judge: from label pages and test pages to every row of the report. It knows nothing of where pages come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batch.evaluation.ablation import AblationParams, ablate
from batch.evaluation.calibrated import measure_calibration
from batch.evaluation.candidates_measured import MERGED, measure_candidates
from batch.evaluation.compared import Compared
from batch.evaluation.cost import Meter
from batch.evaluation.label_rows import label_rows
from batch.evaluation.lists_measured import ItemFacts, measure_lists
from batch.evaluation.page_view import View
from batch.evaluation.rankings import Ranking, Score, rank_by, rank_lists, rank_sources
from batch.evaluation.report import METRICS, SEGMENT_METRICS, About, Comparison, Kind, Method, Part, Report, Segment
from batch.evaluation.segments import NEW_TO_USER, query_segments
from batch.evaluation.serving_cost import page_of_candidates, serving_cost
from batch.models.rankers import RankersParams, choose, fit_rankers
from batch.models.trained_ranker import TrainedRanker
from batch.train_ranker import held_out_users
from shared.errors import ConfigurationError
from shared.features.definitions import Retrieval
from shared.features.vector import SCHEMA
from shared.ranking.page_table import PageTable
from shared.ranking.scorer import OnnxScorer

PERSONAL_FREQUENCY = "personal_frequency"


@dataclass(frozen=True, slots=True)
class JudgeParams:
    """How it is judged: by a metric of `SEGMENT_METRICS`, with the diversity rule as it serves (0: off), the rankers
    trained so, at most so many queries for the ablation (0: none), the bootstrap's draws, and the seed of all draws.
    """

    metric: str = "ndcg@20"
    max_per_category: int = 0
    rankers: RankersParams = field(default_factory=RankersParams)
    ablation_label_queries: int = 4_000
    ablation_negatives: int = 60
    ablation_test_queries: int = 4_000
    samples: int = 1_000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Peer:
    """Another method's lists, int32[q, places] item indexes of the test queries in order, -1 pads.

    `unseen` are its lists without what the user had touched, where it made such.
    """

    name: str
    lists: NDArray[np.int32]
    unseen: NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True)
class _Court:
    """What all comparisons share."""

    pages: View
    unseen: View
    sources: list[Retrieval]
    scorers: Mapping[str, Score]
    serves: str
    peers: Sequence[Peer]
    params: JudgeParams

    def rankings(self) -> dict[str, Ranking]:
        """Of all methods, over all queries."""
        found = rank_sources(self.pages, self.sources)
        if (self.pages.pages.frequent >= 0).any():
            found[PERSONAL_FREQUENCY] = rank_lists(self.pages, self.pages.pages.frequent)
        found |= {peer.name: rank_lists(self.pages, peer.lists) for peer in self.peers}
        return found | rank_by(self.pages, self.scorers, self.params.max_per_category)

    def rankings_unseen(self) -> dict[str, Ranking]:
        """The same without what users had touched; nothing is left of personal frequency."""
        found = rank_sources(self.unseen, self.sources)
        found |= {peer.name: rank_lists(self.unseen, peer.unseen) for peer in self.peers if peer.unseen is not None}
        return found | rank_by(self.unseen, self.scorers, self.params.max_per_category)

    def methods(self, rankings: Mapping[str, Ranking], items: ItemFacts) -> tuple[list[Method], str]:
        """A row of each, and the best source."""
        compared = self._compared(rankings, METRICS, np.ones(len(self.pages.chosen), dtype=np.bool_))
        best = compared.best(map(str, self.sources), self.params.metric)

        def against(name: str, other: str) -> Comparison | None:
            return None if name == other else compared.against(name, other, self.params.metric)

        rows = [
            Method(
                name=name,
                kind=self._kind(name),
                metrics=compared.metrics_of(name),
                against_best=against(name, best),
                serving_against=against(self.serves, name),
                lists=measure_lists(ranking.lists, items),
            )
            for name, ranking in rankings.items()
        ]
        return rows, best

    def segment(self, name: str, meaning: str, rankings: Mapping[str, Ranking], chosen: NDArray[np.bool_]) -> Segment:
        """Some of the queries apart."""
        compared = self._compared(rankings, SEGMENT_METRICS, chosen)
        metric = self.params.metric
        return Segment(
            name,
            meaning,
            int(chosen.sum()),
            compared.best(map(str, self.sources), metric),
            {method: compared.metrics_of(method) for method in rankings},
            {other: compared.against(self.serves, other, metric) for other in rankings if other != self.serves},
        )

    def new_to_user(self) -> list[Segment]:
        """Positives that users had not touched, in lists without what they had: where there are both kinds."""
        asked = self.unseen.counts > 0
        if not asked.any() or not np.asarray(self.pages.pages.touched).any():
            return []
        meaning = "only what the user had not acted on before is listed and counts"
        return [self.segment(NEW_TO_USER, meaning, self.rankings_unseen(), asked)]

    def _compared(self, rankings: Mapping[str, Ranking], metrics: Sequence[str], chosen: NDArray[np.bool_]) -> Compared:
        users, params = self.pages.users, self.params
        return Compared.over(rankings, metrics, users, chosen, samples=params.samples, seed=params.seed)

    def _kind(self, name: str) -> Kind:
        if name in self.scorers:
            return Kind.RANKER
        if name == PERSONAL_FREQUENCY:
            return Kind.BASELINE
        return Kind.SOURCE if name in set(map(str, self.sources)) else Kind.PEER


def judge(
    label: PageTable,
    test: PageTable,
    items: ItemFacts,
    params: JudgeParams,
    *,
    about: About,
    parts: Sequence[Part] = (),
    peers: Sequence[Peer] = (),
    say: Callable[[str], None] = print,
) -> Report:
    """Train the rankers on label pages and measure them, every source and every peer on test pages.

    Both tables may be memory-mapped and larger than memory is; label rows that teach an order are read whole. `parts`
    are what the pages took, `say` is told what begins.

    Raises:
        ConfigurationError: no source carries anything, the label pages hold nothing to learn from, or facts or peers
            are of other items or queries.
        SchemaMismatch: the pages were made under other features.
    """
    _check(test, items, peers)
    meter = Meter(list(parts))
    learned, judged = View.whole(label), View.whole(test)
    say(f"rankers: {len(label.length):,} label pages, {len(label.label):,} rows")
    with meter.part("rankers trained"):
        rankers, serves = _trained(learned, params.rankers)
    with meter.part("rankers exported and timed"):
        models = {name: ranker.to_onnx() for name, ranker in rankers.items()}
        page = page_of_candidates(judged)
        costs = [serving_cost(name, model, page) for name, model in models.items()]
    say(f"{serves} serves; ranking {len(test.length):,} test pages, {len(test.label):,} rows")
    with meter.part("test pages ranked and measured"):
        candidates = measure_candidates(judged)
        sources = [Retrieval(row.name) for row in candidates if row.name != MERGED]
        if not sources:
            raise ConfigurationError("no source carries a candidate on any test page; look at what they were fitted on")
        scorers: dict[str, Score] = {name: OnnxScorer(model).score for name, model in models.items()}
        court = _Court(judged, replace(judged, unseen=True), sources, scorers, serves, peers, params)
        rankings = court.rankings()
        methods, best = court.methods(rankings, items)
    with meter.part("segments measured"):
        segments = [court.segment(one.name, one.meaning, rankings, one.chosen) for one in query_segments(test)]
        segments += court.new_to_user()
    with meter.part("calibration measured"):
        unlearned = replace(learned, chosen=learned.chosen[held_out_users(learned.users)])
        calibration = measure_calibration(unlearned, judged, scorers[serves])
    ablation = None
    if params.ablation_label_queries and params.ablation_test_queries:
        with meter.part("ablation"):
            ablation = ablate(learned, judged, _ablation_params(params, rankers[serves]), say)
    return Report(
        about=about,
        schema=SCHEMA.digest,
        metric=params.metric,
        queries=len(judged.chosen),
        users=len(np.unique(judged.users)),
        label_queries=len(learned.chosen),
        serves=serves,
        best_source=best,
        methods=methods,
        candidate_recall=candidates,
        segments=segments,
        ablation=ablation,
        serving_cost=costs,
        calibration=calibration,
        parts=meter.parts,
    )


def _check(test: PageTable, items: ItemFacts, peers: Sequence[Peer]) -> None:
    known = min(len(items.popularity), len(items.category), len(items.new))
    most = max(int(test.index.max(initial=-1)), *(int(peer.lists.max(initial=-1)) for peer in peers), -1)
    if most >= known:
        raise ConfigurationError(f"there are facts of {known} items, and lists name item {most}")
    for peer in peers:
        if not len(peer.lists) == len(peer.lists if peer.unseen is None else peer.unseen) == len(test.length):
            raise ConfigurationError(f"{peer.name} has {len(peer.lists)} lists for {len(test.length)} test queries")


def _trained(view: View, params: RankersParams) -> tuple[dict[str, TrainedRanker], str]:
    """All rankers, and the name of the one that is best on users it did not learn from."""
    held_out = held_out_users(view.users)
    training = label_rows(replace(view, chosen=view.chosen[~held_out]))
    stopping = label_rows(replace(view, chosen=view.chosen[held_out]))
    rankers = fit_rankers(training, stopping, params)
    return rankers, choose(rankers, stopping, params)


def _ablation_params(params: JudgeParams, serves: TrainedRanker) -> AblationParams:
    # What it began with was chosen on all label pages; the ablation's sample is not to choose otherwise.
    start: Literal["zero", "logit"] = "zero" if serves.terms is None else "logit"
    return AblationParams(
        label_queries=params.ablation_label_queries,
        negatives=params.ablation_negatives,
        test_queries=params.ablation_test_queries,
        ranker=serves.name,
        rankers=replace(params.rankers, start=start),
        max_per_category=params.max_per_category,
        metric=params.metric,
        samples=params.samples,
        seed=params.seed,
    )
