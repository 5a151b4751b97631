"""The night's evaluation on the terminal: the table, and the bars it must reach as claims."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

from local.claims import Claims
from shared.errors import ConfigurationError

REPORT: Final = "nightly/evaluation/report.json"
POPULARITY_BAR: Final = 2.0
SOURCE_BAR: Final = 1.05
NOT_A_SOURCE: Final = frozenset({"whole", "personal_frequency"})
SEGMENTS: Final = {"new_users": "new users", "light_users": "light users"}


def read_report(data: Path) -> dict[str, Any]:
    """The evaluation of the folder's last night. Raises ConfigurationError when there is none."""
    try:
        report: dict[str, Any] = msgspec.json.decode((data / REPORT).read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(f"{data / REPORT} is not there: run python -m batch.run_nightly first") from error
    return report


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print every method, the best first, with its bootstrap interval."""
    console.print(f"  evaluation on the test period: {report['queries']:,} pages of {report['users']:,} users")
    table = Table(box=None)
    table.add_column("method", no_wrap=True)
    for name in ("NDCG@20", "95% interval", "Recall@20", "coverage", *SEGMENTS.values()):
        table.add_column(name, justify="right", no_wrap=True)
    ordered = sorted(report["methods"].items(), key=lambda entry: -entry[1]["all"]["ndcg"]["estimate"])
    for name, segments in ordered:
        every, ndcg = segments["all"], segments["all"]["ndcg"]
        table.add_row(
            f"[bold]{name}[/]" if name == "whole" else name.replace("_", " "),
            f"{ndcg['estimate']:.4f}",
            f"{ndcg['low']:.4f} to {ndcg['high']:.4f}",
            f"{every['recall']['estimate']:.4f}",
            f"{every['coverage']:.1%}",
            *(f"{segments[segment]['ndcg']['estimate']:.4f}" for segment in SEGMENTS),
        )
    console.print(table)


def check(report: Mapping[str, Any], claims: Claims, *, repeats_matter: bool) -> None:
    """Make the claims of the design's bars, computed here from the methods' own numbers.

    `repeats_matter` is true of a shop that shows again what was bought: there the habit to buy the same is a rival.
    """
    ndcg = {name: segments["all"]["ndcg"]["estimate"] for name, segments in report["methods"].items()}
    whole, popular = ndcg["whole"], ndcg["popular"]
    best = max((name for name in ndcg if name not in NOT_A_SOURCE), key=lambda name: ndcg[name])
    _bar(claims, f"the whole is at least {POPULARITY_BAR} times as good as popularity", whole, popular, POPULARITY_BAR)
    sentence = f"the whole is at least {SOURCE_BAR} times as good as the best single source ({best})"
    _bar(claims, sentence, whole, ndcg[best], SOURCE_BAR)
    if repeats_matter:
        rival = ndcg["personal_frequency"]
        claims.check(
            "the whole beats what each shopper bought most often before",
            whole > rival,
            f"NDCG@20 {whole:.4f} against {rival:.4f}",
        )


def _bar(claims: Claims, sentence: str, value: float, against: float, bar: float) -> None:
    claims.check(sentence, value >= bar * against, f"NDCG@20 {value:.4f} against {against:.4f}")
