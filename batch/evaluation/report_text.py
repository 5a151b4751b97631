"""The report as a table in a terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Console, Group
from rich.table import Table

from batch.evaluation.report import Comparison, Method, Report
from batch.metrics import Interval

_WIDTH: Final = 160
"""Of a file or a pipe, which have none of their own."""


def print_report(report: Report, console: Console | None = None) -> None:
    """Methods, candidates, ablation and costs."""
    tables = [_methods(report), _candidates(report)]
    if report.segments:
        tables.append(_segments(report))
    if report.ablation is not None:
        tables.append(_ablation(report))
    tables.append(_costs(report))
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(Group(*tables))


def said(interval: Interval) -> str:
    """An estimate with its interval, in four digits."""
    return f"{interval.estimate:.4f} ({interval.low:.4f} to {interval.high:.4f})"


def compared(comparison: Comparison | None) -> str:
    """A difference with its verdict; nothing for a method against itself."""
    if comparison is None:
        return ""
    ratio = "" if comparison.ratio is None else f", {comparison.ratio.estimate:.2f} times"
    return f"{comparison.difference.estimate:+.4f}{ratio}: {comparison.verdict}"


def ordered(report: Report) -> list[Method]:
    """Methods by the metric they are compared by, the best first."""
    return sorted(report.methods, key=lambda one: -one.metrics[report.metric].estimate)


def _methods(report: Report) -> Table:
    table = Table(
        title=f"{report.about.title}: {report.queries:,} queries of {report.users:,} users; {report.serves} serves",
        title_justify="left",
    )
    for name in (
        "",
        "kind",
        report.metric,
        "recall@20",
        "HR@10",
        "MRR@20",
        f"against {report.best_source}",
        "coverage",
    ):
        table.add_column(name, no_wrap=name != "")
    for one in ordered(report):
        table.add_row(
            one.name,
            str(one.kind),
            said(one.metrics[report.metric]),
            *(f"{one.metrics[name].estimate:.4f}" for name in ("recall@20", "hit_rate@10", "mrr@20")),
            compared(one.against_best),
            f"{one.lists.coverage:.1%}",
            style="bold" if one.name == report.serves else "",
        )
    return table


def _candidates(report: Report) -> Table:
    cuts = list(report.candidate_recall[0].at)
    table = Table(
        "recall of", *(f"first {k}" for k in cuts), "all", "candidates", title="Candidates", title_justify="left"
    )
    for row in report.candidate_recall:
        shares = (f"{row.at[k]:.4f}" for k in cuts)
        table.add_row(row.name, *shares, f"{row.all:.4f}", f"{row.candidates:.0f}")
    return table


def _segments(report: Report) -> Table:
    table = Table(
        "queries with", "queries", report.serves, "best source", "against it", title="Segments", title_justify="left"
    )
    for one in report.segments:
        best = one.methods[one.best_source][report.metric]
        table.add_row(
            one.name,
            f"{one.queries:,}",
            said(one.methods[report.serves][report.metric]),
            f"{one.best_source} {best.estimate:.4f}",
            compared(one.serving_against[one.best_source]),
        )
    return table


def _ablation(report: Report) -> Table:
    found = report.ablation
    assert found is not None
    table = Table(
        "without",
        report.metric,
        "loss",
        "",
        "candidates' recall",
        title=f"Ablation of {found.ranker}: {found.metric:.4f} whole, {found.label_queries:,} queries to learn from, "
        f"{found.test_queries:,} to judge by; candidates' recall {found.candidate_recall:.4f}",
        title_justify="left",
    )
    for row in found.rows:
        table.add_row(
            f"{row.kind} {row.name}",
            f"{row.metric:.4f}",
            said(row.loss),
            loss_of(row.loss),
            f"{row.candidate_recall:.4f}",
        )
    return table


def loss_of(loss: Interval) -> str:
    """What the interval of a loss says."""
    return "adds" if loss.low > 0 else "harms" if loss.high < 0 else "not told apart from nothing"


def _costs(report: Report) -> Table:
    table = Table("part", "seconds", "peak MiB", title="What it took", title_justify="left")
    for one in report.parts:
        table.add_row(one.name, f"{one.seconds:,.1f}", f"{one.peak_mib:,.0f}")
    for cost in report.serving_cost:
        table.add_row(
            f"{cost.ranker}: {cost.candidates} candidates", f"{cost.milliseconds:.3f} ms", f"{cost.model_kib:,.0f} KiB"
        )
    return table
