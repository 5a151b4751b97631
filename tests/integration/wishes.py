"""Asking for preferences as a front end does, and looking at every path that must obey them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from tests.integration.api_shop import ApiShop, indexes
from tests.integration.unreachable import Reach

PATHS = (
    "/recommend/{user}?limit=100",
    "/similar_items/sku-0045?limit=100&user_id={user}",
    "/bought_together/sku-0045?limit=100&user_id={user}",
    "/popular?limit=100&user_id={user}",
    "/items?user_id={user}&category=Category%202",
    "/search?q=Product&limit=100&user_id={user}",
)
CIRCUIT_S = 5.0
"""Longer than any circuit stays open."""


def put(shop: ApiShop, user: str, **wanted: Any) -> Any:
    answer = shop.client.put(f"/user_profile/{user}/preferences", json=wanted)
    assert answer.status_code == 202, answer.text
    return answer.json()


def got(shop: ApiShop, user: str) -> Any:
    return shop.get(f"/user_profile/{user}/preferences")


def wish(user: str, at: datetime | None = None, event_id: str | None = None, **wanted: Any) -> dict[str, Any]:
    return {
        "event_id": event_id or uuid.uuid4().hex,
        "event_type": "preferences_set",
        "occurred_at": (at or datetime.now(UTC)).isoformat(),
        "user_id": user,
        "changes": wanted,
    }


def pages(shop: ApiShop, user: str) -> dict[str, Any]:
    return {path.split("?")[0]: shop.get(path.format(user=user)) for path in PATHS}


def shown(shop: ApiShop, user: str) -> dict[str, list[int]]:
    return {path: indexes(page) for path, page in pages(shop, user).items()}


def settle(*shops: ApiShop) -> None:
    shops[0].pump()
    for one in shops:
        one.services.follower.follow()


def back(state: Reach, *shops: ApiShop) -> None:
    """The state is reachable again, and no circuit is open any more."""
    state.mend()
    shops[0].seconds.ahead += CIRCUIT_S


def flagged(shop: ApiShop, user: str) -> dict[str, bool]:
    found = {}
    for path in PATHS:
        answer = shop.client.get(path.format(user=user))
        if answer.status_code == 503:
            continue  # related lists that are not in memory
        assert answer.status_code == 200, answer.text
        found[path.split("?")[0]] = answer.json()["preferences_unavailable"]
    assert len(found) >= len(PATHS) - 2
    return found
