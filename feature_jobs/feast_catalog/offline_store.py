"""Feast's offline store over the lake: each row's values are replayed from what was known at its instant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, override
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
from feast import FeatureView, OnDemandFeatureView
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from numpy.typing import NDArray

from feature_jobs.feast_catalog.declarations import ITEM_KEY, USER_KEY
from feature_jobs.feast_catalog.values import Key, Moment, features_named
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.user_keys import keyed_with
from shared.errors import ConfigurationError
from shared.events import keyed_user
from shared.features.replay import LoggedEvent, Replay
from shared.features.shard import Shopper
from shared.ingest.lake import read_manifest, read_rows
from shared.ingest.logged_events import in_log_time, logged_events
from shared.ingest.redaction import Redaction, redaction_of_lake, without_erased
from shared.settings import Settings

CLASS_PATH: Final = f"{__name__}.RecommndrOfflineStore"
NOT_STORED: Final = (
    "values are not stored, so there is nothing to materialize or to export: state is folded from events "
    "(feature_jobs.backfill_state), and get_historical_features replays the rows that are wanted"
)


class RecommndrOfflineStoreConfig(FeastConfigBaseModel):
    """`data` is the shop's folder."""

    type: Literal["feature_jobs.feast_catalog.offline_store.RecommndrOfflineStore"] = (
        "feature_jobs.feast_catalog.offline_store.RecommndrOfflineStore"
    )
    data: str


class RecommndrOfflineStore(OfflineStore):
    """Point-in-time values: an event counts for a row if it was enqueued at or before the row's instant."""

    @staticmethod
    @override
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        **_range: datetime | None,
    ) -> RetrievalJob:
        """A job that replays the lake once, in log time, when its rows are asked for.

        Raises ConfigurationError for anything but a data frame of entities.
        """
        if not isinstance(entity_df, pd.DataFrame):
            raise ConfigurationError(
                "rows are replayed for a data frame of user_id, item_id and event_timestamp; there is no SQL here, "
                "and no table of stored values to take a range of"
            )
        asked = [(view, _names_of(view, feature_refs)) for view in feature_views]
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        return ReplayJob(Path(config.offline_store.data), entity_df, asked, on_demand, feature_refs, full_feature_names)

    @staticmethod
    @override
    def pull_latest_from_table_or_query(*_arguments: Any, **_named: Any) -> RetrievalJob:
        """Raises ConfigurationError: there is no table of values."""
        raise ConfigurationError(NOT_STORED)

    @staticmethod
    @override
    def pull_all_from_table_or_query(*_arguments: Any, **_named: Any) -> RetrievalJob:
        """Raises ConfigurationError: there is no table of values."""
        raise ConfigurationError(NOT_STORED)


class ReplayJob(RetrievalJob):
    """The rows of an entity frame, in its order, with the asked features beside them."""

    def __init__(  # noqa: PLR0917 - made in one place
        self,
        data: Path,
        entity_df: pd.DataFrame,
        asked: Sequence[tuple[FeatureView, list[str]]],
        on_demand: list[OnDemandFeatureView],
        feature_refs: list[str],
        full_feature_names: bool,  # noqa: FBT001 - as Feast hands it over
    ) -> None:
        """`asked` are the views with the names of the features wanted of each."""
        self._data = data
        self._frame = entity_df.reset_index(drop=True)
        self._asked = asked
        self._on_demand = on_demand
        self._full = full_feature_names
        stamped = infer_event_timestamp_from_entity_df(dict(entity_df.dtypes))
        self._instants = _epoch_ms(self._frame[stamped], stamped)
        keys = [name for name in self._frame.columns if name != stamped]
        self._metadata = RetrievalMetadata(feature_refs, keys, *_extent(self._frame[stamped]))

    @override
    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        columns = [self._names(view, names) for view, names in self._asked]
        found = [np.empty((len(self._frame), len(names)), dtype=np.float32) for names in columns]
        keys = [_keys_of(self._frame, view) for view, _ in self._asked]
        features = [features_named(names) for _, names in self._asked]
        for moment, rows in moments(self._data, self._instants):
            for place, wanted in enumerate(features):
                found[place][rows] = moment.values(wanted, [keys[place][row] for row in rows])
        frames = [pd.DataFrame(values, columns=names) for values, names in zip(found, columns, strict=True)]
        return pd.concat([self._frame, *frames], axis=1)

    @override
    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return pa.Table.from_pandas(self._to_df_internal(timeout), preserve_index=False)

    def _names(self, view: FeatureView, names: list[str]) -> list[str]:
        return [f"{view.projection.name_to_use()}__{name}" for name in names] if self._full else names

    @property
    @override
    def full_feature_names(self) -> bool:
        """Whether columns are named `view__feature`."""
        return self._full

    @property
    @override
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """What Feast computes from the columns that the caller brought along."""
        return self._on_demand

    @property
    @override
    def metadata(self) -> RetrievalMetadata:
        """What was asked for."""
        return self._metadata


