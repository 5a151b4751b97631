"""Other methods on the queries of a shop's test pages: tuned on the label period, refitted, asked once."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from batch.build_interactions import load_summary
from batch.evaluation.night_pages import SHOP
from batch.evaluation.peer_methods import METHODS, Block, PeerData, PeerMethod
from batch.evaluation.peer_queries import PeerQueries, queries_of_pages
from batch.evaluation.rectools_peers import rectools_methods
from batch.interactions import load_interactions
from batch.metrics import bootstrap_mean, catalogue_coverage, hits_matrix, mrr_at, ndcg_at, recall_at
from shared.adapters.folder_blob import FolderBlobStore
from shared.cli import command
from shared.errors import ConfigurationError
from shared.ingest.lake import read_manifest
from shared.ranking.page_table import PageTable

FOLDER: Final = "peers"
K: Final = 20
LIGHT: Final = 3
"""Customers with fewer orders or visits than this are few to learn from."""
_QUERIES_AT_ONCE: Final = 256

Lists = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class PeerLists:
    """int32[q, K] of a method's best products for each test query, -1 pads; `unseen`: without what she had touched."""

    name: str
    lists: Lists
    unseen: Lists


@dataclass(frozen=True, slots=True)
class Field:
    """One phase: what methods may know, and which products exist and may be shown."""

    data: PeerData
    first_seen_at: NDArray[np.int64]
    bought_window_days: int

    def lists_of(self, block: Block, *, unseen: bool = False) -> Lists:
        """The best K of each query under the shop's rules: known by then, not withheld; ties by index."""
        queries, items = self.data.queries, self.data.items
        masked = queries.touched(items) if unseen else queries.withheld(items, self.bought_window_days)
        found = np.full((len(queries), K), -1, dtype=np.int32)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            chosen = slice(start, min(start + _QUERIES_AT_ONCE, len(queries)))
            scores = block(chosen).astype(np.float64)
            scores[masked[chosen].toarray() > 0] = -np.inf
            scores[self.first_seen_at[None] > queries.as_of[chosen, None]] = -np.inf
            places = min(K, items)
            top = np.argpartition(-scores, places - 1, axis=1)[:, :places]
            best = np.take_along_axis(scores, top, axis=1)
            order = np.lexsort((top, -best))
            top, best = np.take_along_axis(top, order, axis=1), np.take_along_axis(best, order, axis=1)
            found[chosen, :places] = np.where(np.isfinite(best), top, -1)
        return found


def load_peers(work: Path, test: PageTable) -> list[PeerLists]:
    """The lists that `python -m batch.evaluation.peers` left for just these test pages; none where it never ran.

    Raises ConfigurationError when they were made for other pages.
    """
    found = []
    for path in sorted((work / FOLDER).glob("*.npz")):
        with np.load(path) as held:
            if str(held["queries"]) != queries_digest(test):
                raise ConfigurationError(
                    f"{path} was made for other pages; run python -m batch.evaluation.peers --data {work} again"
                )
            found.append(PeerLists(str(held["name"]), held["lists"], held["unseen"]))
    return found


def queries_digest(pages: PageTable) -> str:
    """A fingerprint of who is asked about when, and of what is to be found."""
    digest = blake2b(digest_size=8)
    for column in (pages.user, pages.as_of, pages.positives, pages.positive_items):
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class PeerRun:
    """Where pages and answers lie, how many parameter sets are tried a method, and the seed of draws and methods."""

    work: Path
    trials: int
    seed: int
    say: Callable[[str], None]

    def path(self, name: str) -> Path:
        """The file of a method's lists."""
        return self.work / FOLDER / f"{''.join(letter if letter.isalnum() else '_' for letter in name.lower())}.npz"


def run_peers(run: PeerRun, methods: Mapping[str, PeerMethod]) -> dict[str, Any]:
    """Tune, refit and ask each method; write <work>/peers and return the report.

    A method whose lists stand for these queries, trials and seed is not run again.
    """
    label, test = (PageTable.load(run.work / "pages" / name) for name in ("label", "test"))
    tuning, final = _fields(run.work / SHOP, label, test)
    (run.work / FOLDER).mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for name, method in methods.items():
        path = run.path(name)
        digests = f"{queries_digest(label)} {queries_digest(test)}"
        asked = f"{digests} {run.trials} {run.seed} {sorted(method.space.items())}"
        row = _read(path.with_suffix(".json"), asked) if path.exists() else None
        if row is None:
            row, lists = _ask(run, name, method, tuning, final)
            np.savez_compressed(path, name=name, lists=lists.lists, unseen=lists.unseen, queries=queries_digest(test))
            path.with_suffix(".json").write_bytes(msgspec.json.encode({"asked": asked, "row": row}))
        run.say(_line(name, row))
        rows[name] = row
    return {"k": K, "queries": len(final.data.queries), "trials": run.trials, "seed": run.seed, "methods": rows}


def tune(method: PeerMethod, field: Field, trials: int, seed: int) -> tuple[dict[str, Any], float]:
    """The best of the defaults and `trials` - 1 random draws by NDCG@20 on the label queries, and its value."""
    generator = np.random.default_rng(seed)
    drawn: list[dict[str, Any]] = [{name: choices[0] for name, choices in method.space.items()}]
    for _ in range(50 * trials):
        one = {name: choices[int(generator.integers(len(choices)))] for name, choices in method.space.items()}
        if one not in drawn:
            drawn.append(one)
    counts = np.array([len(each) for each in field.data.queries.positives])
    best: tuple[float, dict[str, Any]] | None = None
    for params in drawn[:trials]:
        lists = field.lists_of(method.fit(field.data, params, seed))
        value = float(ndcg_at(hits_matrix(lists, field.data.queries.positives), counts, K).mean())
        if best is None or value > best[0]:
            best = (value, params)
    if best is None:
        raise ConfigurationError("--trials must be 1 or more")
    return best[1], best[0]


