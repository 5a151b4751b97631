"""A user's nightly record made by the request path's own code: what the workers of `batch.build_candidates` run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from batch.catalog_snapshot import decode_entries
from shared.candidates.als import ItemFactors
from shared.candidates.nightly import make_record
from shared.candidates.params import DEFAULT, SourceParams
from shared.errors import ConfigurationError
from shared.features.definitions import Retrieval
from shared.features.items import ItemTable
from shared.features.replay import LoggedEvent, UserShards
from shared.features.vector import Matrix
from shared.recommend import Model, PageRequest, Shelf, als_source, default_sources, item_rows, prepare
from shared.releases.lists import NightlyRecord


@dataclass(frozen=True)
class Night:
    """What a worker needs to make the lists of any user: it travels once to each."""

    entries: bytes
    factors: ItemFactors
    as_of: int
    bought_window_days: int
    time_zone: str
    params: SourceParams = DEFAULT

    def shelf(self) -> Shelf:
        """The items as the night knows them. Their counters stay empty: retrieval by factors reads none."""
        table = ItemTable()
        entries = decode_entries(self.entries)
        for entry in entries:
            table.offer(entry)
        return Shelf.of(table, item_rows(table, [entry.item_id for entry in entries]))

    def model(self) -> Model:
        """The sources, without a ranker."""
        sources = default_sources(self.factors, self.params)
        return Model("night", sources, _Unranked(), ZoneInfo(self.time_zone), self.bought_window_days, self.params)


class _Unranked:
    """Nothing is ranked at night."""

    def score(self, features: Matrix) -> NDArray[np.float32]:
        raise ConfigurationError(f"the night ranks nothing, but was asked to rank {len(features)} candidates")


def records(night: Night, rows: Iterator[LoggedEvent]) -> Iterator[tuple[str, NightlyRecord]]:
    """The record of each user with an action; the events of one user come together, in log order."""
    shelf, model = night.shelf(), night.model()
    source = als_source(model)
    for user_id, events in groupby(rows, key=lambda logged: logged.event.user_id):
        if user_id is None:
            continue
        users = UserShards()
        last: tuple[str, int, int] | None = None
        for logged in events:
            place = (logged.source, logged.partition, logged.sequence)
            if place != last:  # files may overlap
                users.fold(logged)
            last = place
        shopper = users.shopper(user_id, night.as_of)
        if shopper.state.counts.any():
            prepared = prepare(shelf, model, shopper, PageRequest(night.as_of))
            yield user_id, make_record(source, prepared.query, night.params.limit(Retrieval.ALS))
