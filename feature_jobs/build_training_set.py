"""Stage: pages at past instants, made by the very code that serves, from what was known at each instant.

Retrieval fitted before the label period makes the label period's pages, on which the ranker learns; retrieval fitted
before the test period makes the test period's, on which it is judged. One ordered pass over the log folds users and
items; an event enqueued after an instant cannot touch its rows.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_jobs.instants import SILENCE_MS, instants_of, sample, sessions
from feature_jobs.log_days import events_by_day
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.stage_folder import replace_folder
from shared.adapters.user_keys import keyed_with
from shared.candidates.span import SpanModel, load_span
from shared.cli import command
from shared.errors import ConfigurationError
from shared.events import BEHAVIOUR, EventType, ItemId
from shared.features.aggregations import MINUTE_MS
from shared.features.items import ItemTable
from shared.features.replay import LoggedEvent, UserShards
from shared.features.vector import SCHEMA, Matrix
from shared.features.views import Rows
from shared.ingest.erased_users import KeyOf, count_erasures, no_secret
from shared.ingest.lake import ShopSettings, read_manifest
from shared.past_pages import BASELINE_LENGTH, Instant, PageRows
from shared.recommend import Model, PageRequest, Shelf, default_sources, item_rows, prepare, retrieve, vectorize
from shared.settings import Settings

SHELF_MS: Final = 5 * MINUTE_MS
"""How old popularity may be at an instant; what is in stock is always read afresh."""
ITEM_EVENTS: Final = BEHAVIOUR | {EventType.ITEM_UPDATED}
_REPORT_EVERY_S: Final = 3.0
BASELINE_QUANTILES: Final = np.linspace(0, 1, 11)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken: label pages, negatives kept of each, test pages, and the seed of the draws."""

    label_pages: int = 6_000
    negatives: int = 60
    test_pages: int = 2_500
    seed: int = 0


class _NoScorer:
    """Training pages are not ranked."""

    def score(self, features: Matrix) -> NDArray[np.float32]:
        raise ConfigurationError(f"{len(features)} rows of the training set have no ranker yet")


