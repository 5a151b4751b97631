"""Stage: LambdaMART on the label period's pages, stopped on the pages of users it never saw."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Final

import lightgbm as lgb
import msgspec
import numpy as np
from numpy.typing import NDArray

from batch.models.ranker import RankerParams, train_ranker
from batch.models.ranking_rows import RankingRows
from batch.pictures import bar_chart
from batch.tracking import Tracking
from shared.adapters.stage_folder import replace_folder
from shared.cli import command
from shared.errors import ConfigurationError
from shared.features.vector import SCHEMA
from shared.ranking.page_table import PageTable, load_pages

LABEL_GAIN: Final = (0.0, 1.0, 6.0, 12.0)
"""Gain of nothing, a view, a cart, a purchase."""
HELD_OUT_SHARE: Final = 0.2


def fit(data: Path, params: RankerParams, tracking: Tracking) -> lgb.Booster:
    """Train on nightly/training/label, write nightly/ranker/{model.txt, params.json, importance.png, run.json}."""
    started = time.perf_counter()
    pages = load_pages(data, "label")
    held_out = held_out_users(pages.user)
    training, stopping = ranking_rows(pages, ~held_out), ranking_rows(pages, held_out)
    if not len(stopping.groups):
        raise ConfigurationError("no user is left to stop the training on; take more history")
    print(f"{len(training.groups):,} pages to learn from, {len(stopping.groups):,} to stop on", flush=True)
    booster = train_ranker(training, stopping, params=params, feature_names=list(SCHEMA.names))
    seconds = time.perf_counter() - started
    gain = dict(zip(booster.feature_name(), booster.feature_importance("gain").tolist(), strict=True))
    held_out_ndcg = float(booster.best_score["held_out"]["ndcg@20"])
    with replace_folder(data / "nightly/ranker") as folder:
        booster.save_model(str(folder / "model.txt"))
        (folder / "params.json").write_bytes(msgspec.json.encode(asdict(params)))
        bar_chart(folder / "importance.png", "What the ranker splits on (total gain)", _largest(gain, 25))
        run_id = tracking.start_run(
            params={**asdict(params), "label_pages": len(training.groups), "schema": SCHEMA.digest},
            metrics={"held_out_ndcg_20": held_out_ndcg, "trees": booster.num_trees(), "train_seconds": seconds},
            files=[folder / "importance.png", folder / "model.txt"],
        )
        (folder / "run.json").write_bytes(msgspec.json.encode({"run_id": run_id}))
    quality = f"NDCG@20 {held_out_ndcg:.4f} on sampled pages of held-out users"
    print(f"{booster.num_trees()} trees, {quality}, {seconds:.1f} s")
    return booster


def held_out_users(user: NDArray[np.int32]) -> NDArray[np.bool_]:
    """bool[q]: is the page's user (int32[q]) one the ranker must not learn from? Stable by user, about a fifth."""
    users = np.unique(user)
    point = {
        one: int.from_bytes(blake2b(b"held out %d" % one, digest_size=4).digest(), "little") / 2**32 for one in users
    }
    return np.array([point[one] < HELD_OUT_SHARE for one in user])


def ranking_rows(pages: PageTable, chosen: NDArray[np.bool_]) -> RankingRows:
    """The chosen pages that hold at least one graded candidate."""
    starts = np.cumsum(pages.length) - pages.length
    graded = np.add.reduceat(pages.label > 0, starts) > 0
    kept = chosen & graded
    rows = np.repeat(kept, pages.length)
    return RankingRows(np.asarray(pages.features[rows]), pages.label[rows].astype(np.int64), pages.length[kept])


def _largest(values: dict[str, float], count: int) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda pair: -pair[1])[:count])


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m batch.train_ranker", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    defaults = RankerParams()
    parser.add_argument("--leaves", type=int, default=defaults.leaves, metavar="N", help="default %(default)s")
    parser.add_argument("--trees", type=int, default=defaults.trees, metavar="N", help="at most, default %(default)s")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="default %(default)s")
    arguments = parser.parse_args(argv)
    params = RankerParams(leaves=arguments.leaves, trees=arguments.trees, seed=arguments.seed, label_gain=LABEL_GAIN)
    fit(arguments.data, params, Tracking.of(arguments.data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
