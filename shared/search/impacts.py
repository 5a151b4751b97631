"""BM25 of every word in every product that has it, at once, from the instances that FTS5 lists of its own index."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from shared.search.bm25 import Statistics
from shared.search.postings import MANY, Postings
from shared.search.text import NAMING, WEIGHTS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_PLACES: Final = {name: place for place, name in enumerate(WEIGHTS)}
_CODE: Final = " ".join(f"WHEN '{name}' THEN {place}" for name, place in _PLACES.items())
_INSTANCES: Final = f"""
    SELECT term, count(*), group_concat(doc * {len(WEIGHTS)} + CASE col {_CODE} END) FROM instances GROUP BY term
"""  # noqa: S608 - names of this package


@dataclass(frozen=True, slots=True)
class Instances:
    """Every place at which a word stands: int64[m] places in `words`, documents and columns, in that order."""

    words: list[str]
    word: Ints
    document: Ints
    column: Ints

    @classmethod
    def of(cls, connection: sqlite3.Connection) -> Self:
        """Of the index `items`, through a temporary fts5vocab table."""
        connection.execute("CREATE VIRTUAL TABLE temp.instances USING fts5vocab(main, items, instance)")
        found = connection.execute(_INSTANCES).fetchall()
        connection.execute("DROP TABLE temp.instances")
        counts = np.array([count for _, count, _ in found], dtype=np.int64)
        codes = np.fromstring(",".join(places for _, _, places in found), dtype=np.int64, sep=",")
        word = np.repeat(np.arange(len(found)), counts)
        return cls([term for term, _, _ in found], word, *np.divmod(codes, len(WEIGHTS)))


@dataclass(frozen=True, slots=True)
class Impacts:
    """Documents of each word, ascending, with their scores: those of word w from `starts[w]` to `starts[w + 1]`."""

    starts: Ints
    documents: NDArray[np.int32]
    scores: NDArray[np.float32]

    @classmethod
    def of(cls, instances: Instances, statistics: Statistics, lengths: Floats, *, naming: bool) -> Self:
        """Scores as FTS5's bm25 gives them; with `naming`, as if only the naming columns existed."""
        weights = np.array([0.0 if naming and name not in NAMING else weight for name, weight in WEIGHTS.items()])
        counted = weights[instances.column] > 0
        word, document = instances.word[counted], instances.document[counted]
        first = np.flatnonzero(np.r_[True, (np.diff(word) != 0) | (np.diff(document) != 0)][: len(word)])
        times = np.add.reduceat(weights[instances.column[counted]], first) if len(first) else np.empty(0)
        word, document = word[first], document[first]
        starts = np.searchsorted(word, np.arange(len(instances.words) + 1))
        scores = [
            statistics.scores(times[low:high], lengths[document[low:high]], high - low)
            for low, high in pairwise(starts.tolist())
        ]
        return cls(starts, document.astype(np.int32), np.concatenate([*scores, np.empty(0)]).astype(np.float32))

    def postings(self, first: int, last: int) -> Postings:
        """Of the words from `first` to before `last`: each document with its best score."""
        part = slice(int(self.starts[first]), int(self.starts[last]))
        documents, scores = self.documents[part], self.scores[part]
        if last - first == 1 or not len(documents):
            return Postings(documents, scores)
        best = np.zeros(int(documents.max()) + 1, dtype=np.float32)
        np.maximum.at(best, documents, scores)
        found = np.flatnonzero(best)
        return Postings(found.astype(np.int32), best[found])


def frequent_answers(instances: Instances, documents: int) -> Iterator[tuple[str, bool, Postings]]:
    """(word, is it a beginning?, its postings) of the words, and beginnings of several words, that MANY items have.

    A beginning has the score of the best word that begins so.
    """
    lengths = np.bincount(instances.document, minlength=documents).astype(np.float64)
    statistics = Statistics(documents, len(instances.word) / max(documents, 1))
    words = instances.words
    whole = Impacts.of(instances, statistics, lengths, naming=False)
    for place in np.flatnonzero(np.diff(whole.starts) >= MANY).tolist():
        yield words[place], False, whole.postings(place, place + 1)
    naming = Impacts.of(instances, statistics, lengths, naming=True)
    for beginning, (first, last) in _beginnings(words).items():
        if last - first > 1 and whole.starts[last] - whole.starts[first] >= MANY:
            yield beginning, True, naming.postings(first, last)


def _beginnings(words: list[str]) -> dict[str, tuple[int, int]]:
    """The words' beginnings, each with the range of the words that have it."""
    ranges: dict[str, tuple[int, int]] = {}
    for place, word in enumerate(words):
        for end in range(1, len(word) + 1):
            first, _ = ranges.get(word[:end], (place, place))
            ranges[word[:end]] = (first, place + 1)
    return ranges
