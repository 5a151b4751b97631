"""Implicit ALS: item factors from weighted interactions, fitted by the `implicit` library.

Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM 2008). With c = alpha * w, w the net
weights of the items I a user touched and Y the item factors, her factor is the solution x of

    (Y'Y + Y_I' diag(c - 1) Y_I + regularization * E) x = Y_I' c

that is: preference 1 at confidence c for what she touched, preference 0 at confidence 1 for all the rest, and a
regularization that does not grow with the number of items. `shared.candidates.als` solves the same equations to fold a
history in.
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

from batch.interactions import BEHAVIOUR_TYPES
from shared.candidates.als import ItemFactors
from shared.events import EventType
from shared.features.views import ACTION_WEIGHT

DAY_MS: Final = 24 * 3600 * 1000
_THREADS: Final = 2
_EVENT_WEIGHTS: Final = np.array(
    [{**ACTION_WEIGHT, EventType.REMOVE_FROM_CART: -ACTION_WEIGHT[EventType.CART]}[kind] for kind in BEHAVIOUR_TYPES]
)


@dataclass(frozen=True, slots=True)
class AlsParams:
    """How ALS is fitted, see the equation above; `half_life_days` is for `interaction_weights`."""

    factors: int = 64
    iterations: int = 15
    regularization: float = 10.0
    alpha: float = 3.0
    half_life_days: float = 45.0


def interaction_weights(
    event_type: NDArray[np.int8], at: NDArray[np.int64], now_at: int, *, half_life_days: float = 45.0
) -> NDArray[np.float32]:
    """What each event [n] tells of taste as of `now_at` (epoch ms): `ACTION_WEIGHT`, halved every half-life.

    `event_type` holds codes of `batch.interactions.BEHAVIOUR_TYPES`, `at` effective times; events after `now_at` count
    as new. A removal from the cart is negative and so takes back what the cart said.
    """
    age_days = np.maximum(0, now_at - at) / DAY_MS
    return np.asarray(_EVENT_WEIGHTS[event_type] * np.exp2(-age_days / half_life_days), dtype=np.float32)


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
    regularization: float = 10.0,
    alpha: float = 3.0,
    seed: int = 0,
) -> ItemFactors:
    """Item factors of the interactions (user [n], item [n], weight [n]); repeated pairs add up, see `net_weights`.

    Items nobody touched get factors of zero. The same seed gives the same bytes on a CPU whatever its threads; a GPU,
    used where `implicit` finds one, adds in another order.
    """
    weights = net_weights(user, item, weight, users, items)
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
        # Scaled here: implicit's GPU model takes alpha and forgets it.
        model.fit(weights * np.float32(alpha), show_progress=False)
    found = model.item_factors
    plain = np.asarray(found if isinstance(found, np.ndarray) else found.to_numpy(), dtype=np.float32)
    return ItemFactors.of(np.ascontiguousarray(plain), regularization, alpha)
