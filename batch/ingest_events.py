"""Ingest a shop's own data, or a published data set, as the history of a shop."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from batch.input_files import InputFile, UnreadableInput
from batch.online_retail import read_order_lines
from batch.online_retail_events import content_fingerprint, history_tables
from batch.published_history import History, Ingestion, rejects_name, write_history
from batch.retail_rocket import as_told, item_properties, retail_rocket_mapping
from batch.shop_time import chosen_weeks, zone_named
from batch.table_history import dry_run_lines, made_history, read_table
from batch.table_mapping import Mapping, mapping_of, read_mapping
from batch.table_suggestion import suggest_mapping
from shared.adapters.blob_address import is_blob_address, open_blobs
from shared.cli import command
from shared.errors import ConfigurationError
from shared.events import from_ms, to_ms
from shared.ingest.lake_manifest import ShopSettings
from shared.settings import Settings

RETAIL_ZONE: Final = "Europe/London"
POSITIVE_KINDS: Final = frozenset({"purchase", "cart", "view"})


def online_retail(arguments: argparse.Namespace, now: datetime) -> History:
    """Online Retail's order lines as history."""
    if is_blob_address(arguments.path):
        raise ConfigurationError("--format online_retail reads a file of this machine; download the blob first")
    path, days = Path(arguments.path), arguments.bought_window_days or 0
    shop = ShopSettings(
        name="Online Retail", time_zone=arguments.time_zone or RETAIL_ZONE, bought_window_days=days,
        positives=arguments.positives or ("purchase",), currency="GBP",
    )  # fmt: skip
    zone = zone_named(shop.time_zone)
    lines = read_order_lines(path)
    clean = lines.clean
    if clean.empty:
        reasons = ", ".join(f"{count} {reason}" for reason, count in lines.totals().items())
        raise UnreadableInput(f"{path} holds no usable order line ({reasons}); give the whole data set")
    weeks = chosen_weeks(arguments.shift_weeks, lambda: clean["local_at"].max().to_pydatetime(), zone, now)
    told = [
        (
            f"clean: {len(clean):,} order lines, {clean['customer'].nunique():,} customers, "
            f"{clean['code'].nunique():,} products, {clean['invoice'].nunique():,} orders"
        ),
        f"rejected: {len(lines.rejects):,} lines",
        *(f"  {count:>9,}  {reason}" for reason, count in lines.totals().items()),
    ]
    return History(
        shop=shop, shift_weeks=weeks, behaviour=len(clean), told=told,
        fingerprint=content_fingerprint(clean, zone, weeks, arguments.partition_count),
        tables=lambda: history_tables(clean, zone, weeks), rejects=lambda: {"": lines.rejects_csv()},
    )  # fmt: skip


def retail_rocket(arguments: argparse.Namespace, now: datetime) -> History | None:
    """RetailRocket's events as history; None when a dry run was all."""
    file = InputFile(arguments.path, arguments.connection)
    days = 30 if arguments.bought_window_days is None else arguments.bought_window_days
    mapping = retail_rocket_mapping(file, arguments.time_zone or "UTC", days)
    if arguments.positives:
        mapping = msgspec.structs.replace(
            mapping, shop=msgspec.structs.replace(mapping.shop, positives=arguments.positives)
        )
    read = read_table(file, mapping, None, now)
    if arguments.dry_run:
        print("\n".join(dry_run_lines(read)))
        return None
    read.items, later, names = item_properties(file, read.events)
    history = made_history(read, arguments.shift_weeks, arguments.partition_count, now, later)
    return replace(history, told=[*history.told, *as_told(names)])


def table(arguments: argparse.Namespace, now: datetime) -> History | None:
    """A shop's own table as history; None when a suggestion or a dry run was all."""
    file = InputFile(arguments.path, arguments.connection)
    mapping = _mapping(arguments, file, now)
    if mapping is None:
        return None
    items = InputFile(arguments.items, arguments.connection) if arguments.items else None
    read = read_table(file, mapping, items, now)
    if arguments.dry_run:
        print("\n".join(dry_run_lines(read)))
        return None
    return made_history(read, arguments.shift_weeks, arguments.partition_count, now)


def _mapping(arguments: argparse.Namespace, file: InputFile, now: datetime) -> Mapping | None:
    """The mapping that was given, or for a dry run the one that was suggested; None when a suggestion was all."""
    changed = {
        name: value
        for name, value in (
            ("time_zone", arguments.time_zone),
            ("bought_window_days", arguments.bought_window_days),
            ("positives", arguments.positives),
        )
        if value is not None
    }
    if arguments.mapping is not None:
        found = read_mapping(arguments.mapping)
    elif arguments.suggest is None and not arguments.dry_run:
        raise ConfigurationError("--format table wants --mapping FILE; --dry-run without one suggests it")
    else:
        suggestion = suggest_mapping(file, to_ms(now))
        if arguments.suggest not in {None, "-"}:
            _save(Path(arguments.suggest), suggestion.text)
            print(f"suggested mapping written to {arguments.suggest}; read it through, then give it as --mapping")
        else:
            print(suggestion.text)
        if not arguments.dry_run:
            return None
        found = mapping_of(suggestion.document, "the suggested mapping")
    return msgspec.structs.replace(found, shop=msgspec.structs.replace(found.shop, **changed))


