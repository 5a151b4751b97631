"""A typed client, made from docs/openapi.json by openapi-python-client, works against a server; in its own process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from local.embedded import EmbeddedServers
from tests.integration.api_shop import ApiShop, open_shop

ROOT = Path(__file__).resolve().parents[2]
STORY = """
import datetime, sys
from recommndr_client import Client
from recommndr_client.api.catalogue import patch_item
from recommndr_client.api.events import post_events
from recommndr_client.api.items import get_item, list_items
from recommndr_client.api.recommendations import recommend
from recommndr_client.models import BehaviourEvent, BehaviourEventEventType, CatalogueSort, EventsAccepted, Item
from recommndr_client.models import ItemPatch, Items, ItemWritten, Problem, Recommendations

with Client(base_url=sys.argv[1], raise_on_unexpected_status=True) as client:
    page = recommend.sync("gwen", client=client, limit=3, explain=True)
    assert isinstance(page, Recommendations), page
    assert [one.rank for one in page.items] == [1, 2, 3]
    assert page.fallback.cause == "new_user"
    assert page.explanation.removed.additional_properties["unavailable"] == 2

    event = BehaviourEvent(
        event_id="generated-1", event_type=BehaviourEventEventType.VIEW, user_id="gwen", item_id=page.items[0].item_id,
        occurred_at=datetime.datetime.now(datetime.UTC), recommendation_id=page.recommendation_id,
    )
    taken = post_events.sync(client=client, body=[event])
    assert isinstance(taken, EventsAccepted), taken
    assert (taken.accepted, taken.outcomes[0].event_id) == (1, "generated-1")

    listed = list_items.sync(client=client, sort=CatalogueSort.NEWEST, limit=5)
    assert isinstance(listed, Items), listed
    assert len(listed.items) == 5
    item = get_item.sync("sku-0003", client=client)
    assert isinstance(item, Item) and item.price_cents == 503, item
    written = patch_item.sync("sku-0003", client=client, body=ItemPatch(price_cents=99))
    assert isinstance(written, ItemWritten), written

    answer = get_item.sync_detailed("sku-none", client=client)
    assert answer.status_code == 404
    assert isinstance(answer.parsed, Problem)
    assert answer.parsed.type_ == "urn:recommndr:problem:unknown_item"
"""


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path / "shop") as opened:
        yield opened


@pytest.fixture
def address(shop: ApiShop) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(shop.app, port=0, lifespan="off", log_level="warning"))
    listening = server.config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


def test_a_client_generated_from_the_document_asks_posts_writes_and_reads_an_error(
    address: str, shop: ApiShop, tmp_path: Path
) -> None:
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    command = ["openapi-python-client", "generate", "--path", str(ROOT / "docs/openapi.json"), "--fail-on-warning"]
    made = subprocess.run(
        [scripts / command[0], *command[1:], "--output-path", str(tmp_path / "client")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    told = subprocess.run(
        [sys.executable, "-c", STORY, address],
        env={**environment, "PYTHONPATH": str(tmp_path / "client")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    shop.settle()
    assert shop.get("/user_profile/gwen")["recent_history"]
    assert shop.get("/items/sku-0003")["price_cents"] == 99
