"""A source is one class: swap what it says, and harness pages, the night's Spark output and the API change together.

No Spark session: what is called is the very function that the stages hand to `mapInArrow`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from batch import build_candidates, build_neighbours
from batch.build_neighbours import Slice
from batch.catalog_snapshot import encode_entries
from batch.evaluation.fit import lists_of
from batch.evaluation.pages import PageMaker
from batch.evaluation.phases import Known, Queries
from batch.evaluation.pseudo_events import ItemAttributes, fold_items
from batch.models.neighbour_lists import NeighbourLists, list_heads
from batch.nightly_records import Night
from batch.periods import SPANS
from batch.retrieval_span import load_span, save_span
from local.embedded import EmbeddedServers
from shared.adapters.folder_blob import FolderBlobStore
from shared.candidates.als import AlsSource, ItemFactors
from shared.candidates.opinion import Opinion
from shared.candidates.query import REQUEST_KINDS, ListKind, Neighbours
from shared.candidates.ranked import Indexes, Ranked, Scores
from shared.candidates.span import SpanModel
from shared.events import EventType
from shared.features.definitions import Retrieval
from shared.ingest.lake import ShopSettings, publish_history, read_rows
from shared.ingest.lake_table import unnumbered_table
from shared.recommend import default_sources
from shared.releases.bundle import Bundle, load_bundle
from tests.contract.source_nights import LIST_SIZE, fitted
from tests.contract.source_world import COUNT
from tests.integration.api_shop import (
    CATEGORIES,
    LIST_LENGTH,
    PER_CATEGORY,
    RELEASE,
    ApiShop,
    category_of,
    item_id,
    neighbours,
    open_shop,
)
from tests.unit.builders import NOW, event

ITEMS = CATEGORIES * PER_CATEGORY
CLICKED = (103, 111)
ANN = "ann"
EXACT = {Retrieval.ALS, *(Retrieval(kind.value) for kind in REQUEST_KINDS)}
"""Sources whose order is that of the API's shop in the harness's, too: nothing that the crowd did moves them."""
SILENT: tuple[set[Retrieval], set[Retrieval]] = set(), {Retrieval.ARRIVALS}
"""In the API and in the harness, whose items have always been there."""

Places = dict[int, int]
"""The rank of each item."""


def stays(items: Indexes) -> NDArray[np.bool_]:
    return np.asarray(items % 7 % 2 == 0)


@dataclass(frozen=True)
class Backwards:
    """Another opinion: the last first, and some left out."""

    inner: Opinion

    def top(self, limit: int) -> Ranked:
        ranked = self.inner.top(limit)
        kept = stays(ranked.indexes)
        return Ranked(ranked.indexes[kept][::-1], ranked.scores[kept], ranked.via[kept][::-1])

    def at(self, candidates: Indexes) -> Scores:
        return np.where(stays(candidates), self.inner.at(candidates), 0).astype(np.float32)


def swap(patch: pytest.MonkeyPatch, source: type) -> None:
    """In the class, and nowhere else."""
    method = "consider_for" if source is AlsSource else "consider"  # the night keeps the factor, too
    original = getattr(source, method)
    patch.setattr(source, method, lambda *arguments: Backwards(original(*arguments)))


@pytest.fixture(scope="module")
def shop(own_servers: EmbeddedServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiShop]:
    folder = tmp_path_factory.mktemp("shop")
    with open_shop(own_servers.state_url, own_servers.log_url, folder) as opened:
        for index in CLICKED:
            opened.click(ANN, index)
        yield opened


@pytest.fixture(scope="module")
def bundle(shop: ApiShop) -> Bundle:
    return load_bundle(shop.blobs, RELEASE)


def factors_of(bundle: Bundle) -> ItemFactors:
    return ItemFactors.from_params(bundle.factors, bundle.manifest.als)


def in_the_api(shop: ApiShop, name: Retrieval) -> Places:
    """Of the items that are shown."""
    page = shop.page(ANN, limit=100, explain="true")
    said = ((item["item_id"], item["explanation"]["sources"].get(name.value)) for item in page["items"])
    return {int(item.removeprefix("sku-")): places["rank"] for item, places in said if places is not None}


@pytest.fixture(scope="module")
def harness(bundle: Bundle) -> PageMaker:
    """The same shop and clicks as a data set."""
    lists = np.array([neighbours(index) for index in range(ITEMS)], np.int32)
    scores = np.tile(np.linspace(1.0, 0.5, LIST_LENGTH, dtype=np.float32), (ITEMS, 1))
    span = SpanModel(factors_of(bundle), dict.fromkeys(ListKind, Neighbours(lists, scores)))
    crowd = np.arange(0, ITEMS, 3, dtype=np.int32)
    rows = Known(crowd % 7, crowd, np.full(len(crowd), 10**8), np.zeros(len(crowd), np.int32))
    paths: dict[int, tuple[str, ...]] = {index: ("Shop", category_of(index)) for index in range(ITEMS)}
    table = fold_items(rows, ITEMS, ItemAttributes(paths=paths), EventType.VIEW, lambda _: None)
    clicks = np.array(CLICKED, np.int32), np.array([60_000, 30_000]), np.array([0, 2])
    queries = Queries(np.zeros(1, np.int32), *clicks, np.array([5], np.int32), np.array([0, 1]))
    return PageMaker.of(queries, table, span, EventType.VIEW, masked=False, negatives=None, seed=0)


def in_the_harness(harness: PageMaker, name: Retrieval) -> Places:
    pages = harness.table_of(range(1))
    ranks = pages.ranks[:, list(Retrieval).index(name)]
    return {int(index): int(rank) for index, rank in zip(pages.index, ranks, strict=True) if rank > 0}


def in_spark(bundle: Bundle, folder: Path) -> Places:
    """Her list as build_candidates' workers make it, from the lake's rows."""
    clicks = [event("view", item=item_id(index), user=ANN, at=NOW + place) for place, index in enumerate(CLICKED)]
    blobs = FolderBlobStore(folder)
    publish_history(blobs, "clicks", 4, ShopSettings(name="test", time_zone="UTC"), [unnumbered_table(clicks)], 3)
    night = Night(encode_entries(bundle.entries), factors_of(bundle), NOW + 10, 30, "UTC")
    session = SimpleNamespace(sparkContext=SimpleNamespace(broadcast=lambda sent: SimpleNamespace(value=sent)))
    of_workers = build_candidates._records_of(cast("SparkSession", session), night)
    made = pa.Table.from_batches(of_workers(iter(read_rows(blobs).to_batches())))
    assert made["user_id"].to_pylist() == [ANN]
    return {index: rank for rank, index in enumerate(made["indexes"][0].as_py(), start=1)}


def order(places: Places, common: set[int]) -> list[int]:
    return sorted(common & set(places), key=lambda item: places[item])


@pytest.mark.parametrize("name", list(Retrieval), ids=str)
def test_another_opinion_in_one_class_moves_pages_of_harness_and_api_alike(
    name: Retrieval, shop: ApiShop, harness: PageMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = type(default_sources(harness.span.factors)[name])

    def both() -> tuple[Places, Places]:
        return in_the_api(shop, name), in_the_harness(harness, name)

    before = both()
    swap(monkeypatch, source)
    after = both()
    for silent, places, moved in zip(SILENT, before, after, strict=True):
        assert all(stays(np.array(list(moved), np.int32)))
        if name in silent:
            assert not places
            assert not moved
        else:
            assert moved
            assert set(places) - set(moved)
    if name in EXACT:
        for api, pages in (before, after):
            common = set(api) & set(pages)
            assert len(common) >= 5
            assert order(api, common) == order(pages, common)
        common = set(after[1]) & set(before[1])
        assert order(after[1], common) == order(before[1], common)[::-1]


def test_another_opinion_of_als_moves_the_nights_records_as_it_moves_pages(
    shop: ApiShop, harness: PageMaker, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everywhere(folder: str) -> tuple[Places, Places, Places]:
        return (
            in_spark(bundle, tmp_path / folder),
            in_the_harness(harness, Retrieval.ALS),
            in_the_api(shop, Retrieval.ALS),
        )

    before = everywhere("before")
    swap(monkeypatch, AlsSource)
    after = everywhere("after")
    for found in (before, after):
        common = set.intersection(*map(set, found))
        assert len(common) >= 5
        assert len({tuple(order(places, common)) for places in found}) == 1
    common = set(before[0]) & set(after[0])
    assert all(stays(np.array(list(after[0]), np.int32)))
    assert order(after[0], common) == order(before[0], common)[::-1]


def test_another_score_in_the_nights_lists_moves_spark_and_harness_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_span(tmp_path, "all", fitted(range(COUNT)), {})
    saved = load_span(tmp_path, "all")

    def both() -> tuple[list[Any], list[Any]]:
        sizes = dict.fromkeys(SPANS, LIST_SIZE)
        slices: list[Slice] = [("all", ListKind.COOCCURRENCE, 0, 5), ("all", ListKind.COOCCURRENCE, 5, COUNT)]
        of_workers = build_neighbours._slices_to_lists(tmp_path, slices, sizes)
        places = pa.RecordBatch.from_arrays([pa.array([0, 1])], names=["id"])
        rows = pa.Table.from_batches(of_workers(iter([places])))
        whole = lists_of(saved, ListKind.COOCCURRENCE, COUNT, lambda _: None)
        harness = [
            (row[row >= 0].tolist(), score[row >= 0].tolist())
            for row, score in zip(whole.indexes, whole.scores, strict=True)
        ]
        spark = [
            (row, columns[0])
            for row, columns in zip(rows["indexes"].to_pylist(), rows["columns"].to_pylist(), strict=True)
        ]
        return spark, harness

    before = both()
    assert before[0] == before[1]

    def doubled(*arguments: Any, **named: Any) -> NeighbourLists:
        found = list_heads(*arguments, **named)
        return NeighbourLists(found.indexes, found.scores * 2)

    monkeypatch.setattr("batch.build_neighbours.list_heads", doubled)
    after = both()
    assert after[0] == after[1]
    assert [[2 * score for score in scores] for _, scores in before[0]] == [scores for _, scores in after[0]]
