"""Habits, device and surface on served pages: what the request said, the shop's clock at a change, and parity."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from feature_jobs.check_parity import check_parity
from feature_jobs.recompute import Exposure
from local.embedded import EmbeddedServers
from shared.events import to_ms
from shared.features.definitions import DEVICES, SURFACES
from shared.features.vector import SCHEMA
from shared.ingest.exposures import read_exposures
from tests.integration.api_shop import ApiShop, behaviour, open_shop, problem_of

CHANGE = "2025-10-26"
"""The clocks of the shop, which is in London, go back an hour that night."""


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        yield opened


def at(text: str) -> int:
    return to_ms(datetime.fromisoformat(text))


def served(shop: ApiShop) -> list[dict[str, float]]:
    """The first vector of every page so far, oldest page first."""
    shop.services.exposures.flush()
    lines = sorted((Exposure.of(line) for line in read_exposures(shop.blobs)), key=lambda one: one.number)
    return [dict(zip(SCHEMA.names, one.logged()[0].tolist(), strict=True)) for one in lines]


def test_a_habit_outlasts_a_change_of_the_shops_clock_online_and_offline_alike(shop: ApiShop) -> None:
    visits = [f"2025-10-{day}T07:00:00+00:00" for day in (23, 24, 25)]  # eight by the shop's clock
    shop.post(*(behaviour("ann", 20 * number, occurred_at=text) for number, text in enumerate(visits)))
    shop.settle()
    for text in ("2025-10-27T10:00:00+00:00", "2025-10-27T10:00:00.001+00:00", "2025-10-30T08:00:00+00:00"):
        shop.clock.at = at(text)
        shop.page("ann", limit=5)
    shop.clock.at = None
    pages = served(shop)
    assert [page["user_hour_habit_14d"] for page in pages] == [1.0, 0.0, 1.0]
    assert pages[0]["user_weekday_habit_14d"] == 0.0
    assert 0.3 < pages[2]["user_weekday_habit_14d"] < 0.34, "one visit of three was on a Thursday"
    shop.services.sealer.run()
    differences = check_parity(shop.blobs)
    assert differences.exposures == 3
    assert not differences.mismatches.any(), differences.first_mismatch


SAID: list[tuple[dict[str, Any], list[float]]] = [
    ({}, [0, 0]),
    ({"device": "mobile"}, [2 + DEVICES.index("mobile"), 0]),
    ({"device": "Fridge", "surface": "CART"}, [1, 2 + SURFACES.index("cart")]),
]


def test_device_and_surface_are_features_and_recompute(shop: ApiShop) -> None:
    shop.click("bob", 20)
    for asked, _ in SAID:
        shop.page("bob", limit=5, **asked)
    pages = served(shop)
    assert [[page["request_device"], page["request_surface"]] for page in pages] == [codes for _, codes in SAID]
    shop.services.sealer.run()
    differences = check_parity(shop.blobs)
    assert differences.exposures == 3
    assert not differences.mismatches.any(), differences.first_mismatch


def test_co_visitation_with_the_last_click_is_served(shop: ApiShop) -> None:
    shop.click("cleo", 45)
    shop.page("cleo", limit=20)
    shop.services.exposures.flush()
    (line,) = (Exposure.of(line) for line in read_exposures(shop.blobs))
    column = SCHEMA.names.index("retrieval_covisitation_last_1")
    met = dict(zip(line.items, line.logged()[:, column].tolist(), strict=True))
    assert met["sku-0046"] == 1.0, "the first of the list of what goes with item 45"
    assert met["sku-0046"] > met["sku-0047"] > 0


@pytest.mark.parametrize("name", ["device", "surface"])
@pytest.mark.parametrize("text", ["", "x" * 201])
def test_what_is_no_word_is_refused(shop: ApiShop, name: str, text: str) -> None:
    problem_of(shop.client.get("/recommend/bob", params={name: text}), 422)
