"""How much of what is to be found the sources carry to the rankers."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from batch.evaluation.page_view import View
from batch.evaluation.report import CandidateRecall
from shared.features.definitions import Retrieval

CANDIDATE_CUTS: Final = (20, 100, 200)
MERGED: Final = "merged"


def measure_candidates(view: View) -> list[CandidateRecall]:
    """Recall of each source that carries anything, best first, and last of all of them merged.

    A query's positives that no source could know count as missed.
    """
    found: list[tuple[NDArray[np.int64], NDArray[np.int16]]] = []
    carried = np.zeros(len(Retrieval), dtype=np.int64)
    candidates = 0
    for block in view.blocks():
        query, _ = np.nonzero(block.there)
        wanted = block.wanted[block.there]
        found.append((block.at[query[wanted]], block.ranks[wanted]))
        carried += np.count_nonzero(block.ranks, axis=0)
        candidates += len(block.rows)
    query = np.concatenate([each[0] for each in found])
    ranks = np.concatenate([each[1] for each in found])
    total = len(view.chosen)

    def share(hit: NDArray[np.bool_]) -> float:
        return float((np.bincount(query[hit], minlength=total) / np.maximum(view.counts, 1)).mean())

    rows = [
        CandidateRecall(
            str(name),
            {str(k): share((ranks[:, column] > 0) & (ranks[:, column] <= k)) for k in CANDIDATE_CUTS},
            share(ranks[:, column] > 0),
            float(carried[column] / total),
        )
        for column, name in enumerate(Retrieval)
        if carried[column]
    ]
    within = {str(k): share(((ranks > 0) & (ranks <= k)).any(axis=1)) for k in CANDIDATE_CUTS}
    merged = CandidateRecall(MERGED, within, share(np.ones(len(query), dtype=np.bool_)), candidates / total)
    return [*sorted(rows, key=lambda row: -row.all), merged]