def _save(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigurationError(f"{path} is there already; give --suggest another name, or - to print it") from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error


FORMATS: Final[dict[str, Callable[[argparse.Namespace, datetime], History | None]]] = {
    "online_retail": online_retail,
    "retailrocket": retail_rocket,
    "table": table,
}


def _print_totals(history: History, ingestion: Ingestion, out: str) -> None:
    if not ingestion.written:
        print(f"{out} holds this content already as {ingestion.source}; nothing to do")
        return
    files = [entry for entry in ingestion.manifest.files if entry.source == ingestion.source]
    ends_at = max(at for _, at in ingestion.manifest.marks[ingestion.source].values())
    rows = sum(entry.rows for entry in files)
    print(
        f"events: {rows:,} ({history.behaviour:,} of shoppers, {rows - history.behaviour:,} catalogue rows) in "
        f"{len(files)} days, shifted by {history.shift_weeks} weeks, ending {from_ms(ends_at):%Y-%m-%d %H:%M} UTC"
    )
    print(f"source {ingestion.source}; rejects in {out.rstrip('/')}/{rejects_name(ingestion.source)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m batch.ingest_events",
        description="Read a data set and write it into a shop's folder as history, replacing older history.",
        epilog="An address of blob storage is https://ACCOUNT.blob.core.windows.net/CONTAINER/NAME; docs/ml.md shows "
        "the mapping file of --format table.",
    )
    option = parser.add_argument
    option("--format", choices=[*FORMATS], required=True, help="what the file is")
    option(
        "--path", required=True, metavar="P",
        help="the file, or its blob address. online_retail: .csv, .xlsx, .parquet; retailrocket: events.csv (with "
        "what lies beside it) or .parquet; table: .csv, .tsv, .jsonl, .ndjson, .parquet. All but xlsx may be gzip",
    )  # fmt: skip
    option("--out", metavar="DIR", help="the shop's folder, or a container's blob address")
    option("--time-zone", metavar="ZONE", help="the shop's IANA zone (default: Europe/London, UTC, the mapping's)")
    option(
        "--shift-weeks", default="0", metavar="N|auto",
        help="move the data by whole shop-local weeks; auto: as late as it may end before now (default: 0)",
    )  # fmt: skip
    option(
        "--bought-window-days", type=int, metavar="D",
        help="for how long bought things are withheld; 0 recommends them again at once (default: 0, 30, the mapping's)",
    )  # fmt: skip
    option(
        "--positives", type=_kinds, metavar="KIND[,KIND]",
        help="what a ranker learns from and is judged by: purchase, cart, view (default: purchase; purchase,cart; the "
        "mapping's)",
    )  # fmt: skip
    option("--partition-count", type=int, default=4, metavar="P", help="partitions (default: 4)")
    of_table = parser.add_argument_group("for --format table")
    of_table.add_argument("--mapping", type=Path, metavar="FILE", help="which column is what: .toml, .yaml or .yml")
    of_table.add_argument("--items", metavar="P", help="the table of items, or its blob address")
    of_table.add_argument(
        "--suggest", nargs="?", const="-", metavar="FILE", help="suggest a mapping: print it, or write it to FILE"
    )
    of_table.add_argument(
        "--dry-run", action="store_true",
        help="write nothing; show ten mapped rows and what would be rejected (without --mapping: by the suggested one)",
    )  # fmt: skip
    return parser


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(dict.fromkeys(text.split(",")))
    if set(kinds) - POSITIVE_KINDS:
        raise argparse.ArgumentTypeError(f"{text} must be some of {', '.join(sorted(POSITIVE_KINDS))}")
    return kinds


def _checked(arguments: argparse.Namespace) -> argparse.Namespace:
    if (arguments.bought_window_days or 0) < 0 or not 1 <= arguments.partition_count <= 1024:
        raise ConfigurationError("--bought-window-days must be 0 or more, --partition-count 1 to 1024")
    only_table = [name for name in ("mapping", "items", "suggest") if getattr(arguments, name) is not None]
    if only_table and arguments.format != "table":
        raise ConfigurationError(f"--{only_table[0]} is for --format table")
    if arguments.dry_run and arguments.format == "online_retail":
        raise ConfigurationError("--dry-run is for --format table and retailrocket")
    if arguments.out is None and not arguments.dry_run and arguments.suggest is None:
        raise ConfigurationError("give --out, the shop's folder (or --dry-run, which writes nothing)")
    if arguments.time_zone is not None:
        zone_named(arguments.time_zone)
    return arguments


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Ingest one file and print what was taken, what was rejected and why."""
    now = datetime.now(UTC)
    arguments = _checked(_parser().parse_args(argv))
    arguments.connection = Settings.from_environment(os.environ).blob_connection
    history = FORMATS[arguments.format](arguments, now)
    if history is None:
        return 0
    if arguments.out is None:
        raise ConfigurationError("give --out, the shop's folder")
    print("\n".join(history.told), flush=True)
    blobs = open_blobs(arguments.out, arguments.connection)
    _print_totals(history, write_history(blobs, history, arguments.partition_count), arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
