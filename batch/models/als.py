"""Implicit ALS: item factors from weighted interactions (Hu, Koren, Volinsky: Collaborative Filtering for Implicit
Feedback Datasets, 2008), fitted by the `implicit` library.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import implicit.als
import implicit.gpu
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from batch.interactions import CART, PURCHASE, REMOVE_FROM_CART, VIEW

DAY_MS: Final = 24 * 3600 * 1000
_THREADS: Final = 2


@dataclass(frozen=True, slots=True)
class EventWeights:
    """What one event tells of taste when it is new, and after how many days half as much."""

    view: float = 1.0
    cart: float = 3.0
    remove_from_cart: float = -3.0
    purchase: float = 5.0
    half_life_days: float = 45.0


@dataclass(frozen=True, slots=True)
class ItemFactors:
    """Item factors Y, float32 [n_items, d], and what folding a user in needs besides them.

    With w the net weights of the items I of a user, her factor is the solution x of

        (Y'Y + regularization * E + Y_I' diag(alpha * w) Y_I) x = Y_I' (1 + alpha * w)

    that is, an item she touched has preference 1 at confidence 1 + alpha * w, any other preference 0 at confidence 1,
    and the regularization is not scaled by how many items there are.
    """

    factors: NDArray[np.float32]
    regularization: float
    alpha: float

    def gram(self) -> NDArray[np.float64]:
        """Y'Y, float64 [d, d]."""
        factors = self.factors.astype(np.float64)
        return np.asarray(factors.T @ factors)


def interaction_weights(
    event_type: NDArray[np.int8], at: NDArray[np.int64], now_at: int, weights: EventWeights | None = None
) -> NDArray[np.float32]:
    """What each event [n] tells of taste as of `now_at` (epoch ms): its type's weight, halved every half-life.

    `event_type` holds codes of `batch.interactions.BEHAVIOUR_TYPES`, `at` effective times; events after `now_at` count
    as new. A removal from the cart is negative and so takes back what the cart said.
    """
    weights = weights or EventWeights()
    by_code = np.zeros(4, dtype=np.float64)
    by_code[[VIEW, CART, REMOVE_FROM_CART, PURCHASE]] = (
        weights.view,
        weights.cart,
        weights.remove_from_cart,
        weights.purchase,
    )
    age_days = np.maximum(0, now_at - at) / DAY_MS
    return (by_code[event_type] * np.exp2(-age_days / weights.half_life_days)).astype(np.float32)


def net_weights(
    user: NDArray[np.int32], item: NDArray[np.int32], weight: NDArray[np.float32], users: int, items: int
) -> sparse.csr_matrix:
    """The sum of weights of each (user, item), float32 [users, items], without the pairs whose sum is not positive."""
    summed = sparse.coo_matrix((weight.astype(np.float64), (user, item)), shape=(users, items)).tocsr()
    summed.data[summed.data <= 0] = 0
    summed.eliminate_zeros()
    return sparse.csr_matrix(summed.astype(np.float32))


def fit_als(
    user: NDArray[np.int32],
    item: NDArray[np.int32],
    weight: NDArray[np.float32],
    users: int,
    items: int,
    *,
    factors: int = 64,
    iterations: int = 15,
    regularization: float = 1.0,
    alpha: float = 1.0,
    seed: int = 0,
) -> ItemFactors:
    """Item factors of the interactions (user [n], item [n], weight [n]); repeated pairs add up, see `net_weights`.

    Items nobody touched get factors of zero. The same seed gives the same bytes on a CPU whatever its threads; a GPU,
    used where `implicit` finds one, adds in another order.
    """
    weights = net_weights(user, item, weight, users, items)
    # implicit reads stored values as whole confidences and multiplies them by its own alpha; 1 + alpha * w never falls
    # below the confidence of what the user did not touch, however old the event.
    confidence = weights.copy()
    confidence.data = 1 + np.float32(alpha) * confidence.data
    with threadpool_limits(1, "blas"):
        model: Any = implicit.als.AlternatingLeastSquares(
            factors=factors,
            regularization=regularization,
            alpha=1.0,
            iterations=iterations,
            num_threads=_THREADS,
            random_state=seed,
            use_gpu=implicit.gpu.HAS_CUDA,
        )
        model.fit(confidence, show_progress=False)
    found = model.item_factors
    plain = np.asarray(found if isinstance(found, np.ndarray) else found.to_numpy(), dtype=np.float32)
    return ItemFactors(np.ascontiguousarray(plain), regularization, alpha)
