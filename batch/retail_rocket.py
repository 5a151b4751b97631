"""RetailRocket's data set as its publisher ships it (events.csv and what lies beside it), or events as Parquet.

Source: R. Zykov, N. Artem, A. Alexander, Retailrocket recommender system dataset, Kaggle, 2017 (CC BY-NC-SA 4.0).
Ids and properties are hashed: of an item nothing is known but its category and whether it was to be had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from batch.collected_events import CollectedEvents
from batch.input_files import InputFile, UnreadableInput
from batch.progress import progress
from batch.table_catalogue import ItemFacts
from batch.table_mapping import Mapping as TableMapping
from batch.table_mapping import mapping_of

PROPERTY_FILES: Final = ("item_properties_part1.csv", "item_properties_part2.csv", "item_properties.csv")
TREE_FILE: Final = "category_tree.csv"

_NAMES: Final = {"view": "view", "addtocart": "cart", "transaction": "purchase"}
_PUBLISHED: Final = {"time": "timestamp", "user": "visitorid", "item": "itemid", "event": "event"}
_SHORT: Final = {"time": "ts", "user": "user", "item": "item", "event": "event"}
_CATEGORY, _AVAILABLE = "categoryid", "available"
_MOST_LEVELS: Final = 10


def retail_rocket_mapping(file: InputFile, time_zone: str, bought_window_days: int) -> TableMapping:
    """How the file is read: the publisher's columns with epoch milliseconds, or user, item, event, ts with seconds.

    The publisher says nothing of the shop's zone; the instants are UTC.
    """
    columns, form = {**_PUBLISHED, "order": "transactionid"}, "epoch_ms"
    if file.suffixes[-1:] == (".parquet",):
        with file.open() as raw:
            try:
                names = pq.read_schema(pa.PythonFile(raw)).names
            except pa.ArrowInvalid as error:
                raise UnreadableInput(f"{file.address} cannot be read as Parquet: {error}") from error
        if "ts" in names:
            columns, form = _SHORT, "epoch_s"
    document: dict[str, Any] = {
        "shop": {"name": "RetailRocket", "time_zone": time_zone, "bought_window_days": bought_window_days},
        "events": {"separator": ",", "columns": columns, "names": _NAMES, "time_format": form},
    }
    return mapping_of(document, "RetailRocket")


def item_properties(
    file: InputFile, events: CollectedEvents
) -> tuple[dict[str, ItemFacts], list[tuple[str, int, ItemFacts]], list[str]]:
    """What the files beside `events.csv` tell of the items that have events: at their first sight, and later.

    The third part says which files were read. Without any of them the first two are empty. A changed category, or an
    item that is not to be had for a while (hidden), is a later fact at the instant of its row.
    """
    found = {name: other for name in (*PROPERTY_FILES, TREE_FILE) if (other := file.beside(name)) is not None}
    paths = _paths(found.pop(TREE_FILE)) if TREE_FILE in found else {}
    tables = [_category_and_availability(other, events.distinct["item"]) for other in found.values()]
    if not tables:
        return {}, [], []
    rows = pa.concat_tables(tables)
    rows = rows.take(pc.sort_indices(rows, [("timestamp", "ascending"), ("itemid", "ascending")]))
    first = dict(zip(events.distinct["item"].to_pylist(), events.first_seen().tolist(), strict=True))
    told: dict[str, ItemFacts] = {}
    now: dict[str, ItemFacts] = {}
    later: list[tuple[str, int, ItemFacts]] = []
    columns = (rows[name].to_pylist() for name in ("timestamp", "itemid", "property", "value"))
    for at, item, name, value in zip(*columns, strict=True):
        fact: ItemFacts = {"hidden": value == "0"} if name == _AVAILABLE else {"categories": paths.get(value, [value])}
        held = now.setdefault(item, {})
        if any(held.get(key) == one for key, one in fact.items()):
            continue
        held |= fact
        if at < first[item]:
            told.setdefault(item, {}).update(fact)
        else:
            later.append((item, at, fact))
    return told, later, [*found, *([TREE_FILE] if paths else [])]


def _category_and_availability(file: InputFile, items: pa.Array) -> pa.Table:
    """Rows of (timestamp, itemid, property, value) for the two properties that are not hashed."""
    wanted = pa.array([_CATEGORY, _AVAILABLE])
    types = {"timestamp": pa.int64(), "itemid": pa.string(), "property": pa.string(), "value": pa.string()}
    kept: list[pa.RecordBatch] = []
    with file.open() as raw, progress(f"reading {file.name}", None, "rows") as advance:
        try:
            options = pa_csv.ConvertOptions(column_types=types, include_columns=list(types))
            for batch in pa_csv.open_csv(raw, convert_options=options):
                of_two = batch.filter(pc.is_in(batch["property"], value_set=wanted))
                kept.append(of_two.filter(pc.is_in(of_two["itemid"], value_set=items)))
                advance(batch.num_rows)
        except (pa.ArrowInvalid, KeyError) as error:
            raise UnreadableInput(
                f"{file.address} cannot be read: {error}; download it again or move it away"
            ) from error
    return pa.Table.from_batches(kept, pa.schema(list(types.items())))


def _paths(file: InputFile) -> dict[str, list[str]]:
    """Category id -> its path from root to leaf."""
    with file.open() as raw:
        try:
            options = pa_csv.ConvertOptions(
                column_types={"categoryid": pa.string(), "parentid": pa.string()}, strings_can_be_null=True
            )
            table = pa_csv.read_csv(raw, convert_options=options)
            parents = dict(zip(table["categoryid"].to_pylist(), table["parentid"].to_pylist(), strict=True))
        except (pa.ArrowInvalid, KeyError) as error:
            raise UnreadableInput(
                f"{file.address} cannot be read: {error}; download it again or move it away"
            ) from error
    return {one: _path(one, parents) for one in parents if one}


def _path(category: str, parents: Mapping[str, str | None]) -> list[str]:
    path = [category]
    while (above := parents.get(path[-1])) and above not in path and len(path) < _MOST_LEVELS:
        path.append(above)
    return path[::-1]


def as_told(names: Iterable[str]) -> list[str]:
    """The line that says which files were read beside the events."""
    found = ", ".join(names)
    return [f"items: {found or 'no properties beside the file; titles are the ids, categories unknown'}"]
