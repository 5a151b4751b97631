"""Products that changed since the snapshot, or that it never knew, searchable at once beside the nightly index."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from shared.search.bm25 import Statistics
from shared.search.postings import Postings
from shared.search.text import NAMING, WEIGHTS
from shared.search.tokens import Word
from shared.search.typos import Vocabulary

_WEIGHTS: Final = np.array(list(WEIGHTS.values()))
_NAMING: Final = _WEIGHTS * [name in NAMING for name in WEIGHTS]
_LAST: Final = "\U0010ffff"


@dataclass
class _Words:
    """Word -> table row -> how often, weighted by column; with the words in order and their typos, made when asked."""

    rows: dict[str, dict[int, float]] = field(default_factory=dict)
    _sorted: list[str] | None = None
    _vocabulary: Vocabulary | None = None

    def put(self, word: str, row: int, times: float) -> None:
        if word not in self.rows:
            self._sorted = self._vocabulary = None
        self.rows.setdefault(word, {})[row] = times

    def take(self, word: str, row: int) -> None:
        held = self.rows.get(word, {})
        held.pop(row, None)
        if not held and self.rows.pop(word, None) is not None:
            self._sorted = self._vocabulary = None

    def beginning(self, beginning: str) -> list[str]:
        if self._sorted is None:
            self._sorted = sorted(self.rows)
        first = bisect_left(self._sorted, beginning)
        return self._sorted[first : bisect_left(self._sorted, beginning + _LAST, first)]

    def vocabulary(self) -> Vocabulary:
        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self.rows)
        return self._vocabulary


class Overlay:
    """Documents by table row; scores use the statistics of the nightly index. Safe to use from many threads."""

    def __init__(self, statistics: Statistics) -> None:
        """No document."""
        self._statistics = statistics
        self._lock = threading.Lock()
        self._documents: dict[int, Sequence[Word]] = {}
        self._lengths: dict[int, int] = {}
        self._all, self._naming = _Words(), _Words()

    def __len__(self) -> int:
        """How many documents."""
        return len(self._documents)

    def replace(self, changed: Mapping[int, Sequence[Word] | None]) -> None:
        """Put documents in place of what stood at these rows; None takes away."""
        with self._lock:
            for row, words in changed.items():
                self._take(row)
                if words is not None:
                    self._put(row, words)

    def having(self, word: str) -> int:
        """How many documents have a word."""
        return len(self._all.rows.get(word, ()))

    def begins(self, beginning: str) -> bool:
        """Does any word of a naming column begin so?"""
        with self._lock:
            return bool(self._naming.beginning(beginning))

    def neighbours(self, typed: str) -> list[str]:
        """Words one edit away."""
        with self._lock:
            return self._all.vocabulary().neighbours(typed)

    def postings(self, word: str, having: int) -> Postings:
        """Table rows (not indexes) of the documents with a word that `having` items of the nightly index have."""
        with self._lock:
            return self._scored(self._all, [word], having)

    def beginning_postings(self, beginning: str, having: int) -> Postings:
        """Table rows of the documents in whose naming columns a word begins so."""
        with self._lock:
            return self._scored(self._naming, self._naming.beginning(beginning), having)

    def _scored(self, words: _Words, wanted: Iterable[str], having: int) -> Postings:
        times: dict[int, float] = {}
        for word in wanted:
            for row, weighted in words.rows.get(word, {}).items():
                times[row] = max(weighted, times.get(row, 0.0))
        rows = sorted(times)
        lengths = np.array([self._lengths[row] for row in rows], dtype=np.float64)
        counted = np.array([times[row] for row in rows], dtype=np.float64)
        scores = self._statistics.scores(counted, lengths, having or len(rows))
        return Postings(np.array(rows, dtype=np.int32), scores.astype(np.float32))

    def _put(self, row: int, words: Sequence[Word]) -> None:
        self._documents[row] = words
        self._lengths[row] = sum(sum(word.times) for word in words)
        for word in words:
            times = np.array(word.times)
            self._all.put(word.text, row, float(times @ _WEIGHTS))
            naming = float(times @ _NAMING)
            if naming:
                self._naming.put(word.text, row, naming)

    def _take(self, row: int) -> None:
        for word in self._documents.pop(row, ()):
            self._all.take(word.text, row)
            self._naming.take(word.text, row)
        self._lengths.pop(row, None)
