"""Candidates -> features -> rank -> rules: the request path as one readable function, used by training as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from shared.candidates.als import AlsSource, ItemFactors
from shared.candidates.arrivals import ArrivalsSource
from shared.candidates.attributes import AttributesSource
from shared.candidates.cooccurrence import CooccurrenceSource
from shared.candidates.favourites import favourite_taste
from shared.candidates.merge import CandidateSet, merge
from shared.candidates.opinion import Opinion
from shared.candidates.params import DEFAULT, SourceParams
from shared.candidates.popular import PopularSource
from shared.candidates.query import CandidateSource, ListKind, Neighbours, Query, history_of
from shared.candidates.ranked import Indexes
from shared.candidates.repeat import RepeatSource
from shared.candidates.transitions import TransitionsSource
from shared.candidates.trends import Trends
from shared.events import ItemId, id_hash
from shared.features.definitions import LISTS, Retrieval
from shared.features.items import ItemTable
from shared.features.shard import Shopper
from shared.features.vector import Matrix, assemble
from shared.features.views import PairView, RequestView, RetrievalBlock, Rows, UserView, user_lists
from shared.ranking.exploration import explore
from shared.ranking.rules import Eligibility, diversify, eligibility


class Scorer(Protocol):
    """A ranker: float32[n, F] features to float32[n] scores, higher is better."""

    def score(self, features: Matrix) -> NDArray[np.float32]:
        """Raises SchemaMismatch when F is not what it was trained on."""
        ...


@dataclass(frozen=True)
class Model:
    """What a release brings to a page: its sources, its ranker and the shop's settings."""

    release_id: str
    sources: Mapping[Retrieval, CandidateSource]
    scorer: Scorer
    time_zone: ZoneInfo
    bought_window_days: int
    params: SourceParams = DEFAULT


@dataclass(frozen=True)
class Shelf:
    """A release's items as they stand now: int64[n_items] table rows, back again (-1: not here), what is popular.

    Indexes below `released` are the release's own and mean the same for its lifetime. Those from there on are young
    items, described since the release was built: they hold for this shelf alone, and no factor or list knows them.
    """

    table: ItemTable
    rows: Rows
    index_of_row: NDArray[np.int32]
    trends: Trends
    version: int
    released: int

    @classmethod
    def of(cls, table: ItemTable, rows: Rows, *, with_young: bool = False) -> Shelf:
        """Take stock of a release's rows; to be made anew when the table's version moves."""
        index_of_row = np.full(len(table), -1, np.int32)
        index_of_row[rows] = np.arange(len(rows), dtype=np.int32)
        released = len(rows)
        if with_young:
            young = np.flatnonzero((index_of_row < 0) & table.described[: len(table)])
            if len(young):
                index_of_row[young] = np.arange(released, released + len(young), dtype=np.int32)
                rows = np.concatenate([rows, young])
        return cls(table, rows, index_of_row, Trends.of(table, rows), table.version, released)


@dataclass(frozen=True)
class PageRequest:
    """What is asked: `as_of` in epoch ms, taken after the state was read; items by table row.

    `device` and `surface` say where from, in the shop's words; None where it does not say.
    """

    as_of: int
    limit: int = 20
    category: str | None = None
    context_row: int | None = None
    excluded_rows: frozenset[int] = frozenset()
    exploration: float = 0.0
    recommendation_id: str = ""
    device: str | None = None
    surface: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A query without its neighbour lists: the caller fetches those of `seeds` and goes on with `retrieve`."""

    user: UserView
    query: Query
    rules: Eligibility
    request: PageRequest

    @property
    def seeds(self) -> Indexes:
        """int32[m] item indexes whose neighbour lists are wanted."""
        return self.query.seeds


@dataclass(frozen=True)
class Page:
    """The answer: positions into the candidate set, best first, with the matrix the ranker read."""

    candidates: CandidateSet
    features: Matrix
    scores: NDArray[np.float32]
    positions: NDArray[np.int64]
    propensities: NDArray[np.float64]
    explored_slot: int | None
    removed: dict[str, int]

    @property
    def indexes(self) -> Indexes:
        """int32[length] item indexes shown."""
        return self.candidates.indexes[self.positions]


def default_sources(factors: ItemFactors, params: SourceParams = DEFAULT) -> dict[Retrieval, CandidateSource]:
    """Every source that serves, by name."""
    sources: tuple[CandidateSource, ...] = (
        AlsSource(factors, params.als_decay, params.als_history),
        CooccurrenceSource(params.cooccurrence_decay),
        TransitionsSource(params.transitions_decay),
        AttributesSource(params.attributes_decay),
        RepeatSource(params.repeat),
        PopularSource(params.popular),
        ArrivalsSource(),
    )
    return {source.name: source for source in sources}


def als_source(model: Model) -> AlsSource:
    """The source of item factors, which also makes and reads the night's records."""
    source = model.sources[Retrieval.ALS]
    assert isinstance(source, AlsSource)
    return source


