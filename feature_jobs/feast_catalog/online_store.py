"""Feast's online store over our Redis state: values are computed when they are read, and nothing is ever written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, override
from zoneinfo import ZoneInfo

from feast import Entity, FeatureView
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig

from feature_jobs.feast_catalog.declarations import ITEM_KEY, USER_KEY
from feature_jobs.feast_catalog.state_reader import StateReader, shopper_of
from feature_jobs.feast_catalog.values import Key, Moment, features_named
from shared.adapters.folder_blob import FolderBlobStore
from shared.adapters.redis_connection import connect
from shared.adapters.redis_releases import RedisReleaseStore
from shared.adapters.redis_shards import RedisShardReader
from shared.errors import ConfigurationError, ReleaseUnavailable
from shared.events import from_ms
from shared.features.definitions import STATE_VERSION
from shared.ingest.partitioning import live_source, with_live
from shared.releases.manifest import read_manifest
from shared.settings import Settings

CLASS_PATH: Final = f"{__name__}.RecommndrOnlineStore"
READ_ONLY: Final = (
    "feature state is written by the fold alone: send events (POST /events) or run feature_jobs.backfill_state; "
    "Feast only reads it"
)
_TIMEOUT_MS: Final = 5000


def now_ms() -> int:
    """Epoch milliseconds by the machine's clock."""
    return time.time_ns() // 1_000_000


class RecommndrOnlineStoreConfig(FeastConfigBaseModel):
    """`data` is the shop's folder; an empty `redis_url` is the setting REDIS_URL, so that no password is in a file."""

    type: Literal["feature_jobs.feast_catalog.online_store.RecommndrOnlineStore"] = (
        "feature_jobs.feast_catalog.online_store.RecommndrOnlineStore"
    )
    data: str
    redis_url: str = ""


class RecommndrOnlineStore(OnlineStore):
    """Evaluates user, item and pair features at the instant of the call, exactly as a page does.

    Feast makes this object from its class path, so this is where a clock enters: `clock` tells epoch ms and may be
    replaced. All views of one call are evaluated at one instant, on one look at the state.
    """

    def __init__(self) -> None:
        self.clock: Callable[[], int] = now_ms
        self._shop: ServedShop | None = None
        self._moment: ContextVar[Moment | None] = ContextVar("moment", default=None)

    @override
    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """One row a key, stamped with the instant of evaluation.

        Raises StateUnavailable, and ReleaseUnavailable where nothing was published.
        """
        keys = [_key_of(one) for one in entity_keys]
        names = requested_features or [field.name for field in table.features]
        with self._look(config, [user for user, _ in keys if user is not None]) as moment:
            values = moment.values(features_named(names), keys)
        at = from_ms(moment.as_of)
        return [
            (at, {name: Value(float_val=value) for name, value in zip(names, row, strict=True)})
            for row in values.tolist()
        ]

    @override
    def _read_features_per_fv(self, config: RepoConfig, grouped_refs: Any, join_key_values: Any, *rest: Any) -> None:
        """Feast's hook for reading several views together: here, at one instant."""
        users = dict.fromkeys(value.string_val for value in join_key_values.get(USER_KEY, ()))
        with self._look(config, list(users)) as moment:
            token = self._moment.set(moment)
            try:
                super()._read_features_per_fv(config, grouped_refs, join_key_values, *rest)
            finally:
                self._moment.reset(token)

    @contextmanager
    def _look(self, config: RepoConfig, user_ids: Sequence[str]) -> Iterator[Moment]:
        held = self._moment.get()
        if held is not None:
            yield held
            return
        if self._shop is None:
            self._shop = open_shop(config.online_store, os.environ)
        with self._shop.state.looking(user_ids) as (table, shards):
            yield Moment(self.clock(), table, partial(shopper_of, shards), self._shop.time_zone)

    @override
    def online_write_batch(self, config: RepoConfig, table: FeatureView, data: Any, progress: Any) -> None:
        """Raises ConfigurationError: nothing is written here."""
        raise ConfigurationError(READ_ONLY)

    @override
    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Registering views changes nothing in Redis."""

    @override
    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Taking the catalogue down deletes nothing of the state."""


@dataclass(frozen=True)
class ServedShop:
    """What a page stands on: the state its release reads, and the shop's time zone."""

    state: StateReader
    time_zone: ZoneInfo


def open_shop(config: RecommndrOnlineStoreConfig, environ: Mapping[str, str]) -> ServedShop:
    """What the release with the most traffic reads.

    Raises ReleaseUnavailable where none has traffic, ConfigurationError, InfrastructureFault.
    """
    settings = Settings.from_environment(environ)
    client = connect(config.redis_url or settings.redis_url, timeout_ms=_TIMEOUT_MS)
    allocation = RedisReleaseStore(client).allocation()
    if allocation is None or not allocation.releases:
        raise ReleaseUnavailable("no release has traffic; run the nightly job first: make nightly")
    release_id, _ = max(allocation.releases, key=lambda one: one[1])
    manifest = read_manifest(FolderBlobStore(Path(config.data)), release_id)
    sources = with_live(manifest.sources, live_source(settings))
    reader = RedisShardReader(client, settings.user_key_secret, STATE_VERSION)
    return ServedShop(StateReader(reader, sources), ZoneInfo(manifest.time_zone))


def _key_of(key: EntityKey) -> Key:
    said = dict(zip(key.join_keys, (value.string_val for value in key.entity_values), strict=True))
    return said.get(USER_KEY), said.get(ITEM_KEY)
