"""Label pages as rows to learn from, read into memory once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from batch.evaluation.page_view import Block, View
from batch.models.ranking_rows import RankingRows


def label_rows(view: View, negatives: int | None = None, seed: int = 0) -> RankingRows:
    """The rows of those queries of a view that hold a graded candidate; the others teach no order.

    `negatives` keeps at most so many others of each page, drawn by the seed and the page alone.
    """
    kept = [(block, _kept(block, negatives, seed)) for block in view.blocks()]
    groups = np.concatenate([mask.sum(axis=1) for _, mask in kept] or [np.zeros(0, dtype=np.int64)])
    features = np.empty((int(groups.sum()), view.pages.features.shape[1]), dtype=np.float32)
    labels = np.empty(len(features), dtype=np.int64)
    begin = 0
    for block, mask in kept:
        rows = mask[block.there]
        end = begin + int(rows.sum())
        features[begin:end], labels[begin:end] = block.read()[rows], view.pages.label[block.rows[rows]]
        begin = end
    return RankingRows(features, labels, groups[groups > 0], view.users[groups > 0])


def _kept(block: Block, negatives: int | None, seed: int) -> NDArray[np.bool_]:
    """bool[b, n]: the rows of pages that teach."""
    graded = block.column(block.view.pages.label) > 0
    teaches = block.there & graded.any(axis=1, keepdims=True)
    if negatives is None:
        return teaches
    # A number a row of the page table: what is left of a page without a source keeps its own.
    drawn = np.concatenate(
        [
            np.random.default_rng((seed, query)).random(length)
            for query, length in zip(
                block.queries.tolist(), block.view.pages.length[block.queries].tolist(), strict=True
            )
        ]
    )
    order = np.argsort(np.where(teaches & ~graded, block.spread(drawn[block.offsets]), np.inf), axis=1)
    first = np.zeros_like(graded)
    np.put_along_axis(first, order[:, :negatives], values=True, axis=1)
    return teaches & (graded | first)
