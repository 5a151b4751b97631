"""What lists show taken together: how unequally, how little known, how new, how different within a list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from batch.metrics import catalogue_coverage


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What is known of n items apart from any list.

    popularity float64[n]: events of each in what the test's sources were fitted on; category int64[n], -1 unknown;
    new bool[n]: without any event there; attributes csr[n, terms] with non-negative weights, where there are any.
    """

    popularity: NDArray[np.float64]
    category: NDArray[np.int64]
    new: NDArray[np.bool_]
    attributes: csr_array | None = None


@dataclass(frozen=True, slots=True)
class ListFacts:
    """Of all lists of a method; None where items have no category, or no attributes, to differ in."""

    coverage: float
    gini: float
    novelty_bits: float
    new_item_share: float
    category_diversity: float | None
    attribute_diversity: float | None


def measure_lists(ranked: NDArray[np.integer], items: ItemFacts) -> ListFacts:
    """Of lists int [queries, places] of item indexes, -1 padding."""
    return ListFacts(
        coverage=catalogue_coverage(ranked, len(items.popularity), ranked.shape[1]),
        gini=exposure_gini(ranked, len(items.popularity)),
        novelty_bits=novelty(ranked, items.popularity),
        new_item_share=share_of_places(ranked, items.new),
        category_diversity=_known(category_diversity(ranked, items.category)) if (items.category >= 0).any() else None,
        attribute_diversity=None if items.attributes is None else _known(attribute_diversity(ranked, items.attributes)),
    )


def exposure_gini(ranked: NDArray[np.integer], item_count: int) -> float:
    """How unequally `item_count` items share the places of lists [queries, places], -1 padding: 0 equally, near 1 one
    item has all (Gini coefficient of exposures, items never shown included); 0 where nothing is shown.
    """
    shown = ranked[ranked >= 0]
    exposures = np.sort(np.bincount(shown, minlength=item_count)).astype(np.float64)
    if not len(shown):
        return 0.0
    count = len(exposures)
    weights = 2 * np.arange(1, count + 1) - count - 1
    return float(weights @ exposures / (count * exposures.sum()))


def novelty(ranked: NDArray[np.integer], popularity: NDArray[np.number]) -> float:
    """Mean over places of -log2 of the item's share of all events, in bits: how little known what is shown is.

    popularity: events of each item [items]; one is added to each, so that an item without any is finite.
    """
    shown = ranked[ranked >= 0]
    counts = np.asarray(popularity, dtype=np.float64) + 1
    return float(-np.log2(counts[shown] / counts.sum()).mean()) if len(shown) else 0.0


def share_of_places(ranked: NDArray[np.integer], marked: NDArray[np.bool_]) -> float:
    """The share of filled places that hold one of the marked items (bool [items])."""
    shown = ranked[ranked >= 0]
    return float(marked[shown].mean()) if len(shown) else 0.0


def category_diversity(ranked: NDArray[np.integer], category: NDArray[np.integer]) -> float:
    """Mean over lists of 1 - the share of their pairs of one category [items]; -1 is like nothing else.

    Lists with fewer than two items do not count; NaN where there is no other.
    """
    codes = np.where(ranked >= 0, category[np.maximum(ranked, 0)], -1)
    lengths = (ranked >= 0).sum(axis=1)
    same = np.zeros(len(ranked))
    for place in range(1, ranked.shape[1]):
        same += ((codes[:, :place] == codes[:, [place]]) & (codes[:, [place]] >= 0)).sum(axis=1)
    long = lengths > 1
    pairs = lengths[long] * (lengths[long] - 1) / 2
    return float((1 - same[long] / pairs).mean()) if long.any() else float("nan")


def attribute_diversity(ranked: NDArray[np.integer], attributes: csr_array) -> float:
    """Mean over lists of 1 - the mean cosine of their pairs, attributes csr [items, terms] with non-negative weights.

    Lists with fewer than two items do not count; NaN where there is no other. An item without terms is like nothing.
    """
    norms = np.sqrt(np.asarray(attributes.multiply(attributes).sum(axis=1)).ravel())
    unit = csr_array(attributes.multiply((1 / np.where(norms > 0, norms, 1))[:, None]))
    there = ranked >= 0
    lengths = there.sum(axis=1)
    query, _ = np.nonzero(there)
    lists = csr_array((np.ones(len(query)), (query, ranked[there])), shape=(len(ranked), unit.shape[0]))
    summed = csr_array(lists @ unit)
    # Of unit vectors |sum|^2 = their own squares + twice the cosines of all pairs.
    squares: NDArray[np.float64] = np.asarray(summed.multiply(summed).sum(axis=1)).ravel()
    own = lists @ (norms > 0).astype(np.float64)
    long = lengths > 1
    cosine = (squares - own)[long] / (lengths[long] * (lengths[long] - 1))
    return float((1 - cosine).mean()) if long.any() else float("nan")


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
