"""Pages of the past, collected as rows to learn from and to be judged by."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.candidates.merge import CandidateSet
from shared.candidates.ranked import Indexes
from shared.events import ItemId, UserId
from shared.features.vector import Matrix
from shared.ranking.page_table import PageTable
from shared.recommend import stranger_scores

BASELINE_LENGTH: Final = 20


@dataclass(frozen=True, slots=True)
class Instant:
    """Just before an event of a session; `as_of` in epoch ms, one less than the event's enqueued_at.

    `labels` grades what the rest of the session touched, `positives` are the items of it that count as hits,
    `at_start` says that the event is the session's first. `device` and `surface` are those of the event's context.
    """

    as_of: int
    user_id: UserId
    labels: Mapping[ItemId, int]
    positives: frozenset[ItemId]
    at_start: bool
    device: str | None = None
    surface: str | None = None


@dataclass
class PageRows:
    """Collects pages and becomes a `PageTable`."""

    index_of: dict[str, int]
    negatives: int | None
    seed: int = 0
    users: dict[str, int] = field(default_factory=dict)
    """Numbers of users from 0; whoever is not in there gets the next."""
    _columns: dict[str, list[Any]] = field(default_factory=dict)
    _pages: int = 0

    def add(
        self,
        instant: Instant,
        candidates: CandidateSet,
        features: Matrix,
        category: NDArray[np.int64],
        *,
        history: Indexes,
        sessions_before: int,
        touched: AbstractSet[str],
        frequent: list[int],
    ) -> None:
        """One page of a user whose distinct items are `history` (int32[m] indexes).

        Where `negatives` is set, positives and that many of the other candidates are kept.
        """
        grades = np.zeros(len(candidates.indexes), dtype=np.int8)
        for item, grade in instant.labels.items():
            grades[candidates.indexes == self.index_of.get(item, -1)] = grade
        positives = sorted(instant.positives)
        wanted = [self.index_of.get(item, -1) for item in positives]
        kept = self._kept(grades)
        self._pages += 1
        page: dict[str, Any] = {
            "features": features[kept],
            "index": candidates.indexes[kept],
            "label": grades[kept],
            "positive": np.isin(candidates.indexes[kept], wanted),
            "ranks": candidates.retrieval.ranks[kept],
            "popularity": stranger_scores(candidates.retrieval)[kept],
            "category": category[kept],
            "seen": np.isin(candidates.indexes[kept], history),
            "stranger": np.bool_(not len(history)),
            "history": np.int32(len(history)),
            "length": np.int32(len(kept)),
            "candidates": np.int32(len(grades)),
            "user": np.int32(self.users.setdefault(instant.user_id, len(self.users))),
            "as_of": np.int64(instant.as_of),
            "at_start": np.bool_(instant.at_start),
            "sessions_before": np.int32(sessions_before),
            "positives": np.int32(len(wanted)),
            "positive_items": np.array(wanted, dtype=np.int32),
            "touched": np.array([item in touched for item in positives], dtype=np.bool_),
            "frequent": np.array((frequent + [-1] * BASELINE_LENGTH)[:BASELINE_LENGTH], dtype=np.int32),
        }
        for name, value in page.items():
            self._columns.setdefault(name, []).append(value)

    def table(self) -> PageTable:
        """All pages so far; raises ValueError when there is none."""
        if not self._columns:
            raise ValueError("no page was added")
        joined = {
            "length",
            "candidates",
            "stranger",
            "history",
            "user",
            "as_of",
            "at_start",
            "sessions_before",
            "positives",
            "frequent",
        }
        return PageTable(
            **{
                name: np.stack(values) if name in joined else np.concatenate(values)
                for name, values in self._columns.items()
            }
        )

    def _kept(self, grades: NDArray[np.int8]) -> NDArray[np.int64]:
        if self.negatives is None or len(grades) <= self.negatives:
            return np.arange(len(grades))
        generator = np.random.default_rng((self.seed, self._pages))
        others = np.flatnonzero(grades == 0)
        drawn = generator.choice(others, size=min(self.negatives, len(others)), replace=False)
        return np.sort(np.concatenate([np.flatnonzero(grades > 0), drawn]))
