"""All that a source says about a query: whom it puts forward, and how it scores those that others put forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.candidates.ranked import Indexes, Ranked, Scores


class Opinion(Protocol):
    """A source's answer to one query."""

    def top(self, limit: int) -> Ranked:
        """At most `limit` items that the source puts forward, all eligible, best first, ties by index."""
        ...

    def at(self, candidates: Indexes) -> Scores:
        """float32[c] >= 0: its scores of these items, whoever put them forward; 0 where it has nothing to say."""
        ...


@dataclass(frozen=True, slots=True)
class Listed:
    """An opinion about m items: int32[m] indexes ascending, scores above 0, and which it may put forward (bool[m]).

    `seeds_of` names the history item behind each of some items (int32[k] to int32[k], -1: none).
    """

    indexes: Indexes
    scores: NDArray[np.floating]
    carried: NDArray[np.bool_]
    seeds_of: Callable[[Indexes], Indexes] | None = None

    @classmethod
    def nothing(cls) -> Listed:
        """The source has nothing to say."""
        return cls(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.bool_))

    @classmethod
    def of(
        cls,
        indexes: Indexes,
        scores: NDArray[np.floating],
        eligible: NDArray[np.bool_],
        seeds_of: Callable[[Indexes], Indexes] | None = None,
    ) -> Listed:
        """Distinct items in any order; those that are eligible (bool[n_items]) are put forward."""
        order = np.argsort(indexes)
        indexes = indexes[order].astype(np.int32)
        return cls(indexes, scores[order], eligible[indexes], seeds_of)

    def top(self, limit: int) -> Ranked:
        """See `Opinion`."""
        ranked = Ranked.top(self.indexes[self.carried], self.scores[self.carried], limit)
        if self.seeds_of is None or not len(ranked.indexes):
            return ranked
        return Ranked(ranked.indexes, ranked.scores, self.seeds_of(ranked.indexes))

    def at(self, candidates: Indexes) -> Scores:
        """See `Opinion`."""
        if not len(self.indexes):
            return np.zeros(len(candidates), np.float32)
        places = np.minimum(np.searchsorted(self.indexes, candidates), len(self.indexes) - 1)
        found = self.indexes[places] == candidates
        return np.where(found, self.scores[places], 0).astype(np.float32)
