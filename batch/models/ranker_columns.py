"""Which features a linear ranker reads and how, told from their declarations: entity, source, and unit in the name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from shared.features.declaration import Entity, Feature
from shared.features.definitions import FEATURES, Retrieval

LIST_END: Final = 1 / 400
"""Added to a reciprocal rank before its logarithm: what no list carries stands where rank 400 would."""

_HOURS_OFFSET: Final = 1.0
_COUNT_OFFSET: Final = 1.0
_SHARE_OFFSET: Final = 0.02


@dataclass(frozen=True, slots=True)
class Column:
    """One term's input: a column of the matrix; log(x + offset), or x itself where offset is None; `fill` for NaN."""

    feature: int
    offset: float | None
    fill: float


def is_popularity(feature: Feature) -> bool:
    """Does it say the same of an item to everyone? What is known of the item alone, and the popular source."""
    return feature.entity is Entity.ITEM or feature.name.startswith(f"{Entity.RETRIEVAL}_{Retrieval.POPULAR}_")


def is_read(feature: Feature, *, popularity: bool, entities: Collection[str]) -> bool:
    """May a ranker of these `entities` read it, and where it names popularity, one that is allowed `popularity`?"""
    return feature.entity in entities and (popularity or not is_popularity(feature))


def source_scores(features: Sequence[Feature] = FEATURES) -> list[Column]:
    """The scores of the sources alone, as they are."""
    names = {f"{Entity.RETRIEVAL}_{source}_score" for source in Retrieval}
    return [Column(place, None, one.default) for place, one in enumerate(features) if one.name in names]


def linear_columns(
    *, popularity: bool, entities: Collection[str] = tuple(Entity), features: Sequence[Feature] = FEATURES
) -> list[Column]:
    """Every feature of items, pairs and retrieval, each as it stands and, by its unit, on a logarithmic scale.

    Of `entities` alone; without `popularity` what is_popularity() names is left out too. What is one value for a whole
    page (user, request) cannot order it and is not taken.
    """
    columns: list[Column] = []
    for place, one in enumerate(features):
        if one.entity in (Entity.USER, Entity.REQUEST) or not is_read(one, popularity=popularity, entities=entities):
            continue
        columns += [Column(place, offset, one.default) for offset in _offsets(one)]
    return columns


def _offsets(feature: Feature) -> tuple[float | None, ...]:
    """How the feature enters, by the unit in its name."""
    name = feature.name
    if name.endswith("_reciprocal_rank"):
        return (None, LIST_END)
    if name.endswith("_hours") or "_decayed_" in name:
        return (_HOURS_OFFSET,)
    if "_count" in name:
        return (None, _COUNT_OFFSET)
    if feature.entity is Entity.RETRIEVAL or "_affinity" in name:
        return (None, _SHARE_OFFSET)
    return (None,)
