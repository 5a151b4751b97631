"""Plots where people would rather look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray


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


def contribution_chart(
    path: Path, title: str, names: Sequence[str], added: NDArray[np.floating], values: NDArray[np.floating]
) -> None:
    """A point a row and feature, at what the feature added, coloured by its value's rank, as PNG.

    `added` and `values` are [n, len(names)]; the first feature stands on top (the beeswarm of Lundberg and Lee, 2017).
    """
    figure, axes = plt.subplots(figsize=(8, 1 + 0.28 * len(names)), layout="constrained")
    scatter = np.random.default_rng(0).uniform(-0.35, 0.35, len(added))
    for place in range(len(names)):
        order = np.argsort(np.argsort(values[:, place], kind="stable"), kind="stable")
        height = len(names) - 1 - place + scatter
        axes.scatter(added[:, place], height, c=order, cmap="coolwarm", s=3, linewidths=0, rasterized=True)
    axes.axvline(0, color="#222222", linewidth=0.5)
    axes.set_yticks(range(len(names)), list(names)[::-1])
    axes.set_title(f"{title} (blue: small value, red: great)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
