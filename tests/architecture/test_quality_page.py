"""docs/quality.md is what the committed reports say, no more and no less."""

from __future__ import annotations

from pathlib import Path

from batch.evaluation.quality_measured import FOLDER, read_measured
from batch.evaluation.quality_page import PAGE, page_of_quality
from batch.evaluation.quality_rows import load_rows


def test_the_page_is_made_from_the_reports(root: Path) -> None:
    rows = load_rows()
    page = page_of_quality(rows, read_measured(root / FOLDER, rows))
    assert (root / PAGE).read_text(encoding="utf-8") == page, "run python -m batch.quality --write-docs"


def test_every_report_is_of_a_row(root: Path) -> None:
    names = {f"{row.name}.json" for row in load_rows()}
    assert {path.name for path in (root / FOLDER).glob("*")} <= names


def test_parameter_files_that_the_reports_were_made_with_are_there(root: Path) -> None:
    rows = load_rows()
    measured = read_measured(root / FOLDER, rows)
    assert not [row.params for row in rows if row.name in measured and row.params and not (root / row.params).is_file()]
