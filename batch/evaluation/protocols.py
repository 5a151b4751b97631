"""The protocols of published tables on rows in order: files to a split, and a split to pages."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch.evaluation.cost import Meter
from batch.evaluation.files import ColumnNames, digest_of, ids, lists, numbers, read_columns
from batch.evaluation.fit import CODE, Fittable, Fitted, code_digest, fit_phase
from batch.evaluation.lists_measured import ItemFacts
from batch.evaluation.pages import PageMaker, make_pages
from batch.evaluation.params import Parameters
from batch.evaluation.params import digest_of as digest_of_document
from batch.evaluation.phases import Known, Phase, Split
from batch.evaluation.pseudo_events import ItemAttributes, as_interactions, fold_items
from batch.evaluation.report import Part
from batch.evaluation.split import (
    AskedPrefixes,
    OrderedRows,
    Pairs,
    given_split,
    leave_last_out,
    next_basket,
    next_in_session,
)
from batch.evaluation.tuning import Bench, Journal, TuneBudget, tune
from batch.progress import progress
from shared.candidates.als import ItemFactors
from shared.candidates.span import SpanModel
from shared.errors import ConfigurationError
from shared.events import EventType
from shared.features.items import ItemTable
from shared.features.vector import SCHEMA
from shared.ranking.page_table import PageTable

ROOT: Final = Path(__file__).resolve().parents[2]
SERVING_CODE: Final = (
    "shared",
    "batch/evaluation/split.py",
    "batch/evaluation/pseudo_events.py",
    "batch/evaluation/pages.py",
)
PROTOCOLS: Final = {
    "leave_last_out": EventType.PURCHASE,
    "given_split": EventType.PURCHASE,
    "next_in_session": EventType.VIEW,
    "next_basket": EventType.PURCHASE,
}
"""The type of event that a row becomes unless the command says otherwise."""

TUNED_ON: Final = 2_500
"""Label queries that parameters are tried on."""

PARTS: Final = "parts.json"
"""Beside pages and fits: what making them cost."""

FUTURE: Final = "future"
HISTORY: Final = "history"


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """What is measured: files, how they are split, and how much is taken.

    `refit`: sources of the test phase know what the labels were. `test_queries` None takes all; `processes` make pages.
    """

    protocol: str
    work: Path
    parameters: Parameters
    interactions: Path | None = None
    train: Path | None = None
    test: Path | None = None
    attributes: Path | None = None
    columns: ColumnNames = field(default_factory=ColumnNames)
    event_type: EventType | None = None
    refit: bool = True
    test_queries: int | None = None
    processes: int = 2
    seed: int = 0

    @property
    def kind(self) -> EventType:
        """What a row becomes."""
        return self.event_type or PROTOCOLS[self.protocol]

    @property
    def files(self) -> tuple[Path, ...]:
        """The files in a fixed order. Raises ConfigurationError where one is missing."""
        named = [one for one in (self.interactions, self.train, self.test, self.attributes) if one is not None]
        for path in named:
            if not path.is_file():
                raise ConfigurationError(f"there is no file {path}")
        return tuple(named)


@dataclass(frozen=True, slots=True)
class EvaluationPages:
    """Label and test pages (memory-mapped), facts of the items, and what each part cost when it was made."""

    label: PageTable
    test: PageTable
    facts: ItemFacts
    parts: list[Part]


def read_split(request: EvaluationRequest) -> tuple[Split, ItemAttributes]:
    """The data set's files as a split. Raises ConfigurationError, naming file and column, for what cannot be used."""
    items, lengths, members, brands = _attributes(request)
    split = _SPLITS[request.protocol](request, items)
    return split, ItemAttributes.of(split.names, items, lengths, members, brands)


def tune_request(request: EvaluationRequest, budget: TuneBudget, journal: Journal) -> EvaluationRequest:
    """The request with parameters tuned on its label queries; the test is not read."""
    split, attributes = read_split(request)
    bench = Workshop.of(request, split, attributes).bench()
    return replace(request, parameters=tune(bench, request.parameters, budget, request.seed, journal))


