"""Plots where people would rather look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt


def bar_chart(
    path: Path, title: str, values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]] | None = None
) -> None:
    """Horizontal bars, the first on top, with (low, high) whiskers where given, as PNG."""
    names = list(values)[::-1]
    heights = [values[name] for name in names]
    whiskers = None
    if intervals is not None:
        low = [max(values[name] - intervals[name][0], 0.0) for name in names]
        high = [max(intervals[name][1] - values[name], 0.0) for name in names]
        whiskers = [low, high]
    figure, axes = plt.subplots(figsize=(8, 1 + 0.28 * len(names)), layout="constrained")
    axes.barh(names, heights, xerr=whiskers, color="#3b6ea5", ecolor="#222222", capsize=2)
    axes.set_title(title)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
