"""A shop's own table, read by its mapping, as history: events, catalogue, rejects, and what a dry run shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np

from batch.collected_events import CatalogueRows, CollectedEvents, Collector, fingerprint, history_rows
from batch.input_files import InputFile, UnreadableInput
from batch.progress import progress
from batch.published_history import History
from batch.rejects import Rejects
from batch.shop_time import chosen_weeks, local_time, shifted, zone_named
from batch.table_catalogue import ItemFacts, TimedFacts, catalogue_rows, described_items, read_items
from batch.table_events import EventMapper
from batch.table_mapping import KINDS
from batch.table_mapping import Mapping as TableMapping
from batch.table_reading import open_rows
from shared.errors import ConfigurationError
from shared.events import from_ms, to_ms
from shared.ingest.lake_table import EVENT_SCHEMA

SHOWN_ROWS: Final = 10


@dataclass(slots=True)
class ReadTable:
    """What the files held: events, what is told of items, and what was rejected of each file."""

    mapping: TableMapping
    events: CollectedEvents
    rows: int
    rejects: Rejects
    items: dict[str, ItemFacts] = field(default_factory=dict)
    item_rows: int = 0
    item_rejects: Rejects | None = None

    @property
    def items_have_prices(self) -> bool:
        """A table of items was read and has a column of prices."""
        part = self.mapping.items
        return self.item_rejects is not None and part is not None and part.columns.price is not None

    def rejects_files(self) -> dict[str, bytes]:
        """The rejected rows as CSV, by what follows the source in the file's name."""
        files = {"": self.rejects.csv()}
        return files if self.item_rejects is None else files | {"-items": self.item_rejects.csv()}

    def told(self) -> list[str]:
        """Rows in and what became of them, line by line."""
        lines = [
            f"rows: {self.rows:,} = {len(self.events):,} events + {self.rejects.total:,} rejected"
            + (f" + {self.rejects.left_out:,} left out by the mapping" if self.rejects.left_out else "")
        ]
        lines += _reasons(self.rejects)
        if self.item_rejects is not None:
            lines.append(
                f"rows of items: {self.item_rows:,} = {len(self.items):,} items + {self.item_rejects.total:,} rejected"
            )
            lines += _reasons(self.item_rejects)
        users, items = (len(self.events.distinct[name]) for name in ("user", "item"))
        lines.append(f"clean: {len(self.events):,} events of {users:,} users with {items:,} items")
        lines += [
            f"  {count:>11,}  {kind}"
            for code, kind in enumerate(KINDS)
            if (count := int((self.events.kind == code).sum()))
        ]
        return lines


def _reasons(rejects: Rejects) -> list[str]:
    lines = []
    for reason, count in rejects.counts.most_common():
        lines.append(f"  {count:>11,}  {reason}")
        for one in rejects.examples[reason]:
            value = f": {one.value[:60]!r}" if one.column else ""
            lines.append(f"               line {one.line:,}{f', {one.column}' if one.column else ''}{value}")
    return lines


def read_table(file: InputFile, mapping: TableMapping, items: InputFile | None, now: datetime) -> ReadTable:
    """Read events and items. Raises UnreadableInput for files that are none, ConfigurationError for a wrong mapping."""
    source = open_rows(file, mapping.events, _columns(mapping.events.columns, "events.columns"))
    rejects, collector, mapper = Rejects(source.names), Collector(), EventMapper(mapping, to_ms(now))
    rows = 0
    with progress(f"reading {file.name}", None, "rows") as advance:
        for batch in source.batches:
            mapped, verdicts = mapper.map(batch)
            collector.add(mapped)
            rejects.add_batch(batch, verdicts)
            rows += batch.size + len(batch.bad)
            advance(batch.size + len(batch.bad))
    if not rows:
        raise UnreadableInput(f"{file.address} holds no rows below its first line; give the whole data set")
    part = mapping.events
    found = ReadTable(mapping, collector.finish(), rows, rejects)
    found.items = described_items(collector.described(), part.category_separator)
    if items is not None:
        _read_items(found, items)
    return found


