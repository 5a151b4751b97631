"""Item factors by a low-pass filter of the graph of users and items: the leading singular vectors of its weights.

With R the users' weights, D their sums by user and by item, and D_user^a R D_item^b = U S V', a history h is filtered
to h V V' (Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021; without the exponents it is
PureSVD, Cremonesi, Koren, Turrin, RecSys 2010). So the rows of V, or of V S^c, are item factors, and a user's factor is
the weighted sum of her items' rows: `ItemFactors` with `projection`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

_SPARE_VECTORS: Final = 16
_USERS_AT_ONCE: Final = 65_536


@dataclass(frozen=True, slots=True)
class SpectralParams:
    """user_length, popularity: the exponents a and b, mostly below 0, of sums of weights to the power `weight_power`.

    strength: exponent of its singular value, over the greatest, by which a vector counts (0: all alike);
    target_popularity: exponent of an item's sum by which its factor is scaled; length_power: exponent of its factor's
    length by which an item of the history counts in a user's factor. Filters that take popular items down on the way in
    and not on the way out have them near 0.1 and -1 (compare GF-CF, the filter of Shen et al.).
    """

    user_length: float = -0.25
    popularity: float = -0.3
    strength: float = 0.4
    target_popularity: float = 0.0
    length_power: float = 0.0
    weight_power: float = 0.5
    iterations: int = 6


def leading_vectors(
    matrix: sparse.csr_array, count: int, *, iterations: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The `count` leading right singular vectors of [users, items], float32 [items, count], and their singular values.

    By subspace iteration from a seeded start (Halko, Martinsson, Tropp, "Finding Structure with Randomness", SIAM
    Review 2011, algorithm 4.4); users pass in blocks, so that memory grows with items x count. A matrix of smaller rank
    or size gets columns of zeros and values of 0 for what it lacks.
    """
    items = matrix.shape[1]
    width = min(count + _SPARE_VECTORS, items)
    basis = np.random.default_rng(seed).standard_normal((items, width)).astype(np.float32)
    for _ in range(iterations):
        basis = linalg.qr(_there_and_back(matrix, basis), mode="economic", check_finite=False)[0]
    strengths, turns = linalg.eigh(basis.T @ _there_and_back(matrix, basis))
    leading = np.argsort(-strengths)[:count]
    leading = leading[strengths[leading] > strengths.max(initial=0) * np.finfo(np.float32).eps * width]
    found = np.zeros((items, count), dtype=np.float32)
    found[:, : len(leading)] = basis @ turns[:, leading]
    values = np.zeros(count, dtype=np.float32)
    values[: len(leading)] = np.sqrt(strengths[leading])
    return found, values


def fit_spectral(
    weights: sparse.csr_array, count: int, params: SpectralParams | None = None, *, seed: int = 0
) -> NDArray[np.float32]:
    """Factors float32 [items, count] of weights [users, items] above 0, scaled to a mean length of 1.

    An item nobody touched gets a factor of zero.
    """
    params = params or SpectralParams()
    values = weights.data.astype(np.float64) ** params.weight_power
    powered = sparse.csr_array((values, weights.indices, weights.indptr), shape=weights.shape)
    by_user = np.asarray(powered.sum(axis=1), dtype=np.float64)
    by_item = np.asarray(powered.sum(axis=0), dtype=np.float64)
    scale = np.repeat(np.where(by_user > 0, by_user, 1.0) ** params.user_length, np.diff(weights.indptr))
    scale *= np.where(by_item > 0, by_item, 1.0)[weights.indices] ** params.popularity
    scaled = sparse.csr_array(
        ((values * scale).astype(np.float32), weights.indices, weights.indptr), shape=weights.shape
    )
    vectors, strengths = leading_vectors(scaled, count, iterations=params.iterations, seed=seed)
    vectors *= (strengths / max(float(strengths.max(initial=0)), 1e-12)) ** np.float32(params.strength)
    onto = np.where(by_item > 0, by_item, 1.0) ** params.target_popularity
    vectors *= np.where(by_item > 0, onto, 0.0).astype(np.float32)[:, np.newaxis]
    lengths = np.linalg.norm(vectors, axis=1)
    return np.asarray(vectors / max(float(lengths.sum()) / max(int((lengths > 0).sum()), 1), 1e-12), dtype=np.float32)


def _there_and_back(matrix: sparse.csr_array, basis: NDArray[np.float32]) -> NDArray[np.float32]:
    """M'M basis, float32 [items, width]."""
    total = np.zeros(basis.shape, dtype=np.float32)
    for start in range(0, matrix.shape[0], _USERS_AT_ONCE):
        block = matrix[start : start + _USERS_AT_ONCE]
        total += block.T @ (block @ basis)
    return total
