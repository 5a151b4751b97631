"""Rows to learn a ranking from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.errors import ConfigurationError

_ROWS_AT_ONCE: Final = 65_536


@dataclass(frozen=True, slots=True)
class RankingRows:
    """Rows to rank: features float32 [n, F], labels [n] (integers from 0), groups [q] (rows of each query in turn).

    `users` [q] says whose query it is (None: each somebody else's); `weights` float64 [n] how often a positive row's
    gain counts (None: once each).
    """

    features: NDArray[np.float32]
    labels: NDArray[np.integer]
    groups: NDArray[np.integer]
    users: NDArray[np.integer] | None = None
    weights: NDArray[np.float64] | None = None

    def checked(self) -> RankingRows:
        """Itself; raises ConfigurationError when the sizes do not go together or the features are not float32."""
        rows = len(self.features)
        if self.features.ndim != 2 or self.features.dtype != np.float32:
            raise ConfigurationError(f"The ranker takes float32 features [n, F], not {self.features.dtype}.")
        if len(self.labels) != rows or int(self.groups.sum()) != rows:
            raise ConfigurationError(
                f"{rows} rows of features, {len(self.labels)} labels and groups of {int(self.groups.sum())} rows "
                "do not go together."
            )
        if len(self.groups) and int(self.groups.min()) < 1:
            raise ConfigurationError("A group without rows has nothing to rank; leave it out.")
        if self.users is not None and len(self.users) != len(self.groups):
            raise ConfigurationError(f"{len(self.groups)} groups of {len(self.users)} users do not go together.")
        if self.weights is not None and len(self.weights) != rows:
            raise ConfigurationError(f"{rows} rows and {len(self.weights)} weights do not go together.")
        return self

    def of_pages(self, chosen: NDArray[np.bool_]) -> RankingRows:
        """The chosen pages (bool[q]) alone."""
        rows = np.repeat(chosen, self.groups)
        return RankingRows(
            self.features[rows],
            self.labels[rows],
            self.groups[chosen],
            None if self.users is None else self.users[chosen],
            None if self.weights is None else self.weights[rows],
        )


def joined(first: RankingRows, second: RankingRows) -> RankingRows:
    """The rows of both; users are told apart within each, and those of the second are nobody of the first."""
    both = (first, second)
    users = [np.arange(len(one.groups)) if one.users is None else one.users for one in both]
    users[1] = users[1] + int(users[0].max(initial=-1)) + 1
    weights = [np.ones(len(one.labels)) if one.weights is None else one.weights for one in both]
    return RankingRows(
        np.vstack([one.features for one in both]),
        np.concatenate([one.labels for one in both]),
        np.concatenate([one.groups for one in both]),
        np.concatenate(users),
        np.concatenate(weights),
    ).checked()


def tie_order(rows: RankingRows) -> NDArray[np.int64]:
    """int64[n]: the rows, page by page, each page's in an order that only their features and labels decide.

    What learns from the order of tied rows would otherwise learn the order of ids, by which candidates come.
    """
    keys = np.random.default_rng(0).integers(0, 2**63, size=rows.features.shape[1], dtype=np.uint64) * np.uint64(2)
    keys += np.uint64(1)
    digest = np.empty(len(rows.features), np.uint64)
    for first in range(0, len(digest), _ROWS_AT_ONCE):
        values = np.ascontiguousarray(rows.features[first : first + _ROWS_AT_ONCE]).view(np.uint32)
        digest[first : first + len(values)] = (values * keys).sum(axis=1, dtype=np.uint64)
    page = np.repeat(np.arange(len(rows.groups)), rows.groups)
    return np.lexsort((rows.labels, digest, page))


def starts_of(groups: NDArray[np.integer]) -> NDArray[np.int64]:
    """int64[q]: the first row of each group."""
    return np.cumsum(groups, dtype=np.int64) - groups


def page_gains(rows: RankingRows, label_gain: Sequence[float]) -> NDArray[np.float64]:
    """float64[n]: the gain of each row's label times its weight; raises ConfigurationError on a label without gain."""
    if len(rows.labels) and int(rows.labels.max()) >= len(label_gain):
        raise ConfigurationError(f"label {int(rows.labels.max())} has no gain among {list(label_gain)}")
    gains: NDArray[np.float64] = np.asarray(label_gain, dtype=np.float64)[rows.labels]
    return gains if rows.weights is None else gains * rows.weights
