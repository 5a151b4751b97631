"""Orders, filters with their counts, the blend of text and ranker, and cursors that only this shop can make."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.catalog import CatalogEntry
from shared.errors import InvalidCursor
from shared.events import ItemId
from shared.features.aggregations import NEVER
from shared.features.items import ItemTable
from shared.search.cursor import CursorCodec
from shared.search.facets import Filters, PriceBand, apply
from shared.search.ordering import SearchSort, blend, first
from tests.unit.builders import MODEST

QUERY = ("enamel", None, None, None, None, False, "relevance")
CODEC = CursorCodec("a secret")


# Cursors


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40))
def test_a_cursor_tells_what_was_shown(shown: list[int]) -> None:
    assert CODEC.decode(QUERY, CODEC.encode(QUERY, shown)) == sorted(set(shown))


@given(st.text(max_size=60))
def test_no_text_is_taken_for_a_cursor(text: str) -> None:
    with pytest.raises(InvalidCursor, match="not one of ours"):
        CODEC.decode(QUERY, text)


def test_an_altered_cursor_or_one_of_another_shop_or_search_is_refused() -> None:
    cursor = CODEC.encode(QUERY, [1, 2, 3])
    data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    for place in range(len(data)):
        altered = bytearray(data)
        altered[place] ^= 1
        with pytest.raises(InvalidCursor, match="not one of ours"):
            CODEC.decode(QUERY, base64.urlsafe_b64encode(altered).rstrip(b"=").decode())
    for shorter in (data[:-8], data[8:], data[:25]):
        with pytest.raises(InvalidCursor, match="not one of ours"):
            CODEC.decode(QUERY, base64.urlsafe_b64encode(shorter).rstrip(b"=").decode())
    with pytest.raises(InvalidCursor, match="not one of ours"):
        CODEC.decode(QUERY, CursorCodec("another secret").encode(QUERY, [1, 2, 3]))
    for place in range(len(QUERY)):
        other = (*QUERY[:place], "other", *QUERY[place + 1 :])
        with pytest.raises(InvalidCursor, match="another search"):
            CODEC.decode(other, cursor)


# Orders

COLUMNS = st.integers(1, 30).flatmap(
    lambda count: st.tuples(
        *(st.lists(st.integers(0, 3), min_size=count, max_size=count) for _ in range(4)), st.integers(1, 35)
    )
)


@MODEST
@given(COLUMNS, st.sampled_from(SearchSort))
def test_the_first_hits_are_those_of_a_whole_sort(
    columns: tuple[list[int], list[int], list[int], list[int], int], sort: SearchSort
) -> None:
    values, most = columns[:4], columns[4]
    scores, price, arrived, popularity = map(np.array, values)
    hits = np.arange(len(scores)) * 2
    found = first(
        sort,
        most,
        hits,
        scores=scores.astype(np.float32),
        price_cents=price.astype(np.float64),
        arrived_at=arrived.astype(np.int64),
        popularity=popularity.astype(np.float64),
    )
    key = {
        SearchSort.RELEVANCE: lambda place: -scores[place],
        SearchSort.PRICE: lambda place: price[place],
        SearchSort.PRICE_DOWN: lambda place: -price[place],
        SearchSort.NEWEST: lambda place: -arrived[place],
        SearchSort.POPULARITY: lambda place: -popularity[place],
    }[sort]
    wanted = sorted(range(len(hits)), key=lambda place: (key(place), -popularity[place], -scores[place], place))
    assert found.tolist() == [2 * place for place in wanted][:most]


def test_items_that_never_arrived_are_not_the_newest() -> None:
    ones = np.ones(2)
    found = first(
        SearchSort.NEWEST, 2, np.arange(2), scores=ones.astype(np.float32), price_cents=ones,
        arrived_at=np.array([NEVER, 5]), popularity=ones,
    )  # fmt: skip
    assert found.tolist() == [1, 0]


def test_the_blend_keeps_a_clear_winner_and_lets_the_ranker_decide_among_equals() -> None:
    equal = blend(np.ones(4, np.float32), np.array([3, 1, 4, 2], np.float32))
    assert np.argsort(-equal).tolist() == [2, 0, 3, 1]
    clear = blend(np.array([10, 5, 5, 5], np.float32), np.array([-9, 1, 2, 3], np.float32))
    assert clear.argmax() == 0
    assert blend(np.ones(1, np.float32), np.ones(1, np.float32)).shape == (1,)
    assert blend(np.empty(0, np.float32), np.empty(0, np.float32)).shape == (0,)


# Filters and counts


@pytest.fixture
def table() -> ItemTable:
    table = ItemTable()
    for number, (path, price, stock) in enumerate([
        (["Home", "Kitchen"], 150, 3), (["Home", "Kitchen"], 1200, None), (["Home", "Bath"], 1999, 1),
        (["Garden"], 2000, 2), (["Kitchen", "Kitchen"], 0, 9), ([], 10**9, 1),
    ]):  # fmt: skip
        fields = {"categories": (1, 1, path), "price_cents": (1, 1, price), "stock": (1, 1, stock)}
        table.offer(CatalogEntry(item_id=ItemId(f"i{number}"), fields=fields))
    return table


def test_counts_are_over_all_hits(table: ItemTable) -> None:
    kept, facets = apply(Filters(), table, np.arange(6))
    assert kept.all()
    assert facets.categories == [("Home", 3), ("Kitchen", 3), ("Bath", 1), ("Garden", 1)]
    assert facets.prices == [
        PriceBand(0, 99, 1), PriceBand(100, 199, 1), PriceBand(1000, 1999, 2), PriceBand(2000, 4999, 1),
        PriceBand(500_000_000, None, 1),
    ]  # fmt: skip
    assert (facets.in_stock, facets.stock_unknown) == (5, 1)


def test_each_facet_counts_under_the_other_filters_only(table: ItemTable) -> None:
    chosen = Filters(category="Kitchen", min_price_cents=100, max_price_cents=1500, in_stock=True)
    kept, facets = apply(chosen, table, np.arange(6))
    assert np.flatnonzero(kept).tolist() == [0]
    assert facets.categories == [("Home", 1), ("Kitchen", 1)], "in stock and at that price"
    assert facets.prices == [PriceBand(0, 99, 1), PriceBand(100, 199, 1)], "kitchen things in stock"
    assert (facets.in_stock, facets.stock_unknown) == (1, 1), "kitchen things at that price"


def test_a_path_counts_from_the_root(table: ItemTable) -> None:
    def kept(*path: str) -> list[int]:
        return np.flatnonzero(apply(Filters(path=path), table, np.arange(6))[0]).tolist()

    assert kept("Home") == [0, 1, 2]
    assert kept("Home", "Kitchen") == [0, 1]
    assert kept("Kitchen") == [4]
    assert kept("Kitchen", "Home") == []
    assert kept("Nowhere") == []


def test_a_band_as_a_filter_finds_what_it_counts(table: ItemTable) -> None:
    _, facets = apply(Filters(), table, np.arange(6))
    for band in facets.prices:
        bounds = Filters(min_price_cents=band.min_price_cents, max_price_cents=band.max_price_cents)
        assert apply(bounds, table, np.arange(6))[0].sum() == band.count


def test_without_hits_there_is_nothing_to_count(table: ItemTable) -> None:
    kept, facets = apply(Filters(category="Nowhere"), table, np.empty(0, np.int64))
    assert len(kept) == 0
    assert (facets.categories, facets.prices, facets.in_stock) == ([], [], 0)
