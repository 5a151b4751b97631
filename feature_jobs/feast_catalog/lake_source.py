"""The lake as Feast's batch source: it names where values come from; the offline store reads it itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, override

from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig
from feast.type_map import pa_to_feast_value_type
from feast.value_type import ValueType

from shared.ingest.lake import EVENT_SCHEMA

_CLASS: Final = f"{__name__}.LakeSource"


class LakeSource(DataSource):
    """Every event that was accepted, known from its `enqueued_at` on."""

    def __init__(self) -> None:
        super().__init__(
            name="lake",
            timestamp_field="enqueued_at",
            description="the accepted events of landing and lake; values are replayed from them, never stored",
        )

    @staticmethod
    @override
    def from_proto(data_source: DataSourceProto) -> LakeSource:
        """There is one lake."""
        return LakeSource()

    @override
    def _to_proto_impl(self) -> DataSourceProto:
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.SourceType.CUSTOM_SOURCE,
            custom_options=DataSourceProto.CustomSourceOptions(),
            data_source_class_type=_CLASS,
            timestamp_field=self.timestamp_field,
            description=self.description,
        )

    @override
    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        """A source of our own."""
        return DataSourceProto.SourceType.CUSTOM_SOURCE

    @override
    def validate(self, config: RepoConfig) -> None:
        """Nothing to check: a catalogue may stand before the first event."""

    @staticmethod
    @override
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        """Arrow's names of types, as Feast maps them."""
        return pa_to_feast_value_type

    @override
    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        """The columns of an event."""
        return [(field.name, str(field.type)) for field in EVENT_SCHEMA]
