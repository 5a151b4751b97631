"""Ingest a published data set as the history of a shop."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa

from batch.online_retail import OrderLines, UnreadableInput, read_order_lines
from batch.online_retail_events import content_fingerprint, history_tables, weeks_until
from batch.progress import progress
from shared.adapters.folder_blob import FolderBlobStore
from shared.cli import command
from shared.errors import ConfigurationError
from shared.events import from_ms
from shared.ingest.lake_history import publish_history
from shared.ingest.lake_manifest import LakeManifest, ShopSettings, read_manifest
from shared.ports import BlobStore

REJECTS_FOLDER = "lake/rejects/"


@dataclass(frozen=True, slots=True)
class Ingestion:
    """What one ingestion did; `written` is false when the lake held the same content already."""

    source: str
    shift_weeks: int
    written: bool
    manifest: LakeManifest


def ingest_online_retail(
    blobs: BlobStore, lines: OrderLines, shop: ShopSettings, shift_weeks: int, partition_count: int
) -> Ingestion:
    """Publish clean order lines as history, with their rejects beside it; older history is replaced.

    Raises LakeConflict when another writer was faster, ConfigurationError for a shop's zone that is none.
    """
    zone = _zone(shop.time_zone)
    source = f"history-{content_fingerprint(lines.clean, zone, shift_weeks, partition_count)}"
    held = read_manifest(blobs)
    if held is not None and held.source(source) is not None and held.shop == shop:
        return Ingestion(source, shift_weeks, written=False, manifest=held)
    rejects = f"{REJECTS_FOLDER}{source}.csv"
    blobs.write(rejects, lines.rejects_csv())
    with progress("writing events", None, "events") as advance:
        tables = _counted(history_tables(lines.clean, zone, shift_weeks), advance)
        manifest = publish_history(blobs, source, partition_count, shop, tables, shift_weeks)
    for name in list(blobs.names(REJECTS_FOLDER)):
        if name != rejects:
            blobs.delete(name)
    return Ingestion(source, shift_weeks, written=True, manifest=manifest)


def _counted(tables: Iterable[pa.Table], advance: Callable[[int], None]) -> Iterator[pa.Table]:
    for table in tables:
        yield table
        advance(table.num_rows)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(f"{name!r} is no IANA time zone; use a name like Europe/London") from error


def _shift(text: str, lines: OrderLines, zone: ZoneInfo, now: datetime) -> int:
    if text == "auto":
        return weeks_until(lines.clean["local_at"].max().to_pydatetime(), zone, now)
    try:
        weeks = int(text)
    except ValueError as error:
        raise ConfigurationError(f"--shift-weeks is a whole number of weeks or auto, not {text!r}") from error
    if abs(weeks) > 5000:
        raise ConfigurationError(f"--shift-weeks {weeks} leaves this century; use auto to end the data now")
    return weeks


def _print_totals(lines: OrderLines, ingestion: Ingestion, out: Path) -> None:
    clean = lines.clean
    print(
        f"clean: {len(clean):,} order lines, {clean['customer'].nunique():,} customers, {clean['code'].nunique():,} "
        f"products, {clean['invoice'].nunique():,} orders"
    )
    print(f"rejected: {len(lines.rejects):,} lines")
    for reason, count in lines.totals().items():
        print(f"  {count:>9,}  {reason}")
    if not ingestion.written:
        print(f"{out} holds this content already as {ingestion.source}; nothing to do")
        return
    files = [entry for entry in ingestion.manifest.files if entry.source == ingestion.source]
    ends_at = max(at for _, at in ingestion.manifest.marks[ingestion.source].values())
    rows = sum(entry.rows for entry in files)
    print(
        f"events: {rows:,} ({len(clean):,} purchases, {rows - len(clean):,} catalogue rows) in {len(files)} days, "
        f"shifted by {ingestion.shift_weeks} weeks, ending {from_ms(ends_at):%Y-%m-%d %H:%M} UTC"
    )
    print(f"source {ingestion.source}; rejects in {out / REJECTS_FOLDER / ingestion.source}.csv")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m batch.ingest_events",
        description="Read a published data set and write it into a shop's folder as history, replacing older history.",
    )
    parser.add_argument("--format", choices=["online_retail"], required=True, help="what the file is")
    parser.add_argument("--path", type=Path, required=True, metavar="P", help="the file: .csv, .xlsx or .parquet")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the shop's folder")
    parser.add_argument(
        "--time-zone", default="Europe/London", metavar="ZONE", help="the shop's IANA zone (default: Europe/London)"
    )
    parser.add_argument(
        "--shift-weeks", default="0", metavar="N|auto",
        help="move the data by whole shop-local weeks; auto: as late as it may end before now (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--bought-window-days", type=int, default=0, metavar="D",
        help="for how long bought things are withheld; 0 recommends them again at once (default: 0)",
    )  # fmt: skip
    parser.add_argument("--partition-count", type=int, default=4, metavar="P", help="partitions (default: 4)")
    return parser


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Ingest one file and print what was taken, what was rejected and why."""
    now = datetime.now(UTC)
    arguments = _parser().parse_args(argv)
    if arguments.bought_window_days < 0 or not 1 <= arguments.partition_count <= 1024:
        raise ConfigurationError("--bought-window-days must be 0 or more, --partition-count 1 to 1024")
    zone = _zone(arguments.time_zone)
    lines = read_order_lines(arguments.path)
    if lines.clean.empty:
        reasons = ", ".join(f"{count} {reason}" for reason, count in lines.totals().items())
        raise UnreadableInput(f"{arguments.path} holds no usable order line ({reasons}); give the whole data set")
    shop = ShopSettings(
        name="Online Retail",
        time_zone=arguments.time_zone,
        bought_window_days=arguments.bought_window_days,
        positives=("purchase",),
        currency="GBP",
    )
    shift = _shift(arguments.shift_weeks, lines, zone, now)
    blobs = FolderBlobStore(arguments.out)
    ingestion = ingest_online_retail(blobs, lines, shop, shift, arguments.partition_count)
    _print_totals(lines, ingestion, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
