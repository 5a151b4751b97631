"""The rows of docs/quality.md: what is run for each, what it must reach, and whether a report reaches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from batch.evaluation.report import Comparison, Kind, Report, Verdict
from batch.metrics import Interval
from shared.errors import ConfigurationError

ROWS_FILE: Final = Path(__file__).with_name("rows.yaml")
ABOVE: Final = "above"
SOURCES: Final = "sources"
PEERS: Final = "peers"
BEST_SOURCE: Final = "best_source"


class Bar(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the ranker that serves must reach, and what it aims at.

    Without `against`: a value of the metric. With it, on the report's own metric: so many times that method (a name,
    or best_source), or "above": significantly, of a method, of all `sources` or of all `peers`. `segment` names a
    segment of the report. `published` is the best value in print, with its name.
    """

    metric: str
    against: str = ""
    segment: str = ""
    must: float | Literal["above"] | None = None
    aim: float | Literal["above"] | None = None
    published: str = ""


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One measurement: commands as a module and its arguments, with {data}, {work}, {shared} and {params} in them.

    The last command leaves report.json in {work}. `group` is what SET names; `files` are those the row reads below
    {data}; `params` is the parameter file, from the root of the checkout.
    """

    name: str
    group: str
    title: str
    commands: list[list[str]]
    bars: list[Bar]
    files: list[str] = []
    params: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """Of a bar: the interval reached (of the value, ratio or difference), against what, and what it says."""

    reached: Interval
    against: str
    must: bool | None
    aim: bool | None


def load_rows(path: Path = ROWS_FILE) -> list[Row]:
    """The rows in order. Raises ConfigurationError for what is no row, or a name twice."""
    try:
        rows = msgspec.yaml.decode(path.read_bytes(), type=list[Row])
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{path}: two rows have one name among {', '.join(names)}")
    return rows


def chosen_rows(rows: Sequence[Row], group: str) -> list[Row]:
    """The rows of a group, or the one of that name; all for an empty one. Raises ConfigurationError for neither."""
    found = [row for row in rows if not group or group in (row.group, row.name)]
    if not found:
        known = ", ".join(dict.fromkeys(row.group for row in rows))
        raise ConfigurationError(f"there is no set {group!r}; there are {known}")
    return found


def filled_commands(row: Row, data: Path, work: Path, params: Path) -> list[list[str]]:
    """The row's commands with the places of its files; what rows of one group share stands in a folder of its own."""
    places = {"{data}": data, "{work}": work / row.name, "{shared}": work / f"{row.group}.shared", "{params}": params}

    def filled(word: str) -> str:
        for name, path in places.items():
            word = word.replace(name, str(path))
        return word

    return [[filled(word) for word in command] for command in row.commands]


def outcome(bar: Bar, report: Report) -> Outcome:
    """Whether the report reaches the bar. Raises ConfigurationError where it does not hold what the bar asks for."""
    try:
        if not bar.against:
            return _value(bar, report)
        if bar.metric != report.metric:
            raise ConfigurationError(f"a bar compares by {bar.metric}, the report by {report.metric}")
        return _comparison(bar, report)
    except KeyError as error:
        raise ConfigurationError(f"{report.about.title}: the report has no {error} that a bar asks for") from error


def _value(bar: Bar, report: Report) -> Outcome:
    serves = report.serves
    metrics = report.segment(bar.segment).methods[serves] if bar.segment else report.method(serves).metrics
    reached = metrics[bar.metric]

    def met(wanted: float | str | None) -> bool | None:
        return None if wanted is None else reached.estimate >= float(wanted)

    return Outcome(reached, "", met(bar.must), met(bar.aim))


def _comparison(bar: Bar, report: Report) -> Outcome:
    comparisons = _comparisons(bar, report)
    # The nearest of several is what tells.
    name, nearest = min(comparisons.items(), key=lambda pair: pair[1].difference.low)

    def met(wanted: float | str | None) -> bool | None:
        if wanted is None:
            return None
        if wanted == ABOVE:
            return all(one.verdict is Verdict.ABOVE for one in comparisons.values())
        return all(one.ratio is None or one.ratio.estimate >= float(wanted) for one in comparisons.values())

    in_times = ABOVE not in (bar.must, bar.aim) and nearest.ratio is not None
    reached = nearest.ratio if in_times and nearest.ratio is not None else nearest.difference
    return Outcome(reached, name, met(bar.must), met(bar.aim))


def _comparisons(bar: Bar, report: Report) -> Mapping[str, Comparison]:
    if bar.segment:
        segment = report.segment(bar.segment)
        best, every = segment.best_source, dict(segment.serving_against)
    else:
        best = report.best_source
        every = {one.name: one.serving_against for one in report.methods if one.serving_against is not None}
    kinds = {one.name: one.kind for one in report.methods}
    wanted = {SOURCES: Kind.SOURCE, PEERS: Kind.PEER}.get(bar.against)
    if wanted is None:
        name = best if bar.against == BEST_SOURCE else bar.against
        return {name: every[name]}
    found = {name: one for name, one in every.items() if kinds[name] is wanted}
    if not found:
        raise KeyError(bar.against)
    return found
