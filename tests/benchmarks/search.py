"""Search on 100,000 items: how long the index takes to build, a search to answer, and whether typos are forgiven."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from rich.console import Console

from functions.search.searcher import Found, SearchAsked
from local.embedded import EmbeddedServers
from local.page_comparison import percentile
from shared.catalog import CatalogEntry, Product
from shared.cli import command
from shared.errors import RecommndrError
from shared.events import EventSource, event_from_fields, from_ms
from shared.features.definitions import STATE_VERSION
from shared.features.vector import SCHEMA
from shared.releases.allocation import whole
from shared.releases.bundle import SEARCH, encode_files, write_bundle
from shared.releases.manifest import ReleaseManifest, checksum
from shared.search.facets import Filters
from shared.search.index import build_index
from shared.search.ordering import SearchSort
from tests.benchmarks.search_catalogue import misspelt, synthetic_products
from tests.integration.api_shop import WEIGHTS, ApiShop, open_shop
from tests.integration.linear_ranker import linear_ranker

ITEMS: Final = 100_000
SEARCHES: Final = 1_000
SHOPPERS: Final = 50
TYPOS: Final = 200
RELEASE: Final = "r-search"
_AT: Final = 1_770_000_000_000
_BATCH: Final = 500


class Missed(RecommndrError):
    """A bar of the issue was not met."""


def described(product: Product) -> dict[str, Any]:
    """The item_updated event that tells a product."""
    changes = {
        name: getattr(product, name)
        for name in ("title", "description", "categories", "brand", "price_cents", "stock", "attributes")
    }
    changes["arrived_at"] = from_ms(product.arrived_at or 0).isoformat()
    return {
        "event_id": f"bench-{product.item_id}",
        "event_type": "item_updated",
        "occurred_at": from_ms(_AT).isoformat(),
        "item_id": product.item_id,
        "changes": changes,
    }


def entry_of(update: dict[str, Any]) -> CatalogEntry:
    """What the fold makes of that event."""
    event = event_from_fields(update)
    assert event.item_id is not None
    entry = CatalogEntry(item_id=event.item_id, fields={})
    entry.apply(event, _AT)
    return entry


@contextmanager
def stocked(products: Sequence[Product], console: Console, told: dict[str, Any]) -> Iterator[ApiShop]:
    """A worker of a shop with these products in its log, its state and its release."""
    with (
        tempfile.TemporaryDirectory(prefix="recommndr-search-") as folder,
        EmbeddedServers(Path(folder)) as servers,
        open_shop(servers.state_url, servers.log_url, Path(folder) / "shop", stocked=False) as shop,
    ):
        updates = json.loads(msgspec.json.encode([described(product) for product in products]))
        visits = [_visit(number, products) for number in range(SHOPPERS * 10)]
        for start in range(0, len(updates), _BATCH):
            _post(shop, updates[start : start + _BATCH])
            shop.pump()
        _post(shop, visits)
        shop.pump()
        console.print(f"» {len(updates):,} items are in the state")
        _publish(shop, [entry_of(update) for update in updates], console, told)
        yield shop


def _post(shop: ApiShop, events: list[dict[str, Any]]) -> None:
    outcomes = shop.services.intake.accept(json.dumps(events).encode())
    refused = [one.reason for one in outcomes if one.reason]
    if refused:
        raise Missed(f"the shop refused an event: {refused[0]}")


def _visit(number: int, products: Sequence[Product]) -> dict[str, Any]:
    return {
        "event_id": f"visit-{number}",
        "event_type": "view",
        "occurred_at": from_ms(_AT + number * 1000).isoformat(),
        "user_id": f"shopper-{number % SHOPPERS}",
        "item_id": products[number * 7919 % len(products)].item_id,
    }


def _publish(shop: ApiShop, entries: Sequence[CatalogEntry], console: Console, told: dict[str, Any]) -> None:
    began, began_cpu = time.perf_counter(), time.process_time()
    search = build_index(entry.product() for entry in entries)
    told["build"] = {
        "s": round(time.perf_counter() - began, 2),
        "cpu_s": round(time.process_time() - began_cpu, 2),
        "mb": round(len(search) / 1e6, 1),
    }
    console.print(f"» the index is built: {told['build']}")
    factors = np.random.default_rng(1).normal(size=(len(entries), 16)).astype(np.float32)
    files = encode_files(tuple(entries), factors, linear_ranker(WEIGHTS), {SEARCH: search})
    manifest = ReleaseManifest(
        release_id=RELEASE, created_at=0, as_of=_AT, schema_digest=SCHEMA.digest, feature_names=SCHEMA.names,
        state_version=STATE_VERSION, time_zone="Europe/London", currency="GBP", bought_window_days=30,
        shop_name="search", sources=(EventSource(shop.settings.event_source, (shop.settings.partition_count,)),),
        items_count=len(entries), users_count=SHOPPERS, als={"regularization": 1.0, "alpha": 1.0}, evaluation={},
        drift_baseline={}, mlflow_run_id=None, files={name: checksum(data) for name, data in files.items()},
    )  # fmt: skip
    write_bundle(shop.blobs, manifest, files)
    shop.releases.begin(RELEASE, user_count=SHOPPERS, item_count=len(entries))
    shop.releases.set_allocation(whole(RELEASE, shop.releases.allocation()))
    began, began_cpu = time.perf_counter(), time.process_time()
    shop.services.refresh()
    told["load_release"] = {
        "s": round(time.perf_counter() - began, 2),
        "cpu_s": round(time.process_time() - began_cpu, 2),
    }


def queries(products: Sequence[Product], count: int) -> list[SearchAsked]:
    """What people ask: whole and unfinished words, frequent and rare ones, ids, typos; some filtered or sorted."""
    draw = random.Random(2)
    found = []
    for one in misspelt(products, count, seed=3):
        product = products[one.index]
        words = product.title.replace(",", "").split()
        text = draw.choice([
            one.query,
            " ".join(draw.sample(words, min(2, len(words)))),
            f"{words[-1]} {words[-3]}"[: draw.randrange(4, 14)],
            draw.choice(words)[: draw.randrange(1, 6)],
            product.categories[-1],
            product.item_id,
            one.typed,
            " ".join(product.description.split()[:6]),
        ])  # fmt: skip
        filters = draw.choice([Filters(), Filters(), Filters(category=product.categories[0]), Filters(None, 500, 5000)])
        found.append(
            SearchAsked(text, filters=filters, sort=draw.choice([SearchSort.RELEVANCE] * 4 + list(SearchSort)))
        )
    return found


def timed(search: Callable[[SearchAsked], object], asked: Sequence[SearchAsked]) -> dict[str, float]:
    """Milliseconds by the clock and of processor time; the first tenth warms up."""
    took: list[float] = []
    used: list[float] = []
    for one in [*asked[: len(asked) // 10], *asked]:
        began, began_cpu = time.perf_counter(), time.process_time()
        search(one)
        used.append((time.process_time() - began_cpu) * 1000)
        took.append((time.perf_counter() - began) * 1000)
    took, used = took[len(asked) // 10 :], used[len(asked) // 10 :]
    return {
        "p50": round(percentile(took, 0.5), 2), "p99": round(percentile(took, 0.99), 2), "max": round(max(took), 2),
        "cpu_p50": round(percentile(used, 0.5), 2), "cpu_p99": round(percentile(used, 0.99), 2),
    }  # fmt: skip


def over_http(shop: ApiShop) -> Callable[[SearchAsked], object]:
    """The same questions through the whole application, without a network."""

    def ask(one: SearchAsked) -> object:
        chosen = {
            "q": one.text, "sort": one.sort.value, "category": one.filters.category, "user_id": one.user_id,
            "min_price_cents": one.filters.min_price_cents, "max_price_cents": one.filters.max_price_cents,
        }  # fmt: skip
        return shop.get("/search", **{name: value for name, value in chosen.items() if value is not None})

    return ask


def forgiven(shop: ApiShop, products: Sequence[Product]) -> float:
    """The share of titles with one typo that find their item among the first ten."""
    found = 0
    for one in misspelt(products, TYPOS):
        page: Found = shop.services.searcher.search(SearchAsked(one.query, limit=10))
        found += products[one.index].item_id in {item.product.item_id for item in page.items}
    return found / TYPOS


def run(items: int, searches: int) -> dict[str, Any]:
    """The whole measurement. What it says on the way goes to stderr."""
    console = Console(stderr=True, highlight=False)
    products = synthetic_products(items)
    told: dict[str, Any] = {"items": items, "searches": searches}
    with stocked(products, console, told) as shop:
        told["typos_forgiven"] = forgiven(shop, products)
        asked = queries(products, searches)
        search = shop.services.searcher.search
        personal = [replace(one, user_id=f"shopper-{place % SHOPPERS}") for place, one in enumerate(asked)]
        told["text_ms"] = timed(search, asked)
        told["personal_ms"] = timed(search, personal)
        told["http_ms"] = timed(over_http(shop), asked)
    load = f"load {os.getloadavg()[0]:.1f}"
    told["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, {load}, Python {platform.python_version()}"
    return told


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.search", description=__doc__)
    parser.add_argument("--items", type=int, default=ITEMS, help="products in the catalogue (%(default)s)")
    parser.add_argument("--searches", type=int, default=SEARCHES, help="searches of each kind (%(default)s)")
    arguments = parser.parse_args(argv)
    told = run(arguments.items, arguments.searches)
    print(json.dumps(told, indent=2))
    met = told["build"]["s"] < 20 and told["text_ms"]["p99"] < 20 and told["typos_forgiven"] >= 0.95
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
