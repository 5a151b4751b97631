"""docs/quality.md: the bars, what reached them, how, and what each source adds; made from short reports."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from batch.evaluation.quality_measured import Measured
from batch.evaluation.quality_rows import (
    ABOVE,
    BEST_SOURCE,
    PEERS,
    SOURCES,
    Bar,
    Outcome,
    Row,
    filled_commands,
    outcome,
)
from batch.evaluation.report import AblationRow, Comparison, Kind, Method, Report, Verdict
from batch.evaluation.report_text import ordered
from batch.evaluation.tree_memory import Spent
from batch.metrics import Interval
from batch.models.rankers import BLEND

PAGE: Final = Path("docs/quality.md")
DATA_NAME: Final = "../shared/data"
WORK_NAME: Final = ".recommndr/quality"
SIGNIFICANT_SETS: Final = 4
"""On so many sets a learnt ranker must be significantly above the best single source; never below it on any."""
MOST_SECONDS: Final = 3600.0
MOST_MIB: Final = 16 * 1024.0
"""What a row may take on two cores."""


def page_of_quality(rows: Sequence[Row], measured: dict[str, Measured]) -> str:
    """The page; rows that have not been measured say so."""
    lines = [
        "# Quality",
        "",
        (
            "What the lists are worth, on public data and published splits, made by the modules that serve. Written by "
            "`python -m batch.quality --write-docs` from `docs/quality/`; do not edit."
        ),
        "",
        (
            f"`make quality` measures all rows from `{DATA_NAME}` (hours; what was interrupted goes on), "
            "`make quality SET=<set>` some. A row looks at its test set once; its parameters were tuned on validation "
            "and stand in the file that its command names. Intervals are 95%, bootstrapped over users, paired where "
            "two methods are compared."
        ),
        "",
        "## Bars",
        "",
        "| set | metric | must | aim | published best | reached | best single source | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lines += [_bar_line(row, bar, measured.get(row.name)) for bar in row.bars]
    lines += ["", *_rankers(rows, measured), ""]
    for row in rows:
        if row.name in measured:
            lines += _row_section(row, measured[row.name])
    return "\n".join(lines).rstrip() + "\n"


def missed(rows: Sequence[Row], measured: dict[str, Measured]) -> list[str]:
    """What must be and is not, one sentence each; rows without a report are none of them."""
    found = []
    for row in rows:
        if row.name not in measured:
            continue
        report = measured[row.name].report
        bars = [bar for bar in row.bars if outcome(bar, report).must is False]
        found += [f"{row.title}: {_wanted(bar)} must be {_target(bar.must)}" for bar in bars]
        spent = measured[row.name].spent
        if spent.seconds > MOST_SECONDS or spent.peak_mib > MOST_MIB:
            found.append(f"{row.title}: took {_took(spent)}, may take {_took(Spent(MOST_SECONDS, MOST_MIB))}")
        if _learnt(report).verdict is Verdict.BELOW:
            found.append(f"{row.title}: a learnt ranker is significantly below {report.best_source}")
    return found


def command_lines(row: Row) -> list[str]:
    """The row's commands as a reader would type them."""
    commands = filled_commands(row, Path(DATA_NAME), Path(WORK_NAME), Path(row.params))
    return [shlex.join(["python", "-m", *words]) for words in commands]


def _bar_line(row: Row, bar: Bar, measured: Measured | None) -> str:
    if measured is None:
        cells = [row.title, _wanted(bar), _target(bar.must), _target(bar.aim), bar.published, "not measured", "", ""]
        return _line(cells)
    report = measured.report
    found = outcome(bar, report)
    best = _best_source(bar, report)
    cells = [
        f"[{row.title}](#{_anchor(row.title)})",
        _wanted(bar),
        _target(bar.must),
        _target(bar.aim),
        bar.published,
        _reached(bar, found),
        best,
        _verdict(found),
    ]
    return _line(cells)


def _wanted(bar: Bar) -> str:
    metric = _metric(bar.metric) + (f", {_words(bar.segment)}" if bar.segment else "")
    group = {SOURCES: "each source", PEERS: "each other method", BEST_SOURCE: "the best source"}
    return f"{metric} against {group.get(bar.against, bar.against)}" if bar.against else metric


def _target(wanted: float | str | None) -> str:
    if wanted is None:
        return ""
    return "significantly above" if wanted == ABOVE else f"{wanted:g}"


def _reached(bar: Bar, found: Outcome) -> str:
    if not bar.against:
        return f"**{_interval(found.reached)}**"
    if ABOVE in (bar.must, bar.aim):
        return f"**{_interval(found.reached, signed=True)}** against {found.against}"
    return f"**{_interval(found.reached, digits=2)}** times"


def _best_source(bar: Bar, report: Report) -> str:
    if bar.segment:
        segment = report.segment(bar.segment)
        return f"{segment.best_source} {segment.methods[segment.best_source][bar.metric].estimate:.4f}"
    sources = [one for one in report.methods if one.kind is Kind.SOURCE]
    best = max(sources, key=lambda one: one.metrics[bar.metric].estimate)
    return f"{best.name} {best.metrics[bar.metric].estimate:.4f}"


