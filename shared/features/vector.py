"""From views to the matrix a ranker reads, under a schema it was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shared.features.declaration import Entity, Feature
from shared.features.definitions import FEATURES
from shared.features.views import PairView, RequestView, RetrievalBlock

Matrix = NDArray[np.float32]

SMALLEST: Final = 1e-30
"""Values closer to zero than this are zero: LightGBM snaps them, ONNX does not."""


@dataclass(frozen=True)
class FeatureSchema:
    """Names in column order, and a hash that changes when a name, default, dtype, aggregation or vocabulary does."""

    names: tuple[str, ...]
    digest: str


def schema_of(features: tuple[Feature, ...]) -> FeatureSchema:
    """The schema of these features in this order."""
    said = repr([(one.name, one.entity, one.default, one.dtype, one.aggregations, one.vocabulary) for one in features])
    return FeatureSchema(tuple(one.name for one in features), blake2b(said.encode(), digest_size=4).hexdigest())


SCHEMA: Final = schema_of(FEATURES)


def assemble(
    pair: PairView,
    retrieval: RetrievalBlock,
    request: RequestView,
    features: tuple[Feature, ...] = FEATURES,
) -> Matrix:
    """float32[n, F]: one row a candidate, one column a feature, in declared order.

    NaN becomes the feature's default; values nearer to zero than `SMALLEST` become 0.
    """
    views: dict[Entity, Any] = {
        Entity.USER: pair.user,
        Entity.ITEM: pair.items,
        Entity.PAIR: pair,
        Entity.RETRIEVAL: retrieval,
        Entity.REQUEST: request,
    }
    # A row a feature while it fills: rows lie together in memory, columns of a hundred features do not.
    table = np.empty((len(features), len(pair.items.rows)), dtype=np.float32)
    for row, feature in enumerate(features):
        table[row] = feature.value(views[feature.entity])
    for row in np.flatnonzero(np.isnan(table).any(axis=1)).tolist():
        np.copyto(table[row], features[row].default, where=np.isnan(table[row]))
    np.copyto(table, 0.0, where=np.abs(table) < SMALLEST)
    return np.ascontiguousarray(table.T)
