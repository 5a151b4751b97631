"""A shopper at the terminal: the shop's API over HTTP as an app would use it, with the time each answer took."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from shared.errors import InfrastructureFault, RecommndrError
from shared.events import EventType

ANSWER_TIMEOUT_S = 10.0
GIVE_UP_S = 10.0
Json = dict[str, Any]


class UnexpectedAnswer(RecommndrError):
    """The API answered with an error where the story expects a result."""


class ShopApi:
    """One kept-alive connection; `took_ms` collects the time of every answer by endpoint."""

    def __init__(self, address: str) -> None:
        """`address` is http://host:port."""
        parts = urllib.parse.urlsplit(address)
        self.address = address
        self.took_ms: dict[str, list[float]] = defaultdict(list)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "localhost", parts.port, timeout=ANSWER_TIMEOUT_S
        )

    def get(self, endpoint: str, identifier: str | None = None, **query: object) -> Json:
        """GET /endpoint[/identifier]?query. Raises UnexpectedAnswer and InfrastructureFault."""
        path = f"/{endpoint}" if identifier is None else f"/{endpoint}/{urllib.parse.quote(identifier, safe='')}"
        if query:
            path += "?" + urllib.parse.urlencode(query, doseq=True)
        return self._ask("GET", path, endpoint)

    def post(self, endpoint: str, body: object) -> Json:
        """POST a JSON body. Raises UnexpectedAnswer and InfrastructureFault."""
        return self._ask("POST", f"/{endpoint}", endpoint, json.dumps(body).encode())

    def popular(self, limit: int) -> list[Shown]:
        """What is popular now, best first."""
        return _listed(self.get("popular", limit=limit))

    def similar_items(self, item_id: str) -> list[Shown]:
        """What is like an item, best first."""
        return _listed(self.get("similar_items", item_id))

    def can_be_bought(self, item_id: str) -> bool:
        """The catalogue says so at this moment."""
        product = self.get("items", item_id)
        return product["stock"] != 0 and not product["hidden"]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def _ask(self, method: str, path: str, endpoint: str, body: bytes | None = None) -> Json:
        headers = {} if body is None else {"Content-Type": "application/json"}
        began = time.perf_counter()
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise InfrastructureFault(f"{self.address} does not answer {method} {path}: {error!r}") from error
        self.took_ms[endpoint].append((time.perf_counter() - began) * 1000)
        if answer.status >= 400:
            detail = content[:500].decode(errors="replace")
            raise UnexpectedAnswer(f"{method} {path} answered {answer.status}: {detail}")
        decoded: Json = json.loads(content)
        return decoded


@dataclass(frozen=True, slots=True)
class Shown:
    """One item of a page."""

    item_id: str
    title: str
    rank: int
    score: float
    sources: tuple[str, ...]
    reason: str
    category: str
    price_cents: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """An answer of /recommend."""

    items: tuple[Shown, ...]
    release: str
    recommendation_id: str
    fallback: str | None
    as_of: str

    @property
    def ids(self) -> tuple[str, ...]:
        """Item ids in order."""
        return tuple(item.item_id for item in self.items)

    @property
    def ranks(self) -> dict[str, int]:
        """Rank by item id."""
        return {item.item_id: item.rank for item in self.items}

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Page:
        """From the JSON of /recommend."""
        items = tuple(
            Shown(
                item["item_id"],
                item["title"] or item["item_id"],
                item["rank"],
                item["score"],
                tuple(item["sources"]),
                item["reason"],
                item["category"],
                item["price_cents"],
            )
            for item in answer["items"]
        )
        fallback = answer["fallback"]
        return cls(
            items,
            answer["release"],
            answer["recommendation_id"],
            None if fallback is None else fallback["cause"],
            answer["as_of"],
        )


@dataclass
class Shopper:
    """Someone with an id who looks at pages and clicks."""

    api: ShopApi
    user_id: str
    session_id: str = field(default_factory=lambda: f"story-{uuid.uuid4().hex[:12]}")

    def page(self, limit: int = 20) -> Page:
        """Her recommendations now."""
        return Page.of(self.api.get("recommend", self.user_id, limit=limit))

    def profile(self) -> Json:
        """What the shop knows of her."""
        return self.api.get("user_profile", self.user_id)

    def act(self, item_id: str, event_type: EventType = EventType.VIEW, recommendation_id: str | None = None) -> Json:
        """Post one thing she does, a view unless told otherwise; it returns once the broker log has it."""
        event: Json = {
            "event_id": uuid.uuid4().hex,
            "event_type": event_type.value,
            "user_id": self.user_id,
            "item_id": item_id,
            "session_id": self.session_id,
            "occurred_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        if recommendation_id is not None:
            event["recommendation_id"] = recommendation_id
        return self.api.post("events", {"events": [event]})

    def wait_until_seen(self, item_ids: Collection[str]) -> float:
        """Seconds until her profile's recent history holds all of these items; `GIVE_UP_S` at most."""
        began = time.monotonic()
        while time.monotonic() - began < GIVE_UP_S:
            held = {entry["item_id"] for entry in self.profile()["recent_history"]}
            if held.issuperset(item_ids):
                break
            time.sleep(0.02)
        return time.monotonic() - began


def _listed(answer: Json) -> list[Shown]:
    return [
        Shown(
            entry["item_id"],
            entry.get("title") or entry["item_id"],
            rank,
            0.0,
            (),
            "",
            entry.get("category") or "",
            None,
        )
        for rank, entry in enumerate(answer["items"], start=1)
    ]
