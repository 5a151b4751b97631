"""What a feature's declaration consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from numpy.typing import ArrayLike

from shared.features.aggregations import Aggregation


class Entity(StrEnum):
    """What a feature describes."""

    USER = "user"
    ITEM = "item"
    PAIR = "pair"
    RETRIEVAL = "retrieval"
    REQUEST = "request"


@dataclass(frozen=True)
class Feature:
    """One declaration. `value` maps the entity's view to a scalar or an array of length n; NaN becomes `default`.

    `aggregations` are the stored ones it reads, `vocabulary` the words whose codes (`derivations.code_of`) it gives.
    """

    name: str
    entity: Entity
    description: str
    value: Callable[[Any], ArrayLike]
    aggregations: tuple[Aggregation, ...] = ()
    default: float = 0.0
    dtype: str = "float32"
    vocabulary: tuple[str, ...] = ()
