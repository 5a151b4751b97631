"""Feast's two reading calls give the values that a page was ranked with, hours after the last event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from redis import Redis

from feature_jobs.feast_catalog import repository
from feature_jobs.feast_catalog.declarations import RANKING, catalogue_of
from feature_jobs.feast_catalog.on_demand import request_inputs, retrieval_inputs
from feature_jobs.recompute import Exposure
from local.embedded import EmbeddedServers
from shared.errors import ConfigurationError, ReleaseUnavailable
from shared.events import from_ms
from shared.features.definitions import FEATURES
from shared.features.vector import SCHEMA
from shared.ingest.exposures import read_exposures
from tests.integration.api_shop import ApiShop, behaviour, open_shop

HOUR_MS = 3_600_000
USERS = ("ann", "bob")
NAMES = list(SCHEMA.names)

pytestmark = pytest.mark.xdist_group("feast")  # importing Feast takes seconds: once is enough


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path / "data") as opened:
        for number in range(24):
            opened.post(*clicks(number))
        opened.settle()
        yield opened


def clicks(number: int) -> list[dict[str, Any]]:
    kinds = ("view", "view", "cart", "purchase", "view", "remove_from_cart")
    return [behaviour(user, 7 * number % 240 + place, kinds[number % 6]) for place, user in enumerate(USERS)]


@pytest.fixture
def feast(shop: ApiShop, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("REDIS_URL", shop.settings.redis_url)
    return repository.apply(shop.blobs.root)


def page_at(shop: ApiShop, at: int, user_id: str, **asked: Any) -> tuple[Exposure, dict[str, Any]]:
    """A page at an instant, with the line that says what it was ranked with."""
    shop.clock.at = at
    shop.page(user_id, limit=15, **asked)
    shop.clock.at = None
    shop.services.exposures.flush()
    line = [one for one in read_exposures(shop.blobs) if one["as_of"] == at and one["user_id"] == user_id][-1]
    return Exposure.of(line), line


def asked_of(exposure: Exposure, line: dict[str, Any]) -> dict[str, Sequence[Any]]:
    """What a caller of Feast passes for the items of a page: keys, the request, what retrieval said."""
    count = len(exposure.items)
    blocks = [np.array(line[f"retrieval_{part}"]) for part in ("ranks", "scores", "covisitation", "text")]
    retrieval = np.column_stack(blocks)
    request = {"as_of": exposure.as_of, "time_zone": "Europe/London", "device": line["device"] or ""}
    return {
        "user_id": [exposure.user_id] * count,
        "item_id": list(exposure.items),
        **{field.name: retrieval[:, column].tolist() for column, field in enumerate(retrieval_inputs())},
        **{field.name: [request.get(field.name, "")] * count for field in request_inputs()},
    }


def whole_ranks(asked: dict[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    return {name: list(map(int, values)) if name.endswith("_rank") else values for name, values in asked.items()}


@pytest.mark.parametrize("hours", [0, 5, 24 * 40])
def test_online_and_historical_features_are_what_the_page_was_ranked_with(
    shop: ApiShop, feast: Any, hours: int
) -> None:
    newest_at = shop.services.exposures._clock()
    exposure, line = page_at(shop, newest_at + hours * HOUR_MS, "ann", device="phone")
    asked = whole_ranks(asked_of(exposure, line))
    feast._get_provider().online_store.clock = lambda: exposure.as_of
    service = feast.get_feature_service(RANKING)

    online = feast.get_online_features(features=service, entity_rows=asked).to_dict()
    served = np.column_stack([np.array(online[name], dtype=np.float64) for name in NAMES])
    np.testing.assert_array_equal(served, exposure.logged().astype(np.float64))

    shop.services.sealer.run()
    frame = pd.DataFrame({**asked, "event_timestamp": [from_ms(exposure.as_of)] * len(exposure.items)})
    past = feast.get_historical_features(entity_df=frame, features=service).to_df()
    np.testing.assert_allclose(past[NAMES].to_numpy(np.float64), exposure.logged(), rtol=1e-6, atol=1e-6)
    assert list(past["item_id"]) == exposure.items


def test_values_go_on_decaying_and_history_does_not_know_what_comes_later(shop: ApiShop, feast: Any) -> None:
    now = shop.services.exposures._clock()
    store = feast._get_provider().online_store
    decayed = next(one.name for one in FEATURES if one.name.endswith("decayed_1h"))
    counted = next(one.name for one in FEATURES if one.name.endswith("count_ever"))
    refs = [f"user:{decayed}", f"user:{counted}"]

    def read(at: int) -> tuple[float, float]:
        store.clock = lambda: at
        answer = feast.get_online_features(features=refs, entity_rows=[{"user_id": "ann"}]).to_dict()
        return answer[decayed][0], answer[counted][0]

    first, then = read(now + HOUR_MS), read(now + 6 * HOUR_MS)
    assert then[0] == pytest.approx(first[0] / 32, rel=1e-6)
    assert then[1] == first[1] > 0

    shop.services.sealer.run()
    between = shop.services.exposures._clock()
    # It happened before that instant and arrived after it.
    shop.post(behaviour("ann", 99, occurred_at=from_ms(now - HOUR_MS).isoformat()))
    shop.settle()
    shop.services.sealer.run()
    rows = [("ann", between), ("nobody", between), ("ann", now + 40 * 24 * HOUR_MS), ("ann", 1_000_000_000_000)]
    frame = pd.DataFrame({"user_id": [user for user, _ in rows], "event_timestamp": [from_ms(at) for _, at in rows]})
    past = feast.get_historical_features(entity_df=frame, features=refs).to_df()
    assert past[counted].tolist() == [first[1], 0.0, first[1] + 1, 0.0]
    assert past["user_id"].tolist() == [user for user, _ in rows]


def test_feast_reads_and_never_writes(shop: ApiShop, feast: Any, state_client: Redis) -> None:
    before = {key: state_client.dump(key) for key in state_client.scan_iter()}
    feast.get_online_features(features=feast.get_feature_service("profile"), entity_rows=[{"user_id": "ann"}])
    frame = pd.DataFrame({"user_id": ["ann"], "enqueued_at": [pd.Timestamp.now(tz="UTC")]})
    rows = frame.assign(**{one.name: 0.0 for one in catalogue_of().views[0].features})
    with pytest.raises(ConfigurationError, match="written by the fold alone"):
        feast.write_to_online_store("user", rows)
    with pytest.raises(ConfigurationError, match="values are not stored"):
        feast.materialize(from_ms(0), from_ms(1))
    with pytest.raises(ConfigurationError, match="no SQL"):
        feast.get_historical_features(
            entity_df="select 1", features=["user:" + catalogue_of().views[0].features[0].name]
        )
    feast.teardown()
    assert {key: state_client.dump(key) for key in state_client.scan_iter()} == before


def test_without_a_release_the_error_says_what_to_run(
    servers: EmbeddedServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", servers.state_url)
    feast = repository.apply(tmp_path)
    with pytest.raises(ReleaseUnavailable, match="nightly"):
        feast.get_online_features(features=feast.get_feature_service("profile"), entity_rows=[{"user_id": "ann"}])
