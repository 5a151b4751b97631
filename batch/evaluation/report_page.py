"""The report as one page of HTML that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

import msgspec

from batch.evaluation.candidates_measured import MERGED
from batch.evaluation.report import METRICS, Ablation, AblationRow, Calibration, Kind, Method, Report, Segment, Verdict
from batch.evaluation.report_charts import Bar, bars, lines, reliability
from batch.evaluation.report_text import compared, loss_of, ordered, said
from batch.metrics import Interval
from shared.features.definitions import Retrieval

_STYLE: Final = Path(__file__).with_name("report.css")
_HISTORY: Final = "history "
_SHOWN: Final = ("ndcg@20", "recall@20", "hit_rate@20", "mrr@20")


def page_of(report: Report) -> str:
    """The whole page: what was measured, the methods, what each source adds, and what it took."""
    sections = [
        _head(report),
        _section("What was measured", _about(report)),
        _section(f"{report.metric} of every method", _methods(report)),
        _section("What sources carry to the rankers", _candidates(report)),
        _section("What each source and feature group adds", _ablation(report.ablation)) if report.ablation else "",
        _section("By length of history and other groups of queries", _segments(report)) if report.segments else "",
        _section("What lists show", _lists(report)),
        _section("Calibration", _calibration(report.calibration)) if report.calibration else "",
        _section("What it took", _costs(report)),
        _section("Parameters", _parameters(report)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.about.title)}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def _head(report: Report) -> str:
    serves, best = report.method(report.serves), report.method(report.best_source)
    against = serves.against_best
    tiles = [
        (*_shown(serves.metrics[report.metric]), f"{report.metric} of {report.serves}, which serves"),
        (*_shown(best.metrics[report.metric]), f"{report.metric} of {report.best_source}, the best single source"),
    ]
    if against is not None and against.ratio is not None:
        times, interval = _shown(against.ratio, 2)
        tiles.append((f"{times} times", interval, f"the best source: {against.verdict}"))
    tiles.append((f"{report.queries:,}", f"pages of {report.users:,} users", f"{report.label_queries:,} to learn from"))
    made = "".join(
        f"<div class='tile'><b>{escape(value)}</b>{escape(interval)}<span>{escape(name)}</span></div>"
        for value, interval, name in tiles
    )
    title, protocol = escape(report.about.title), escape(report.about.protocol)
    return f"<h1>{title}</h1>\n<p class='lead'>{protocol}</p>\n<div class='tiles'>{made}</div>\n"


def _shown(interval: Interval, digits: int = 4) -> tuple[str, str]:
    return f"{interval.estimate:.{digits}f}", f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"


def _about(report: Report) -> str:
    about = report.about
    rows = [("Protocol", escape(about.protocol))]
    rows += [("Fitted" if not place else "", escape(sentence)) for place, sentence in enumerate(about.fitted)]
    rows += [
        ("File" if not place else "", f"{escape(name)}<br><code class='soft'>sha256 {escape(digest)}</code>")
        for place, (name, digest) in enumerate(about.files.items())
    ]
    params = escape(about.params_file) or "defaults"
    digest = f"<br><code class='soft'>sha256 {escape(about.params_sha256)}</code>" if about.params_sha256 else ""
    rows += [
        ("Parameters", f"{params}{digest}"),
        ("Command", f"<pre>{escape(about.command)}</pre>"),
        ("Feature schema", f"<code>{escape(report.schema)}</code>"),
    ]
    return "<dl>" + "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in rows) + "</dl>"


def _methods(report: Report) -> str:
    methods = ordered(report)
    chart = bars(
        [Bar(one.name, one.metrics[report.metric], _style(one, report)) for one in methods],
        f"{report.metric} of every method with 95% intervals",
    )
    kinds = [("serves", "what serves")] + [
        (kind, f"{kind}s") for kind in Kind if any(one.kind is kind for one in methods)
    ]
    key = "".join(f"<span style='background:var(--{style})'></span>{escape(name)}" for style, name in kinds)
    header = ("", "kind", *_SHOWN, f"against {report.best_source}")
    rows = [
        (
            one.name,
            str(one.kind),
            *(f"{one.metrics[name].estimate:.4f}" for name in _SHOWN),
            compared(one.against_best),
        )
        for one in methods
    ]
    note = (
        "Whiskers and brackets are 95% intervals: 1,000 draws of users with replacement, paired where two methods are "
        "compared. Equal scores share the mean of their places."
    )
    strong = [one.name == report.serves for one in methods]
    every = _table(
        ("", *METRICS), [(one.name, *(said(one.metrics[name]) for name in METRICS)) for one in methods], strong
    )
    return (
        f"<p class='key soft'>{key}</p>{chart}{_note(note)}{_table(header, rows, strong)}"
        f"<details><summary>All metrics with their intervals</summary>{every}</details>"
    )


def _candidates(report: Report) -> str:
    cuts = list(report.candidate_recall[0].at)
    rows = [
        (row.name, *(f"{row.at[k]:.4f}" for k in cuts), f"{row.all:.4f}", f"{row.candidates:.1f}")
        for row in report.candidate_recall
    ]
    note = (
        "The mean share of a query's positives among the first k of a source. Merged: among the first k of any, and "
        "among all candidates. No ranker can find what is not there."
    )
    header = ("", *(f"first {k}" for k in cuts), "all", "candidates a query")
    return _note(note) + _table(header, rows, [row.name == MERGED for row in report.candidate_recall])


def _ablation(found: Ablation) -> str:
    sources = [row for row in found.rows if row.kind == "source"]
    groups = [row for row in found.rows if row.kind != "source"]
    note = (
        f"{found.ranker} trained anew without it on the same {found.label_queries:,} label queries, judged on the same "
        f"{found.test_queries:,} test queries, where the whole reaches {found.metric:.4f} and candidates hold "
        f"{found.candidate_recall:.1%} of the positives. A source goes with the candidates that it alone carries. "
        "Bars are what is lost; grey is not told apart from nothing."
    )
    charts = [
        f"<h3>{heading}</h3>{bars([_loss_bar(row) for row in rows], f'What is lost without each {heading.lower()}')}"
        for heading, rows in (("Source", sources), ("Feature group", groups))
        if rows
    ]
    header = ("without", "metric", "loss", "", "candidates' recall")
    table = _table(
        header,
        [
            (
                f"{row.kind} {row.name}",
                f"{row.metric:.4f}",
                said(row.loss),
                loss_of(row.loss),
                f"{row.candidate_recall:.4f}",
            )
            for row in found.rows
        ],
    )
    return f"{_note(note)}{''.join(charts)}{table}"


def _loss_bar(row: AblationRow) -> Bar:
    return Bar(row.name, row.loss, "same" if row.verdict is Verdict.SAME else "loss")


def _segments(report: Report) -> str:
    history = [one for one in report.segments if one.name.startswith(_HISTORY)]
    chart = ""
    if len(history) > 1:
        shown = [report.serves, report.best_source, str(Retrieval.POPULAR)]
        series = {
            name: [one.methods[name][report.metric] for one in history]
            for name in dict.fromkeys(shown)
            if all(name in one.methods for one in history)
        }
        categories = [f"{one.name.removeprefix(_HISTORY)} ({one.queries:,})" for one in history]
        chart = lines(categories, series, f"{report.metric} by how many items the user had acted on before (queries)")
        chart = f"<p class='soft'>By how many items the user had acted on before (in brackets: queries).</p>{chart}"
    header = ("queries with", "queries", report.serves, "best source", "against it")
    rows = [
        (
            one.name,
            f"{one.queries:,}",
            said(one.methods[report.serves][report.metric]),
            f"{one.best_source} {one.methods[one.best_source][report.metric].estimate:.4f}",
            compared(one.serving_against.get(one.best_source)),
        )
        for one in report.segments
    ]
    meanings = "".join(f"<li><b>{escape(one.name)}</b>: {escape(one.meaning)}</li>" for one in _others(report.segments))
    return f"{chart}{_table(header, rows)}<ul class='soft'>{meanings}</ul>"


def _others(segments: Iterable[Segment]) -> list[Segment]:
    return [one for one in segments if not one.name.startswith(_HISTORY)]


def _lists(report: Report) -> str:
    header = ("", "coverage", "Gini", "novelty (bits)", "new items", "diversity: categories", "attributes")
    rows = [
        (
            one.name,
            f"{one.lists.coverage:.1%}",
            f"{one.lists.gini:.3f}",
            f"{one.lists.novelty_bits:.2f}",
            f"{one.lists.new_item_share:.2%}",
            _optional(one.lists.category_diversity),
            _optional(one.lists.attribute_diversity),
        )
        for one in ordered(report)
    ]
    note = (
        "Of the first 20. Coverage: share of the catalogue that is shown to anyone. Gini: how unequally items share "
        "the places, 0 equally. Novelty: mean of -log2 of an item's share of all events. New: without an event when "
        "sources were fitted. Diversity: 1 less the share of pairs of one category, and 1 less their mean cosine."
    )
    return _note(note) + _table(header, rows, [one.name == report.serves for one in ordered(report)])


def _calibration(found: Calibration) -> str:
    note = (
        f"Brier score {found.brier:.4f}, expected calibration error {found.expected_error:.4f} on the test pages: "
        "probabilities of the ranker that serves, by isotonic regression on users it did not learn from."
    )
    return f"{_note(note)}{reliability(found.bins, 'Said and come true')}"


def _costs(report: Report) -> str:
    parts = [(one.name, f"{one.seconds:,.1f}", f"{one.peak_mib:,.0f}") for one in report.parts]
    total = sum(one.seconds for one in report.parts)
    peak = max((one.peak_mib for one in report.parts), default=0.0)
    parts.append(("all of it", f"{total:,.1f}", f"{peak:,.0f}"))
    quality = {one.name: one.metrics[report.metric].estimate for one in report.methods}
    costs = [
        (one.ranker, f"{one.milliseconds:.3f}", f"{quality[one.ranker]:.4f}", f"{one.model_kib:,.0f}")
        for one in report.serving_cost
    ]
    candidates = report.serving_cost[0].candidates if report.serving_cost else 0
    serving = _table(
        ("ranker", f"ms for {candidates} candidates", report.metric, "model, KiB"),
        costs,
        [one.ranker == report.serves for one in report.serving_cost],
    )
    made = _table(("part", "seconds", "peak memory, MiB"), parts, [False] * (len(parts) - 1) + [True])
    memory = "Resident memory of this process while the part ran, files it had mapped included."
    return f"{serving}{_note('Median of one call through ONNX on one thread.')}{made}{_note(memory)}"


def _parameters(report: Report) -> str:
    said_params = msgspec.json.format(msgspec.json.encode(report.about.params)).decode()
    return f"<details><summary>All of them</summary><pre>{escape(said_params)}</pre></details>"


def _style(one: Method, report: Report) -> str:
    return "serves" if one.name == report.serves else str(one.kind)


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _note(text: str) -> str:
    return f"<p class='soft'>{escape(text)}</p>"


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], strong: Sequence[bool] = ()) -> str:
    marks: Mapping[int, bool] = dict(enumerate(strong))
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr{' class=serves' if marks.get(number) else ''}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for number, row in enumerate(rows)
    )
    return f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
