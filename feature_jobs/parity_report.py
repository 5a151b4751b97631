"""What the comparison of served and recomputed vectors found, feature by feature: numbers, a table, a picture."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feature_jobs.recompute import Exposure
from shared.features.vector import SCHEMA, Matrix

THRESHOLD: Final = 1e-6
"""Of max(1, |a|, |b|)."""


@dataclass
class Differences:
    """What was compared, by feature: rows, mismatches above the threshold, and the largest difference."""

    threshold: float = THRESHOLD
    rows: int = 0
    exposures: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    mismatches: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(SCHEMA.names), dtype=np.int64))
    largest: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(SCHEMA.names)))
    first_mismatch: dict[str, str] = field(default_factory=dict)

    def add(self, exposure: Exposure, logged: Matrix, recomputed: Matrix) -> None:
        """Compare float32[n, F] to float32[n, F]."""
        self.rows += len(logged)
        self.exposures += 1
        if np.array_equal(logged, recomputed):
            return
        left, right = logged.astype(np.float64), recomputed.astype(np.float64)
        scale = np.maximum(1.0, np.maximum(np.abs(left), np.abs(right)))
        difference = np.where(np.isnan(left) & np.isnan(right), 0.0, np.abs(left - right) / scale)
        difference[np.isnan(difference)] = np.inf
        wrong = difference > self.threshold
        self.mismatches += wrong.sum(axis=0)
        self.largest = np.maximum(self.largest, difference.max(axis=0, initial=0.0))
        for column in np.flatnonzero(wrong.any(axis=0)):
            row = int(np.flatnonzero(wrong[:, column])[0])
            self.first_mismatch.setdefault(
                SCHEMA.names[column],
                f"{exposure.recommendation_id} item {exposure.items[row]}: "
                f"served {left[row, column]!r}, recomputed {right[row, column]!r}",
            )

    def report(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "exposures": self.exposures,
            "rows": self.rows,
            "skipped": dict(self.skipped),
            "threshold": self.threshold,
            "mismatches": int(self.mismatches.sum()),
            "features": {
                name: {
                    "rows": self.rows,
                    "mismatches": int(self.mismatches[column]),
                    "largest": float(self.largest[column]),
                }
                for column, name in enumerate(SCHEMA.names)
            },
            "first_mismatch": self.first_mismatch,
        }

    def table(self) -> str:
        """One line a feature, the worst first: rows, mismatches, largest difference."""
        order = sorted(range(len(SCHEMA.names)), key=lambda one: (-self.mismatches[one], -self.largest[one], one))
        width = max(map(len, SCHEMA.names))
        lines = [f"{'feature':{width}}  {'rows':>12}  {'mismatches':>12}  {'largest':>9}"]
        lines += [
            f"{SCHEMA.names[one]:{width}}  {self.rows:>12,}  {self.mismatches[one]:>12,}  {self.largest[one]:>9.1e}"
            for one in order
        ]
        return "\n".join(lines)


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture: every feature's largest difference against the threshold (PNG)."""
    import matplotlib as mpl  # noqa: PLC0415 - it takes a second to import, which --help need not wait for

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - see above

    features = report["features"]
    names = sorted(features, key=lambda name: features[name]["largest"])
    colours = ["#b03a2e" if features[name]["mismatches"] else "#3b6ea5" for name in names]
    height = 1 + 0.16 * len(names)
    figure, axes = plt.subplots(figsize=(9, height))
    figure.subplots_adjust(left=0.34, right=0.97, bottom=0.3 / height, top=1 - 0.4 / height)
    # A bar begins at the axis' left end, so what is equal to the last bit has none.
    axes.barh(names, [max(features[name]["largest"], 1e-12) for name in names], color=colours)
    axes.axvline(report["threshold"], color="#b03a2e", linestyle="--")
    axes.set_xscale("log")
    axes.set_xlim(1e-12, None)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_title(
        f"Largest difference served / recomputed: {report['rows']:,} vectors of {report['exposures']:,} pages, "
        f"{report['mismatches']:,} mismatches",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)
