"""The parity check on real pages: it agrees with what was served, names what is off, waits for what is not sealed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from feature_jobs.check_parity import check_parity, main
from feature_jobs.recompute import Exposure
from local.embedded import EmbeddedServers
from shared.events import EventType
from shared.features import definitions
from shared.features.vector import SCHEMA
from shared.ingest.exposures import read_exposures, write_exposures
from tests.integration.api_shop import ApiShop, open_shop

USERS = ("ann", "bob", "cleo")


@pytest.fixture
def shop(servers: EmbeddedServers, tmp_path: Path) -> Iterator[ApiShop]:
    with open_shop(servers.state_url, servers.log_url, tmp_path) as opened:
        for number in range(12):
            opened.click(USERS[number % 3], 20 * number, "cart" if number % 4 == 3 else "view")
            opened.page(USERS[(number + 1) % 3], limit=10)
        yield opened


def seal(shop: ApiShop) -> None:
    shop.services.exposures.flush()
    shop.services.sealer.run()


def rewrite(shop: ApiShop, feature: str, change: float) -> None:
    """Add to one feature of every recorded vector, as a skewed server would have written it."""
    column = SCHEMA.names.index(feature)
    lines = []
    for line in read_exposures(shop.blobs):
        vectors = Exposure.of(line).logged().copy()
        vectors[:, column] += change
        lines.append(msgspec.json.encode({**line, "vectors": base64.b64encode(vectors.tobytes()).decode()}))
    for name in list(shop.blobs.names("lake/exposures/")):
        shop.blobs.delete(name)
    write_exposures(shop.blobs, "skewed", 0, lines)


def test_every_page_recomputes_and_nothing_differs(shop: ApiShop) -> None:
    seal(shop)
    differences = check_parity(shop.blobs)
    assert differences.exposures == 12
    assert differences.rows == 120
    assert not differences.skipped
    assert differences.mismatches.sum() == 0, differences.first_mismatch
    assert main(["--data", str(shop.blobs.root), "--no-seal"]) == 0
    written = sorted(path.name for path in (shop.blobs.root / "nightly/parity").iterdir())
    assert written == ["parity.json", "parity.png"]


def test_a_skewed_feature_is_named_and_no_other(
    shop: ApiShop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seal(shop)
    rewrite(shop, "item_price_log", 0.01)
    differences = check_parity(shop.blobs)
    named = {name for name, wrong in zip(SCHEMA.names, differences.mismatches, strict=True) if wrong}
    assert named == {"item_price_log"} == set(differences.first_mismatch)
    assert differences.largest.max() == pytest.approx(0.01 / np.log(500), rel=0.3)
    out, plot = tmp_path / "parity.json", tmp_path / "parity.png"
    assert main(["--data", str(shop.blobs.root), "--no-seal", "--out", str(out), "--plot", str(plot)]) == 1
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert next(row for row in table if row[:1] == ["feature"]) == ["feature", "rows", "mismatches", "largest"]
    assert next(row for row in table if row[0] in SCHEMA.names)[:3] == ["item_price_log", "120", "120"]
    report = msgspec.json.decode(out.read_bytes())
    assert report["features"]["item_price_log"]["mismatches"] == 120
    assert main(["--data", str(shop.blobs.root), "--no-seal", "--most-mismatches", "120"]) == 0
    assert check_parity(shop.blobs, threshold=0.1).mismatches.sum() == 0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_half_life_that_is_not_the_declared_one_is_found(shop: ApiShop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.clock.at = shop.services.exposures._clock() + 36 * 3_600_000
    shop.page("ann", limit=10)
    shop.clock.at = None
    seal(shop)
    flipped = definitions.decayed(EventType.VIEW, "1d")
    layout = definitions.USER_LAYOUT
    half_lives = layout.half_lives_ms.copy()
    half_lives[layout.slot[flipped]] *= 2
    monkeypatch.setattr(layout, "half_lives_ms", half_lives)
    differences = check_parity(shop.blobs)
    wrong = [name for name, count in zip(SCHEMA.names, differences.mismatches, strict=True) if count]
    assert wrong == ["user_view_decayed_1d"]


def test_what_the_lake_does_not_hold_yet_is_pending_and_nothing_to_compare_is_no_success(shop: ApiShop) -> None:
    seal(shop)
    shop.click("ann", 77)
    shop.page("ann", limit=10)
    shop.services.exposures.flush()
    differences = check_parity(shop.blobs)
    assert differences.exposures == 12
    assert sum(differences.skipped.values()) == 1
    assert next(iter(differences.skipped)).startswith("pending")


def test_an_empty_folder_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(tmp_path), "--no-seal"]) == 1
    assert "0 exposures" in capsys.readouterr().out


def test_pages_of_a_release_that_is_gone_are_counted_apart(shop: ApiShop) -> None:
    seal(shop)
    for name in list(shop.blobs.names("releases/")):
        shop.blobs.delete(name)
    differences = check_parity(shop.blobs)
    assert dict(differences.skipped) == {"its release is gone": 12}
    assert differences.rows == 0
