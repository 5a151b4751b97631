"""The nightly index of a release with what changed since: one thing to search."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.catalog import Product
from shared.search.index import SearchIndex
from shared.search.overlay import Overlay
from shared.search.postings import Postings
from shared.search.text import digest_of, texts_of
from shared.search.tokens import Tokenizer
from shared.search.typos import Vocabulary

BATCH: Final = 200


@dataclass(frozen=True, slots=True)
class Renewed:
    """A product as it stands now (None: there is none), its table row, its index in the release (-1: younger)."""

    row: int
    index: int
    product: Product | None


class LiveIndex:
    """Safe to use from many threads; one at a time renews."""

    def __init__(self, index: SearchIndex, tokenizer: Tokenizer) -> None:
        """As the night left it."""
        self.index = index
        self.overlay = Overlay(index.statistics)
        self.products_version = 0
        """Up to where the item table's products are taken in."""
        self.replaced: NDArray[np.int64] = np.empty(0, np.int64)
        """Indexes of the release whose text is no longer that of the nightly index."""
        self._tokenizer = tokenizer
        self._vocabulary = Vocabulary(index.words)
        self._renewing = threading.Lock()

    def words(self, text: str, most: int) -> list[str]:
        """The first `most` distinct words of a text, as the index cuts and folds them."""
        return self._tokenizer.words(text, most)

    def renew(self, changes: Callable[[int], tuple[int, Iterable[Renewed]]]) -> None:
        """Take in what `changes` tells since a version of the item table, with the version it tells it up to.

        Where another thread is at it, this one goes on with what there is.
        """
        if not self._renewing.acquire(blocking=False):
            return
        try:
            version, renewed = changes(self.products_version)
            if version == self.products_version:
                return
            replaced = set(self.replaced.tolist())
            for batch in batched(renewed, BATCH, strict=False):
                changed, texts = self._compare(batch, replaced)
                words = iter(self._tokenizer.documents(texts))
                self.overlay.replace({row: next(words) if differs else None for row, differs in changed.items()})
            self.replaced = np.array(sorted(replaced), dtype=np.int64)
            self.products_version = version
        finally:
            self._renewing.release()

    def having(self, word: str) -> int:
        """How many items have a word, about."""
        return self.index.having(word) + self.overlay.having(word)

    def begins(self, beginning: str) -> bool:
        """Does any word begin so?"""
        return self.index.begins(beginning) or self.overlay.begins(beginning)

    def neighbours(self, typed: str, most: int) -> list[str]:
        """At most so many words one edit away, those of the most items first."""
        found = {*self._vocabulary.neighbours(typed), *self.overlay.neighbours(typed)}
        return sorted(found, key=lambda word: (-self.having(word), word))[:most]

    def scores(self, word: str, index_of_row: NDArray[np.int32], count: int, *, begins: bool) -> NDArray[np.float32]:
        """float32[count] by index of the shelf: how well each item has the word, or one that begins so; 0: not."""
        held = self.index.beginning_postings(word) if begins else self.index.postings(word)
        having = len(held.indexes)
        newer = self.overlay.beginning_postings(word, having) if begins else self.overlay.postings(word, having)
        scores = np.zeros(count, dtype=np.float32)
        scores[held.indexes] = held.scores
        scores[self.replaced] = 0
        _put(scores, newer, index_of_row)
        return scores

    def _compare(self, batch: Sequence[Renewed], replaced: set[int]) -> tuple[dict[int, bool], list[tuple[str, ...]]]:
        """Which rows differ from the snapshot, and the texts of those that do; `replaced` follows."""
        changed: dict[int, bool] = {}
        texts: list[tuple[str, ...]] = []
        for one in batch:
            text = None if one.product is None else texts_of(one.product)
            held = int(self.index.digests[one.index]) if one.index >= 0 else None
            same = text is not None and held is not None and digest_of(text) == held
            (replaced.discard if same or one.index < 0 else replaced.add)(one.index)
            changed[one.row] = text is not None and not same
            if text is not None and not same:
                texts.append(text)
        return changed, texts


def _put(scores: NDArray[np.float32], newer: Postings, index_of_row: NDArray[np.int32]) -> None:
    known = newer.indexes < len(index_of_row)
    indexes = index_of_row[newer.indexes[known]]
    shelved = (indexes >= 0) & (indexes < len(scores))
    scores[indexes[shelved]] = newer.scores[known][shelved]
