"""GET /recommendations/{id}: what was shown and why, from memory and from the minute's files; and the honest 404s."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from functions.api.recommendation_models import RecordedRecommendation
from functions.pages.recommendation_ids import is_sampled, made_at, recommendation_id
from local.embedded import EmbeddedServers
from shared.adapters.folder_blob import FolderBlobStore
from shared.errors import StateUnavailable
from shared.features.overlay import Overlay
from shared.ingest.exposures import exposure_files, exposure_lines_of, write_exposures
from tests.integration.api_shop import ApiShop, open_shop, problem_of

MINUTE_MS = 60_000


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        yield opened


def recorded(shop: ApiShop, page: Any) -> RecordedRecommendation:
    return RecordedRecommendation.model_validate(shop.get(f"/recommendations/{page['recommendation_id']}"))


def refusal(shop: ApiShop, identifier: str) -> str:
    detail: str = problem_of(shop.client.get(f"/recommendations/{identifier}"), 404)["detail"]
    return detail


def test_a_page_comes_back_from_memory_and_from_its_file_as_it_was_shown(shop: ApiShop) -> None:
    shop.click("ida", 100)
    asked = {"limit": 7, "explain": "true", "device": "mobile", "exclude": "sku-0101,sku-0102"}
    page = shop.page("ida", **asked)
    held = recorded(shop, page)
    assert (held.user_id, held.as_of, held.candidates) == ("ida", page["as_of"], page["candidates"])
    assert (held.request.limit, held.request.device, held.request.exclude) == (7, "mobile", ["sku-0101", "sku-0102"])
    assert held.removed == page["explanation"]["removed"]
    for ours, shown in zip(held.items, page["items"], strict=True):
        for name in ("item_id", "rank", "score", "sources", "reason"):
            assert getattr(ours, name) == shown[name]
        told = ours.explanation.model_dump()
        assert told == shown["explanation"]
    assert any("Product 100" in item.reason for item in held.items)
    shop.services.exposures.flush()
    with open_shop(shop.settings.redis_url, shop.settings.event_log_url, shop.blobs.root, stocked=False) as other:
        other.services.refresh()
        assert recorded(other, page) == held, "another worker reads the file"


def test_only_the_files_of_its_minute_are_read_and_a_damaged_one_is_passed_over(
    shop: ApiShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = shop.page("jo")
    shop.services.exposures.flush()
    (minute, _, name), *_ = exposure_files(shop.blobs)
    (line,) = exposure_lines_of(shop.blobs, name)
    at = made_at(page["recommendation_id"])
    assert at is not None
    write_exposures(shop.blobs, "neighbour", at - 7 * MINUTE_MS, [line.replace(b"jo", b"other")])
    shop.blobs.write(f"lake/exposures/{minute[:8]}/{minute}.a-damaged.ndjson.gz", b"?")
    shop.services.exposures.close()
    monkeypatch.setattr(shop.services.exposures, "lines_of_minute", lambda _at: [])
    read: list[str] = []
    original = FolderBlobStore.read

    def reading(blobs: FolderBlobStore, name: str) -> bytes:
        read.append(name)
        return original(blobs, name)

    monkeypatch.setattr(FolderBlobStore, "read", reading)
    assert recorded(shop, page).user_id == "jo"
    assert read
    assert all(f"/{minute}." in one for one in read)


def test_each_kind_of_no_says_why(shop: ApiShop) -> None:
    page = shop.page("kay")
    release, _, digits = page["recommendation_id"].rpartition(".")
    now = shop.services.clock()
    unknown = f"{release}.{digits[:-1]}{'0' if digits[-1] != '0' else '1'}"
    assert "another worker showed is written when its minute is over: ask again after" in refusal(shop, unknown)
    assert "never shown" in refusal(shop, recommendation_id(release, now - 10 * MINUTE_MS, digits))
    assert "never shown" in refusal(shop, f"{release}.{'f' * 32}")
    shop.clock.at = now + 10 * MINUTE_MS
    assert "never shown" in refusal(shop, unknown)
    problem = problem_of(shop.client.get(f"/recommendations/{release}.12"), 422)
    assert problem["type"].endswith("invalid_request")


def test_a_page_that_sampling_left_out_says_so(servers: EmbeddedServers, tmp_path: Path) -> None:
    with open_shop(servers.state_url, servers.log_url, tmp_path, EXPOSURE_SAMPLING="0.5") as half:
        pages = [half.page("lou", limit=1) for _ in range(20)]
        kept = [one for one in pages if is_sampled(one["recommendation_id"], 0.5)]
        assert 2 < len(kept) < 18
        for page in pages:
            if page in kept:
                assert recorded(half, page).items[0].item_id == page["items"][0]["item_id"]
            else:
                assert "keeps 50%" in refusal(half, page["recommendation_id"])


def test_an_erased_users_pages_are_gone_at_once_and_later_ones_are_not(shop: ApiShop) -> None:
    page = shop.page("mia")
    recorded(shop, page)
    shop.services.keeper.acknowledged("mia", Overlay(None, shop.services.clock()))
    assert refusal(shop, page["recommendation_id"]) == "the user of this page was erased"
    shop.services.exposures.flush()
    with open_shop(shop.settings.redis_url, shop.settings.event_log_url, shop.blobs.root, stocked=False) as other:
        other.services.refresh()
        assert refusal(other, page["recommendation_id"]) == "the user of this page was erased"
    shop.clock.at = shop.services.clock() + 5
    assert recorded(shop, shop.page("mia")).user_id == "mia"


def test_an_empty_page_is_a_page_too(shop: ApiShop) -> None:
    page = shop.page("qui", category="Nowhere")
    assert page["items"] == recorded(shop, page).items == []


def test_ids_are_ordered_by_time_and_tell_their_instant(shop: ApiShop) -> None:
    first, second = shop.page("nan"), shop.page("nan")
    assert made_at(first["recommendation_id"]) is not None
    assert first["recommendation_id"][-32:-20] <= second["recommendation_id"][-32:-20]
    assert recommendation_id("r-1", 1_780_000_000_123, "0123456789abcdef0123456789abcdef") == (
        "r-1.019e7187f07b7def0123456789abcdef"[:4] + f"{1_780_000_000_123:012x}" + "7def0123456789abcdef"
    )
    assert made_at(recommendation_id("r-1", 1_780_000_000_123, "f" * 32)) == 1_780_000_000_123
    assert made_at("r-1.xyz") is None


def test_without_the_state_nobody_can_tell_whether_she_was_erased(shop: ApiShop, monkeypatch: Any) -> None:
    page = shop.page("ola")

    def gone(*_: Any, **__: Any) -> Any:
        raise StateUnavailable("Redis does not answer")

    monkeypatch.setattr(shop.services.keeper, "read", gone)
    problem_of(shop.client.get(f"/recommendations/{page['recommendation_id']}"), 503)


def test_lines_hold_the_reasons_as_they_were_read(shop: ApiShop) -> None:
    page = shop.page("pat", limit=3)
    shop.services.exposures.flush()
    (_, _, name), *_ = exposure_files(shop.blobs)
    line = json.loads(exposure_lines_of(shop.blobs, name)[-1])
    assert line["reasons"] == [item["reason"] for item in page["items"]]
    assert line["removed"] == {"unavailable": 2}