def make_evaluation_pages(request: EvaluationRequest) -> EvaluationPages:
    """Fit, fold and make pages for both phases below `request.work`; what stands there from the same inputs is kept."""
    meter = Meter()
    with meter.part("files read and split"):
        split, attributes = read_split(request)
    workshop = Workshop.of(request, split, attributes)
    pages = request.parameters.pages
    label = workshop.pages("label", split.label, pages.label_pages, pages.negatives)
    test = workshop.pages("test", split.test, request.test_queries, None)
    popularity = np.bincount(split.test.known.item, minlength=split.items).astype(np.float64)
    facts = ItemFacts(popularity, attributes.categories(split.items), popularity == 0)
    return EvaluationPages(label, test, facts, meter.parts + workshop.parts)


@dataclass
class Workshop:
    """Makes what is missing below the work folder; folders are named for what they are made from."""

    request: EvaluationRequest
    split: Split
    attributes: ItemAttributes
    inputs: str
    parts: list[Part] = field(default_factory=list)
    _fits: dict[str, Fitted] = field(default_factory=dict)

    @classmethod
    def of(cls, request: EvaluationRequest, split: Split, attributes: ItemAttributes) -> Workshop:
        """For the request's files as they are now."""
        inputs = {
            "files": digest_of(request.files),
            "columns": request.columns,
            "protocol": request.protocol,
            "kind": request.kind,
            "seed": request.seed,
            "spread_days": request.parameters.pages.spread_days,
            "cohesion": request.parameters.pages.cohesion,
            "code": code_digest(
                ROOT, ("batch/evaluation/files.py", "batch/evaluation/split.py", "batch/evaluation/hold_out.py")
            ),
        }
        return cls(request, split, attributes, digest_of_document(inputs))

    def fittable(self, known: Known) -> Fittable:
        """What is known, as the night's models read it."""
        products = self.attributes.products(self.split.items)
        return Fittable(as_interactions(known, self.request.kind), products, self.split.users)

    def item_table(self, phase: str, known: Known) -> ItemTable:
        """The items, described and counted, as the phase's pages find them."""
        with progress(f"{phase}: events", len(known), "events") as advance:
            return fold_items(known, self.split.items, self.attributes, self.request.kind, advance)

    def bench(self) -> Bench:
        """Label queries to try parameters on, apart from those of the label pages as far as there are enough."""
        label, request = self.split.label, self.request
        queries = label.queries.sampled_apart(TUNED_ON, request.seed, request.parameters.pages.label_pages)
        nothing = ItemFactors.of(np.zeros((self.split.items, 1), np.float32), 1.0, 1.0)
        maker = PageMaker.of(
            queries,
            self.item_table("tuning", label.known),
            SpanModel(nothing, {}, request.parameters.sources),
            request.kind,
            masked=self.split.masked,
            negatives=None,
            seed=request.seed,
        )
        return Bench(self.fittable(label.known), maker)

    def fitted(self, phase: str, known: Known) -> Fitted:
        """Retrieval fitted on what is known."""
        retrieval = self.request.parameters.retrieval
        part = "fit" if known is self.split.label.known else "fit + label"
        made_from = digest_of_document([self.inputs, part, retrieval, code_digest(ROOT, CODE)])
        folder = self.request.work / "spans" / made_from
        if made_from not in self._fits:
            with progress(f"{phase}: lists", None, "items") as advance:
                fitted = fit_phase(self.fittable(known), retrieval, folder, advance)
            self._fits[made_from] = fitted
            self.parts.extend(Part(f"{part}: {one.name}", one.seconds, one.peak_mib) for one in fitted.parts)
        return self._fits[made_from]

    def pages(self, phase: str, asked: Phase, limit: int | None, negatives: int | None) -> PageTable:
        """The pages of at most `limit` of the phase's queries."""
        request = self.request
        fitted = self.fitted(phase, asked.known)
        serving = code_digest(ROOT, SERVING_CODE)
        made_from = digest_of_document(
            [fitted.made_from, request.parameters.sources, limit, negatives, SCHEMA.digest, serving]
        )
        folder = request.work / "pages" / f"{phase}-{made_from}"
        for outdated in folder.parent.glob(f"{phase}-*"):
            if not outdated.name.startswith(folder.name):
                shutil.rmtree(outdated)
        if not folder.exists():
            meter = Meter()
            with meter.part(f"{phase}: events folded"):
                table = self.item_table(phase, asked.known)
            maker = PageMaker.of(
                asked.queries.sampled(limit, request.seed),
                table,
                replace(fitted.model, params=request.parameters.sources),
                request.kind,
                masked=self.split.masked,
                negatives=negatives,
                seed=request.seed,
            )
            with meter.part(f"{phase}: pages"), progress(f"{phase}: pages", len(maker.queries), "pages") as advance:
                make_pages(maker, folder, request.processes, advance)
            (folder / PARTS).write_bytes(msgspec.json.encode(meter.parts))
        self.parts.extend(msgspec.json.decode((folder / PARTS).read_bytes(), type=list[Part]))
        return PageTable.load(folder)


