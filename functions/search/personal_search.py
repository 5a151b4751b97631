"""A shopper's own order of the hits of a search, and the record of what she was shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from functions.circuit import Circuit
from functions.metrics import Metrics
from functions.pages.exposure_lines import exposure_line
from functions.pages.exposure_writer import ExposureWriter
from functions.pages.page_reader import Lists, PageReader, neighbours_of
from functions.pages.recommendation_ids import is_sampled, recommendation_id
from functions.pages.recommender import NEW_USER, read_lists, seeds_of
from functions.pages.shown_items import ShownItem, show
from functions.preferences.preference_keeper import STATE_UNAVAILABLE, PreferenceKeeper, SeenShopper
from functions.releases.item_follower import Stock
from functions.releases.loaded_release import LoadedRelease
from shared.adapters.keys import user_key
from shared.candidates.query import REQUEST_KINDS
from shared.ranking.rules import Eligibility
from shared.recommend import Page, PageRequest, prepare, retrieve, vectorize
from shared.search.ordering import blend
from shared.settings import Settings

SURFACE = "search"


@dataclass(frozen=True, slots=True)
class Shopping:
    """Who searches, with what was read of her before the items are looked at."""

    user_id: str
    device: str | None
    seen: SeenShopper
    lists: Lists
    fallback: str | None


@dataclass(frozen=True, slots=True)
class OrderedHits:
    """int64[k] indexes of the shelf in the order asked for, float32[k] text scores; so many of them are wanted."""

    indexes: NDArray[np.int64]
    text: NDArray[np.float32]
    limit: int
    by_relevance: bool


@dataclass(frozen=True, slots=True)
class RankedHits:
    """The page in order; `fallback` is the cause when nothing of her could be used."""

    page: Page
    shown: list[ShownItem]
    fallback: str | None


class PersonalSearch:
    """Reads a shopper, ranks hits for her, records what she sees; safe to call from many threads."""

    def __init__(
        self,
        *,
        settings: Settings,
        reader: PageReader,
        keeper: PreferenceKeeper,
        circuit: Circuit,
        exposures: ExposureWriter,
        metrics: Metrics,
        new_id: Callable[[], str],
    ) -> None:
        """`new_id` gives 32 hexadecimal digits that never come again."""
        self._settings = settings
        self._reader = reader
        self._keeper = keeper
        self._circuit = circuit
        self._exposures = exposures
        self._metrics = metrics
        self._new_id = new_id

    def read(self, user_id: str, device: str | None, release: LoadedRelease) -> Shopping:
        """Her state and the lists of her last items; what cannot be read is no error."""
        seen = self._keeper.see(user_id, release, record=False)
        lists: Lists = {}
        missing = None
        if seen.fallback != STATE_UNAVAILABLE:
            seeds = seeds_of(seen.shopper, release, seen.as_of, None)
            lists, missing = read_lists(self._circuit, self._reader, release, seeds)
        return Shopping(user_id, device, seen, lists, seen.fallback or missing)

    def rank(
        self,
        release: LoadedRelease,
        stock: Stock,
        shopping: Shopping,
        hits: OrderedHits,
    ) -> RankedHits:
        """The first of the hits, with what the ranker reads of them; by relevance they come in her own order.

        Of someone of whom nothing is known the text decides alone.
        """
        shelf, model = stock.shelf, release.model
        request = PageRequest(as_of=shopping.seen.as_of, limit=hits.limit, device=shopping.device, surface=SURFACE)
        prepared = prepare(shelf, model, shopping.seen.shopper, request)
        eligible = np.zeros(len(shelf.rows), np.bool_)
        eligible[hits.indexes] = True
        prepared = replace(prepared, rules=Eligibility(eligible), query=replace(prepared.query, eligible=eligible))
        wanted = prepared.seeds.tolist()
        neighbours = {kind: neighbours_of(shopping.lists, kind, wanted) for kind in REQUEST_KINDS}
        # What no source carries is filled in from what is eligible: the candidates are just the hits, by index.
        candidates = retrieve(prepared, model, neighbours)
        by_index = np.argsort(hits.indexes)
        candidates = candidates.with_text(hits.text[by_index])
        features = vectorize(shelf, model, prepared, candidates)
        scores, positions = candidates.retrieval.text, np.argsort(by_index)
        if hits.by_relevance and len(prepared.seeds):
            scores = blend(scores, model.scorer.score(features))
            positions = positions[np.argsort(-scores[positions], kind="stable")]
        positions = positions[: hits.limit]
        page = Page(candidates, features, scores, positions, np.ones(len(positions)), None, {})
        fallback = shopping.fallback
        if fallback is None and not len(prepared.query.history.indexes):
            fallback = NEW_USER
        return RankedHits(page, show(stock, page), fallback)

    def record(
        self,
        release: LoadedRelease,
        stock: Stock,
        shopping: Shopping,
        ranked: RankedHits,
        *,
        limit: int,
        category: str | None,
    ) -> str:
        """Record what she is shown, unless sampling leaves it out, and return the recommendation id."""
        seen, page = shopping.seen, ranked.page
        identifier = recommendation_id(release.release_id, seen.as_of, self._new_id())
        if ranked.fallback is not None:
            self._metrics.fallbacks.labels(ranked.fallback).inc()
        if is_sampled(identifier, self._settings.exposure_sampling):
            head = {
                "recommendation_id": identifier,
                "worker": self._exposures.worker,
                "number": self._exposures.next_number(),
                "release": release.release_id,
                "user_id": shopping.user_id,
                "user_key": user_key(shopping.user_id, self._settings.user_key_secret).hex(),
                "as_of": seen.as_of,
                "fallback": ranked.fallback,
                "limit": limit,
                "category": category,
                "context_item": None,
                "exclude": (),
                "device": shopping.device,
                "surface": SURFACE,
                "removed": {},
            }
            self._exposures.record(exposure_line(head, seen.read.visibility, stock, page, ranked.shown))
        return identifier
