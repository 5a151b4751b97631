"""Stage: the test period's pages ranked by the exported ranker under the serving rules, against every source alone."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from batch.metrics import (
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    catalogue_coverage,
    hits_matrix,
    mrr_at,
    ndcg_at,
    recall_at,
)
from batch.pictures import bar_chart
from batch.tracking import Tracking
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.stage_folder import replace_folder
from shared.candidates.span import load_source_params
from shared.cli import command
from shared.errors import ConfigurationError
from shared.features.definitions import Retrieval
from shared.ingest.lake import read_manifest
from shared.ranking.page_table import PageTable, load_pages
from shared.ranking.rules import diversify
from shared.ranking.scorer import OnnxScorer

K: Final = 20
WHOLE: Final = "whole"
FREQUENCY: Final = "personal_frequency"
LIGHT_SESSIONS: Final = 3
POPULARITY_BAR: Final = 2.0
SOURCE_BAR: Final = 1.05
_ROWS_AT_ONCE: Final = 200_000

Lists = NDArray[np.int32]


@dataclass(frozen=True)
class Queries:
    """q test queries: their positives, and how to group them."""

    positives: list[list[int]]
    user: NDArray[np.int32]
    segments: dict[str, NDArray[np.bool_]]


def whole_lists(pages: PageTable, scorer: OnnxScorer, max_per_category: int) -> Lists:
    """int32[q, K] item indexes as they would be shown: scored (strangers: popularity), kept diverse; -1 pads."""
    scores = np.concatenate(
        [
            scorer.score(np.ascontiguousarray(pages.features[start : start + _ROWS_AT_ONCE]))
            for start in range(0, len(pages.label), _ROWS_AT_ONCE)
        ]
    )
    scores = np.where(np.repeat(pages.stranger, pages.length), pages.popularity, scores)
    shown = np.full((len(pages.length), K), -1, dtype=np.int32)
    for query, rows in enumerate(_slices(pages)):
        order = np.lexsort((pages.index[rows], -scores[rows]))
        page = pages.index[rows][diversify(order, pages.category[rows], K, max_per_category)]
        shown[query, : len(page)] = page
    return shown


def source_lists(pages: PageTable, source: int) -> Lists:
    """int32[q, K] item indexes of one source alone, in its own order; -1 pads."""
    shown = np.full((len(pages.length), K), -1, dtype=np.int32)
    for query, rows in enumerate(_slices(pages)):
        ranks = pages.ranks[rows, source]
        carried = np.flatnonzero(ranks > 0)
        page = pages.index[rows][carried[np.argsort(ranks[carried])]][:K]
        shown[query, : len(page)] = page
    return shown


def queries_of(pages: PageTable) -> Queries:
    """The test queries of a page table; an item that retrieval could not know counts as a positive never found."""
    starts = np.cumsum(pages.positives) - pages.positives
    unknown = int(pages.index.max(initial=0)) + 1
    positives = []
    for start, count in zip(starts.tolist(), pages.positives.tolist(), strict=True):
        items = pages.positive_items[start : start + count].tolist()
        positives.append([item if item >= 0 else unknown + place for place, item in enumerate(items)])
    segments = {
        "all": np.ones(len(positives), dtype=np.bool_),
        "new_users": pages.sessions_before == 0,
        "light_users": pages.sessions_before < LIGHT_SESSIONS,
    }
    return Queries(positives, np.asarray(pages.user), segments)


def measure(lists: Lists, queries: Queries, items_count: int) -> dict[str, NDArray[np.float64] | float]:
    """Per-query recall, NDCG and MRR at K, and the share of the catalogue that is ever shown."""
    counts = np.array([len(items) for items in queries.positives])
    hits = hits_matrix(lists, queries.positives)
    return {
        "recall": recall_at(hits, counts, K),
        "ndcg": ndcg_at(hits, counts, K),
        "mrr": mrr_at(hits, K),
        "coverage": catalogue_coverage(lists, items_count, K),
    }


def evaluate(data: Path, tracking: Tracking) -> dict[str, Any]:
    """Write nightly/evaluation/{report.json, ndcg.png} and return the report."""
    started = time.perf_counter()
    pages = load_pages(data, "test")
    model = data / "nightly/onnx/ranker.onnx"
    if not model.exists():
        raise ConfigurationError(f"{model} is not there; run python -m batch.export_ranker --data {data} first")
    manifest = read_manifest(FolderBlobStore(data))
    if manifest is None:
        raise ConfigurationError(f"there is no lake under {data}")
    items_count = len(np.load(data / "nightly/retrieval/all/item_factors.npy", mmap_mode="r"))
    queries = queries_of(pages)
    most = load_source_params(data, "all").max_per_category
    lists = {WHOLE: whole_lists(pages, OnnxScorer(model.read_bytes()), most)}
    lists |= {str(name): source_lists(pages, column) for column, name in enumerate(Retrieval)}
    lists[FREQUENCY] = np.asarray(pages.frequent[:, :K])
    measured = {name: measure(shown, queries, items_count) for name, shown in lists.items()}
    report: dict[str, Any] = {
        "k": K,
        "queries": len(queries.positives),
        "users": len(np.unique(queries.user)),
        "candidate_recall": _candidate_recall(pages),
        "methods": {name: _summary(values, queries) for name, values in measured.items()},
        "new_to_the_user": _unseen(lists, pages, queries),
        "bars": _bars(measured, queries, manifest.shop.positives, manifest.shop.bought_window_days),
    }
    report["seconds"] = round(time.perf_counter() - started, 1)
    with replace_folder(data / "nightly/evaluation") as folder:
        (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)))
        ndcg = {name: values["all"]["ndcg"] for name, values in report["methods"].items()}
        bar_chart(
            folder / "ndcg.png",
            f"NDCG@{K} on the test period, 95% intervals by user",
            {name: value["estimate"] for name, value in ndcg.items()},
            {name: (value["low"], value["high"]) for name, value in ndcg.items()},
        )
        tracking.log(
            data,
            metrics={f"{name}_ndcg_20": value["estimate"] for name, value in ndcg.items()},
            files=[folder / "ndcg.png", folder / "report.json"],
        )
    return report


def table_of(report: Mapping[str, Any]) -> str:
    """The report as lines of text."""
    titles = ("95% interval", "Recall@20", "MRR@20", "coverage", "new users", "light")
    widths = (18, 11, 8, 10, 11, 8)
    headings = "".join(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True))
    lines = [f"{'':20}{'NDCG@20':>9}{headings}"]
    for name, segments in report["methods"].items():
        every, ndcg = segments["all"], segments["all"]["ndcg"]
        interval = f"{ndcg['low']:.4f} to {ndcg['high']:.4f}"
        lines.append(
            f"{name:20}{ndcg['estimate']:>9.4f}{interval:>18}{every['recall']['estimate']:>11.4f}"
            f"{every['mrr']['estimate']:>8.4f}{every['coverage']:>10.1%}"
            f"{segments['new_users']['ndcg']['estimate']:>11.4f}{segments['light_users']['ndcg']['estimate']:>8.4f}"
        )
    lines.append(
        f"{report['queries']:,} pages of {report['users']:,} users; "
        f"candidates hold {report['candidate_recall']:.1%} of the hits"
    )
    return "\n".join([*lines, *map(_bar_line, report["bars"])])


def _bar_line(bar: Mapping[str, Any]) -> str:
    ratio, verdict = bar["ratio"], "reached" if bar["reached"] else "MISSED"
    return (
        f"whole / {bar['against']} = {ratio['estimate']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}), "
        f"must be {bar['bar']:.2f}: {verdict}"
    )


def _slices(pages: PageTable) -> list[slice]:
    ends = np.cumsum(pages.length)
    return [slice(int(end - length), int(end)) for end, length in zip(ends, pages.length, strict=True)]


def _candidate_recall(pages: PageTable) -> float:
    return float(pages.positive.sum() / max(int(pages.positives.sum()), 1))


def _summary(values: Mapping[str, NDArray[np.float64] | float], queries: Queries) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for segment, chosen in queries.segments.items():
        summary[segment] = {"queries": int(chosen.sum())}
        for metric in ("recall", "ndcg", "mrr"):
            column = np.asarray(values[metric])[chosen]
            interval = bootstrap_mean(column, queries.user[chosen]) if chosen.any() else Interval(0.0, 0.0, 0.0)
            summary[segment][metric] = asdict(interval)
    summary["all"]["coverage"] = values["coverage"]
    return summary


def _unseen(lists: Mapping[str, Lists], pages: PageTable, queries: Queries) -> dict[str, float]:
    """Recall at K of positives that the user had never acted on."""
    starts = np.cumsum(pages.positives) - pages.positives
    fresh = [
        [
            item
            for item, touched in zip(items, pages.touched[start : start + len(items)].tolist(), strict=True)
            if not touched
        ]
        for items, start in zip(queries.positives, starts.tolist(), strict=True)
    ]
    counts = np.array([len(items) for items in fresh])
    asked = counts > 0
    return {
        name: float(recall_at(hits_matrix(shown, fresh), counts, K)[asked].mean()) if asked.any() else 0.0
        for name, shown in lists.items()
    }


def _bars(
    measured: Mapping[str, Mapping[str, NDArray[np.float64] | float]],
    queries: Queries,
    positives: Sequence[str],
    bought_window_days: int,
) -> list[dict[str, Any]]:
    """What the whole must reach, and whether it does; repeats are judged where the shop does not withhold them."""
    whole = np.asarray(measured[WHOLE]["ndcg"])
    sources = {str(name): np.asarray(measured[str(name)]["ndcg"]) for name in Retrieval}
    best = max(sources, key=lambda name: float(sources[name].mean()))
    wanted = [(str(Retrieval.POPULAR), POPULARITY_BAR), (best, SOURCE_BAR)]
    if bought_window_days == 0 and "purchase" in positives:
        wanted.append((FREQUENCY, 1.0))
    bars = []
    for name, bar in wanted:
        ratio = bootstrap_ratio(whole, np.asarray(measured[name]["ndcg"]), queries.user)
        bars.append({"against": name, "bar": bar, "ratio": asdict(ratio), "reached": ratio.estimate >= bar})
    return bars


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m batch.evaluate_release", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    arguments = parser.parse_args(argv)
    print(table_of(evaluate(arguments.data, Tracking.of(arguments.data))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
