"""Two-step random walk: from an item to the users who have it and on to what else they have, as a linear filter.

S = D_item^-a R' D_user^-b R D_item^-c with R the users' items. a = b = 1, c = 0 is the plain walk P3 (Cooper, Lee,
Radinsky, Siantos: Random Walks in Recommender Systems, WWW 2014), c > 0 takes the popular targets down (RP3beta,
Paudel, Christoffel, Newell, Bernstein: Updatable, Accurate, Diverse, and Scalable Recommendations, TiiS 2016), and
a = c = b / 2 a symmetric graph filter (Shen et al.: How Powerful is Graph Convolution for Recommendation, CIKM 2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from batch.models.neighbour_lists import multiply_in_blocks, on_diagonal, prune_rows, tie_ranks, without_own


@dataclass(frozen=True, slots=True)
class WalkParams:
    """How a walk is weighted; tune them for a shop.

    source_popularity, user_length, target_popularity: exponents of an item's users and a user's items, mostly below 0;
    weight_power: exponent of the interaction weights (0: all count alike); self_weight: factor of the walk that comes
    back to where it began; second: share of two walks in a row (may be below 0: what is only near by way of others
    counts against), each cut to `second_width` before; longest: items of a user that take part; width: targets kept.
    """

    source_popularity: float = -0.5
    user_length: float = -0.75
    target_popularity: float = -0.35
    weight_power: float = 0.0
    self_weight: float = 1.0
    second: float = 0.0
    second_width: int = 50
    longest: int = 300
    width: int = 400


def fit_walk(weights: sparse.csr_array, params: WalkParams | None = None, *, seed: int = 0) -> sparse.csr_array:
    """Scores [source item, target item], float32, of positive `weights` [users, items]; the diagonal is the way back.

    At most `width` targets an item are kept, all above 0. Time grows with the sum of the users' squared lengths, each
    at most `longest`: of a longer user the heaviest items take part, equal ones in a seeded order.
    """
    params = params or WalkParams()
    ties = tie_ranks(weights.shape[1], seed)
    onward = prune_rows(weights, params.longest, ties).astype(np.float64)
    onward.data **= params.weight_power
    length, popularity = (np.where(sums > 0, sums, 1.0) for sums in (onward.sum(axis=1), onward.sum(axis=0)))
    back = sparse.csr_array(onward.T)
    back.data *= np.repeat(popularity**params.source_popularity, np.diff(back.indptr))
    onward.data *= np.repeat(length**params.user_length, np.diff(onward.indptr))
    onward.data *= popularity[onward.indices] ** params.target_popularity
    once = multiply_in_blocks(back, onward, lambda block, _start: prune_rows(block, params.width, ties))
    once.data[on_diagonal(once)] *= np.float32(params.self_weight)
    once.eliminate_zeros()
    return once if not params.second else _with_second(once, params, ties)


def _with_second(once: sparse.csr_array, params: WalkParams, ties: NDArray[np.int32]) -> sparse.csr_array:
    """`once` plus the share of two walks in a row, whose mean row sums to as much as that of one."""
    step = prune_rows(without_own(once.copy()), params.second_width, ties)
    share = params.second / max(float(step.sum(axis=1).mean()), 1e-12)

    def both(block: sparse.csr_array, start: int) -> sparse.csr_array:
        blended = sparse.csr_array(once[start : start + block.shape[0]] + share * block)
        blended.data = np.maximum(blended.data, 0)
        blended.eliminate_zeros()
        return prune_rows(blended, params.width, ties)

    return multiply_in_blocks(step, step, both)
