"""Other people's methods, each a function from what is known to a score of every product for every query.

They are what a shop could install instead: `implicit`'s models, neighbourhood methods, TIFU-kNN, and counting.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from implicit.lmf import LogisticMatrixFactorization
from implicit.nearest_neighbours import BM25Recommender, CosineRecommender
from implicit.utils import ParameterWarning
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from batch.evaluation.peer_queries import DAY_MS, STRENGTHS, PeerQueries, basket_numbers
from batch.interactions import CART, PURCHASE, VIEW, Interactions

type Params = Mapping[str, Any]
type Block = Callable[[slice], NDArray[np.float32]]
"""Scores float32[c, items] of the queries of a slice."""


@dataclass(frozen=True, slots=True)
class PeerData:
    """What is known before `end_at` (epoch ms) for fitting, everything for what is popular now, and the queries."""

    known: Interactions
    everything: Interactions
    users: int
    items: int
    end_at: int
    queries: PeerQueries

    def matrix(self, strength: tuple[float, ...], *, log: bool = False) -> sparse.csr_array:
        """float32[users, items]: how much each user did with each item."""
        worth = np.zeros(4, dtype=np.float32)
        worth[[VIEW, CART, PURCHASE]] = strength
        weight = worth[self.known.event_type]
        kept = weight > 0
        found = sparse.csr_array(
            sparse.coo_array(
                (weight[kept], (self.known.user[kept], self.known.item[kept])), shape=(self.users, self.items)
            )
        )
        if log:
            found.data = np.log1p(found.data)
        return found


def popularity(data: PeerData, params: Params, _seed: int) -> Block:
    """What is done most at each query's instant, halved every `half_life_days`."""
    return lambda chosen: popular_now(data, params["half_life_days"], params["strength"], chosen)


def popular_now(data: PeerData, half_life_days: float, strength: str, chosen: slice) -> NDArray[np.float32]:
    """float32[c, items]: decayed counts by each query's instant, at most 1."""
    worth = np.zeros(4, dtype=np.float64)
    worth[[VIEW, CART, PURCHASE]] = STRENGTHS[strength]
    events, as_of = data.everything, data.queries.as_of[chosen]
    order = np.argsort(events.enqueued_at, kind="stable")
    enqueued_at = events.enqueued_at[order]
    item, weight = events.item[order], worth[events.event_type[order]]
    found = np.zeros((len(as_of), data.items), dtype=np.float32)
    counts = np.zeros(data.items)
    start, since = 0, int(enqueued_at[0]) if len(enqueued_at) else 0
    for query in np.argsort(as_of, kind="stable"):
        now = int(as_of[query])
        stop = int(np.searchsorted(enqueued_at, now, side="right"))
        counts *= np.exp2(-(now - since) / DAY_MS / half_life_days)
        ages = (now - enqueued_at[start:stop]) / DAY_MS
        counts += np.bincount(item[start:stop], weight[start:stop] * np.exp2(-ages / half_life_days), data.items)
        found[query] = counts / max(counts.max(), 1e-12)
        start, since = stop, now
    return found


def personal_frequency(data: PeerData, params: Params, _seed: int) -> Block:
    """How often she did it, decayed by visits; equals are ordered by what is popular now."""
    history = data.queries.history(data.items, STRENGTHS[params["strength"]], decay=params["decay"])

    def block(chosen: slice) -> NDArray[np.float32]:
        ties = popular_now(data, 14.0, params["strength"], chosen)
        return np.asarray(history[chosen].toarray() + 1e-3 * ties, dtype=np.float32)

    return block


def cosine_item_knn(data: PeerData, params: Params, _seed: int) -> Block:
    """Cosine item neighbours (`implicit`) of a decayed history."""
    return _item_knn(data, CosineRecommender(K=int(params["k"]), num_threads=1), params)


def bm25_item_knn(data: PeerData, params: Params, _seed: int) -> Block:
    """BM25 item neighbours (`implicit`) of a decayed history."""
    model = BM25Recommender(K=int(params["k"]), K1=params["k1"], B=params["b"], num_threads=1)
    return _item_knn(data, model, params)


