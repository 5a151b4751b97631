"""Item-item ridge regression: how much each item of a history speaks for each other item, all the rest being equal.

Exact form, for catalogues that fit: EASE (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019). With
X the users' weights, G = X'X and L a diagonal of penalties, B minimises |X - XB|^2 + sum_i L_i |B_i|^2 with a diagonal
of zeros: B_ij = -P_ij / P_jj for P = (G + L)^-1.

Local form, for larger ones: each target item j is regressed on its strongest neighbours N alone (fsSLIM: Ning and
Karypis, "SLIM: Sparse Linear Methods for Top-N Recommender Systems", ICDM 2011), that is b = (G_NN + L_N)^-1 G_Nj. With
all items as neighbours both forms are one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.linalg import blas, lapack

from batch.models.neighbour_lists import (
    NeighbourLists,
    prune_rows,
    tie_ranks,
    top_of_dense,
    top_of_triples,
)

MOST_EXACT_ITEMS: Final = 25_000
"""LAPACK's Cholesky was seen to crash at 30,000; the exact form is refused from here on."""
RESIDUAL_TOLERANCE: Final = 1e-6
"""How far (G + L) P may be from the identity, on random vectors of ones and minus ones."""
_PROBES: Final = 4
_BLOCK_ITEMS: Final = 256
_TARGETS_AT_ONCE: Final = 32


@dataclass(frozen=True, slots=True)
class LinearParams:
    """How the regression is fitted.

    regularization: the penalty of an item of mean squared weight; popularity_scaling: exponent by which an item's own
    penalty grows with its squared weight over the mean; user_length: exponent by which a user of many items counts
    less; weight_power: exponent of the weights (0: all count 1); longest_history: the most items of one user that are
    read, heaviest first, since work grows with their square; list_size: strongest targets kept of each source;
    exact_items: catalogues up to this size are solved exactly; neighbours, neighbour_popularity: how many sources a
    target has in the local form, and the exponent of the source's squared weight by which they are chosen.
    """

    regularization: float = 150.0
    popularity_scaling: float = 0.0
    user_length: float = 0.0
    weight_power: float = 0.5
    longest_history: int = 500
    list_size: int = 200
    exact_items: int = 6_000
    neighbours: int = 100
    neighbour_popularity: float = -0.25