def prepare(shelf: Shelf, model: Model, shopper: Shopper, request: PageRequest) -> Prepared:
    """Resolve the shopper's state against the shelf and decide what may be shown and which lists are wanted."""
    table = shelf.table
    user = UserView(shopper.state, request.as_of, user_lists(shopper.state, table.row_of, LISTS), model.time_zone)
    history = history_of(user, shelf.index_of_row)
    own = () if request.context_row is None else (request.context_row,)
    rules = eligibility(
        table,
        shelf.rows,
        user,
        excluded=request.excluded_rows.union(own),
        category=request.category,
        bought_window_days=model.bought_window_days,
        preferences=shopper.preferences,
    )
    params = model.params
    seeds = history.indexes[: params.seeds]
    in_session = history.at[: params.seeds] >= user.session_began_at
    strength = history.weights[: params.seeds] * np.where(in_session, params.session_weight, 1)
    age = np.arange(len(seeds))
    context = -1
    if request.context_row is not None and request.context_row < len(shelf.index_of_row):
        context = int(shelf.index_of_row[request.context_row])
        if context >= 0:
            others = seeds != context
            seeds = np.concatenate([[context], seeds[others]]).astype(np.int32)
            strength = np.concatenate([[params.context_weight], strength[others]])
            age = np.concatenate([[0], age[others]])
    named = () if shopper.preferences is None else shopper.preferences.favourite_categories
    favourites = favourite_taste(table, shelf.rows, named)
    query = Query(user, history, seeds, strength, age, {}, shelf.trends, user.as_of, rules.allowed, context, favourites)
    return Prepared(user, query, rules, request)


def retrieve(
    prepared: Prepared,
    model: Model,
    neighbours: Mapping[ListKind, Neighbours],
    nightly: Mapping[Retrieval, Opinion] | None = None,
) -> CandidateSet:
    """Ask every source and unite; `nightly` opinions that still hold stand in for their sources."""
    query = replace(prepared.query, neighbours=neighbours)
    known = nightly or {}
    opinions = {
        name: known[name] if name in known else source.consider(query) for name, source in model.sources.items()
    }
    return merge(opinions, query, model.params)


def vectorize(shelf: Shelf, model: Model, prepared: Prepared, candidates: CandidateSet) -> Matrix:
    """float32[n, F] for the candidates, through the one feature definition."""
    table, asked = shelf.table, prepared.request
    block = table.block(shelf.rows[candidates.indexes], asked.as_of)
    pair = PairView(prepared.user, block, table.category, table.brand)
    request = RequestView(asked.as_of, model.time_zone, asked.device, asked.surface)
    return assemble(pair, candidates.retrieval, request)


def rank(shelf: Shelf, model: Model, prepared: Prepared, candidates: CandidateSet, request: PageRequest) -> Page:
    """Score the candidates, keep variety, and give a slot to exploration."""
    features = vectorize(shelf, model, prepared, candidates)
    scores = model.scorer.score(features) if len(prepared.seeds) else stranger_scores(candidates.retrieval)
    order = np.lexsort((candidates.indexes, -scores))
    positions = diversify(
        order, shelf.trends.category[candidates.indexes], request.limit, model.params.max_per_category
    )
    propensities = np.ones(len(positions))
    arrivals = np.flatnonzero(candidates.retrieval.ranks[:, list(Retrieval).index(Retrieval.ARRIVALS)] > 0)
    unseen = np.setdiff1d(arrivals, positions)
    placement = explore(request.recommendation_id, unseen, len(positions), request.exploration)
    if placement is not None:
        positions[placement.slot] = placement.position
        propensities[placement.slot] = placement.propensity
    explored_slot = None if placement is None else placement.slot
    return Page(candidates, features, scores, positions, propensities, explored_slot, prepared.rules.removed)


def stranger_scores(retrieval: RetrievalBlock) -> NDArray[np.float32]:
    """float32[n]: how a page is ordered for someone of whom nothing is known: by what is popular now.

    Where she named favourites, the popular source begins with them. Measured on the synthetic shop, popularity ranks a
    stranger's page three times as well as the ranker does.
    """
    return np.asarray(retrieval.scores[:, list(Retrieval).index(Retrieval.POPULAR)])


def item_rows(table: ItemTable, item_ids: Sequence[ItemId]) -> Rows:
    """int64[len(item_ids)] rows of a release's items; an item the table has not met yet gets one."""
    return np.array([table.row(id_hash(item_id)) for item_id in item_ids], dtype=np.int64)