def moments(data: Path, instants: NDArray[np.int64]) -> Iterator[tuple[Moment, list[int]]]:
    """What was known at each distinct instant (epoch ms), ascending, with the places in `instants` that hold it.

    A moment is good until the next one is asked for: one replay moves on through the log.
    """
    order = np.argsort(instants, kind="stable")
    if not len(order):
        return
    redaction = _redaction(data)
    events = _events_until(data, int(instants[order[-1]]), redaction)
    time_zone = _time_zone(data)
    replay, ahead = Replay(), next(events, None)
    starts = np.flatnonzero(np.diff(instants[order], prepend=instants[order[0]] - 1))
    for rows in np.split(order, starts[1:]):
        as_of = int(instants[rows[0]])
        while ahead is not None and ahead.enqueued_at <= as_of:
            replay.fold(ahead)
            ahead = next(events, None)
        yield Moment(as_of, replay.items, partial(_shopper, replay, redaction), time_zone), rows.tolist()


def _shopper(replay: Replay, redaction: Redaction, user_id: str, as_of: int) -> Shopper:
    """Whoever was erased stands under her keyed hash."""
    key = redaction.users.key(user_id) if redaction.users else None
    return replay.users.shopper(user_id if key is None else keyed_user(key), as_of)


def _redaction(data: Path) -> Redaction:
    blobs = FolderBlobStore(data)
    secret = Settings.from_environment(os.environ).user_key_secret
    return redaction_of_lake(blobs, read_manifest(blobs), keyed_with(secret))


def _events_until(data: Path, last_at: int, redaction: Redaction) -> Iterator[LoggedEvent]:
    rows = read_rows(FolderBlobStore(data), until_enqueued_at=last_at)
    return logged_events(in_log_time(without_erased(rows, redaction)))


def _time_zone(data: Path) -> ZoneInfo:
    manifest = read_manifest(FolderBlobStore(data))
    return ZoneInfo("UTC" if manifest is None else manifest.shop.time_zone)


def _names_of(view: FeatureView, feature_refs: Sequence[str]) -> list[str]:
    name = view.projection.name_to_use()
    return [feature for said, _, feature in (ref.partition(":") for ref in feature_refs) if said == name]


def _keys_of(frame: pd.DataFrame, view: FeatureView) -> list[Key]:
    """(user, item) of each row for a view, None where the view has no such entity."""
    join_keys = {column.name for column in view.entity_columns}

    def column(key: str) -> Sequence[str | None]:
        if key not in join_keys:
            return [None] * len(frame)
        named = view.projection.join_key_map.get(key, key)
        if named not in frame.columns:
            raise ConfigurationError(f"the rows lack the column {named}, which view {view.name} is keyed by")
        return [str(value) for value in frame[named]]

    return list(zip(column(USER_KEY), column(ITEM_KEY), strict=True))


def _epoch_ms(column: pd.Series[Any], name: str) -> NDArray[np.int64]:
    stamps = pd.to_datetime(column, utc=True)
    if stamps.isna().any():
        raise ConfigurationError(f"a row without {name} has no instant to be evaluated at")
    return np.asarray(stamps.dt.as_unit("ms").astype("int64"), dtype=np.int64)


def _extent(column: pd.Series[Any]) -> tuple[Any, Any]:
    return (column.min(), column.max()) if len(column) else (None, None)