def _item_knn(data: PeerData, model: Any, params: Params) -> Block:  # noqa: ANN401 - implicit publishes no types
    with warnings.catch_warnings():  # implicit warns of the form that its own weighting returns
        warnings.simplefilter("ignore", ParameterWarning)
        model.fit(sparse.csr_matrix(data.matrix(STRENGTHS[params["strength"]])), show_progress=False)
    near = sparse.csr_array(model.similarity, dtype=np.float32)
    history = data.queries.history(data.items, STRENGTHS[params["strength"]], decay=params["decay"])
    return lambda chosen: np.asarray((history[chosen] @ near).toarray(), dtype=np.float32)


def als(data: PeerData, params: Params, seed: int) -> Block:
    """ALS with the users' fitted factors."""
    with threadpool_limits(1, "blas"):  # implicit shares the rows out itself
        model = AlternatingLeastSquares(
            factors=int(params["factors"]), regularization=params["regularization"], alpha=params["alpha"],
            iterations=15, num_threads=1, random_state=seed,
        )  # fmt: skip
        return _factors(data, model, params)


def bpr(data: PeerData, params: Params, seed: int) -> Block:
    """Bayesian personalised ranking."""
    model = BayesianPersonalizedRanking(
        factors=int(params["factors"]), regularization=params["regularization"],
        learning_rate=params["learning_rate"], iterations=int(params["iterations"]), num_threads=1, random_state=seed,
    )  # fmt: skip
    return _factors(data, model, params)


def lmf(data: PeerData, params: Params, seed: int) -> Block:
    """Logistic matrix factorisation."""
    model = LogisticMatrixFactorization(
        factors=int(params["factors"]), regularization=params["regularization"],
        learning_rate=params["learning_rate"], iterations=30, num_threads=1, random_state=seed,
    )  # fmt: skip
    return _factors(data, model, params)


def _factors(data: PeerData, model: Any, params: Params) -> Block:  # noqa: ANN401 - implicit publishes no types
    matrix = data.matrix(STRENGTHS[params["strength"]], log=True)
    model.fit(sparse.csr_matrix(matrix), show_progress=False)
    of_users, of_items = np.asarray(model.user_factors), np.asarray(model.item_factors)
    users = np.minimum(data.queries.user, data.users - 1)
    return lambda chosen: np.asarray(of_users[users[chosen]] @ of_items.T, dtype=np.float32)


def tifu_knn(data: PeerData, params: Params, _seed: int) -> Block:
    """Temporal item frequency, hers and her nearest users' (Hu et al., SIGIR 2020, sections 4.1 and 4.2).

    Baskets stand in groups of `group_size`; one decays by `within` inside its group, groups by `among`.
    """
    known, queries = data.known, data.queries
    worth = np.zeros(4, dtype=np.float32)
    worth[[VIEW, CART, PURCHASE]] = STRENGTHS[params["strength"]]
    number = basket_numbers(known)
    newest = np.full(data.users, -1, dtype=np.int64)
    np.maximum.at(newest, known.user, number)
    oldest = np.full(data.users, np.iinfo(np.int64).max, dtype=np.int64)
    np.minimum.at(oldest, known.user, number)
    theirs = _decayed(newest[known.user] - number, np.where(newest >= 0, newest - oldest + 1, 0)[known.user], params)
    of_users = _summed(known.user, known.item, theirs * worth[known.event_type], (data.users, data.items))
    hers = _decayed(queries.lag, queries.baskets[queries.row], params)
    own = _summed(queries.row, queries.item, hers * worth[queries.kind], (len(queries), data.items))
    norms = np.asarray(of_users.multiply(of_users).sum(axis=1)).ravel()
    norms[newest < 0] = np.inf

    def block(chosen: slice) -> NDArray[np.float32]:
        distance = norms[None] - 2 * (own[chosen] @ of_users.T).toarray()
        users = np.minimum(queries.user[chosen], data.users - 1)
        distance[np.arange(len(users)), users] = np.inf
        k = min(int(params["k"]), data.users - 1)
        nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
        picked = sparse.csr_array(
            (np.full(nearest.size, 1 / k, np.float32), nearest.ravel(), np.arange(0, nearest.size + 1, k)),
            shape=(len(users), data.users),
        )
        near = (picked @ of_users).toarray()
        return np.asarray(params["alpha"] * own[chosen].toarray() + (1 - params["alpha"]) * near, dtype=np.float32)

    return block


