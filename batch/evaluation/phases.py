"""What is known and what is asked: rows in order as dense numbers and ages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int32]
Ages = NDArray[np.int64]

_SAMPLES: Final = 4
"""Which stream of a seed's random numbers draws samples; `batch.evaluation.split` has the others."""


@dataclass(frozen=True, slots=True)
class Known:
    """What sources may be fitted on and items counted from: n rows ordered by user, then oldest first.

    user, item: dense numbers; age_ms int64 > 0: how long before the phase's instant; session: equal numbers of one
    user are one session or basket.
    """

    user: Numbers
    item: Numbers
    age_ms: Ages
    session: Numbers

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True, slots=True)
class Queries:
    """q queries, each a history and what came next, as ragged arrays.

    user int32[q]: whose they are; history int32[h] items and age_ms int64[h], oldest first, those of query i at
    starts[i] to starts[i + 1] (int64[q + 1]); positives int32[p], by positive_starts alike.
    """

    user: Numbers
    history: Numbers
    age_ms: Ages
    starts: Ages
    positives: Numbers
    positive_starts: Ages

    def __len__(self) -> int:
        return len(self.user)

    def taken(self, chosen: NDArray[np.integer]) -> Queries:
        """Only these queries (int[k]), in this order."""
        rows, starts = _ragged(self.starts, chosen)
        positive_rows, positive_starts = _ragged(self.positive_starts, chosen)
        return Queries(
            self.user[chosen],
            self.history[rows],
            self.age_ms[rows],
            starts,
            self.positives[positive_rows],
            positive_starts,
        )

    def sampled(self, limit: int | None, seed: int) -> Queries:
        """At most `limit` of them, drawn without replacement, in their order."""
        if limit is None or len(self) <= limit:
            return self
        return self.taken(np.sort(self._shuffled(seed)[:limit]))

    def sampled_apart(self, limit: int, seed: int, others: int) -> Queries:
        """At most `limit` of them, none of which is among the `others` that `sampled` draws by this seed.

        Where that leaves fewer than `limit`, the rest come from among those after all.
        """
        shuffled = self._shuffled(seed)
        return self.taken(np.sort(np.roll(shuffled, -others)[:limit] if others < len(self) else shuffled[:limit]))

    def _shuffled(self, seed: int) -> Ages:
        # A stream of its own: drawn as users are numbered, a sample would be the first users of the file.
        return np.random.default_rng((seed, _SAMPLES)).permutation(len(self))


@dataclass(frozen=True, slots=True)
class Phase:
    """What is known and what is asked of it."""

    known: Known
    queries: Queries


@dataclass(frozen=True, slots=True)
class Split:
    """Label phase and test phase over `items` items and `users` users (or sessions) by dense numbers.

    `names` are the items' ids in the data, by number; they are for reading attributes and for nothing else.
    `masked` says that what a user has already is never right again.
    """

    label: Phase
    test: Phase
    users: int
    items: int
    names: tuple[str, ...]
    masked: bool


def run_starts(sorted_keys: NDArray[np.integer]) -> Ages:
    """int64[groups + 1]: where each group of equal keys begins, and the end."""
    if not len(sorted_keys):
        return np.zeros(1, np.int64)
    return np.concatenate([[0], np.flatnonzero(np.diff(sorted_keys)) + 1, [len(sorted_keys)]]).astype(np.int64)


def _ragged(starts: Ages, chosen: NDArray[np.integer]) -> tuple[Ages, Ages]:
    """The rows of the chosen groups, and the groups' new starts."""
    lengths = np.diff(starts)[chosen]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.arange(ends[-1]) - np.repeat(ends[:-1], lengths) + np.repeat(starts[:-1][chosen], lengths)
    return rows, ends
