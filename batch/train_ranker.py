"""Stage: the rankers on the label period's pages, judged by the pages of users they never saw; the best is kept."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from batch.exposed_rows import read_exposed
from batch.models.calibration import calibrate, drawn_weights
from batch.models.rankers import RankersParams, choose, fit_rankers, mean_ndcg
from batch.models.ranking_rows import RankingRows, joined
from batch.models.trained_ranker import TrainedRanker
from batch.pictures import bar_chart, contribution_chart
from batch.retrieval_span import PARAMS_FILE
from batch.tracking import Tracking
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.stage_folder import replace_folder
from shared.cli import command
from shared.errors import ConfigurationError
from shared.features.vector import SCHEMA
from shared.ranking.calibration import Calibration
from shared.ranking.page_table import PageTable, load_pages
from shared.releases.bundle import CALIBRATION

HELD_OUT_SHARE: Final = 0.2
_SHOWN_FEATURES: Final = 25
_EXPLAINED_ROWS: Final = 2_000


def fit(data: Path, params: RankersParams, tracking: Tracking) -> TrainedRanker:
    """Train on nightly/training/label; write nightly/ranker: the best one, its calibration, params, pictures, run."""
    started = time.perf_counter()
    pages = load_pages(data, "label")
    held_out = held_out_users(pages.user)
    training, stopping = ranking_rows(pages, ~held_out), ranking_rows(pages, held_out)
    if params.exposures:
        training = with_exposures(training, data)
    print(f"{len(training.groups):,} pages to learn from, {len(stopping.groups):,} to stop on", flush=True)
    rankers = fit_rankers(training, stopping, params)
    quality = {name: mean_ndcg(ranker, stopping, params.label_gain) for name, ranker in rankers.items()}
    chosen = rankers[choose(rankers, stopping, params)]
    calibration = calibrate_on(pages, held_out, chosen)
    seconds = time.perf_counter() - started
    with replace_folder(data / "nightly/ranker") as folder:
        chosen.save(folder)
        (folder / CALIBRATION).write_bytes(calibration.encode())
        (folder / "params.json").write_bytes(msgspec.json.encode(asdict(params)))
        run_id = tracking.start_run(
            params={
                **_flat(asdict(params)),
                "ranker": chosen.name,
                "label_pages": len(training.groups),
                "schema": SCHEMA.digest,
            },
            metrics={
                **{f"held_out_ndcg_20_{name}": value for name, value in quality.items()},
                "held_out_ndcg_20": quality[chosen.name],
                "trees": 0 if chosen.booster is None else chosen.booster.num_trees(),
                "train_seconds": seconds,
            },
            files=[*draw(chosen, stopping, folder), *sorted(folder.glob("model.txt")), *sorted(folder.glob("*.npz"))],
        )
        (folder / "run.json").write_bytes(msgspec.json.encode({"run_id": run_id}))
    said = ", ".join(f"{name} {value:.4f}" for name, value in quality.items())
    print(f"NDCG@20 on sampled pages of held-out users: {said}; {chosen.name} serves, {seconds:.1f} s")
    return chosen


def draw(ranker: TrainedRanker, rows: RankingRows, folder: Path) -> list[Path]:
    """Pictures of what the ranker goes by: split gains where it has trees, and what features add on these rows."""
    names = SCHEMA.names
    pictures = []
    if ranker.booster is not None:
        gain = dict(zip(names, ranker.booster.feature_importance("gain").tolist(), strict=True))
        pictures.append(folder / "importance.png")
        bar_chart(pictures[-1], "What the ranker splits on (total gain)", _largest(gain, _SHOWN_FEATURES))
    sample = np.ascontiguousarray(rows.features[:: max(len(rows.features) // _EXPLAINED_ROWS, 1)])
    added = ranker.exact_contributions(sample).values
    mean = dict(zip(names, np.abs(added).mean(axis=0).tolist(), strict=True))
    shown = _largest(mean, _SHOWN_FEATURES)
    columns = [names.index(name) for name in shown]
    pictures += [folder / "contributions.png", folder / "contributions_by_row.png"]
    bar_chart(pictures[-2], "What a feature adds to a score (mean magnitude)", shown)
    contribution_chart(
        pictures[-1], "What features add, row by row", list(shown), added[:, columns], sample[:, columns]
    )
    return pictures


def with_exposures(training: RankingRows, data: Path) -> RankingRows:
    """The rows, and those of pages on record that led to an action, once there are some."""
    exposed = read_exposed(FolderBlobStore(data))
    if exposed is None:
        print("no page on record led to an action yet; the ranker learns from the label period alone", flush=True)
        return training
    print(f"{len(exposed.rows.groups):,} pages on record, their clicks weighed against position", flush=True)
    return joined(training, exposed.weighed())


def calibrate_on(pages: PageTable, chosen: NDArray[np.bool_], ranker: TrainedRanker) -> Calibration:
    """How likely a candidate of the chosen pages (bool[q]) is a hit, by the ranker's score."""
    rows = np.repeat(chosen, pages.length)
    weights = drawn_weights(pages.label[rows] > 0, pages.length[chosen], pages.candidates[chosen])
    return calibrate(ranker.score(np.asarray(pages.features[rows])), pages.positive[rows], weights)


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
    return RankingRows(
        np.asarray(pages.features[rows]), pages.label[rows].astype(np.int64), pages.length[kept], pages.user[kept]
    )


