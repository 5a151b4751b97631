"""A page table as it is judged: some of its queries, block by block, with something taken away where asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import SchemaMismatch
from shared.features.declaration import Entity
from shared.features.definitions import FEATURES, Retrieval
from shared.features.vector import SCHEMA, Matrix
from shared.ranking.page_table import PageTable

SOURCES_COUNT: Final = "retrieval_sources_count"
READ_FROM: Final = {Retrieval.COOCCURRENCE: "retrieval_covisitation_"}
"""Features apart from a source's own rank and score that are read from its lists, by the start of their names."""
_ROWS_AT_ONCE: Final = 150_000


@dataclass(frozen=True, slots=True)
class Without:
    """What an ablation takes away: columns of the matrix, and of a source (its place among them) its candidates."""

    kind: str
    name: str
    columns: NDArray[np.int64]
    source: int | None = None

    @classmethod
    def of_source(cls, source: Retrieval) -> Without:
        """A source: its rank and score, what else is read from its lists, and candidates that it alone carries."""
        own = {f"retrieval_{source}_reciprocal_rank", f"retrieval_{source}_score"}
        read = READ_FROM.get(source)
        columns = [
            place
            for place, name in enumerate(SCHEMA.names)
            if name in own or (read is not None and name.startswith(read))
        ]
        return cls("source", str(source), np.array(columns), list(Retrieval).index(source))

    @classmethod
    def of_group(cls, entity: Entity) -> Without:
        """All features of an entity; candidates stay."""
        columns = [place for place, one in enumerate(FEATURES) if one.entity is entity]
        return cls("feature group", str(entity), np.array(columns))

    def kept(self, ranks: NDArray[np.int16]) -> NDArray[np.bool_]:
        """bool[n]: the candidates that are left, from int16[n, S] ranks."""
        if self.source is None:
            return np.ones(len(ranks), dtype=np.bool_)
        return np.asarray((ranks[:, self.source] == 0) | (np.count_nonzero(ranks, axis=1) > 1))

    def blank(self, features: Matrix, ranks: NDArray[np.int16]) -> None:
        """Write 0 into the columns of float32[n, F], and count one source less where this one carried the row."""
        features[:, self.columns] = 0
        if self.source is not None:
            features[:, SCHEMA.names.index(SOURCES_COUNT)] -= ranks[:, self.source] > 0


@dataclass(frozen=True)
class Block:
    """b queries of a view in memory: rows one after the other, which `there` bool[b, n] spreads out.

    `at` int64[b]: their places among the view's queries; `queries` int64[b]: in the page table.
    """

    view: View
    at: NDArray[np.int64]
    queries: NDArray[np.int64]
    rows: NDArray[np.int64]
    there: NDArray[np.bool_]

    @property
    def offsets(self) -> NDArray[np.int64]:
        """int64[rows]: where each row lies among all rows of the block's queries, those taken away too."""
        lengths = np.asarray(self.view.pages.length, dtype=np.int64)
        starts = (np.cumsum(lengths) - lengths)[self.queries]
        own = np.cumsum(lengths[self.queries]) - lengths[self.queries]
        return np.asarray(self.rows + np.repeat(own - starts, self.there.sum(axis=1)))

    @cached_property
    def features(self) -> Matrix:
        """float32[rows, F] as the view shows them, held as long as the block is."""
        return self.read()

    def read(self) -> Matrix:
        """The same, read once more and held by nobody."""
        features = np.array(self.view.pages.features[self.rows])
        if self.view.without is not None:
            self.view.without.blank(features, self.ranks)
        return features

    @cached_property
    def ranks(self) -> NDArray[np.int16]:
        """int16[rows, S]."""
        return np.asarray(self.view.pages.ranks[self.rows])

    def spread[T: np.generic](self, values: NDArray[T]) -> NDArray[T]:
        """Values [rows] as [b, n], with the type's zero where a query has fewer rows."""
        wide = np.zeros(self.there.shape, dtype=values.dtype)
        wide[self.there] = values
        return wide

    def column[T: np.generic](self, column: NDArray[T]) -> NDArray[T]:
        """A column of the page table with one value a row, as [b, n]."""
        return self.spread(np.asarray(column[self.rows]))

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """bool[b, n]: what a list may hold."""
        if not self.view.unseen:
            return self.there
        return self.there & ~self.column(self.view.pages.seen)

    @cached_property
    def wanted(self) -> NDArray[np.bool_]:
        """bool[b, n]: the positives that count."""
        return self.column(self.view.pages.positive) & self.allowed


@dataclass(frozen=True)
class View:
    """The chosen queries (int64, ascending) of a page table.

    `without` takes a source or features away; `unseen` takes from every list and from the positives what the user had
    acted on before.
    """

    pages: PageTable
    chosen: NDArray[np.int64]
    without: Without | None = None
    unseen: bool = False

    @classmethod
    def whole(cls, pages: PageTable) -> View:
        """All queries. Raises SchemaMismatch where the pages were made under other features."""
        if pages.features.shape[1] != len(SCHEMA.names):
            raise SchemaMismatch(
                f"pages have {pages.features.shape[1]} features, this code {len(SCHEMA.names)}; make the pages again"
            )
        return cls(pages, np.arange(len(pages.length)))

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """int64[q]: the positives of each chosen query, candidates or not."""
        counts = np.asarray(self.pages.positives, dtype=np.int64)
        if self.unseen:
            query = np.repeat(np.arange(len(counts)), counts)
            counts = np.bincount(query[~np.asarray(self.pages.touched)], minlength=len(counts))
        return counts[self.chosen]

    @cached_property
    def users(self) -> NDArray[np.int32]:
        """int32[q]: whose query each chosen one is."""
        return np.asarray(self.pages.user)[self.chosen]

    def positives(self) -> list[list[int]]:
        """The positives of each chosen query; an item that retrieval could not know gets an index no list holds."""
        items = np.asarray(self.pages.positive_items, dtype=np.int64)
        unknown = 1 + max(int(self.pages.index.max(initial=0)), int(items.max(initial=0)))
        items = np.where(items >= 0, items, unknown + np.arange(len(items)))
        kept = ~np.asarray(self.pages.touched) if self.unseen else np.ones(len(items), dtype=np.bool_)
        ends = np.cumsum(self.pages.positives, dtype=np.int64)
        begins = ends - self.pages.positives
        spans = [slice(begins[query], ends[query]) for query in self.chosen.tolist()]
        return [items[span][kept[span]].tolist() for span in spans]

    def blocks(self) -> Iterator[Block]:
        """The queries in blocks of about 70 MiB of features."""
        lengths = np.asarray(self.pages.length, dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        block_of = np.cumsum(lengths[self.chosen]) // _ROWS_AT_ONCE
        for number in np.unique(block_of):
            at = np.flatnonzero(block_of == number)
            queries = self.chosen[at]
            there = np.arange(lengths[queries].max(initial=0)) < lengths[queries][:, None]
            rows = (starts[queries][:, None] + np.arange(there.shape[1]))[there]
            if self.without is not None:
                kept = self.without.kept(np.asarray(self.pages.ranks[rows]))
                left = np.bincount(np.nonzero(there)[0][kept], minlength=len(at))
                there = np.arange(left.max(initial=0)) < left[:, None]
                rows = rows[kept]
            yield Block(self, at, queries, rows, there)
