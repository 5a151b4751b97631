"""What a night leaves of a tiny shop, on disk and as the API reads it: the same lists and factors by both ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch.build_neighbours import batch_of, cut_lists
from batch.catalog_snapshot import encode_entries
from batch.fit_retrieval import fit_span
from batch.interactions import PURCHASE, VIEW, Interactions
from batch.models.als import AlsParams
from batch.nightly_records import Night, records
from batch.published_lists import item_lists
from batch.retrieval_span import RetrievalParams, RetrievalSpan, load_span, save_span
from functions.pages.page_reader import neighbours_of
from shared.candidates.nightly import opinion_of
from shared.candidates.opinion import Opinion
from shared.candidates.query import ListKind, Query
from shared.candidates.span import SpanModel, lists_folder
from shared.candidates.span import load_span as load_served
from shared.events import ItemId
from shared.features.aggregations import DAY_MS
from shared.features.definitions import Retrieval
from shared.features.replay import LoggedEvent
from shared.recommend import Model, als_source, default_sources, item_rows
from shared.releases.lists import NightlyRecord, decode_list, decode_record
from tests.contract.source_world import ANN, COUNT, catalogue
from tests.unit.builders import NOW

USERS = 24
LIST_SIZE = 6
PARAMS = RetrievalParams(als=AlsParams(factors=4, iterations=3), list_size=LIST_SIZE)
RELEASE = "r-1"


def interactions(places: Sequence[int]) -> Interactions:
    """Users who go round the shop from where their number says; `places[n]` is the index of item n."""
    steps = [(user, (user * 5 + step * step) % COUNT, step) for user in range(USERS) for step in range(7)]
    user, item, step = (np.array(column) for column in zip(*steps, strict=True))
    at = NOW - 30 * DAY_MS + 1000 * step
    kind = np.where(step % 3 == 2, PURCHASE, VIEW)
    return Interactions(
        user=user.astype(np.int32),
        item=np.array(places)[item].astype(np.int32),
        event_type=kind.astype(np.int8),
        at=at,
        enqueued_at=at,
        quantity=np.ones(len(user), np.int32),
        session=user.astype(np.int32),
    )


def fitted(places: Sequence[int]) -> RetrievalSpan:
    """Everything of a night, by the function that fits it; `places[n]` is the index of item n."""
    table = catalogue("i")
    products = [table.products[number] for number in np.argsort(places).tolist()]
    return fit_span(interactions(places), products, USERS, COUNT, end_at=NOW, params=PARAMS)[0]


@dataclass(frozen=True)
class LeftByNight:
    """A shop's folder after the night, read as the harness reads it."""

    folder: Path
    span: SpanModel

    @classmethod
    def at(cls, folder: Path) -> LeftByNight:
        """Fit, save, load again, cut the lists from what was loaded, and write them as the Spark workers do."""
        save_span(folder, "all", fitted(range(COUNT)), {})
        saved = load_span(folder, "all")
        for kind in ListKind:
            target = lists_folder(folder, "all", kind)
            target.mkdir(parents=True)
            for start, stop in ((7, COUNT), (0, 7)):
                rows = batch_of("all", kind, start, cut_lists(saved, kind, start, stop, LIST_SIZE))
                pq.write_table(pa.Table.from_batches([rows]), target / f"part-{start}.parquet")
        return cls(folder, load_served(folder, "all"))

    def model(self) -> Model:
        """The sources as a release brings them."""
        return Model("r", default_sources(self.span.factors), None, ZoneInfo("UTC"), 0)  # type: ignore[arg-type]  # nothing is scored

    def in_the_harness(self, name: Retrieval, query: Query) -> Opinion:
        """What the source says from the folder's lists."""
        return self.model().sources[name].consider(replace(query, neighbours=self.span.lookup_all(query.seeds)))

    def in_the_api(self, name: Retrieval, query: Query) -> Opinion:
        """What it says from published bytes, and where the night made a record of the user, from that."""
        seeds = query.seeds.tolist()
        published = {
            (kind, item): decode_list(RELEASE, found.encode(RELEASE))
            for kind in ListKind
            for item, found in item_lists(self.folder, kind)
            if item in seeds
        }
        if name is Retrieval.ALS:
            record = decode_record(RELEASE, dict(self.records())["ann"].encode(RELEASE))
            return opinion_of(record, als_source(self.model()), query)
        neighbours = {kind: neighbours_of(published, kind, seeds) for kind in ListKind}
        return self.model().sources[name].consider(replace(query, neighbours=neighbours))

    def records(self) -> list[tuple[str, NightlyRecord]]:
        """Ann's record by the function that Spark's workers run."""
        table = catalogue("i")
        entries = [table.entry(row) for row in item_rows(table, [ItemId(f"i{number}") for number in range(COUNT)])]
        night = Night(encode_entries(entries), self.span.factors, NOW, 0, "UTC")
        log = [LoggedEvent("live-1", 0, place, one.enqueued_at, one.event) for place, one in enumerate(ANN)]
        return list(records(night, iter(log)))
