"""A click is in the next page within a second; who did not click sees the same page; and what was recorded is true."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from feature_jobs.check_parity import check_parity
from feature_jobs.recompute import Exposure, Past
from functions.background import Background
from functions.bootstrap import now_ms
from local.embedded import EmbeddedServers
from local.event_pump import EventPump
from local.trigger_host import event_hub_batch
from shared.adapters.redis_log import RedisCheckpoints
from shared.candidates.query import ListKind
from shared.ingest.exposures import read_exposures
from shared.ingest.lake import read_rows
from shared.ingest.logged_events import logged_events
from shared.releases.lists import decode_list
from tests.integration.api_shop import (
    CATEGORIES,
    PER_CATEGORY,
    RELEASE,
    ApiShop,
    behaviour,
    indexes,
    item_update,
    open_shop,
    rank_mass,
)

TRIALS = 100
WITHIN_S = 1.0
PAGE = 20


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        yield opened


@contextmanager
def running_pump(shop: ApiShop) -> Iterator[None]:
    """The local pump over the function that Azure triggers."""
    checkpoints = RedisCheckpoints(shop.broker._client, shop.settings.event_source)
    for partition, sequence in shop.positions.items():
        checkpoints.set(partition, sequence)
    pump = EventPump(
        shop.broker,
        checkpoints,
        range(shop.settings.partition_count),
        lambda records: shop.services.ingest.process_batch(event_hub_batch(records)),
        wait=shop.broker.wait,
    )
    pump.start()
    try:
        yield
    finally:
        pump.stop()


def listed_neighbours(shop: ApiShop, index: int) -> set[int]:
    found: set[int] = set()
    for kind in ListKind:
        data = shop.releases.similar_lists(RELEASE, kind.value, [index])[0]
        assert data is not None
        found |= set(decode_list(RELEASE, data).indexes.tolist())
    return found


def test_a_click_is_in_the_next_page_within_a_second_and_in_nobody_elses(shop: ApiShop) -> None:
    draw = random.Random(11)
    slowest = 0.0
    shop.click("control", 3)
    with running_pump(shop):
        for trial in range(TRIALS):
            user = f"shopper-{trial % 10}"
            shop.services.follower.follow()
            shop.clock.at = now_ms() + 5000
            before = indexes(shop.page(user, limit=100))
            control = shop.page("control")
            outside = [
                category
                for category in range(CATEGORIES)
                if not {index // PER_CATEGORY for index in before[:PAGE]} & {category}
            ] or list(range(CATEGORIES))
            clicked = draw.choice(outside) * PER_CATEGORY + draw.randrange(PER_CATEGORY)
            wanted = listed_neighbours(shop, clicked) - set(before[:PAGE])
            assert wanted, "the click must have neighbours outside the page"
            mass = rank_mass(before, wanted)

            began = time.monotonic()
            shop.post(behaviour(user, clicked))
            while (gained := rank_mass(indexes(shop.page(user, limit=100)), wanted)) <= mass:
                assert time.monotonic() - began < WITHIN_S, f"trial {trial}: {gained} after {mass}"
            slowest = max(slowest, time.monotonic() - began)

            again = shop.page("control")
            assert again["as_of"] == control["as_of"]
            assert again["items"] == control["items"], f"trial {trial}: somebody else's click moved this page"
    assert slowest < WITHIN_S
    marks = [exposure["item_marks"] for exposure in exposures(shop) if exposure["user_id"] == "control"]
    assert all(first == second for first, second in zip(marks[::2], marks[1::2], strict=True))
    assert len({str(one) for one in marks}) > TRIALS // 2, "between trials the items do move"


def exposures(shop: ApiShop) -> list[dict[str, Any]]:
    shop.clock.at = None
    shop.services.exposures.flush()
    return list(read_exposures(shop.blobs))


def test_what_was_recorded_recomputes_from_the_log_alone_whatever_moved_meanwhile(shop: ApiShop) -> None:
    """Pages are served while the fold, the follower and the catalogue move under them, as fast as they can."""
    faults: list[BaseException] = []
    stop = threading.Event()
    follower = Background("follower", shop.services.follower.follow, 1)

    def traffic(seed: int) -> None:
        draw = random.Random(seed)
        try:
            while not stop.is_set():
                events = [
                    behaviour(f"u-{draw.randrange(6)}", draw.randrange(240), draw.choice(["view", "cart", "purchase"]))
                    for _ in range(draw.randrange(1, 12))
                ]
                changed = item_update(draw.randrange(240), price_cents=draw.randrange(100, 900), stock=5, brand="New")
                stranger = {**behaviour(f"u-{draw.randrange(6)}", 0), "item_id": f"unknown-{draw.randrange(10**6)}"}
                shop.services.intake.accept(msgspec.json.encode([*events, changed, stranger]))
        except BaseException as error:  # noqa: BLE001 - a thread's fault must reach the test
            faults.append(error)

    threads = [threading.Thread(target=traffic, args=(seed,)) for seed in (1, 2)]
    with running_pump(shop):
        follower.start()
        for thread in threads:
            thread.start()
        for number in range(150):
            shop.page(f"u-{number % 6}", limit=10)
        stop.set()
        for thread in threads:
            thread.join()
        follower.stop()
    shop.settle()
    assert faults == []
    recorded = exposures(shop)
    assert len({str(one["item_marks"]) for one in recorded}) > 10, "the items must have moved between pages"
    shop.services.sealer.run()
    differences = check_parity(shop.blobs)
    assert differences.exposures == len(recorded)
    assert not differences.mismatches.any(), differences.first_mismatch


def test_the_recomputation_sees_a_mark_that_is_off_by_one_event(shop: ApiShop) -> None:
    shop.click("ada", 50)
    shop.page("ada", limit=10)
    exposure = Exposure.of(exposures(shop)[-1])
    shop.services.sealer.run()
    past = Past.of(list(logged_events(read_rows(shop.blobs))))
    zone = shop.services.releases.release_for("ada").model.time_zone
    assert np.allclose(exposure.logged(), past.vectors(exposure, zone), rtol=1e-6, atol=1e-6)
    part = next(name for name, sequence in exposure.visibility.items() if sequence >= 0)
    exposure.visibility[part] -= 1
    assert not np.allclose(exposure.logged(), past.vectors(exposure, zone), rtol=1e-6, atol=1e-6)