@dataclass
class Pass:
    """The ordered pass: the log folded so far, and what baselines need to know of each user."""

    item_ids: list[ItemId]
    shop: ShopSettings
    wanted: AbstractSet[str] | None = None
    """The users who will be asked for, None for everyone: of all others only what they did to items is folded."""
    users: UserShards = field(default_factory=UserShards)
    items: ItemTable = field(default_factory=ItemTable)
    bought: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    touched: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    sessions_seen: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _rows: Rows | None = None
    _shelf: Shelf | None = None
    _shelf_at: int = 0

    def fold(self, logged: LoggedEvent) -> None:
        """Take one more accepted event into account: the log's verdict stands, for the item too."""
        event = logged.event
        if event.item_id is not None and event.event_type in ITEM_EVENTS:
            self.items.fold(event, logged.enqueued_at)
        if event.user_id is None or (self.wanted is not None and event.user_id not in self.wanted):
            return
        if self.users.fold(logged) and event.event_type in BEHAVIOUR and event.item_id is not None:
            self.touched[event.user_id].add(event.item_id)
            self.sessions_seen[event.user_id].add(event.session_id or str(logged.enqueued_at // SHELF_MS))
            if event.event_type is EventType.PURCHASE:
                counts = self.bought[event.user_id]
                count = counts.pop(event.item_id, 0)  # put back last: among equals the latest comes first below
                counts[event.item_id] = count + 1

    def shelf(self, as_of: int) -> Shelf:
        """The items as they stand, popularity at most `SHELF_MS` old."""
        table = self.items
        if self._rows is None:
            self._rows = item_rows(table, self.item_ids)
        stale = self._shelf is None or as_of - self._shelf_at >= SHELF_MS or len(self._shelf.index_of_row) < len(table)
        if self._shelf is None or stale:
            self._shelf, self._shelf_at = Shelf.of(table, self._rows), as_of
        return self._shelf

    def page(self, instant: Instant, span: SpanModel, rows: PageRows) -> None:
        """Add the page this user would have had at the instant."""
        shelf = self.shelf(instant.as_of)
        model = Model(
            "training",
            default_sources(span.factors, span.params),
            _NoScorer(),
            ZoneInfo(self.shop.time_zone),
            self.shop.bought_window_days,
            span.params,
        )
        shopper = self.users.shopper(instant.user_id, instant.as_of)
        request = PageRequest(instant.as_of, device=instant.device, surface=instant.surface)
        prepared = prepare(shelf, model, shopper, request)
        candidates = retrieve(prepared, model, span.lookup_all(prepared.seeds))
        features = vectorize(shelf, model, prepared, candidates)
        rows.add(
            instant,
            candidates,
            features,
            shelf.trends.category[candidates.indexes],
            history=prepared.query.history.indexes,
            sessions_before=len(self.sessions_seen[instant.user_id]),
            touched=self.touched[instant.user_id],
            frequent=self._frequent(instant.user_id, rows.index_of, prepared.rules.allowed),
        )

    def _frequent(self, user_id: str, index_of: Mapping[str, int], allowed: NDArray[np.bool_]) -> list[int]:
        """The user's most bought items that may be shown, the latest first among equals."""
        bought = self.bought[user_id]
        latest_first = dict(reversed(bought.items()))
        ordered = sorted(latest_first, key=lambda item: -bought[item])
        shown = (index_of[item] for item in ordered if item in index_of and allowed[index_of[item]])
        return list(islice(shown, BASELINE_LENGTH))


def build_training_set(data: Path, limits: Limits, key_of: KeyOf = no_secret) -> None:
    """Write nightly/training/{label,test}/, baseline.json and summary.json under `data`; `key_of` hashes user ids."""
    started = time.perf_counter()
    blobs = FolderBlobStore(data)
    manifest = read_manifest(blobs)
    if manifest is None:
        raise ConfigurationError(f"there is no lake under {data}; run batch.generate_shop or batch.ingest_events first")
    shop = manifest.shop
    fit_end_at, label_end_at, test_end_at = _periods(data)
    item_ids = [
        ItemId(item) for item in pq.read_table(data / "nightly/interactions/items.parquet")["item_id"].to_pylist()
    ]
    index_of = {str(item): index for index, item in enumerate(item_ids)}
    # A session that began before the label period is known by its last event, which is at most a day older.
    found = [
        instant
        for session in sessions(events_by_day(blobs, fit_end_at - SILENCE_MS, key_of=key_of))
        for instant in instants_of(session, shop.positives)
    ]
    label = sample([one for one in found if fit_end_at <= one.as_of < label_end_at], limits.label_pages, limits.seed)
    test = [one for one in found if label_end_at <= one.as_of < test_end_at and one.at_start]
    test = sample(test, limits.test_pages, limits.seed + 1)
    if not label or not test:
        raise ConfigurationError("no session with a positive event in the label or the test period; take more history")
    print(f"{len(found):,} instants found in {time.perf_counter() - started:.1f} s", flush=True)
    del found
    user_ids = pq.read_table(data / "nightly/interactions/users.parquet")["user_id"].to_pylist()
    users = {user_id: number for number, user_id in enumerate(user_ids)}
    label_rows = PageRows(index_of, limits.negatives, limits.seed, users)
    test_rows = PageRows(index_of, None, users=users)
    spans = {"label": load_span(data, "fit"), "test": load_span(data, "fit_label")}
    instants = [*label, *test]
    past = Pass(item_ids, shop, {one.user_id for one in instants})
    for step in schedule(events_by_day(blobs, key_of=key_of), instants):
        if isinstance(step, LoggedEvent):
            past.fold(step)
        elif step.as_of < label_end_at:
            past.page(step, spans["label"], label_rows)
        else:
            past.page(step, spans["test"], test_rows)
    label_table, test_table = label_rows.table(), test_rows.table()
    with replace_folder(data / "nightly/training") as folder:
        label_table.save(folder / "label")
        test_table.save(folder / "test")
        quantiles = np.quantile(label_table.features, BASELINE_QUANTILES, axis=0).T
        baseline = {name: edges.tolist() for name, edges in zip(SCHEMA.names, quantiles, strict=True)}
        (folder / "baseline.json").write_bytes(msgspec.json.encode(baseline))
        summary = {
            "schema": SCHEMA.digest,
            "features": SCHEMA.names,
            "label_pages": len(label),
            "label_rows": len(label_table.label),
            "test_pages": len(test),
            "test_rows": len(test_table.label),
            "erasures": count_erasures(manifest),
            "seconds": round(time.perf_counter() - started, 1),
        }
        (folder / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(summary)))
    print(
        f"{len(label):,} label pages ({len(label_table.label):,} rows), {len(test):,} test pages "
        f"({len(test_table.label):,} rows) in {time.perf_counter() - started:.1f} s"
    )


def _periods(data: Path) -> tuple[int, int, int]:
    path = data / "nightly/interactions/summary.json"
    if not path.exists():
        raise ConfigurationError(f"{path} is not there; run python -m batch.build_interactions --data {data} first")
    periods = msgspec.json.decode(path.read_bytes())["periods"]
    return periods["fit_end_at"], periods["label_end_at"], periods["test_end_at"]


def schedule(events: Iterator[LoggedEvent], instants: list[Instant]) -> Iterator[LoggedEvent | Instant]:
    """Events (in log time) and instants (ascending) in one order; prints as it goes.

    An instant comes after every event that the broker took by then, and before all others: when an event is said to
    have happened plays no part.
    """
    started = reported = time.perf_counter()
    folded = pages = 0

    def report() -> None:
        nonlocal reported
        if time.perf_counter() - reported > _REPORT_EVERY_S:
            reported = time.perf_counter()
            seconds = reported - started
            print(
                f"  {folded:,} events, {pages:,} of {len(instants):,} pages, {folded / seconds:,.0f} events/s",
                flush=True,
            )

    logged = next(events, None)
    for instant in instants:
        while logged is not None and logged.enqueued_at <= instant.as_of:
            yield logged
            folded += 1
            if folded % 10_000 == 0:
                report()
            logged = next(events, None)
        yield instant
        pages += 1
        report()


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m feature_jobs.build_training_set", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    defaults = Limits()
    parser.add_argument(
        "--label-pages", type=int, default=defaults.label_pages, metavar="N", help="default %(default)s"
    )
    parser.add_argument("--test-pages", type=int, default=defaults.test_pages, metavar="N", help="default %(default)s")
    parser.add_argument(
        "--negatives",
        type=int,
        default=defaults.negatives,
        metavar="N",
        help="kept of each label page, default %(default)s",
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the draws, default %(default)s")
    arguments = parser.parse_args(argv)
    limits = Limits(arguments.label_pages, arguments.negatives, arguments.test_pages, arguments.seed)
    key_of = keyed_with(Settings.from_environment(os.environ).user_key_secret)
    build_training_set(arguments.data, limits, key_of)
    return 0


if __name__ == "__main__":
    sys.exit(main())
