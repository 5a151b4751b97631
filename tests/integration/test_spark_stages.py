"""The Spark stages end to end on a small lake, against the same code run without Spark."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from batch import build_candidates, build_interactions, build_neighbours, build_release, fit_retrieval
from batch.build_neighbours import cut_lists
from batch.catalog_snapshot import encode_entries, fold_catalog, load_item_ids
from batch.nightly_records import Night, records
from batch.periods import SPANS
from batch.published_lists import item_lists, load_summary, user_records
from batch.retrieval_span import load_span as load_fitted
from batch.spark import stop_session
from shared.adapters.folder_blob import FolderBlobStore
from shared.candidates.nightly import record_holds
from shared.candidates.query import REQUEST_KINDS, ListKind
from shared.candidates.span import lists_folder, load_factors, load_lists, load_span
from shared.events import Event, EventType
from shared.features.aggregations import DAY_MS
from shared.features.replay import LoggedEvent, UserShards
from shared.ingest.lake import ShopSettings, publish_history, read_manifest, read_rows
from shared.ingest.lake_table import unnumbered_table
from shared.ingest.logged_events import logged_events
from tests.unit.builders import NOW, event

ITEMS, USERS = 40, 25
KINDS = [EventType.VIEW] * 6 + [EventType.CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE]

pytestmark = [pytest.mark.spark, pytest.mark.timeout(400), pytest.mark.xdist_group("spark")]


def history(seed: int) -> list[Event]:
    draw = random.Random(seed)
    start = NOW - 20 * DAY_MS
    rows = [
        event(
            EventType.ITEM_UPDATED,
            user=None,
            item=f"item-{n}",
            at=start,
            event_id=f"new {n}",
            changes={"title": f"Thing {n % 3}"},
        )
        for n in range(ITEMS)
    ]
    moments = sorted(draw.randrange(start, NOW) for _ in range(900))
    for n, at in enumerate(moments):
        kind, user, item = draw.choice(KINDS), f"user-{draw.randrange(USERS)}", f"item-{draw.randrange(ITEMS)}"
        rows.append(
            event(kind, user=user, item=item, at=at, event_id=f"event {n}", session_id=f"{user} {at // (5 * DAY_MS)}")
        )
    rows.append(event(EventType.PREFERENCES_SET, user="only-wishes", item=None, at=NOW, event_id="w", changes={}))
    return rows


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a lake, its interactions, retrieval, and what the two Spark stages make of them."""
    data = tmp_path_factory.mktemp("a shop")
    publish_history(FolderBlobStore(data), "history-t", 3, ShopSettings(), [unnumbered_table(history(5))])
    command = ["--data", str(data)]
    assert build_interactions.main(command) == 0
    assert fit_retrieval.main([*command, "--factors", "8", "--iterations", "3"]) == 0
    try:
        assert build_neighbours.main([*command, "--master", "local[2]", "--list-size", "10"]) == 0
        assert build_candidates.main([*command, "--master", "local[2]"]) == 0
        yield data
    finally:
        stop_session()


def test_neighbours_of_every_span_are_those_of_the_models(shop: Path) -> None:
    for span in SPANS:
        fitted, found = load_fitted(shop, span), load_span(shop, span)
        for kind in ListKind:
            indexes, columns = cut_lists(fitted, kind, 0, ITEMS, 10)
            lists = load_lists(lists_folder(shop, span, kind), ITEMS)
            width = lists.indexes.shape[1]
            np.testing.assert_array_equal(lists.indexes, indexes[:, :width])
            np.testing.assert_allclose(lists.scores, columns[0][:, :width], rtol=1e-6)
            assert span != "all" or (lists.indexes >= 0).any()
            if kind in REQUEST_KINDS:
                np.testing.assert_array_equal(found.neighbours[kind].indexes, lists.indexes)
    assert sorted(path.name for path in (shop / "nightly/lists").iterdir()) == sorted(SPANS)


def test_candidates_are_what_the_request_path_says_without_spark(shop: Path) -> None:
    blobs = FolderBlobStore(shop)
    manifest = read_manifest(blobs)
    assert manifest is not None
    summary = load_summary(shop)
    assert summary.as_of == NOW
    entries = fold_catalog(blobs, load_item_ids(shop), NOW)
    night = Night(encode_entries(entries), load_factors(shop, "all"), NOW, manifest.shop.bought_window_days, "UTC")
    events = [one for one in logged_events(read_rows(blobs)) if one.event.user_id is not None]
    by_user: dict[str, list[LoggedEvent]] = {}
    users = UserShards()
    for one in events:
        by_user.setdefault(str(one.event.user_id), []).append(one)
        users.fold(one)
    expected = dict(records(night, (one for rows in by_user.values() for one in rows)))
    found = dict(user_records(shop))
    assert len(found) == summary.users == USERS
    assert found.keys() == expected.keys()
    for user, record in found.items():
        np.testing.assert_array_equal(record.indexes, expected[user].indexes)
        np.testing.assert_array_equal(record.scores, expected[user].scores)
        np.testing.assert_array_equal(record.vector, expected[user].vector)
        assert record_holds(record, users.shopper(user, NOW).state)


def test_the_stages_leave_the_same_bytes_when_they_run_again(shop: Path) -> None:
    def content() -> dict[str, bytes]:
        folders = [shop / "nightly/candidates", shop / "nightly/lists"]
        paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(shop)): path.read_bytes() for path in paths}

    before = content()
    assert len(before) > 9
    assert build_neighbours.main(["--data", str(shop), "--list-size", "10"]) == 0
    assert build_candidates.main(["--data", str(shop)]) == 0
    assert content() == before
    lists = {kind: dict(item_lists(shop, kind)) for kind in ListKind}
    assert all(sorted(found) == list(range(ITEMS)) for found in lists.values())


def test_a_missing_stage_is_named(tmp_path: Path, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_neighbours.main(["--data", str(tmp_path)]) == 2
    assert "batch.fit_retrieval" in capsys.readouterr().err
    assert build_candidates.main(["--data", str(tmp_path)]) == 2
    assert "batch.generate_shop" in capsys.readouterr().err
    assert build_release.main(["--data", str(shop)]) == 2
    assert "build_training_set" in capsys.readouterr().err
