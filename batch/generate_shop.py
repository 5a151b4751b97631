"""Generate a synthetic shop: a history of events with structure to find, published as the lake's ingested source."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from batch.progress import progress
from batch.synthetic_shop.calendar import build_calendar, last_midnight
from batch.synthetic_shop.simulation import BlockOrder, Simulation
from batch.synthetic_shop.tables import ShopTables
from shared.adapters.folder_blob import FolderBlobStore
from shared.cli import command
from shared.errors import ConfigurationError
from shared.events import EventType, from_ms, to_ms
from shared.ingest.lake import ShopSettings, publish_history, read_manifest

GENERATOR_VERSION = 2
"""Stands in the source's name: raise it with every change of what equal arguments generate."""

LEAST_EVENTS_A_USER = 6
_MOST = {"users": 10_000_000, "items": 1_000_000, "events": 1_000_000_000, "days": 3_650, "partitions": 1_024}


@dataclass(frozen=True, slots=True)
class ShopPlan:
    """All that decides the bytes of a history; `ends_at` is in epoch ms."""

    users: int
    items: int
    events: int
    days: int
    seed: int
    ends_at: int
    time_zone: str
    partitions: int

    @property
    def source_name(self) -> str:
        """The event source's name: the plan and the generator's version, hashed."""
        text = "|".join(str(value) for value in (GENERATOR_VERSION, *astuple(self)))
        return f"history-{blake2b(text.encode(), digest_size=6).hexdigest()}"


def shop_tables(plan: ShopPlan, order: BlockOrder | None = None) -> Iterator[pa.Table]:
    """The plan's history, one table of unnumbered lake rows a shop-local day, in time order."""
    calendar = build_calendar(plan.seed, plan.days, plan.ends_at, ZoneInfo(plan.time_zone))
    simulation = Simulation(plan.seed, plan.users, plan.items, plan.events, calendar)
    tables = ShopTables(simulation, prefix=plan.source_name.removeprefix("history-"))
    return tables.tables(simulation.days(order))


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when the history stands in the lake, 2 when the arguments do not make a shop."""
    plan, out = _parse(argv)
    blobs = FolderBlobStore(out)
    manifest = read_manifest(blobs)
    if manifest is not None and manifest.source(plan.source_name) is not None:
        print(f"{plan.source_name} stands in {out} already: the same arguments give the same shop")
    started = time.monotonic()
    counts: Counter[str] = Counter()
    shop = ShopSettings(name="synthetic", time_zone=plan.time_zone, bought_window_days=30)
    with progress("generate_shop", total=plan.events, unit="events") as advance:
        tables = _counted(shop_tables(plan), counts, advance)
        publish_history(blobs, plan.source_name, plan.partitions, shop, tables)
    if counts:
        _print_summary(plan, out, counts, time.monotonic() - started)
    return 0


def _counted(tables: Iterable[pa.Table], counts: Counter[str], advance: Callable[[int], None]) -> Iterator[pa.Table]:
    for table in tables:
        of_day = {str(row["values"]): int(row["counts"]) for row in pc.value_counts(table["event_type"]).to_pylist()}
        counts.update(of_day)
        advance(sum(of_day.values()) - of_day.get(EventType.ITEM_UPDATED, 0))
        yield table


def _print_summary(plan: ShopPlan, out: Path, counts: Counter[str], seconds: float) -> None:
    behaviour = sum(counts.values()) - counts[EventType.ITEM_UPDATED]
    print(f"a shop of {plan.users:,} users and {plan.items:,} items over {plan.days} days")
    print(f"  ends       {from_ms(plan.ends_at).isoformat()} ({plan.time_zone})")
    for kind in (EventType.VIEW, EventType.CART, EventType.REMOVE_FROM_CART, EventType.PURCHASE):
        print(f"  {kind.value:<18}{counts[kind]:>12,}  {counts[kind] / max(1, behaviour):6.1%}")
    print(f"  {EventType.ITEM_UPDATED.value:<18}{counts[EventType.ITEM_UPDATED]:>12,}")
    print(f"  source     {plan.source_name}, {plan.partitions} partitions, in {out}")
    print(f"  {behaviour:,} events in {seconds:.1f} s, {behaviour / max(seconds, 1e-9):,.0f} events/s")


def _parse(argv: Sequence[str] | None) -> tuple[ShopPlan, Path]:
    parser = argparse.ArgumentParser(prog="python -m batch.generate_shop", description=__doc__)
    parser.add_argument(
        "--users", type=int, default=5_000, help="shoppers, each of whom comes at least once (default 5000)"
    )
    parser.add_argument("--items", type=int, default=2_000, help="products (default 2000)")
    parser.add_argument(
        "--events", type=int, default=300_000, help="events of shoppers, within a few percent (default 300000)"
    )
    parser.add_argument("--days", type=int, default=90, help="shop-local days (default 90)")
    parser.add_argument("--seed", type=int, default=1, help="another seed is another shop (default 1)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the shop's folder; its lake is written there"
    )
    parser.add_argument(
        "--ends-at", metavar="INSTANT", help="ISO 8601 instant before which all happens (default: the last midnight)"
    )
    parser.add_argument(
        "--time-zone", default="Europe/London", help="IANA time zone of the shop (default Europe/London)"
    )
    parser.add_argument("--partitions", type=int, default=4, help="partitions of the event source (default 4)")
    given = parser.parse_args(argv)
    for name, most in _MOST.items():
        if not 1 <= getattr(given, name) <= most:
            raise ConfigurationError(f"--{name} must be 1 to {most:,}, not {getattr(given, name):,}")
    if given.events < LEAST_EVENTS_A_USER * given.users:
        raise ConfigurationError(
            f"--events {given.events:,} is too little for --users {given.users:,}: "
            f"every user comes at least once, so give at least {LEAST_EVENTS_A_USER * given.users:,} events"
        )
    zone = _zone(given.time_zone)
    plan = ShopPlan(
        users=given.users,
        items=given.items,
        events=given.events,
        days=given.days,
        seed=given.seed,
        ends_at=last_midnight(datetime.now(UTC), zone) if given.ends_at is None else _instant(given.ends_at, zone),
        time_zone=given.time_zone,
        partitions=given.partitions,
    )
    return plan, given.out


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ConfigurationError(f"--time-zone {name!r} is no IANA time zone, like Europe/London") from error


def _instant(text: str, zone: ZoneInfo) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(f"--ends-at {text!r} is no ISO 8601 instant, like 2026-03-01T00:00:00Z") from error
    return to_ms(instant if instant.tzinfo else instant.replace(tzinfo=zone))


if __name__ == "__main__":
    raise SystemExit(main())
