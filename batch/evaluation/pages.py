"""Pages for the queries of a phase, made by the functions that serve, in as many processes as asked for."""

from __future__ import annotations

import multiprocessing
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from batch.evaluation.phases import Queries
from batch.evaluation.pseudo_events import ASKED_AT, item_name, shopper_of
from shared.candidates.span import SpanModel
from shared.errors import ConfigurationError
from shared.events import EventType, UserId
from shared.features.definitions import LISTS
from shared.features.items import ItemTable
from shared.features.vector import Matrix
from shared.past_pages import BASELINE_LENGTH, Instant, PageRows
from shared.ranking.page_table import PageTable
from shared.recommend import Model, PageRequest, Prepared, Shelf, default_sources, prepare, retrieve, vectorize

CHUNK: Final = 250
"""Queries of one unit of work; it is what a stopped run has to do again."""
POSITIVE_GRADE: Final = 3
WHOLE_WINDOW_DAYS: Final = 100_000
"""The window in which what a user has is withheld, where a protocol masks it for good."""


@dataclass(frozen=True)
class PageMaker:
    """Everything that pages of one phase have in common."""

    queries: Queries
    shelf: Shelf
    span: SpanModel
    model: Model
    kind: EventType
    masked: bool
    negatives: int | None
    index_of: dict[str, int]
    seed: int = 0

    @classmethod
    def of(
        cls,
        queries: Queries,
        table: ItemTable,
        span: SpanModel,
        kind: EventType,
        *,
        masked: bool,
        negatives: int | None,
        seed: int,
    ) -> PageMaker:
        """For a table whose row i is item i; `negatives` None keeps all candidates."""
        model = Model(
            "evaluation",
            default_sources(span.factors, span.params),
            _NoScorer(),
            ZoneInfo("UTC"),
            WHOLE_WINDOW_DAYS if masked else 0,
            span.params,
        )
        rows = np.arange(len(table), dtype=np.int64)
        index_of = {str(item_name(index)): index for index in range(len(table))}
        return cls(queries, Shelf.of(table, rows), span, model, kind, masked, negatives, index_of, seed)

    def prepared(self, place: int) -> Prepared:
        """Query `place`, ready for its lists."""
        request = PageRequest(ASKED_AT, excluded_rows=self._excluded(place))
        return prepare(self.shelf, self.model, shopper_of(self.queries, place, self.kind), request)

    def table_of(self, places: range) -> PageTable:
        """The pages of these queries."""
        names = {f"q{place}": int(self.queries.user[place]) for place in places}
        rows = PageRows(self.index_of, self.negatives, self.seed + places.start, names)
        for place in places:
            self._add(place, rows)
        return rows.table()

    def _add(self, place: int, rows: PageRows) -> None:
        queries = self.queries
        prepared = self.prepared(place)
        candidates = retrieve(prepared, self.model, self.span.lookup_all(prepared.seeds))
        features = vectorize(self.shelf, self.model, prepared, candidates)
        history = queries.history[queries.starts[place] : queries.starts[place + 1]].tolist()
        ages = queries.age_ms[queries.starts[place] : queries.starts[place + 1]]
        positives = queries.positives[queries.positive_starts[place] : queries.positive_starts[place + 1]].tolist()
        wanted = frozenset(item_name(index) for index in positives)
        rows.add(
            Instant(ASKED_AT, UserId(f"q{place}"), dict.fromkeys(wanted, POSITIVE_GRADE), wanted, at_start=True),
            candidates,
            features,
            self.shelf.trends.category[candidates.indexes],
            history=prepared.query.history.indexes,
            sessions_before=len(np.unique(ages)),
            touched={item_name(index) for index in history},
            frequent=_frequent(history, prepared.rules.allowed),
        )

    def _excluded(self, place: int) -> frozenset[int]:
        """What the rule about bought items cannot know where what a user has is masked."""
        history = self.queries.history[self.queries.starts[place] : self.queries.starts[place + 1]]
        held = LISTS[EventType.PURCHASE].k if self.kind is EventType.PURCHASE else 0
        if not self.masked or len(history) <= held:
            return frozenset()
        return frozenset(history.tolist())


class _NoScorer:
    """These pages are not ranked."""

    def score(self, features: Matrix) -> NDArray[np.float32]:
        raise ConfigurationError(f"{len(features)} rows to learn from have no ranker yet")


def make_pages(maker: PageMaker, folder: Path, processes: int, advance: Callable[[int], None]) -> PageTable:
    """The pages of all queries, in the order of the queries, memory-mapped from `folder`.

    What an earlier call left there is used again: `folder` is named for what its pages are made from. `advance` is told
    how many pages got done.
    """
    if not folder.exists():
        parts = folder.with_name(f"{folder.name}.parts")
        parts.mkdir(parents=True, exist_ok=True)
        chunks = [range(low, min(low + CHUNK, len(maker.queries))) for low in range(0, len(maker.queries), CHUNK)]
        if not chunks:
            raise ConfigurationError("no query is left: no user has a history and something to find")
        missing = [chunk for chunk in chunks if not _stands(_part(parts, chunk))]
        advance(len(maker.queries) - sum(map(len, missing)))
        for done in _run(maker, parts, missing, processes):
            advance(done)
        _join([_part(parts, chunk) for chunk in chunks], folder)
        shutil.rmtree(parts)
    return PageTable.load(folder)


def _run(maker: PageMaker, parts: Path, chunks: Sequence[range], processes: int) -> Iterator[int]:
    global _work  # noqa: PLW0603 - what forked workers find without it being copied
    _work = (maker, parts)
    if processes <= 1 or len(chunks) <= 1:
        yield from map(_make_part, chunks)
        return
    with multiprocessing.get_context("fork").Pool(min(processes, len(chunks))) as pool:
        yield from pool.imap_unordered(_make_part, chunks)


_work: tuple[PageMaker, Path] | None = None


def _make_part(chunk: range) -> int:
    assert _work is not None
    maker, parts = _work
    folder = _part(parts, chunk)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    for leftover in (folder, unfinished):
        shutil.rmtree(leftover, ignore_errors=True)
    with threadpool_limits(1):
        maker.table_of(chunk).save(unfinished)
    unfinished.rename(folder)
    return len(chunk)


def _stands(part: Path) -> bool:
    """Is it whole? A run that was stopped while joining has taken columns away."""
    return all((part / f"{column.name}.npy").exists() for column in fields(PageTable))


def _part(parts: Path, chunk: range) -> Path:
    return parts / f"{chunk.start:08d}"


def _join(parts: Sequence[Path], folder: Path) -> None:
    """One table of several, column by column and never in memory as a whole; a part's column goes once it is copied."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for column in fields(PageTable):
        files = [part / f"{column.name}.npy" for part in parts]
        shapes = [np.load(file, mmap_mode="r").shape for file in files]
        first = np.load(files[0], mmap_mode="r")
        whole = np.lib.format.open_memmap(
            unfinished / f"{column.name}.npy",
            mode="w+",
            dtype=first.dtype,
            shape=(sum(shape[0] for shape in shapes), *shapes[0][1:]),
        )
        low = 0
        for file, shape in zip(files, shapes, strict=True):
            whole[low : low + shape[0]] = np.load(file)
            low += shape[0]
            file.unlink()
        whole.flush()
        del whole
    unfinished.rename(folder)


def _frequent(history: Sequence[int], allowed: NDArray[np.bool_]) -> list[int]:
    """The items met most often that may be shown, the latest first among equals."""
    counts = Counter(reversed(history))
    return list(islice((item for item, _ in counts.most_common() if allowed[item]), BASELINE_LENGTH))
