"""Short reports of the rows of docs/quality.md, as they stand in the repository."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from batch.evaluation.quality_rows import Row
from batch.evaluation.report import Report
from batch.evaluation.report_files import decode_report
from batch.evaluation.tree_memory import Spent

FOLDER: Final = Path("docs/quality")
_DIGITS: Final = 6


class Measured(msgspec.Struct, frozen=True):
    """A row's report, shortened to what the page shows, and what all its commands took."""

    row: str
    spent: Spent
    report: Report


def shortened(row: Row, report: Report, spent: Spent) -> Measured:
    """Without parameters and folders (names and hashes of files stay) and segments that no bar reads; six digits."""
    wanted = {bar.segment for bar in row.bars}
    files = {Path(name).name: digest for name, digest in report.about.files.items()}
    kept = msgspec.structs.replace(
        report,
        about=msgspec.structs.replace(report.about, params={}, params_file=row.params, command="", files=files),
        segments=[one for one in report.segments if one.name in wanted],
    )
    return Measured(row.name, spent, msgspec.convert(_rounded(msgspec.to_builtins(kept)), Report))


def write_measured(folder: Path, measured: Measured) -> None:
    """<folder>/<row>.json, one line a value."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{measured.row}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=1) + b"\n")


def read_measured(folder: Path, rows: Sequence[Row]) -> dict[str, Measured]:
    """What stands there, by row. Raises ConfigurationError for what another version wrote."""
    paths = {row.name: folder / f"{row.name}.json" for row in rows}
    return {name: decode_report(path, Measured) for name, path in paths.items() if path.exists()}


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value
