"""Which items the words of a query find, and how well: all words, typos forgiven, or else fewer words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.search.live import LiveIndex

MOST_WORDS: Final = 16
"""Of a longer query the first ones count."""
MOST_NEIGHBOURS: Final = 6
BEGUN: Final = np.float32(0.7)
"""What an unfinished word counts against one that stands there whole."""
CORRECTED: Final = np.float32(0.8)
"""What a word counts that was not typed but is one edit away."""

Scores = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Matched(StrEnum):
    """How much of a query its hits have."""

    ALL = "all"
    SOME = "some"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Hits:
    """float32[n] by index of the shelf, above 0 for hits; and what was searched in place of what was typed."""

    scores: Scores
    matched: Matched
    corrected: dict[str, str] = field(default_factory=dict)
    did_you_mean: str | None = None


@dataclass
class _Sought:
    """One word of the query: its own scores, and those of the words one edit away once they are looked up."""

    text: str
    scores: Scores
    near: dict[str, Scores] | None = None

    def with_near(self) -> Scores:
        found = self.scores
        for scores in (self.near or {}).values():
            found = np.maximum(found, CORRECTED * scores)
        return found


class Matching:
    """One query over the items of one shelf: `index_of_row` int32 by table row, `allowed` bool[n] of what may show."""

    def __init__(self, live: LiveIndex, index_of_row: NDArray[np.int32], allowed: Mask) -> None:
        self._live = live
        self._index_of_row = index_of_row
        self._allowed = allowed

    def hits(self, words: Sequence[str], exact: int | None = None) -> Hits:
        """The items that have all words; a word nobody has counts as those one edit away.

        Where no item has all, every word may be one edit away; where even so none has, the items that have as many
        words as the best of them. The last word may be unfinished. `exact` is the index of an item whose id is the
        query: it comes first.
        """
        sought = [self._sought(word, last=place == len(words) - 1) for place, word in enumerate(words)]
        found = self._all_of(sought)
        if sought and not found.any():
            for one in sought:
                if one.near is None:
                    one.near = self._near(one.text)
            found = self._all_of(sought)
        matched = Matched.ALL
        if not found.any():
            found, matched = self._fewer(sought)
        if exact is not None and self._allowed[exact]:
            found[exact] = 2 * max(float(found.max(initial=0)), 1.0)
            matched = Matched.ALL
        corrected = _corrected(sought, found) if matched is not Matched.NONE and exact is None else {}
        meant = " ".join(corrected.get(word, word) for word in words) if corrected else None
        return Hits(found, matched, corrected, meant)

    def _sought(self, word: str, *, last: bool) -> _Sought:
        known = self._live.having(word) > 0
        scores = self._scores(word) if known else np.zeros(len(self._allowed), dtype=np.float32)
        if last and self._live.begins(word):
            begun = self._live.scores(word, self._index_of_row, len(self._allowed), begins=True)
            scores, known = np.maximum(scores, BEGUN * begun), True
        return _Sought(word, scores, None if known else self._near(word))

    def _near(self, word: str) -> dict[str, Scores]:
        return {near: self._scores(near) for near in self._live.neighbours(word, MOST_NEIGHBOURS)}

    def _scores(self, word: str) -> Scores:
        return self._live.scores(word, self._index_of_row, len(self._allowed), begins=False)

    def _all_of(self, sought: Sequence[_Sought]) -> Scores:
        """float32[n]: the words' scores summed where every word has one."""
        total = np.zeros(len(self._allowed), dtype=np.float32)
        everywhere = self._allowed.copy() if sought else np.zeros_like(self._allowed)
        for one in sought:
            scores = one.with_near()
            everywhere &= scores > 0
            total += scores
        return np.where(everywhere, total, np.float32(0))

    def _fewer(self, sought: Sequence[_Sought]) -> tuple[Scores, Matched]:
        """The items with at least as many words as the one of the highest score has."""
        total = np.zeros(len(self._allowed), dtype=np.float32)
        count = np.zeros(len(self._allowed), dtype=np.int16)
        for one in sought:
            scores = one.with_near()
            count += scores > 0
            total += scores
        total[~self._allowed] = 0
        if not total.any():
            return total, Matched.NONE
        return np.where(count >= count[total.argmax()], total, np.float32(0)), Matched.SOME


def _corrected(sought: Sequence[_Sought], found: Scores) -> dict[str, str]:
    """The words that no hit has as typed, each with the one an edit away that most hits have."""
    hits = found > 0
    corrected = {}
    for one in sought:
        if one.near and not one.scores[hits].any():
            counts = {word: np.count_nonzero(scores[hits]) for word, scores in one.near.items()}
            most = max(counts, key=counts.__getitem__)
            if counts[most]:
                corrected[one.text] = most
    return corrected