def _attributes(request: EvaluationRequest) -> tuple[pa.Array, NDArray[np.int64], pa.Array, pa.Array | None]:
    if request.attributes is None:
        return pa.array([], pa.large_string()), np.empty(0, np.int64), pa.array([], pa.large_string()), None
    wanted = ["item", "attributes", *(["brand"] if request.columns.brand else [])]
    table = read_columns(request.attributes, request.columns, wanted)
    lengths, members = lists(table, "attributes", request.attributes)
    brands = ids(table["brand"]) if request.columns.brand else None
    return ids(table["item"]), np.asarray(lengths), members, brands


def _leave_last_out(request: EvaluationRequest, extra_items: pa.Array) -> Split:
    path = _file(request.interactions, "--interactions")
    table = read_columns(path, request.columns, ["user", "position", "item"])
    return leave_last_out(
        _ordered(table, "user", "position", path), extra_items, seed=request.seed, refit=request.refit
    )


def _given_split(request: EvaluationRequest, extra_items: pa.Array) -> Split:
    files = (_file(request.train, "--train"), _file(request.test, "--test"))
    tables = [read_columns(path, request.columns, ["user", "item"]) for path in files]
    train, test = (Pairs(ids(table["user"]), ids(table["item"])) for table in tables)
    return given_split(
        train,
        test,
        extra_items,
        seed=request.seed,
        refit=request.refit,
        cohesion=request.parameters.pages.cohesion,
    )


def _next_in_session(request: EvaluationRequest, extra_items: pa.Array) -> Split:
    path, test = _file(request.train, "--train"), _file(request.test, "--test")
    table = read_columns(path, request.columns, ["session", "position", "item"])
    asked = read_columns(test, request.columns, ["prefix", "target"])
    lengths, members = lists(asked, "prefix", test)
    return next_in_session(
        _ordered(table, "session", "position", path),
        AskedPrefixes(np.asarray(lengths), ids(members), ids(asked["target"])),
        extra_items,
        seed=request.seed,
        refit=request.refit,
        spread_days=request.parameters.pages.spread_days,
    )


def _next_basket(request: EvaluationRequest, extra_items: pa.Array) -> Split:
    path = _file(request.interactions, "--interactions")
    table = read_columns(path, request.columns, ["user", "basket", "item", "part"])
    part = ids(table["part"])
    strange = part.filter(pc.invert(pc.is_in(part, pa.array([HISTORY, FUTURE], pa.large_string()))))
    if len(strange):
        raise ConfigurationError(
            f"column {request.columns.part!r} of {path} holds {strange[0]}; it may hold {HISTORY} or {FUTURE}"
        )
    future = np.asarray(pc.equal(part, FUTURE))
    rows = _ordered(table, "user", "basket", path)
    return next_basket(rows, future, extra_items, seed=request.seed, refit=request.refit)


def _ordered(table: pa.Table, owner: str, position: str, path: Path) -> OrderedRows:
    return OrderedRows(ids(table[owner]), np.asarray(numbers(table, position, path)), ids(table["item"]))


def _file(path: Path | None, flag: str) -> Path:
    if path is None:
        raise ConfigurationError(f"this protocol reads a file that {flag} names")
    return path


_SPLITS: Final[dict[str, Callable[[EvaluationRequest, pa.Array], Split]]] = {
    "leave_last_out": _leave_last_out,
    "given_split": _given_split,
    "next_in_session": _next_in_session,
    "next_basket": _next_basket,
}
