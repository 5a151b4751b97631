"""The family of rankers: a blend of the sources' scores, the conditional logit, LambdaMART; and which one serves."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from batch.models.logit import LogitParams, fit_logit, refit
from batch.models.ranker import RankerParams, train_ranker
from batch.models.ranker_columns import is_read, linear_columns, source_scores
from batch.models.ranking_rows import RankingRows, page_gains, starts_of
from batch.models.trained_ranker import TrainedRanker
from shared.errors import ConfigurationError
from shared.features.declaration import Entity
from shared.features.definitions import FEATURES
from shared.ranking.linear_terms import LinearTerms

BLEND: Final = "blend"
LOGIT: Final = "logit"
LAMBDAMART: Final = "lambdamart"
RANKERS: Final = (BLEND, LOGIT, LAMBDAMART)
K: Final = 20


@dataclass(frozen=True, slots=True)
class RankersParams:
    """How the family is trained.

    label_gain: gain of each label from 0, for all of them; start: does LambdaMART begin with the logit's score, or is
    that for held-out users to say; folds: parts of the users for scores that did not see them; exposures: learn from
    pages on record too, their clicks weighed against the positions they had; entities: whose features they may read.
    Where nothing has a time, what tells of users and requests is noise and is best left out.
    """

    logit: LogitParams = field(default_factory=LogitParams)
    lambdamart: RankerParams = field(default_factory=RankerParams)
    label_gain: tuple[float, ...] = (0.0, 1.0, 6.0, 12.0)
    start: Literal["zero", "logit", "held_out"] = "held_out"
    folds: int = 4
    exposures: bool = False
    entities: tuple[Entity, ...] = tuple(Entity)


def fit_rankers(
    training: RankingRows, held_out: RankingRows, params: RankersParams, names: Collection[str] = RANKERS
) -> dict[str, TrainedRanker]:
    """Train those of `names` on rows of the full feature matrix; `held_out` are other users', to stop and choose by.

    Raises ConfigurationError without a positive label on either side.
    """
    if not len(held_out.groups):
        raise ConfigurationError("no user is left to stop the training on; take more history")
    logit, gains = params.logit, params.label_gain
    rankers: dict[str, TrainedRanker] = {}
    if BLEND in names:
        rankers[BLEND] = TrainedRanker(BLEND, fit_logit(training, held_out, source_scores(), logit, gains)[0], None)
    boosted: list[TrainedRanker] = []
    if LAMBDAMART in names and params.start != "logit":
        boosted.append(TrainedRanker(LAMBDAMART, None, _boost(training, held_out, params)))
    if LOGIT in names or (LAMBDAMART in names and params.start != "zero"):
        columns = linear_columns(popularity=logit.popularity, entities=params.entities)
        terms, l2 = fit_logit(training, held_out, columns, logit, gains)
        if LOGIT in names:
            rankers[LOGIT] = TrainedRanker(LOGIT, terms, None)
        if LAMBDAMART in names and params.start != "zero":
            before = out_of_fold(training, terms, params, l2)
            booster = _boost(training, held_out, params, (before, terms.score(held_out.features)))
            boosted.append(TrainedRanker(LAMBDAMART, terms, booster))
    if boosted:
        rankers[LAMBDAMART] = max(boosted, key=lambda one: mean_ndcg(one, held_out, gains))
    return rankers


def choose(rankers: Mapping[str, TrainedRanker], held_out: RankingRows, params: RankersParams) -> str:
    """Which of them serves: the logit, unless another is better on held-out users by more than one standard error.

    Better is NDCG@20 with the labels' gains, paired by page; the one-standard-error rule (Breiman et al., 1984) keeps
    the ranker that needs the least data and time where there is too little of either to tell.
    """
    reference = page_ndcg(rankers[LOGIT].score(held_out.features), held_out, params.label_gain)
    chosen, most = LOGIT, 0.0
    for name, ranker in rankers.items():
        difference = page_ndcg(ranker.score(held_out.features), held_out, params.label_gain) - reference
        error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else np.inf
        if float(difference.mean()) > max(most, error):
            chosen, most = name, float(difference.mean())
    return chosen


def mean_ndcg(ranker: TrainedRanker, rows: RankingRows, label_gain: tuple[float, ...]) -> float:
    """Mean NDCG@20 of a ranker over pages."""
    return float(page_ndcg(ranker.score(rows.features), rows, label_gain).mean())


def page_ndcg(
    scores: NDArray[np.floating], rows: RankingRows, label_gain: tuple[float, ...], k: int = K
) -> NDArray[np.float64]:
    """float64[q]: NDCG@k of each page with the labels' gains; 0 where no row has any. Ties keep the rows' order."""
    gains = page_gains(replace(rows, weights=None), label_gain)
    page = np.repeat(np.arange(len(rows.groups)), rows.groups)
    starts = starts_of(rows.groups)
    place = np.arange(len(gains)) - np.repeat(starts, rows.groups)
    discount = np.where(place < k, 1 / np.log2(place + 2.0), 0.0)
    found = np.add.reduceat(gains[np.lexsort((-np.asarray(scores, np.float64), page))] * discount, starts)
    ideal = np.add.reduceat(gains[np.lexsort((-gains, page))] * discount, starts)
    return np.divide(found, ideal, out=np.zeros_like(found), where=ideal > 0)


def out_of_fold(training: RankingRows, terms: LinearTerms, params: RankersParams, l2: float) -> NDArray[np.float64]:
    """float64[n]: each row's score by a logit that saw none of its user's pages."""
    users = (
        np.arange(len(training.groups)) if training.users is None else np.unique(training.users, return_inverse=True)[1]
    )
    if int(users.max(initial=0)) < 1:
        return terms.score(training.features)
    fold = np.random.default_rng(0).permutation(int(users.max()) + 1)[users] % max(params.folds, 2)
    scores = np.empty(len(training.labels))
    for number in np.unique(fold).tolist():
        left_out = fold == number
        others = refit(training.of_pages(~left_out), terms, params.logit, params.label_gain, l2)
        rows = np.repeat(left_out, training.groups)
        scores[rows] = others.score(training.features[rows])
    return scores


def _boost(
    training: RankingRows,
    held_out: RankingRows,
    params: RankersParams,
    start: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> lgb.Booster:
    popularity = params.lambdamart.popularity
    return train_ranker(
        training,
        held_out,
        params=params.lambdamart,
        label_gain=params.label_gain,
        feature_names=[one.name for one in FEATURES],
        start=start,
        unread=[
            place
            for place, one in enumerate(FEATURES)
            if not is_read(one, popularity=popularity, entities=params.entities)
        ],
    )
