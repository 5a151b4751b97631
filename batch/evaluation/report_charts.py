"""Charts of the report as SVG text; colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import log10
from typing import Final

from batch.evaluation.report import Reliability
from batch.metrics import Interval

_LABEL: Final = 190
_PLOT: Final = 450
_VALUE: Final = 190
_ROW: Final = 26
_AXIS: Final = 26
_TICKS: Final = 5
_LEAST_EXPONENT: Final = -4.0
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a bar chart; `style` is a class of the page's style sheet."""

    label: str
    value: Interval
    style: str


def bars(rows: Sequence[Bar], title: str) -> str:
    """Horizontal bars from 0, of either sign, with whiskers at the interval's ends and the numbers beside them."""
    low = min(0.0, *(row.value.low for row in rows), *(row.value.estimate for row in rows))
    high = max(0.0, *(row.value.high for row in rows), *(row.value.estimate for row in rows))
    scale = _Scale(low, high, _LABEL, _PLOT)
    height = len(rows) * _ROW + _AXIS
    parts = [_grid(scale, height)]
    for number, row in enumerate(rows):
        parts.append(_bar(row, scale, number * _ROW))
    return _svg(_LABEL + _PLOT + _VALUE, height, title, parts)


def lines(categories: Sequence[str], series: Mapping[str, Sequence[Interval]], title: str) -> str:
    """A line a series (classes series0, series1, …) over categories from left to right, with whiskers and a legend."""
    width, height, left, top = _LABEL + _PLOT + _VALUE, 280, 60, 30
    plot_width, plot_height = width - left - 20, height - top - 40
    high = max(value.high for values in series.values() for value in values)
    scale = _Scale(0.0, high, 0, plot_height)
    parts = []
    for tick in scale.ticks():
        y = top + plot_height - scale.at(tick)
        parts += [_line(left, y, left + plot_width, y, "grid"), _text(left - 8, y + 4, _number(tick), "tick end")]
    step = plot_width / max(1, len(categories))
    for number, category in enumerate(categories):
        parts.append(_text(left + (number + 0.5) * step, height - 14, category, "tick middle"))
    for row, (name, values) in enumerate(series.items()):
        style = f"series{row}"
        shift = (row - (len(series) - 1) / 2) * 9
        points = [
            (left + (at + 0.5) * step + shift, top + plot_height - scale.at(one.estimate))
            for at, one in enumerate(values)
        ]
        parts += [_line(x1, y1, x2, y2, f"stroke {style}") for (x1, y1), (x2, y2) in pairwise(points)]
        for (x, y), one in zip(points, values, strict=True):
            bottom, end = top + plot_height - scale.at(one.low), top + plot_height - scale.at(one.high)
            parts += [
                _line(x, bottom, x, end, f"stroke {style}"),
                f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>',
            ]
        parts += [
            f'<circle class="{style}" cx="{left + 10 + row * 190}" cy="12" r="5"/>',
            _text(left + 22 + row * 190, 16, name, "label"),
        ]
    return _svg(width, height, title, parts)


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to pixels."""

    low: float
    high: float
    left: float
    width: float

    def at(self, value: float) -> float:
        return self.left + (value - self.low) / ((self.high - self.low) or 1.0) * self.width

    def ticks(self) -> list[float]:
        """About five round numbers."""
        span = (self.high - self.low) or 1.0
        power = 10.0 ** _floor_log10(span / _TICKS)
        step = next(one * power for one in _STEPS if one * power * _TICKS >= span)
        first = int(self.low / step) - 1
        found = [round(number * step, 12) for number in range(first, first + 2 * _TICKS + 4)]
        return [tick for tick in found if self.low - 1e-12 <= tick <= self.high + 1e-12]


def _floor_log10(value: float) -> int:
    return int(f"{value:e}".partition("e")[2])


def _bar(row: Bar, scale: _Scale, top: float) -> str:
    value, middle = row.value, top + _ROW / 2
    begin, end = sorted((scale.at(0.0), scale.at(value.estimate)))
    numbers = f"{value.estimate:.4f}  ({value.low:.4f} to {value.high:.4f})"
    return "".join(
        [
            _text(_LABEL - 10, middle + 4, row.label, "label end"),
            (
                f'<rect class="{row.style}" x="{begin:.1f}" y="{top + 5:.1f}" '
                f'width="{end - begin:.1f}" height="{_ROW - 10}" rx="2"/>'
            ),
            _line(scale.at(value.low), middle, scale.at(value.high), middle, "whisker"),
            *(_line(scale.at(x), middle - 4, scale.at(x), middle + 4, "whisker") for x in (value.low, value.high)),
            _text(_LABEL + _PLOT + 10, middle + 4, numbers, "number"),
        ]
    )


def _grid(scale: _Scale, height: float) -> str:
    return "".join(
        _line(scale.at(tick), 0, scale.at(tick), height - _AXIS + 4, "zero" if tick == 0 else "grid")
        + _text(scale.at(tick), height - 6, _number(tick), "tick middle")
        for tick in scale.ticks()
    )


def _number(tick: float) -> str:
    return f"{tick:.4f}".rstrip("0").rstrip(".") or "0"


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, style: str) -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _svg(width: float, height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def reliability(bins: Sequence[Reliability], title: str) -> str:
    """What was said against what came true on logarithmic scales, a circle a bin; on the diagonal it is true."""
    size, left, top = 300, 70, 12
    scale = _Scale(_LEAST_EXPONENT, 0.0, 0, size)

    def at(value: float) -> float:
        return scale.at(max(_LEAST_EXPONENT, log10(max(value, 1e-300))))

    most = max([one.rows for one in bins] + [1])
    parts = []
    for exponent in range(int(_LEAST_EXPONENT), 1):
        x, y = left + scale.at(exponent), top + size - scale.at(exponent)
        tick = _number(10.0**exponent)
        parts += [_line(left, y, left + size, y, "grid"), _text(left - 8, y + 4, tick, "tick end")]
        parts += [_line(x, top, x, top + size, "grid"), _text(x, top + size + 16, tick, "tick middle")]
    parts.append(_line(left, top + size, left + size, top, "zero"))
    for one in bins:
        radius = 3 + 9 * (one.rows / most) ** 0.25
        x, y = left + at(one.said), top + size - at(one.came)
        parts.append(f'<circle class="series0" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" opacity="0.8"/>')
        parts.append(_text(x + radius + 4, y + 14, f"{one.rows:,}", "tick"))
    parts += [
        _text(left + size / 2, top + size + 36, "mean probability said", "tick middle"),
        _text(left + size + 16, top + 12, "share that came true; numbers: candidates", "tick"),
    ]
    return _svg(_LABEL + _PLOT + _VALUE, top + size + 44, title, parts)
