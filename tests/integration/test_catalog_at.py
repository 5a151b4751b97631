"""The catalogue at a span's end: later changes are not known, and what was not described then says nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from batch import build_interactions, fit_retrieval
from batch.build_neighbours import cut_lists
from batch.catalog_snapshot import fold_catalog, load_item_ids, products_at
from batch.periods import SPANS
from batch.retrieval_span import load_span
from shared.adapters.folder_blob import FolderBlobStore
from shared.candidates.query import ListKind
from shared.errors import ConfigurationError
from shared.events import EventType, ItemId
from shared.features.aggregations import DAY_MS
from shared.ingest.lake import ShopSettings, publish_history
from shared.ingest.lake_table import unnumbered_table
from tests.unit.builders import NOW, event, updated

START = NOW - 40 * DAY_MS
ITEMS = ("tea", "cup", "late", "renamed")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of five items one is described on the last day, and another gets the others' title then."""
    data = tmp_path_factory.mktemp("shop")
    rows = [updated(item, at=START, title="Green thing", brand="B") for item in ("tea", "cup")]
    rows += [updated("renamed", at=START, title="Something else"), updated("renamed", at=NOW, title="Green thing")]
    rows += [updated("late", at=NOW, title="Green thing"), updated("odd", at=START, title="Red sock")]
    draw = random.Random(2)
    for _ in range(200):
        at = draw.randrange(START, NOW)
        rows.append(event(EventType.VIEW, user=f"user-{draw.randrange(9)}", item=draw.choice(ITEMS[:2]), at=at))
    publish_history(
        FolderBlobStore(data),
        "history",
        1,
        ShopSettings(),
        [unnumbered_table(sorted(rows, key=lambda row: row.occurred_at_ms))],
    )
    assert build_interactions.main(["--data", str(data)]) == 0
    return data


def test_products_are_those_of_the_instant(shop: Path) -> None:
    blobs = FolderBlobStore(shop)
    assert set(load_item_ids(shop)) == {*ITEMS, "odd"}
    ids = [ItemId(item) for item in ITEMS]
    assert [product.title for product in products_at(blobs, ids, NOW - 1)] == [
        "Green thing", "Green thing", "", "Something else",
    ]  # fmt: skip
    assert [product.item_id for product in products_at(blobs, ids, NOW - 1)] == ids
    assert {product.title for product in products_at(blobs, ids, NOW)} == {"Green thing"}
    with pytest.raises(ConfigurationError, match="'late'"):
        fold_catalog(blobs, ids, NOW - 1)


def test_each_span_fits_attributes_of_its_own_end(shop: Path) -> None:
    assert fit_retrieval.main(["--data", str(shop), "--factors", "4", "--iterations", "1"]) == 0
    ids = load_item_ids(shop)
    tea = ids.index(ItemId("tea"))
    for span in SPANS:
        (row, *_), _ = cut_lists(load_span(shop, span), ListKind.ATTRIBUTES, tea, tea + 1, len(ids))
        alike = {ids[index] for index in row.tolist() if index >= 0}
        assert alike == ({"cup", "late", "renamed"} if span == "all" else {"cup"})
