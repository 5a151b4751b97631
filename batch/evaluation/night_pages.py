"""Protocol time_split: the label and test pages of a shop's own history, made by the night's own stages.

The shop is a folder with a lake, or a file that `batch.ingest_events` reads. What is made lies in a work folder, so
that neither is touched and a second call goes on where the first one ended.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batch import ingest_events
from batch.build_interactions import load_summary
from batch.evaluation.lists_measured import ItemFacts
from batch.evaluation.night_stages import StageFailed, StageRun, run_stages
from batch.evaluation.report import Part
from batch.interactions import load_interactions
from batch.retrieval_span import PARAMS_FILE
from shared.adapters.folder_blob import FolderBlobStore
from shared.errors import ConfigurationError
from shared.events import from_ms
from shared.ingest.lake import read_manifest
from shared.ranking.page_table import PageTable, load_pages

SHOP: Final = "shop"
"""The shop's folder below the work folder."""

_BY_QUERY: Final = frozenset(
    {
        "stranger", "history", "length", "candidates", "user", "as_of", "at_start", "sessions_before", "positives",
        "frequent",
    }
)  # fmt: skip
_BY_POSITIVE: Final = frozenset({"positive_items", "touched"})
"""Which columns of a page table go by query and which by positive; the others go by row."""

STAGES: Final = ("build_interactions", "fit_retrieval", "build_neighbours", "build_training_set")
"""What pages are made by. The lake is read with what is sealed and not compacted; no state in Redis is needed."""


@dataclass(frozen=True, slots=True)
class NightRequest:
    """What pages are asked for.

    `data` is a shop's folder, or else `interactions` a file of `file_format` (one of batch.ingest_events), read with
    the further arguments `ingest`. `params` is the file of tuned parameters. At most so many pages are drawn;
    `negatives` are kept of each label page.
    """

    work: Path
    data: Path | None = None
    interactions: Path | None = None
    file_format: str = "table"
    ingest: tuple[str, ...] = ()
    params: Path | None = None
    label_pages: int = 20_000
    test_pages: int = 20_000
    negatives: int = 400
    seed: int = 0
    master: str = "local[*]"


@dataclass(frozen=True, slots=True)
class NightPages:
    """The pages of both periods, facts of the items, what each stage took, and what was fitted on what in words.

    Test pages are those of sessions in the test period, asked for when the session starts, of customers who were there
    before the period.
    """

    label: PageTable
    test: PageTable
    facts: ItemFacts
    parts: list[Part]
    told: list[str]


def night_pages(request: NightRequest, say: Callable[[str], None]) -> NightPages:
    """Make what is missing and return the pages; they are also saved as <work>/pages/{label,test}.

    Raises ConfigurationError for a request without a shop or with two, StageFailed when a stage does.
    """
    shop = request.work / SHOP
    _bring_in(request, shop)
    _take_parameters(request.params, shop)
    limits = {
        "--label-pages": request.label_pages,
        "--test-pages": request.test_pages,
        "--negatives": request.negatives,
        "--seed": request.seed,
    }
    run = StageRun(
        shop,
        STAGES,
        request.master,
        more={"build_training_set": [str(part) for pair in limits.items() for part in pair]},
        inputs={"fit_retrieval": [shop / PARAMS_FILE]},
    )
    parts = run_stages(run, say)
    label, test = load_pages(shop, "label"), load_pages(shop, "test")
    known = of_known_customers(test)
    chosen = choose(test, known)
    for name, pages in (("label", label), ("test", chosen)):
        folder = request.work / "pages" / name
        shutil.rmtree(folder, ignore_errors=True)
        pages.save(folder)
    return NightPages(label, chosen, item_facts(shop, [label, test]), parts, _told(shop, known))


