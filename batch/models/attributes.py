"""Items alike by what the catalogue says of them: cosine of hashed, idf-weighted tokens, times a little popularity.

Hashing: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (ICML 2009), without signs, so that no
two tokens cancel. Nothing here needs an interaction: an item nobody has met yet is carried as well. What is known of an
item's look-alikes can be lent to it: what follows on them is likely to follow on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import log2
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from batch.models.neighbour_lists import multiply_in_blocks, prune_rows, tie_ranks, without_own
from shared.catalog import Product

COLUMNS: Final = 1 << 20
"""Tokens that share a column are taken for one: with 100,000 different tokens every tenth does."""
_SUCCESSORS: Final = 150
"""So many of a look-alike's transitions are lent."""
_WORDS: Final = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class AttributeParams:
    """How likeness counts.

    category, brand, price, title: what a token of each says beside its rarity; idf_power: exponent of the inverse
    document frequency; popularity: exponent of the target's popularity; most_items: a token of more items than this is
    passed over, since it tells little and work grows with its square; list_size: targets kept of each source; onward:
    how much `lend_successors` adds, in sums of all scores against those of likeness; look_alikes: of how many it takes
    them.
    """

    category: float = 1.0
    brand: float = 1.0
    price: float = 0.5
    title: float = 0.7
    idf_power: float = 2.0
    popularity: float = 0.25
    most_items: int = 5_000
    list_size: int = 200
    onward: float = 1.0
    look_alikes: int = 30


def attribute_matrix(products: Sequence[Product], params: AttributeParams | None = None) -> sparse.csr_array:
    """What the products are, float32 [products, COLUMNS]: rows of length 1, or empty for a product without tokens.

    Equal products give equal rows in every process. Tokens: each category of the path, the brand, two price buckets of
    half an octave, staggered by half of one, and the distinct words of the title.
    """
    params = params or AttributeParams()
    columns: list[int] = []
    weights: list[float] = []
    ends = [0]
    known: dict[str, int] = {}
    for product in products:
        for token, weight in _tokens(product, params):
            if token not in known:
                known[token] = token_column(token)
            columns.append(known[token])
            weights.append(weight)
        ends.append(len(columns))
    matrix = sparse.csr_array(
        (np.array(weights, np.float64), np.array(columns, np.int64), np.array(ends, np.int64)),
        shape=(len(products), COLUMNS),
        dtype=np.float64,
    )
    matrix.sum_duplicates()
    matrix.data = matrix.data * _rarity(matrix, params)
    matrix.eliminate_zeros()
    lengths = np.sqrt(matrix.power(2).sum(axis=1))
    matrix.data = matrix.data / np.repeat(np.where(lengths > 0, lengths, 1.0), np.diff(matrix.indptr))
    return sparse.csr_array(matrix.astype(np.float32))


def fit_attributes(
    matrix: sparse.csr_array,
    popularity: NDArray[np.float32],
    params: AttributeParams | None = None,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> sparse.csr_array:
    """Scores [source item, target item], float32, all positive: cosine of `attribute_matrix` rows x popularity^p.

    `popularity` float32 [items]; an item without any counts as the least popular of those that have some, so that it is
    carried. At most `list_size` targets a source, equal ones in a seeded order, an item never its own. Time grows with
    the sum over tokens of their items squared. `progress` hears (sources done, sources).
    """
    params = params or AttributeParams()
    items = matrix.shape[0]
    ties = tie_ranks(items, seed)
    met = popularity > 0
    least = popularity[met].min() if np.any(met) else 1.0
    onward = sparse.csr_array(matrix.T)
    onward.data *= np.maximum(popularity, least)[onward.indices] ** np.float32(params.popularity)

    def strongest(block: sparse.csr_array, start: int) -> sparse.csr_array:
        if progress is not None:
            progress(start + block.shape[0], items)
        return prune_rows(without_own(block, start), params.list_size, ties)

    return multiply_in_blocks(matrix, onward, strongest)


def lend_successors(
    alike: sparse.csr_array, transitions: sparse.csr_array, params: AttributeParams | None = None, *, seed: int = 0
) -> sparse.csr_array:
    """`alike` [source item, target item], float32, and what its look-alikes' `transitions` of that shape lend to each.

    A source is lent the mean of the transitions of its `look_alikes` nearest, by likeness; over all items together the
    loans weigh `onward` times what likeness does (0 or less: nothing). What has no look-alikes, or none with
    transitions, keeps its row. At most `list_size` targets a source.
    """
    params = params or AttributeParams()
    if params.onward <= 0 or not alike.nnz or not transitions.nnz:
        return alike
    ties = tie_ranks(alike.shape[0], seed)
    near = prune_rows(alike, params.look_alikes, ties)
    total = near.sum(axis=1)
    near.data = near.data / np.repeat(np.where(total > 0, total, 1.0), np.diff(near.indptr))
    strongest = prune_rows(transitions, _SUCCESSORS, ties)
    width = 2 * params.list_size
    lent = multiply_in_blocks(near, strongest, lambda block, start: prune_rows(without_own(block, start), width, ties))
    share = params.onward * float(alike.sum(dtype=np.float64)) / max(float(lent.sum(dtype=np.float64)), 1e-12)
    return prune_rows(sparse.csr_array(alike + share * lent), params.list_size, ties).astype(np.float32)


def token_column(token: str) -> int:
    """The column of a token, the same in every process and on every machine."""
    return int.from_bytes(blake2b(token.encode(), digest_size=8).digest(), "little") % COLUMNS


def _tokens(product: Product, params: AttributeParams) -> Iterator[tuple[str, float]]:
    for name in dict.fromkeys(product.categories):
        yield f"category {name.casefold()}", params.category
    if product.brand:
        yield f"brand {product.brand.casefold()}", params.brand
    if product.price_cents > 0:
        half_octaves = 2 * log2(product.price_cents)
        yield f"price {int(half_octaves)}", params.price
        yield f"price {int(half_octaves + 0.5)} from the middle", params.price
    for word in dict.fromkeys(_WORDS.findall(product.title.casefold())):
        yield f"title {word}", params.title


def _rarity(matrix: sparse.csr_array, params: AttributeParams) -> NDArray[np.float64]:
    """For each entry its column's inverse document frequency, 0 where the column is of too many items."""
    met = np.bincount(matrix.indices, minlength=COLUMNS)
    idf = np.log((1 + matrix.shape[0]) / (1 + met)) ** params.idf_power
    return np.asarray(np.where(met > params.most_items, 0.0, idf)[matrix.indices])