def _decayed(lag: NDArray[np.integer], baskets: NDArray[np.integer], params: Params) -> NDArray[np.float32]:
    """The weight of each action [n] in its user's mean: `lag` baskets ago, of `baskets` in all."""
    size = int(params["group_size"])
    groups = np.maximum((baskets + size - 1) // size, 1)
    held = np.minimum(np.maximum(baskets, 1), size)
    decay = params["within"] ** (lag % size) * params["among"] ** (lag // size)
    return np.asarray(decay / (groups * held), dtype=np.float32)


def _summed(
    row: NDArray[np.integer], item: NDArray[np.integer], weight: NDArray[np.float32], shape: tuple[int, int]
) -> sparse.csr_array:
    kept = weight > 0
    return sparse.csr_array(sparse.coo_array((weight[kept], (row[kept], item[kept])), shape=shape))


@dataclass(frozen=True, slots=True)
class PeerMethod:
    """A method and what its tuning may choose from; the first of each choice together are its defaults."""

    fit: Callable[[PeerData, Params, int], Block]
    space: Mapping[str, tuple[Any, ...]]


_STRENGTH: Final = ("bought", "all", "graded")
_DECAY: Final = (0.9, 0.95, 0.8, 0.6, 1.0)
_FACTORS: Final = (64, 128, 32)

METHODS: Final[Mapping[str, PeerMethod]] = {
    "popularity": PeerMethod(popularity, {"half_life_days": (7.0, 3.0, 14.0, 30.0, 90.0), "strength": _STRENGTH}),
    "personal frequency": PeerMethod(personal_frequency, {"decay": (1.0, 0.95, 0.9, 0.8, 0.6), "strength": _STRENGTH}),
    "item-kNN, cosine": PeerMethod(cosine_item_knn, {"k": (100, 20, 50, 300), "decay": _DECAY, "strength": _STRENGTH}),
    "item-kNN, BM25": PeerMethod(
        bm25_item_knn,
        {
            "k": (100, 20, 50, 300), "k1": (1.2, 0.5, 3.0, 10.0), "b": (0.75, 0.3, 0.95), "decay": _DECAY,
            "strength": _STRENGTH,
        },
    ),
    "ALS (implicit)": PeerMethod(
        als,
        {
            "factors": _FACTORS, "regularization": (0.1, 1.0, 10.0, 30.0), "alpha": (1.0, 5.0, 20.0),
            "strength": _STRENGTH,
        },
    ),
    "BPR (implicit)": PeerMethod(
        bpr,
        {
            "factors": _FACTORS, "regularization": (0.01, 0.001, 0.05), "learning_rate": (0.05, 0.02, 0.1),
            "iterations": (100, 50, 200), "strength": _STRENGTH,
        },
    ),
    "LMF (implicit)": PeerMethod(
        lmf,
        {
            "factors": (32, 16, 64), "regularization": (0.6, 2.0, 10.0), "learning_rate": (1.0, 0.3),
            "strength": _STRENGTH,
        },
    ),
    "TIFU-kNN": PeerMethod(
        tifu_knn,
        {
            "k": (300, 100, 600), "within": (0.9, 1.0, 0.8), "among": (0.7, 0.9, 0.6), "alpha": (0.7, 0.9, 0.5, 0.3),
            "group_size": (7, 3, 10), "strength": _STRENGTH,
        },
    ),
}  # fmt: skip
