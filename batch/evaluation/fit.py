"""Retrieval of one phase, fitted by the night's own functions in this process and kept by what it was made from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from batch.build_neighbours import SLICE_ITEMS, cut_lists
from batch.evaluation.cost import Meter
from batch.evaluation.pseudo_events import ASKED_AT
from batch.evaluation.report import Part
from batch.fit_retrieval import fit_span
from batch.interactions import Interactions
from batch.retrieval_span import RetrievalParams, RetrievalSpan
from shared.adapters.stage_folder import replace_folder
from shared.candidates.als import ItemFactors
from shared.candidates.query import REQUEST_KINDS, ListKind, Neighbours
from shared.candidates.span import SpanModel
from shared.catalog import Product
from shared.features.definitions import Retrieval

CODE: Final = ("batch/models", "batch/fit_retrieval.py", "batch/retrieval_span.py", "batch/build_neighbours.py")
"""What a fit depends on besides its inputs."""


@dataclass(frozen=True, slots=True)
class Fittable:
    """What retrieval is fitted on: interactions of `users` users, and one product for each item, in index order."""

    known: Interactions
    products: Sequence[Product]
    users: int

    def fit(
        self, params: RetrievalParams, only: Collection[Retrieval] | None = None
    ) -> tuple[RetrievalSpan, dict[str, float]]:
        """What the night would fit (of these sources only), and the seconds of its steps."""
        items = len(self.products)
        return fit_span(self.known, self.products, self.users, items, end_at=ASKED_AT, params=params, only=only)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A phase's retrieval, what each step of it cost when it was made, and what it was made from."""

    model: SpanModel
    parts: list[Part]
    made_from: str


def fit_phase(fittable: Fittable, params: RetrievalParams, folder: Path, advance: Callable[[int], None]) -> Fitted:
    """The phase's retrieval from `folder`, made there first when it is not there.

    `folder` is named for what it is made from. `advance` is told how many items got their lists.
    """
    if not folder.exists():
        with replace_folder(folder) as new:
            _make(fittable, params, new, advance)
    parts = msgspec.json.decode((folder / "parts.json").read_bytes(), type=list[Part])
    return Fitted(_load(folder), parts, folder.name)


def code_digest(root: Path, paths: tuple[str, ...]) -> str:
    """A fingerprint of the Python files at or below these paths of the project, 16 hexadecimal digits."""
    said = blake2b(digest_size=8)
    for path in paths:
        whole = root / path
        for file in sorted(whole.rglob("*.py")) if whole.is_dir() else [whole]:
            said.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return said.hexdigest()


def lists_of(span: RetrievalSpan, kind: ListKind, items: int, advance: Callable[[int], None]) -> Neighbours:
    """All items' lists of one kind, cut slice by slice as the night cuts them."""
    width = span.params.list_size
    indexes, scores = np.full((items, width), -1, np.int32), np.zeros((items, width), np.float32)
    for start in range(0, items, SLICE_ITEMS):
        stop = min(start + SLICE_ITEMS, items)
        found, columns = cut_lists(span, kind, start, stop, width)
        indexes[start:stop, : found.shape[1]] = found
        scores[start:stop, : found.shape[1]] = columns[0]
        advance(stop - start)
    scores[indexes < 0] = 0
    return Neighbours(indexes, scores)


def _make(fittable: Fittable, params: RetrievalParams, folder: Path, advance: Callable[[int], None]) -> None:
    meter = Meter()
    with meter.part("all"):
        span, seconds = fittable.fit(params)
    peak_mib = meter.parts.pop().peak_mib
    fitted = [Part(step, round(taken, 1), peak_mib) for step, taken in seconds.items()]
    np.save(folder / "factors.npy", span.items.factors)
    np.save(folder / "gram.npy", span.items.gram)
    (folder / "als.json").write_bytes(msgspec.json.encode(span.items.fold_in_params()))
    for kind in REQUEST_KINDS:
        with meter.part(f"lists of {kind}"):
            lists = lists_of(span, kind, len(fittable.products), advance)
        np.save(folder / f"{kind}_indexes.npy", lists.indexes)
        np.save(folder / f"{kind}_scores.npy", lists.scores)
    (folder / "parts.json").write_bytes(msgspec.json.encode([*fitted, *meter.parts]))


def _load(folder: Path) -> SpanModel:
    params = msgspec.json.decode((folder / "als.json").read_bytes(), type=dict[str, float])
    factors = ItemFactors.from_params(
        np.asarray(np.load(folder / "factors.npy", mmap_mode="r")), params, np.load(folder / "gram.npy")
    )
    return SpanModel(
        factors,
        {
            kind: Neighbours(*(np.load(folder / f"{kind}_{name}.npy", mmap_mode="r") for name in ("indexes", "scores")))
            for kind in REQUEST_KINDS
        },
    )
