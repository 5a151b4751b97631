"""How long the training set takes as histories grow, and what memory it needs.

Each size is built by a process of its own from a history, made-up factors and made-up lists: what a page costs does not
depend on what they say.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.adapters.folder_blob import FolderBlobStore
from shared.candidates.query import ListKind
from shared.candidates.span import RETRIEVAL_FOLDER, lists_folder
from shared.cli import command
from shared.features.aggregations import DAY_MS
from shared.ingest.lake import ShopSettings, publish_history, read_manifest
from tests.benchmarks.event_history import DAYS, START_AT, history_tables, users_and_items
from tests.benchmarks.peak_memory import growth, watched

FACTORS: Final = 64
LIST_LENGTH: Final = 50
PERIOD_DAYS: Final = 11
SPANS: Final = ("fit", "fit_label")


def make_inputs(data: Path, events: int) -> None:
    """What the stages before leave in a shop's folder: lake, items, periods, factors, lists."""
    publish_history(FolderBlobStore(data), "history-bench", 4, ShopSettings(), history_tables(events))
    _, items = users_and_items(events)
    draw = np.random.default_rng(2)
    folder = data / "nightly/interactions"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"item_id": [f"i{number}" for number in range(items)]}), folder / "items.parquet")
    pq.write_table(pa.table({"user_id": pa.array([], pa.string())}), folder / "users.parquet")
    end = START_AT + DAYS * DAY_MS
    periods = {
        "fit_end_at": end - 2 * PERIOD_DAYS * DAY_MS,
        "label_end_at": end - PERIOD_DAYS * DAY_MS,
        "test_end_at": end,
    }
    (folder / "summary.json").write_text(json.dumps({"periods": periods}))
    for span in SPANS:
        factors = (0.1 * draw.standard_normal((items, FACTORS))).astype(np.float32)
        fitted = data / RETRIEVAL_FOLDER / span
        fitted.mkdir(parents=True)
        np.save(fitted / "item_factors.npy", factors)
        np.save(fitted / "gram.npy", factors.T @ factors)
        (fitted / "params.json").write_text(json.dumps({"regularization": 0.05, "alpha": 1.0}))
        for kind in ListKind:
            lists = lists_folder(data, span, kind)
            lists.mkdir(parents=True)
            pq.write_table(_lists(draw, items), lists / "part-00000.parquet")


def _lists(draw: np.random.Generator, items: int) -> pa.Table:
    length = min(LIST_LENGTH, items - 1)
    members = (np.arange(items)[:, None] + draw.integers(1, items, (items, length))) % items
    offsets = pa.array(np.arange(items + 1, dtype=np.int32) * length)
    scores = np.sort(draw.random((items, length), dtype=np.float32), axis=1)[:, ::-1]
    columns = pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(scores).ravel()))
    return pa.table(
        {
            "item": pa.array(np.arange(items, dtype=np.int32)),
            "indexes": pa.ListArray.from_arrays(offsets, pa.array(members.astype(np.int32).ravel())),
            "columns": pa.ListArray.from_arrays(pa.array(np.arange(items + 1, dtype=np.int32)), columns),
        }
    )


def measure(events: int, folder: Path, label_pages: int, test_pages: int) -> dict[str, Any]:
    """Make the inputs (if the folder does not hold them) and build; the numbers as plain values."""
    data = folder / f"shop-{events}"
    if read_manifest(FolderBlobStore(data)) is None:
        make_inputs(data, events)
    words = ["--data", str(data), "--label-pages", str(label_pages), "--test-pages", str(test_pages)]
    started = time.perf_counter()
    stage = subprocess.Popen(
        [sys.executable, "-m", "feature_jobs.build_training_set", *words], stdout=sys.stderr, env=os.environ
    )
    with watched(stage.pid) as peak:
        code = stage.wait()
    seconds = time.perf_counter() - started
    if code:
        raise subprocess.CalledProcessError(code, stage.args)
    summary = json.loads((data / "nightly/training/summary.json").read_bytes())
    users, items = users_and_items(events)
    rows = summary["label_rows"] + summary["test_rows"]
    return {
        "events": events,
        "users": users,
        "items": items,
        "pages": summary["label_pages"] + summary["test_pages"],
        "rows": rows,
        "seconds": round(seconds, 1),
        "rows_per_s": round(rows / seconds),
        "peak_memory_mb": round(peak.total_mb),
    }


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Print JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.training_set", description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[100_000, 1_000_000], metavar="N", help="sizes")
    parser.add_argument("--label-pages", type=int, default=8_000, metavar="N", help="default %(default)s")
    parser.add_argument("--test-pages", type=int, default=2_500, metavar="N", help="default %(default)s")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keeps the inputs here for the next time")
    arguments = parser.parse_args(argv)
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="recommndr-training-"))
    try:
        sizes = [
            measure(events, folder, arguments.label_pages, arguments.test_pages) for events in sorted(arguments.events)
        ]
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    load = round(os.getloadavg()[0], 1)
    print(
        json.dumps(
            {"training_set": sizes, "growth": growth(sizes), "cores": os.cpu_count(), "load_average_1m": load}, indent=1
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
