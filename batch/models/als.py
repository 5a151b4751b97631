"""Implicit ALS: item factors from weighted interactions, fitted by the `implicit` library.

Hu, Koren, Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM 2008). With c = alpha * w, w the net
weights of the items I a user touched and Y the item factors, her factor is the solution x of

    (Y'Y + Y_I' diag(c - 1) Y_I + regularization * E) x = Y_I' c

that is: preference 1 at confidence c for what she touched, preference 0 at confidence 1 for all the rest, and a
regularization that grows with the number of her items only where `frequency_scaling` says so. `shared.candidates.als`
solves the same equations to fold a history in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import implicit.als
import implicit.gpu
import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from batch.interactions import BEHAVIOUR_TYPES
from batch.models.spectral import SpectralParams, fit_spectral
from shared.candidates.als import ItemFactors
from shared.events import EventType
from shared.features.views import ACTION_WEIGHT

DAY_MS: Final = 24 * 3600 * 1000
_THREADS: Final = 2
_LENGTH_RATIO: Final = 1.25
_EVENT_WEIGHTS: Final = np.array(
    [{**ACTION_WEIGHT, EventType.REMOVE_FROM_CART: -ACTION_WEIGHT[EventType.CART]}[kind] for kind in BEHAVIOUR_TYPES]
)


@dataclass(frozen=True, slots=True)
class AlsParams:
    """How ALS is fitted, see the equation above; `half_life_days` is for `interaction_weights`.

    frequency_scaling: exponent nu by which a row's regularization grows with its n entries, to regularization
    * (1 + n)^nu (Rendle, Krichene, Zhang, Koren: Revisiting the Performance of iALS on Item Recommendation Benchmarks,
    RecSys 2022). Rows are solved in groups whose lengths differ by a quarter at most, each with its mean.

    factor_model: "spectral" fits the same factors by `batch.models.spectral` with `spectral`; of the rest it reads
    `factors` and `half_life_days` alone.
    """

    factors: int = 64
    iterations: int = 15
    regularization: float = 10.0
    alpha: float = 3.0
    frequency_scaling: float = 0.0
    half_life_days: float = 45.0
    factor_model: Literal["als", "spectral"] = "als"
    spectral: SpectralParams = field(default_factory=SpectralParams)


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


def fit_als(weights: sparse.csr_array, params: AlsParams | None = None, *, seed: int = 0) -> ItemFactors:
    """Item factors of net weights above 0, float32 [users, items].

    Items nobody touched get factors of zero. The same seed gives the same bytes on a CPU whatever its threads; a GPU,
    used where `implicit` finds one and every row has one regularization, adds in another order.
    """
    params = params or AlsParams()
    if params.factor_model == "spectral":
        return _spectral(weights, params, seed)
    # Scaled here: implicit's GPU model takes alpha and forgets it.
    confidence = sparse.csr_matrix(weights * np.float32(params.alpha), dtype=np.float32)
    with threadpool_limits(1, "blas"):
        found = _alternate(confidence, params, seed) if params.frequency_scaling else _plain(confidence, params, seed)
    factors = np.ascontiguousarray(found, dtype=np.float32)
    told = {name: getattr(params, name) for name in ("regularization", "alpha", "frequency_scaling")}
    return ItemFactors.from_params(factors, told)


def _spectral(weights: sparse.csr_array, params: AlsParams, seed: int) -> ItemFactors:
    factors = fit_spectral(weights, params.factors, params.spectral, seed=seed)
    told = {"regularization": 0.0, "alpha": 1.0, "projection": 1.0, "length_power": params.spectral.length_power}
    return ItemFactors.from_params(factors, told)


def _plain(confidence: sparse.csr_matrix, params: AlsParams, seed: int) -> NDArray[np.float32]:
    model: Any = implicit.als.AlternatingLeastSquares(
        factors=params.factors,
        regularization=params.regularization,
        alpha=1.0,
        iterations=params.iterations,
        num_threads=_THREADS,
        random_state=seed,
        use_gpu=implicit.gpu.HAS_CUDA,
    )
    model.fit(confidence, show_progress=False)
    found = model.item_factors
    return np.asarray(found if isinstance(found, np.ndarray) else found.to_numpy())


def _alternate(confidence: sparse.csr_matrix, params: AlsParams, seed: int) -> NDArray[np.float32]:
    """As `_plain`, with `implicit`'s solver called once for each group of rows of about one length."""
    solve = AlternatingLeastSquares(factors=params.factors, num_threads=_THREADS).solver
    random = np.random.RandomState(seed)
    users, items = (
        np.asarray(random.random_sample((rows, params.factors)) * 0.01, dtype=np.float32) for rows in confidence.shape
    )
    users[confidence.getnnz(axis=1) == 0] = 0
    items[confidence.getnnz(axis=0) == 0] = 0
    by_user, by_item = _groups(confidence, params), _groups(sparse.csr_matrix(confidence.T), params)
    for _ in range(params.iterations):
        for side, other, groups in ((users, items, by_user), (items, users, by_item)):
            for group in groups:
                solved = np.ascontiguousarray(side[group.rows])
                solve(group.confidence, solved, other, group.regularization, num_threads=_THREADS)
                side[group.rows] = solved
    return items


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows whose number of entries, and so their regularization, is about the same."""

    rows: NDArray[np.int64]
    confidence: sparse.csr_matrix
    regularization: float


def _groups(confidence: sparse.csr_matrix, params: AlsParams) -> list[_Group]:
    lengths = np.diff(confidence.indptr)
    step = np.round(np.log(np.maximum(lengths, 1)) / np.log(_LENGTH_RATIO)).astype(np.int64)
    groups = []
    for one in np.unique(step).tolist():
        rows = np.flatnonzero((step == one) & (lengths > 0))
        if not len(rows):
            continue
        regularization = params.regularization * float(1 + lengths[rows].mean()) ** params.frequency_scaling
        groups.append(_Group(rows, sparse.csr_matrix(confidence[rows]), regularization))
    return groups
