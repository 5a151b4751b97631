"""schemathesis on the OpenAPI document: no 500, no status and no body that the document does not tell of.

About 3,000 requests here; `make fuzz` sets FUZZ_EXAMPLES, which multiplies those of every operation.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from functions.api.app import create_app
from local.embedded import EmbeddedServers
from shared.adapters.redis_connection import connect
from tests.contract.fuzzed_api import Report, fuzz
from tests.integration.api_shop import ApiShop, open_shop, stock
from tests.integration.credentials import Credentials

log = logging.getLogger(__name__)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "3"))
SEED = int(os.environ.get("FUZZ_SEED", "20261123"))
PATIENT = {"REQUEST_TIMEOUT_MS": "100000", "REDIS_TIMEOUT_MS": "10000"}
"""A machine that is busy is no finding."""
LONG = pytest.mark.timeout(120 + 40 * EXAMPLES)


@pytest.fixture(scope="module")
def session_servers() -> Iterator[EmbeddedServers]:
    folder = Path(tempfile.mkdtemp(prefix="recommndr-fuzz-"))
    try:
        with EmbeddedServers(folder) as servers:
            yield servers
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def servers(session_servers: EmbeddedServers) -> EmbeddedServers:
    for url in (session_servers.state_url, session_servers.log_url):
        with connect(url, timeout_ms=5000) as client:
            client.flushall()
    return session_servers


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials(tmp_path)


@contextmanager
def guarded_shop(servers: EmbeddedServers, folder: Path, credentials: Credentials) -> Iterator[ApiShop]:
    """With access control."""
    url, log_url = servers.state_url, servers.log_url
    with open_shop(url, log_url, folder / "shop", stocked=False, **PATIENT, **credentials.settings) as shop:
        shop.client.headers.update(credentials.operator)
        stock(shop)
        yield shop


def run(shop: ApiShop, **wanted: object) -> Report:
    """Fuzz the shop's application and hold it to what must hold in any run."""

    def keep_up() -> None:
        shop.pump()
        for one in shop.services.background:
            one.take_step()

    keep_up()
    shop.click("u-00007", 100)
    shop.page("u-00007")
    # The application closes nothing at the end of its life: the shop does.
    app = create_app(lambda: shop.services, lambda: None)
    began_s = time.process_time()
    report = fuzz(app, keep_up, seed=SEED, **wanted)  # type: ignore[arg-type]  # passed through
    log.info("%d cases, %.1f s of CPU, %s", report.cases, time.process_time() - began_s, dict(report.statuses))
    assert not report.failures, report.told()
    assert not [status for status in report.statuses if status >= 500]
    return report


@LONG
@pytest.mark.parametrize("paths", ["^/items", "^/(?!items)"])
def test_every_boundary_of_the_document_is_held_for_an_operator(
    paths: str, servers: EmbeddedServers, tmp_path: Path, credentials: Credentials
) -> None:
    with guarded_shop(servers, tmp_path, credentials) as shop:
        report = run(shop, examples=1, phases=("coverage",), paths=paths, headers=credentials.operator)
    assert report.cases > 500
    assert 401 in report.statuses, "ignored_auth tries without credentials and with wrong ones"


@LONG
def test_valid_and_invalid_requests_without_access_control(servers: EmbeddedServers, tmp_path: Path) -> None:
    with open_shop(servers.state_url, servers.log_url, tmp_path / "shop", stocked=True, **PATIENT) as shop:
        report = run(shop, examples=2 * EXAMPLES, phases=("fuzzing",), without=("ignored_auth",))
    assert report.accepted_share > 0.85, "the document tells what is taken"


@LONG
@pytest.mark.parametrize("paths", ["^/(releases|dead_letters)", "^/(?!releases|dead_letters)"])
def test_requests_that_follow_from_answers(paths: str, servers: EmbeddedServers, tmp_path: Path) -> None:
    with open_shop(servers.state_url, servers.log_url, tmp_path / "shop", stocked=True, **PATIENT) as shop:
        report = run(shop, examples=3 * EXAMPLES, phases=("stateful",), paths=paths, without=("ignored_auth",))
    assert report.statuses[200]


@LONG
@pytest.mark.parametrize("who", ["nobody", "shopper", "service"])
def test_whoever_asks_with_access_control(
    who: str, servers: EmbeddedServers, tmp_path: Path, credentials: Credentials
) -> None:
    headers = {
        "nobody": {},
        "shopper": credentials.shopper("u-00007", exp=int(time.time()) + 36_000),
        "service": credentials.service,
    }[who]
    with guarded_shop(servers, tmp_path, credentials) as shop:
        report = run(shop, examples=EXAMPLES, phases=("fuzzing",), headers=headers, learning=False)
    refused = report.statuses[401] + report.statuses[403]
    assert refused
    assert report.statuses[200]