def fit_linear(
    weights: sparse.csr_array,
    params: LinearParams | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> sparse.csr_array:
    """Scores [source item, target item], float32, all positive, of weights float32 [users, items] above 0.

    The exact form up to `exact_items` items, else, or where the exact one's inverse is not one, the local form.
    `progress` hears (targets done, targets). Raises ValueError on `exact_items` beyond `MOST_EXACT_ITEMS`.
    """
    params = params or LinearParams()
    items = weights.shape[1]
    gram, penalty = normal_equations(weights, params, seed)
    if items <= params.exact_items:
        try:
            return exact_linear(gram, penalty, params, seed)
        except InverseError as error:
            warnings.warn(f"{error}; the local form is fitted instead", RuntimeWarning, stacklevel=2)
    parts = []
    for start in range(0, items, _BLOCK_ITEMS):
        stop = min(start + _BLOCK_ITEMS, items)
        parts.append(local_targets(gram, penalty, start, stop, params, seed=seed))
        if progress is not None:
            progress(stop, items)
    return strongest_targets(parts, items, params, seed)


def normal_equations(
    weights: sparse.csr_array, params: LinearParams, seed: int
) -> tuple[sparse.csr_array, NDArray[np.float64]]:
    """The Gram matrix [items, items] of the users' rows as `params` weigh them, and each item's penalty, float64.

    Rows are scaled so that an entry's mean square is 1: the regularization then means the same in every shop. The Gram
    matrix is float64 where the exact form will read it, else float32.
    """
    rows = prune_rows(weights, params.longest_history, tie_ranks(weights.shape[1], seed))
    lengths = np.diff(rows.indptr)
    values = rows.data.astype(np.float64) ** params.weight_power
    values *= np.repeat(np.maximum(lengths, 1).astype(np.float64) ** (params.user_length / 2), lengths)
    values /= np.sqrt(np.mean(values**2)) if len(values) else 1.0
    scaled = sparse.csr_array((values, rows.indices, rows.indptr), shape=rows.shape)
    if weights.shape[1] > params.exact_items:
        scaled = sparse.csr_array(scaled.astype(np.float32))
    gram = sparse.csr_array(scaled.T @ scaled)
    gram.sort_indices()
    squared = gram.diagonal().astype(np.float64)
    mean = squared[squared > 0].mean() if np.any(squared > 0) else 0.0
    return gram, params.regularization * ((1 + squared) / (1 + mean)) ** params.popularity_scaling


def exact_linear(
    gram: sparse.csr_array, penalty: NDArray[np.float64], params: LinearParams, seed: int
) -> sparse.csr_array:
    """EASE of `normal_equations`, the `list_size` strongest positive targets of each source.

    Takes 8 bytes for each pair of items and about items^3 multiplications. Raises InverseError when the inverse is
    not one, ValueError beyond `MOST_EXACT_ITEMS` items.
    """
    items = len(penalty)
    if items > MOST_EXACT_ITEMS:
        raise ValueError(f"{items} items are too many to invert; set exact_items to {MOST_EXACT_ITEMS} at most.")
    lower = _inverse(gram, penalty)
    diagonal = np.diagonal(lower).copy()
    ties = tie_ranks(items, seed)
    parts = []
    for start in range(0, items, _BLOCK_ITEMS):
        stop = min(start + _BLOCK_ITEMS, items)
        square = np.tril(lower[start:stop, start:stop])
        square += np.tril(square, -1).T
        inverse = np.concatenate([lower[start:stop, :start], square, lower[stop:, start:stop].T], axis=1)
        scores = (-inverse / diagonal).astype(np.float32)
        scores[np.arange(stop - start), np.arange(start, stop)] = 0
        parts.append(top_of_dense(scores, params.list_size, ties))
    return _as_matrix(
        NeighbourLists(
            np.concatenate([part.indexes for part in parts]), np.concatenate([part.scores for part in parts])
        ),
        items,
    )


@dataclass(frozen=True, slots=True)
class TargetColumns:
    """What speaks for targets from `start` on: int32[b, m] source items (-1 pads) and their float32[b, m] scores."""

    start: int
    sources: NDArray[np.int32]
    scores: NDArray[np.float32]


def local_targets(
    gram: sparse.csr_array,
    penalty: NDArray[np.float64],
    start: int,
    stop: int,
    params: LinearParams,
    *,
    seed: int,
) -> TargetColumns:
    """The local form for the targets from `start` to `stop` (exclusive); any slicing gives the same scores."""
    near = _neighbours(gram, start, stop, params, seed)
    sources = np.full((stop - start, params.neighbours), -1, np.int32)
    scores = np.zeros(sources.shape, np.float32)
    for first in range(0, stop - start, _TARGETS_AT_ONCE):
        rows = range(first, min(first + _TARGETS_AT_ONCE, stop - start))
        # One dense square of all that these targets' neighbours met: cutting each its own costs three times as much.
        members = np.union1d(near.indices[near.indptr[first] : near.indptr[rows.stop]], np.add(rows, start))
        met = gram[members][:, members].toarray().astype(np.float64)
        for row in rows:
            chosen = near.indices[near.indptr[row] : near.indptr[row + 1]]
            if not len(chosen):
                continue
            places = np.searchsorted(members, chosen)
            left = met[np.ix_(places, places)]
            left[np.diag_indices_from(left)] += penalty[chosen]
            right = met[places, np.searchsorted(members, row + start)]
            sources[row, : len(chosen)] = chosen
            scores[row, : len(chosen)] = linalg.solve(left, right, assume_a="pos", check_finite=False)
    return TargetColumns(start, sources, scores)


def strongest_targets(parts: Sequence[TargetColumns], items: int, params: LinearParams, seed: int) -> sparse.csr_array:
    """The `list_size` best positive targets of each source, float32 [items, items], of the slices of all targets."""
    rows, columns, values = [], [], []
    for part in parts:
        place = np.nonzero(part.scores > 0)
        rows.append(part.sources[place])
        columns.append((place[0] + part.start).astype(np.int32))
        values.append(part.scores[place])
    top = top_of_triples(
        np.concatenate([np.empty(0, np.int32), *rows]),
        np.concatenate([np.empty(0, np.int32), *columns]),
        np.concatenate([np.empty(0, np.float32), *values]),
        row_count=items,
        k=params.list_size,
        ties=tie_ranks(items, seed),
    )
    return _as_matrix(top, items)


class InverseError(ArithmeticError):
    """The inverse of a large matrix is not one, so nothing may be read from it."""


def _inverse(gram: sparse.csr_array, penalty: NDArray[np.float64]) -> NDArray[np.float64]:
    """(G + L)^-1, its lower triangle alone, checked; raises InverseError."""
    regularized = sparse.csr_array(gram + sparse.diags_array(penalty)).astype(np.float64)
    dense = np.asfortranarray(regularized.toarray())
    factor, failed = lapack.dpotrf(dense, lower=1, overwrite_a=1, clean=0)
    if failed:
        raise InverseError(f"the Gram matrix of {len(penalty)} items has no Cholesky factor ({failed})")
    inverse, failed = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise InverseError(f"the Cholesky factor of {len(penalty)} items has no inverse ({failed})")
    residual = inverse_residual(regularized, inverse)
    if not residual <= RESIDUAL_TOLERANCE:
        raise InverseError(f"the inverse of {len(penalty)} items is off by {residual:.1e}")
    return np.asarray(inverse)


def inverse_residual(matrix: sparse.csr_array, lower: NDArray[np.float64]) -> float:
    """The largest entry of M P z - z for random z of ones and minus ones; only P's lower triangle is read."""
    probes = np.where(np.random.default_rng(0).random((len(lower), _PROBES)) < 0.5, -1.0, 1.0)
    product = blas.dsymm(1.0, lower, probes, lower=1)
    return float(np.abs(matrix @ product - probes).max(initial=0))


def _neighbours(gram: sparse.csr_array, start: int, stop: int, params: LinearParams, seed: int) -> sparse.csr_array:
    """[targets, items]: the sources that met each target most."""
    rows = gram[start:stop]
    squared = np.maximum(gram.diagonal().astype(np.float64), np.finfo(np.float32).tiny)
    strength = rows.data * squared[rows.indices] ** params.neighbour_popularity
    strength[rows.indices == np.repeat(np.arange(start, stop), np.diff(rows.indptr))] = 0
    met = sparse.csr_array((strength, rows.indices, rows.indptr), shape=rows.shape)
    met.eliminate_zeros()
    return prune_rows(met, params.neighbours, tie_ranks(gram.shape[0], seed))


def _as_matrix(lists: NeighbourLists, items: int) -> sparse.csr_array:
    kept = lists.indexes >= 0
    indptr = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    matrix = sparse.csr_array((lists.scores[kept], lists.indexes[kept], indptr), shape=(items, items))
    matrix.sort_indices()
    return matrix
