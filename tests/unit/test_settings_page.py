"""The page of settings: it is what the table says, and the check tells when it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.describe_settings import PAGE, main, page_of
from shared.settings import SettingDescription, described_settings


def test_the_committed_page_says_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_of(described_settings())
    assert main(["--check"]) == 0


def test_every_setting_has_its_row() -> None:
    rows = {line for line in page_of(described_settings()).splitlines() if line.startswith("| `")}
    assert len(rows) == len(described_settings())
    assert "| `PARTITION_COUNT` | `4` | Partitions of the live stream |" in rows


def test_an_empty_default_and_a_bar_keep_the_table_whole() -> None:
    page = page_of([SettingDescription("COLOURS", "", "Red | green")])
    assert page.splitlines()[-1] == "| `COLOURS` | empty | Red \\| green |"


def test_the_check_fails_on_another_page_and_leaves_it_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "settings.md"
    assert main(["--check", "--page", str(page)]) == 1
    assert not page.exists()
    assert main(["--page", str(page)]) == 0
    assert main(["--check", "--page", str(page)]) == 0
    page.write_text(page.read_text(encoding="utf-8").replace("live-1", "live-2"), encoding="utf-8")
    assert main(["--check", "--page", str(page)]) == 1
    assert "python -m local.describe_settings" in capsys.readouterr().err
