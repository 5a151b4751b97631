"""What Feast costs on the request path: one user and 200 items through `get_online_features` against our own read.

`python -m tests.benchmarks.feast_cost` prints JSON with the median and the 99th percentile in ms. Both sides read the
same embedded state over the same socket and give the same values; items stand in memory on both.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np

from feature_jobs.feast_catalog import repository
from feature_jobs.feast_catalog.declarations import RANKING, catalogue_of
from feature_jobs.feast_catalog.on_demand import request_inputs, retrieval_inputs
from functions.bootstrap import now_ms
from local.embedded import EmbeddedServers
from shared.cli import command
from shared.events import ItemId
from shared.features.definitions import LISTS, Retrieval
from shared.features.shard import UserShard, merge_shards
from shared.features.vector import Matrix, assemble
from shared.features.views import PairView, RequestView, RetrievalBlock, UserView, user_lists
from shared.recommend import item_rows
from tests.benchmarks.parity_world import EventMaker, Feeder
from tests.integration.api_shop import ApiShop, item_id, open_shop

ITEMS: Final = 200
USER: Final = "user-00000"
LONDON: Final = ZoneInfo("Europe/London")


def own_read(shop: ApiShop, items: Sequence[ItemId]) -> Matrix:
    """The vectors as a page makes them: one trip for the user, items from memory, one matrix."""
    release = shop.services.releases.release_for(USER)
    read = shop.services.recommender._reader.shopper(USER, release)
    as_of = now_ms()
    shards: list[UserShard] = [shard for shard in read.shards.values() if shard is not None]
    state = merge_shards(shards, as_of).state
    with release.items.reading(release.release_id) as stock:
        table = stock.shelf.table
        user = UserView(state, as_of, user_lists(state, table.row_of, LISTS), LONDON)
        pair = PairView(user, table.block(item_rows(table, items), as_of), table.category, table.brand)
        silent = RetrievalBlock.silent(len(items), len(Retrieval))
        return assemble(pair, silent, RequestView(as_of, LONDON))


def feast_rows(items: Sequence[ItemId]) -> dict[str, list[Any]]:
    """The same question as Feast takes it."""
    request = {"as_of": now_ms(), "time_zone": LONDON.key}
    return {
        "user_id": [USER] * len(items),
        "item_id": list(items),
        **{field.name: [0] * len(items) for field in retrieval_inputs()},
        **{field.name: [request.get(field.name, "")] * len(items) for field in request_inputs()},
    }


def timed(ask: Callable[[], Any], times: int) -> dict[str, float]:
    """Milliseconds a call, after a warm-up; processor time too, which others on the machine disturb less."""
    taken, worked = [], []
    for _ in range(max(3, times // 10)):
        ask()
    for _ in range(times):
        started, begun = time.perf_counter(), time.process_time()
        ask()
        taken.append((time.perf_counter() - started) * 1000)
        worked.append((time.process_time() - begun) * 1000)
    return {
        "p50_ms": round(float(np.percentile(taken, 50)), 2),
        "p99_ms": round(float(np.percentile(taken, 99)), 2),
        "processor_p50_ms": round(float(np.percentile(worked, 50)), 2),
    }


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.feast_cost", description=__doc__)
    parser.add_argument("--times", type=int, default=200, metavar="N", help="calls of each (default %(default)s)")
    times = parser.parse_args(argv).times
    items = [item_id(index) for index in range(ITEMS)]
    with (
        tempfile.TemporaryDirectory(prefix="recommndr-feast-") as folder,
        EmbeddedServers(Path(folder) / "s") as servers,
        open_shop(servers.state_url, servers.log_url, Path(folder) / "data") as shop,
    ):
        Feeder(shop, EventMaker(1, users=200), 1).feed_all(5_000)
        shop.settle()
        os.environ["REDIS_URL"] = servers.state_url
        store = repository.apply(shop.blobs.root)
        service = store.get_feature_service(RANKING)
        stored = [f"{view.name}:{field.name}" for view in catalogue_of().views for field in view.features]
        rows = feast_rows(items)
        keys = {name: rows[name] for name in ("user_id", "item_id")}
        found = {
            "own_read": timed(lambda: own_read(shop, items), times),
            "feast_ranking_service": timed(lambda: store.get_online_features(service, rows), times),
            "feast_views_without_on_demand": timed(lambda: store.get_online_features(stored, keys), times),
        }
    found["columns"] = {"own_read": len(catalogue_of().names), "views_without_on_demand": len(stored)}
    print(json.dumps({"items": ITEMS, "calls": times, **found}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
