"""The report as files: report.json, and one page that needs nothing beside it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from batch.evaluation.report import Report
from batch.evaluation.report_page import page_of
from shared.errors import ConfigurationError


def write_json(report: Report, path: Path) -> None:
    """Indented, names in the order they are declared in; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


def write_page(report: Report, path: Path) -> None:
    """The report as a page of HTML; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page_of(report), encoding="utf-8")


def read_json(path: Path) -> Report:
    """The inverse of `write_json`; raises as `decode_report`."""
    return decode_report(path, Report)


def decode_report[T](path: Path, kind: type[T]) -> T:
    """A JSON file of that struct. Raises ConfigurationError where nothing is, or what another version wrote."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{path} is not there; run batch.evaluate_model with --out {path}") from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{path} is no report of this version ({error}); measure again") from error
