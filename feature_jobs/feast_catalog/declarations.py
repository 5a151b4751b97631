"""The declared features as Feast objects: entities, views, on-demand views and services; no name is written twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Final, cast, override

from feast import Entity, FeatureService, FeatureView, Field, OnDemandFeatureView
from feast.data_source import RequestSource
from feast.types import Float32, Float64, Int64, PrimitiveFeastType
from feast.value_type import ValueType

from feature_jobs.describe_features import describe
from feature_jobs.feast_catalog.lake_source import LakeSource
from feature_jobs.feast_catalog.on_demand import (
    request_features,
    request_inputs,
    retrieval_features,
    retrieval_inputs,
    source_text,
)
from shared.features import declaration
from shared.features.declaration import Feature
from shared.features.definitions import FEATURES, STATE_VERSION
from shared.features.vector import schema_of

PROJECT: Final = "recommndr"
USER_KEY: Final = "user_id"
ITEM_KEY: Final = "item_id"
RANKING: Final = "ranking"
"""The feature service with everything the ranker reads."""

_TYPES: Final[dict[str, PrimitiveFeastType]] = {"float32": Float32, "float64": Float64, "int64": Int64}
_ENTITIES_OF: Final = {
    declaration.Entity.USER: (declaration.Entity.USER,),
    declaration.Entity.ITEM: (declaration.Entity.ITEM,),
    declaration.Entity.PAIR: (declaration.Entity.USER, declaration.Entity.ITEM),
}


class DeclaredOnDemandView(OnDemandFeatureView):
    """An on-demand view whose types are declared: nothing is inferred from made-up input."""

    @override
    def infer_features(self) -> None:
        """Leave the declared fields as they are."""


@dataclass(frozen=True)
class Catalogue:
    """Everything the registry holds, in the order of the declarations."""

    entities: tuple[Entity, ...]
    views: tuple[FeatureView, ...]
    on_demand: tuple[OnDemandFeatureView, ...]
    services: tuple[FeatureService, ...]

    @property
    def objects(self) -> list[Any]:
        """What `FeatureStore.apply` takes."""
        return [*self.entities, *self.views, *self.on_demand, *self.services]

    @property
    def names(self) -> tuple[str, ...]:
        """Every feature, view by view."""
        return tuple(field.name for view in (*self.views, *self.on_demand) for field in view.features)


def catalogue_of(features: Sequence[Feature] = FEATURES) -> Catalogue:
    """The catalogue of these declarations.

    Features of a user, an item or a pair of both become a feature view, read from state and replayed from the log.
    What depends on the request alone (its instant, what retrieval said) becomes an on-demand view over what the
    caller passes: Feast has no clock and no candidate sources.
    """
    entities = {
        declaration.Entity.USER: Entity(
            name="user", join_keys=[USER_KEY], value_type=ValueType.STRING, description="a shopper"
        ),
        declaration.Entity.ITEM: Entity(
            name="item", join_keys=[ITEM_KEY], value_type=ValueType.STRING, description="a product of the catalogue"
        ),
    }
    lake = LakeSource()
    views = tuple(
        FeatureView(
            name=kind.value,
            entities=[entities[one] for one in keys],
            schema=_fields(features, kind),
            source=lake,
            description=_about(kind),
            tags={"state_version": STATE_VERSION},
        )
        for kind, keys in _ENTITIES_OF.items()
    )
    on_demand = (
        DeclaredOnDemandView(
            name=declaration.Entity.RETRIEVAL.value,
            schema=_fields(features, declaration.Entity.RETRIEVAL),
            sources=[RequestSource(name="retrieval_answers", schema=retrieval_inputs())],
            udf=cast("FunctionType", retrieval_features),
            udf_string=source_text(retrieval_features),
            mode="python",
            description=_about(declaration.Entity.RETRIEVAL),
        ),
        DeclaredOnDemandView(
            name=declaration.Entity.REQUEST.value,
            schema=_fields(features, declaration.Entity.REQUEST),
            sources=[RequestSource(name="page_request", schema=request_inputs())],
            udf=cast("FunctionType", request_features),
            udf_string=source_text(request_features),
            mode="python",
            description=_about(declaration.Entity.REQUEST),
        ),
    )
    schema = schema_of(tuple(features))
    tags = {"schema": schema.digest, "columns": str(len(schema.names))}
    services = (
        _readable(
            FeatureService(
                name=RANKING,
                features=[*views, *on_demand],
                description="every column of the ranker's vector",
                tags=tags,
            ),
            on_demand,
        ),
        FeatureService(name="profile", features=[views[0]], description="what is known of a user"),
    )
    return Catalogue(tuple(entities.values()), views, on_demand, services)


def _readable(service: FeatureService, on_demand: Sequence[OnDemandFeatureView]) -> FeatureService:
    """The service with bare fields for on-demand views.

    Feast 0.67 forgets tags and descriptions when it reads an on-demand view from the registry, and then refuses a
    service whose fields have them.
    """
    plain = {one.name for one in on_demand}
    for projection in service.feature_view_projections:
        if projection.name in plain:
            projection.features = [Field(name=one.name, dtype=one.dtype) for one in projection.features]
    return service


def _fields(features: Sequence[Feature], kind: declaration.Entity) -> list[Field]:
    return [
        Field(name=one.name, dtype=_TYPES[one.dtype], description=one.description, tags=_tags(one))
        for one in features
        if one.entity is kind
    ]


def _tags(feature: Feature) -> dict[str, str]:
    reads = "; ".join(describe(one) for one in feature.aggregations)
    return {"default": f"{feature.default:g}", "reads": reads or "computed at read"}


def _about(kind: declaration.Entity) -> str:
    return {
        declaration.Entity.USER: "a user at the instant of reading",
        declaration.Entity.ITEM: "an item at the instant of reading",
        declaration.Entity.PAIR: "a user against an item at the instant of reading",
        declaration.Entity.RETRIEVAL: "what the candidate sources said, from what the caller passes of it",
        declaration.Entity.REQUEST: "the request itself, from what the caller passes of it",
    }[kind]
