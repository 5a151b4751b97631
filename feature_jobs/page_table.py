"""Pages as training rows: what retrieval and features said at each instant, kept as arrays."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feature_jobs.instants import Instant
from shared.candidates.merge import CandidateSet
from shared.features.vector import Matrix
from shared.recommend import stranger_scores

BASELINE_LENGTH: Final = 20


@dataclass(frozen=True, slots=True)
class PageTable:
    """q queries with n candidate rows in all.

    features float32[n, F]; index int32[n] item; label int8[n] grade 0 to 3; positive bool[n]; ranks int16[n, S] by
    source; popularity float32[n] score of the popular source; category int64[n]; stranger bool[q]: no history;
    length int32[q] rows of each query; user int32[q]; as_of int64[q]; at_start bool[q];
    sessions_before int32[q] earlier sessions of the user; positives int32[q] hits there are to be found;
    positive_items int32[sum(positives)] what they are (-1: an item retrieval could not know); touched bool of the same
    length: the user had acted on it before; frequent int32[q, 20] her most bought items (-1 pads).
    """

    features: Matrix
    index: NDArray[np.int32]
    label: NDArray[np.int8]
    positive: NDArray[np.bool_]
    ranks: NDArray[np.int16]
    popularity: NDArray[np.float32]
    category: NDArray[np.int64]
    stranger: NDArray[np.bool_]
    length: NDArray[np.int32]
    user: NDArray[np.int32]
    as_of: NDArray[np.int64]
    at_start: NDArray[np.bool_]
    sessions_before: NDArray[np.int32]
    positives: NDArray[np.int32]
    positive_items: NDArray[np.int32]
    touched: NDArray[np.bool_]
    frequent: NDArray[np.int32]

    def save(self, folder: Path) -> None:
        """One .npy file a column."""
        folder.mkdir(parents=True)
        for one in fields(self):
            np.save(folder / f"{one.name}.npy", getattr(self, one.name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> PageTable:
        """The inverse of `save`, memory-mapped."""
        return cls(**{one.name: np.load(folder / f"{one.name}.npy", mmap_mode="r") for one in fields(cls)})


@dataclass
class PageRows:
    """Collects pages and becomes a `PageTable`."""

    index_of: dict[str, int]
    negatives: int | None
    seed: int = 0
    _columns: dict[str, list[Any]] = field(default_factory=dict)
    _users: dict[str, int] = field(default_factory=dict)
    _pages: int = 0

    def add(
        self,
        instant: Instant,
        candidates: CandidateSet,
        features: Matrix,
        category: NDArray[np.int64],
        *,
        stranger: bool,
        sessions_before: int,
        touched: AbstractSet[str],
        frequent: list[int],
    ) -> None:
        """One page; where `negatives` is set, positives and that many of the other candidates are kept."""
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
            "stranger": np.bool_(stranger),
            "length": np.int32(len(kept)),
            "user": np.int32(self._users.setdefault(instant.user_id, len(self._users))),
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
        joined = {"length", "stranger", "user", "as_of", "at_start", "sessions_before", "positives", "frequent"}
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