def _read_items(found: ReadTable, file: InputFile) -> None:
    part = found.mapping.items
    if part is None:
        raise ConfigurationError("--items needs a part [items] in the mapping, with columns.id at least")
    columns = _columns(part.columns, "items.columns") | dict.fromkeys(part.attributes, "items.attributes")
    source = open_rows(file, part, columns)
    found.item_rejects = Rejects(source.names)
    counted = 0

    def count(rows: int) -> None:
        nonlocal counted
        counted += rows

    with progress(f"reading {file.name}", None, "rows") as advance:

        def advanced(rows: int) -> None:
            count(rows)
            advance(rows)

        of_table = read_items(source, found.mapping, found.item_rejects, advanced)
    found.item_rows = counted
    for item, facts in of_table.items():
        found.items[item] = {**found.items.get(item, {}), **facts}


def _columns(columns: Any, place: str) -> dict[str, str]:  # noqa: ANN401 - one of the two structs of columns
    found: dict[str, str] = {}
    for name in columns.__struct_fields__:
        value = getattr(columns, name)
        for one in (value,) if isinstance(value, str) else value or ():
            found[one] = f"{place}.{name}"
    return found


def made_history(read: ReadTable, shift: str, partition_count: int, now: datetime, later: TimedFacts = ()) -> History:
    """The history of what was read, with what the catalogue learnt `later` (as of before the shift).

    Raises UnreadableInput when there is no event, ConfigurationError for a shift that is none or ends beyond `now`.
    """
    if not len(read.events):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in read.rejects.counts.most_common())
        raise UnreadableInput(f"no usable row ({reasons}); --dry-run shows examples")
    zone = zone_named(read.mapping.shop.time_zone)
    newest = int(read.events.occurred_at.max())
    weeks = chosen_weeks(shift, lambda: local_time(newest, zone), zone, now)
    events = read.events.shift(zone, weeks)
    if int(events.occurred_at.max()) > to_ms(now):
        raise ConfigurationError(f"--shift-weeks {weeks} moves the data beyond now; use auto")
    catalogue = catalogue_rows(
        events,
        read.items,
        read.mapping,
        weeks=weeks,
        follow_paid=not read.items_have_prices,
        later=_shifted(later, zone, weeks),
    )
    mark = fingerprint(events, catalogue, zone.key, weeks, partition_count)
    return History(
        shop=read.mapping.shop_settings(),
        shift_weeks=weeks,
        fingerprint=mark,
        tables=lambda: history_rows(events, catalogue, mark),
        rejects=read.rejects_files,
        behaviour=len(events),
        told=read.told(),
    )


def _shifted(later: TimedFacts, zone: ZoneInfo, weeks: int) -> TimedFacts:
    moved = shifted(np.array([at for _, at, _ in later], dtype=np.int64), zone, weeks).tolist()
    return [(item, at, facts) for (item, _, facts), at in zip(later, moved, strict=True)]


def dry_run_lines(read: ReadTable) -> list[str]:
    """What a dry run shows: the first mapped rows of the file, and what became of all of them."""
    lines = [f"the first {min(SHOWN_ROWS, len(read.events))} events, mapped:"]
    events = _head(read.events, SHOWN_ROWS)
    nothing = CatalogueRows(events.occurred_at[:0], [], [])
    for table in history_rows(events, nothing, "line"):
        for row in table.to_pylist():
            known = {name: row[name] for name in EVENT_SCHEMA.names if row[name] is not None}
            known["occurred_at"] = from_ms(row["occurred_at"]).isoformat()
            told = ", ".join(f"{name}={value}" for name, value in known.items())
            facts = read.items.get(row["item_id"], {})
            lines.append(f"  {told}" + (f"; item: {_short(facts)}" if facts else ""))
    return [*lines, *read.told(), "nothing was written (--dry-run)"]


def _short(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={str(value)[:40]}" for name, value in facts.items())


def _head(events: CollectedEvents, size: int) -> CollectedEvents:
    return CollectedEvents(
        occurred_at=events.occurred_at[:size], kind=events.kind[:size],
        quantity=events.quantity[:size], price=events.price[:size],
        line=events.line[:size], codes={name: codes[:size] for name, codes in events.codes.items()},
        distinct=events.distinct, ids=events.ids.slice(0, size),
    )  # fmt: skip
