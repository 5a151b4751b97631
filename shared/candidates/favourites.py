"""Favourite categories as taste: what a user says she likes weighs like something she did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.features.items import ItemTable
from shared.features.views import Rows

FAVOURITE_WEIGHT: Final = 5.0
"""The first favourite counts as much as one purchase just made (`ACTION_WEIGHT`) ..."""
PLACE_DECAY: Final = 0.95
"""... and each further one so much less, as each older item of her history does."""


def favourite_taste(table: ItemTable, rows: Rows, names: Sequence[str]) -> NDArray[np.float64]:
    """float64[c]: the weight of each leaf category code, 0 where none of the names stands on its items' paths.

    A name above the leaves counts for every leaf below it; a name that no product has counts for nothing. Empty
    without names. One pass over the items, however many names there are.
    """
    weights = PLACE_DECAY ** np.arange(len(names)) * FAVOURITE_WEIGHT
    known = [(table.code(name), weight) for name, weight in zip(names, weights.tolist(), strict=True)]
    codes = {code: weight for code, weight in reversed(known) if code >= 0}
    if not codes:
        return np.empty(0)
    of_code = np.zeros(int(table.paths[rows].max(initial=-1)) + 2)  # the last one is what -1 finds
    for code, weight in codes.items():
        if code < len(of_code) - 1:
            of_code[code] = weight
    leaf, weight_of_row = table.category[rows], of_code[table.paths[rows]].max(axis=1)
    taste = np.zeros(len(of_code) - 1)
    np.maximum.at(taste, leaf[leaf >= 0], weight_of_row[leaf >= 0])
    return taste
