"""Label pages as rows to learn from, read into memory once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from batch.evaluation.page_view import View
from batch.models.ranking_rows import RankingRows


def label_rows(view: View) -> RankingRows:
    """The rows of those queries of a view that hold a graded candidate; the others teach no order."""
    graded, sizes = [], []
    for block in view.blocks():
        labels = block.column(view.pages.label)
        graded.append(labels.any(axis=1))
        sizes.append(block.there.sum(axis=1))
    teaching = np.concatenate(graded) if graded else np.zeros(0, dtype=np.bool_)
    groups = np.concatenate(sizes)[teaching] if sizes else np.zeros(0, dtype=np.int64)
    chosen = replace(view, chosen=view.chosen[teaching])
    features = np.empty((int(groups.sum()), view.pages.features.shape[1]), dtype=np.float32)
    labels = np.empty(len(features), dtype=np.int64)
    begin = 0
    for block in chosen.blocks():
        end = begin + len(block.rows)
        features[begin:end], labels[begin:end] = block.features, view.pages.label[block.rows]
        begin = end
    return RankingRows(features, labels, groups, chosen.users)
