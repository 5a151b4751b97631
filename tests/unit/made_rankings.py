"""Pages whose true order is known, in the full feature matrix: what rankers are tried on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batch.models.ranking_rows import RankingRows
from shared.features.vector import SCHEMA

SIGNAL, RANKED = "retrieval_cooccurrence_score", "retrieval_cooccurrence_reciprocal_rank"
PAIR = "pair_category_affinity_14d"
CARRIED = 15


def column(name: str) -> int:
    """Where a feature stands in the matrix."""
    return SCHEMA.names.index(name)


def made_rankings(pages: int, seed: int, *, size: int = 20) -> tuple[RankingRows, NDArray[np.float64]]:
    """Rows in which one candidate a page is bought by a truth, float64[n], that stands in three columns.

    All other columns are noise on a grid, so that rows sit on thresholds; a user has three pages in turn.
    """
    rng = np.random.default_rng(seed)
    rows = pages * size
    features = rng.integers(0, 6, size=(rows, len(SCHEMA.names))).astype(np.float32) / np.float32(4)
    signal = rng.random((pages, size)).astype(np.float32)
    affinity = rng.choice(np.array([0.0, 0.1, 0.5], np.float32), size=(pages, size))
    place = np.argsort(np.argsort(-signal, axis=1), axis=1) + 1
    features[:, column(SIGNAL)] = signal.ravel()
    features[:, column(RANKED)] = np.where(place <= CARRIED, 1 / place, 0).ravel()
    features[:, column(PAIR)] = affinity.ravel()
    truth = 4.0 * signal + 3.0 * affinity
    bought = (truth + 0.7 * rng.gumbel(size=truth.shape)).argmax(axis=1)
    labels = np.zeros((pages, size), np.int64)
    labels[np.arange(pages), bought] = 3
    users = 1000 * seed + np.arange(pages) // 3
    return RankingRows(features, labels.ravel(), np.full(pages, size), users), truth.ravel().astype(np.float64)
