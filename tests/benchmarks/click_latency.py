"""How long until a click shows: from the moment it is posted to the first page that reacts, with others posting too."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any, Final

from local.page_comparison import percentile
from local.shopper import ShopApi
from shared.cli import command
from shared.errors import RecommndrError
from tests.benchmarks.posted_load import LiveShop, PostedLoad, live_shop
from tests.integration.api_shop import CATEGORIES, GONE, HIDDEN, PER_CATEGORY, behaviour, indexes, neighbours

MUST_P99_MS: Final = 300.0
GIVE_UP_S: Final = 10.0
PAUSE_S: Final = 0.005
"""Between two looks: asking without a pause would take the core that the fold needs, local.serve being one process."""
WARM_UP: Final = 20


class NothingHappened(RecommndrError):
    """A click did not show within 10 seconds."""


def click(api: ShopApi, index: int) -> dict[str, float]:
    """One shopper's first click, in ms from posting it: until it was acknowledged, until a page reacted; pages asked.

    Before it she is a stranger and sees what is popular. After it her page has what is like the item. Raises
    NothingHappened.
    """
    user = f"visitor-{uuid.uuid4().hex[:12]}"
    if api.get("recommend", user)["fallback"] is None:
        raise NothingHappened(f"{user} is known before her first click")
    event = behaviour(user, index)
    began = time.perf_counter()
    api.post("events", [event])
    acknowledged = time.perf_counter()
    pages = 0
    while True:
        page = api.get("recommend", user)
        pages += 1
        now = time.perf_counter()
        if page["fallback"] is None and set(indexes(page)) & set(neighbours(index)):
            return {"visible": (now - began) * 1000, "acknowledged": (acknowledged - began) * 1000, "pages": pages}
        if now - began > GIVE_UP_S:
            raise NothingHappened(f"a click on item {index} did not show within {GIVE_UP_S:.0f} s")
        time.sleep(PAUSE_S)


def measure(shop: LiveShop, trials: int, background: int) -> dict[str, Any]:
    """The percentiles of so many clicks while `background` events a second come in from others."""
    draw = random.Random(5)
    items = [index for index in range(CATEGORIES * PER_CATEGORY) if index not in {GONE, HIDDEN}]
    load = PostedLoad(shop.server.address, background)
    found: list[dict[str, float]] = []
    load.start()
    try:
        with ShopApi(shop.server.address) as api:
            for trial in range(WARM_UP + trials):
                one = click(api, draw.choice(items))
                if trial >= WARM_UP:
                    found.append(one)
                time.sleep(draw.random() * 0.02)  # so that clicks meet every phase of what polls
    finally:
        load.stop()
    return {
        "broker": "embedded" if shop.broker_url is None else "kafka",
        "trials": trials,
        "background_events_per_s": round(load.achieved, 1),
        "click_to_visible_ms": _percentiles([one["visible"] for one in found]),
        "click_to_acknowledged_ms": _percentiles([one["acknowledged"] for one in found]),
        "pages_until_visible": round(sum(one["pages"] for one in found) / len(found), 2),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "load_average": round(os.getloadavg()[0], 1),
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}
    return {name: round(percentile(values, share), 1) for name, share in shares.items()}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line: 0 when p99 is at most 300 ms, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.click_latency", description=__doc__)
    parser.add_argument("--broker", choices=["embedded", "kafka"], default="embedded", help="(%(default)s)")
    parser.add_argument("--trials", type=int, default=1000, help="clicks to measure (%(default)s)")
    parser.add_argument("--background", type=int, default=500, help="events a second of other shoppers (%(default)s)")
    arguments = parser.parse_args(argv)
    with live_shop(arguments.broker) as shop:
        sys.stderr.write(f"» {arguments.trials:,} clicks over {shop.broker_url or 'the embedded log'}\n")
        outcome = measure(shop, arguments.trials, arguments.background)
    print(json.dumps(outcome, indent=2))
    return 0 if outcome["click_to_visible_ms"]["p99"] <= MUST_P99_MS else 1


if __name__ == "__main__":
    sys.exit(main())