def _verdict(found: Outcome) -> str:
    if found.must is False:
        return "**missed**"
    return "aim reached" if found.aim else "" if found.must is None else "reached"


def _rankers(rows: Sequence[Row], measured: dict[str, Measured]) -> list[str]:
    """The bar over all sets: a learnt ranker against the best single source."""
    verdicts = {row.title: _learnt(measured[row.name].report).verdict for row in rows if row.name in measured}
    above = [title for title, verdict in verdicts.items() if verdict is Verdict.ABOVE]
    below = [title for title, verdict in verdicts.items() if verdict is Verdict.BELOW]
    groups = {row.group for row in rows if row.title in above}
    said = f"significantly above it on {len(groups)} sets ({len(above)} of {len(verdicts)} rows)"
    worse = f"; below it on {', '.join(below)}" if below else ", never below"
    least = f"must be on {SIGNIFICANT_SETS} sets at least, and below it on none"
    return [f"LambdaMART or the logit, whichever serves, against the best single source: {said}{worse}; {least}."]


def _learnt(report: Report) -> Comparison:
    """What serves against the best source; where the blend serves, the better of the other two."""
    learnt = [one for one in report.methods if one.kind is Kind.RANKER and one.name != BLEND]
    best = max(learnt, key=lambda one: (one.name == report.serves, one.metrics[report.metric].estimate))
    assert best.against_best is not None
    return best.against_best


def _row_section(row: Row, measured: Measured) -> list[str]:
    report, about = measured.report, measured.report.about
    params = f"Parameters: `{row.params}` (sha256 `{about.params_sha256[:16]}…`). " if row.params else ""
    headings = (
        _metric(report.metric),
        "Recall@20",
        "HR@10",
        "HR@20",
        "MRR@20",
        f"against {report.best_source}",
        "ms for 200",
    )
    lines = [
        f"## {row.title}",
        "",
        about.protocol[:1].upper() + about.protocol[1:] + ".",
        "",
        *(f"- {sentence}" for sentence in about.fitted),
        "",
        (
            f"{report.queries:,} queries of {report.users:,} users; rankers learnt on {report.label_queries:,}. "
            f"{params}All of it: {_took(measured.spent)} at the peak."
        ),
        "",
        "```sh",
        *command_lines(row),
        "```",
        "",
        _line(["", *headings]),
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_method_line(one, report) for one in ordered(report)),
        "",
    ]
    merged = report.candidate_recall[-1]
    recall = ", ".join(f"{merged.at[k]:.3f} among the first {k}" for k in merged.at)
    lines += [
        f"Candidates of all sources hold {recall} of each, {merged.all:.3f} in all ({merged.candidates:.0f}).",
        "",
    ]
    if report.ablation is not None:
        found = report.ablation
        lines += [
            (
                f"Left out, {found.ranker} trained anew ({found.label_queries:,} label and {found.test_queries:,} test "
                f"queries, {_metric(report.metric)} {found.metric:.4f} whole):"
            ),
            "",
            "| without | loss | | candidates' recall |",
            "| --- | --- | --- | --- |",
            *map(_ablation_line, found.rows),
            "",
        ]
    return lines


def _method_line(one: Method, report: Report) -> str:
    costs = {cost.ranker: f"{cost.milliseconds:.2f}" for cost in report.serving_cost}
    numbers = [f"{one.metrics[name].estimate:.4f}" for name in ("recall@20", "hit_rate@10", "hit_rate@20", "mrr@20")]
    against = "" if one.against_best is None else _compared(one.against_best)
    name = f"**{one.name}** (serves)" if one.name == report.serves else one.name
    return _line([name, _interval(one.metrics[report.metric]), *numbers, against, costs.get(one.name, "")])


def _ablation_line(row: AblationRow) -> str:
    said = {Verdict.ABOVE: "adds", Verdict.BELOW: "harms", Verdict.SAME: "not told apart from nothing"}[row.verdict]
    return _line([f"{row.kind} {row.name}", _interval(row.loss, signed=True), said, f"{row.candidate_recall:.4f}"])


def _compared(comparison: Comparison) -> str:
    return f"{_interval(comparison.difference, signed=True)}, {comparison.verdict}"


def _took(spent: Spent) -> str:
    return f"{spent.seconds:,.0f} s, {spent.peak_mib / 1024:.1f} GiB"


def _interval(interval: Interval, digits: int = 4, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    low, high = f"{interval.low:.{digits}f}", f"{interval.high:.{digits}f}"
    return f"{interval.estimate:{sign}.{digits}f} ({low} to {high})"


def _metric(name: str) -> str:
    title, _, k = name.partition("@")
    return {"ndcg": "NDCG", "recall": "Recall", "hit_rate": "HR", "mrr": "MRR"}[title] + f"@{k}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _anchor(title: str) -> str:
    return "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_").replace(" ", "-")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
