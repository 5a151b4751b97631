"""Served vectors against vectors recomputed from the lake, at size: `python -m tests.benchmarks.parity`.

The embedded log and state, a fold, and several workers with the real recommender run at once: events (5% late, 2% sent
again, prices, preferences and erasures among them) are folded while pages are asked for. Then everything is sealed and
every page's vectors are recomputed from the lake alone. Prints JSON; exit code 1 when anything differs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Final

from feature_jobs.check_parity import check_parity
from feature_jobs.parity_report import THRESHOLD
from functions.bootstrap import compose
from local.embedded import EmbeddedServers
from shared.adapters.user_keys import keyed_with
from shared.cli import command
from shared.ingest.lake import read_rows
from shared.settings import Settings
from tests.benchmarks.parity_world import EventMaker, Feeder, PageAsker
from tests.integration.api_shop import ApiShop, open_shop

_SEAL_EVERY_S: Final = 20.0
_REPORT_EVERY_S: Final = 10.0


def ask_pages(environment: Mapping[str, str], seed: int, count: int, done: Synchronized[int]) -> None:
    """A worker of its own process: composed and started as on Azure, it answers `count` requests and flushes."""
    services = compose(Settings.from_environment(environment))
    services.start()
    try:
        asker = PageAsker(services, seed)
        for _ in range(count):
            asker.ask()
            with done.get_lock():
                done.value += 1
    finally:
        services.close()


def run(requests: int, events: int, workers: int, seed: int, folder: Path) -> dict[str, Any]:
    """Everything at once, then the comparison; what was done and found, as plain values."""
    with EmbeddedServers(folder / "servers") as servers:
        environment = {
            "REDIS_URL": servers.state_url,
            "EVENT_LOG_URL": servers.log_url,
            "BLOB_URL": str(folder / "data"),
            "EXPLORATION": "0.05",
            "REDIS_TIMEOUT_MS": "2000",
        }
        with open_shop(servers.state_url, servers.log_url, folder / "data") as shop:
            maker = EventMaker(seed)
            context = multiprocessing.get_context("spawn")
            done: Any = context.Value("q", 0)
            shares = [requests // workers + (place < requests % workers) for place in range(workers)]
            children = [
                context.Process(target=ask_pages, args=(environment, seed + 1 + place, share, done))
                for place, share in enumerate(shares)
            ]
            busy_s = _feed_while_asked(shop, Feeder(shop, maker, seed), children, lambda: done.value / requests, events)
            verdicts = Counter(read_rows(shop.blobs, columns=["verdict"])["verdict"].to_pylist())
            started = time.perf_counter()
            differences = check_parity(shop.blobs, THRESHOLD, key_of=keyed_with(shop.settings.user_key_secret))
            check_s = time.perf_counter() - started
    report = differences.report()
    worst = int(differences.largest.argmax())
    return {
        "requests": requests,
        "workers": workers,
        "events": sum(maker.counts[kind] for kind in maker.counts if kind != "late"),
        "events_by_kind": dict(maker.counts),
        "lake_rows_by_verdict": dict(verdicts),
        "exposures_compared": report["exposures"],
        "vectors_compared": report["rows"],
        "values_compared": report["rows"] * len(report["features"]),
        "skipped": report["skipped"],
        "threshold": report["threshold"],
        "mismatches": report["mismatches"],
        "largest_difference": float(differences.largest.max()),
        "largest_difference_of": list(report["features"])[worst],
        "first_mismatch": report["first_mismatch"],
        "seconds": {"pages_and_events": round(busy_s, 1), "recompute_and_compare": round(check_s, 1)},
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def _feed_while_asked(
    shop: ApiShop, feeder: Feeder, children: Sequence[SpawnProcess], answered: Callable[[], float], events: int
) -> float:
    """Fold `events` in step with the share of pages that the processes have answered; returns the seconds it took."""
    for child in children:
        child.start()
    started = sealed = reported = time.perf_counter()
    while (asking := any(child.is_alive() for child in children)) or feeder.published < events:
        wanted = int(events * answered()) if asking else events
        if feeder.published < wanted:
            feeder.feed(wanted - feeder.published)
        else:
            time.sleep(0.002)
        now = time.perf_counter()
        if now - sealed > _SEAL_EVERY_S:
            shop.services.sealer.run()
            sealed = now
        if now - reported > _REPORT_EVERY_S:
            reported = now
            line = f"  {answered():.0%} of the pages, {feeder.published:,} events, {now - started:.0f} s"
            print(line, file=sys.stderr, flush=True)
    for child in children:
        child.join()
        if child.exitcode:
            raise SystemExit(f"a worker ended with {child.exitcode}; its trace is above")
    seconds = time.perf_counter() - started
    shop.settle()
    shop.services.sealer.run()
    return seconds


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 when every page was compared and nothing differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.parity", description=__doc__)
    parser.add_argument("--requests", type=int, default=5_000, metavar="N", help="pages (default %(default)s)")
    parser.add_argument(
        "--events", type=int, default=25_000, metavar="N", help="events meanwhile (default %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="processes that answer (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of events and requests (default %(default)s)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep lake and exposures there (default: forgotten)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="recommndr-parity-") as temporary:
        folder = arguments.folder or Path(temporary)
        found = run(arguments.requests, arguments.events, arguments.workers, arguments.seed, folder)
    print(json.dumps(found, indent=2))
    whole = found["exposures_compared"] == arguments.requests - found["skipped"].get("empty page", 0)
    return 0 if whole and not found["mismatches"] else 1


if __name__ == "__main__":
    sys.exit(main())