def item_facts(shop: Path, tables: Sequence[PageTable]) -> ItemFacts:
    """Events of each item before the test period, and categories as pages have them: no list names other items."""
    summary, interactions = load_summary(shop), load_interactions(shop)
    known = interactions.known_before(summary.periods.label_end_at)
    popularity = np.bincount(known.item, minlength=summary.items).astype(np.float64)
    category = np.full(summary.items, -1, dtype=np.int64)
    for pages in tables:
        released = np.asarray(pages.index) < summary.items
        category[np.asarray(pages.index)[released]] = np.asarray(pages.category)[released]
    return ItemFacts(popularity, category, popularity == 0)


def _told(shop: Path, known: NDArray[np.bool_]) -> list[str]:
    periods = load_summary(shop).periods
    ends = (periods.fit_end_at, periods.label_end_at, periods.test_end_at)
    fit, label, end = (f"{from_ms(at):%Y-%m-%d %H:%M} UTC" for at in ends)
    return [
        f"sources for the label pages: fitted on what was known before {fit}",
        f"rankers: learnt on pages of the label period, {fit} to {label}",
        f"sources for the test pages: fitted on what was known before {label}; histories end with each page's instant",
        f"test pages: sessions that begin between {label} and {end} and hold a hit, asked for as they begin",
        f"{int(known.sum()):,} test pages of customers who were there before {label} are judged",
        f"{int((~known).sum()):,} test pages of others are left out: a rule shows them what is popular",
    ]


def of_known_customers(pages: PageTable) -> NDArray[np.bool_]:
    """bool[q]: the customer had an order or visit before the period (her first page in it has one before it).

    Strangers' pages are all of them popularity's, by rule, and say nothing of a model.
    """
    first = np.full(int(pages.user.max(initial=-1)) + 1, np.iinfo(np.int32).max, dtype=np.int64)
    np.minimum.at(first, pages.user, pages.sessions_before)
    return np.asarray(first[pages.user] > 0)


def choose(pages: PageTable, kept: NDArray[np.bool_]) -> PageTable:
    """The queries where `kept` (bool[q]) is true, with their rows."""
    rows, wanted = np.repeat(kept, pages.length), np.repeat(kept, pages.positives)
    chosen = {}
    for one in fields(pages):
        column = getattr(pages, one.name)
        mask = kept if one.name in _BY_QUERY else wanted if one.name in _BY_POSITIVE else rows
        chosen[one.name] = column[mask]
    return PageTable(**chosen)


def _bring_in(request: NightRequest, shop: Path) -> None:
    if (request.data is None) == (request.interactions is None):
        raise ConfigurationError("give --data, a shop's folder, or --interactions, a file to read; not both")
    if request.data is not None:
        _link_lake(request.data, shop)
    elif request.interactions is not None:
        arguments = ["--format", request.file_format, "--path", str(request.interactions), *request.ingest]
        if ingest_events.main([*arguments, "--out", str(shop)]):
            raise StageFailed(f"{request.interactions} was not read; mend what is said above and run this again")


def _take_parameters(params: Path | None, shop: Path) -> None:
    """The night reads a shop's parameters from its folder; without a file the defaults hold."""
    if params is None:
        (shop / PARAMS_FILE).unlink(missing_ok=True)
    elif params.is_file():
        shutil.copyfile(params, shop / PARAMS_FILE)
    else:
        raise ConfigurationError(f"there is no parameter file {params}")


def _link_lake(data: Path, shop: Path) -> None:
    """The lake's files as they are now, by hard links where the file system has them: a lake's files never change."""
    if read_manifest(FolderBlobStore(data)) is None:
        raise ConfigurationError(f"{data} holds no lake; run batch.generate_shop or batch.ingest_events first")
    target = shop / "lake"
    if (
        target.exists()
        and (target / "lake_manifest.json").read_bytes() == (data / "lake/lake_manifest.json").read_bytes()
    ):
        return
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(data / "lake", target, copy_function=_link, ignore=shutil.ignore_patterns(".recommndr-*"))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
