"""What the night's workers do, without Spark: lists cut into rows and read back, and the record of each user."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from batch.build_neighbours import batch_of, cut_lists
from batch.catalog_snapshot import encode_entries
from batch.models.neighbour_lists import NeighbourLists
from batch.nightly_records import Night, records
from batch.published_lists import item_lists
from batch.retrieval_span import FITTED_KINDS, RetrievalParams, RetrievalSpan
from shared.candidates.als import ItemFactors
from shared.candidates.nightly import opinion_of, record_holds
from shared.candidates.query import ListKind
from shared.candidates.span import lists_folder, load_lists
from shared.catalog import CatalogEntry
from shared.errors import ConfigurationError
from shared.events import EventType, ItemId
from shared.features.replay import LoggedEvent, UserShards
from tests.unit.builders import NOW, event

ITEMS = 12


def fitted() -> RetrievalSpan:
    draw = np.random.default_rng(3)
    matrices = {
        kind: sparse.csr_array(sparse.random_array((ITEMS, ITEMS), density=0.3, rng=draw, dtype=np.float32))
        for kind in FITTED_KINDS
    }
    baskets = sparse.csr_array((draw.random((60, ITEMS)) < 0.3).astype(np.int32))
    factors = ItemFactors.of(draw.normal(size=(ITEMS, 4)).astype(np.float32), 1.0, 1.0)
    empty = sparse.csr_array((1, ITEMS), dtype=np.float32)
    return RetrievalSpan(0, RetrievalParams(), factors, np.ones(ITEMS, np.float32), empty, matrices, baskets)


@pytest.mark.parametrize("kind", list(ListKind))
def test_lists_come_back_as_they_were_cut_whatever_the_slices(kind: ListKind, tmp_path: Path) -> None:
    span = fitted()
    folder = lists_folder(tmp_path, "all", kind)
    folder.mkdir(parents=True)
    for part, (start, stop) in enumerate([(8, 12), (0, 5), (5, 8)]):
        rows = batch_of("all", kind, start, cut_lists(span, kind, start, stop, 6))
        pq.write_table(pa.Table.from_batches([rows]), folder / f"part-{part:05}.parquet")
    indexes, columns = cut_lists(span, kind, 0, ITEMS, 6)
    found = load_lists(folder, ITEMS)
    width = found.indexes.shape[1]
    np.testing.assert_array_equal(found.indexes, indexes[:, :width])
    np.testing.assert_array_equal(found.scores, columns[0][:, :width])
    assert (indexes[:, width:] == -1).all()
    published = dict(item_lists(tmp_path, kind))
    assert sorted(published) == list(range(ITEMS))
    for item, neighbours in published.items():
        length = int((indexes[item] >= 0).sum())
        np.testing.assert_array_equal(neighbours.indexes, indexes[item, :length])
        np.testing.assert_allclose(neighbours.columns, np.array([column[item, :length] for column in columns]))


def test_rows_of_empty_lists_keep_their_columns(tmp_path: Path) -> None:
    nothing = NeighbourLists(np.full((3, 2), -1, np.int32), np.zeros((3, 2), np.float32))
    folder = lists_folder(tmp_path, "all", ListKind.SIMILAR)
    folder.mkdir(parents=True)
    rows = batch_of("all", ListKind.SIMILAR, 0, (nothing.indexes, [nothing.scores, nothing.scores]))
    pq.write_table(pa.Table.from_batches([rows]), folder / "part-00000.parquet")
    assert (load_lists(folder, 3).indexes == -1).all()
    assert [neighbours.columns.shape for _, neighbours in item_lists(tmp_path, ListKind.SIMILAR)] == [(2, 0)] * 3


def test_lists_of_another_number_of_items_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"batch\.build_neighbours"):
        load_lists(tmp_path, 3)
    rows = batch_of("all", ListKind.SIMILAR, 0, (np.zeros((2, 1), np.int32), [np.ones((2, 1), np.float32)]))
    pq.write_table(pa.Table.from_batches([rows]), tmp_path / "part-00000.parquet")
    with pytest.raises(ConfigurationError, match="lists of 2 items, the shop has 3"):
        load_lists(tmp_path, 3)


def night(as_of: int = NOW) -> Night:
    entries = [
        CatalogEntry(
            item_id=ItemId(f"item-{number}"), fields={"title": (1, 1, "T"), "stock": (1, 1, 5 * (number != 7))}
        )
        for number in range(ITEMS)
    ]
    return Night(encode_entries(entries), fitted().items, as_of, 30, "UTC")


def logged(sequence: int, user: str, item: int, kind: EventType = EventType.VIEW) -> LoggedEvent:
    at = NOW - 3_600_000 + sequence * 1000
    return LoggedEvent("h", 0, sequence, at, event(kind, user=user, item=f"item-{item}", at=at))


def test_a_record_is_made_from_the_state_the_api_would_read() -> None:
    rows = [
        logged(0, "ann", 1),
        logged(2, "ann", 2, EventType.PURCHASE),
        logged(1, "bob", 3),
        logged(1, "bob", 3),  # the same coordinates twice: two files overlap
    ]
    made = dict(records(night(), iter(rows)))
    assert list(made) == ["ann", "bob"]
    users = UserShards()
    for row in (rows[0], rows[1], rows[2]):
        users.fold(row)
    for user, record in made.items():
        assert record_holds(record, users.shopper(user, NOW).state)
        assert 7 not in record.indexes, "out of stock"
        assert (np.diff(record.scores) <= 0).all()
        assert record.vector.shape == (4,)
    assert made["bob"].actions_count == 1
    assert not {1, 2} & set(made["ann"].indexes.tolist()), "what she touched is left to the repeat source"
    users.fold(logged(9, "ann", 5))
    assert not record_holds(made["ann"], users.shopper("ann", NOW).state)


def test_a_user_without_actions_or_long_idle_gets_no_record() -> None:
    wish = logged(0, "ann", 1, EventType.REMOVE_FROM_CART)
    assert not list(records(night(), iter([wish])))
    late = night(NOW + 500 * 24 * 3_600_000)
    assert not list(records(late, iter([logged(0, "ann", 1)])))


def test_a_record_shows_nothing_that_may_not_be_shown_now() -> None:
    from shared.recommend import PageRequest, als_source, prepare

    evening = night()
    shelf, model = evening.shelf(), evening.model()
    ((_, record),) = records(evening, iter([logged(0, "ann", 1)]))
    users = UserShards()
    users.fold(logged(0, "ann", 1))
    gone = int(record.indexes[0])
    request = PageRequest(NOW, excluded_rows=frozenset({int(shelf.rows[gone])}))
    prepared = prepare(shelf, model, users.shopper("ann", NOW), request)
    ranked = opinion_of(record, als_source(model), prepared.query).top(100)
    assert gone not in ranked.indexes
    np.testing.assert_array_equal(ranked.indexes, record.indexes[1:])
    shorter = opinion_of(record, als_source(model), prepared.query).top(2)
    np.testing.assert_array_equal(shorter.indexes, record.indexes[1:3])
