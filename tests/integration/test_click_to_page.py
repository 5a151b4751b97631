"""A click is in the next page within a second; who did not click sees the same page; and what was recorded is true."""

from __future__ import annotations

import base64
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

from functions.background import Background
from functions.bootstrap import now_ms
from local.embedded import EmbeddedServers
from local.event_pump import EventPump
from local.trigger_host import event_hub_batch
from shared.adapters.redis_log import RedisCheckpoints
from shared.candidates.query import ListKind
from shared.events import decode_event
from shared.features.definitions import LISTS
from shared.features.items import ItemTable
from shared.features.replay import LoggedEvent, UserShards
from shared.features.vector import SCHEMA, assemble
from shared.features.views import PairView, RequestView, RetrievalBlock, UserView, user_lists
from shared.ingest.exposures import read_exposures
from shared.ingest.lake import read_range
from shared.ports import Verdict
from shared.recommend import item_rows
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
    for exposure in random.Random(3).sample(recorded, 40):
        served, again = recompute(shop, exposure)
        bound = 1e-6 * np.maximum(1, np.maximum(np.abs(served), np.abs(again)))
        worst = np.abs(served - again) - bound
        assert worst.max() <= 0, SCHEMA.names[int(np.argmax(worst.max(axis=0)))]


def recompute(shop: ApiShop, exposure: dict[str, Any]) -> tuple[Any, Any]:
    """The vectors as served, and from the sealed log: rows at or below the recorded marks, evaluated at as_of."""
    users, items = UserShards(), ItemTable()
    release = shop.services.releases.release_for(exposure["user_id"])
    rows_of_release = item_rows(items, release.item_ids)
    for name, mark in exposure["item_marks"].items():
        source, partition = name.split(".")
        upto = exposure["visibility"].get(name, -1)
        for row in read_range(shop.blobs, source, int(partition), 0, max(mark, upto)):
            if row.verdict is not Verdict.ACCEPTED:
                continue
            event = decode_event(row.body)
            if row.sequence <= mark:
                items.fold(event, row.enqueued_at)
            if row.sequence <= upto and event.user_id == exposure["user_id"]:
                users.fold(LoggedEvent(source, int(partition), row.sequence, row.enqueued_at, event))
    as_of = exposure["as_of"]
    shopper = users.shopper(exposure["user_id"], as_of)
    user = UserView(shopper.state, as_of, user_lists(shopper.state, items.row_of, LISTS))
    place = {one: index for index, one in enumerate(release.item_ids)}
    shown = rows_of_release[[place[one] for one in exposure["items"]]]
    retrieval = RetrievalBlock(
        np.array(exposure["retrieval_ranks"], np.int16), np.array(exposure["retrieval_scores"], np.float32)
    )
    pair = PairView(user, items.block(shown, as_of), items.category, items.brand)
    again = assemble(pair, retrieval, RequestView(as_of, release.model.time_zone))
    served = np.frombuffer(base64.b64decode(exposure["vectors"]), "<f4").reshape(again.shape)
    return served, again


def test_the_recomputation_sees_a_mark_that_is_off_by_one_event(shop: ApiShop) -> None:
    shop.click("ada", 50)
    shop.page("ada", limit=10)
    exposure = exposures(shop)[-1]
    shop.services.sealer.run()
    served, again = recompute(shop, exposure)
    assert np.allclose(served, again, rtol=1e-6, atol=1e-6)
    part = next(name for name, sequence in exposure["visibility"].items() if sequence >= 0)
    exposure["visibility"][part] -= 1
    served, again = recompute(shop, exposure)
    assert not np.allclose(served, again, rtol=1e-6, atol=1e-6)
