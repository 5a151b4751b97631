"""What the live benchmarks share: a small shop served over either broker log, and shoppers who post steadily."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from local.embedded import EmbeddedServers
from local.kafka_broker import KafkaBroker, fetch_jars
from local.server_process import ServerProcess, server_process
from local.shopper import ShopApi, UnexpectedAnswer
from shared.errors import InfrastructureFault
from shared.settings import SECRET_DEFAULT
from tests.integration.api_shop import CATEGORIES, PER_CATEGORY, behaviour, open_shop

TOPIC: Final = "events"
SHOPPERS: Final = 2000
POSTS_PER_S: Final = 20
RETRY_AFTER_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class LiveShop:
    """A served shop of 240 items; `broker_url` is None over the embedded log."""

    server: ServerProcess
    folder: Path
    broker_url: str | None


@contextlib.contextmanager
def live_shop(broker: str, environment: Mapping[str, str] | None = None) -> Iterator[LiveShop]:
    """Stock a folder, start what `broker` ("embedded" or "kafka") needs, and serve it while the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="recommndr-live-"))
    try:
        data = folder / "shop"
        with (
            EmbeddedServers(data) as servers,
            open_shop(servers.state_url, servers.log_url, data, USER_KEY_SECRET=SECRET_DEFAULT),
        ):
            pass
        with contextlib.ExitStack() as stack:
            url = None
            if broker == "kafka":
                url = f"kafka://{stack.enter_context(KafkaBroker(folder / 'kafka', fetch_jars())).address}/{TOPIC}"
            arguments = () if url is None else ("--broker", url)
            server = stack.enter_context(server_process(data, 0, environment, arguments))
            yield LiveShop(server, data, url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class PostedLoad:
    """Shoppers who post `rate` events a second in a thread, a few in each request, until `stop`.

    What is not acknowledged is sent again with the same event_id until it is; `acknowledged` holds the ids that were.
    """

    def __init__(self, address: str, rate: int, *, seed: int = 1) -> None:
        """`rate` 0 posts nothing."""
        self._address = address
        self._rate = rate
        self._draw = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="posted-load", daemon=True)
        self._began_s = 0.0
        self._took_s = 0.0
        self.acknowledged: set[str] = set()
        self.refusals = 0

    def start(self) -> None:
        """Begin."""
        self._began_s = time.monotonic()
        if self._rate:
            self._thread.start()

    def stop(self) -> None:
        """End after what is under way has been acknowledged."""
        self._stop.set()
        if self._rate:
            self._thread.join(120)
        self._took_s = time.monotonic() - self._began_s

    @property
    def achieved(self) -> float:
        """Acknowledged events a second."""
        return len(self.acknowledged) / self._took_s if self._took_s else 0.0

    def _run(self) -> None:
        size = max(1, self._rate // POSTS_PER_S)
        with ShopApi(self._address) as api:
            due = time.monotonic()
            while not self._stop.is_set():
                due += size / self._rate
                self._post(api, [self._event() for _ in range(size)])
                self._stop.wait(max(0.0, due - time.monotonic()))

    def _event(self) -> dict[str, Any]:
        user = f"shopper-{self._draw.randrange(SHOPPERS)}"
        return behaviour(user, self._draw.randrange(CATEGORIES * PER_CATEGORY))

    def _post(self, api: ShopApi, events: list[dict[str, Any]]) -> None:
        while events:
            try:
                outcomes = api.post("events", events)["outcomes"]
            except (UnexpectedAnswer, InfrastructureFault):
                self.refusals += 1
                if self._stop.wait(RETRY_AFTER_S) and self.refusals > 1000:
                    return
                continue
            accepted = {one["event_id"] for one in outcomes if one["outcome"] == "accepted"}
            self.acknowledged |= accepted
            events = [event for event in events if event["event_id"] not in accepted]