def read_params(data: Path, file: Path | None = None) -> RankersParams:
    """What a file of parameters says under "rankers", with defaults for what it leaves out.

    Without `file` the shop's own, params.json in its folder, counts if it is there. Raises ConfigurationError when
    `file` is not there or a document does not fit.
    """
    path = file or data / PARAMS_FILE
    if file is None and not path.exists():
        return RankersParams()
    try:
        document = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        return msgspec.convert(document.get("rankers", {}), RankersParams)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigurationError(f"{path} is no file of parameters: {error}") from error


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in values.items():
        found |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return found


def _largest(values: dict[str, float], count: int) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda pair: -pair[1])[:count])


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m batch.train_ranker", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    parser.add_argument(
        "--params", type=Path, metavar="FILE", help=f"JSON of parameters (default: the folder's {PARAMS_FILE}, if any)"
    )
    defaults = RankersParams()
    trees = defaults.lambdamart
    parser.add_argument("--leaves", type=int, metavar="N", help=f"of a tree, default {trees.leaves}")
    parser.add_argument("--trees", type=int, metavar="N", help=f"at most, default {trees.trees}")
    parser.add_argument("--seed", type=int, metavar="N", help=f"default {trees.seed}")
    parser.add_argument(
        "--gains",
        type=float,
        nargs=4,
        metavar=("NONE", "VIEW", "CART", "PURCHASE"),
        help="gain of a candidate left alone, viewed, put into the cart and bought, "
        f"default {' '.join(f'{gain:g}' for gain in defaults.label_gain)}",
    )
    parser.add_argument(
        "--exposures",
        action="store_true",
        help="learn from the pages on record too, clicks weighed against their positions (default: no)",
    )
    return parser.parse_args(argv)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    arguments = arguments_of(argv)
    params = read_params(arguments.data, arguments.params)
    of_trees = {name: getattr(arguments, name) for name in ("leaves", "trees", "seed")}
    trees = replace(params.lambdamart, **{name: value for name, value in of_trees.items() if value is not None})
    gains = params.label_gain if arguments.gains is None else tuple(arguments.gains)
    params = replace(params, lambdamart=trees, label_gain=gains, exposures=params.exposures or arguments.exposures)
    fit(arguments.data, params, Tracking.of(arguments.data))
    return 0


if __name__ == "__main__":
    sys.exit(main())
