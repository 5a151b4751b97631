"""The rows of docs/quality.md: the table they stand in, the bars a report reaches, going on where it ended."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from batch.evaluation.lists_measured import ListFacts
from batch.evaluation.quality_measured import Measured, read_measured, shortened, write_measured
from batch.evaluation.quality_page import command_lines, missed, page_of_quality
from batch.evaluation.quality_rows import Bar, Row, chosen_rows, load_rows, outcome
from batch.evaluation.report import (
    METRICS,
    About,
    CandidateRecall,
    Comparison,
    Kind,
    Method,
    Report,
    Segment,
    Verdict,
)
from batch.evaluation.report_files import write_json
from batch.evaluation.tree_memory import Spent, run_measured
from batch.metrics import Interval
from batch.quality import Bench
from shared.errors import ConfigurationError


def around(value: float, width: float = 0.01) -> Interval:
    return Interval(value, value - width, value + width)


def against(name: str, value: float, other: float) -> Comparison:
    difference = around(value - other)
    return Comparison(name, difference, around(value / other, 0.05), Verdict.of(difference))


def made_report(values: dict[str, tuple[Kind, float]], serves: str, best: str) -> Report:
    reached = values[serves][1]
    methods = [
        Method(
            name=name,
            kind=kind,
            metrics={metric: around(value) for metric in METRICS},
            against_best=None if name == best else against(best, value, values[best][1]),
            serving_against=None if name == serves else against(name, reached, value),
            lists=ListFacts(0.5, 0.5, 10.0, 0.0, None, None),
        )
        for name, (kind, value) in values.items()
    ]
    serving = {one.name: one.serving_against for one in methods if one.serving_against is not None}
    segment = Segment("new_to_user", "new", 5, best, {one.name: dict(one.metrics) for one in methods}, serving)
    return Report(
        about=About(
            title="made",
            protocol="made up",
            fitted=["on nothing"],
            files={"somewhere/else/made.parquet": "0" * 64},
            command="python -m made somewhere/else",
            params_file="somewhere/else/params.json",
            params={"a": 1},
        ),
        schema="0",
        metric="ndcg@20",
        queries=10,
        users=5,
        label_queries=20,
        serves=serves,
        best_source=best,
        methods=methods,
        candidate_recall=[CandidateRecall("merged", {"20": 0.5, "100": 0.6, "200": 0.7}, 0.8, 90.0)],
        segments=[segment, msgspec.structs.replace(segment, name="light_users")],
        ablation=None,
        serving_cost=[],
        calibration=None,
        parts=[],
    )


VALUES = {
    "als": (Kind.SOURCE, 0.20),
    "cooccurrence": (Kind.SOURCE, 0.10),
    "logit": (Kind.RANKER, 0.25),
    "lambdamart": (Kind.RANKER, 0.30),
    "popularity": (Kind.PEER, 0.05),
    "BPR": (Kind.PEER, 0.295),
}
REPORT = made_report(VALUES, "lambdamart", "als")


def row(commands: Sequence[Sequence[str]] = (), bars: Sequence[Bar] = (), name: str = "made") -> Row:
    return Row(name=name, group="all", title="Made up", commands=[list(one) for one in commands], bars=list(bars))


@pytest.mark.parametrize(
    ("bar", "must", "aim"),
    [
        (Bar(metric="ndcg@20", must=0.3, aim=0.31), True, False),
        (Bar(metric="mrr@10", must=0.301), False, None),
        (Bar(metric="ndcg@20", against="popularity", must=5.9), True, None),
        (Bar(metric="ndcg@20", against="popularity", must=6.1), False, None),
        (Bar(metric="ndcg@20", against="best_source", must=1.1, aim=1.6), True, False),
        (Bar(metric="ndcg@20", against="sources", must="above"), True, None),
        (Bar(metric="ndcg@20", against="peers", aim="above"), None, False),  # of BPR it is not told apart
        (Bar(metric="ndcg@20", against="popularity", segment="new_to_user", must=1.5), True, None),
    ],
)
def test_a_bar_is_reached_or_not(bar: Bar, must: bool | None, aim: bool | None) -> None:
    found = outcome(bar, REPORT)
    assert (found.must, found.aim) == (must, aim)


def test_of_several_the_nearest_is_told() -> None:
    assert outcome(Bar(metric="ndcg@20", against="peers", aim="above"), REPORT).against == "BPR"
    assert outcome(Bar(metric="ndcg@20", against="sources", must="above"), REPORT).against == "als"


def test_a_bar_that_asks_for_what_is_not_there_says_so() -> None:
    for bar in (
        Bar(metric="ndcg@20", against="nobody", must=1.0),
        Bar(metric="ndcg@20", segment="nothing", must=1.0),
        Bar(metric="mrr@20", against="als", must=1.0),
    ):
        with pytest.raises(ConfigurationError):
            outcome(bar, REPORT)


def test_the_committed_rows_can_be_read_and_name_what_their_commands_take() -> None:
    rows = load_rows()
    assert {"beauty", "sports", "gowalla", "sessions", "online_retail", "buyers", "synthetic"} == {
        one.group for one in rows
    }
    assert [one.name for one in chosen_rows(rows, "beauty")] == ["beauty_all_but_test", "beauty_without_validation"]
    assert [one.name for one in chosen_rows(rows, "gowalla")] == ["gowalla"]
    with pytest.raises(ConfigurationError, match="there are beauty"):
        chosen_rows(rows, "jewels")
    for one in rows:
        words = " ".join(word for command in one.commands for word in command)
        assert one.bars
        assert all(f"{{data}}/{file}" in words for file in one.files), one.name
        assert not re.search(r"[{}]", " ".join(command_lines(one)))
        assert words.count("{data}") == sum(words.count(file) for file in one.files)


def test_the_page_says_what_the_reports_say(tmp_path: Path) -> None:
    bars = [
        Bar(metric="ndcg@20", must=0.31, published=".99 made up"),
        Bar(metric="ndcg@20", against="sources", must="above"),
    ]
    rows = [row(bars=bars), row(bars=bars[:1], name="never")]
    measured = shortened(rows[0], REPORT, Spent(61.0, 2048.0))
    assert measured.report.about.params == {}
    assert not measured.report.segments
    assert "somewhere" not in msgspec.json.encode(measured).decode(), "no path of this machine is committed"
    write_measured(tmp_path, measured)
    found = read_measured(tmp_path, rows)
    assert found == {"made": measured}
    page = page_of_quality(rows, found)
    assert "0.3000 (0.2900 to 0.3100)" in page
    assert "**missed**" in page
    assert ".99 made up" in page
    assert "61 s, 2.0 GiB at the peak" in page
    assert page.count("not measured") == 1
    assert missed(rows, found) == ["Made up: NDCG@20 must be 0.31"]


def test_a_learnt_ranker_below_the_best_source_is_missed() -> None:
    worse = made_report({**VALUES, "lambdamart": (Kind.RANKER, 0.15)}, "lambdamart", "als")
    only = row(bars=[Bar(metric="ndcg@20", must=0.1)])
    assert missed([only], {"made": shortened(only, worse, Spent(1, 1))}) == [
        "Made up: a learnt ranker is significantly below als"
    ]


def test_a_row_that_takes_too_much_is_missed() -> None:
    only = row(bars=[Bar(metric="ndcg@20", must=0.1)])
    found = missed([only], {"made": shortened(only, REPORT, Spent(4000.0, 1024.0))})
    assert found == ["Made up: took 4,000 s, 1.0 GiB, may take 3,600 s, 16.0 GiB"]
    assert not missed([only], {"made": shortened(only, REPORT, Spent(3600.0, 16384.0))})


SCRIPT = """
import pathlib, sys, time
time.sleep(0.1)
folder = pathlib.Path(sys.argv[1])
(folder / "ran.txt").open("a").write(sys.argv[2])
sys.exit(0 if sys.argv[2] == "a" or (folder / "mended").exists() else 3)
"""


def test_a_row_goes_on_where_it_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_step.py").write_text(SCRIPT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    bench, only = Bench(tmp_path, tmp_path / "work"), row([["made_step", "{work}", "a"], ["made_step", "{work}", "b"]])
    work = tmp_path / "work/made"
    assert not bench.run(only)
    assert bench.measured(only) is None
    (work / "mended").touch()
    assert bench.run(only)
    assert (work / "ran.txt").read_text() == "abb"
    assert bench.run(only)
    assert (work / "ran.txt").read_text() == "abb", "nothing is measured twice"
    write_json(REPORT, work / "report.json")
    measured = bench.measured(only)
    assert isinstance(measured, Measured)
    assert measured.spent.seconds >= 0.2, "both steps, 0.1 s each"
    other = msgspec.structs.replace(only, commands=[["made_step", "{work}", "a"]])
    assert bench.run(other)
    assert (work / "ran.txt").read_text() == "abba", "other commands are another measurement"


def test_no_data_is_said_clearly(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "none", tmp_path / "work")
    with pytest.raises(ConfigurationError, match="public data sets"):
        bench.check_files(load_rows())
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigurationError, match=r"lacks amazon_beauty_5core_seq\.parquet"):
        bench.check_files(chosen_rows(load_rows(), "beauty"))
    bench.check_files(chosen_rows(load_rows(), "synthetic"))


def test_memory_of_a_command_and_of_what_it_starts_is_seen(tmp_path: Path) -> None:
    hold = "import time; held = bytearray(80 << 20); time.sleep(1.3)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    code, spent = run_measured([sys.executable, "-c", parent], tmp_path)
    assert code == 0
    assert spent.seconds >= 1.3
    if sys.platform == "linux":
        assert 80 < spent.peak_mib < 200
