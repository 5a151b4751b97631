"""The release of the night before a shop's test period, and its API asked at the instants of the harness's pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch.build_interactions import load_summary
from batch.build_release import LiveSource, build_release
from batch.catalog_snapshot import encode_entries, fold_catalog, load_item_ids
from batch.evaluate_release import whole_lists
from batch.nightly_records import Night, records
from batch.publish_release import publish_release
from feature_jobs import build_training_set
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_state import RedisStateStore
from shared.candidates.span import LISTS_FOLDER, RETRIEVAL_FOLDER, load_factors, load_source_params
from shared.events import encode_event
from shared.features.replay import LoggedEvent
from shared.ingest.lake import read_manifest, read_rows
from shared.ingest.logged_events import in_log_time, logged_events
from shared.ingest.processor import PartitionProcessor
from shared.ingest.state_versions import CURRENT_VERSION
from shared.ports import LogRecord
from shared.ranking.page_table import load_pages
from shared.ranking.scorer import OnnxScorer
from tests.integration.api_shop import ApiShop

NEAR_TIE: Final = 1e-5

Pages = list[tuple[str, int, list[str]]]
"""User id, instant (epoch ms) and the item ids of each page, in order of time."""


def log_of(data: Path) -> list[LoggedEvent]:
    """All events of a shop's lake in log time."""
    return list(logged_events(in_log_time(read_rows(FolderBlobStore(data)))))


def pages_of_the_harness(data: Path) -> Pages:
    """What the harness lists on the test pages of a shop's folder, with the ranker that the night exported."""
    pages = load_pages(data, "test")
    scorer = OnnxScorer((data / "nightly/onnx/ranker.onnx").read_bytes())
    lists = whole_lists(pages, scorer, load_source_params(data, "fit_label").max_per_category)
    items = load_item_ids(data)
    users = pq.read_table(data / "nightly/interactions/users.parquet")["user_id"].to_pylist()
    found = [
        (str(users[user]), int(as_of), [str(items[index]) for index in shown if index >= 0])
        for user, as_of, shown in zip(pages.user, pages.as_of, lists, strict=True)
    ]
    return sorted(found, key=lambda page: page[1])


def release_before_the_test_period(data: Path, folder: Path, log: Sequence[LoggedEvent], asked: Pages) -> None:
    """A copy of the shop as it stood the night before its test period: what is released was fitted on `fit_label`.

    Whoever is asked about has no nightly record: its vector is kept in half precision, which may turn near ties.
    """
    shutil.copytree(data, folder)
    for kind in (RETRIEVAL_FOLDER, LISTS_FOLDER):
        shutil.rmtree(folder / kind / "all")
        shutil.copytree(folder / kind / "fit_label", folder / kind / "all")
    as_of = load_summary(folder).periods.label_end_at - 1
    unasked = {one.event.user_id for one in log} - {user_id for user_id, _, _ in asked} - {None}
    write_records(folder, as_of, [one for one in log if one.enqueued_at <= as_of and one.event.user_id in unasked])


def write_records(data: Path, as_of: int, log: Sequence[LoggedEvent]) -> None:
    """What batch.build_candidates writes, in this process and as of an instant."""
    blobs = FolderBlobStore(data)
    manifest = read_manifest(blobs)
    assert manifest is not None
    entries = encode_entries(fold_catalog(blobs, load_item_ids(data), as_of))
    shop, params = manifest.shop, load_source_params(data, "all")
    night = Night(entries, load_factors(data, "all"), as_of, shop.bought_window_days, shop.time_zone, params)
    by_user = sorted((one for one in log if one.event.user_id is not None), key=lambda one: str(one.event.user_id))
    rows = [
        {
            "user_id": user_id, "newest_at": record.newest_at, "actions_count": record.actions_count,
            "indexes": record.indexes, "scores": record.scores, "vector": record.vector,
        }
        for user_id, record in records(night, iter(by_user))
    ]  # fmt: skip
    folder = data / "nightly/candidates"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "part-00000.parquet")
    (folder / "summary.json").write_bytes(msgspec.json.encode({"as_of": as_of, "users": len(rows)}))


def publish(shop: ApiShop, data: Path) -> None:
    """Build the release of this folder and give it all traffic."""
    live = LiveSource(shop.settings.event_source, shop.settings.partition_count)
    manifest = build_release(data, live, created_at=0)
    publish_release(
        data,
        shop.blobs,
        shop.releases,
        manifest.release_id,
        user_secret=shop.settings.user_key_secret,
        promote=lambda _: None,
    )
    shop.services.refresh()


def pages_of_the_api(
    shop: ApiShop, log: Sequence[LoggedEvent], asked: Pages, empty: Path
) -> Iterator[dict[str, float]]:
    """The API's items, in order, with their scores, at the same instants, each when all the broker took is folded.

    `empty` is a lake that holds nothing: what is folded here has never been sealed.
    """
    store = RedisStateStore(shop.releases._client, shop.settings.user_key_secret)
    parts: dict[tuple[str, int], PartitionProcessor] = {}
    waiting = iter(log)
    ahead = next(waiting, None)
    for user_id, as_of, _ in asked:
        taken: dict[tuple[str, int], list[LogRecord]] = {}
        while ahead is not None and ahead.enqueued_at <= as_of:
            part = (ahead.source, ahead.partition)
            record = LogRecord(*part, ahead.sequence, ahead.enqueued_at, encode_event(ahead.event))
            taken.setdefault(part, []).append(record)
            ahead = next(waiting, None)
        for part, found in taken.items():
            if part not in parts:
                parts[part] = PartitionProcessor(
                    *part, store=store, versions=(CURRENT_VERSION,), blobs=FolderBlobStore(empty), broker=shop.broker
                )
            parts[part].process(found)
        shop.services.follower.follow()
        shop.clock.at = as_of
        yield {str(item["item_id"]): item["score"] for item in shop.page(user_id, limit=20)["items"]}


def is_the_same_list(wanted: Sequence[str], answered: Mapping[str, float]) -> bool:
    """Item by item; two whose scores float32 can hardly tell apart may have changed places.

    Partitions add up counters in another order than one pass does, and a linear ranker reads the last digit.
    """
    if set(wanted) != set(answered):
        return False
    return all(abs(answered[one] - answered[other]) < NEAR_TIE for one, other in zip(wanted, answered, strict=True))


def chosen_pages(pages: Pages, count: int) -> Pages:
    """So many of them, evenly over the period, of those for which the harness took stock of the items anew.

    Popularity may be five minutes old in the harness; the API follows the items just before each page here.
    """
    nothing: tuple[str, int, list[str]] = ("", 0, [])
    fresh = [page for before, page in pairwise([nothing, *pages]) if page[1] - before[1] >= build_training_set.SHELF_MS]
    return [fresh[place] for place in np.linspace(0, len(fresh) - 1, min(count, len(fresh))).astype(int)]
