"""One page: read the shopper, read her neighbours, then compute from one consistent look at the items."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from functions.circuit import Circuit
from functions.metrics import Metrics
from functions.pages.exposure_lines import exposure_line
from functions.pages.exposure_writer import ExposureWriter
from functions.pages.page_explanation import PageExplanation, removed_examples, score_parts
from functions.pages.page_reader import Lists, PageReader, ShopperRead, neighbours_of
from functions.pages.recommendation_ids import is_sampled, recommendation_id
from functions.pages.shown_items import ShownItem, show
from functions.preferences.preference_keeper import STATE_UNAVAILABLE, PreferenceKeeper, Releases
from functions.releases.item_follower import Stock
from functions.releases.loaded_release import LoadedRelease
from shared.adapters.keys import user_key
from shared.candidates.nightly import opinion_of, record_holds
from shared.candidates.opinion import Opinion
from shared.candidates.query import REQUEST_KINDS, history_of
from shared.candidates.ranked import Indexes
from shared.errors import CorruptRecord, InfrastructureFault, UnknownItem
from shared.events import ItemId, id_hash
from shared.features.definitions import LISTS, Retrieval
from shared.features.shard import Shopper
from shared.features.views import UserView, user_lists
from shared.recommend import Page, PageRequest, Prepared, als_source, prepare, rank, retrieve
from shared.releases.lists import NightlyRecord
from shared.settings import Settings

log = logging.getLogger(__name__)

LISTS_UNAVAILABLE: Final = "lists_unavailable"
NEW_USER: Final = "new_user"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for; ids and names as the client wrote them."""

    user_id: str
    limit: int = 20
    category: str | None = None
    context_item: str | None = None
    exclude: tuple[str, ...] = ()
    device: str | None = None
    surface: str | None = None
    explain: bool = False


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The answer; `removed` counts what each rule took away, `fallback` is the cause when it is not personal."""

    recommendation_id: str
    release_id: str
    as_of: int
    fallback: str | None
    items: list[ShownItem]
    removed: Mapping[str, int]
    candidates_count: int
    preferences_unavailable: bool = False
    explanation: PageExplanation | None = None


class Recommender:
    """The page service of a worker; safe to call from many threads."""

    def __init__(
        self,
        *,
        settings: Settings,
        releases: Releases,
        reader: PageReader,
        keeper: PreferenceKeeper,
        circuit: Circuit,
        exposures: ExposureWriter,
        metrics: Metrics,
        clock: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        """`clock` tells epoch ms; `new_id` gives 32 hexadecimal digits that never come again."""
        self._settings = settings
        self._releases = releases
        self._reader = reader
        self._keeper = keeper
        self._circuit = circuit
        self._exposures = exposures
        self._metrics = metrics
        self._clock = clock
        self._new_id = new_id

    def recommend(self, asked: Asked) -> Recommendation:
        """Answer one request.

        A state that cannot be read is no error: the page then comes from what the process holds, and says so.

        Raises:
            ReleaseUnavailable: nothing has been published.
            UnknownItem: `context_item` is not in the catalogue.
        """
        release = self._releases.release_for(asked.user_id)
        seen = self._keeper.see(asked.user_id, release)
        read, shopper, as_of = seen.read, seen.shopper, seen.as_of
        seeds = seeds_of(shopper, release, as_of, asked.context_item)
        lists, missing = (
            ({}, None)
            if seen.fallback == STATE_UNAVAILABLE
            else read_lists(self._circuit, self._reader, release, seeds)
        )
        fallback = seen.fallback or missing
        identifier = recommendation_id(release.release_id, as_of, self._new_id())
        with release.items.reading(release.release_id) as stock:
            request = self._page_request(stock, asked, as_of, identifier)
            prepared = prepare(stock.shelf, release.model, shopper, request)
            wanted = prepared.seeds.tolist()
            neighbours = {kind: neighbours_of(lists, kind, wanted) for kind in REQUEST_KINDS}
            nightly = _nightly_opinion(read.record, release, prepared, shopper, request)
            candidates = retrieve(prepared, release.model, neighbours, nightly)
            page = rank(stock.shelf, release.model, prepared, candidates, request)
            shown = show(stock, page)
            examples = removed_examples(stock, prepared.rules.taken) if asked.explain else {}
        if fallback is None and not len(prepared.query.history.indexes):
            fallback = NEW_USER
        answer = Recommendation(
            identifier,
            release.release_id,
            as_of,
            fallback,
            shown,
            prepared.rules.removed,
            len(page.candidates.indexes),
            seen.preferences_unavailable,
            self._explanation(release, page, examples) if asked.explain else None,
        )
        self._count(answer)
        self._expose(asked, answer, read, stock, page)
        return answer

    def _page_request(self, stock: Stock, asked: Asked, as_of: int, identifier: str) -> PageRequest:
        table = stock.shelf.table
        context_row = None
        if asked.context_item is not None:
            context_row = table.row_of_id(asked.context_item)
            if context_row is None:
                raise UnknownItem(f"the catalogue has no item {asked.context_item!r}")
        excluded = (table.row_of_id(item_id) for item_id in asked.exclude)
        return PageRequest(
            as_of=as_of,
            limit=asked.limit,
            category=asked.category,
            context_row=context_row,
            excluded_rows=frozenset(row for row in excluded if row is not None),
            exploration=self._settings.exploration,
            recommendation_id=identifier,
            device=asked.device,
            surface=asked.surface,
        )

    @staticmethod
    def _explanation(release: LoadedRelease, page: Page, examples: Mapping[str, Sequence[ItemId]]) -> PageExplanation:
        """Outside the look at the items: contributions take some tens of milliseconds."""
        shown = page.positions
        return PageExplanation(score_parts(release, page.features[shown], page.scores[shown]), examples)

    def _count(self, answer: Recommendation) -> None:
        self._metrics.pages.labels(answer.release_id).inc()
        self._metrics.candidates.observe(answer.candidates_count)
        if answer.fallback is not None:
            self._metrics.fallbacks.labels(answer.fallback).inc()

    def _expose(self, asked: Asked, answer: Recommendation, read: ShopperRead, stock: Stock, page: Page) -> None:
        if not is_sampled(answer.recommendation_id, self._settings.exposure_sampling):
            return
        head = {
            "recommendation_id": answer.recommendation_id,
            "worker": self._exposures.worker,
            "number": self._exposures.next_number(),
            "release": answer.release_id,
            "user_id": asked.user_id,
            "user_key": user_key(asked.user_id, self._settings.user_key_secret).hex(),
            "as_of": answer.as_of,
            "fallback": answer.fallback,
            "limit": asked.limit,
            "category": asked.category,
            "context_item": asked.context_item,
            "exclude": asked.exclude,
            "device": asked.device,
            "surface": asked.surface,
            "removed": answer.removed,
        }
        self._exposures.record(exposure_line(head, read.visibility, stock, page, answer.items))


def read_lists(
    circuit: Circuit, reader: PageReader, release: LoadedRelease, seeds: Indexes
) -> tuple[Lists, str | None]:
    """The seeds' neighbour lists that sources read; without them, the cause of the fallback."""
    wanted = seeds.tolist()
    try:
        return circuit.call(lambda: reader.lists(release.release_id, REQUEST_KINDS, wanted)), None
    except InfrastructureFault as error:
        log.debug("page without lists: %s", error)
    except CorruptRecord:
        log.exception("page without lists: what is stored cannot be read")
    return {}, LISTS_UNAVAILABLE


def seeds_of(shopper: Shopper, release: LoadedRelease, as_of: int, context_item: str | None) -> Indexes:
    """int32[m]: the items whose neighbour lists `prepare` will want.

    They follow from the user's state and the release's item index alone, both of which stand still, so that the lists
    are read before the items are held.
    """
    lists = user_lists(shopper.state, release.index_of, LISTS)
    user = UserView(shopper.state, as_of, lists, release.model.time_zone)
    history = history_of(user, np.arange(len(release.item_ids), dtype=np.int32))
    own = history.indexes[: release.model.params.seeds]
    context = None if context_item is None else release.index_of.get(id_hash(context_item))
    if context is None:
        return own
    return np.concatenate([[context], own[own != context]]).astype(np.int32)


def _nightly_opinion(
    record: NightlyRecord | None, release: LoadedRelease, prepared: Prepared, shopper: Shopper, request: PageRequest
) -> dict[Retrieval, Opinion] | None:
    """The nightly record's list while it still holds: made from just this state, and no category is asked for."""
    if record is None or request.category is not None or not record_holds(record, shopper.state):
        return None
    return {Retrieval.ALS: opinion_of(record, als_source(release.model), prepared.query)}
