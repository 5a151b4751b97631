"""A span's retrieval as the night left it on disk: item factors and neighbour lists, for use without Redis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from shared.candidates.als import ItemFactors
from shared.candidates.params import DEFAULT, SourceParams
from shared.candidates.query import REQUEST_KINDS, ListKind, Neighbours
from shared.candidates.ranked import Indexes
from shared.errors import ConfigurationError

RETRIEVAL_FOLDER: Final = "nightly/retrieval"
LISTS_FOLDER: Final = "nightly/lists"


@dataclass(frozen=True, slots=True)
class SpanModel:
    """Retrieval fitted on one span: factors of all n items, and the lists of all n items by kind (arrays [n, k])."""

    factors: ItemFactors
    neighbours: Mapping[ListKind, Neighbours]
    params: SourceParams = DEFAULT

    def lookup(self, kind: ListKind, seeds: Indexes) -> Neighbours:
        """The lists of int32[m] item indexes, as arrays [m, k]."""
        block = self.neighbours[kind]
        return Neighbours(block.indexes[seeds], block.scores[seeds])

    def lookup_all(self, seeds: Indexes) -> dict[ListKind, Neighbours]:
        """The seeds' lists of every kind: what `shared.recommend.retrieve` takes."""
        return {kind: self.lookup(kind, seeds) for kind in self.neighbours}


def lists_folder(data: Path, span: str, kind: ListKind) -> Path:
    """Where a span's lists of one kind lie in a shop's folder."""
    return data / LISTS_FOLDER / span / kind.value


def load_span(data: Path, span: str) -> SpanModel:
    """Read a span (fit, fit_label or all); raises ConfigurationError when its stages have not run or do not agree."""
    factors = load_factors(data, span)
    count = len(factors.factors)
    lists = {kind: load_lists(lists_folder(data, span, kind), count) for kind in REQUEST_KINDS}
    return SpanModel(factors, lists, load_source_params(data, span))


def load_source_params(data: Path, span: str) -> SourceParams:
    """The request-time parameters the span was fitted for; raises ConfigurationError when it was not fitted."""
    return msgspec.convert(_read_params(data, span).get("sources", {}), SourceParams)


def load_factors(data: Path, span: str) -> ItemFactors:
    """The span's item factors, mapped read-only; raises ConfigurationError without them."""
    folder = data / RETRIEVAL_FOLDER / span
    params = _read_params(data, span)
    try:
        factors = np.asarray(np.load(folder / "item_factors.npy", mmap_mode="r"))
        gram = np.load(folder / "gram.npy", allow_pickle=False)
    except FileNotFoundError as error:
        raise ConfigurationError(f"{folder} is not whole; run python -m batch.fit_retrieval --data {data}") from error
    return ItemFactors.from_params(factors, params, gram)


def _read_params(data: Path, span: str) -> dict[str, Any]:
    folder = data / RETRIEVAL_FOLDER / span
    try:
        return msgspec.json.decode((folder / "params.json").read_bytes(), type=dict[str, Any])
    except FileNotFoundError as error:
        raise ConfigurationError(f"{folder} is not whole; run python -m batch.fit_retrieval --data {data}") from error


def load_lists(folder: Path, items_count: int) -> Neighbours:
    """The lists of `items_count` items from a folder of Parquet parts, padded to the longest.

    A part has columns item (int32), indexes (list of int32, best first) and columns (lists as long as `indexes`, of
    which the first is the score). Raises ConfigurationError without parts, or unless each item has one list.
    """
    import pyarrow as pa  # noqa: PLC0415 - the request path imports this package and does without Arrow
    import pyarrow.parquet as pq  # noqa: PLC0415 - see above

    parts = sorted(folder.glob("*.parquet"))
    if not parts:
        raise ConfigurationError(f"{folder} holds no lists; run python -m batch.build_neighbours first")
    table = pa.concat_tables([pq.read_table(part, columns=["item", "indexes", "columns"]) for part in parts])
    items = np.asarray(table["item"])
    if not np.array_equal(np.sort(items), np.arange(items_count)):
        raise ConfigurationError(
            f"{folder} holds lists of {len(items)} items, the shop has {items_count}; run batch.build_neighbours again"
        )
    table = table.take(pa.array(np.argsort(items)))
    lists = table["indexes"].combine_chunks()
    lengths = np.diff(np.asarray(lists.offsets))
    members = np.asarray(lists.flatten())
    values = np.asarray(table["columns"].combine_chunks().flatten().flatten())
    columns = len(values) // max(len(members), 1)
    row = np.repeat(np.arange(items_count), lengths)
    starts = np.cumsum(lengths) - lengths
    place = np.arange(len(members)) - starts[row]
    width = max(int(lengths.max(initial=0)), 1)
    indexes = np.full((items_count, width), -1, np.int32)
    scores = np.zeros((items_count, width), np.float32)
    indexes[row, place] = members
    scores[row, place] = values[columns * starts[row] + place]
    return Neighbours(indexes, scores)
