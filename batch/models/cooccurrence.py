"""Directed, lag-decayed item co-occurrence with weak popularity normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from batch.models.neighbour_lists import prune_rows, tie_ranks

_ENTRIES_AT_ONCE: Final = 16_000_000


@dataclass(frozen=True, slots=True)
class CooccurrenceParams:
    """How pairs count; the defaults did best together on wholesale orders and on click-streams, tune them for a shop.

    lag_decay: factor a step between the two; backward: share that counts from the later item to the earlier one;
    user_length, source_popularity, target_popularity: exponents; window: how many rows ahead pairs are formed; width:
    targets kept.
    """

    lag_decay: float = 0.8
    backward: float = 0.25
    user_length: float = -0.25
    source_popularity: float = -0.5
    target_popularity: float = -0.3
    window: int = 10
    width: int = 400


@dataclass(frozen=True, slots=True)
class TransitionParams(CooccurrenceParams):
    """As `CooccurrenceParams`; by default only what came later counts for what came earlier."""

    backward: float = 0.0


def fit_cooccurrence(
    user: NDArray[np.int32],
    item: NDArray[np.int32],
    at: NDArray[np.int64],
    strength: NDArray[np.float32],
    *,
    item_count: int,
    params: CooccurrenceParams | None = None,
    seed: int = 0,
) -> sparse.csr_array:
    """Scores [source item, target item], float32: how much having met the source speaks for the target next.

    Rows [n] come ordered by user, then time `at`, and `strength` > 0 says how much meeting that item meant. Steps are
    distinct instants of a user; what happened at one instant counts in both directions as one step. Repeats of an item
    in direct succession are one row of the greatest strength; an item is never its own neighbour. At most `width`
    targets an item are kept, ties in a seeded order. Time and memory grow with n x window.
    """
    params = params or CooccurrenceParams()
    user, item, at, strength = _collapse_repeats(user, item, at, strength)
    popularity = np.maximum(np.bincount(item, minlength=item_count), 1).astype(np.float64)
    length = np.bincount(user).astype(np.float64)[user] if len(user) else np.empty(0)
    step = np.concatenate([[0], np.cumsum((np.diff(at) != 0) | (np.diff(user) != 0))])[: len(user)]
    base = length**params.user_length
    total = sparse.csr_array((item_count, item_count), dtype=np.float64)
    pending: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]] = []
    for offset in range(1, params.window + 1):
        same_user = user[:-offset] == user[offset:]
        if not np.any(same_user):
            break
        earlier = np.flatnonzero(same_user & (item[:-offset] != item[offset:]))
        later = earlier + offset
        apart = step[later] - step[earlier]
        forward = base[earlier] * params.lag_decay ** np.maximum(apart, 1)
        back = np.where(apart == 0, 1.0, params.backward) * forward
        pending.append((item[earlier], item[later], forward * strength[later]))
        pending.append((item[later], item[earlier], back * strength[earlier]))
        if sum(len(values) for _, _, values in pending) > _ENTRIES_AT_ONCE:
            total, pending = total + _summed(pending, item_count), []
    total = sparse.csr_array(total + _summed(pending, item_count))
    total.sort_indices()
    sources = np.repeat(np.arange(item_count), np.diff(total.indptr))
    total.data *= (
        popularity[sources] ** params.source_popularity * popularity[total.indices] ** params.target_popularity
    )
    return prune_rows(total, params.width, tie_ranks(item_count, seed)).astype(np.float32)


def _collapse_repeats(
    user: NDArray[np.int32], item: NDArray[np.int32], at: NDArray[np.int64], strength: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64], NDArray[np.float32]]:
    if len(user) == 0:
        return user, item, at, strength
    first = np.concatenate([[True], (np.diff(user) != 0) | (np.diff(item) != 0)])
    starts = np.flatnonzero(first)
    return user[starts], item[starts], at[starts], np.maximum.reduceat(strength, starts)


def _summed(
    pending: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]], item_count: int
) -> sparse.csr_array:
    shape = (item_count, item_count)
    if not pending:
        return sparse.csr_array(shape, dtype=np.float64)
    sources, targets, values = (np.concatenate(parts) for parts in zip(*pending, strict=True))
    return sparse.csr_array(sparse.coo_array((values, (sources, targets)), shape=shape))