def _ask(run: PeerRun, name: str, method: PeerMethod, tuning: Field, final: Field) -> tuple[dict[str, Any], PeerLists]:
    started = time.perf_counter()
    params, value = tune(method, tuning, run.trials, run.seed)
    seconds = time.perf_counter() - started
    told = ", ".join(f"{parameter} {chosen}" for parameter, chosen in params.items())
    run.say(f"{name}: {value:.4f} on the label period with {told} after {seconds:.0f} s")
    block = method.fit(final.data, params, run.seed)
    lists, unseen = final.lists_of(block), final.lists_of(block, unseen=True)
    queries, items = final.data.queries, final.data.items
    row = _measured(lists, queries.positives, queries, items)
    row["light"] = _measured(lists, queries.positives, queries, items, chosen=queries.baskets < LIGHT)
    row["unseen"] = _measured(unseen, queries.new, queries, items)
    row |= {"params": params, "label_ndcg": value, "seconds": round(time.perf_counter() - started, 1)}
    return row, PeerLists(name, lists, unseen)


def _line(name: str, row: Mapping[str, Any]) -> str:
    ndcg, unseen = row["ndcg"], row["unseen"].get("ndcg", {"estimate": 0.0})
    return (
        f"{name:24} NDCG@{K} {ndcg['estimate']:.4f} ({ndcg['low']:.4f} to {ndcg['high']:.4f}), new to the customer "
        f"{unseen['estimate']:.4f}; {row['seconds']:.0f} s"
    )


def _measured(
    lists: Lists,
    positives: Sequence[Sequence[int]],
    queries: PeerQueries,
    items: int,
    *,
    chosen: NDArray[np.bool_] | None = None,
) -> dict[str, Any]:
    counts = np.array([len(each) for each in positives])
    asked = (counts > 0) if chosen is None else (counts > 0) & chosen
    row: dict[str, Any] = {"queries": int(asked.sum()), "coverage": catalogue_coverage(lists, items, K)}
    if not asked.any():
        return row
    hits = hits_matrix(lists, positives)
    values = {"ndcg": ndcg_at(hits, counts, K), "recall": recall_at(hits, counts, K), "mrr": mrr_at(hits, K)}
    return row | {metric: asdict(bootstrap_mean(value[asked], queries.user[asked])) for metric, value in values.items()}


def _fields(shop: Path, label: PageTable, test: PageTable) -> tuple[Field, Field]:
    manifest = read_manifest(FolderBlobStore(shop))
    if manifest is None:
        raise ConfigurationError(
            f"{shop} holds no lake; run python -m batch.evaluate_model --protocol time_split first"
        )
    summary, interactions = load_summary(shop), load_interactions(shop)
    first = np.full(summary.items, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(first, interactions.item, interactions.enqueued_at)
    # An item that nobody has touched may be shown from the start: when it was described stands in the lake alone.
    first[first == np.iinfo(np.int64).max] = 0
    days = manifest.shop.bought_window_days

    def field(end_at: int, pages: PageTable, *, starts_only: bool) -> Field:
        queries = queries_of_pages(pages, interactions, starts_only=starts_only)
        known = interactions.known_before(end_at)
        return Field(PeerData(known, interactions, summary.users, summary.items, end_at, queries), first, days)

    periods = summary.periods
    return (
        field(periods.fit_end_at, label, starts_only=True),
        field(periods.label_end_at, test, starts_only=False),
    )


def _read(path: Path, asked: str) -> dict[str, Any] | None:
    try:
        held = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    row: dict[str, Any] | None = held["row"] if held.get("asked") == asked else None
    return row


def _chosen(methods: Mapping[str, PeerMethod], names: Iterable[str] | None) -> dict[str, PeerMethod]:
    if names is None:
        return dict(methods)
    unknown = [name for name in names if name not in methods]
    if unknown:
        raise ConfigurationError(f"no method {', '.join(unknown)}; there are {', '.join(methods)}")
    return {name: methods[name] for name in names}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m batch.evaluation.peers", description=__doc__, epilog=f"methods: {', '.join(METHODS)}"
    )
    option = parser.add_argument
    option(
        "--data", type=Path, required=True, metavar="WORK", help="work folder of evaluate_model --protocol time_split"
    )
    option("--out", type=Path, required=True, metavar="FILE", help="the report, JSON")
    option("--trials", type=int, default=12, metavar="N", help="parameter sets tried a method (default %(default)s)")
    option("--method", action="append", metavar="NAME", help="only this one; may be given again (default: all)")
    option("--seed", type=int, default=0, help="of the draws and of the methods (default %(default)s)")
    option(
        "--rectools", type=Path, metavar="PYTHON",
        help="interpreter of an environment with requirements-peers.txt: adds RecTools' EASE and PureSVD",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    if arguments.trials < 1:
        raise ConfigurationError("--trials must be 1 or more")
    methods = dict(METHODS)
    if arguments.rectools is not None:
        methods |= rectools_methods(arguments.rectools, arguments.data / FOLDER / "rectools")
    run = PeerRun(arguments.data, arguments.trials, arguments.seed, lambda text: print(text, flush=True))
    report = run_peers(run, _chosen(methods, arguments.method))
    arguments.out.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
