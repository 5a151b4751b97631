"""Every function of function_app.py through Microsoft's own runtime, in an environment of the request path alone."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from local.embedded import EmbeddedServers
from tests.contract.bare_environment import ROOT, NoPackageIndex, bare_environment, bare_variables
from tests.integration.api_shop import open_shop

INSIDE = ROOT / "tests" / "contract" / "inside_bare_environment.py"
FEWEST_TESTS = 35


@pytest.mark.timeout(420)  # the first run on a machine downloads the request path's packages
def test_every_function_through_microsofts_runtime(tmp_path: Path) -> None:
    try:
        python = bare_environment()
    except NoPackageIndex as unreachable:
        pytest.skip(f"no package index can be reached, so there is no bare environment: {unreachable}")
    report = tmp_path / "report.xml"
    shop_folder = tmp_path / "shop"
    with (
        EmbeddedServers(tmp_path / "servers") as servers,
        open_shop(servers.state_url, servers.log_url, shop_folder, EVENT_SOURCE="live-1", PARTITION_COUNT="4") as shop,
    ):
        environment = bare_variables(
            REDIS_URL=servers.state_url,
            EVENT_LOG_URL=servers.log_url,
            BLOB_URL=str(shop_folder),
            EVENT_SOURCE=shop.settings.event_source,
            PARTITION_COUNT=str(shop.settings.partition_count),
            USER_KEY_SECRET=shop.settings.user_key_secret,
            REDIS_TIMEOUT_MS="5000",
            EVENT_LOG_TIMEOUT_MS="5000",
        )
        command = [
            str(python), "-m", "pytest", str(INSIDE), "-q", "-ra", "--noconftest", "-p", "no:cacheprovider",
            "--import-mode=importlib", "--rootdir", str(ROOT), "-c", str(tmp_path / "none.ini"),
            "-W", "error", "--junitxml", str(report),
        ]  # fmt: skip
        (tmp_path / "none.ini").write_text("[pytest]\n")
        inner = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240
        )
    assert inner.returncode == 0, f"{inner.stdout[-12_000:]}\n{inner.stderr[-2000:]}"
    ran = ET.parse(report).getroot()
    assert not ran.findall(".//skipped[@type='pytest.skip']")
    assert len(ran.findall(".//testcase")) >= FEWEST_TESTS
