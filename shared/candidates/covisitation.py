"""How strongly candidates go with the last clicks: read from the co-occurrence lists that retrieval has at hand."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from shared.candidates.query import ListKind, Query
from shared.candidates.ranked import Indexes

LAST_CLICKS: Final = 10


def covisitation(candidates: Indexes, query: Query) -> NDArray[np.float32]:
    """float32[n, 2] for int32[n] candidates, ascending.

    Column 0 is the candidate's score in the directed co-occurrence list of the newest seed (the page's own item where
    there is one, else the last click) over that list's best, column 1 the sum of such scores over the newest 10
    seeds. 0 where no list carries the candidate or none could be read.
    """
    found = np.zeros((len(candidates), 2), np.float32)
    block = query.neighbours.get(ListKind.COOCCURRENCE)
    if block is None or not len(candidates) or not len(query.seeds):
        return found
    indexes, scores = block.indexes[:LAST_CLICKS], block.scores[:LAST_CLICKS].astype(np.float64)
    best = scores.max(axis=1, initial=0.0)[:, None]
    shares = np.divide(scores, best, out=np.zeros_like(scores), where=best > 0)
    places = np.minimum(np.searchsorted(candidates, indexes), len(candidates) - 1)
    shares[(candidates[places] != indexes) | (shares < 0)] = 0.0
    found[:, 0] = np.bincount(places[0], weights=shares[0], minlength=len(candidates))
    found[:, 1] = np.bincount(places.ravel(), weights=shares.ravel(), minlength=len(candidates))
    return found
